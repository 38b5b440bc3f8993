//! Revisions of services: the history, what differs, and the way back.

use axum::{
    Json as Answer,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use vaxel_control::{Change, Diff, List, Page, Revision, RevisionRef, Terms};
use vaxel_core::{
    difference::Difference,
    failure::{Failure, Issue},
    fields::Fields,
    principal::Principal,
    service::ServiceDraft,
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Json, On, Path, Query, page},
    problem::{Refusal, tag},
    services::tagged,
};

/// What was wanted of a service, as it was accepted. Never changes.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RevisionView {
    /// Counts from 1.
    revision: u64,
    /// The names that people gave it.
    #[schema(example = json!(["known-good"]))]
    labels: Vec<String>,
    /// Whether it is what is wanted now.
    current: bool,
    /// Name of the user who wrote it.
    author: String,
    /// What was done: `service.create`, `service.update`, `service.rollback`, …
    #[schema(example = "service.update")]
    action: String,
    /// Why, when that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// All that was wanted; sealed values stand as `secret:` references.
    #[schema(value_type = ServiceDraft)]
    draft: Value,
}

impl From<Revision> for RevisionView {
    fn from(revision: Revision) -> Self {
        let Revision {
            number,
            labels,
            is_current,
            author,
            action,
            message,
            created_at,
            draft,
        } = revision;
        Self {
            revision: number,
            labels,
            current: is_current,
            author,
            action,
            message,
            created_at,
            draft,
        }
    }
}

/// One page of revisions.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct RevisionListView {
    /// Newest first.
    items: Vec<RevisionView>,
    /// Send it as `cursor` to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<List<Revision>> for RevisionListView {
    fn from(List { items, next_cursor }: List<Revision>) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            next_cursor,
        }
    }
}

/// What differs between two revisions.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DiffView {
    /// Number of the one.
    from: u64,
    /// Number of the other.
    to: u64,
    /// Place by place; empty when they say the same.
    differences: Vec<Difference>,
}

impl From<Diff> for DiffView {
    fn from(
        Diff {
            from,
            to,
            differences,
        }: Diff,
    ) -> Self {
        Self {
            from,
            to,
            differences,
        }
    }
}

/// Where to go back to.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(crate) struct RollbackBody {
    /// Number or label of a revision.
    #[schema(value_type = String, example = "known-good")]
    to: String,
}

/// Which revision gets the label.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(crate) struct LabelBody {
    /// Number or label of a revision, or `current`.
    #[schema(value_type = String, example = "3")]
    revision: String,
}

/// Which page.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct RevisionsQuery {
    /// Longest page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// [`RevisionsQuery`], read.
pub(crate) struct Listing(Page);

impl FromQuery for Listing {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        Self(page(fields))
    }
}

/// Which two revisions.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct DiffQuery {
    /// Number or label; default is the one before `to`.
    from: Option<String>,
    /// Number or label, or `current`, which is the default.
    to: Option<String>,
}

/// [`DiffQuery`], read.
pub(crate) struct Pair(Option<RevisionRef>, Option<RevisionRef>);

impl FromQuery for Pair {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let mut one = |key| {
            fields
                .string(key)
                .map(|text| RevisionRef::from(text.as_str()))
        };
        Self(one("from"), one("to"))
    }
}

/// List a service's revisions
///
/// Who wanted what, when and why: newest first, a page at a time.
#[utoipa::path(
    get, path = "/api/v1/services/{service}/revisions", operation_id = "list_service_revisions",
    tag = "revisions", params(("service" = String, Path, description = "Id or name"), RevisionsQuery),
    responses((status = 200, description = "One page", body = RevisionListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(Listing(page)): Query<Listing>,
) -> Result<Answer<RevisionListView>, Refusal> {
    let list = context
        .control
        .revisions(&caller, &service.parse()?, &page)
        .await?;
    Ok(Answer(list.into()))
}

/// Get a revision of a service
#[utoipa::path(
    get, path = "/api/v1/services/{service}/revisions/{revision}",
    operation_id = "get_service_revision", tag = "revisions",
    params(
        ("service" = String, Path, description = "Id or name"),
        ("revision" = String, Path, description = "Number, label or `current`"),
    ),
    responses((status = 200, description = "The revision", body = RevisionView)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path((service, revision)): Path<(String, String)>,
) -> Result<Answer<RevisionView>, Refusal> {
    let (service, revision) = (service.parse()?, revision.as_str().into());
    let found = context
        .control
        .revision(&caller, &service, &revision)
        .await?;
    Ok(Answer(found.into()))
}

/// Compare two revisions of a service
#[utoipa::path(
    get, path = "/api/v1/services/{service}/diff", operation_id = "diff_service_revisions",
    tag = "revisions", params(("service" = String, Path, description = "Id or name"), DiffQuery),
    responses((status = 200, description = "What differs", body = DiffView)),
)]
pub(crate) async fn diff(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Query(Pair(from, to)): Query<Pair>,
) -> Result<Answer<DiffView>, Refusal> {
    let pair = (from.as_ref(), to.as_ref());
    let diff = context
        .control
        .diff(&caller, &service.parse()?, pair)
        .await?;
    Ok(Answer(diff.into()))
}

