//! The sessions of a legacy server over HTTP.
//!
//! A server that hands out session ids gets one session per principal and set of answers, so that what
//! it remembers of one caller never shows to another and it asks nothing that its caller did not say it
//! answers; one that does not is shared (MCP 2025-11-25, Transports, "Session Management").

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, Method as Verb};
use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};
use vaxel_core::failure::{Failure, Kind};
use vaxel_egress::Body;
use vaxel_mcp::{handshake::capabilities::Answers, headers, hello, revision::Revision};

use super::{
    NowPlus, OnBehalf,
    http_link::{FAREWELL, HttpLink, OPEN_STREAM, Shared, request, send},
    session_stream::{Calls, Ears, SessionStream},
    told_level::ToldLevel,
};

/// Sessions of one legacy server; the one that was unused longest makes room.
const SESSIONS: usize = 1_024;
/// Sessions that are ended at the same time.
const ENDED_AT_ONCE: usize = 32;

/// Legacy sessions, one per caller, or none when the server hands out no ids.
pub(super) struct Sessions {
    handed_out: bool,
    /// What a server was told that hands out none.
    told_level: Arc<ToldLevel>,
    open: Mutex<OpenSessions>,
}

#[derive(Default)]
struct OpenSessions {
    by_caller: HashMap<OnBehalf, Known>,
}

struct Known {
    session: Arc<Session>,
    used: Instant,
}

/// Opened by the first request that needs it; the others wait for it.
#[derive(Default)]
pub(super) struct Session {
    id: OnceCell<HeaderValue>,
    /// Calls that the server may ask about on the session's stream.
    pub(super) calls: Arc<Calls>,
    pub(super) stream: SessionStream,
    told_level: Arc<ToldLevel>,
}

impl Sessions {
    /// Vaxel's own session, as it was opened when the server was asked what it is; without an id the
    /// server has no sessions.
    pub(super) fn beginning_with(first: Option<HeaderValue>) -> Self {
        let handed_out = first.is_some();
        let mut open = OpenSessions::default();
        if let Some(id) = first {
            let session = Arc::new(Session {
                id: OnceCell::new_with(Some(id)),
                ..Session::default()
            });
            let known = Known::new(session);
            open.by_caller.insert(OnBehalf::SYSTEM, known);
        }
        Self {
            handed_out,
            told_level: Arc::default(),
            open: Mutex::new(open),
        }
    }

    /// As many as these, none of them open.
    pub(super) fn anew(&self) -> Self {
        Self {
            handed_out: self.handed_out,
            told_level: Arc::default(),
            open: Mutex::default(),
        }
    }

    /// The server does not know this session any more.
    pub(super) fn forget(&self, caller: OnBehalf, slot: &Arc<Session>) {
        let mut open = self.open.lock();
        let same = |known: &Known| Arc::ptr_eq(&known.session, slot);
        if open.by_caller.get(&caller).is_some_and(same) {
            open.by_caller.remove(&caller);
        }
    }
}

impl HttpLink {
    /// The place of a caller's session; none when the server hands out no ids.
    pub(super) fn slot(&self, caller: OnBehalf) -> Option<Arc<Session>> {
        if !self.0.sessions.handed_out {
            return None;
        }
        let mut open = self.0.sessions.open.lock();
        if let Some(known) = open.by_caller.get_mut(&caller) {
            known.used = Instant::now();
            return Some(Arc::clone(&known.session));
        }
        let crowded = open.by_caller.len() >= SESSIONS;
        let oldest = crowded.then(|| open.longest_unused()).flatten();
        let evicted = oldest.and_then(|oldest| open.by_caller.remove(&oldest));
        let session = Arc::<Session>::default();
        let known = Known::new(Arc::clone(&session));
        open.by_caller.insert(caller, known);
        drop(open);
        self.end(evicted.into_iter().collect());
        Some(session)
    }

    /// What the server was told in the session of these callers.
    pub(super) fn told_level(&self, caller: OnBehalf) -> Arc<ToldLevel> {
        let slot = self.slot(caller);
        let told = slot.as_ref().map(|slot| &slot.told_level);
        Arc::clone(told.unwrap_or(&self.0.sessions.told_level))
    }

