//! One connection to a server that carries the messages of many callers: the pipes of a child, the
//! stream of a server of 2024-11-05, a WebSocket.
//!
//! Every request gets an id of its own; the reader hands each answer to whoever waits for that id.
//! What the server does wrong harms only its own calls: an answer nobody waits for, a message that is
//! none or a flood is counted and dropped, and when the connection ends every waiting call ends at once
//! with the reason.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use vaxel_core::failure::{Failure, Kind};
use vaxel_mcp::{
    envelope::{Envelope, Kind as MessageKind, Malformed, span},
    error::METHOD_NOT_FOUND,
    handshake::{ServerFacts, capabilities::Answers},
    hello,
    method::Method,
    request::{Forward, MetaChange},
    response::{self, Response, Verdict},
    revision::{Era, Revision},
    splice::Splice,
};

use super::{
    Answer, Asked, Event, Events, OnBehalf, Outbound,
    ear::{Acknowledged, Ear, Listened},
    introduction::Told,
    left::{self, Left},
    own_request, read_initialize, read_own,
    told_level::ToldLevel,
};

/// Messages waiting to be written. When it is full the server does not read, and further calls are
/// refused as busy.
const OUTGOING: usize = 1_024;
/// Notifications of one call waiting for its caller. When it is full the newest is dropped: progress
/// and log lines may be lost, answers may not.
const NOTES: usize = 64;

/// What the gateway does with what comes in and is no protocol.
pub(crate) type Garbage = Arc<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Channel {
    calls: Mutex<Calls>,
    outgoing: Mutex<Option<mpsc::Sender<Bytes>>>,
    next_id: AtomicU64,
    /// It asked while several calls were in flight.
    one_by_one: AtomicBool,
    turns: Arc<Semaphore>,
    closed: watch::Sender<Option<Arc<str>>>,
    ear: Ear,
    garbage: Garbage,
    name: Box<str>,
    pub(super) told_level: Arc<ToldLevel>,
}

/// Who waits for which id. `closed` lives under the same lock, so that no call can start to wait
/// after the last one was told that nothing will come.
#[derive(Default)]
struct Calls {
    closed: Option<Arc<str>>,
    waiting: HashMap<u64, Waiter>,
    left: Left,
}

struct Waiter {
    done: oneshot::Sender<First>,
    notes: Option<Notes>,
    /// The server may ask something before it answers.
    may_ask: bool,
    /// A stream of changes, which is no call of anybody.
    listens: Option<Arc<Acknowledged>>,
}

/// What comes first to a waiting call. Nearly all get their answer; only one that is asked something,
/// or that wanted notes, needs more than that.
enum First {
    Answer(Result<Response, Failure>),
    More(Pieces),
}

/// Where the notes and questions of a call come from, and then its answer.
struct Pieces {
    answer: oneshot::Receiver<First>,
    notes: mpsc::Receiver<Event>,
}

struct Notes {
    sender: mpsc::Sender<Event>,
    /// The client's own progress token, raw.
    token: Option<Bytes>,
}

