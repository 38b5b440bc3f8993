//! The upstream side of a call: one [`Link`] per connected instance, whatever its transport and era.

use std::{collections::BTreeSet, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::DropGuard;
use vaxel_core::{
    balance::Candidate,
    catalog::Catalog,
    failure::{Failure, Kind},
    id::{Call, Id, Session},
    name::UserName,
    principal::{Principal, Proof},
    service::SessionScope,
};
use vaxel_mcp::{
    envelope::Envelope,
    error::METHOD_NOT_FOUND,
    handshake::{ServerFacts, capabilities::Answers},
    hello::{self, Offered},
    interaction::Question,
    level::Level,
    method::Method,
    request::{ModernMeta, Request, meta_change},
    response::{self, Response},
    revision::{Era, Revision},
};

pub(crate) mod builtin;
pub(crate) mod catalog;
pub(crate) mod channel;
pub(crate) mod connections;
pub(crate) mod ear;
pub(crate) mod http_events;
pub(crate) mod http_link;
pub(crate) mod http_probe;
mod http_sessions;
mod heard; // what calls say about their server
pub(crate) mod http_tools;
pub(crate) mod introduction; // who calls, for servers that ask
mod left; // calls whose callers left
mod legacy_call;
mod per_user; // links of users with tokens of their own
pub(crate) mod pulse; // how an instance answers
mod session_stream;
pub(crate) mod sse_dial;
pub(crate) mod stdio_link;
mod told_level;
mod usage; // who uses a link
pub(crate) mod wallet; // tokens that servers want to be shown
pub(crate) mod websocket_dial;

use self::{
    channel::Channel,
    connections::Connections,
    ear::{Acknowledged, Ear, Listened},
    heard::Heard,
    introduction::{Introduction, Told},
    pulse::{Pulse, was_unsent},
    told_level::ToldLevel,
    usage::{Gate, OpenTasks},
};
use crate::{gateway::Shared, interest::Subject, session};

pub use builtin::{BuiltinError, BuiltinRequest, BuiltinServer};
pub use heard::Evidence;
pub use introduction::Introduced;
pub(crate) use per_user::PerUser;
pub use wallet::{Bearer, Refused, TokenRequest, TokenSource};

/// A connected instance of a service. Cheap to clone; the connection ends with [`Link::close`] or
/// with the last clone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    /// Tells it from other instances.
    id: u64,
    facts: ServerFacts,
    wire: Arc<Wire>,
    heard: Heard,
    gate: Gate,
    tasks: Arc<OpenTasks>,
    pulse: Pulse,
    changed: Arc<Notify>,
    /// Ends the listening together with the link.
    _listening: Option<DropGuard>,
    items_max: usize,
    session: SessionScope,
    introduction: Option<Introduction>,
}

/// Longest wait for a server to take a level.
const SET_LEVEL: Duration = Duration::from_secs(5);

pub(crate) enum Wire {
    Http(http_link::HttpLink),
    PerUser(Box<PerUser>),
    Connections(Box<Connections>),
    /// One child for all callers. The tasks that read and write end with the link.
    Stdio {
        channel: Arc<Channel>,
        era: Era,
        _tasks: JoinSet<()>,
    },
    Builtin(Arc<dyn BuiltinServer>),
    /// An instance of a service that speaks no MCP.
    Tools(Box<http_tools::HttpTools>),
}

/// A link that is used by a call, and is not closed meanwhile.
pub(crate) struct Engaged(Link);

impl Deref for Engaged {
    type Target = Link;
    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Clone for Engaged {
    fn clone(&self) -> Self {
        // It is in use, so it is open.
        self.0.0.gate.enter();
        Self(self.0.clone())
    }
}

impl Drop for Engaged {
    fn drop(&mut self) {
        self.0.0.gate.leave();
    }
}

/// One request on its way to an upstream.
pub(crate) struct Outbound<'a> {
    pub(crate) request: &'a Request,
    /// The service's own name of what is meant, as JSON string; `None` keeps what the client wrote.
    pub(crate) key_json: Option<&'a str>,
    /// The same, plain, for the `Mcp-Name` header.
    pub(crate) key: &'a str,
    pub(crate) client_era: Era,
    /// What a legacy client's session says about it.
    pub(crate) meta: &'a ModernMeta,
    pub(crate) on_behalf: OnBehalf,
    /// The user who calls; requests of Vaxel's own have none.
    pub(crate) user: Option<&'a str>,
    /// What a server that asks is told of the caller.
    pub(crate) told: Option<&'a Told>,
    /// The session of a legacy client.
    pub(crate) client: Option<&'a Arc<session::Session>>,
    /// The caller wants log messages of the call.
    pub(crate) wants_logs: bool,
    /// `Mcp-Param-*` headers of a modern client, passed on.
    pub(crate) param_headers: &'a [(HeaderName, HeaderValue)],
    /// The call that it belongs to; requests of Vaxel's own belong to none.
    pub(crate) call: Option<Id<Call>>,
    pub(crate) deadline: Instant,
}

