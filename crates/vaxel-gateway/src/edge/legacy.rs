//! The legacy edge (2025-03-26 to 2025-11-25 over Streamable HTTP): `initialize` opens a session,
//! everything later names it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{
    envelope::Envelope,
    headers, hello,
    method::Method,
    request::Request,
    response::Response as Answer,
    revision::{Era, Revision},
};

use super::header;
use crate::{
    authorize, lists,
    pipeline::Context,
    respond::{self, Response},
    session::{Opening, Session},
};

/// Opens a session.
pub(super) fn initialize(context: &Context, request: &Request) -> Response {
    match open(context, request) {
        Ok(response) => response,
        Err(failure) => respond::failure(request.id(), &failure, Era::Legacy),
    }
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(rename = "protocolVersion")]
    version: String,
    #[serde(borrow, default)]
    capabilities: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "clientInfo")]
    info: Option<&'a RawValue>,
}

fn open(context: &Context, request: &Request) -> Result<Response, Failure> {
    authorize::may_list(&context.principal)?;
    let params: Params<'_> = request.read_params().ok_or_else(|| {
        Failure::new(
            Kind::Invalid,
            "`params` of initialize must name a protocolVersion",
        )
    })?;
    let revision = hello::negotiate(&params.version);
    let nothing = RawValue::from_string("{}".to_owned()).map_err(Failure::internal)?;
    let opening = Opening {
        revision,
        principal: &context.principal,
        capabilities: params.capabilities.unwrap_or(&nothing),
        info: params.info.unwrap_or(&nothing),
    };
    let shared = &context.shared;
    let token = shared.sessions.open(&opening, shared.clock.now())?;
    shared
        .metrics
        .sessions
        .set(i64::try_from(shared.sessions.len()).unwrap_or(i64::MAX));
    let result = lists::initialize_result(context, revision);
    let mut response = respond::shared_result(request.id(), result);
    let id = HeaderValue::from_str(&token).map_err(Failure::internal)?;
    response.headers_mut().insert(headers::MCP_SESSION_ID, id);
    Ok(response)
}

/// The session that a request names.
pub(crate) fn session(context: &Context) -> Result<Arc<Session>, Failure> {
    let shared = &context.shared;
    let token = header(context, headers::MCP_SESSION_ID).ok_or_else(|| {
        Failure::new(
            Kind::Malformed,
            "This request names no session: send `initialize` first and the Mcp-Session-Id of its \
             answer from then on, or speak MCP 2026-07-28, which needs no session",
        )
    })?;
    let session = shared
        .sessions
        .find(token, &context.principal, shared.clock.now())?;
    // 2025-03-26 had no version header; what is there must be a revision of this era.
    match header(context, headers::MCP_PROTOCOL_VERSION).map(str::parse::<Revision>) {
        None | Some(Ok(_)) => Ok(session),
        Some(Err(unknown)) => Err(Failure::new(Kind::Malformed, unknown.to_string())),
    }
}

/// What a client says without waiting for an answer.
pub(super) fn told(context: &Context, body: &Bytes, envelope: &Envelope<'_>) -> Response {
    if header(context, headers::MCP_SESSION_ID).is_none() {
        // The modern era defines no notification over HTTP: it is accepted and means nothing.
        return respond::empty(StatusCode::ACCEPTED);
    }
    match session(context) {
        Ok(session) => {
            match envelope.method.as_deref().map(Method::of) {
                Some(Method::Cancelled) => {
                    if let Some(id) = cancelled_id(envelope) {
                        session.cancel(id.get().as_bytes());
                    }
                }
                Some(_) => {}
                None => {
                    if let Ok(answer) = Answer::read(body.clone()) {
                        session.answer(answer);
                    }
                }
            }
            respond::empty(StatusCode::ACCEPTED)
        }
        Err(failure) => respond::problem(&failure, ""),
    }
}

pub(super) fn cancelled_id<'a>(envelope: &Envelope<'a>) -> Option<&'a RawValue> {
    #[derive(Deserialize)]
    struct Cancelled<'a> {
        #[serde(borrow, rename = "requestId")]
        id: &'a RawValue,
    }
    let cancelled: Cancelled<'a> = serde_json::from_str(envelope.params?.get()).ok()?;
    Some(cancelled.id)
}

/// `DELETE`: the client ends its session.
pub(crate) fn end(context: &Context) -> Result<Response, Failure> {
    session(context)?;
    if let Some(token) = header(context, headers::MCP_SESSION_ID) {
        context.shared.sessions.end(token);
    }
    Ok(respond::empty(StatusCode::NO_CONTENT))
}
