//! The DevQ.ai MCP Service Registry: `/api/services…`.

use axum::{
    Json as Answer, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::Response,
    routing::{get, post},
};
use serde::Serialize;
use serde_json::Value;
use vaxel_control::{
    HealthReport, Observed, Page, ServiceFilter, ServiceRef, ToolInput, ToolTarget,
};
use vaxel_core::{
    failure::{Failure, Kind},
    health::check,
    principal::Principal,
    service::{ServiceSpec, Source},
    status::Health,
    time::Timestamp,
};

use super::{Told, first_of};
use crate::{
    context::Context,
    extract::{Caller, Json, Path},
};

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/services", get(list))
        .route("/api/services/{service}/health", get(health))
        .route("/api/services/{service}/call", post(call))
}

/// `ServiceRegistration`
#[derive(Serialize)]
struct Registration {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    location: String,
    protocol: &'static str,
    base_url: Option<String>,
    config: ServiceSpec,
    tags: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Observed> for Registration {
    fn from(Observed { resource, .. }: Observed) -> Self {
        let (kind, protocol) = kind_and_protocol(&resource.spec.source);
        let location = resource.spec.source.to_string();
        let base_url = match &resource.spec.source {
            Source::Process(_) | Source::Builtin(_) => None,
            Source::Mcp(_) => Some(location.clone()),
            Source::Http(http) => http.base_url(0),
        };
        Self {
            name: resource.name.to_string(),
            kind,
            base_url,
            location,
            protocol,
            config: resource.spec,
            tags: resource.tags,
            created_at: resource.created_at,
            updated_at: resource.updated_at,
        }
    }
}

fn kind_and_protocol(source: &Source) -> (&'static str, &'static str) {
    match source {
        Source::Process(_) | Source::Builtin(_) => ("fastmcp", "stdio"),
        Source::Mcp(mcp) if mcp.url.starts_with("ws") => ("external", "websocket"),
        Source::Mcp(_) => ("external", "http"),
        Source::Http(_) => ("fastapi", "http"),
    }
}

async fn list(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<Vec<Registration>>, Told> {
    let all = all_services(&context, &caller, &ServiceFilter::default()).await?;
    Ok(Answer(all.into_iter().map(Into::into).collect()))
}

/// `HealthStatus`
#[derive(Serialize)]
struct HealthStatus {
    service: String,
    status: &'static str,
    last_check: Timestamp,
    response_time_ms: Option<f64>,
    error: Option<String>,
}

async fn health(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
) -> Result<Answer<HealthStatus>, Told> {
    let report = context
        .control
        .health(&caller, &find(&service)?, None)
        .await;
    let HealthReport { status, checks, .. } =
        report.map_err(|failure| not_found(&service, failure))?;
    let basic = checks
        .iter()
        .rfind(|one| one.result.kind == check::Kind::Basic);
    let basic = basic.map(|one| &one.result);
    Ok(Answer(HealthStatus {
        service,
        status: word(status.health),
        last_check: basic.map_or(status.since, |result| result.at),
        response_time_ms: basic.map(|result| result.duration.as_secs_f64() * 1e3),
        error: status.reason,
    }))
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy | Health::Degraded => "healthy",
        Health::Unhealthy | Health::Error | Health::Stopped => "unhealthy",
        Health::Starting | Health::Unknown => "unknown",
    }
}

async fn call(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(service): Path<String>,
    Json(body): Json,
) -> Result<Response, Told> {
    let unprocessable = |sentence: &str| Told::new(StatusCode::UNPROCESSABLE_ENTITY, sentence);
    let tool = body["tool"]
        .as_str()
        .ok_or_else(|| unprocessable("`tool` is missing: the name of the tool to call"))?;
    let arguments = first_of(&body, &["args", "arguments"]);
    let target = ToolTarget::Of {
        service: find(&service)?,
        tool: tool.to_owned(),
    };
    let called = context
        .control
        .call_tool(&caller, &target, input(arguments)?)
        .await;
    let reply = called.map_err(|failure| not_found(&service, failure))?;
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(reply.result));
    response.map_err(|error| Told::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// The arguments of a call as a person's JSON has them.
pub(super) fn input(arguments: Option<&Value>) -> Result<ToolInput, Told> {
    let raw = |value: &Value| {
        serde_json::value::to_raw_value(value)
            .map_err(|error| Told::new(StatusCode::BAD_REQUEST, error.to_string()))
    };
    Ok(ToolInput {
        arguments: arguments.map(raw).transpose()?,
        timeout: None,
    })
}

/// Every service that `filter` lets through, all pages of it.
pub(super) async fn all_services(
    context: &Context,
    caller: &Principal,
    filter: &ServiceFilter,
) -> Result<Vec<Observed>, Told> {
    let mut page = Page {
        limit: Page::LIMIT_MAX,
        cursor: None,
    };
    let mut all = Vec::new();
    loop {
        let list = context.control.services(caller, filter, &page).await?;
        all.extend(list.items);
        page.cursor = list.next_cursor;
        if page.cursor.is_none() {
            return Ok(all);
        }
    }
}

fn find(service: &str) -> Result<ServiceRef, Told> {
    let sentence = || Told::new(StatusCode::NOT_FOUND, unknown(service));
    service.parse().map_err(|_| sentence())
}

fn unknown(service: &str) -> String {
    format!("Service {service} not found")
}

/// The failure in this registry's words.
fn not_found(service: &str, failure: Failure) -> Told {
    match failure.kind {
        Kind::UnknownService => Told::new(StatusCode::NOT_FOUND, unknown(service)),
        Kind::UpstreamUnavailable => {
            let sentence = format!("No healthy instances of {service}: {failure}");
            Told::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
        }
        _ => failure.into(),
    }
}
