//! A remote MCP server over Streamable HTTP, in either era.
//!
//! Modern: every request stands alone. Legacy: requests are made within sessions (`http_sessions`). One
//! that the server forgot (404, or 400 in the field) is opened again once, and the request repeated,
//! which is safe because it was refused before it was looked at (MCP 2025-11-25, Transports,
//! "Session Management").

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb, StatusCode, header};
use http_body_util::BodyExt;
use tokio::{sync::Notify, time::Instant};
use tokio_util::task::TaskTracker;
use vaxel_core::{
    failure::{Failure, Kind},
    service::EraChoice,
    sse,
};
use vaxel_egress::{Body, Reply, ReplyBody, Target};
use vaxel_mcp::{
    envelope::{Envelope, Kind as MessageKind},
    handshake::{self, ProbeAnswer, ServerFacts, Verdict as ProbeVerdict, capabilities::Answers},
    headers,
    method::Method,
    request::{Forward, Request},
    response::{Response, Verdict},
    revision::Era,
};

use super::{
    Answer, NowPlus, OnBehalf, Outbound,
    channel::answer_to_server,
    ear::{self, Acknowledged, Ear, Listened},
    http_events::{HttpEvents, Source},
    http_probe::{Address, probe_modern},
    http_sessions::{Session, Sessions},
    introduction::Told,
    left,
    legacy_call::{LeftCall, LegacyCall},
    wallet::Door,
};

/// Shortest time between two looks at which era a server speaks.
const DOUBT_PAUSE: Duration = Duration::from_secs(10);
/// Longest wait for a stream of changes to open.
pub(super) const OPEN_STREAM: Duration = Duration::from_secs(30);
/// How long what a server said on the stream of a session may be on its way.
pub(super) const STREAM_FOLLOWS: Duration = Duration::from_millis(500);
/// How long a request may be on its way to a server that has not begun to answer.
const CALL_ARRIVES: Duration = Duration::from_millis(50);
/// How long a polite end may take.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct HttpLink(pub(super) Arc<Shared>);

pub(super) struct Shared {
    address: Address,
    /// When to look again which era the server speaks; never, when that was set.
    recheck: Option<Recheck>,
    /// The server said something that belongs to another era.
    pub(super) doubt: Notify,
    pub(super) target: Door,
    pub(super) name: Box<str>,
    /// What every request carries: content type, accept, the service's own headers.
    pub(super) base: HeaderMap,
    era: Era,
    pub(super) revision: HeaderValue,
    pub(super) sessions: Sessions,
    /// Hears of changes, whatever session they are told in.
    pub(super) ear: Ear,
    /// The server says that it tells of changes of its lists.
    announces: bool,
    /// Ids of legacy requests: callers share sessions, so theirs could meet.
    next_id: AtomicU64,
    /// Cancellations on their way.
    pub(super) farewells: TaskTracker,
    pub(super) response_max: usize,
}

/// How often, and with what patience, a server is asked again which era it speaks.
#[derive(Clone, Copy)]
pub(crate) struct Recheck {
    pub(crate) every: Duration,
    pub(crate) wait: Duration,
}

impl HttpLink {
    pub(crate) fn new(
        address: Address,
        facts: &ServerFacts,
        first: Option<HeaderValue>,
        (recheck, ear): (Option<Recheck>, &Ear),
    ) -> Self {
        Self(Arc::new(Shared {
            target: address.target.clone(),
            name: address.name.clone(),
            base: base_headers(&address.headers),
            response_max: address.response_max,
            address,
            recheck,
            doubt: Notify::new(),
            era: facts.revision.era(),
            revision: HeaderValue::from_static(facts.revision.as_str()),
            sessions: Sessions::beginning_with(first),
            ear: ear.clone(),
            announces: ear::announces(facts),
            // `initialize` was the first.
            next_id: AtomicU64::new(2),
            farewells: TaskTracker::new(),
        }))
    }

