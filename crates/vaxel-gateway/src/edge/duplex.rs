//! A client whose messages come one by one and whose answers all go onto one stream: HTTP+SSE of
//! 2024-11-05, WebSocket.
//!
//! Inside, such a client is like any other: each message goes the way of a POST that names the
//! session, and what that would have answered goes onto the stream.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, header, request::Parts};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use vaxel_core::{failure::Failure, sse};
use vaxel_mcp::{
    envelope::{Envelope, Kind},
    error, headers,
    revision::Era,
};

use super::{Exchange, batch, legacy, onto_stream::put};
use crate::{
    dispatch, edge,
    gateway::Shared,
    pipeline::Context,
    respond::{self, Response},
    subscribe,
    unhurried::Unhurried,
};

/// Events waiting for one client. When it is full its calls wait, until it has read or gone.
const EVENTS: usize = 64;
/// How long a client may take to say its first word.
const HELLO: Duration = Duration::from_mins(1);

/// One such client.
pub(super) struct Duplex {
    sender: mpsc::Sender<Bytes>,
    /// The session's id, when there is one.
    session: OnceLock<HeaderValue>,
    has_spoken: AtomicBool,
    at_once: Arc<Semaphore>,
    answering: Mutex<JoinSet<()>>,
    /// Modern requests that are being answered, by raw id: without a session, each can be cancelled
    /// on its own.
    requests: Mutex<HashMap<Bytes, CancellationToken>>,
}

/// One of the requests that are answered at once.
pub(super) type Turn = OwnedSemaphorePermit;

