//! Sign-ins: tokens for a name and a password, the next ones, and their end; passwords; and the keys that
//! verify the tokens.

use axum::{
    Json as Answer,
    extract::{FromRequestParts, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::IntoResponse,
};
use serde::Serialize;
use serde_json::Value;
use vaxel_control::{Change, Credentials, Origin, PasswordChange, SignInRow, SignedIn};
use vaxel_core::{
    failure::{Failure, Issue, Kind},
    fields::Fields,
    id::{Id, SignIn},
    secret::Secret,
    time::Timestamp,
};
use vaxel_gateway::{Peer, RequestId};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Json, On, Path, Public, Query},
    problem::Refusal,
};

/// What a sign-in gives.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SignedInView {
    /// Goes with requests as `Authorization: Bearer …`: a JSON Web Token that the keys at
    /// `/.well-known/jwks.json` verify.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6…")]
    pub(crate) access_token: String,
    /// `Bearer`
    token_type: &'static str,
    /// Seconds for which the access token is good.
    #[schema(example = 900)]
    expires_in: u64,
    /// Gets the next two tokens. It is good once: a second use ends the sign-in.
    #[schema(example = "vxr_01937c3e-5a10-7cc3-98c4-dc0c0c07398f_…")]
    refresh_token: String,
    /// The sign-in.
    #[schema(value_type = String, format = "uuid")]
    session: Id<SignIn>,
    /// Who signed in.
    #[schema(example = "anna@example.com")]
    user: String,
    /// The user's roles.
    #[schema(example = json!(["user"]))]
    pub(crate) roles: Vec<String>,
}

impl From<SignedIn> for SignedInView {
    fn from(signed_in: SignedIn) -> Self {
        let SignedIn {
            access,
            expires_in,
            refresh,
            id,
            user,
            permissions: _,
        } = signed_in;
        Self {
            access_token: access.expose().clone(),
            token_type: "Bearer",
            expires_in: expires_in.as_secs(),
            refresh_token: refresh.expose().clone(),
            session: id,
            user: user.name.to_string(),
            roles: user.roles.iter().map(ToString::to_string).collect(),
        }
    }
}

/// A sign-in that holds.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SessionView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<SignIn>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was last renewed.
    #[schema(value_type = String, format = DateTime)]
    last_used_at: Timestamp,
    /// It ends then, if it is not renewed before.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    /// Where it began.
    #[schema(example = "203.0.113.7")]
    address: String,
    /// What the program said it is.
    #[schema(example = "vaxel/1.0.0")]
    agent: String,
    /// The client that was let in, when it is a client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Claude")]
    client: Option<String>,
    /// The endpoint for which it was let in; empty for the whole server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/mcp")]
    endpoint: Option<String>,
    /// It is the one that this request belongs to.
    current: bool,
}

impl SessionView {
    fn of(row: SignInRow, current: Option<Id<SignIn>>) -> Self {
        let SignInRow {
            id,
            user: _,
            created_at,
            last_used_at,
            expires_at,
            ended_at: _,
            address,
            agent,
            family: _,
            refresh: _,
            delegation,
        } = row;
        Self {
            id,
            created_at,
            last_used_at,
            expires_at,
            address,
            agent,
            client: delegation.as_ref().map(|one| one.name.clone()),
            endpoint: delegation.map(|one| one.endpoint),
            current: current == Some(id),
        }
    }
}

/// The sign-ins of a user.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SessionListView {
    /// Newest first.
    items: Vec<SessionView>,
}

/// A name and a password.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which `credentials` reads")]
pub(crate) struct LoginBody {
    /// The user's name.
    #[schema(example = "anna@example.com")]
    username: String,
    /// The user's password.
    #[schema(format = Password)]
    password: String,
    /// Another one from now on: needed when somebody else set the password. 12 to 256 characters.
    #[schema(format = Password, min_length = 12, max_length = 256)]
    new_password: Option<String>,
}

/// A refresh token.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which `renew` reads")]
pub(crate) struct RefreshBody {
    /// As the last answer gave it.
    refresh_token: String,
}

/// Another password.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which `set_password` reads")]
pub(crate) struct PasswordBody {
    /// 12 to 256 characters, neither the user's name nor one that is tried first everywhere.
    #[schema(format = Password, min_length = 12, max_length = 256)]
    password: String,
    /// The one before: needed of one's own.
    #[schema(format = Password)]
    old: Option<String>,
}

/// Whose sign-ins.
pub(crate) struct Whose(Option<String>);

impl FromQuery for Whose {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(fields.string("user"))
    }
}

/// Where a request comes from, and the bearer token that it shows.
pub(crate) struct Sender {
    pub(crate) origin: Origin,
    pub(crate) token: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Sender {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let peer = parts.extensions.get::<Peer>();
        let peer = peer.ok_or_else(|| Failure::internal("a request without an address"))?;
        let text = |headers: &HeaderMap, name| {
            let value = headers.get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let token = text(&parts.headers, header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            is_bearer.then(|| token.trim().to_owned())
        });
        Ok(Self {
            origin: Origin {
                request: parts.extensions.get::<RequestId>().map(|id| id.0),
                address: peer.0.ip(),
                agent: text(&parts.headers, header::USER_AGENT).unwrap_or_default(),
            },
            token,
        })
    }
}

/// Reads `{username, password, new_password?}`.
pub(crate) fn credentials(body: &Value) -> Result<Credentials, Failure> {
    read(body, "The sign-in", |fields| {
        let name = fields.required_string("username");
        let password = fields.required_string("password");
        let new_password = fields.string("new_password");
        Some(Credentials {
            name: name?,
            password: Secret::new(password?),
            new_password: new_password.map(Secret::new),
        })
    })
}

