//! The AI Platform's MCP management: `/api/mcp…`, with its field names and its statuses.

use std::time::Duration;

use axum::{
    Json as Answer, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use vaxel_control::{
    CallFilter, CallRow, Change, HealthReport, Observed, Page, ServiceFilter, ServiceRef, Stats,
    ToolTarget,
};
use vaxel_core::{
    failure::{Failure, Kind, facts},
    health::check,
    lifecycle::Lifecycle,
    principal::Principal,
    service::Source,
    status::Health,
    template::DerivedDraft,
    time::Timestamp,
};

use super::{Told, devq, first_of, service_name};
use crate::{
    calls::kept,
    context::Context,
    extract::{Caller, Json, Path},
};

/// Longest wait for a server that was told to start.
const START_WAIT: Duration = Duration::from_mins(1);
/// Longest wait for the checks of a dashboard; what takes longer is shown as it was seen before.
const CHECK_WAIT: Duration = Duration::from_secs(10);
/// Names that are tried for a server whose own is taken.
const NAMES_TRIED: u32 = 100;

pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/api/mcp", get(own).post(create))
        .route("/api/mcp/{server}", get(show).put(update).delete(remove))
        .route("/api/mcp/{server}/start", post(start))
        .route("/api/mcp/{server}/stop", post(stop))
        .route("/api/mcp/{server}/execute", post(execute))
        .route("/api/mcp/{server}/logs", get(logs))
        .route("/api/mcp/admin/all", get(all))
        .route("/api/mcp/admin/statistics", get(statistics))
        .route("/api/mcp/health/check", get(dashboard))
}

/// `McpServer`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    id: String,
    user_id: String,
    name: String,
    description: Option<String>,
    command: String,
    args: Vec<String>,
    env: Map<String, Value>,
    enabled: bool,
    health_status: Health,
    total_calls: u64,
    last_used_at: Option<Timestamp>,
    last_health_check: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
}

impl Server {
    fn new(observed: &Observed, last_health_check: Option<Timestamp>) -> Self {
        let Observed {
            resource,
            status,
            stats,
            behind: _,
        } = observed;
        let spec = &resource.spec;
        let (command, args, env) = match &spec.source {
            Source::Process(process) => (
                process.command.clone(),
                process.args.clone(),
                process
                    .env
                    .iter()
                    .map(|(key, value)| (key.clone(), json!(value)))
                    .collect(),
            ),
            other => (other.to_string(), Vec::new(), Map::new()),
        };
        Self {
            id: resource.id.to_string(),
            user_id: resource.owner.clone(),
            name: spec
                .title
                .clone()
                .unwrap_or_else(|| resource.name.to_string()),
            description: spec.description.clone(),
            command,
            args,
            env,
            enabled: resource.enabled,
            health_status: status.health,
            total_calls: stats.calls,
            last_used_at: stats.last_used_at,
            last_health_check,
            created_at: resource.created_at,
            updated_at: resource.updated_at,
            deleted_at: resource.deleted_at,
        }
    }
}

/// `stats` of a server.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    total_calls: u64,
    /// Milliseconds.
    average_execution_time: f64,
    /// Milliseconds.
    total_execution_time: f64,
}

impl From<Stats> for Figures {
    fn from(stats: Stats) -> Self {
        let tenths = |millis: f64| (millis * 10.0).round() / 10.0;
        #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
        let total = stats.average_ms * stats.calls as f64;
        Self {
            total_calls: stats.calls,
            average_execution_time: tenths(stats.average_ms),
            total_execution_time: total.round(),
        }
    }
}

/// `runtimeStatus` of a server: `running` or `stopped`, its process, and for how long (milliseconds).
fn runtime_status(observed: &Observed, now: Timestamp) -> Value {
    let running = observed
        .status
        .instances
        .iter()
        .find(|one| one.started_at.is_some());
    match running {
        None => json!({ "status": "stopped", "pid": null, "uptime": 0 }),
        Some(instance) => {
            let since = instance.started_at.unwrap_or(now);
            let uptime = now.as_millis().saturating_sub(since.as_millis());
            json!({ "status": "running", "pid": instance.pid, "uptime": uptime })
        }
    }
}

