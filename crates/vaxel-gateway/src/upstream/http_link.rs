//! A remote MCP server over Streamable HTTP, in either era.
//!
//! Modern: every request stands alone. Legacy: a server that hands out session ids gets one session
//! per principal and set of answers, so that what it remembers of one caller never shows to another
//! and it asks nothing that its caller did not say it answers; one that does not is shared. A session that the server forgot (404, or 400 in the field) is opened again once, and the request repeated,
//! which is safe because it was refused before it was looked at (MCP 2025-11-25, Transports,
//! "Session Management").

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method as Verb, StatusCode, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OnceCell},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_egress::{Body, Reply, ReplyBody, Target};
use vaxel_mcp::{
    envelope::{Envelope, Kind as MessageKind},
    handshake::{ServerFacts, capabilities::Answers},
    headers, hello,
    method::Method,
    request::{Forward, Request},
    response::{Response, Verdict},
    revision::{Era, Revision},
};

use super::{
    Answer, Asked, Event, Events, NowPlus, OnBehalf, Outbound,
    channel::answer_to_server,
    ear::{Ear, Listened},
    legacy_call::LegacyCall,
    session_stream::{Calls, SessionStream},
};

/// Sessions of one legacy server; the one that was opened first makes room.
const SESSIONS: usize = 1_024;
/// Longest wait for a stream of changes to open.
const OPEN_STREAM: Duration = Duration::from_secs(30);
/// How long a polite end may take.
const FAREWELL: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct HttpLink(Arc<Shared>);

struct Shared {
    target: Target,
    name: Box<str>,
    /// What every request carries: content type, accept, the service's own headers.
    base: HeaderMap,
    era: Era,
    revision: HeaderValue,
    sessions: Sessions,
    /// Ids of legacy requests: callers share sessions, so theirs could meet.
    next_id: AtomicU64,
    /// Cancellations on their way.
    farewells: TaskTracker,
    response_max: usize,
}

/// Legacy sessions, one per caller, or none when the server hands out no ids.
struct Sessions {
    handed_out: bool,
    open: Mutex<OpenSessions>,
}

#[derive(Default)]
struct OpenSessions {
    by_caller: HashMap<OnBehalf, Arc<Session>>,
    order: VecDeque<OnBehalf>,
}

/// Opened by the first request that needs it; the others wait for it.
#[derive(Default)]
struct Session {
    id: OnceCell<HeaderValue>,
    /// Calls that the server may ask about on the session's stream.
    calls: Arc<Calls>,
    stream: tokio::sync::Mutex<SessionStream>,
}

/// Where and how a server is reached, before its era is known.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) target: Target,
    pub(crate) name: Box<str>,
    pub(crate) headers: HeaderMap,
    pub(crate) response_max: usize,
}

/// What a probe of an address got.
pub(crate) struct Probe {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    pub(crate) session: Option<HeaderValue>,
}

