//! Legacy sessions of clients (MCP 2025-11-25, Transports, "Session Management").
//!
//! A session id is a sealed token that holds what the session was opened with: any process that has
//! the key can take it up again, so a restart of Vaxel does not end sessions. What was opened or
//! taken up here is kept in memory, bounded in number and idle time.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) mod remembered;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use vaxel_auth::seal::Sealer;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{self, Id, Service},
    principal::{Principal, Proof},
    session::{LIFE, SessionState},
    sse,
    time::Timestamp,
};
use vaxel_mcp::{
    handshake::capabilities::{self, Answers},
    level::Level,
    request::ModernMeta,
    response::Response,
    revision::Revision,
};

use self::remembered::Remembered;
use crate::{
    interest::{Interests, Watched},
    replay::Replays,
    route::ScopeId,
};

/// Longest session id that is looked at, bytes.
const TOKEN_MAX: usize = 8 << 10;
/// Longest capabilities and client info that a session keeps, bytes each.
const FACT_MAX: usize = 2 << 10;

/// One legacy session.
pub(crate) struct Session {
    pub(crate) id: Id<id::Session>,
    pub(crate) revision: Revision,
    pub(crate) proof: Proof,
    /// What a modern upstream is told about this client.
    pub(crate) meta: ArcSwap<ModernMeta>,
    /// Which questions of a server the client answers.
    pub(crate) answers: Answers,
    /// Questions that the client was asked, and who waits for its answers; `None` when the session has
    /// ended, so that there will be none.
    questions: Mutex<Option<HashMap<u64, oneshot::Sender<Response>>>>,
    next_question: AtomicU64,
    /// Resources that the client watches, by URI.
    pub(crate) watched: Mutex<HashMap<Box<str>, Watched>>,
    /// Streams on which the client hears of changes, the newest last.
    streams: Mutex<Vec<OpenStream>>,
    /// Streamed answers that the client can take up again.
    pub(crate) replays: Replays,
    /// Calls in flight by raw id, to be cancelled by `notifications/cancelled`.
    calls: Mutex<HashMap<Box<[u8]>, CancellationToken>>,
    seen: AtomicU64,
}

/// A stream on which a client hears of what is seen in a scope.
struct OpenStream {
    id: u64,
    scope: ScopeId,
    events: mpsc::Sender<Bytes>,
}

/// What a token holds.
#[derive(Serialize, Deserialize)]
struct Claims {
    /// Identity of the session.
    i: Id<id::Session>,
    /// Revision.
    v: Box<str>,
    /// Who opened it.
    p: Proof,
    /// Client capabilities.
    c: Box<RawValue>,
    /// Client name and version.
    n: Box<RawValue>,
}

/// What a client said when it opened a session.
pub(crate) struct Opening<'a> {
    pub(crate) revision: Revision,
    pub(crate) principal: &'a Principal,
    pub(crate) capabilities: &'a RawValue,
    pub(crate) info: &'a RawValue,
}

/// All legacy sessions.
pub(crate) struct Sessions {
    sealer: Arc<Sealer>,
    interests: Arc<Interests>,
    pub(crate) remembered: Remembered,
    open: Mutex<Open>,
    max: usize,
    idle: Duration,
}

#[derive(Default)]
struct Open {
    by_token: HashMap<Arc<str>, Arc<Session>>,
}

const CONTEXT: &[u8] = b"legacy session";

impl Sessions {
    pub(crate) fn new(
        sealer: Arc<Sealer>,
        interests: Arc<Interests>,
        max: usize,
        idle: Duration,
    ) -> Self {
        Self {
            sealer,
            interests,
            remembered: Remembered::default(),
            open: Mutex::default(),
            max,
            idle,
        }
    }

    /// Opens a session; returns its id.
    pub(crate) fn open(&self, opening: &Opening<'_>, now: Timestamp) -> Result<Arc<str>, Failure> {
        for (what, fact) in [
            ("capabilities", opening.capabilities),
            ("clientInfo", opening.info),
        ] {
            if fact.get().len() > FACT_MAX {
                let detail = format!("`{what}` is larger than {FACT_MAX} bytes");
                return Err(Failure::new(Kind::TooLarge, detail));
            }
        }
        let claims = Claims {
            i: Id::new(now),
            v: opening.revision.as_str().into(),
            p: opening.principal.proof,
            c: opening.capabilities.to_owned(),
            n: opening.info.to_owned(),
        };
        let plain = serde_json::to_vec(&claims).map_err(Failure::internal)?;
        let token: Arc<str> = self.sealer.seal_text(CONTEXT, &plain).into();
        let session = Session::of(&claims, now)
            .ok_or_else(|| Failure::new(Kind::Internal, "A session could not be opened"))?;
        self.keep(Arc::clone(&token), Arc::new(session), now);
        Ok(token)
    }