async fn own(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<Value>, Told> {
    let servers = servers(&context, &caller, Some(caller.name.to_string())).await?;
    Ok(Answer(json!({ "servers": servers })))
}

async fn all(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<Value>, Told> {
    context.control.may_manage(&caller)?;
    let servers = servers(&context, &caller, None).await?;
    Ok(Answer(json!({ "servers": servers })))
}

async fn servers(
    context: &Context,
    caller: &Principal,
    owner: Option<String>,
) -> Result<Vec<Server>, Told> {
    let all = of(context, caller, owner).await?;
    Ok(all.iter().map(|one| Server::new(one, None)).collect())
}

async fn of(
    context: &Context,
    caller: &Principal,
    owner: Option<String>,
) -> Result<Vec<Observed>, Told> {
    let filter = ServiceFilter {
        owner,
        ..ServiceFilter::default()
    };
    devq::all_services(context, caller, &filter).await
}

async fn create(
    Caller(caller): Caller,
    State(context): State<Context>,
    Json(body): Json,
) -> Result<Response, Told> {
    let title = body["name"].as_str().unwrap_or_default();
    let name = service_name(title)?;
    let mut draft = begun(&body);
    draft["name"] = json!(name);
    write_over(&mut draft, &body);
    for number in 2..NAMES_TRIED {
        let change = Change::create(&draft)?;
        match context.control.submit(&caller, change).await {
            Ok(outcome) => {
                let server = Server::new(&outcome.into_service()?, None);
                let body = json!({ "server": server });
                return Ok((StatusCode::CREATED, Answer(body)).into_response());
            }
            // Here, names need not differ.
            Err(failure) if failure.kind == Kind::Conflict => {
                draft["name"] = json!(service_name(&format!("{title}-{number}"))?);
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    let sentence = format!("Too many servers are called `{title}`");
    Err(Told::new(StatusCode::CONFLICT, sentence))
}

/// The draft of a server before its fields are in it. One that extends a template says of its process only
/// what is to be different.
fn begun(body: &Value) -> Value {
    let own = ["command", "args", "env", "cwd"];
    let is_process = own
        .iter()
        .any(|field| body.get(field).is_some_and(|one| !one.is_null()));
    let mut draft = match body.get("extends").filter(|extends| !extends.is_null()) {
        Some(extends) => json!({ "extends": extends, "spec": {} }),
        None => json!({ "spec": { "source": { "process": {} } } }),
    };
    if is_process {
        draft["spec"]["source"] = json!({ "process": {} });
    }
    draft
}

/// Puts the fields that a server has into the draft of a service; what is absent stays.
fn write_over(draft: &mut Value, body: &Value) {
    let process = "/spec/source/process";
    for (field, place, member) in [
        ("name", "/spec", "title"),
        ("description", "/spec", "description"),
        ("enabled", "", "enabled"),
        ("command", process, "command"),
        ("args", process, "args"),
        ("env", process, "env"),
        ("cwd", process, "cwd"),
    ] {
        let value = body.get(field).filter(|value| !value.is_null());
        let target = draft.pointer_mut(place).and_then(Value::as_object_mut);
        if let (Some(value), Some(target)) = (value, target) {
            target.insert(member.to_owned(), value.clone());
        }
    }
}

async fn show(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
) -> Result<Answer<Value>, Told> {
    let service = context.control.service(&caller, &find(&server)?).await?;
    let checked = last_check(&context, &caller, &service).await?;
    Ok(Answer(json!({
        "server": Server::new(&service, checked),
        "stats": Figures::from(service.stats),
        "runtimeStatus": runtime_status(&service, context.control.now()),
    })))
}

async fn last_check(
    context: &Context,
    caller: &Principal,
    service: &Observed,
) -> Result<Option<Timestamp>, Told> {
    let id = ServiceRef::Id(service.resource.id);
    let HealthReport { checks, .. } = context.control.health(caller, &id, None).await?;
    let basic = checks
        .iter()
        .filter(|one| one.result.kind == check::Kind::Basic);
    Ok(basic.map(|one| one.result.at).max())
}

async fn update(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
    Json(body): Json,
) -> Result<Answer<Value>, Told> {
    let service = find(&server)?;
    let old = context.control.service(&caller, &service).await?.resource;
    let mut draft = if DerivedDraft::is_one(&body) {
        begun(&body)
    } else {
        json!({ "spec": old.spec })
    };
    draft["name"] = json!(old.name);
    draft["enabled"] = json!(old.enabled);
    draft["tags"] = json!(old.tags);
    draft["environment"] = json!(old.environment);
    write_over(&mut draft, &body);
    let change = Change::update(service, &draft, Some(old.version))?;
    changed(&context, &caller, change).await
}

async fn remove(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
) -> Result<Answer<Value>, Told> {
    let change = Change::DeleteService {
        service: find(&server)?,
        expected: None,
    };
    changed(&context, &caller, change).await
}

async fn stop(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
) -> Result<Answer<Value>, Told> {
    changed(&context, &caller, Change::StopService(find(&server)?)).await
}

async fn changed(
    context: &Context,
    caller: &Principal,
    change: Change,
) -> Result<Answer<Value>, Told> {
    let outcome = context.control.submit(caller, change).await?;
    let server = Server::new(&outcome.into_service()?, None);
    Ok(Answer(json!({ "success": true, "server": server })))
}

/// Answers when the server runs; a process that does not start is an error of 500 that says why.
async fn start(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
) -> Result<Answer<Value>, Told> {
    let service = find(&server)?;
    let change = Change::StartService(service.clone());
    context.control.submit(&caller, change).await?;
    let report = context
        .control
        .health(&caller, &service, Some(START_WAIT))
        .await?;
    if report.status.lifecycle == Lifecycle::Error {
        let reason = report.status.reason.unwrap_or_default();
        return Err(Told::new(StatusCode::INTERNAL_SERVER_ERROR, reason));
    }
    let service = context.control.service(&caller, &service).await?;
    Ok(Answer(json!({
        "success": true,
        "server": Server::new(&service, None),
        "runtimeStatus": runtime_status(&service, context.control.now()),
    })))
}

/// Calls a tool; what it says of its own failure, and what kept it from being called, is a 400.
async fn execute(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
    Json(body): Json,
) -> Result<Answer<Value>, Told> {
    let tool = first_of(&body, &["toolName", "tool", "name"]).and_then(Value::as_str);
    let tool = tool.ok_or_else(|| {
        Told::new(
            StatusCode::BAD_REQUEST,
            "`toolName` is missing: the name of the tool to execute",
        )
    })?;
    let arguments = first_of(&body, &["parameters", "args", "arguments"]);
    let target = ToolTarget::Of {
        service: find(&server)?,
        tool: tool.to_owned(),
    };
    let called = context
        .control
        .call_tool(&caller, &target, devq::input(arguments)?)
        .await;
    let reply = called.map_err(execution_error)?;
    let result: Box<RawValue> = serde_json::from_slice(&reply.result)
        .map_err(|error| Told::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    if reply.is_error {
        return Err(Told::new(StatusCode::BAD_REQUEST, said(&result)));
    }
    let time = reply.duration.as_millis();
    Ok(Answer(
        json!({ "success": true, "result": result, "executionTime": time }),
    ))
}

/// Who may not, what is not there and what comes too often keep their statuses; everything else is an
/// execution error.
fn execution_error(failure: Failure) -> Told {
    match facts(failure.kind).status {
        401 | 403 | 404 | 429 => failure.into(),
        _ => Told::under(StatusCode::BAD_REQUEST, &failure),
    }
}

/// The text of a result.
fn said(result: &RawValue) -> String {
    let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
    let blocks = result["content"].as_array().cloned().unwrap_or_default();
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect();
    texts.join("\n")
}

/// `McpToolCall`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolCall {
    id: String,
    server_id: String,
    tool_name: String,
    parameters: Option<Box<RawValue>>,
    response: Option<Box<RawValue>>,
    success: bool,
    error_message: Option<String>,
    /// Milliseconds.
    execution_time: u64,
    created_at: Timestamp,
}

impl From<CallRow> for ToolCall {
    fn from(row: CallRow) -> Self {
        Self {
            id: row.id.to_string(),
            server_id: row.service.to_string(),
            tool_name: row.target,
            parameters: row.request.as_deref().map(kept),
            response: row.response.as_deref().map(kept),
            success: row.outcome == "ok",
            error_message: row.error,
            execution_time: row.duration_us / 1_000,
            created_at: row.at,
        }
    }
}

async fn logs(
    Caller(caller): Caller,
    State(context): State<Context>,
    Path(server): Path<String>,
) -> Result<Answer<Value>, Told> {
    let filter = (&CallFilter::default(), &Page::FIRST);
    let calls = context
        .control
        .calls(&caller, Some(&find(&server)?), filter)
        .await?;
    let logs: Vec<ToolCall> = calls.items.into_iter().map(Into::into).collect();
    Ok(Answer(json!({ "logs": logs })))
}

async fn statistics(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<Value>, Told> {
    context.control.may_manage(&caller)?;
    let all = of(&context, &caller, None).await?;
    let calls: u64 = all.iter().map(|one| one.stats.calls).sum();
    let errors: u64 = all.iter().map(|one| one.stats.errors).sum();
    let time: f64 = all
        .iter()
        .map(|one| Figures::from(one.stats).total_execution_time)
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
    let average = if calls == 0 { 0.0 } else { time / calls as f64 };
    let healthy = all.iter().filter(|one| is_healthy(one)).count();
    let active = all
        .iter()
        .filter(|one| one.status.lifecycle == Lifecycle::Active)
        .count();
    Ok(Answer(json!({ "statistics": {
        "totalServers": all.len(), "activeServers": active, "healthyServers": healthy,
        "totalCalls": calls, "successfulCalls": calls - errors.min(calls), "failedCalls": errors,
        "averageExecutionTime": average,
    } })))
}

/// The health dashboard of the caller's servers, each checked for it.
async fn dashboard(
    Caller(caller): Caller,
    State(context): State<Context>,
) -> Result<Answer<Value>, Told> {
    let own = Some(caller.name.to_string());
    let ids = of(&context, &caller, own.clone())
        .await?
        .iter()
        .map(|one| one.resource.id)
        .collect();
    context.control.check_own(&caller, ids, CHECK_WAIT).await?;
    let all = of(&context, &caller, own).await?;
    let mut servers = Vec::with_capacity(all.len());
    for one in &all {
        let name = one.resource.spec.title.clone();
        servers.push(json!({
            "id": one.resource.id, "name": name.unwrap_or_else(|| one.resource.name.to_string()),
            "healthy": is_healthy(one), "status": one.status.health,
            "lastCheck": last_check(&context, &caller, one).await?,
        }));
    }
    let healthy = all.iter().filter(|one| is_healthy(one)).count();
    Ok(Answer(json!({
        "summary": {
            "total": all.len(), "healthy": healthy, "unhealthy": all.len() - healthy,
        },
        "servers": servers,
    })))
}

const fn is_healthy(observed: &Observed) -> bool {
    matches!(observed.status.health, Health::Healthy | Health::Degraded)
}

fn find(server: &str) -> Result<ServiceRef, Told> {
    server
        .parse()
        .map_err(|failure: Failure| Told::from(failure))
}
