//! OAuth for clients of MCP: metadata, registration, tokens. What people see is in [`pages`], and where their
//! forms go in [`browser`].

use axum::{
    Json as Answer, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, State},
    http::{HeaderMap, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use vaxel_auth::oauth::{client::ClientMetadata, endpoint::Endpoint, metadata};
use vaxel_control::{OauthError, Presented, Tokens};
use vaxel_core::{
    failure::{Failure, Kind, facts},
    secret::Secret,
};

use crate::{
    context::{Config, Context},
    extract::{Path, Public},
    oauth::form::Form,
    problem::Refusal,
    sign_ins::Sender,
};

mod form; // what comes in forms
mod browser; // people at their browsers
mod pages; // what they see
pub(crate) mod clients; // those that are registered
mod upstream; // people on their way to services of others

/// Every path of OAuth; the API's description has none of them, since RFC 9728 and RFC 8414 describe them.
pub(crate) fn router() -> Router<Context> {
    Router::new()
        .route(metadata::RESOURCE_PATH, get(whole_resource))
        .route(
            &format!("{}/{{*path}}", metadata::RESOURCE_PATH),
            get(resource),
        )
        .route(metadata::SERVER_PATH, get(server))
        .route("/.well-known/openid-configuration", get(openid))
        .route("/oauth/register", post(register))
        .route("/oauth/token", post(token))
        .route("/oauth/revoke", post(revoke))
        .route("/oauth/device_authorization", post(device))
        .merge(browser::router())
        .merge(upstream::router())
        // Strangers send these: the limit of bundles is not theirs.
        .layer(DefaultBodyLimit::max(form::LONGEST))
}

/// The address of this server that a request came to: the configured one, or the `Host` that passed the rules.
pub(crate) struct Base(pub(crate) String);

impl FromRequestParts<Context> for Base {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, context: &Context) -> Result<Self, Refusal> {
        context.control.oauth_is_on()?;
        let Config {
            public_url, base, ..
        } = &*context.config;
        let scheme = base.split_once("://").map_or("http", |(scheme, _)| scheme);
        let base = vaxel_gateway::base(public_url.as_deref(), scheme, &parts.headers, &parts.uri);
        let nameless = || Failure::new(Kind::Malformed, "The request names no host");
        Ok(Self(base.ok_or_else(nameless)?))
    }
}

async fn whole_resource(_: Public, Base(base): Base, State(context): State<Context>) -> Response {
    metadata_of(&context, &base, "")
}

async fn resource(
    _: Public,
    Base(base): Base,
    State(context): State<Context>,
    Path(path): Path<String>,
) -> Response {
    metadata_of(&context, &base, &format!("/{path}"))
}

/// Of every name that an endpoint can have: whether there is such a service is not for strangers.
fn metadata_of(context: &Context, base: &str, path: &str) -> Response {
    let Some(endpoint) = Endpoint::at(path) else {
        let detail = "This is no address of an MCP endpoint";
        return Refusal(Failure::new(Kind::NotFound, detail)).into_response();
    };
    let mut document = metadata::of_resource(base, &endpoint, context.control.oauth_issuer(base));
    // Clients compare it with the address that they use: also that of the transport of 2024-11-05.
    document["resource"] = format!("{base}{}", path.trim_end_matches('/')).into();
    open(document)
}

async fn server(_: Public, Base(base): Base, State(context): State<Context>) -> Response {
    open(metadata::of_server(
        &base,
        context.control.oauth_registers(),
    ))
}

async fn openid(_: Public, Base(base): Base, State(context): State<Context>) -> Response {
    let document = metadata::of_server(&base, context.control.oauth_registers());
    open(metadata::as_openid(
        document,
        context.control.token_algorithm(),
    ))
}