    /// The session behind `token`, when `principal` is who opened it.
    pub(crate) fn find(
        &self,
        token: &str,
        principal: &Principal,
        now: Timestamp,
    ) -> Result<Arc<Session>, Failure> {
        let known = self.open.lock().by_token.get(token).cloned();
        let session = match known {
            Some(session) => session,
            None => self.take_up(token, now).ok_or_else(unknown)?,
        };
        // Someone else's session does not exist for this caller.
        if session.proof != principal.proof {
            return Err(unknown());
        }
        session.seen.store(now.as_millis(), Ordering::Relaxed);
        Ok(session)
    }

    /// Ends a session for ever; its calls in flight go on to their end, except for those that wait for
    /// its answers.
    pub(crate) fn end(&self, token: &str) {
        if let Some(id) = self.close(token) {
            self.remembered.change(id, |state| {
                *state = SessionState {
                    ended: true,
                    ..SessionState::new(id)
                };
            });
        }
    }

    /// Ends a session whose id nobody knows outside of this process.
    pub(crate) fn forget(&self, token: &str) {
        if let Some(id) = self.close(token) {
            self.remembered
                .change(id, |state| *state = SessionState::new(id));
        }
    }

    fn close(&self, token: &str) -> Option<Id<id::Session>> {
        let open = self.open.lock().by_token.remove(token);
        let Some(session) = open else {
            return Some(self.claims(token)?.i);
        };
        session.questions.lock().take();
        Some(session.id)
    }

    /// Takes note of what the client has set in its session.
    pub(crate) fn remember(&self, session: &Session) {
        // Looked at in there: of two changes at once the later note must not be of the earlier one.
        self.remembered.change(session.id, |state| {
            let level = session.meta.load().log_level;
            let watched = session.watched.lock();
            let watched = watched
                .values()
                .map(|one| (one.service(), one.uri().into(), one.known_as().into()));
            state.level = level.map(|level| level.as_json().trim_matches('"').into());
            state.watched = watched.collect();
            state.watched.sort();
        });
    }

    /// How many are kept in memory.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().by_token.len()
    }

    /// Forgets what was idle too long.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let idle = self.idle;
        self.remembered.forget_before(now.minus(LIFE));
        self.open.lock().by_token.retain(|_, session| {
            session.replays.sweep();
            // A stream or a call is at work in it.
            if Arc::strong_count(session) > 1 {
                return true;
            }
            now.since(Timestamp::from_millis(session.seen.load(Ordering::Relaxed))) < idle
        });
    }

    /// A token of an earlier process, or one that was idle.
    fn take_up(&self, token: &str, now: Timestamp) -> Option<Arc<Session>> {
        let claims = self.claims(token)?;
        let state = self.remembered.of(claims.i);
        let is_over = state.as_ref().is_some_and(|state| state.ended);
        if is_over || now.since(claims.i.created_at()) > LIFE {
            return None;
        }
        let session = Session::of(&claims, now)?;
        if let Some(state) = state {
            session.restore(&state, &self.interests);
        }
        let session = self.keep(token.into(), Arc::new(session), now);
        // It may have been ended while it was taken up.
        let is_over = self
            .remembered
            .of(claims.i)
            .is_some_and(|state| state.ended);
        if is_over {
            self.close(token);
            return None;
        }
        Some(session)
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let plain = self.sealer.open_text(CONTEXT, token).ok()?;
        serde_json::from_slice(plain.expose()).ok()
    }

    /// Keeps a session; the one that is returned is the one that is kept, when two requests came with
    /// the same id at once.
    fn keep(&self, token: Arc<str>, session: Arc<Session>, now: Timestamp) -> Arc<Session> {
        if self.len() >= self.max {
            self.sweep(now);
        }
        let mut open = self.open.lock();
        if open.by_token.len() >= self.max {
            // The longest idle one makes room; its token can still take it up again.
            let oldest = open
                .by_token
                .iter()
                .min_by_key(|(_, session)| session.seen.load(Ordering::Relaxed))
                .map(|(token, _)| Arc::clone(token));
            if let Some(oldest) = oldest {
                open.by_token.remove(&oldest);
            }
        }
        Arc::clone(open.by_token.entry(token).or_insert(session))
    }
}

impl Session {
    fn of(claims: &Claims, now: Timestamp) -> Option<Self> {
        let revision = claims.v.parse().ok()?;
        let capabilities = capabilities::client_to_modern(revision, &claims.c);
        let meta = ModernMeta {
            capabilities: String::from_utf8(capabilities).ok()?.into(),
            info: claims.n.get().into(),
            log_level: None,
        };
        Some(Self {
            id: claims.i,
            revision,
            proof: claims.p,
            meta: ArcSwap::from_pointee(meta),
            answers: Answers::of(revision, &claims.c),
            questions: Mutex::new(Some(HashMap::new())),
            // An answer to a question of an earlier process must not meet a new one.
            next_question: AtomicU64::new(now.as_millis()),
            watched: Mutex::default(),
            streams: Mutex::default(),
            replays: Replays::new(now),
            calls: Mutex::default(),
            seen: AtomicU64::new(now.as_millis()),
        })
    }

    /// Sets what the client had set in an earlier process, or before it was idle for long.
    fn restore(&self, state: &SessionState, interests: &Interests) {
        if let Some(level) = state.level.as_deref().and_then(Level::of) {
            self.set_level(level);
        }
        let mut watched = self.watched.lock();
        for (service, uri, known_as) in &state.watched {
            let one = interests.of(*service).watch(uri, known_as);
            watched.insert(known_as.clone(), one);
        }
    }