impl Channel {
    /// A channel, and the messages that are to be written.
    pub(crate) fn new(
        name: &str,
        ear: Ear,
        garbage: Garbage,
    ) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let channel = Self {
            calls: Mutex::default(),
            outgoing: Mutex::new(Some(outgoing)),
            next_id: AtomicU64::new(1),
            one_by_one: AtomicBool::new(false),
            turns: Arc::new(Semaphore::new(1)),
            closed: watch::Sender::new(None),
            ear,
            garbage,
            told_level: Arc::default(),
            name: name.into(),
        };
        (Arc::new(channel), queue)
    }

    /// The same for a server elsewhere: what it says beside the protocol goes to the log.
    pub(super) fn of_remote(name: &str, ear: Ear) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let service: Arc<str> = name.into();
        let garbage = Arc::new(move |text: &str| {
            tracing::debug!(service.name = %service, "what came in is no protocol: {text}");
        });
        Self::new(name, ear, garbage)
    }

    pub(super) fn is_open(&self) -> bool {
        self.closed.borrow().is_none()
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_idle(&self) -> bool {
        self.calls.lock().waiting.is_empty()
    }

    /// A message did not reach the server: whoever waits for its answer is told.
    pub(super) fn undelivered(&self, message: &[u8], reason: &str) {
        let id = Envelope::parse(message)
            .ok()
            .and_then(|envelope| envelope.id);
        let id = id.and_then(|id| id.get().parse().ok());
        let waiter = id.and_then(|id: u64| self.calls.lock().waiting.remove(&id));
        if let Some(waiter) = waiter {
            // The caller may have gone away in this moment.
            let _ = waiter.done.send(First::Answer(Err(self.lost(reason))));
        }
    }

    /// Nothing more is written; what reads the queue ends.
    pub(super) fn close(&self) {
        self.outgoing.lock().take();
    }

    /// What came in and is no protocol.
    pub(super) fn found_garbage(&self, text: &str) {
        (self.garbage)(text);
    }

    pub(crate) async fn closed(&self) -> String {
        let mut closed = self.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        let reason = reason.ok().and_then(|reason| reason.clone());
        reason.map_or_else(|| "closed".to_owned(), |reason| reason.to_string())
    }

    pub(crate) async fn exchange(
        self: &Arc<Self>,
        out: &Outbound<'_>,
        era: Era,
    ) -> Result<Answer, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let token = out.request.progress_token();
        let message = out.request.forward(&Forward {
            id: Some(id),
            key: out.key_json,
            progress_token: token.as_ref().map(|_| id),
            meta: out.meta_change(era),
            identity: out.told.map(Told::json),
        });
        let streams = token.is_some() || out.wants_logs;
        let may_ask = era == Era::Legacy && out.request.method().may_ask();
        let turn = self.turn(may_ask, out.deadline).await?;
        let (done, answer) = oneshot::channel();
        let (notes, receiver) = streams.then(|| mpsc::channel(NOTES)).unzip();
        let waiter = Waiter {
            done,
            notes: notes.map(|sender| Notes { sender, token }),
            may_ask,
            listens: None,
        };
        let call = self.wait_for(id, waiter)?;
        let mut events = ChannelEvents {
            answer,
            notes: receiver,
            put_back: None,
            call,
        };
        events.call.turn = turn;
        if let Err(failure) = self.send(message) {
            self.calls.lock().waiting.remove(&id);
            return Err(failure);
        }
        if streams {
            return Ok(Answer::Stream(Events::Channel(events)));
        }
        match events.next(out.deadline).await? {
            Event::Done(response) => Ok(Answer::Done(response)),
            other => {
                events.put_back = Some(other);
                Ok(Answer::Stream(Events::Channel(events)))
            }
        }
    }

    /// A server that once asked while several calls were in flight works on one at a time from then
    /// on: only so is it known whose a question is.
    async fn turn(
        &self,
        may_ask: bool,
        deadline: Instant,
    ) -> Result<Option<OwnedSemaphorePermit>, Failure> {
        if !may_ask || !self.one_by_one.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let waiting = Arc::clone(&self.turns).acquire_owned();
        let late = || {
            let detail = format!(
                "`{}` asks questions, so it works on one call at a time, and was not free in time",
                self.name
            );
            Failure::new(Kind::Busy, detail).retry_after(1)
        };
        let turn = timeout_at(deadline, waiting).await.map_err(|_| late())?;
        turn.map(Some).map_err(Failure::internal)
    }

    /// A request of Vaxel's own in an era that is still to be found out.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        (method, params): (Method, &[u8]),
        era: Era,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let (request, meta) = own_request(method, params)?;
        let out = Outbound::own(&request, &meta, OnBehalf::SYSTEM, deadline);
        match self.exchange(&out, era).await? {
            Answer::Done(answered) => Ok(answered),
            Answer::Stream(_) => Err(Failure::internal("a request without a token was streamed")),
        }
    }

    /// Says hello as a legacy client does that answers `answers`.
    pub(crate) async fn initialize(
        self: &Arc<Self>,
        answers: Answers,
        deadline: Instant,
    ) -> Result<ServerFacts, Failure> {
        let params = hello::initialize_params(Revision::LATEST_LEGACY, answers);
        let asked = (Method::Initialize, &*params);
        let answered = self.ask(asked, Era::Legacy, deadline).await?;
        let facts = read_initialize(answered.body())?;
        self.send(hello::initialized_notification())?;
        Ok(facts)
    }

    /// Asks a modern server to tell of changes; its notifications come as all others do.
    pub(super) async fn subscribe(
        self: &Arc<Self>,
        message: &Bytes,
        acknowledged: Arc<Acknowledged>,
    ) -> Listened {
        let asked = async {
            let request = read_own(message)?;
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let message = request.forward(&Forward {
                id: Some(id),
                key: None,
                progress_token: None,
                meta: MetaChange::Keep,
                identity: None,
            });
            let (done, answer) = oneshot::channel();
            let waiter = Waiter {
                done,
                notes: None,
                may_ask: false,
                listens: Some(Arc::clone(&acknowledged)),
            };
            // It ends by being dropped.
            let _listening = self.wait_for(id, waiter)?;
            self.send(message)?;
            // Messages of a pipe keep their order: the server reads this one before any later one.
            acknowledged.is_sent();
            match answer.await {
                Ok(First::Answer(answer)) => answer,
                Ok(First::More(_)) | Err(_) => Err(self.lost("it is being stopped")),
            }
        };
        match asked.await {
            Ok(answer) if answer.verdict == Verdict::Error => Listened::NotOffered,
            Ok(_) | Err(_) => Listened::Broken,
        }
    }

    /// Registers a waiter, unless the child is already gone.
    fn wait_for(self: &Arc<Self>, id: u64, waiter: Waiter) -> Result<PendingCall, Failure> {
        let mut calls = self.calls.lock();
        if let Some(reason) = &calls.closed {
            return Err(self.lost(reason));
        }
        calls.waiting.insert(id, waiter);
        drop(calls);
        Ok(PendingCall {
            id,
            shared: Arc::clone(self),
            turn: None,
        })
    }

    /// Queues a message; never waits, since whether the child reads is the child's affair.
    pub(super) fn send(&self, message: Bytes) -> Result<(), Failure> {
        let outgoing = self.outgoing.lock();
        let Some(sender) = outgoing.as_ref() else {
            return Err(self.lost("it is being stopped"));
        };
        sender.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::new(
                Kind::Busy,
                format!(
                    "`{}` does not read its requests: {OUTGOING} are waiting",
                    self.name
                ),
            )
            .retry_after(1),
            mpsc::error::TrySendError::Closed(_) => {
                // Whoever stopped writing has said why.
                let reason = self.calls.lock().closed.clone();
                self.lost(reason.as_deref().unwrap_or("it takes no more messages"))
            }
        })
    }

    fn lost(&self, reason: &str) -> Failure {
        Failure::new(
            Kind::UpstreamLost,
            format!("`{}` cannot answer: {reason}", self.name),
        )
    }

    /// Ends every waiting call with `reason`; later ones are refused with it.
    pub(super) fn end(&self, reason: &str) {
        let reason: Arc<str> = reason.into();
        let waiting = {
            let mut calls = self.calls.lock();
            if calls.closed.is_none() {
                calls.closed = Some(Arc::clone(&reason));
            }
            std::mem::take(&mut calls.waiting)
        };
        for waiter in waiting.into_values() {
            // A caller that has gone away needs no reason.
            let _ = waiter.done.send(First::Answer(Err(self.lost(&reason))));
        }
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert(reason);
            first
        });
    }

    /// A message of the server.
    pub(super) fn receive(&self, message: Bytes) {
        // Most are answers: those are read once.
        if let Some(response) = Response::if_answer(&message) {
            let id = std::str::from_utf8(response.id()).ok();
            return self.answer(id.and_then(|id| id.parse().ok()), Ok(response));
        }
        let Ok(envelope) = Envelope::parse(&message) else {
            return (self.garbage)(&String::from_utf8_lossy(&message[..message.len().min(400)]));
        };
        match envelope.kind() {
            MessageKind::Response => {
                let id = envelope.id.and_then(|id| id.get().parse().ok());
                drop(envelope);
                self.answer(id, Response::read(message));
            }
            MessageKind::Notification => {
                let method = Method::of(envelope.method.as_deref().unwrap_or_default());
                self.notice(method, &envelope, &message);
            }
            MessageKind::Request => self.asked(&envelope),
            MessageKind::Invalid => (self.garbage)("a JSON object that is no JSON-RPC message"),
        }
    }

    fn answer(&self, id: Option<u64>, response: Result<Response, Malformed>) {
        let (waiter, is_sign) = {
            let mut calls = self.calls.lock();
            let waiter = id.and_then(|id| calls.waiting.remove(&id));
            (waiter, id.is_some_and(|id| calls.left.hear(id)))
        };
        let Some(waiter) = waiter else {
            if is_sign {
                return;
            }
            return (self.garbage)(
                "an answer that nobody waits for (late, repeated or unknown id)",
            );
        };
        let response = response.map_err(|error| {
            let detail = format!("`{}` broke the protocol: {error}", self.name);
            Failure::new(Kind::UpstreamProtocol, detail)
        });
        // The caller may have gone away in this moment; then nobody needs the answer.
        let _ = waiter.done.send(First::Answer(response));
    }

    fn notice(&self, method: Method, envelope: &Envelope<'_>, message: &Bytes) {
        match method {
            Method::Progress => self.progress(envelope, message),
            Method::LogMessage => self.log(message),
            Method::Acknowledged => self.acknowledged(envelope),
            _ => {
                self.ear.hear(envelope);
            }
        }
    }

    /// The server has taken note of what it was asked to tell of, by the request whose id it names.
    fn acknowledged(&self, envelope: &Envelope<'_>) {
        #[derive(Deserialize)]
        struct Acknowledgement<'a> {
            #[serde(borrow, rename = "_meta")]
            meta: Of<'a>,
        }
        #[derive(Deserialize)]
        struct Of<'a> {
            #[serde(borrow, rename = "io.modelcontextprotocol/subscriptionId")]
            id: &'a RawValue,
        }
        let of: Option<Acknowledgement<'_>> = envelope
            .params
            .and_then(|params| serde_json::from_str(params.get()).ok());
        let of = of.and_then(|of| of.meta.id.get().trim_matches('"').parse::<u64>().ok());
        let calls = self.calls.lock();
        let listening = calls
            .waiting
            .iter()
            .filter(|(_, call)| call.listens.is_some());
        // One that does not say which means the last.
        let of = of.or_else(|| listening.map(|(id, _)| *id).max());
        let call = of.and_then(|id| calls.waiting.get(&id));
        if let Some(listens) = call.and_then(|call| call.listens.as_ref()) {
            listens.note(envelope.params);
        }
    }

    /// Progress goes to the call whose token it names, with the token that the client chose.
    fn progress(&self, envelope: &Envelope<'_>, message: &Bytes) {
        #[derive(Deserialize)]
        struct Progress<'a> {
            #[serde(borrow, rename = "progressToken")]
            token: &'a RawValue,
        }
        let progress: Option<Progress<'_>> = envelope
            .params
            .and_then(|params| serde_json::from_str(params.get()).ok());
        let Some((progress, id)) =
            progress.and_then(|one| one.token.get().parse::<u64>().ok().map(|id| (one, id)))
        else {
            return;
        };
        let calls = self.calls.lock();
        let notes = calls
            .waiting
            .get(&id)
            .and_then(|waiter| waiter.notes.as_ref());
        let Some((notes, token)) = notes.and_then(|notes| Some((notes, notes.token.as_ref()?)))
        else {
            return;
        };
        if let Some(range) = span(message, progress.token) {
            let mut splice = Splice::new(message);
            splice.replace(range, token);
            // A full queue loses progress, by design.
            let _ = notes.sender.try_send(Event::Notification(splice.apply()));
        }
    }

    /// A log line says not whose it is: it is passed on when only one call is in flight.
    fn log(&self, message: &Bytes) {
        let calls = self.calls.lock();
        let mut in_flight = calls.waiting.values().filter(|call| call.listens.is_none());
        let (Some(call), None) = (in_flight.next(), in_flight.next()) else {
            return;
        };
        if let Some(notes) = &call.notes {
            // A full queue loses log lines, by design.
            let _ = notes.sender.try_send(Event::Notification(message.clone()));
        }
    }

    /// A question goes to the one call that it can belong to. One that could be anybody's is refused,
    /// and the server gets its calls one by one from then on. One that could still be about a call that
    /// was left is nobody's.
    fn asked(&self, envelope: &Envelope<'_>) {
        let question = Asked::read(envelope);
        let told = match question {
            Some(question) => self.hand_over(question),
            None => Err(()),
        };
        if told.is_err() {
            // A child that does not read its input is noticed by the calls that are refused for it.
            let _ = self.send(answer_to_server(envelope));
        }
    }

    fn hand_over(&self, question: Box<Asked>) -> Result<(), ()> {
        let mut calls = self.calls.lock();
        if calls.left.may_be_asked_about() {
            return Err(());
        }
        let mut candidates = calls.waiting.values_mut().filter(|call| call.may_ask);
        let call = candidates.next().ok_or(())?;
        if candidates.next().is_some() {
            self.one_by_one.store(true, Ordering::Relaxed);
            return Err(());
        }
        let event = Event::Question(question);
        if let Some(notes) = &call.notes {
            return notes.sender.try_send(event).map_err(drop);
        }
        let (sender, notes) = mpsc::channel(NOTES);
        let (done, answer) = oneshot::channel();
        sender.try_send(event).map_err(drop)?;
        call.notes = Some(Notes {
            sender,
            token: None,
        });
        let first = std::mem::replace(&mut call.done, done);
        first
            .send(First::More(Pieces { answer, notes }))
            .map_err(drop)
    }
}