impl Address {
    /// Posts one message outside any session and reads the whole answer.
    pub(crate) async fn post(
        &self,
        message: Bytes,
        extra: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<Probe, Failure> {
        let mut headers = base_headers(&self.headers);
        for (name, value) in extra {
            headers.insert(name.clone(), value.clone());
        }
        let reply = send(&self.target, headers, message, deadline).await?;
        let status = reply.parts.status;
        let session = reply.parts.headers.get(headers::MCP_SESSION_ID).cloned();
        let body = if is_stream(&reply.parts.headers) {
            let mut body = reply.body;
            let mut decoder = sse::Decoder::new(self.response_max);
            first_response(&mut body, &mut decoder, deadline, &self.name).await?
        } else {
            reply.body.collect(self.response_max, deadline).await?
        };
        Ok(Probe {
            status,
            body,
            session,
        })
    }
}

impl Address {
    /// Posts one message that has no answer.
    pub(crate) async fn post_notification(
        &self,
        message: Bytes,
        extra: &[(HeaderName, HeaderValue)],
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut headers = base_headers(&self.headers);
        for (name, value) in extra {
            headers.insert(name.clone(), value.clone());
        }
        let reply = send(&self.target, headers, message, deadline).await?;
        reply.body.collect(self.response_max, deadline).await?;
        Ok(())
    }
}

impl HttpLink {
    pub(crate) fn new(address: Address, facts: &ServerFacts, first: Option<HeaderValue>) -> Self {
        let handed_out = first.is_some();
        let mut open = OpenSessions::default();
        if let Some(id) = first {
            let session = Arc::new(Session {
                id: OnceCell::new_with(Some(id)),
                ..Session::default()
            });
            open.by_caller.insert(OnBehalf::SYSTEM, session);
        }
        let Address {
            target,
            name,
            headers,
            response_max,
        } = address;
        Self(Arc::new(Shared {
            target,
            name,
            base: base_headers(&headers),
            era: facts.revision.era(),
            revision: HeaderValue::from_static(facts.revision.as_str()),
            sessions: Sessions {
                handed_out,
                open: Mutex::new(open),
            },
            // `initialize` was the first.
            next_id: AtomicU64::new(2),
            farewells: TaskTracker::new(),
            response_max,
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
        let reply = send(&self.0.target, map, body, out.deadline).await?;
        self.read(reply, None, out.deadline).await
    }

    async fn legacy(
        &self,
        out: &Outbound<'_>,
        body: Bytes,
        call: LegacyCall,
    ) -> Result<Answer, Failure> {
        let slot = self.0.slot(out.on_behalf);
        let first = self
            .ask_in(slot.as_deref(), body.clone(), call, out)
            .await?;
        let (call, answer) = match first {
            InSession::Answered(answer) => return Ok(answer),
            InSession::Forgotten(call, answer) => (call, answer),
        };
        let Some(slot) = slot else { return answer };
        self.0.forget(out.on_behalf, &slot);
        let slot = self.0.slot(out.on_behalf);
        self.ask_in(slot.as_deref(), body, call, out)
            .await?
            .answer()
    }

    /// Asks within a session, and notices when the server does not know it.
    async fn ask_in(
        &self,
        slot: Option<&Session>,
        body: Bytes,
        mut call: LegacyCall,
        out: &Outbound<'_>,
    ) -> Result<InSession, Failure> {
        let deadline = out.deadline;
        let answers = out.on_behalf.answers;
        let session = self.0.session_id(slot, answers, deadline).await?;
        let may_ask = out.request.method().may_ask() && answers != Answers::default();
        if let Some((slot, session)) = slot.zip(session.as_ref()).filter(|_| may_ask) {
            self.listen_in(slot, session, deadline).await;
            call.hear(&slot.calls);
        }
        call.sent(session.clone());
        let reply = self.post_legacy(body, session.as_ref(), deadline).await?;
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
        // The specification says 404. Servers in the field say 400, with an error that belongs to no
        // request: either way the request was not looked at, so repeating it is safe.
        let unread = Response::read(text.clone()).is_ok_and(|answer| {
            answer.verdict == Verdict::Error && matches!(answer.id(), b"" | b"null")
        });
        let answer = self.0.judge(status, text);
        if status == StatusCode::NOT_FOUND || unread {
            return Ok(InSession::Forgotten(call, answer));
        }
        answer.map(InSession::Answered)
    }

    /// Opens the stream of a session, where it is missing, before a call that the server may ask about
    /// is sent: what it says on a stream that is not there is lost.
    async fn listen_in(&self, slot: &Session, session: &HeaderValue, deadline: Instant) {
        let mut stream = slot.stream.lock().await;
        if !stream.is_missing() {
            return;
        }
        let deadline = deadline.min(Instant::now_plus(FAREWELL));
        let map = self.0.legacy_headers(Some(session));
        let opening = request(Verb::GET, &self.0.target, map, Body::Empty);
        let Ok(reply) = self.0.target.send(opening, deadline).await else {
            // The next call tries it again.
            return;
        };
        if !reply.parts.status.is_success() || !is_stream(&reply.parts.headers) {
            stream.is_refused = true;
            return;
        }
        let mut body = reply.body;
        body.detach();
        let (link, session) = (Arc::downgrade(&self.0), session.clone());
        let tell = move |message: Bytes| {
            if let Some(shared) = link.upgrade() {
                Self(shared).tell(message, Some(session.clone()));
            }
        };
        stream.follow(body, self.0.response_max, Arc::clone(&slot.calls), tell);
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

    async fn post_legacy(
        &self,
        body: Bytes,
        session: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let map = self.0.legacy_headers(session);
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
            let mut events = HttpEvents {
                body,
                decoder: sse::Decoder::new(self.0.response_max),
                link: self.clone(),
                call,
                put_back: None,
            };
            // Most servers stream even when all they say is the answer.
            return match events.next(deadline).await? {
                Event::Done(response) => Ok(Answer::Done(response)),
                other => {
                    events.put_back = Some(other);
                    Ok(Answer::Stream(Events::Http(Box::new(events))))
                }
            };
        }
        let text = body.collect(self.0.response_max, deadline).await?;
        call.iter_mut().for_each(LegacyCall::ended);
        self.0.judge(parts.status, text)
    }

    /// Waits on the stream of a legacy server's session and passes on what it says, until the server
    /// says that it has no such stream or the connection breaks.
    pub(super) async fn listen(&self, ear: &Ear) -> Listened {
        let opened = async {
            let deadline = Instant::now_plus(OPEN_STREAM);
            let system = OnBehalf::SYSTEM;
            let slot = self.0.slot(system);
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
                    _ => ear.hear(envelope),
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
        acknowledged: &Notify,
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
                        Some(Method::Acknowledged) => acknowledged.notify_one(),
                        _ => ear.hear(envelope),
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

    /// Ends the sessions that are open.
    pub(super) async fn close(&self) {
        let sessions = std::mem::take(&mut *self.0.sessions.open.lock());
        let deadline = Instant::now_plus(FAREWELL);
        for session in sessions.by_caller.into_values() {
            let Some(id) = session.id.get() else { continue };
            let map = self.0.legacy_headers(Some(id));
            let request = request(Verb::DELETE, &self.0.target, map, Body::Empty);
            if let Err(error) = self.0.target.send(request, deadline).await {
                tracing::debug!(service.name = %self.0.name, %error, "a session was not ended");
                return;
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

impl Shared {
    /// The place of a caller's session; none when the server hands out no ids.
    fn slot(&self, caller: OnBehalf) -> Option<Arc<Session>> {
        if !self.sessions.handed_out {
            return None;
        }
        let mut open = self.sessions.open.lock();
        if let Some(session) = open.by_caller.get(&caller) {
            return Some(Arc::clone(session));
        }
        if open.by_caller.len() >= SESSIONS
            && let Some(oldest) = open.order.pop_front()
        {
            open.by_caller.remove(&oldest);
        }
        let session = Arc::<Session>::default();
        open.by_caller.insert(caller, Arc::clone(&session));
        open.order.push_back(caller);
        Some(session)
    }

    fn forget(&self, caller: OnBehalf, slot: &Arc<Session>) {
        let mut open = self.sessions.open.lock();
        let same = |known: &Arc<Session>| Arc::ptr_eq(known, slot);
        if open.by_caller.get(&caller).is_some_and(same) {
            open.by_caller.remove(&caller);
            open.order.retain(|other| *other != caller);
        }
    }

    async fn session_id(
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

    fn legacy_headers(&self, session: Option<&HeaderValue>) -> HeaderMap {
        let mut map = self.base.clone();
        map.insert(headers::MCP_PROTOCOL_VERSION, self.revision.clone());
        if let Some(id) = session {
            map.insert(headers::MCP_SESSION_ID, id.clone());
        }
        map
    }

    /// A JSON-RPC answer counts whatever its status; the rest is told by its status.
    fn judge(&self, status: StatusCode, text: Bytes) -> Result<Answer, Failure> {
        let authentic = !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if authentic && let Ok(response) = Response::read(text) {
            return Ok(Answer::Done(response));
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

fn base_headers(own: &HeaderMap) -> HeaderMap {
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

async fn send(
    target: &Target,
    headers: HeaderMap,
    body: Bytes,
    deadline: Instant,
) -> Result<Reply, Failure> {
    let request = request(Verb::POST, target, headers, Body::Full(body));
    Ok(target.send(request, deadline).await?)
}

pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"))
}

/// Reads a stream up to the first answer, passing over everything else.
async fn first_response(
    body: &mut ReplyBody,
    decoder: &mut sse::Decoder,
    deadline: Instant,
    name: &str,
) -> Result<Bytes, Failure> {
    loop {
        let message = next_message(body, decoder, deadline, name).await?;
        if Envelope::parse(&message).is_ok_and(|one| one.kind() == MessageKind::Response) {
            return Ok(message);
        }
    }
}

async fn next_message(
    body: &mut ReplyBody,
    decoder: &mut sse::Decoder,
    deadline: Instant,
    name: &str,
) -> Result<Bytes, Failure> {
    loop {
        match decoder.next() {
            Some(Ok(event)) if event.data.is_empty() => continue,
            Some(Ok(event)) => return Ok(event.data),
            Some(Err(error)) => {
                let detail = format!("`{name}` broke the protocol: {error}");
                return Err(Failure::new(Kind::UpstreamProtocol, detail));
            }
            None => {}
        }
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| {
            Failure::new(
                Kind::UpstreamTimeout,
                format!("`{name}` did not answer in time"),
            )
        })?;
        match frame {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    decoder.push(&data);
                }
            }
            Some(Err(error)) => return Err(lost(name).caused_by(error)),
            None => return Err(lost(name)),
        }
    }
}

fn lost(name: &str) -> Failure {
    Failure::new(
        Kind::UpstreamLost,
        format!("`{name}` ended its answer before it was complete"),
    )
}

/// What a legacy server says of a call outside of its answer.
async fn heard(call: Option<&mut LegacyCall>) -> Event {
    match call {
        Some(call) => call.heard().await,
        None => std::future::pending().await,
    }
}

/// The pieces of one streamed answer.
pub(crate) struct HttpEvents {
    body: ReplyBody,
    decoder: sse::Decoder,
    link: HttpLink,
    call: Option<LegacyCall>,
    /// A piece that was read to find out what the answer is.
    put_back: Option<Event>,
}

impl HttpEvents {
    pub(super) async fn next(&mut self, deadline: Instant) -> Result<Event, Failure> {
        if let Some(event) = self.put_back.take() {
            return Ok(event);
        }
        let name = self.link.0.name.clone();
        loop {
            let message = tokio::select! {
                biased;
                event = heard(self.call.as_mut()) => return Ok(event),
                message = next_message(&mut self.body, &mut self.decoder, deadline, &name) => message?,
            };
            let Ok(envelope) = Envelope::parse(&message) else {
                continue;
            };
            match envelope.kind() {
                MessageKind::Response => {
                    drop(envelope);
                    self.call.iter_mut().for_each(LegacyCall::ended);
                    return Response::read(message).map(Event::Done).map_err(|error| {
                        let detail = format!("`{name}` broke the protocol: {error}");
                        Failure::new(Kind::UpstreamProtocol, detail)
                    });
                }
                MessageKind::Notification => {
                    let note = self.call.as_ref().map(|call| call.outward(&message));
                    return Ok(Event::Notification(note.unwrap_or(message)));
                }
                // A modern server asks nothing this way.
                MessageKind::Request if self.call.is_some() => {
                    if let Some(asked) = Asked::read(&envelope) {
                        return Ok(Event::Question(asked));
                    }
                    self.reply(answer_to_server(&envelope));
                }
                MessageKind::Request | MessageKind::Invalid => {}
            }
        }
    }

    pub(super) fn reply(&self, message: Bytes) {
        let session = self.call.as_ref().and_then(LegacyCall::session);
        self.link.tell(message, session.cloned());
    }
}
