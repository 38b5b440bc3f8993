//! Users: people and programs, and the roles that they have.

use std::collections::BTreeSet;

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use vaxel_control::{AccessEntry, Change, Outcome, Terms, UserChange};
use vaxel_core::{
    failure::Failure,
    fields::Fields,
    id::{Id, User},
    name::{RoleName, UserName},
    quota::Quota,
    time::Timestamp,
    user::{UserDraft, UserKind, UserResource},
};

use crate::{
    access::tagged,
    context::Context,
    extract::{Caller, FromQuery, IfMatch, Json, On, Path, Query},
    problem::Refusal,
};

/// A user.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct UserView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<User>,
    /// Never changes, and is never given to another one.
    #[schema(value_type = String, example = "anna@example.com")]
    name: UserName,
    /// A person or a program.
    kind: UserKind,
    /// Counts every write; stands in the `ETag`.
    version: u64,
    /// The name that people read.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// What it may do is what these allow.
    #[schema(value_type = Vec<String>, example = json!(["user"]))]
    roles: BTreeSet<RoleName>,
    /// How much it may take, in the place of all that its roles say; what is absent has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Quota>,
    /// Refused everywhere, whatever it shows.
    disabled: bool,
    /// First accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Last written.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<UserResource> for UserView {
    fn from(user: UserResource) -> Self {
        let UserResource {
            id,
            name,
            kind,
            version,
            title,
            roles,
            limits,
            disabled,
            created_at,
            updated_at,
            deleted_at: _,
        } = user;
        Self {
            id,
            name,
            kind,
            version,
            title,
            roles,
            limits,
            disabled,
            created_at,
            updated_at,
        }
    }
}

/// Every user.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct UserListView {
    /// In the order of their names.
    items: Vec<UserView>,
}

/// What a deletion says beside the user.
pub(crate) struct Deletion {
    transfer_to: Option<UserName>,
    message: Option<String>,
}

impl FromQuery for Deletion {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self {
            transfer_to: fields.parsed("transfer_to"),
            message: fields.string("message"),
        }
    }
}

/// List the users
#[utoipa::path(
    get, path = "/api/v1/users", operation_id = "list_users", tag = "access",
    responses((status = 200, description = "Every user", body = UserListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<UserListView>, Refusal> {
    let all = context.control.users(&caller).await?;
    Ok(Answer(UserListView {
        items: all.into_iter().map(Into::into).collect(),
    }))
}

/// Create a user
#[utoipa::path(
    post, path = "/api/v1/users", operation_id = "create_user", tag = "access",
    params(On), request_body = UserDraft,
    responses(
        (status = 201, description = "Stored", body = UserView, headers(
            ("Location" = String, description = "The user"),
            ("ETag" = String, description = "Its version"),
        )),
        (status = 409, description = "The name is taken, or was", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::User(UserChange::Create(draft(&body)?));
    let user = written(context.control.on(terms).submit(&caller, change).await?)?;
    let place = format!("/api/v1/users/{}", user.name);
    Ok(tagged(
        Some(user.version),
        Some(place),
        UserView::from(user),
    ))
}

/// Get a user
#[utoipa::path(
    get, path = "/api/v1/users/{user}", operation_id = "get_user", tag = "access",
    params(("user" = String, Path, description = "Name")),
    responses((status = 200, description = "The user", body = UserView, headers(
        ("ETag" = String, description = "Its version"),
    ))),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(user): Path<String>,
) -> Result<Response, Refusal> {
    let user = context.control.user(&caller, &user).await?;
    Ok(tagged(Some(user.version), None, UserView::from(user)))
}

/// Replace a user
///
/// Name and kind never change. What it may do changes at once, everywhere.
#[utoipa::path(
    put, path = "/api/v1/users/{user}", operation_id = "update_user", tag = "access",
    params(("user" = String, Path, description = "Name"), On),
    request_body = UserDraft,
    responses(
        (status = 200, description = "Stored", body = UserView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "Nobody would be left who may do everything",
            body = crate::problem::Problem),
    ),
)]
pub(crate) async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::User(UserChange::Update {
        name,
        draft: draft(&body)?,
        expected: terms.expected,
    });
    let user = written(context.control.on(terms).submit(&caller, change).await?)?;
    Ok(tagged(Some(user.version), None, UserView::from(user)))
}

/// Delete a user
///
/// Its keys and what is shared with it go with it; its name stays taken.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}", operation_id = "delete_user", tag = "access",
    params(
        ("user" = String, Path, description = "Name"),
        ("transfer_to" = Option<String>, Query, description = "The user who gets its services; without this it must own none"),
        On,
    ),
    responses(
        (status = 204, description = "Gone"),
        (status = 409, description = "It owns services, or nobody would be left who may do everything",
            body = crate::problem::Problem),
    ),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(deletion): Query<Deletion>,
    IfMatch(expected): IfMatch,
) -> Result<StatusCode, Refusal> {
    let change = Change::User(UserChange::Delete {
        name,
        transfer_to: deletion.transfer_to,
        expected,
    });
    let terms = Terms {
        expected,
        message: deletion.message,
    };
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn draft(body: &serde_json::Value) -> Result<UserDraft, Failure> {
    UserDraft::from_json(body).map_err(|issues| Failure::invalid("The user", issues))
}

fn written(outcome: Outcome) -> Result<UserResource, Failure> {
    match outcome.into_access()? {
        AccessEntry::User(user) => Ok(user),
        _ => Err(Failure::internal("the change answers no user")),
    }
}