    /// The same server for a user who comes with a token of their own; nothing has been said there yet.
    pub(super) fn of_user(&self, user: &Arc<str>) -> Self {
        let own = &self.0;
        let Some(target) = own.target.of_user(user) else {
            return self.clone();
        };
        Self(Arc::new(Shared {
            address: own.address.clone(),
            recheck: None,
            doubt: Notify::new(),
            target,
            name: own.name.clone(),
            base: own.base.clone(),
            era: own.era,
            revision: own.revision.clone(),
            sessions: own.sessions.anew(),
            ear: own.ear.clone(),
            announces: own.announces,
            next_id: AtomicU64::new(2),
            farewells: TaskTracker::new(),
            response_max: own.response_max,
        }))
    }

    pub(super) async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let token = out.request.progress_token();
        let id = match self.0.era {
            Era::Modern => None,
            Era::Legacy => Some(self.0.next_id.fetch_add(1, Ordering::Relaxed)),
        };
        let body = out.request.forward(&Forward {
            id,
            key: out.key_json,
            progress_token: id.filter(|_| token.is_some()),
            meta: out.meta_change(self.0.era),
            // It is told in a header.
            identity: None,
        });
        match id {
            None => self.modern(out, body).await,
            Some(id) => {
                let call = LegacyCall::new(self.clone(), id, token);
                self.legacy(out, body, call).await
            }
        }
    }

    async fn modern(&self, out: &Outbound<'_>, body: Bytes) -> Result<Answer, Failure> {
        let mut map = self.0.base.clone();
        map.insert(headers::MCP_PROTOCOL_VERSION, self.0.revision.clone());
        map.insert(headers::MCP_METHOD, method_header(out.request)?);
        if out.request.method().addressed_by().is_some() {
            map.insert(headers::MCP_NAME, name_header(out.key)?);
        }
        for (name, value) in out.param_headers {
            map.append(name.clone(), value.clone());
        }
        map.extend(out.told.map(Told::header));
        let reply = send(&self.0.target, map, body, out.deadline).await?;
        self.read(reply, None, out.deadline).await
    }

    async fn legacy(
        &self,
        out: &Outbound<'_>,
        body: Bytes,
        call: LegacyCall,
    ) -> Result<Answer, Failure> {
        let slot = self.slot(out.on_behalf);
        let first = self.ask_in(slot.as_ref(), body.clone(), call, out).await?;
        let (call, answer) = match first {
            InSession::Answered(answer) => return Ok(answer),
            InSession::Forgotten(call, answer) => (call, answer),
        };
        let Some(slot) = slot else { return answer };
        self.0.sessions.forget(out.on_behalf, &slot);
        let slot = self.slot(out.on_behalf);
        self.ask_in(slot.as_ref(), body, call, out).await?.answer()
    }

    /// Asks within a session, and notices when the server does not know it.
    async fn ask_in(
        &self,
        slot: Option<&Arc<Session>>,
        body: Bytes,
        mut call: LegacyCall,
        out: &Outbound<'_>,
    ) -> Result<InSession, Failure> {
        let deadline = out.deadline;
        let answers = out.on_behalf.answers;
        let held = slot.map(|slot| &**slot);
        let session = self.0.session_id(held, answers, deadline).await?;
        let may_ask = out.request.method().may_ask() && answers != Answers::default();
        let listens = may_ask || out.wants_logs;
        let body = call.sent(body, session.clone(), slot.cloned());
        let held = slot.zip(session.as_ref());
        if let Some((slot, session)) = held.filter(|_| listens || self.0.announces) {
            self.listen_in(slot, session);
        }
        let reply = match held.filter(|_| listens) {
            None => {
                self.post_call(out.told, body, session.as_ref(), deadline)
                    .await?
            }
            Some((slot, session)) => {
                slot.stream.opened(deadline).await;
                call.hear(&slot.calls, out);
                let (link, session) = (self.clone(), session.clone());
                let told = out.told.cloned();
                let posting = async move {
                    let told = told.as_ref();
                    link.post_call(told, body, Some(&session), deadline).await
                };
                let mut posting = Box::pin(posting);
                tokio::select! {
                    biased;
                    event = call.heard() => {
                        // It asks before it answers, so it has taken the call.
                        let source = Source::Awaited(posting);
                        let events = HttpEvents::new(self.clone(), source, Some(call));
                        return Ok(InSession::Answered(events.after(event)));
                    }
                    reply = &mut posting => reply?,
                }
            }
        };
        call.begun();
        let status = reply.parts.status;
        let refused = matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
        if session.is_none() || !refused {
            return self
                .read(reply, Some(call), deadline)
                .await
                .map(InSession::Answered);
        }
        call.ended();
        let text = reply.body.collect(self.0.response_max, deadline).await?;
        self.0.doubt_if_odd(status, &text);
        // The specification says 404. Servers in the field say 400, with an error that belongs to no
        // request: either way the request was not looked at, so repeating it is safe.
        let unread = is_unread(status, &text) && Response::read(text.clone()).is_ok();
        let answer = self.0.judge(status, text).map(Answer::Done);
        if status == StatusCode::NOT_FOUND || unread {
            return Ok(InSession::Forgotten(call, answer));
        }
        answer.map(InSession::Answered)
    }

    /// An id for a request of Vaxel's own.
    pub(super) fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the server that nobody waits for a request, and where it may ask about it on the stream of
    /// the session, waits for a sign that it knows.
    pub(super) fn call_off(&self, left: LeftCall) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The process is ending; so do its connections.
            return;
        };
        let link = self.clone();
        let farewell = async move {
            if !left.has_begun {
                // The two go over different connections.
                tokio::time::sleep(CALL_ARRIVES).await;
            }
            let deadline = Instant::now_plus(FAREWELL);
            let session = left.session.as_ref();
            let told = link.post_legacy(left::cancelled(left.id), session, deadline);
            told.await?;
            let Some((calls, sign)) = left.calls else {
                return Ok(());
            };
            let asked = link.post_legacy(left::ask_for_sign(sign), session, deadline);
            let reply = asked.await?;
            reply.body.collect(link.0.response_max, deadline).await?;
            // The stream is another connection: what was said on it before may come after.
            tokio::time::sleep(STREAM_FOLLOWS).await;
            calls.hear_sign(sign);
            Ok::<_, Failure>(())
        };
        let shared = Arc::clone(&self.0);
        let noted = async move {
            if let Err(failure) = farewell.await {
                tracing::debug!(service.name = %shared.name, %failure, "a call was not called off");
            }
        };
        self.0.farewells.spawn_on(noted, &runtime);
    }

    /// Tells the server something that has no answer, as a task of its own: that nobody waits for a
    /// request any more, or the answer to a question of its own.
    pub(super) fn tell(&self, message: Bytes, session: Option<HeaderValue>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // The process is ending; so do its connections.
            return;
        };
        let link = self.clone();
        let farewell = async move {
            let deadline = Instant::now_plus(FAREWELL);
            let told = link.post_legacy(message, session.as_ref(), deadline).await;
            if let Err(failure) = told {
                tracing::debug!(service.name = %link.0.name, %failure, "a message was not delivered");
            }
        };
        self.0.farewells.spawn_on(farewell, &runtime);
    }

    /// Posts a message of Vaxel's own.
    async fn post_legacy(
        &self,
        body: impl Into<Body>,
        session: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        self.post_call(None, body, session, deadline).await
    }

    async fn post_call(
        &self,
        told: Option<&Told>,
        body: impl Into<Body>,
        session: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let mut map = self.0.legacy_headers(session);
        map.extend(told.map(Told::header));
        send(&self.0.target, map, body, deadline).await
    }

    /// Turns an HTTP answer into an MCP one.
    async fn read(
        &self,
        reply: Reply,
        mut call: Option<LegacyCall>,
        deadline: Instant,
    ) -> Result<Answer, Failure> {
        let Reply { parts, mut body } = reply;
        if is_stream(&parts.headers) && parts.status.is_success() {
            body.detach();
            let events = HttpEvents::new(self.clone(), Source::Begun(body), call);
            return events.begin(deadline).await;
        }
        call.iter_mut().for_each(LegacyCall::ended);
        let answered = self.0.whole(parts.status, body, deadline).await?;
        Ok(Answer::Done(answered))
    }

    /// Waits on the stream of a legacy server's session and passes on what it says, until the server
    /// says that it has no such stream or the connection breaks.
    pub(super) async fn listen(&self, ear: &Ear) -> Listened {
        let opened = async {
            let deadline = Instant::now_plus(OPEN_STREAM);
            let system = OnBehalf::SYSTEM;
            let slot = self.slot(system);
            let session = self
                .0
                .session_id(slot.as_deref(), system.answers, deadline)
                .await?;
            let map = self.0.legacy_headers(session.as_ref());
            let request = request(Verb::GET, &self.0.target, map, Body::Empty);
            let reply = self.0.target.send(request, deadline).await?;
            Ok::<_, Failure>((reply, session))
        };
        match opened.await {
            Ok((reply, session)) => {
                let heard = |envelope: &Envelope<'_>| match envelope.kind() {
                    // Nobody's call: nobody can be asked.
                    MessageKind::Request => self.tell(answer_to_server(envelope), session.clone()),
                    _ => {
                        ear.hear(envelope);
                    }
                };
                self.follow(reply, heard).await
            }
            Err(failure) => self.not_opened(&failure),
        }
    }

    /// The same for a modern server, by `subscriptions/listen`.
    pub(super) async fn subscribe(
        &self,
        message: Bytes,
        ear: &Ear,
        acknowledged: &Acknowledged,
    ) -> Listened {
        let mut map = self.0.base.clone();
        map.insert(headers::MCP_PROTOCOL_VERSION, self.0.revision.clone());
        let method = HeaderValue::from_static(Method::Listen.as_str());
        map.insert(headers::MCP_METHOD, method);
        let deadline = Instant::now_plus(OPEN_STREAM);
        match send(&self.0.target, map, message, deadline).await {
            Ok(reply) => {
                let heard =
                    |envelope: &Envelope<'_>| match envelope.method.as_deref().map(Method::of) {
                        Some(Method::Acknowledged) => acknowledged.note(envelope.params),
                        _ => {
                            ear.hear(envelope);
                        }
                    };
                self.follow(reply, heard).await
            }
            Err(failure) => self.not_opened(&failure),
        }
    }

    fn not_opened(&self, failure: &Failure) -> Listened {
        tracing::debug!(service.name = %self.0.name, %failure, "no stream of changes");
        Listened::Broken
    }

    async fn follow(&self, reply: Reply, heard: impl Fn(&Envelope<'_>)) -> Listened {
        if !reply.parts.status.is_success() || !is_stream(&reply.parts.headers) {
            return Listened::NotOffered;
        }
        let mut body = reply.body;
        body.detach();
        let mut decoder = sse::Decoder::new(self.0.response_max);
        while let Some(Ok(frame)) = body.frame().await {
            let Ok(data) = frame.into_data() else {
                continue;
            };
            decoder.push(&data);
            while let Some(event) = decoder.next() {
                let Ok(event) = event else {
                    return Listened::Broken;
                };
                if let Ok(envelope) = Envelope::parse(&event.data) {
                    heard(&envelope);
                }
            }
        }
        Listened::Broken
    }

    /// Resolves when the server turns out to speak another era than this link: looked at when it said
    /// something odd, and from time to time, since a legacy verdict that is not true any more would
    /// never be noticed.
    pub(super) async fn outdated(&self) -> String {
        let Some(recheck) = self.0.recheck else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                () = self.0.doubt.notified() => {}
                () = tokio::time::sleep(recheck.every) => {}
            }
            let address = &self.0.address;
            let found = Box::pin(probe_modern(address, EraChoice::Auto, recheck.wait)).await;
            match (self.0.era, found.map(|facts| facts.is_some())) {
                (Era::Legacy, Ok(true)) => return "it speaks MCP 2026-07-28 now".to_owned(),
                (Era::Modern, Ok(false)) => {
                    return "it does not speak MCP 2026-07-28 any more".to_owned();
                }
                _ => tokio::time::sleep(DOUBT_PAUSE.min(recheck.every)).await,
            }
        }
    }
}