/// For whom a request is made. A legacy session upstream belongs to one of these: what a server
/// remembers of one caller never shows to another, and it is told once what its client answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct OnBehalf {
    pub(crate) proof: Proof,
    /// Which questions of a server the caller answers.
    pub(crate) answers: Answers,
    /// The session of a client that shares nothing with other clients of its principal.
    pub(crate) client: Option<Id<Session>>,
}

impl OnBehalf {
    /// Vaxel itself, which sees what there is for any caller.
    pub(crate) const SYSTEM: Self = Self {
        proof: Proof::System,
        answers: Answers::RELAYED,
        client: None,
    };
}

/// What an upstream says to a request.
pub(crate) enum Answer {
    /// All there is.
    Done(Response),
    /// Notifications first.
    Stream(Events),
}

/// An answer that comes in pieces. Dropping it before its end tells the upstream that nobody waits.
pub(crate) enum Events {
    Http(Box<http_events::HttpEvents>),
    Channel(channel::ChannelEvents),
}

/// A piece of a streamed answer.
pub(crate) enum Event {
    /// Progress or a log line, raw.
    Notification(Bytes),
    /// A legacy server asks something and waits for [`Events::reply`].
    Question(Box<Asked>),
    /// The end.
    Done(Response),
}

/// A question of a legacy server.
pub(crate) struct Asked {
    /// The server's own id of it, raw.
    pub(crate) id: Bytes,
    pub(crate) question: Question,
}

impl Asked {
    /// The answer that says that nobody can be asked.
    pub(crate) fn refusal(&self) -> Bytes {
        let method = self.question.method().as_str();
        let detail = format!("`{method}`: the client of this call cannot be asked this");
        response::error(&self.id, METHOD_NOT_FOUND, &detail, None)
    }

    /// The question that a message asks; none when it asks something else.
    fn read(envelope: &Envelope<'_>) -> Option<Box<Self>> {
        let question = Question::of_legacy(envelope.method.as_deref()?, envelope.params)?;
        let id = Bytes::copy_from_slice(envelope.id?.get().as_bytes());
        Some(Box::new(Self { id, question }))
    }
}

impl Events {
    /// Hands the server a whole JSON-RPC answer to a question of its own.
    pub(crate) fn reply(&self, message: Bytes) {
        match self {
            Self::Http(events) => events.reply(message),
            Self::Channel(events) => events.reply(message),
        }
    }

    /// The next piece, before `deadline`. After [`Event::Done`] or an error there is none.
    pub(crate) async fn next(&mut self, deadline: Instant) -> Result<Event, Failure> {
        match self {
            Self::Http(events) => events.next(deadline).await,
            Self::Channel(events) => events.next(deadline).await,
        }
    }
}

impl<'a> Outbound<'a> {
    /// A request of Vaxel's own.
    const fn own(
        request: &'a Request,
        meta: &'a ModernMeta,
        on_behalf: OnBehalf,
        deadline: Instant,
    ) -> Self {
        Self {
            request,
            key_json: None,
            key: "",
            client_era: Era::Legacy,
            meta,
            on_behalf,
            user: None,
            told: None,
            client: None,
            wants_logs: false,
            param_headers: &[],
            call: None,
            deadline,
        }
    }

    pub(crate) const fn meta_change(&self, upstream: Era) -> vaxel_mcp::request::MetaChange<'_> {
        meta_change(self.client_era, upstream, self.meta)
    }
}

impl Link {
    pub(crate) fn new(shared: &Shared, facts: ServerFacts, wire: Wire, ear: &Ear) -> Self {
        let wire = Arc::new(wire);
        let id = ear.instance;
        Self(Arc::new(Inner {
            id,
            _listening: ear::listen(shared, &wire, &facts, ear),
            facts,
            wire,
            heard: Heard::default(),
            gate: Gate::default(),
            tasks: Arc::clone(&ear.tasks),
            pulse: Pulse::new(1, id, Instant::now()),
            changed: Arc::clone(&ear.changed),
            items_max: shared.config.catalog_items_max,
            session: SessionScope::default(),
            introduction: None,
        }))
    }

