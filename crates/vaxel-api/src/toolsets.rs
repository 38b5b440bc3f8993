//! Sets: selections of what services offer, each served at an address of its own.

use axum::{
    Json as Answer,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use vaxel_control::{Change, ObservedToolset, ShownOf};
use vaxel_core::{
    failure::{Failure, Issue},
    id::{Id, Toolset},
    time::Timestamp,
    toolset::{Selected, ToolsetDraft, ToolsetResource, View},
};

use crate::{
    context::Context,
    extract::{Caller, Json, On, Path},
    problem::{Refusal, tag},
};

/// A set, and what is seen of its services.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ToolsetView {
    /// Never changes.
    #[schema(value_type = String, format = "uuid")]
    id: Id<Toolset>,
    /// Unique among sets.
    #[schema(example = "work")]
    name: String,
    /// Counts every write; stands in the `ETag`.
    version: u64,
    /// One sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What clients see of its tools.
    view: View,
    /// Where MCP clients find it on this server.
    #[schema(example = "/mcp/sets/work")]
    path: String,
    /// What is in it.
    services: Vec<SelectedView>,
    /// What is wrong with what is stored of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    issues: Vec<Issue>,
    /// First accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Last written.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// What a set takes of one service, and what that comes to.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct SelectedView {
    #[serde(flatten)]
    selected: Selected,
    /// Whether there is such a service now.
    exists: bool,
    /// How much of it is shown now; absent as long as it is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown: Option<ShownView>,
}

/// How much of a service is shown.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ShownView {
    /// Tools.
    tools: usize,
    /// Prompts.
    prompts: usize,
    /// Resources.
    resources: usize,
    /// Templates of resources.
    templates: usize,
}

impl From<ShownOf> for ShownView {
    fn from(shown: ShownOf) -> Self {
        let ShownOf {
            service: _,
            tools,
            prompts,
            resources,
            templates,
        } = shown;
        Self {
            tools,
            prompts,
            resources,
            templates,
        }
    }
}

impl From<ObservedToolset> for ToolsetView {
    fn from(observed: ObservedToolset) -> Self {
        let issues = observed.resource.problems();
        let ToolsetResource {
            id,
            name,
            version,
            description,
            view,
            services,
            created_at,
            updated_at,
            issues: _,
        } = observed.resource;
        let seen = services.into_iter().zip(observed.services);
        let service =
            |(selected, (exists, shown)): (Selected, (bool, Option<ShownOf>))| SelectedView {
                selected,
                exists,
                shown: shown.map(Into::into),
            };
        Self {
            id,
            path: format!("/mcp/sets/{name}"),
            name: name.to_string(),
            version,
            description,
            view,
            services: seen.map(service).collect(),
            issues,
            created_at,
            updated_at,
        }
    }
}

/// Every set.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ToolsetListView {
    /// In the order of their names.
    items: Vec<ToolsetView>,
}

/// List the sets
#[utoipa::path(
    get, path = "/api/v1/toolsets", operation_id = "list_toolsets", tag = "toolsets",
    responses((status = 200, description = "Every set", body = ToolsetListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<ToolsetListView>, Refusal> {
    let all = context.control.toolsets(&caller).await?;
    Ok(Answer(ToolsetListView {
        items: all.into_iter().map(Into::into).collect(),
    }))
}

/// Create a set
///
/// It is served at once. A service that it names does not have to be there yet.
#[utoipa::path(
    post, path = "/api/v1/toolsets", operation_id = "create_toolset", tag = "toolsets",
    params(On),
    request_body(content = ToolsetDraft, example = json!({
        "name": "work",
        "services": [{ "service": "time" }, { "service": "github", "tools": ["list_*", "get_issue"] }]
    })),
    responses(
        (status = 201, description = "Stored and served", body = ToolsetView, headers(
            ("Location" = String, description = "The set"),
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
    let change = Change::CreateToolset(draft(&body)?);
    let toolset = context.control.on(terms).submit(&caller, change).await?;
    let toolset = toolset.into_toolset()?;
    let location = format!("/api/v1/toolsets/{}", toolset.resource.id);
    let mut response = tagged(StatusCode::CREATED, toolset);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Get a set
#[utoipa::path(
    get, path = "/api/v1/toolsets/{toolset}", operation_id = "get_toolset", tag = "toolsets",
    params(("toolset" = String, Path, description = "Id or name")),
    responses((status = 200, description = "The set", body = ToolsetView, headers(
        ("ETag" = String, description = "Its version"),
    ))),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(toolset): Path<String>,
) -> Result<Response, Refusal> {
    let toolset = context.control.toolset(&caller, &toolset.parse()?).await?;
    Ok(tagged(StatusCode::OK, toolset))
}

/// Replace a set
///
/// `If-Match` with the `ETag` of an earlier answer refuses to overwrite what someone else wrote
/// meanwhile. Clients of the set hear which of its lists changed.
#[utoipa::path(
    put, path = "/api/v1/toolsets/{toolset}", operation_id = "update_toolset", tag = "toolsets",
    params(
        ("toolset" = String, Path, description = "Id or name"),
        On,
    ),
    request_body = ToolsetDraft,
    responses(
        (status = 200, description = "Stored and served", body = ToolsetView, headers(
            ("ETag" = String, description = "Its new version"),
        )),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(toolset): Path<String>,
    On(terms): On,
    Json(body): Json,
) -> Result<Response, Refusal> {
    let change = Change::UpdateToolset {
        toolset: toolset.parse()?,
        draft: draft(&body)?,
        expected: terms.expected,
    };
    let toolset = context.control.on(terms).submit(&caller, change).await?;
    Ok(tagged(StatusCode::OK, toolset.into_toolset()?))
}

/// Delete a set
///
/// It is gone; the services that it named stay as they are.
#[utoipa::path(
    delete, path = "/api/v1/toolsets/{toolset}", operation_id = "delete_toolset", tag = "toolsets",
    params(
        ("toolset" = String, Path, description = "Id or name"),
        On,
    ),
    responses((status = 204, description = "Gone")),
)]
pub(crate) async fn delete(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(toolset): Path<String>,
    On(terms): On,
) -> Result<StatusCode, Refusal> {
    let change = Change::DeleteToolset {
        toolset: toolset.parse()?,
        expected: terms.expected,
    };
    context.control.on(terms).submit(&caller, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn draft(body: &serde_json::Value) -> Result<ToolsetDraft, Failure> {
    ToolsetDraft::from_json(body).map_err(|issues| Failure::invalid("The set", issues))
}

/// The set with its version as `ETag`.
fn tagged(status: StatusCode, toolset: ObservedToolset) -> Response {
    let version = toolset.resource.version;
    let mut response = (status, Answer(ToolsetView::from(toolset))).into_response();
    tag(response.headers_mut(), version);
    response
}
