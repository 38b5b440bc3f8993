//! Answers of several messages on one stream.

use bytes::Bytes;
use http::header;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::mpsc;
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_mcp::{envelope::Envelope, error, revision::Era};

use crate::respond::{Body, Response};

/// Puts what a POST of `request` would have answered onto a stream that it shares with others.
pub(crate) async fn put(response: Response, request: &[u8], sender: &mpsc::Sender<Bytes>) {
    let (head, body) = response.into_parts();
    match body {
        Body::Stream(mut events) => {
            while let Some(event) = events.recv().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        }
        body => {
            let bytes = body.collect().await;
            let bytes = bytes
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            if !bytes.is_empty() {
                let message = as_message(&head, bytes, request);
                // A client that is gone reads nothing; its stream ends with it.
                let _ = sender.send(sse::event(&message, None)).await;
            }
        }
    }
}

/// What is no JSON-RPC message yet (a problem document) as the answer to `request`.
fn as_message(head: &http::response::Parts, body: Bytes, request: &[u8]) -> Bytes {
    #[derive(Default, Deserialize)]
    struct Problem {
        detail: String,
    }
    let kind = head.headers.get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"application/problem+json")) {
        return body;
    }
    let id = Envelope::parse(request)
        .ok()
        .and_then(|envelope| envelope.id);
    let id = id.map_or("null", |id| id.get());
    let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
    let detail = problem.detail;
    error::render(
        id.as_bytes(),
        &Failure::new(Kind::Malformed, detail),
        Era::Legacy,
    )
}
