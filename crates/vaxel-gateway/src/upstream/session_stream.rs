//! The stream of a legacy session over HTTP, on which a server says what belongs to none of its answers:
//! changes, which everyone hears who is concerned; and what it did not say, or care, which call it
//! belongs to.
//!
//! Such a question goes to the one call of its session that it can belong to; when there are several or
//! none it is refused. A log line goes there, too; one that comes after the answer goes to the client
//! who called, on a stream of its own, when that can only be one (MCP 2025-11-25, Transports,
//! "Listening for Messages from the Server").

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use vaxel_core::{failure::Failure, sse};
use vaxel_egress::{Reply, ReplyBody};
use vaxel_mcp::{
    envelope::{Envelope, Kind},
    level::Level,
    method::Method,
};

use super::{
    Asked, Event, NowPlus, Outbound,
    channel::answer_to_server,
    ear::Ear,
    http_link::{FAREWELL, STREAM_FOLLOWS, is_stream},
    left::Left,
};
use crate::session::Session;

/// Events of one call that wait for it. When it is full they are lost, and questions refused.
const EVENTS: usize = 32;

/// The calls of one session that its server may ask about.
#[derive(Default)]
pub(super) struct Calls(Mutex<InFlight>);

#[derive(Default)]
struct InFlight {
    waiting: HashMap<u64, Waiting>,
    left: Left,
    /// Who called last.
    last: Option<Last>,
}

/// A call in flight.
struct Waiting {
    events: mpsc::Sender<Event>,
    /// The session of the client that made it, if it is a legacy one.
    client: Weak<Session>,
    /// The server's session belongs to that client alone.
    is_own: bool,
    /// No other call was in flight since it began.
    is_alone: bool,
}

/// Whose a log line is that comes when no call is in flight.
struct Last {
    client: Weak<Session>,
    /// For ever, when there is no other client in the session.
    until: Option<Instant>,
}

/// What the stream of the session has for one call; until this is dropped.
pub(super) struct Heard {
    events: mpsc::Receiver<Event>,
    calls: Arc<Calls>,
    id: u64,
}

impl Calls {
    pub(super) fn enter(self: &Arc<Self>, id: u64, out: &Outbound<'_>) -> Heard {
        let client = out.client.map_or_else(Weak::new, Arc::downgrade);
        let (sender, events) = mpsc::channel(EVENTS);
        let mut calls = self.0.lock();
        let is_alone = calls.waiting.is_empty();
        for other in calls.waiting.values_mut() {
            other.is_alone = false;
        }
        let waiting = Waiting {
            events: sender,
            client,
            is_own: out.on_behalf.client.is_some(),
            is_alone,
        };
        calls.waiting.insert(id, waiting);
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

    /// Hands a question to the only call there is.
    fn ask(&self, question: Box<Asked>) -> Result<(), ()> {
        let calls = self.0.lock();
        if calls.left.may_be_asked_about() {
            return Err(());
        }
        let only = calls.only().ok_or(())?;
        only.try_send(Event::Question(question)).map_err(drop)
    }

    /// Hands a log line to the only call there is, or to the client of the last one; a line that could be
    /// anybody's is nobody's. When it is not read it is lost.
    fn log(&self, line: &Bytes, envelope: &Envelope<'_>, ear: &Ear) {
        let calls = self.0.lock();
        if let Some(only) = calls.only() {
            let _ = only.try_send(Event::Notification(line.clone()));
            return;
        }
        let client = calls.client_without_call();
        drop(calls);
        if let Some(client) = client {
            let level = envelope.params.and_then(Level::of_message);
            client.log(ear.service(), line, level);
        }
    }
}

impl InFlight {
    fn only(&self) -> Option<&mpsc::Sender<Event>> {
        let mut all = self.waiting.values();
        let only = all.next()?;
        all.next().is_none().then_some(&only.events)
    }

    /// Whose a line is that is not of one call.
    fn client_without_call(&self) -> Option<Arc<Session>> {
        if let Some(any) = self.waiting.values().next() {
            return any.client.upgrade().filter(|_| any.is_own);
        }
        let last = self.last.as_ref()?;
        let is_over = last.until.is_some_and(|until| until < Instant::now());
        last.client.upgrade().filter(|_| !is_over)
    }