    /// The same link with another rule of who shares sessions there; to be asked before it is cloned.
    pub(crate) fn scoped(mut self, session: SessionScope) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.session = session;
        }
        self
    }

    /// The same link to a server that is told who calls; to be asked before it is cloned.
    pub(crate) fn introducing(mut self, introduction: Option<Introduction>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.introduction = introduction;
        }
        self
    }

    /// The same link with a weight among the instances of its service, and what tells it from them also
    /// when it is made anew; to be asked before it is cloned.
    pub fn placed(mut self, weight: u16, identity: u64) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.pulse = Pulse::new(weight, identity, Instant::now());
        }
        self
    }

    /// For whom a request of this caller is made here.
    pub(crate) fn on_behalf(
        &self,
        proof: Proof,
        answers: Answers,
        client: Option<Id<Session>>,
    ) -> OnBehalf {
        let (proof, client) = match self.0.session {
            SessionScope::Shared => (Proof::System, None),
            SessionScope::PerPrincipal => (proof, None),
            SessionScope::PerClient => (proof, client),
        };
        OnBehalf {
            proof,
            answers,
            client,
        }
    }

    /// Tells this instance from others, of this process and of others.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// The era that is spoken on this link.
    pub fn era(&self) -> Era {
        self.0.facts.revision.era()
    }

    /// The revision that is spoken on this link.
    pub fn revision(&self) -> Revision {
        self.0.facts.revision
    }

    pub(crate) fn facts(&self) -> &ServerFacts {
        &self.0.facts
    }

    /// Calls that go this way, up to the end of their answers, and those that wait for answers of their
    /// clients.
    pub fn in_flight(&self) -> u32 {
        self.0.gate.count()
    }

    /// Takes it for a call; `None` while it is closed to calls.
    pub(crate) fn engage(&self) -> Option<Engaged> {
        self.0.gate.enter().then(|| Engaged(self.clone()))
    }

    /// Closes it to calls, unless one goes this way; whether it is closed. Who comes later, having looked
    /// at what was published before, looks again.
    pub fn close_to_calls(&self) -> bool {
        self.0.gate.close_if_empty() || !self.0.gate.is_open()
    }

    /// Closes it to calls, unless it is in use, by a call or a task; whether it did.
    pub(crate) fn retire(&self) -> bool {
        !self.0.tasks.any(Instant::now()) && self.0.gate.close_if_empty()
    }

    /// Takes calls again.
    pub(crate) fn unretire(&self) {
        self.0.gate.reopen();
    }

    /// Whether it is closed to calls, although it could take some.
    pub(crate) fn is_retired(&self) -> bool {
        !self.0.gate.is_open()
    }

    /// What the choice between several instances goes by.
    pub(crate) fn candidate(&self) -> Candidate {
        let ready = self.is_open() && self.0.gate.is_open();
        self.0
            .pulse
            .candidate(ready, self.in_flight(), Instant::now())
    }

    /// From now on there are others to choose from.
    pub(crate) fn compare(&self) {
        self.0.pulse.take();
    }

    /// The tasks that its server works on.
    pub(crate) fn tasks(&self) -> &OpenTasks {
        &self.0.tasks
    }

    /// Whether its server may tell how they stand.
    pub(crate) fn tells_of_tasks(&self) -> bool {
        ear::tells_of_tasks(&self.0.facts)
    }

    /// Whether calls can go this way at all.
    pub(crate) fn is_open(&self) -> bool {
        match &*self.0.wire {
            Wire::Stdio { channel, .. } => channel.is_open(),
            Wire::Http(_)
            | Wire::PerUser(_)
            | Wire::Connections(_)
            | Wire::Builtin(_)
            | Wire::Tools(_) => true,
        }
    }

    /// Sends a request and waits for the first piece of its answer.
    pub(crate) async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let begun = self.0.pulse.is_taken().then(Instant::now);
        let answered = self.0.wire.exchange(out).await;
        self.0.heard.note(&answered);
        if let Some(begun) = begun {
            self.0.pulse.note(begun, Instant::now(), &answered);
        }
        answered
    }

    /// The same for a caller with little patience: that nothing came in its time says nothing about the
    /// server.
    pub(crate) async fn exchange_hurriedly(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let answer = self.0.wire.exchange(out).await;
        if answer.is_ok() {
            self.0.heard.note(&answer);
        }
        let is_told = answer.as_ref().map_or_else(was_unsent, |_| true);
        if is_told && self.0.pulse.is_taken() {
            self.0.pulse.note(begun, Instant::now(), &answer);
        }
        answer
    }

    /// What the server is told of a caller, where it asks; it holds for every instance of its service.
    pub(crate) fn told(&self, caller: &Principal) -> Result<Option<Told>, Failure> {
        let introduction = self.0.introduction.as_ref();
        introduction.map(|one| one.of(caller)).transpose()
    }

    /// What the calls of this instance came to: evidence for whoever wants to know how it is.
    pub fn evidence(&self) -> Evidence {
        self.0.heard.read()
    }

    /// A request of Vaxel's own; only the answer counts, notifications are dropped.
    pub(crate) async fn ask(
        &self,
        method: Method,
        params: &[u8],
        within: Duration,
    ) -> Result<Response, Failure> {
        let wire = &self.0.wire;
        wire.ask(OnBehalf::SYSTEM, (method, params), within).await
    }

    /// Makes a legacy server send log messages of `level`, which it does per session: the most
    /// verbose wish wins, and callers get what they asked for. Modern servers are told with each
    /// request.
    pub(crate) async fn want_level(&self, level: Level, on_behalf: OnBehalf) {
        if self.era() == Era::Modern || !Offered::of(&self.0.facts.capabilities).logging {
            return;
        }
        let session = match *self.0.wire {
            Wire::Http(_) | Wire::Connections(_) => on_behalf,
            Wire::Stdio { .. } | Wire::Builtin(_) | Wire::Tools(_) => OnBehalf::SYSTEM,
            // Each user has sessions of their own there, which are told nothing.
            Wire::PerUser(_) => return,
        };
        let news = self.0.wire.told_level(session).await;
        let Some(news) = news.filter(|told| told.is_news(level)) else {
            return;
        };
        let params = format!("{{\"level\":{}}}", level.as_json());
        let told = (Method::SetLevel, params.as_bytes());
        if let Err(failure) = self.0.wire.ask(session, told, SET_LEVEL).await {
            news.forget();
            tracing::debug!(%failure, "a server was not told which log messages are wanted");
        }
    }

    /// Everything the server offers now: all pages of all its lists.
    pub async fn catalog(&self) -> Result<Catalog, Failure> {
        // On the heap while it lasts: whoever watches a server waits most of the time.
        Box::pin(catalog::fetch(self, self.0.items_max)).await
    }

    /// Asks for a sign of life: `ping` (legacy) or `server/discover` (modern). Returns how long the
    /// answer took. A server that answers with an error is alive.
    pub async fn ping(&self, within: Duration) -> Result<Duration, Failure> {
        let method = match self.era() {
            Era::Legacy => Method::Ping,
            Era::Modern => Method::Discover,
        };
        let started = Instant::now_plus(Duration::ZERO);
        Box::pin(self.ask(method, b"{}", within)).await?;
        Ok(started.elapsed())
    }

    /// Resolves when the server next says that one of its lists changed.
    pub async fn catalog_changed(&self) {
        self.0.changed.notified().await;
    }

    /// Resolves, with the reason, when the connection is gone. HTTP has none to lose; there it resolves
    /// when the server has changed its era.
    pub async fn closed(&self) -> String {
        match &*self.0.wire {
            Wire::Stdio { channel, .. } => channel.closed().await,
            Wire::Http(http) => http.outdated().await,
            Wire::PerUser(users) => users.own.outdated().await,
            // On the heap: whoever waits for any of these would hold as much.
            Wire::Tools(service) => Box::pin(service.gone()).await,
            Wire::Connections(_) | Wire::Builtin(_) => std::future::pending().await,
        }
    }

    /// Ends what was opened for callers who have not used it for so long.
    pub(crate) fn sweep(&self, idle: Duration) {
        match &*self.0.wire {
            Wire::Http(http) => http.sweep(idle),
            Wire::PerUser(users) => users.sweep(idle),
            Wire::Connections(all) => all.sweep(idle),
            Wire::Stdio { .. } | Wire::Builtin(_) | Wire::Tools(_) => {}
        }
    }

    /// The polite end: a session is deleted, standard input is closed.
    pub async fn close(&self) {
        match &*self.0.wire {
            Wire::Stdio { channel, .. } => channel.close(),
            Wire::Http(http) => http.close().await,
            Wire::PerUser(users) => users.close().await,
            Wire::Connections(all) => all.close().await,
            Wire::Builtin(_) | Wire::Tools(_) => {}
        }
    }
}