/// What came of asking within a session.
enum InSession {
    Answered(Answer),
    /// The server does not know the session; this is what it said.
    Forgotten(LegacyCall, Result<Answer, Failure>),
}

impl InSession {
    fn answer(self) -> Result<Answer, Failure> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Forgotten(_, answer) => answer,
        }
    }
}

/// Whether a refusal belongs to no request: the server has not looked at what it was asked.
fn is_unread(status: StatusCode, text: &Bytes) -> bool {
    let is_refusal = matches!(status.as_u16(), 400 | 404 | 405);
    is_refusal
        && Response::read(text.clone())
            .is_ok_and(|one| one.verdict == Verdict::Error && matches!(one.id(), b"" | b"null"))
}

impl Shared {
    /// Takes note of a refusal that a server of this era does not speak.
    fn doubt_if_odd(&self, status: StatusCode, text: &Bytes) {
        let is_odd = match self.era {
            Era::Modern => is_unread(status, text),
            Era::Legacy if status.is_client_error() => {
                let status = status.as_u16();
                handshake::verdict(ProbeAnswer::Http { status, body: text }) == ProbeVerdict::Modern
            }
            Era::Legacy => false,
        };
        if is_odd {
            self.doubt.notify_one();
        }
    }

    pub(super) fn legacy_headers(&self, session: Option<&HeaderValue>) -> HeaderMap {
        let mut map = self.base.clone();
        map.insert(headers::MCP_PROTOCOL_VERSION, self.revision.clone());
        if let Some(id) = session {
            map.insert(headers::MCP_SESSION_ID, id.clone());
        }
        map
    }

