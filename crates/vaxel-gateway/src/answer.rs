//! The answer of an upstream as its caller reads it: in the caller's revision, under the caller's id.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{
    error, meta,
    method::Method,
    response::{self, Response as Answered, Verdict},
    revision::{Era, Revision},
    translate,
};

use crate::{
    edge::Exchange,
    respond::{self, Body, Response},
};

/// An answer as one JSON body.
pub(crate) fn single(exchange: &Exchange, verdict: Verdict, body: Bytes) -> Response {
    let status = match (exchange.client.era(), verdict) {
        (Era::Modern, Verdict::Error) => error_status(&body),
        _ => StatusCode::OK,
    };
    respond::json(status, Body::full(body))
}

/// The answer in the caller's revision, under the caller's id.
pub(crate) fn outward(exchange: &Exchange, upstream: Revision, answered: &Answered) -> Bytes {
    let id = exchange.request.id();
    let client = exchange.client.revision();
    if client == upstream {
        return answered.with_id(id);
    }
    let method = exchange.request.method();
    match answered.payload() {
        Ok(result) => match to_revision(method, client, result) {
            Cow::Borrowed(_) => answered.with_id(id),
            Cow::Owned(changed) => response::result(id, &changed),
        },
        Err(error) => match translate::error(method, client, error) {
            Cow::Borrowed(_) => answered.with_id(id),
            Cow::Owned(changed) => response::error_object(id, &changed),
        },
    }
}

/// A result in another revision.
pub(crate) fn to_revision(method: Method, revision: Revision, result: &RawValue) -> Cow<'_, [u8]> {
    match revision.era() {
        Era::Modern => translate::result_to_modern(method, result, None),
        Era::Legacy => translate::result_to_legacy(method, revision, result),
    }
}

/// A failure to the caller, who waits on a stream.
pub(crate) fn of_failure(exchange: &Exchange, failure: &Failure) -> Bytes {
    of_tool(exchange, failure)
        .unwrap_or_else(|| error::render(exchange.request.id(), failure, exchange.client.era()))
}

/// A tool whose interaction came to nothing has failed, and so has one whose arguments were wrong (MCP
/// 2025-11-25 and later, Tools, "Error Handling"): a model should read it and can mend it. Other
/// requests have an error like any other.
pub(crate) fn of_tool(exchange: &Exchange, failure: &Failure) -> Option<Bytes> {
    let request = &exchange.request;
    let is_for_model = matches!(
        failure.kind,
        Kind::InteractionUnsupported | Kind::ConsentNeeded | Kind::InvalidArguments
    );
    if !is_for_model || request.method() != Method::ToolsCall {
        return None;
    }
    let mut text = Vec::new();
    meta::quote(&mut text, &failure.in_full());
    let kind: &[u8] = match exchange.client.era() {
        Era::Modern => br#""resultType":"complete","#,
        Era::Legacy => b"",
    };
    let result = [
        b"{",
        kind,
        br#""content":[{"type":"text","text":"#,
        &text,
        br#"}],"isError":true}"#,
    ];
    Some(response::result(request.id(), &result.concat()))
}

fn error_status(body: &[u8]) -> StatusCode {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Code,
    }
    #[derive(serde::Deserialize)]
    struct Code {
        code: i32,
    }
    let code = serde_json::from_slice::<Answer>(body).map_or(0, |answer| answer.error.code);
    StatusCode::from_u16(error::modern_status(code)).unwrap_or(StatusCode::OK)
}
