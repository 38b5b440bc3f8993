//! The `HappyOS` Service Registry: `POST /register`, `GET /services`, `GET /service/{id}/tools`;
//! and its Auth Service: `POST /authenticate`, `GET /validate`.

use axum::{
    Extension, Json as Answer, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Map, Value, json};
use url::Url;
use vaxel_control::{Change, Observed, OfferKind, ServiceFilter, ServiceRef, TokenRefused};
use vaxel_core::{
    failure::{Failure, Kind},
    fields::Fields,
    principal::Principal,
    service::{HttpSource, HttpTool, ServiceDraft, ServiceResource, Source},
    status::Health,
};

use vaxel_gateway::Identity;

use super::{Told, devq, service_name};
use crate::{
    context::Context,
    extract::{Caller, FromQuery, Json, Path, Public, Query},
    sign_ins::{self, Sender, SignedInView},
};

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/register", post(register))
        .route("/services", get(services))
        .route("/service/{service}/tools", get(tools))
        .route("/authenticate", post(authenticate))
        .route("/validate", get(validate))
}

/// A token for a name and a password.
async fn authenticate(
    _: Public,
    sender: Sender,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<Answer<Value>, Told> {
    let credentials = sign_ins::credentials(&body)?;
    let signed_in = context.control.sign_in(credentials, sender.origin).await?;
    let view = SignedInView::from(signed_in);
    let token = view.access_token.clone();
    let mut answer = serde_json::to_value(view).map_err(Failure::internal)?;
    answer["token"] = json!(token);
    Ok(Answer(answer))
}

/// Whether the credential is good, whose it is, and whether its user has a role (`?role=`).
async fn validate(
    _: Public,
    sender: Sender,
    Extension(Identity(identity)): Extension<Identity>,
    State(context): State<Context>,
    Query(Required(role)): Query<Required>,
) -> Response {
    let refused = |status: StatusCode, detail: &str| {
        let bearer = [(header::WWW_AUTHENTICATE, "Bearer")];
        let body = Answer(json!({ "detail": detail }));
        match status {
            StatusCode::UNAUTHORIZED => (status, bearer, body).into_response(),
            status => (status, body).into_response(),
        }
    };
    let Ok(caller) = identity else {
        let why = sender.token.map(|token| context.control.bearer(&token));
        let detail = match why {
            None => "Not authenticated",
            Some(Err(TokenRefused::Expired)) => "Token expired",
            Some(_) => "Invalid token",
        };
        return refused(StatusCode::UNAUTHORIZED, detail);
    };
    let roles: Vec<&str> = caller.rights.role_names().collect();
    if role.is_some_and(|role| !roles.contains(&role.as_str())) {
        return refused(StatusCode::FORBIDDEN, "Insufficient permissions");
    }
    Answer(json!({ "valid": true, "user": &*caller.name, "roles": roles })).into_response()
}

/// The role that a caller must have.
struct Required(Option<String>);

impl FromQuery for Required {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(fields.string("role"))
    }
}

