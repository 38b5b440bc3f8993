//! How a user stands with a service of somebody else that wants to know whose data it shows.

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::Serialize;
use vaxel_control::{AuthorizationState, Change};

use crate::{
    context::Context,
    extract::{Caller, On, Path},
    problem::Refusal,
};

/// How the caller stands with a service.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct AuthorizationView {
    /// `granted`; `needed`, then `link` says where; `shared`, where all callers share Vaxel's own tokens.
    #[schema(example = "needed")]
    state: &'static str,
    /// Who gives tokens, once that was found out.
    #[schema(example = "https://login.example.com")]
    issuer: Option<String>,
    /// What the token lets through.
    scopes: Vec<String>,
    /// Where the caller logs in, with a browser; good for ten minutes.
    link: Option<String>,
}

impl From<AuthorizationState> for AuthorizationView {
    fn from(state: AuthorizationState) -> Self {
        let AuthorizationState {
            is_shared,
            is_granted,
            issuer,
            scopes,
            link,
        } = state;
        let state = match (is_shared, is_granted) {
            (true, _) => "shared",
            (false, true) => "granted",
            (false, false) => "needed",
        };
        Self {
            state,
            issuer,
            scopes,
            link,
        }
    }
}

/// See whether a service lets you in
///
/// For services with `source.mcp.auth.oauth`. The log-in is the caller's own; nobody else's calls use it.
#[utoipa::path(
    get, path = "/api/v1/services/{service}/authorization",
    operation_id = "get_service_authorization", tag = "services",
    params(("service" = String, Path, description = "Id or name")),
    responses(
        (status = 200, description = "How you stand", body = AuthorizationView),
        (status = 409, description = "It wants no log-in", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<AuthorizationView>, Refusal> {
    let service = service.parse()?;
    let state = context.control.upstream_authorization(&caller, &service);
    Ok(Answer(state.await?.into()))
}

/// Forget your log-in at a service
///
/// The next call asks for another one. At the service itself the log-in stays until it ends.
#[utoipa::path(
    delete, path = "/api/v1/services/{service}/authorization",
    operation_id = "forget_service_authorization", tag = "services",
    params(("service" = String, Path, description = "Id or name"), On),
    responses(
        (status = 204, description = "Forgotten, if there was one"),
        (status = 409, description = "It wants no log-in", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn forget(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let service = service.parse()?;
    let change = Change::ForgetAuthorization(service);
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}
