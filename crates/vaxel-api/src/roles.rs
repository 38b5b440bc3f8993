//! Roles: named sets of permissions.

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use vaxel_control::{AccessEntry, Change, Outcome, RoleChange, RoleEntry};
use vaxel_core::{
    failure::Failure,
    quota::Quota,
    role::{Reach, RoleDraft},
    time::Timestamp,
};

use crate::{
    access::tagged,
    context::Context,
    extract::{Caller, Json, On, Path},
    problem::Refusal,
};

/// A role.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RoleView {
    /// Unique; never changes.
    #[schema(example = "analyst")]
    name: String,
    /// It is always there and stays as it is.
    built_in: bool,
    /// Counts every write; stands in the `ETag`. Absent for what is built in.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// One sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What it allows.
    #[schema(value_type = Vec<String>, example = json!(["mcp:read", "mcp:write:own"]))]
    permissions: Reach,
    /// How much its users may take; what is absent has no limit.
    limits: Quota,
    /// First accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
    /// Last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
}

impl From<RoleEntry> for RoleView {
    fn from(role: RoleEntry) -> Self {
        let RoleEntry {
            name,
            description,
            permissions,
            limits,
            stored,
        } = role;
        Self {
            name,
            built_in: stored.is_none(),
            version: stored.map(|(version, _, _)| version),
            description,
            permissions,
            limits,
            created_at: stored.map(|(_, created_at, _)| created_at),
            updated_at: stored.map(|(_, _, updated_at)| updated_at),
        }
    }
}

/// Every role.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RoleListView {
    /// Those that are built in, then the others by name.
    items: Vec<RoleView>,
}

/// List the roles
#[utoipa::path(
    get, path = "/api/v1/roles", operation_id = "list_roles", tag = "access",
    responses((status = 200, description = "Every role", body = RoleListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<RoleListView>, Refusal> {
    let all = context.control.roles(&caller).await?;
    Ok(Answer(RoleListView {
        items: all.into_iter().map(Into::into).collect(),
    }))
}

/// Create a role
///
/// It cannot allow more than whoever makes it may do.
#[utoipa::path(
    post, path = "/api/v1/roles", operation_id = "create_role", tag = "access",
    params(On), request_body = RoleDraft,
    responses(
        (status = 201, description = "Stored", body = RoleView, headers(
            ("Location" = String, description = "The role"),
            ("ETag" = String, description = "Its version"),
        )),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::Role(RoleChange::Create(draft(&body)?));
    let role = written(context.control.on(terms).submit(&caller, change).await?)?;
    let place = format!("/api/v1/roles/{}", role.name);
    Ok(shown(role, Some(place)))
}

/// Get a role
#[utoipa::path(
    get, path = "/api/v1/roles/{role}", operation_id = "get_role", tag = "access",
    params(("role" = String, Path, description = "Name")),
    responses((status = 200, description = "The role", body = RoleView, headers(
        ("ETag" = String, description = "Its version"),
    ))),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(role): Path<String>,
) -> Result<Response, Refusal> {
    Ok(shown(context.control.role(&caller, &role).await?, None))
}

/// Replace a role
///
/// What its users may do changes at once, everywhere. Its name never changes.
#[utoipa::path(
    put, path = "/api/v1/roles/{role}", operation_id = "update_role", tag = "access",
    params(("role" = String, Path, description = "Name"), On),
    request_body = RoleDraft,
    responses(
        (status = 200, description = "Stored", body = RoleView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "It is built in", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::Role(RoleChange::Update {
        name,
        draft: draft(&body)?,
        expected: terms.expected,
    });
    let role = written(context.control.on(terms).submit(&caller, change).await?)?;
    Ok(shown(role, None))
}

/// Delete a role
///
/// What is shared with it goes with it. Nobody may have it any more.
#[utoipa::path(
    delete, path = "/api/v1/roles/{role}", operation_id = "delete_role", tag = "access",
    params(("role" = String, Path, description = "Name"), On),
    responses(
        (status = 204, description = "Gone"),
        (status = 409, description = "It is in use, or built in", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let expected = terms.expected;
    let change = Change::Role(RoleChange::Delete { name, expected });
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn draft(body: &serde_json::Value) -> Result<RoleDraft, Failure> {
    RoleDraft::from_json(body).map_err(|issues| Failure::invalid("The role", issues))
}

fn written(outcome: Outcome) -> Result<RoleEntry, Failure> {
    match outcome.into_access()? {
        AccessEntry::Role(role) => Ok(role),
        _ => Err(Failure::internal("the change answers no role")),
    }
}

fn shown(role: RoleEntry, place: Option<String>) -> Response {
    let version = role.stored.map(|(version, _, _)| version);
    tagged(version, place, RoleView::from(role))
}