/// Registers a service, or says that it still lives: what is as it was is only heard.
async fn register(
    Caller(caller): Caller,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<Answer<Value>, Told> {
    let draft = draft(&body, &context)?;
    let has_lease = draft.spec.lease.is_some();
    let service = ServiceRef::Name(draft.name.clone());
    match context.control.service(&caller, &service).await {
        Ok(old) => {
            let (before, expected) = (old.resource.spec.clone(), old.resource.version);
            let draft = registered_again(draft, old.resource)?;
            if draft.spec != before {
                let change = Change::UpdateService {
                    service: service.clone(),
                    draft: Box::new(draft),
                    expected: Some(expected),
                };
                context.control.submit(&caller, change).await?;
            }
        }
        Err(failure) if failure.kind == Kind::UnknownService => {
            let change = Change::CreateService(Box::new(draft));
            context.control.submit(&caller, change).await?;
        }
        Err(failure) => return Err(failure.into()),
    }
    if has_lease {
        context.control.heartbeat(&caller, &service).await?;
    }
    Ok(Answer(json!({ "status": "registered" })))
}

/// What a service that was registered before becomes: it says where it is and what it offers; everything
/// else is the operator's, and stays. A service of another kind is nobody's to register.
fn registered_again(new: ServiceDraft, old: ServiceResource) -> Result<ServiceDraft, Told> {
    let mut next = ServiceDraft::from(old);
    match (&mut next.spec.source, new.spec.source) {
        (Source::Http(kept), Source::Http(told)) => {
            let headers = std::mem::take(&mut kept.headers);
            *kept = HttpSource { headers, ..told };
        }
        (other, _) => {
            let (name, kind) = (&next.name, other.kind());
            let sentence = format!(
                "`{name}` is a service of the kind {kind} already: register under another id"
            );
            return Err(Told::new(StatusCode::CONFLICT, sentence));
        }
    }
    next.spec.lease = new.spec.lease.or(next.spec.lease);
    Ok(next)
}

fn draft(body: &Value, context: &Context) -> Result<ServiceDraft, Told> {
    let missing = |field: &str| {
        let sentence = format!("`{field}` is missing");
        Told::new(StatusCode::UNPROCESSABLE_ENTITY, sentence)
    };
    let id = body["id"].as_str().ok_or_else(|| missing("id"))?;
    let text = body["url"].as_str().ok_or_else(|| missing("url"))?;
    let url: Url = text.parse().map_err(|error| {
        Told::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("`url` is no URL: {error}"),
        )
    })?;
    let name = service_name(id)?;
    let mut spec = json!({ "source": { "http": {
        "instances": [{ "host": url.host_str(), "port": url.port_or_known_default() }],
        "scheme": url.scheme(), "base_path": url.path(),
        "tools": body.get("tools").filter(|tools| !tools.is_null()).unwrap_or(&json!([])),
    } } });
    if let Some(path) = body["health_url"].as_str() {
        // A path, or the whole address.
        let path = path
            .parse()
            .map_or_else(|_| path.to_owned(), |url: Url| url.path().to_owned());
        spec["source"]["http"]["health_path"] = json!(path);
    }
    if name.as_str() != id {
        spec["title"] = json!(id);
    }
    let ttl = body["ttl"].as_u64();
    let seconds = ttl.or_else(|| Some(context.control.default_lease()?.as_secs()));
    if let Some(seconds) = seconds {
        spec["lease"] = json!(format!("{seconds}s"));
    }
    let draft = json!({ "name": name, "tags": ["registered"], "spec": spec });
    Ok(
        ServiceDraft::from_json(&draft)
            .map_err(|issues| Failure::invalid("The service", issues))?,
    )
}

async fn services(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<Map<String, Value>>, Told> {
    let filter = ServiceFilter {
        source: Some("http".to_owned()),
        ..ServiceFilter::default()
    };
    let all = devq::all_services(&context, &caller, &filter).await?;
    let shown = all.iter().filter_map(|one| shown(one, &context));
    Ok(Answer(shown.collect()))
}

fn shown(observed: &Observed, context: &Context) -> Option<(String, Value)> {
    let resource = &observed.resource;
    let Source::Http(http) = &resource.spec.source else {
        return None;
    };
    let healthy = matches!(
        observed.status.health,
        Health::Healthy | Health::Degraded | Health::Starting
    );
    let seen = context
        .control
        .last_seen(resource.id)
        .unwrap_or(resource.updated_at);
    let service = json!({
        "url": http.base_url(0),
        "tools": names(http),
        "health_url": http.health_path,
        "last_seen": seen,
        "status": if healthy { "healthy" } else { "unhealthy" },
    });
    let id = resource
        .spec
        .title
        .clone()
        .unwrap_or_else(|| resource.name.to_string());
    Some((id, service))
}

fn names(http: &HttpSource) -> Vec<&str> {
    http.tools.iter().map(HttpTool::name).collect()
}

/// The tools of a service; of one that is not known, none, as that registry says.
async fn tools(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<Vec<String>>, Told> {
    let service = ServiceRef::Name(service_name(&service)?);
    match context.control.service(&caller, &service).await {
        Ok(found) => {
            let names = match &found.resource.spec.source {
                Source::Http(http) => names(http).into_iter().map(str::to_owned).collect(),
                _ => offered(&context, &caller, &service).await?,
            };
            Ok(Answer(names))
        }
        Err(failure) if failure.kind == Kind::UnknownService => Ok(Answer(Vec::new())),
        Err(failure) => Err(failure.into()),
    }
}

async fn offered(
    context: &Context,
    caller: &Principal,
    service: &ServiceRef,
) -> Result<Vec<String>, Told> {
    let offers = context
        .control
        .offers(caller, service, OfferKind::Tools)
        .await?;
    Ok(offers
        .items
        .iter()
        .map(|tool| tool.own.to_string())
        .collect())
}
