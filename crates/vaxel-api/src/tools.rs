//! What services offer (tools, prompts, resources, templates), and calling a tool without MCP.

use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use vaxel_control::{
    List, Offer, OfferKind, Offers, Page, ToolInput, ToolQuery, ToolReply, ToolTarget,
};
use vaxel_core::{
    failure::Failure,
    fields::Fields,
    id::{Call, Id},
    quantity::Span,
    time::Timestamp,
};

use crate::{
    context::Context,
    extract::{Caller, FromQuery, Path, Query, RawJson, malformed, page},
    problem::Refusal,
};

/// Something that a service offers.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct OfferView {
    /// Its name at the federated endpoint.
    #[schema(example = "files__read_file")]
    name: String,
    /// The service's own name of it; the URI of a resource, the URI template of a template.
    #[schema(example = "read_file")]
    tool: String,
    /// Name of the service.
    #[schema(example = "files")]
    service: String,
    /// Name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// As the service sent it.
    #[schema(value_type = Object)]
    definition: std::sync::Arc<RawValue>,
}

impl From<Offer> for OfferView {
    fn from(
        Offer {
            name,
            own,
            service,
            title,
            description,
            definition,
        }: Offer,
    ) -> Self {
        Self {
            name: name.to_string(),
            tool: own.to_string(),
            service: service.to_string(),
            title,
            description,
            definition,
        }
    }
}

/// What one service offers of one kind.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct OffersView {
    /// In the server's order.
    items: Vec<OfferView>,
    /// The server could not be asked since: this is what it offered last.
    stale: bool,
    /// When the server was asked last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    fetched_at: Option<Timestamp>,
}

impl From<Offers> for OffersView {
    fn from(
        Offers {
            items,
            stale,
            fetched_at,
        }: Offers,
    ) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            stale,
            fetched_at,
        }
    }
}

/// One page of tools.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ToolListView {
    /// In the order of their names.
    items: Vec<OfferView>,
    /// Send it as `cursor` to read on; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl From<List<Offer>> for ToolListView {
    fn from(List { items, next_cursor }: List<Offer>) -> Self {
        Self {
            items: items.into_iter().map(Into::into).collect(),
            next_cursor,
        }
    }
}

/// Which tools.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(
    dead_code,
    reason = "describes the query string, which `FromQuery` reads"
)]
pub(crate) struct ToolListQuery {
    /// Only those of this service (id or name).
    service: Option<String>,
    /// Only those whose name, title or description holds this text.
    text: Option<String>,
    /// Longest page, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// [`ToolListQuery`], read.
pub(crate) struct Listing(ToolQuery, Page);

impl FromQuery for Listing {
    fn from_query(fields: &mut Fields<'_>) -> Self {
        let query = ToolQuery {
            service: fields.parsed("service"),
            text: fields.string("text"),
        };
        Self(query, page(fields))
    }
}

/// List the tools of all services
///
/// As clients of the federated endpoint see them, in the order of their names.
#[utoipa::path(
    get, path = "/api/v1/tools", operation_id = "list_tools", tag = "tools",
    params(ToolListQuery),
    responses((status = 200, description = "One page", body = ToolListView)),
)]
pub(crate) async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
    Query(Listing(query, page)): Query<Listing>,
) -> Result<Answer<ToolListView>, Refusal> {
    let list = context.control.tools(&caller, &query, &page).await?;
    Ok(Answer(list.into()))
}

/// Get a tool by its exposed name
#[utoipa::path(
    get, path = "/api/v1/tools/{exposed}", operation_id = "get_tool", tag = "tools",
    params(("exposed" = String, Path, description = "Exposed name", example = "files__read_file")),
    responses((status = 200, description = "The tool", body = OfferView)),
)]
pub(crate) async fn get(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(exposed): Path<String>,
) -> Result<Answer<OfferView>, Refusal> {
    Ok(Answer(context.control.tool(&caller, &exposed)?.into()))
}

/// List a service's tools
#[utoipa::path(
    get, path = "/api/v1/services/{service}/tools", operation_id = "list_service_tools",
    tag = "tools", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "What it offers", body = OffersView)),
)]
pub(crate) async fn service_tools(
    caller: Caller,
    context: State<Context>,
    service: Path<String>,
) -> Result<Answer<OffersView>, Refusal> {
    offers(caller, context, service, OfferKind::Tools).await
}

/// List a service's prompts
#[utoipa::path(
    get, path = "/api/v1/services/{service}/prompts", operation_id = "list_service_prompts",
    tag = "tools", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "What it offers", body = OffersView)),
)]
pub(crate) async fn service_prompts(
    caller: Caller,
    context: State<Context>,
    service: Path<String>,
) -> Result<Answer<OffersView>, Refusal> {
    offers(caller, context, service, OfferKind::Prompts).await
}