/// What a server's own request gets: `ping` an answer, everything else a refusal.
pub(crate) fn answer_to_server(envelope: &Envelope<'_>) -> Bytes {
    let id = envelope.id.map_or("null", RawValue::get).as_bytes();
    let method = envelope.method.as_deref().unwrap_or_default();
    if Method::of(method) == Method::Ping {
        return response::result(id, b"{}");
    }
    let message = format!("`{method}` cannot be passed on to a client now");
    response::error(id, METHOD_NOT_FOUND, &message, None)
}

/// The pieces of one answer.
pub(crate) struct ChannelEvents {
    answer: oneshot::Receiver<First>,
    notes: Option<mpsc::Receiver<Event>>,
    /// A piece that was read to find out what the answer is.
    put_back: Option<Event>,
    call: PendingCall,
}

impl ChannelEvents {
    pub(super) async fn next(&mut self, deadline: Instant) -> Result<Event, Failure> {
        if let Some(event) = self.put_back.take() {
            return Ok(event);
        }
        loop {
            match timeout_at(deadline, self.first()).await {
                Ok(Ok(Ok(First::Answer(answer)))) => return answer.map(Event::Done),
                Ok(Ok(Ok(First::More(pieces)))) => {
                    self.answer = pieces.answer;
                    self.notes = Some(pieces.notes);
                }
                Ok(Ok(Err(_))) => return Err(self.call.shared.lost("it is being stopped")),
                Ok(Err(event)) => return Ok(event),
                Err(_) => return Err(self.late()),
            }
        }
    }