impl Wire {
    async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        match self {
            Self::Http(http) => http.exchange(out).await,
            Self::PerUser(users) => users.exchange(out).await,
            Self::Connections(all) => all.exchange(out).await,
            Self::Stdio { channel, era, .. } => channel.exchange(out, *era).await,
            Self::Builtin(server) => builtin::exchange(&**server, out).await,
            Self::Tools(service) => service.exchange(out).await,
        }
    }

    /// What the server was told in the session of these callers, which is opened where there is none.
    async fn told_level(&self, on_behalf: OnBehalf) -> Option<Arc<ToldLevel>> {
        match self {
            Self::Http(http) => Some(http.told_level(on_behalf)),
            Self::Connections(all) => all.told_level(on_behalf, SET_LEVEL).await,
            Self::Stdio { channel, .. } => Some(Arc::clone(&channel.told_level)),
            Self::PerUser(_) | Self::Builtin(_) | Self::Tools(_) => None,
        }
    }

    /// A request of Vaxel's own; only the answer counts, notifications are dropped.
    async fn ask(
        &self,
        on_behalf: OnBehalf,
        (method, params): (Method, &[u8]),
        within: Duration,
    ) -> Result<Response, Failure> {
        let deadline = Instant::now_plus(within);
        let (request, meta) = own_request(method, params)?;
        let out = Outbound::own(&request, &meta, on_behalf, deadline);
        let mut events = match self.exchange(&out).await? {
            Answer::Done(response) => return Ok(response),
            Answer::Stream(events) => events,
        };
        loop {
            match events.next(deadline).await? {
                Event::Notification(_) => {}
                Event::Question(asked) => events.reply(asked.refusal()),
                Event::Done(response) => return Ok(response),
            }
        }
    }

    /// Listens to a modern server for changes of its lists and of what is watched.
    async fn listen(
        &self,
        asked: BTreeSet<Subject>,
        ear: &Ear,
        acknowledged: Arc<Acknowledged>,
    ) -> Listened {
        let uris = asked.iter().filter_map(|subject| match subject {
            Subject::Resource(uri) => Some(&**uri),
            Subject::Task { .. } => None,
        });
        let tasks = asked.iter().filter_map(|subject| match subject {
            Subject::Task { id, .. } => Some(&**id),
            Subject::Resource(_) => None,
        });
        let message = hello::listen_request(1, uris, tasks);
        match self {
            Self::Http(http) => http.subscribe(message, ear, &acknowledged).await,
            Self::PerUser(users) => users.own.subscribe(message, ear, &acknowledged).await,
            Self::Stdio { channel, .. } => channel.subscribe(&message, acknowledged).await,
            Self::Connections(all) => all.subscribe(&message, acknowledged).await,
            Self::Builtin(_) | Self::Tools(_) => Listened::NotOffered,
        }
    }
}

