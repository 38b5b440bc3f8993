//! Streamed answers of legacy clients, kept for a while so that a client whose connection broke can take
//! up the stream where it ended (MCP 2025-11-25, Transports, "Resumability and Redelivery").
//!
//! An event's id names its stream, its place there and the request that is being answered, so that also
//! a stream which is not known any more leads to an answer: the request has failed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
    time::Timestamp,
};
use vaxel_mcp::{
    error,
    revision::{Era, Revision},
};

use crate::respond::{self, Response};

/// Events that wait for the client besides those that it missed. When it is full its call waits.
const EVENTS: usize = 16;
/// Events of one stream that are kept; the oldest is forgotten.
const KEPT: usize = 256;
/// Bytes that all streams of all clients keep. What comes beyond is sent and not kept.
const KEPT_BYTES: usize = 64 << 20;
/// Streams of one session; the oldest is forgotten.
const STREAMS: usize = 64;
/// How long the end of a stream is kept for a client that is there, and for one that is not.
const KEPT_FOR: [Duration; 2] = [Duration::from_secs(30), Duration::from_mins(5)];
/// How long a client is asked to wait before it comes back.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes that are kept, in all.
pub(crate) type Budget = Arc<AtomicUsize>;

/// The streams of one session.
pub(crate) struct Replays {
    streams: Mutex<BTreeMap<u64, Arc<Stream>>>,
    next: AtomicU64,
}

/// One streamed answer.
pub(crate) struct Stream {
    id: u64,
    /// Raw id of the request that it answers.
    request: Box<[u8]>,
    state: Mutex<State>,
    /// The client came back on another connection.
    taken_up: Notify,
    budget: Budget,
}

#[derive(Default)]
struct State {
    sent: u64,
    kept: VecDeque<(u64, Bytes)>,
    bytes: usize,
    client: Option<mpsc::Sender<Bytes>>,
    /// When it ended, and how long it is kept then.
    ended: Option<(Instant, Duration)>,
}

impl Replays {
    /// No streams; numbers begin with `now`, so that they differ from those of earlier processes.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            streams: Mutex::default(),
            next: AtomicU64::new(now.as_millis()),
        }
    }

    /// A stream that answers `request`. Clients of revisions that know it get an event at once, so
    /// that they have an id to come back with.
    pub(crate) fn open(
        &self,
        request: &[u8],
        revision: Revision,
        budget: &Budget,
    ) -> (Arc<Stream>, Response) {
        let stream = Arc::new(Stream {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            request: request.into(),
            state: Mutex::default(),
            taken_up: Notify::new(),
            budget: Arc::clone(budget),
        });
        if revision >= Revision::V2025_11_25 {
            stream.keep(|id| sse::priming(id, RETRY));
        }
        let mut streams = self.streams.lock();
        if streams.len() >= STREAMS {
            streams.pop_first();
        }
        streams.insert(stream.id, Arc::clone(&stream));
        drop(streams);
        let response = stream.attach(None);
        (stream, response)
    }

    /// The rest of the stream that an event of this id belongs to; none when no stream here has such
    /// ids.
    pub(crate) fn resume(&self, last_event: &str) -> Option<Response> {
        let (stream, place, request) = read(last_event)?;
        let known = self.streams.lock().get(&stream).cloned();
        Some(match known {
            Some(stream) => stream.attach(Some(place)),
            None => lost(&request),
        })
    }

    /// Forgets what ended a while ago.
    pub(crate) fn sweep(&self) {
        let mut streams = self.streams.lock();
        streams.retain(|_, stream| {
            let ended = stream.state.lock().ended;
            ended.is_none_or(|(at, kept_for)| at.elapsed() < kept_for)
        });
    }
}

impl Stream {
    /// Passes on what comes, to whichever connection the client is on, until it ends.
    pub(crate) async fn carry(self: Arc<Self>, mut events: mpsc::Receiver<Bytes>) {
        while let Some(event) = events.recv().await {
            let (event, client) = self.keep(|id| with_id(id, &event));
            let Some(client) = client else { continue };
            let taken_up = self.taken_up.notified();
            if !self.is_client(&client) {
                continue;
            }
            tokio::select! {
                sent = client.send(event) => if sent.is_err() {
                    self.lose(&client);
                },
                // Who comes back is told what was missed, which this is part of.
                () = taken_up => {}
            }
        }
        let mut state = self.state.lock();
        let is_there = state.client.take().is_some_and(|one| !one.is_closed());
        state.ended = Some((Instant::now(), KEPT_FOR[usize::from(!is_there)]));
    }