    /// What comes first: a note or question (`Err`), or the answer.
    async fn first(&mut self) -> Result<Result<First, oneshot::error::RecvError>, Event> {
        let Some(notes) = &mut self.notes else {
            return Ok((&mut self.answer).await);
        };
        tokio::select! {
            biased;
            Some(note) = notes.recv() => Err(note),
            answer = &mut self.answer => Ok(answer),
        }
    }

    fn late(&self) -> Failure {
        Failure::new(
            Kind::UpstreamTimeout,
            format!("`{}` did not answer in time", self.call.shared.name),
        )
    }

    pub(super) fn reply(&self, message: Bytes) {
        // A child that does not read its input is noticed by the calls that are refused for it.
        let _ = self.call.shared.send(message);
    }
}

/// A call that is waited for. When nobody waits any more, the server is told.
struct PendingCall {
    id: u64,
    shared: Arc<Channel>,
    /// Given back when the call has ended.
    turn: Option<OwnedSemaphorePermit>,
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        let channel = &self.shared;
        let sign = channel.next_id.fetch_add(1, Ordering::Relaxed);
        let left = {
            let mut calls = channel.calls.lock();
            let left = calls.waiting.remove(&self.id);
            if left.as_ref().is_some_and(|call| call.may_ask) {
                calls.left.note(sign);
            }
            left
        };
        let Some(left) = left else { return };
        // A child that cannot be told will be found out by its next answer.
        let _ = channel.send(left::cancelled(self.id));
        if left.may_ask {
            let _ = channel.send(left::ask_for_sign(sign));
        }
    }
}