/// Go back to an earlier revision
///
/// A new revision is written that says what the earlier one said, and it is accepted as any other update
/// would be: name, tags, environment, whether it runs, spec, and the sealed values it had.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/rollback", operation_id = "rollback_service",
    tag = "revisions",
    params(("service" = String, Path, description = "Id or name"), On),
    request_body(content = RollbackBody, example = json!({"to": "known-good"})),
    responses(
        (status = 200, description = "Stored", body = crate::services::ServiceView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn rollback(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let service = service.parse()?;
    let to = revision(&body, "to")?;
    let change = Change::RollBackService { service, to };
    let service = context
        .control
        .on(terms)
        .submit(&caller, change)
        .await?
        .into_service()?;
    Ok(tagged(StatusCode::OK, service))
}

/// Label a revision of a service
///
/// A label belongs to one revision of a service: another one loses it.
#[utoipa::path(
    put, path = "/api/v1/services/{service}/labels/{label}", operation_id = "label_service_revision",
    tag = "revisions",
    params(
        ("service" = String, Path, description = "Id or name"),
        ("label" = String, Path, description = "Such as `known-good`: a-z, 0-9, `-`, `_`, `.`"),
        On,
    ),
    request_body(content = LabelBody, example = json!({"revision": 3})),
    responses((status = 204, description = "Labelled", headers(
        ("ETag" = String, description = "Version of the service"),
    ))),
)]
pub(crate) async fn label(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path((service, label)): Path<(String, String)>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let service = service.parse()?;
    let revision = revision(&body, "revision")?;
    let change = Change::LabelRevision {
        service,
        label,
        revision,
    };
    relabel(&context, &caller, (terms, change)).await
}

/// Take a label from its revision
#[utoipa::path(
    delete, path = "/api/v1/services/{service}/labels/{label}",
    operation_id = "unlabel_service_revision", tag = "revisions",
    params(
        ("service" = String, Path, description = "Id or name"),
        ("label" = String, Path, description = "The label"),
        On,
    ),
    responses((status = 204, description = "No revision has it any more", headers(
        ("ETag" = String, description = "Version of the service"),
    ))),
)]
pub(crate) async fn unlabel(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path((service, label)): Path<(String, String)>,
    On(terms): On,
) -> Result<Response, Refusal> {
    let service = service.parse()?;
    let change = Change::UnlabelRevision { service, label };
    relabel(&context, &caller, (terms, change)).await
}

async fn relabel(
    context: &Context,
    caller: &Principal,
    (terms, change): (Terms, Change),
) -> Result<Response, Refusal> {
    let done = context.control.on(terms).submit(caller, change).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let version = done.into_service()?.resource.version;
    tag(response.headers_mut(), version);
    Ok(response)
}

/// The revision that a body names under `key`: a number, or a text with a number or a label.
fn revision(body: &Value, key: &'static str) -> Result<RevisionRef, Failure> {
    let mut issues = Vec::new();
    let read = Fields::read(body, "", &mut issues, |fields| match fields.value(key) {
        Some(Value::Number(number)) => number.as_u64().map(RevisionRef::Number),
        Some(Value::String(text)) => Some(RevisionRef::from(text.as_str())),
        _ => None,
    });
    let named = read.flatten();
    if named.is_none() && issues.is_empty() {
        issues.push(Issue::new(
            key,
            "must be the number or the label of a revision",
        ));
    }
    match named {
        Some(named) if issues.is_empty() => Ok(named),
        _ => Err(Failure::invalid("The body", issues)),
    }
}