/// List a service's MCP resources
#[utoipa::path(
    get, path = "/api/v1/services/{service}/resources", operation_id = "list_service_resources",
    tag = "tools", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "What it offers", body = OffersView)),
)]
pub(crate) async fn service_resources(
    caller: Caller,
    context: State<Context>,
    service: Path<String>,
) -> Result<Answer<OffersView>, Refusal> {
    offers(caller, context, service, OfferKind::Resources).await
}

/// List a service's MCP resource templates
#[utoipa::path(
    get, path = "/api/v1/services/{service}/resource-templates",
    operation_id = "list_service_resource_templates",
    tag = "tools", params(("service" = String, Path, description = "Id or name")),
    responses((status = 200, description = "What it offers", body = OffersView)),
)]
pub(crate) async fn service_templates(
    caller: Caller,
    context: State<Context>,
    service: Path<String>,
) -> Result<Answer<OffersView>, Refusal> {
    offers(caller, context, service, OfferKind::Templates).await
}

async fn offers(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    kind: OfferKind,
) -> Result<Answer<OffersView>, Refusal> {
    let offers = context
        .control
        .offers(&caller, &service.parse()?, kind)
        .await?;
    Ok(Answer(offers.into()))
}

/// What a tool is called with.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallBody {
    /// As the tool's input schema says; default `{}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>, example = json!({"message": "hello"}))]
    arguments: Option<Box<RawValue>>,
    /// Shorter than what the service allows.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "30s")]
    timeout: Option<Span>,
}

/// What a tool answered.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct ReplyView {
    /// Id of the call's record.
    #[schema(value_type = String, format = "uuid")]
    call_id: Id<Call>,
    /// The tool says that it failed; the result says why.
    is_error: bool,
    /// From arrival to answer.
    duration_ms: f64,
    /// `CallToolResult` of MCP 2026-07-28, as it came.
    #[schema(value_type = Object)]
    result: Box<RawValue>,
}

impl TryFrom<ToolReply> for ReplyView {
    type Error = Failure;

    fn try_from(reply: ToolReply) -> Result<Self, Failure> {
        let ToolReply {
            call_id,
            result,
            is_error,
            duration,
        } = reply;
        Ok(Self {
            call_id,
            is_error,
            duration_ms: duration.as_secs_f64() * 1_000.0,
            result: serde_json::from_slice(&result).map_err(Failure::internal)?,
        })
    }
}

/// Call a tool of a service
///
/// The same authorization, limits and records as over MCP.
#[utoipa::path(
    post, path = "/api/v1/services/{service}/tools/{tool}/call",
    operation_id = "call_service_tool", tag = "tools",
    params(
        ("service" = String, Path, description = "Id or name"),
        ("tool" = String, Path, description = "The service's own name of the tool"),
    ),
    request_body = CallBody,
    responses(
        (status = 200, description = "The tool's answer, also when the tool failed", body = ReplyView),
        (status = 429, description = "Too many calls at once", body = crate::problem::Problem),
        (status = 502, description = "The service was lost or broke the protocol", body = crate::problem::Problem),
        (status = 504, description = "No answer in time", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn call_service_tool(
    caller: Caller,
    State(context): State<Context>,
    Path((service, tool)): Path<(String, String)>,
    body: RawJson,
) -> Result<Answer<ReplyView>, Refusal> {
    let target = ToolTarget::Of {
        service: service.parse()?,
        tool,
    };
    call(caller, &context, target, &body).await
}

/// Call a tool by its exposed name
///
/// The same authorization, limits and records as over MCP.
#[utoipa::path(
    post, path = "/api/v1/tools/{exposed}/call", operation_id = "call_tool", tag = "tools",
    params(("exposed" = String, Path, description = "Exposed name", example = "demo__echo")),
    request_body = CallBody,
    responses(
        (status = 200, description = "The tool's answer, also when the tool failed", body = ReplyView),
        (status = 429, description = "Too many calls at once", body = crate::problem::Problem),
        (status = 502, description = "The service was lost or broke the protocol", body = crate::problem::Problem),
        (status = 504, description = "No answer in time", body = crate::problem::Problem),
    ),
)]
pub(crate) async fn call_tool(
    caller: Caller,
    State(context): State<Context>,
    Path(exposed): Path<String>,
    body: RawJson,
) -> Result<Answer<ReplyView>, Refusal> {
    call(caller, &context, ToolTarget::Exposed(exposed), &body).await
}

async fn call(
    Caller(caller): Caller,
    context: &Context,
    target: ToolTarget,
    RawJson(body): &RawJson,
) -> Result<Answer<ReplyView>, Refusal> {
    let CallBody { arguments, timeout } = if body.is_empty() {
        CallBody {
            arguments: None,
            timeout: None,
        }
    } else {
        serde_json::from_slice(body).map_err(|error| malformed(&error))?
    };
    let input = ToolInput {
        arguments,
        timeout: timeout.map(|span| span.0),
    };
    let reply = context.control.call_tool(&caller, &target, input).await?;
    Ok(Answer(reply.try_into()?))
}