    fn leave(&mut self, id: u64) {
        let Some(ended) = self.waiting.remove(&id) else {
            return;
        };
        let until = (!ended.is_own).then(|| Instant::now_plus(STREAM_FOLLOWS));
        self.last = (ended.is_own || ended.is_alone).then_some(Last {
            client: ended.client,
            until,
        });
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
        self.calls.0.lock().leave(self.id);
    }
}

/// The stream of a session. Its task ends with it.
#[derive(Default)]
pub(super) struct SessionStream {
    task: Mutex<JoinSet<()>>,
    stage: Arc<watch::Sender<Stage>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Missing,
    Opening,
    /// Nobody waits for it any more; it may still open.
    Late,
    Open,
    /// The server said that it has no such stream.
    Refused,
}

/// Whom what is said on a stream is for.
pub(super) struct Ears<T> {
    /// Longest message, bytes.
    pub(super) limit: usize,
    pub(super) calls: Arc<Calls>,
    pub(super) ear: Ear,
    /// Delivers a message to the server.
    pub(super) tell: T,
}

impl SessionStream {
    pub(super) fn is_missing(&self) -> bool {
        *self.stage.borrow() == Stage::Missing
    }

    /// Opens it, unless somebody else just did.
    pub(super) fn open(
        &self,
        opening: impl Future<Output = Result<Reply, Failure>> + Send + 'static,
        ears: Ears<impl Fn(Bytes) + Send + Sync + 'static>,
    ) {
        let begins = self.stage.send_if_modified(|stage| {
            let begins = *stage == Stage::Missing;
            if begins {
                *stage = Stage::Opening;
            }
            begins
        });
        if !begins {
            return;
        }
        let stage = Arc::clone(&self.stage);
        let mut task = self.task.lock();
        while task.try_join_next().is_some() {}
        task.spawn(async move {
            let after = match opening.await {
                Ok(reply) if !is_such_a_stream(&reply) => Stage::Refused,
                Ok(Reply { mut body, .. }) => {
                    body.detach();
                    stage.send_replace(Stage::Open);
                    follow(body, &ears).await;
                    Stage::Missing
                }
                // The next call tries it again.
                Err(_) => Stage::Missing,
            };
            stage.send_replace(after);
        });
    }

    /// Waits until it is open, so that nothing that is said on it is lost; not longer than is bearable,
    /// and for one that is late only once.
    pub(super) async fn opened(&self, deadline: Instant) {
        if *self.stage.borrow() != Stage::Opening {
            return;
        }
        let until = deadline.min(Instant::now_plus(FAREWELL));
        let mut stage = self.stage.subscribe();
        let opened = stage.wait_for(|stage| *stage != Stage::Opening);
        if timeout_at(until, opened).await.is_ok() {
            return;
        }
        self.stage.send_if_modified(|stage| {
            let is_late = *stage == Stage::Opening;
            if is_late {
                *stage = Stage::Late;
            }
            is_late
        });
    }
}

fn is_such_a_stream(reply: &Reply) -> bool {
    reply.parts.status.is_success() && is_stream(&reply.parts.headers)
}

async fn follow(mut body: ReplyBody, ears: &Ears<impl Fn(Bytes)>) {
    let mut decoder = sse::Decoder::new(ears.limit);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        decoder.push(&data);
        while let Some(event) = decoder.next() {
            let Ok(event) = event else { return };
            if let Some(answer) = hear(&ears.calls, &ears.ear, &event.data) {
                (ears.tell)(answer);
            }
        }
    }
}

/// Takes note of a message; returns what is answered at once.
fn hear(calls: &Calls, ear: &Ear, message: &Bytes) -> Option<Bytes> {
    let envelope = Envelope::parse(message).ok()?;
    match envelope.kind() {
        Kind::Request => {
            let handed = Asked::read(&envelope).map(|asked| calls.ask(asked));
            (handed != Some(Ok(()))).then(|| answer_to_server(&envelope))
        }
        Kind::Notification => {
            match envelope.method.as_deref().map(Method::of) {
                Some(Method::LogMessage) => calls.log(message, &envelope, ear),
                _ => {
                    ear.hear(&envelope);
                }
            }
            None
        }
        Kind::Response | Kind::Invalid => None,
    }
}
