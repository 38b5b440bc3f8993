//! A call of a tool that comes over REST, or from Vaxel itself: it enters at *route*, and takes the way of
//! any other from there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Call, Id, Service},
    name::ServiceName,
    principal::Principal,
};
use vaxel_mcp::{
    envelope::Envelope, meta, method::Method, request::Request, response::Verdict,
    revision::Revision,
};

use crate::{
    answer, authorize,
    gateway::{Gateway, Shared},
    relay,
    route::Route,
};

/// A tool call through the REST door.
pub struct ToolCall {
    /// Who calls.
    pub principal: Principal,
    /// The service.
    pub service: Id<Service>,
    /// The service's own name of the tool.
    pub tool: String,
    /// A JSON object.
    pub arguments: Bytes,
    /// Shorter than what the service allows, when given.
    pub timeout: Option<Duration>,
}

/// What a [`ToolCall`] came to.
#[derive(Debug, Clone)]
pub struct ToolReply {
    /// Id of its record.
    pub call_id: Id<Call>,
    /// `CallToolResult` of MCP 2026-07-28, raw.
    pub result: Bytes,
    /// The tool says that it failed.
    pub is_error: bool,
    /// From arrival to answer.
    pub duration: Duration,
}

impl Gateway {
    /// Calls a tool.
    pub async fn call(&self, call: ToolCall) -> Result<ToolReply, Failure> {
        let shared = Arc::clone(&self.shared);
        let calling = self.shared.runtime.spawn(call_tool(shared, call));
        calling.await.map_err(Failure::internal)?
    }
}

async fn call_tool(shared: Arc<Shared>, call: ToolCall) -> Result<ToolReply, Failure> {
    let snapshot = shared.snapshot.load_full();
    let shard = snapshot
        .shard(call.service)
        .ok_or_else(|| Failure::new(Kind::UnknownService, "The service is not here any more"))?;
    let offer = shard.offers.tool(&call.tool);
    if offer.is_none() && shard.catalog.is_none() {
        shard.choose(call.principal.proof)?;
    }
    let unknown = || {
        let detail = format!("`{}` has no tool `{}`", shard.name, call.tool);
        Failure::new(Kind::UnknownTool, detail)
    };
    let offer = offer.ok_or_else(unknown)?;
    let route = Route::to_tool(shard, offer, false);
    let arguments = std::str::from_utf8(&call.arguments).ok();
    let authorized = authorize::check(&call.principal, route, (arguments, shared.clock.now()));
    let authorized = authorized.map_err(|denied| authorize::unknown(denied, unknown))?;
    let request = tool_request(&offer.own_json, &call.arguments)?;
    let called = relay::call_tool(
        &shared,
        &call.principal,
        &request,
        &authorized,
        call.timeout,
    )
    .await;
    let (recording, _, answered) = match called {
        Ok(called) => called,
        Err((recording, failure)) => {
            if let Some(recording) = recording {
                recording.failed(&failure);
            }
            return Err(failure);
        }
    };
    let reply = match answered.payload() {
        Ok(result) => Ok(ToolReply {
            call_id: recording
                .id()
                .unwrap_or_else(|| Id::new(shared.clock.now())),
            result: Bytes::copy_from_slice(&answer::to_revision(
                Method::ToolsCall,
                Revision::LATEST,
                result,
            )),
            is_error: answered.verdict == Verdict::ToolError,
            duration: recording.elapsed(),
        }),
        Err(error) => Err(upstream_error(&shard.name, error)),
    };
    recording.answered(&answered);
    reply
}

pub(crate) fn tool_request(name_json: &str, arguments: &[u8]) -> Result<Request, Failure> {
    let no_object = || Failure::new(Kind::Invalid, "`arguments` must be a JSON object");
    // They are put next to the name: what is more than one object could say another name.
    let whole: Option<&RawValue> = serde_json::from_slice(arguments).ok();
    if !whole.is_some_and(|object| object.get().starts_with('{')) {
        return Err(no_object());
    }
    let mut params = Vec::with_capacity(name_json.len() + arguments.len() + 32);
    params.push(b'{');
    meta::member(&mut params, "name", name_json.as_bytes());
    meta::member(&mut params, "arguments", arguments);
    params.push(b'}');
    let body = Request::own(1, Method::ToolsCall, &params);
    let read = Envelope::parse(&body).and_then(|envelope| Request::read(body.clone(), &envelope));
    let (request, _) = read.map_err(|_| no_object())?;
    Ok(request)
}

/// A JSON-RPC error of a service, for a caller that does not speak JSON-RPC.
pub(crate) fn upstream_error(service: &ServiceName, error: &RawValue) -> Failure {
    #[derive(serde::Deserialize)]
    struct Error {
        code: i32,
        message: String,
    }
    let error: Option<Error> = serde_json::from_str(error.get()).ok();
    match error {
        Some(Error {
            code: vaxel_mcp::error::INVALID_PARAMS,
            message,
        }) => Failure::new(
            Kind::Invalid,
            format!("`{service}` refuses the call: {message}"),
        ),
        Some(Error { code, message }) => Failure::new(
            Kind::UpstreamProtocol,
            format!("`{service}` answered with error {code}: {message}"),
        ),
        None => Failure::new(
            Kind::UpstreamProtocol,
            format!("`{service}` answered with an error"),
        ),
    }
}
