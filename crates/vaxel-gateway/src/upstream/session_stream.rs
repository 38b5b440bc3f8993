//! The stream of a legacy session over HTTP, on which a server says what belongs to none of its answers:
//! also questions, when it was not told, or does not care, which call they belong to.
//!
//! Such a question goes to the one call of its session that it can belong to; when there are several or
//! none it is refused (MCP 2025-11-25, Transports, "Listening for Messages from the Server").

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet};
use vaxel_core::sse;
use vaxel_egress::ReplyBody;
use vaxel_mcp::{
    envelope::{Envelope, Kind},
    method::Method,
};

use super::{Asked, Event, channel::answer_to_server, left::Left};

/// Events of one call that wait for it. When it is full they are lost, and questions refused.
const EVENTS: usize = 32;

/// The calls of one session that its server may ask about.
#[derive(Default)]
pub(super) struct Calls(Mutex<InFlight>);

#[derive(Default)]
struct InFlight {
    waiting: HashMap<u64, mpsc::Sender<Event>>,
    left: Left,
}

/// What the stream of the session has for one call; until this is dropped.
pub(super) struct Heard {
    events: mpsc::Receiver<Event>,
    calls: Arc<Calls>,
    id: u64,
}

impl Calls {
    pub(super) fn enter(self: &Arc<Self>, id: u64) -> Heard {
        let (sender, events) = mpsc::channel(EVENTS);
        self.0.lock().waiting.insert(id, sender);
        Heard {
            events,
            calls: Arc::clone(self),
            id,
        }
    }

    /// The server has given a sign.
    pub(super) fn hear_sign(&self, sign: u64) {
        self.0.lock().left.hear(sign);
    }

    /// Hands an event to the only call there is.
    fn hand_over(&self, event: Event) -> Result<(), ()> {
        let calls = self.0.lock();
        if calls.left.may_be_asked_about() {
            return Err(());
        }
        let mut all = calls.waiting.values();
        match (all.next(), all.next()) {
            (Some(only), None) => only.try_send(event).map_err(drop),
            _ => Err(()),
        }
    }
}

impl Heard {
    /// The next event; never, when the session has no stream.
    pub(super) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Its caller does not wait for the end of the call. The sign with this id says that the server
    /// knows.
    pub(super) fn leave(&self, sign: u64) -> Arc<Calls> {
        self.calls.0.lock().left.note(sign);
        Arc::clone(&self.calls)
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.calls.0.lock().waiting.remove(&self.id);
    }
}

/// The open stream of a session. Its task ends with it.
#[derive(Default)]
pub(super) struct SessionStream {
    task: JoinSet<()>,
    /// The server said that it has no such stream.
    pub(super) is_refused: bool,
}

impl SessionStream {
    /// Whether it must be opened before a server can ask.
    pub(super) fn is_missing(&mut self) -> bool {
        while self.task.try_join_next().is_some() {}
        !self.is_refused && self.task.is_empty()
    }

    /// Follows what a server says; `tell` delivers a message to it.
    pub(super) fn follow(
        &mut self,
        body: ReplyBody,
        limit: usize,
        calls: Arc<Calls>,
        tell: impl Fn(Bytes) + Send + 'static,
    ) {
        self.task.spawn(follow(body, limit, calls, tell));
    }
}

async fn follow(mut body: ReplyBody, limit: usize, calls: Arc<Calls>, tell: impl Fn(Bytes) + Send) {
    let mut decoder = sse::Decoder::new(limit);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        decoder.push(&data);
        while let Some(event) = decoder.next() {
            let Ok(event) = event else { return };
            if let Some(answer) = hear(&calls, &event.data) {
                tell(answer);
            }
        }
    }
}

/// Takes note of a message; returns what is answered at once.
fn hear(calls: &Calls, message: &Bytes) -> Option<Bytes> {
    let envelope = Envelope::parse(message).ok()?;
    match envelope.kind() {
        Kind::Request => {
            let handed = match Asked::read(&envelope) {
                Some(asked) => calls.hand_over(Event::Question(asked)),
                None => Err(()),
            };
            handed.is_err().then(|| answer_to_server(&envelope))
        }
        Kind::Notification
            if envelope.method.as_deref().map(Method::of) == Some(Method::LogMessage) =>
        {
            // A line that could be anybody's is nobody's.
            let _ = calls.hand_over(Event::Notification(message.clone()));
            None
        }
        Kind::Notification | Kind::Response | Kind::Invalid => None,
    }
}
