//! Servers that are part of the binary: spoken to in the modern dialect, without a wire.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::timeout_at;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{
    request::Forward,
    response::{self, Response},
    revision::Era,
};

use super::{Answer, Outbound};

/// One request to a server that is part of the binary.
#[derive(Debug, Clone)]
pub struct BuiltinRequest {
    /// Such as `tools/call`.
    pub method: String,
    /// `params` of the MCP 2026-07-28 request; an object.
    pub params: Bytes,
}

/// A JSON-RPC error of a built-in server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltinError {
    /// JSON-RPC code.
    pub code: i32,
    /// For the caller.
    pub message: String,
}

/// A server that is part of the binary. It answers as an MCP 2026-07-28 server does.
pub trait BuiltinServer: Send + Sync + 'static {
    /// The `result` object as JSON, or the error.
    fn handle(&self, request: BuiltinRequest) -> BoxFuture<'static, Result<Bytes, BuiltinError>>;
}

pub(super) async fn exchange(
    server: &dyn BuiltinServer,
    out: &Outbound<'_>,
) -> Result<Answer, Failure> {
    let told = out.request.forward(&Forward {
        id: None,
        key: out.key_json,
        progress_token: None,
        meta: out.meta_change(Era::Modern),
        identity: None,
    });
    let params = params_of(&told);
    let method = out.request.method_name().to_owned();
    let answered = timeout_at(
        out.deadline,
        server.handle(BuiltinRequest { method, params }),
    )
    .await;
    let body = match answered {
        Ok(Ok(result)) => response::result(out.request.id(), &result),
        Ok(Err(error)) => response::error(out.request.id(), error.code, &error.message, None),
        Err(_) => {
            return Err(Failure::new(
                Kind::UpstreamTimeout,
                "The built-in server did not answer in time",
            ));
        }
    };
    Response::read(body)
        .map(Answer::Done)
        .map_err(Failure::internal)
}

fn params_of(message: &Bytes) -> Bytes {
    let envelope = vaxel_mcp::envelope::Envelope::parse(message).ok();
    let span = envelope
        .and_then(|envelope| envelope.params)
        .and_then(|params| vaxel_mcp::envelope::span(message, params));
    span.map_or_else(|| Bytes::from_static(b"{}"), |range| message.slice(range))
}