impl Duplex {
    /// A client of whom `at_once` requests are answered at once, and what goes onto its stream.
    pub(super) fn new(at_once: usize) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (sender, events) = mpsc::channel(EVENTS);
        let duplex = Self {
            sender,
            session: OnceLock::new(),
            has_spoken: AtomicBool::new(false),
            at_once: Arc::new(Semaphore::new(at_once)),
            answering: Mutex::default(),
            requests: Mutex::default(),
        };
        (Arc::new(duplex), events)
    }

    /// What goes onto the stream besides answers.
    pub(super) const fn sender(&self) -> &mpsc::Sender<Bytes> {
        &self.sender
    }

    /// A turn for `message`, or nothing when it needs none: calls that have one may be waiting for
    /// answers and notifications. Waits while too many requests are being answered.
    pub(super) async fn turn(&self, message: &[u8]) -> Result<Option<Turn>, Failure> {
        if !is_request(message) {
            return Ok(None);
        }
        let waiting = Arc::clone(&self.at_once).acquire_owned();
        waiting.await.map(Some).map_err(Failure::internal)
    }

    /// The same without waiting: `Err` when too many are being answered.
    pub(super) fn turn_now(&self, message: &[u8]) -> Result<Option<Turn>, ()> {
        if !is_request(message) {
            return Ok(None);
        }
        let turn = Arc::clone(&self.at_once).try_acquire_owned();
        turn.map(Some).map_err(drop)
    }

    /// Takes a message; its answer goes onto the stream.
    pub(super) fn hear(self: &Arc<Self>, mut context: Context, body: Bytes, turn: Option<Turn>) {
        self.has_spoken.store(true, Ordering::Relaxed);
        self.speak_as_its_session(&mut context.head);
        self.cancel(&body);
        if batch::is_taken(&context, &body) {
            let answered = batch::answer(&context, &body);
            let response = answered.unwrap_or_else(|failure| respond::problem(&failure, ""));
            return self.spawn(Arc::clone(self).say(response, body, turn));
        }
        match edge::open(&context, &body) {
            Ok(exchange) => self.begin(context, exchange, body, turn),
            Err(response) => {
                let is_opened = self.opened(&response);
                let news = is_opened.then(|| (Arc::clone(self), context));
                let saying = Arc::clone(self).say(*response, body, turn);
                self.spawn(async move {
                    saying.await;
                    if let Some((duplex, context)) = news {
                        duplex.follow(context);
                    }
                });
            }
        }
    }

    /// Answers a request that is not taken. A client that does not read is told nothing.
    pub(super) fn refuse(&self, message: &[u8], failure: &Failure) {
        let envelope = Envelope::parse(message).ok();
        let Some(id) = envelope.and_then(|envelope| envelope.id) else {
            return;
        };
        let era = match self.session.get() {
            Some(_) => Era::Legacy,
            None => Era::Modern,
        };
        let refusal = error::render(id.get().as_bytes(), failure, era);
        let _ = self.sender.try_send(sse::event(&refusal, None));
    }

    /// Resolves when the client has not said a word in time.
    pub(super) async fn stays_silent(&self) {
        tokio::time::sleep(HELLO).await;
        if self.has_spoken.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when every request has been answered.
    pub(super) async fn settled(&self) {
        let mut answering = std::mem::take(&mut *self.answering.lock());
        while answering.join_next().await.is_some() {}
    }

    /// The client is gone, and its session with it.
    pub(super) fn end(&self, shared: &Shared) {
        self.answering.lock().abort_all();
        if let Some(session) = self.session.get().and_then(|id| id.to_str().ok()) {
            shared.sessions.forget(session);
        }
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.answering.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }

    fn begin(
        self: &Arc<Self>,
        context: Context,
        exchange: Exchange,
        body: Bytes,
        turn: Option<Turn>,
    ) {
        let duplex = Arc::clone(self);
        if exchange.client.era() == Era::Legacy {
            // What was taken is carried out, also when its client is gone before it has begun.
            let tasks = context.shared.tasks.clone();
            let answered = Unhurried::new(dispatch::dispatch(context, exchange), &tasks);
            return self.spawn(async move { duplex.say(answered.await, body, turn).await });
        }
        let id = Bytes::copy_from_slice(exchange.request.id());
        let cancelled = CancellationToken::new();
        self.requests.lock().insert(id.clone(), cancelled.clone());
        self.spawn(async move {
            let answered = async {
                let response = dispatch::dispatch(context, exchange).await;
                Arc::clone(&duplex).say(response, body, turn).await;
            };
            // Dropped, a modern request is cancelled (MCP 2026-07-28, Patterns, "Cancellation").
            cancelled.run_until_cancelled(Box::pin(answered)).await;
            duplex.requests.lock().remove(&id);
        });
    }

    async fn say(self: Arc<Self>, response: Response, body: Bytes, turn: Option<Turn>) {
        put(response, &body, &self.sender).await;
        drop(turn);
    }

    /// Notes the session that an answer opened.
    fn opened(&self, response: &Response) -> bool {
        let session = response.headers().get(headers::MCP_SESSION_ID);
        session.is_some_and(|session| self.session.set(session.clone()).is_ok())
    }

    /// The stream also tells of what belongs to no request.
    fn follow(&self, mut context: Context) {
        self.speak_as_its_session(&mut context.head);
        if let Ok(session) = legacy::session(&context) {
            let shared = &context.shared;
            subscribe::follow(shared, &context.scope, &session, self.sender.clone());
        }
    }

    /// What a POST of a later revision says in its headers.
    fn speak_as_its_session(&self, head: &mut Parts) {
        let accept = HeaderValue::from_static("application/json, text/event-stream");
        head.headers.insert(header::ACCEPT, accept);
        head.headers.remove(headers::MCP_PROTOCOL_VERSION);
        head.headers.remove(headers::MCP_SESSION_ID);
        if let Some(session) = self.session.get() {
            head.headers
                .insert(headers::MCP_SESSION_ID, session.clone());
        }
    }

    fn cancel(&self, message: &Bytes) {
        let Ok(envelope) = Envelope::parse(message) else {
            return;
        };
        if let Some(id) = legacy::cancelled_id(&envelope)
            && let Some(request) = self.requests.lock().get(id.get().as_bytes())
        {
            request.cancel();
        }
    }
}

fn is_request(message: &[u8]) -> bool {
    Envelope::parse(message).is_ok_and(|envelope| envelope.kind() == Kind::Request)
}