fn read<T>(
    body: &Value,
    what: &str,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Result<T, Failure> {
    let mut issues: Vec<Issue> = Vec::new();
    let read = Fields::read(body, "", &mut issues, read).flatten();
    match read {
        Some(value) if issues.is_empty() => Ok(value),
        _ => Err(Failure::invalid(what, issues)),
    }
}

/// Sign in
///
/// A name and a password become an access token for some minutes and a refresh token. After some wrong
/// passwords none is taken for a while. Who cannot sign in is told the same, whatever the reason.
#[utoipa::path(
    post, path = "/api/v1/auth/login", operation_id = "sign_in", tag = "access",
    request_body = LoginBody, security(()),
    responses(
        (status = 200, description = "The tokens", body = SignedInView),
        (status = 401, description = "Name or password is wrong", body = crate::problem::Problem),
        (status = 403, description = "The password is right and must be changed", body = crate::problem::Problem),
        (status = 429, description = "Too many wrong passwords, or too many at once", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn login(
    _: Public,
    sender: Sender,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<Answer<SignedInView>, Refusal> {
    let signed_in = context
        .control
        .sign_in(credentials(&body)?, sender.origin)
        .await?;
    Ok(Answer(signed_in.into()))
}

/// Get the next tokens of a sign-in
///
/// The refresh token is good once. One that was used before ends its sign-in: somebody has a copy of it.
#[utoipa::path(
    post, path = "/api/v1/auth/refresh", operation_id = "renew_sign_in", tag = "access",
    request_body = RefreshBody, security(()),
    responses(
        (status = 200, description = "The tokens", body = SignedInView),
        (status = 401, description = "The token is not good", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn renew(
    _: Public,
    sender: Sender,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<Answer<SignedInView>, Refusal> {
    let token = read(&body, "The request", |fields| {
        fields.required_string("refresh_token")
    })?;
    let signed_in = context.control.renew(&token, sender.origin).await?;
    Ok(Answer(signed_in.into()))
}

/// Sign out
///
/// Ends the sign-in of the access token that comes with the request.
#[utoipa::path(
    post, path = "/api/v1/auth/logout", operation_id = "sign_out", tag = "access",
    responses(
        (status = 204, description = "Ended"),
        (status = 409, description = "The request came with an API key, which no sign-in belongs to", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn logout(
    Caller(caller): Caller,
    sender: Sender,
    State(context): State<Context>,
) -> Result<StatusCode, Refusal> {
    let id = context.control.sign_in_of(sender.token.as_deref());
    let id = id.ok_or_else(|| {
        let detail = "This request came without a token of a sign-in: there is nothing to end";
        Failure::new(Kind::Conflict, detail)
    })?;
    context
        .control
        .submit(&caller, Change::EndSignIn(id))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List sign-ins
#[utoipa::path(
    get, path = "/api/v1/auth/sessions", operation_id = "list_sign_ins", tag = "access",
    params(("user" = Option<String>, Query, description = "Whose, when not one's own; `users:read`")),
    responses((status = 200, description = "Those that hold", body = SessionListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    sender: Sender,
    State(context): State<Context>,
    Query(Whose(user)): Query<Whose>,
) -> Result<Answer<SessionListView>, Refusal> {
    let current = context.control.sign_in_of(sender.token.as_deref());
    let all = context.control.sign_ins(&caller, user.as_deref()).await?;
    let items = all.into_iter().map(|row| SessionView::of(row, current));
    Ok(Answer(SessionListView {
        items: items.collect(),
    }))
}

/// End a sign-in
///
/// Its tokens are refused from the next request on.
#[utoipa::path(
    delete, path = "/api/v1/auth/sessions/{session}", operation_id = "end_sign_in", tag = "access",
    params(("session" = String, Path, description = "Id"), On),
    responses((status = 204, description = "Ended")),
)]
pub(crate) async fn end(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(session): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    // No sign-in has this id, and who may end none is not told so.
    let id = session
        .parse()
        .unwrap_or_else(|_| Id::new(Timestamp::from_millis(0)));
    let control = context.control.on(terms);
    control.submit(&caller, Change::EndSignIn(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Set a password
///
/// Of one's own with the one before; of others it is good for nothing but to choose another one. All other
/// sign-ins of the user end.
#[utoipa::path(
    put, path = "/api/v1/users/{user}/password", operation_id = "set_user_password", tag = "access",
    params(("user" = String, Path, description = "Name"), On), request_body = PasswordBody,
    responses((status = 204, description = "Set")),
)]
pub(crate) async fn set_password(
    Caller(caller): Caller,
    sender: Sender,
    Path(user): Path<String>,
    On(terms): On,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<StatusCode, Refusal> {
    let keep = context.control.sign_in_of(sender.token.as_deref());
    let change = read(&body, "The password", |fields| {
        let password = fields.required_string("password");
        let old = fields.string("old").map(Secret::new);
        Some(PasswordChange {
            user,
            password: Secret::new(password?),
            old,
            keep,
        })
    })?;
    let control = context.control.on(terms);
    control.submit(&caller, Change::SetPassword(change)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get the keys that verify access tokens
///
/// A JSON Web Key Set (RFC 7517): the key that signs now, the one that will be next, and the one before as
/// long as tokens of it are good.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "get_key_set", tag = "access",
    security(()),
    responses((status = 200, description = "The keys", body = Object)),
)]
pub(crate) async fn key_set(_: Public, State(context): State<Context>) -> impl IntoResponse {
    let headers = [(header::CACHE_CONTROL, "public, max-age=300")];
    (headers, Answer(context.control.key_set()))
}