    /// An answer that is no stream.
    pub(super) async fn whole(
        &self,
        status: StatusCode,
        body: ReplyBody,
        deadline: Instant,
    ) -> Result<Response, Failure> {
        let text = body.collect(self.response_max, deadline).await?;
        self.doubt_if_odd(status, &text);
        self.judge(status, text)
    }

    /// A JSON-RPC answer counts whatever its status; the rest is told by its status.
    fn judge(&self, status: StatusCode, text: Bytes) -> Result<Response, Failure> {
        let authentic = !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if authentic && let Ok(response) = Response::read(text) {
            return Ok(response);
        }
        let name = &self.name;
        let (kind, detail) = match status.as_u16() {
            401 | 403 => (
                Kind::UpstreamUnavailable,
                format!("`{name}` refuses the credentials that it is reached with ({status})"),
            ),
            429 | 503 => (
                Kind::UpstreamUnavailable,
                format!("`{name}` is overloaded ({status})"),
            ),
            _ => (
                Kind::UpstreamProtocol,
                format!("`{name}` answered {status} without an MCP message"),
            ),
        };
        Err(Failure::new(kind, detail))
    }
}

pub(super) fn base_headers(own: &HeaderMap) -> HeaderMap {
    let mut map = own.clone();
    map.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let accept = HeaderValue::from_static("application/json, text/event-stream");
    map.insert(header::ACCEPT, accept);
    map
}

fn method_header(request: &Request) -> Result<HeaderValue, Failure> {
    match request.method() {
        Method::Other => HeaderValue::from_str(request.method_name())
            .map_err(|_| Failure::new(Kind::Malformed, "The method name cannot stand in a header")),
        known => Ok(HeaderValue::from_static(known.as_str())),
    }
}

fn name_header(key: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(&headers::encode_value(key)).map_err(Failure::internal)
}

pub(super) fn request(
    verb: Verb,
    target: &Target,
    headers: HeaderMap,
    body: Body,
) -> http::Request<Body> {
    let mut request = http::Request::new(body);
    *request.method_mut() = verb;
    *request.uri_mut() = target.uri().clone();
    *request.headers_mut() = headers;
    request
}

pub(super) async fn send(
    target: &Door,
    headers: HeaderMap,
    body: impl Into<Body>,
    deadline: Instant,
) -> Result<Reply, Failure> {
    let request = request(Verb::POST, target, headers, body.into());
    target.send(request, deadline).await
}

pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}
