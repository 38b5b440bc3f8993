//! Policies: rules about services, tools and arguments that stand above roles and grants.

use axum::{Json as Answer, extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use vaxel_control::{AccessEntry, Change, Outcome, PolicyChange};
use vaxel_core::{
    failure::{Failure, Issue},
    id::{Id, Policy},
    policy::{PolicyDraft, PolicyResource},
    time::Timestamp,
};

use crate::{
    access::tagged,
    context::Context,
    extract::{Caller, Json, On, Path},
    problem::Refusal,
};

/// A policy.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PolicyView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<Policy>,
    /// Counts every write; stands in the `ETag`.
    version: u64,
    #[serde(flatten)]
    draft: PolicyDraft,
    /// First accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Last written.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Why what is stored cannot be read. Such a policy denies everything, until it is replaced or deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issues: Vec<Issue>,
}

impl From<PolicyResource> for PolicyView {
    fn from(policy: PolicyResource) -> Self {
        let PolicyResource {
            id,
            version,
            draft,
            created_at,
            updated_at,
            issues,
        } = policy;
        Self {
            id,
            version,
            draft,
            created_at,
            updated_at,
            issues,
        }
    }
}

/// Every policy.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct PolicyListView {
    /// In the order of their names.
    items: Vec<PolicyView>,
}

/// List the policies
#[utoipa::path(
    get, path = "/api/v1/policies", operation_id = "list_policies", tag = "access",
    responses((status = 200, description = "Every policy", body = PolicyListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<PolicyListView>, Refusal> {
    let all = context.control.policies(&caller).await?;
    Ok(Answer(PolicyListView {
        items: all.into_iter().map(Into::into).collect(),
    }))
}

/// Create a policy
///
/// It holds at once, everywhere. What it allows, whoever makes it must be allowed everywhere.
#[utoipa::path(
    post, path = "/api/v1/policies", operation_id = "create_policy", tag = "access",
    params(On),
    request_body(content = PolicyDraft, example = json!({
        "name": "no-deletes", "effect": "deny", "environments": ["prod"], "tools": ["delete_*"]
    })),
    responses(
        (status = 201, description = "Stored", body = PolicyView, headers(
            ("Location" = String, description = "The policy"),
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
    let change = Change::Policy(PolicyChange::Create(draft(&body)?));
    let policy = written(context.control.on(terms).submit(&caller, change).await?)?;
    let place = format!("/api/v1/policies/{}", policy.id);
    Ok(shown(policy, Some(place)))
}

/// Get a policy
#[utoipa::path(
    get, path = "/api/v1/policies/{policy}", operation_id = "get_policy", tag = "access",
    params(("policy" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The policy", body = PolicyView, headers(
        ("ETag" = String, description = "Its version"),
    ))),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(policy): Path<String>,
) -> Result<Response, Refusal> {
    Ok(shown(context.control.policy(&caller, &policy).await?, None))
}

/// Replace a policy
#[utoipa::path(
    put, path = "/api/v1/policies/{policy}", operation_id = "update_policy", tag = "access",
    params(("policy" = String, Path, description = "Id or name"), On),
    request_body = PolicyDraft,
    responses(
        (status = 200, description = "Stored", body = PolicyView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(policy): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::Policy(PolicyChange::Update {
        policy,
        draft: draft(&body)?,
        expected: terms.expected,
    });
    let policy = written(context.control.on(terms).submit(&caller, change).await?)?;
    Ok(shown(policy, None))
}

/// Delete a policy
#[utoipa::path(
    delete, path = "/api/v1/policies/{policy}", operation_id = "delete_policy", tag = "access",
    params(("policy" = String, Path, description = "Id or name"), On),
    responses((status = 204, description = "Gone")),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(policy): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let expected = terms.expected;
    let change = Change::Policy(PolicyChange::Delete { policy, expected });
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn draft(body: &serde_json::Value) -> Result<Box<PolicyDraft>, Failure> {
    let draft = PolicyDraft::from_json(body);
    draft
        .map(Box::new)
        .map_err(|issues| Failure::invalid("The policy", issues))
}

fn written(outcome: Outcome) -> Result<PolicyResource, Failure> {
    match outcome.into_access()? {
        AccessEntry::Policy(policy) => Ok(policy),
        _ => Err(Failure::internal("the change answers no policy")),
    }
}

fn shown(policy: PolicyResource, place: Option<String>) -> Response {
    tagged(Some(policy.version), place, PolicyView::from(policy))
}