    /// Sets the least severe log message that this client wants.
    pub(crate) fn set_level(&self, level: Level) {
        let mut meta = ModernMeta::clone(&self.meta.load());
        meta.log_level = Some(level);
        self.meta.store(Arc::new(meta));
    }

    /// Registers a question to the client, whose answer comes by a request of its own.
    pub(crate) fn ask(self: &Arc<Self>) -> OpenAnswer {
        let id = self.next_question.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        if let Some(questions) = self.questions.lock().as_mut() {
            questions.insert(id, sender);
        }
        OpenAnswer {
            session: Arc::clone(self),
            id,
            answer,
        }
    }

    /// The client answers; what answers nothing that was asked is dropped.
    pub(crate) fn answer(&self, response: Response) {
        let id = std::str::from_utf8(response.id()).ok();
        let id = id.and_then(|id| id.parse().ok());
        let asked = id.and_then(|id: u64| self.questions.lock().as_mut()?.remove(&id));
        if let Some(asked) = asked {
            // The call may have ended in this moment; then nobody needs the answer.
            let _ = asked.send(response);
        }
    }

    /// Registers a stream of changes of what is seen in `scope`.
    pub(crate) fn listen(
        self: &Arc<Self>,
        scope: ScopeId,
        events: mpsc::Sender<Bytes>,
    ) -> Listener {
        let id = self.next_question.fetch_add(1, Ordering::Relaxed);
        self.streams.lock().push(OpenStream {
            id,
            scope: scope.clone(),
            events,
        });
        Listener {
            session: Arc::clone(self),
            scope,
            id,
        }
    }

    /// Tells the client a log line of a service that belongs to none of its calls in flight. It is lost
    /// where there is no stream for it, or one that is not read.
    pub(crate) fn log(&self, service: Id<Service>, line: &Bytes, level: Option<Level>) {
        let wanted = self.meta.load().log_level;
        if level
            .zip(wanted)
            .is_some_and(|(level, wanted)| level < wanted)
        {
            return;
        }
        let streams = self.streams.lock();
        // The client has called the service. Where it has a stream of a set only, that is where.
        let fits = |one: &&OpenStream| match &one.scope {
            ScopeId::All => true,
            ScopeId::Service(only) => *only == service,
            ScopeId::Set(_) => false,
        };
        let is_of_set = |one: &&OpenStream| matches!(one.scope, ScopeId::Set(_));
        let newest = || streams.iter().rev();
        if let Some(newest) = newest().find(fits).or_else(|| newest().find(is_of_set)) {
            let _ = newest.events.try_send(sse::event(line, None));
        }
    }

    /// Registers a call so that the client can cancel it; the guard takes it out again.
    pub(crate) fn enter(self: &Arc<Self>, id: &[u8]) -> InFlight {
        let token = CancellationToken::new();
        self.calls.lock().insert(id.into(), token.clone());
        InFlight {
            session: Arc::clone(self),
            id: id.into(),
            token,
        }
    }

    /// Cancels the call with this raw id, if it is in flight.
    pub(crate) fn cancel(&self, id: &[u8]) {
        if let Some(token) = self.calls.lock().get(id) {
            token.cancel();
        }
    }
}

/// A question that the client has not answered yet.
pub(crate) struct OpenAnswer {
    session: Arc<Session>,
    pub(crate) id: u64,
    answer: oneshot::Receiver<Response>,
}

impl OpenAnswer {
    /// Resolves with the client's answer; with nothing when its session has ended.
    pub(crate) async fn wait(mut self) -> Option<Response> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for OpenAnswer {
    fn drop(&mut self) {
        if let Some(questions) = self.session.questions.lock().as_mut() {
            questions.remove(&self.id);
        }
    }
}

/// A stream on which a client hears of changes.
pub(crate) struct Listener {
    session: Arc<Session>,
    scope: ScopeId,
    id: u64,
}

impl Listener {
    /// Whether news go onto this stream: each goes onto one, the newest (MCP 2025-11-25, Transports,
    /// "Multiple Connections").
    pub(crate) fn is_newest(&self) -> bool {
        let streams = self.session.streams.lock();
        let mut same = streams.iter().rev().filter(|one| one.scope == self.scope);
        same.next().is_some_and(|newest| newest.id == self.id)
    }

    pub(crate) const fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.session.streams.lock().retain(|one| one.id != self.id);
    }
}

/// A call in flight in a session.
pub(crate) struct InFlight {
    session: Arc<Session>,
    id: Box<[u8]>,
    token: CancellationToken,
}

impl InFlight {
    /// Resolves when the client cancels the call.
    pub(crate) async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Whether the client has cancelled the call.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.session.calls.lock().remove(&self.id);
    }
}

fn unknown() -> Failure {
    Failure::new(
        Kind::UnknownSession,
        "This session is not known here or has ended: initialize a new one",
    )
}

#[cfg(test)]
mod tests;
