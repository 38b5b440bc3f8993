//! The edges: what a client of either era says becomes one internal request, or an answer at once.
//!
//! The era is decided once, by the body first (MCP 2026-07-28, versioning; the rules are numbered as
//! the protocol reference numbers them in its part on inbound classification).

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{header, request::Parts};
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{
    envelope::{Envelope, Kind as MessageKind},
    headers,
    level::Level,
    method::Method,
    request::{Claims, ModernMeta, Request},
    revision::{Era, Revision},
};

use crate::{
    pipeline::Context,
    respond::{self, Response},
    session::Session,
};

pub(crate) mod batch;
mod duplex; // clients whose answers all go onto one stream
pub(crate) mod legacy;
pub(crate) mod modern;
pub(crate) mod oldest;
mod onto_stream;
pub(crate) mod websocket;

pub(crate) use onto_stream::put;

/// A client's request with its era taken off.
pub(crate) struct Exchange {
    pub(crate) request: Request,
    pub(crate) client: Client,
    /// Least severe log message that a modern client wants for this request.
    level: Option<Level>,
    pub(crate) trace_id: Option<Box<str>>,
}

/// Who asks, in which dialect.
pub(crate) enum Client {
    /// Says everything with every request.
    Modern,
    /// Said it once.
    Legacy(Arc<Session>),
}

impl Exchange {
    /// Least severe log message that is wanted: by the request, or by its session.
    pub(crate) fn log_level(&self) -> Option<Level> {
        match &self.client {
            Client::Modern => self.level,
            Client::Legacy(session) => session.meta.load().log_level,
        }
    }
}

impl Client {
    pub(crate) const fn era(&self) -> Era {
        match self {
            Self::Modern => Era::Modern,
            Self::Legacy(_) => Era::Legacy,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        match self {
            Self::Modern => Revision::LATEST,
            Self::Legacy(session) => session.revision,
        }
    }

    /// What its session says about it; a modern client's requests say it themselves.
    pub(crate) fn meta(&self, nobody: &ArcSwap<ModernMeta>) -> Arc<ModernMeta> {
        match self {
            Self::Modern => nobody.load_full(),
            Self::Legacy(session) => session.meta.load_full(),
        }
    }
}

/// Reads a posted body. `Err` is the answer to a body that leads to no exchange: a notification, an
/// answer of the client, `initialize`, or a mistake.
pub(crate) fn open(context: &Context, body: &Bytes) -> Result<Exchange, Box<Response>> {
    let envelope = match Envelope::parse(body) {
        Ok(envelope) => envelope,
        Err(error) => return Err(Box::new(malformed(&error.to_string()))),
    };
    match envelope.kind() {
        MessageKind::Request => request(context, body, &envelope),
        MessageKind::Notification | MessageKind::Response => {
            Err(Box::new(legacy::told(context, body, &envelope)))
        }
        MessageKind::Invalid => Err(Box::new(malformed(
            "the body is no JSON-RPC request, notification or response",
        ))),
    }
}

fn request(
    context: &Context,
    body: &Bytes,
    envelope: &Envelope<'_>,
) -> Result<Exchange, Box<Response>> {
    let (request, claims) = match Request::read(body.clone(), envelope) {
        Ok(read) => read,
        Err(error) => return Err(Box::new(malformed(&error.to_string()))),
    };
    let said = header(context, headers::MCP_PROTOCOL_VERSION);
    let says_modern = said.is_some_and(|version| version == Revision::LATEST.as_str());
    if claims.version.is_some() || says_modern {
        modern::check(context, &request, &claims, said).map_err(Box::new)?;
        return Ok(Exchange {
            request,
            client: Client::Modern,
            level: claims.log_level,
            trace_id: claims.trace_id,
        });
    }
    if request.method() == Method::Initialize {
        return Err(Box::new(legacy::initialize(context, &request)));
    }
    legacy_exchange(context, request, claims).map_err(|(id, failure)| {
        let request_id = String::from_utf8_lossy(&id).into_owned();
        // A legacy client reads 404 as "open a new session" and 400 as "there was none".
        Box::new(respond::problem(&failure, &request_id))
    })
}

fn legacy_exchange(
    context: &Context,
    request: Request,
    claims: Claims,
) -> Result<Exchange, (Box<[u8]>, Box<Failure>)> {
    match legacy::session(context) {
        Ok(session) => {
            let client = Client::Legacy(session);
            Ok(Exchange {
                request,
                client,
                level: None,
                trace_id: claims.trace_id,
            })
        }
        Err(failure) => Err((request.id().into(), Box::new(failure))),
    }
}

/// Whether the client takes its answer in events.
pub(crate) fn accepts_stream(head: &Parts) -> bool {
    let accept = head.headers.get(header::ACCEPT);
    let accept = accept.and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream") || accept.contains("*/*"))
}

/// A header as text.
pub(crate) fn header(context: &Context, name: http::HeaderName) -> Option<&str> {
    context
        .head
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok())
}

fn malformed(detail: &str) -> Response {
    let failure = Failure::new(Kind::Malformed, detail.to_owned());
    respond::failure(b"", &failure, Era::Modern)
}
