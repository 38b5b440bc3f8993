//! Grants: services that are shared with users and roles.

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use vaxel_control::{AccessEntry, Change, GrantChange, GrantEntry};
use vaxel_core::{
    failure::Failure,
    grant::{GrantDraft, GrantResource, Grantee},
    id::{Grant, Id, Service},
    principal::Permissions,
    time::Timestamp,
};

use crate::{
    access::tagged,
    context::Context,
    extract::{Caller, Json, On, Path},
    problem::Refusal,
};

/// A grant.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct GrantView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<Grant>,
    /// With whom: `user:NAME` or `role:NAME`.
    #[schema(value_type = String, example = "role:analyst")]
    to: Grantee,
    /// What is shared.
    #[schema(example = "files")]
    service: String,
    /// Its id.
    #[schema(value_type = String, format = "uuid")]
    service_id: Id<Service>,
    /// What they may do with it.
    #[schema(value_type = Vec<String>, example = json!(["mcp:read", "mcp:execute"]))]
    permissions: Permissions,
    /// Who shared it.
    granted_by: String,
    /// From when on.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<GrantEntry> for GrantView {
    fn from(entry: GrantEntry) -> Self {
        let GrantResource {
            id,
            to,
            service: service_id,
            permissions,
            granted_by,
            created_at,
        } = entry.resource;
        Self {
            id,
            to,
            service: entry.service,
            service_id,
            permissions,
            granted_by,
            created_at,
        }
    }
}

/// The grants that the caller may see.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct GrantListView {
    /// Oldest first.
    items: Vec<GrantView>,
}

/// List the grants
///
/// All of them with `access:read`; otherwise those of services that the caller manages, and its own.
#[utoipa::path(
    get, path = "/api/v1/grants", operation_id = "list_grants", tag = "access",
    responses((status = 200, description = "The grants", body = GrantListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<GrantListView>, Refusal> {
    let all = context.control.grants(&caller).await?;
    Ok(Answer(GrantListView {
        items: all.into_iter().map(Into::into).collect(),
    }))
}

/// Share a service
///
/// Whoever manages the service can do it, with what they may do themselves.
#[utoipa::path(
    post, path = "/api/v1/grants", operation_id = "create_grant", tag = "access",
    params(On), request_body = GrantDraft,
    responses(
        (status = 201, description = "Shared", body = GrantView, headers(
            ("Location" = String, description = "The grant"),
        )),
        (status = 409, description = "It is shared with them already", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let draft =
        GrantDraft::from_json(&body).map_err(|issues| Failure::invalid("The grant", issues))?;
    let change = Change::Grant(GrantChange::Create(draft));
    let outcome = context.control.on(terms).submit(&caller, change).await?;
    let AccessEntry::Grant(grant) = outcome.into_access()? else {
        return Err(Failure::internal("the change answers no grant").into());
    };
    let place = format!("/api/v1/grants/{}", grant.resource.id);
    Ok(tagged(None, Some(place), GrantView::from(grant)))
}

/// Get a grant
#[utoipa::path(
    get, path = "/api/v1/grants/{grant}", operation_id = "get_grant", tag = "access",
    params(("grant" = String, Path, description = "Id")),
    responses((status = 200, description = "The grant", body = GrantView)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(grant): Path<String>,
) -> Result<Answer<GrantView>, Refusal> {
    let grant = context.control.grant(&caller, &grant).await?;
    Ok(Answer(grant.into()))
}

/// End a grant
#[utoipa::path(
    delete, path = "/api/v1/grants/{grant}", operation_id = "delete_grant", tag = "access",
    params(("grant" = String, Path, description = "Id"), On),
    responses((status = 204, description = "Ended")),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(id): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let change = Change::Grant(GrantChange::Delete { id });
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}