async fn register(
    _: Public,
    _: Base,
    sender: Sender,
    State(context): State<Context>,
    body: Bytes,
) -> Result<Response, Told> {
    let metadata = ClientMetadata::of_registration(&body)
        .map_err(|unfit| OauthError::new(unfit.code, unfit.sentence))?;
    let registered = context
        .control
        .register_client(metadata, sender.origin.address)
        .await;
    let registered = registered.map_err(OauthError::from)?;
    let mut document = json!({
        "client_id": registered.id,
        "client_id_issued_at": registered.at.as_millis() / 1_000,
        "client_name": registered.metadata.name,
        "redirect_uris": registered.metadata.redirects,
        "token_endpoint_auth_method": registered.metadata.proof.as_str(),
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if let Some(secret) = registered.secret {
        document["client_secret"] = secret.expose().as_str().into();
        document["client_secret_expires_at"] = 0.into();
    }
    Ok(closed(StatusCode::CREATED, document))
}

async fn token(
    _: Public,
    Base(base): Base,
    sender: Sender,
    headers: HeaderMap,
    State(context): State<Context>,
    form: Form,
) -> Result<Response, Told> {
    let (control, client) = (&context.control, presented(&headers, &form)?);
    let resource = form.get("resource");
    let tokens = match form.get("grant_type") {
        Some("authorization_code") => {
            let code = (
                form.need("code")?,
                form.get("redirect_uri"),
                form.need("code_verifier")?,
            );
            control
                .tokens_for_code(&client, code, (resource, &base, sender.origin))
                .await?
        }
        Some("refresh_token") => {
            let asked = (form.need("refresh_token")?, form.get("scope"), resource);
            control
                .tokens_for_refresh(&client, asked, (&base, sender.origin))
                .await?
        }
        Some(metadata::DEVICE_GRANT) => {
            let code = form.need("device_code")?;
            control
                .tokens_for_device(&client, code, sender.origin)
                .await?
        }
        _ => {
            let sentence = "grant_type is authorization_code, refresh_token or that of devices";
            return Err(OauthError::new("unsupported_grant_type", sentence).into());
        }
    };
    Ok(closed(StatusCode::OK, shown(&tokens)))
}

async fn revoke(
    _: Public,
    _: Base,
    headers: HeaderMap,
    State(context): State<Context>,
    form: Form,
) -> Result<StatusCode, Told> {
    let client = presented(&headers, &form)?;
    context
        .control
        .revoke_token(&client, form.need("token")?)
        .await?;
    Ok(StatusCode::OK)
}

async fn device(
    _: Public,
    Base(base): Base,
    sender: Sender,
    headers: HeaderMap,
    State(context): State<Context>,
    form: Form,
) -> Result<Response, Told> {
    let client = presented(&headers, &form)?;
    let asked = (form.get("scope"), form.get("resource"));
    let started = context
        .control
        .begin_device(&client, asked, (&base, sender.origin))
        .await?;
    let page = format!("{base}{}", browser::DEVICE_PATH);
    let document = json!({
        "device_code": started.device_code.expose(),
        "user_code": started.user_code,
        "verification_uri": page,
        "verification_uri_complete": format!("{page}?user_code={}", started.user_code),
        "expires_in": started.expires_in.as_secs(),
        "interval": started.interval.as_secs(),
    });
    Ok(closed(StatusCode::OK, document))
}

/// Who says it is which client: in the form, or in the head (RFC 6749 §2.3.1).
fn presented(headers: &HeaderMap, form: &Form) -> Result<Presented, Told> {
    let head = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let Some(head) = head else {
        return Ok(Presented {
            id: form.get("client_id").map(str::to_owned),
            secret: form
                .get("client_secret")
                .map(|secret| Secret::new(secret.to_owned())),
        });
    };
    let read = form::basic(head);
    let read = read.filter(|(id, _)| form.get("client_id").is_none_or(|named| named == id));
    let (id, secret) = read.ok_or_else(|| {
        OauthError::new(
            "invalid_client",
            "the Authorization header is not read here",
        )
    })?;
    Ok(Presented {
        id: Some(id),
        // A client without one may show an empty one (RFC 6749 §2.3.1).
        secret: Some(secret)
            .filter(|secret| !secret.is_empty())
            .map(Secret::new),
    })
}

fn shown(tokens: &Tokens) -> Value {
    json!({
        "access_token": tokens.access.expose(),
        "token_type": "Bearer",
        "expires_in": tokens.expires_in.as_secs(),
        "refresh_token": tokens.refresh.expose(),
        "scope": tokens.scope,
        "username": tokens.user,
    })
}

/// What everyone may read and keep for a moment.
fn open(document: Value) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "public, max-age=60"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, Answer(document)).into_response()
}

/// What is for one client only.
fn closed(status: StatusCode, document: Value) -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::PRAGMA, "no-cache"),
    ];
    (status, headers, Answer(document)).into_response()
}

/// A refusal in the form of RFC 6749 §5.2.
pub(crate) struct Told(OauthError);

impl From<OauthError> for Told {
    fn from(error: OauthError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let OauthError {
            code,
            sentence,
            failure,
        } = self.0;
        let status = match (&failure, code) {
            (_, "invalid_client") => StatusCode::UNAUTHORIZED,
            (None, _) => StatusCode::BAD_REQUEST,
            (Some(failure), _) => {
                if facts(failure.kind).status >= 500 {
                    tracing::error!(
                        cause = failure.cause.as_deref().map(tracing::field::display),
                        "OAuth failed: {failure}"
                    );
                }
                StatusCode::from_u16(facts(failure.kind).status).unwrap_or(StatusCode::BAD_REQUEST)
            }
        };
        let mut response = closed(
            status,
            json!({ "error": code, "error_description": sentence }),
        );
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Basic realm=\"vaxel\""),
            );
        }
        if let Some(seconds) = failure.and_then(|failure| failure.retry_after) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The query of a request, as it came.
pub(crate) fn query(uri: &Uri) -> &str {
    uri.query().unwrap_or_default()
}
