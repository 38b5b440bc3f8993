//! JSON-RPC batches: only MCP 2025-03-26 has them, where servers must take them (Transports, "Sending
//! Messages to the Server"). The answers come on one stream, each when it is there.

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use http::StatusCode;
use serde_json::value::RawValue;
use tokio::{sync::mpsc, task::JoinSet};
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{envelope::span, revision::Revision};

use super::{Exchange, legacy, onto_stream::put, open};
use crate::{
    dispatch,
    pipeline::{Carrier, Context},
    respond::{self, Response},
};

/// Messages of one batch.
const MESSAGES: usize = 100;
/// Events waiting for the client. When it is full the calls of the batch wait.
const EVENTS: usize = 32;

/// Whether a body is a batch, from a client whose revision has them.
pub(crate) fn is_taken(context: &Context, body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
        && legacy::session(context).is_ok_and(|one| one.revision <= Revision::V2025_03_26)
}

/// Answers a batch.
pub(crate) fn answer(context: &Context, body: &Bytes) -> Result<Response, Failure> {
    let mut exchanges = Vec::new();
    let mut refusals = Vec::new();
    for message in split(body)? {
        match open(context, &message) {
            Ok(exchange) => exchanges.push((message, exchange)),
            Err(refusal) => refusals.push((message, *refusal)),
        }
    }
    // Notifications are taken, which says nothing.
    refusals.retain(|(_, refusal)| refusal.status() != StatusCode::ACCEPTED);
    if exchanges.is_empty() && refusals.is_empty() {
        return Ok(respond::empty(StatusCode::ACCEPTED));
    }
    let (sender, receiver) = mpsc::channel(EVENTS);
    let mut on_stream = context.clone();
    on_stream.carrier = Carrier::Stream;
    let work = carry(on_stream, exchanges, refusals, sender);
    context.shared.tasks.spawn(work);
    Ok(respond::stream(receiver))
}

fn split(body: &Bytes) -> Result<Vec<Bytes>, Failure> {
    let malformed = |detail: &str| Failure::new(Kind::Malformed, detail.to_owned());
    let messages: Vec<&RawValue> =
        serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    if messages.is_empty() || messages.len() > MESSAGES {
        let detail = format!("A batch has 1 to {MESSAGES} messages");
        return Err(malformed(&detail));
    }
    let places = messages
        .into_iter()
        .filter_map(|message| span(body, message));
    Ok(places.map(|place| body.slice(place)).collect())
}

async fn carry(
    context: Context,
    exchanges: Vec<(Bytes, Exchange)>,
    refusals: Vec<(Bytes, Response)>,
    sender: mpsc::Sender<Bytes>,
) {
    for (message, refusal) in refusals {
        put(refusal, &message, &sender).await;
    }
    let mut work = JoinSet::new();
    for (message, exchange) in exchanges {
        let (context, sender) = (context.clone(), sender.clone());
        work.spawn(async move {
            let shared = Arc::clone(&context.shared);
            let work = pin!(dispatch::dispatch(context, exchange));
            let response = shared.cut.drive(work).await;
            put(response, &message, &sender).await;
        });
    }
    work.join_all().await;
}