    /// Opens the stream of a session, where it is missing.
    pub(super) fn listen_in(&self, slot: &Session, session: &HeaderValue) {
        if !slot.stream.is_missing() {
            return;
        }
        let map = self.0.legacy_headers(Some(session));
        let target = self.0.target.clone();
        let opening = async move {
            let deadline = Instant::now_plus(OPEN_STREAM);
            let opening = request(Verb::GET, &target, map, Body::Empty);
            target.send(opening, deadline).await
        };
        let (link, session) = (Arc::downgrade(&self.0), session.clone());
        let tell = move |message: Bytes| {
            if let Some(shared) = link.upgrade() {
                Self(shared).tell(message, Some(session.clone()));
            }
        };
        let ears = Ears {
            limit: self.0.response_max,
            calls: Arc::clone(&slot.calls),
            ear: self.0.ear.clone(),
            tell,
        };
        slot.stream.open(opening, ears);
    }

    /// Ends the sessions that are open.
    pub(super) async fn close(&self) {
        let sessions = std::mem::take(&mut *self.0.sessions.open.lock());
        self.0.say_goodbye(sessions.by_caller.into_values()).await;
    }

    /// Ends the sessions that nobody has used for so long; Vaxel's own stays.
    pub(super) fn sweep(&self, idle: Duration) {
        let mut idle_ones = Vec::new();
        let now = Instant::now();
        self.0
            .sessions
            .open
            .lock()
            .by_caller
            .retain(|caller, known| {
                let is_in_use = Arc::strong_count(&known.session) > 1;
                if is_in_use || *caller == OnBehalf::SYSTEM {
                    known.used = now;
                }
                let stays = known.used + idle > now;
                if !stays {
                    idle_ones.push(Known::new(Arc::clone(&known.session)));
                }
                stays
            });
        self.end(idle_ones);
    }

    /// Ends sessions in a task of its own.
    fn end(&self, sessions: Vec<Known>) {
        if sessions.is_empty() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let shared = Arc::clone(&self.0);
        let goodbye = async move { shared.say_goodbye(sessions.into_iter()).await };
        self.0.farewells.spawn_on(goodbye, &runtime);
    }
}

impl Shared {
    /// The id of a session, which is opened when nobody has yet.
    pub(super) async fn session_id(
        &self,
        slot: Option<&Session>,
        answers: Answers,
        deadline: Instant,
    ) -> Result<Option<HeaderValue>, Failure> {
        let Some(slot) = slot else { return Ok(None) };
        if let Some(id) = slot.id.get() {
            return Ok(Some(id.clone()));
        }
        slot.id
            .get_or_try_init(|| self.initialize(answers, deadline))
            .await
            .cloned()
            .map(Some)
    }

    async fn initialize(
        &self,
        answers: Answers,
        deadline: Instant,
    ) -> Result<HeaderValue, Failure> {
        let revision: Revision = self
            .revision
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(Revision::LATEST_LEGACY);
        let message = hello::initialize_request(1, revision, answers);
        let reply = send(&self.target, self.base.clone(), message, deadline).await?;
        let id = reply.parts.headers.get(headers::MCP_SESSION_ID).cloned();
        let id = id
            .filter(|_| reply.parts.status.is_success())
            .ok_or_else(|| {
                self.doubt.notify_one();
                let detail = format!("`{}` did not open another session", self.name);
                Failure::new(Kind::UpstreamProtocol, detail)
            })?;
        reply.body.collect(self.response_max, deadline).await?;
        let map = self.legacy_headers(Some(&id));
        let told = hello::initialized_notification();
        let reply = send(&self.target, map, told, deadline).await?;
        reply.body.collect(self.response_max, deadline).await?;
        Ok(id)
    }

    async fn say_goodbye(&self, sessions: impl Iterator<Item = Known>) {
        let deadline = Instant::now_plus(FAREWELL);
        let ending = stream::iter(sessions).for_each_concurrent(ENDED_AT_ONCE, async |known| {
            let Some(id) = known.session.id.get() else {
                return;
            };
            let map = self.legacy_headers(Some(id));
            let request = request(Verb::DELETE, &self.target, map, Body::Empty);
            if let Err(error) = self.target.send(request, deadline).await {
                tracing::debug!(service.name = %self.name, %error, "a session was not ended");
            }
        });
        ending.await;
    }
}

impl OpenSessions {
    fn longest_unused(&self) -> Option<OnBehalf> {
        let others = self.by_caller.iter();
        let others = others.filter(|(caller, _)| **caller != OnBehalf::SYSTEM);
        let oldest = others.min_by_key(|(_, known)| known.used);
        oldest.map(|(caller, _)| *caller)
    }
}

impl Known {
    fn new(session: Arc<Session>) -> Self {
        let used = Instant::now();
        Self { session, used }
    }
}