/// Whose tokens a caller's requests are made with, where users have their own.
pub(crate) fn user_of(principal: &Principal) -> Option<&str> {
    match principal.proof {
        Proof::System => None,
        // Without log-in everyone is the same.
        Proof::Unguarded => Some(&principal.name),
        Proof::Key(_) | Proof::User(_) => principal.rights.user().map(UserName::as_str),
    }
}

/// A request of Vaxel's own, as if a legacy client without capabilities had made it.
fn own_request(method: Method, params: &[u8]) -> Result<(Request, ModernMeta), Failure> {
    Ok((read_own(&Request::own(1, method, params))?, own_meta()))
}

/// What a legacy server says to `initialize`.
pub(crate) fn read_initialize(answer: &[u8]) -> Result<ServerFacts, Failure> {
    ServerFacts::from_initialize(answer).map_err(|error| {
        let detail = format!("Its answer to initialize cannot be used: {error}");
        Failure::new(Kind::UpstreamProtocol, detail)
    })
}

/// A request that was just written.
fn read_own(body: &Bytes) -> Result<Request, Failure> {
    let envelope = Envelope::parse(body).map_err(Failure::internal)?;
    let (request, _) = Request::read(body.clone(), &envelope).map_err(Failure::internal)?;
    Ok(request)
}

/// What Vaxel says about itself as a client.
pub(crate) fn own_meta() -> ModernMeta {
    ModernMeta {
        capabilities: "{}".into(),
        info: concat!(
            r#"{"name":"vaxel","version":""#,
            env!("CARGO_PKG_VERSION"),
            r#""}"#
        )
        .into(),
        log_level: None,
    }
}

/// Deadlines of the data plane are instants of the runtime's clock.
pub(crate) trait NowPlus {
    /// `within` from now.
    fn now_plus(within: Duration) -> Self;
}

impl NowPlus for Instant {
    fn now_plus(within: Duration) -> Self {
        let now = Self::now();
        now.checked_add(within).unwrap_or(now)
    }
}
