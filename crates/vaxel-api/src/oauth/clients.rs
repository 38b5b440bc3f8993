//! Clients that registered themselves, for those who manage users.

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::Serialize;
use vaxel_control::{Change, RegisteredClient};
use vaxel_core::time::Timestamp;

use crate::{
    context::Context,
    extract::{Caller, On, Path},
    problem::Refusal,
};

/// A client that registered itself.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct OauthClientView {
    /// Its `client_id`.
    #[schema(example = "vxc_3jv2WOr5h2Ucr353PfDBmPe0")]
    id: String,
    /// What it calls itself; nobody has proven that.
    #[schema(example = "Claude")]
    name: String,
    /// Where its answers go.
    #[schema(example = json!(["http://127.0.0.1:33418/"]))]
    redirect_uris: Vec<String>,
    /// How it proves who it is.
    #[schema(example = "none")]
    token_endpoint_auth_method: &'static str,
    /// When it registered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When somebody last let it in, or it got a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    used_at: Option<Timestamp>,
}

impl From<RegisteredClient> for OauthClientView {
    fn from(client: RegisteredClient) -> Self {
        let RegisteredClient {
            id,
            name,
            redirects,
            proof,
            created_at,
            used_at,
        } = client;
        Self {
            id,
            name,
            redirect_uris: redirects,
            token_endpoint_auth_method: proof,
            created_at,
            used_at,
        }
    }
}

/// Those that are registered.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct OauthClientListView {
    /// Newest first.
    items: Vec<OauthClientView>,
}

/// List registered OAuth clients
///
/// Those that registered themselves; clients that are named by the address of their description are not kept.
#[utoipa::path(
    get, path = "/api/v1/oauth/clients", operation_id = "list_oauth_clients", tag = "access",
    responses((status = 200, description = "The clients", body = OauthClientListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<OauthClientListView>, Refusal> {
    let all = context.control.registered_clients(&caller).await?;
    Ok(Answer(OauthClientListView {
        items: all.into_iter().map(Into::into).collect(),
    }))
}

/// Remove a registered OAuth client
///
/// Its tokens are refused from the next request on, whosever they are, and it has to register and ask again.
#[utoipa::path(
    delete, path = "/api/v1/oauth/clients/{client}", operation_id = "delete_oauth_client", tag = "access",
    params(("client" = String, Path, description = "Its `client_id`"), On),
    responses((status = 204, description = "Removed")),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(client): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let change = Change::RemoveClient(client);
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}
