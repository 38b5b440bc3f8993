//! Answers as HTTP: bodies whose length is known leave with their head in one write, streams leave
//! piece by piece.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;
use vaxel_core::{
    failure::{Failure, Kind},
    problem,
};
use vaxel_mcp::{error, revision::Era};

use crate::{
    limits,
    pipeline::{BoxError, FallbackBody},
};

pub(crate) type Response = http::Response<Body>;

/// The body of an answer.
pub(crate) enum Body {
    /// Up to three pieces, sent one after the other without being copied together.
    Pieces([Bytes; 3], usize),
    /// What a task sends; the stream ends with its sender.
    Stream(mpsc::Receiver<Bytes>),
    /// Made elsewhere.
    Fallback(FallbackBody),
}

impl Body {
    pub(crate) const EMPTY: Self = Self::Pieces([const { Bytes::new() }; 3], 3);

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::Pieces([Bytes::new(), Bytes::new(), bytes], 2)
    }

    pub(crate) const fn pieces(pieces: [Bytes; 3]) -> Self {
        Self::Pieces(pieces, 0)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Pieces(pieces, next) => {
                while let Some(piece) = pieces.get_mut(*next) {
                    *next += 1;
                    if !piece.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(std::mem::take(piece)))));
                    }
                }
                Poll::Ready(None)
            }
            Self::Stream(receiver) => receiver
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
            Self::Fallback(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pieces(pieces, next) => pieces.iter().skip(*next).all(Bytes::is_empty),
            Self::Stream(_) => false,
            Self::Fallback(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pieces(pieces, next) => {
                let rest: usize = pieces.iter().skip(*next).map(Bytes::len).sum();
                SizeHint::with_exact(rest as u64)
            }
            Self::Stream(_) => SizeHint::default(),
            Self::Fallback(body) => body.size_hint(),
        }
    }
}

/// A JSON-RPC answer.
pub(crate) fn json(status: StatusCode, body: Body) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `{"jsonrpc":"2.0","id":…,"result":…}` around a shared result, which is not copied.
pub(crate) fn shared_result(id: &[u8], result: Bytes) -> Response {
    let mut head = Vec::with_capacity(id.len() + 34);
    head.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    head.extend_from_slice(id);
    head.extend_from_slice(br#","result":"#);
    json(
        StatusCode::OK,
        Body::pieces([head.into(), result, Bytes::from_static(b"}")]),
    )
}

/// A stream of server-sent events.
pub(crate) fn stream(receiver: mpsc::Receiver<Bytes>) -> Response {
    let mut response = http::Response::new(Body::Stream(receiver));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Tells reverse proxies to pass events on as they come.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = http::Response::new(Body::EMPTY);
    *response.status_mut() = status;
    response
}

/// An answer to a verb that means nothing here.
pub(crate) fn method_not_allowed(allowed: &'static str) -> Response {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// A failure of a request that had an id, in the dialect of its era.
pub(crate) fn failure(id: &[u8], failure: &Failure, era: Era) -> Response {
    let body = error::render(id, failure, era);
    let status = match (failure.kind, era) {
        // A client that never spoke JSON-RPC yet, or not well, is told by status as well.
        (Kind::Malformed | Kind::TooLarge, _) => StatusCode::BAD_REQUEST,
        // Who counts its calls by status must not take a refusal for an answer.
        (Kind::RateLimited, _) => StatusCode::TOO_MANY_REQUESTS,
        (_, Era::Legacy) => StatusCode::OK,
        (kind, Era::Modern) => {
            let code = vaxel_core::failure::facts(kind).code;
            StatusCode::from_u16(error::modern_status(code)).unwrap_or(StatusCode::OK)
        }
    };
    let mut response = json(status, Body::full(body));
    retry_after(&mut response, failure);
    response
}

/// A failure outside any JSON-RPC request: RFC 9457.
pub(crate) fn problem(failure: &Failure, request_id: &str) -> Response {
    let facts = vaxel_core::failure::facts(failure.kind);
    let body = problem::render(failure, request_id);
    let mut response = http::Response::new(Body::full(body.into()));
    *response.status_mut() =
        StatusCode::from_u16(facts.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if failure.kind == Kind::Unauthenticated {
        let challenge = HeaderValue::from_static("Bearer realm=\"vaxel\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    retry_after(&mut response, failure);
    response
}

fn retry_after(response: &mut Response, failure: &Failure) {
    if let Some(seconds) = failure.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(level) = failure.level.as_deref() {
        limits::write(response.headers_mut(), &[*level]);
    }
}