    /// Numbers an event and keeps it; returns it with the client, if there is one.
    fn keep(&self, event: impl FnOnce(&str) -> Bytes) -> (Bytes, Option<mpsc::Sender<Bytes>>) {
        let mut state = self.state.lock();
        let place = state.sent;
        state.sent += 1;
        let request = URL_SAFE_NO_PAD.encode(&self.request);
        let event = event(&format!("{}-{place}-{request}", self.id));
        if state.kept.len() >= KEPT
            && let Some((_, oldest)) = state.kept.pop_front()
        {
            state.bytes -= oldest.len();
            self.budget.fetch_sub(oldest.len(), Ordering::Relaxed);
        }
        let before = self.budget.fetch_add(event.len(), Ordering::Relaxed);
        if before + event.len() <= KEPT_BYTES {
            state.bytes += event.len();
            state.kept.push_back((place, event.clone()));
        } else {
            self.budget.fetch_sub(event.len(), Ordering::Relaxed);
        }
        (event, state.client.clone())
    }

    /// What comes after the event in this place, and from now on.
    fn attach(&self, after: Option<u64>) -> Response {
        let mut state = self.state.lock();
        let is_missed = |place: &u64| after.is_none_or(|after| *place > after);
        let missed = state.kept.iter().filter(|(place, _)| is_missed(place));
        let missed: Vec<Bytes> = missed.map(|(_, event)| event.clone()).collect();
        let (sender, receiver) = mpsc::channel(missed.len() + EVENTS);
        for event in missed {
            // The channel has room for all of them.
            let _ = sender.try_send(event);
        }
        if state.ended.is_none() {
            // One message goes onto one stream: who was here before is not any more.
            state.client = Some(sender);
            self.taken_up.notify_waiters();
        }
        drop(state);
        respond::stream(receiver)
    }

    fn is_client(&self, client: &mpsc::Sender<Bytes>) -> bool {
        let state = self.state.lock();
        state
            .client
            .as_ref()
            .is_some_and(|one| one.same_channel(client))
    }

    fn lose(&self, gone: &mpsc::Sender<Bytes>) {
        let mut state = self.state.lock();
        state.client.take_if(|one| one.same_channel(gone));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let bytes = self.state.get_mut().bytes;
        self.budget.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn with_id(id: &str, event: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(id.len() + 5 + event.len());
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(event);
    out.into()
}

/// Stream, place and request of an event's id.
fn read(id: &str) -> Option<(u64, u64, Vec<u8>)> {
    let mut parts = id.splitn(3, '-');
    let stream = parts.next()?.parse().ok()?;
    let place = parts.next()?.parse().ok()?;
    let request = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
    // It is put into an answer as it is.
    let is_id = serde_json::from_slice::<&serde_json::value::RawValue>(&request).is_ok();
    is_id.then_some((stream, place, request))
}

fn lost(request: &[u8]) -> Response {
    let detail = "The answer to this request is not kept any more: it was left for too long, or \
                  Vaxel was restarted. Ask again if that is safe";
    let failure = Failure::new(Kind::UpstreamLost, detail);
    let answer = error::render(request, &failure, Era::Legacy);
    let (sender, receiver) = mpsc::channel(1);
    // The channel is new and has room.
    let _ = sender.try_send(sse::event(&answer, None));
    respond::stream(receiver)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_come_back_as_they_went(stream: u64, place: u64, request in "0|[1-9][0-9]{0,8}|\"[ -!#-\\[\\]-~]{0,20}\"") {
            let id = format!("{stream}-{place}-{}", URL_SAFE_NO_PAD.encode(&request));
            prop_assert_eq!(read(&id), Some((stream, place, request.into_bytes())));
        }

        #[test]
        fn strange_ids_lead_nowhere(id in ".{0,60}") {
            if let Some((_, _, request)) = read(&id) {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&request).is_ok());
            }
        }
    }
}
