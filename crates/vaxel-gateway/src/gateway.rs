//! The handle: what the control plane may ask of the data plane.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use hyper::body::Incoming;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use vaxel_auth::{identity::Issuer, ring::KeyRing, seal::Sealer};
use vaxel_core::{
    balance::Balance,
    call::CallRecord,
    catalog::Catalog,
    failure::{Failure, Kind},
    health::traffic::Figures,
    id::{Id, Service},
    name::{ServiceName, ToolsetName},
    principal::Principal,
    quota::Level,
    service::{Limits, ToolFilter, Validate},
    session::SessionState,
    time::{Clock, Timestamp},
    toolset::{Selected, ToolsetResource, View},
};
use vaxel_egress::Egress;
use vaxel_mcp::request::ModernMeta;

use crate::{
    authenticate::{Holder, KeyUse, Tokens},
    authorize::{self, Sight},
    check::{CheckReply, ToolCheck},
    config::{Config, Tunables},
    connect::{self, ConnectTarget},
    cut::Cut,
    edge::oldest,
    idle::Bell,
    incidents::{Incident, Incidents},
    interactions::Interactions,
    interest::Interests,
    limits::Meters,
    listener,
    metrics::{Meter, Metrics},
    pipeline::{Fallback, FallbackBody},
    replay,
    session::Sessions,
    snapshot::{About, Offer, Parts, Snapshot},
    tasks::Tasks,
    tls::{Certificate, CertificateStatus, Tls},
    upstream::{self, Link},
};

/// Uses of keys that wait to be noted.
const KEY_USES: usize = 4_096;

/// The data plane. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) shared: Arc<Shared>,
}

/// What the data plane stands on.
pub struct Deps {
    /// Where time comes from.
    pub clock: Clock,
    /// Makes outgoing connections.
    pub egress: Egress,
    /// Seals what is handed out to come back: session ids, states of interactions.
    pub sealer: Sealer,
    /// Takes call records. When it is full, records are dropped and counted.
    pub records: mpsc::Sender<CallRecord>,
    /// The data plane's runtime.
    pub runtime: tokio::runtime::Handle,
    /// What may change later, as it is now.
    pub tunables: Tunables,
}

/// One service, as the control plane wants it to be served from now on.
pub struct ServiceEntry {
    /// Stays the same when the service is renamed.
    pub id: Id<Service>,
    /// Its name.
    pub name: ServiceName,
    /// Its bounds.
    pub limits: Limits,
    /// Which of its tools are served.
    pub tools: ToolFilter,
    /// What of its tool calls is checked against schemas.
    pub validate: Validate,
    /// What it offers; `None` when it was never reached.
    pub catalog: Option<Arc<Catalog>>,
    /// Its connected instances.
    pub links: Vec<Link>,
    /// Which of them takes the next call.
    pub balance: Balance,
    /// What access to it is decided by.
    pub about: About,
    /// Why it has none.
    pub unavailable: Option<Unavailable>,
}

/// Why a service takes no calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// It is being started for the first time: callers wait for it, at most
    /// [`Config::start_wait`].
    Starting,
    /// It was stopped because nobody called it: whoever calls rings, and waits as for one that starts.
    Idle(Bell),
    /// Anything else, as a clause that callers read: "it is stopped".
    Because(String),
}

/// A tool as clients of the federated endpoint see it.
#[derive(Debug, Clone)]
pub struct ExposedTool {
    /// `service__tool`
    pub name: Arc<str>,
    /// The service.
    pub service: ServiceName,
    /// The service's own name of the tool.
    pub tool: Arc<str>,
    /// As the service defines it.
    pub definition: Arc<RawValue>,
}

/// How much a set shows of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownOf {
    /// The service.
    pub service: ServiceName,
    /// Its tools that are in the set.
    pub tools: usize,
    /// Its prompts.
    pub prompts: usize,
    /// Its resources.
    pub resources: usize,
    /// Its templates of resources.
    pub templates: usize,
}

/// What one service has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls in flight.
    pub in_flight: u32,
    /// Calls since the start.
    pub calls: u64,
    /// Those of them that did not end well.
    pub errors: u64,
}

/// A set as it is served.
#[derive(Debug, Clone)]
pub struct ServedSet {
    /// Stands in its address.
    pub name: ToolsetName,
    /// What is seen of its tools.
    pub view: View,
    /// What is in it.
    pub services: Vec<Selected>,
}

impl From<ToolsetResource> for ServedSet {
    fn from(resource: ToolsetResource) -> Self {
        Self {
            name: resource.name,
            view: resource.view,
            services: resource.services,
        }
    }
}

/// Everything of it is seen.
impl From<(ToolsetName, Vec<Selected>)> for ServedSet {
    fn from((name, services): (ToolsetName, Vec<Selected>)) -> Self {
        Self {
            name,
            view: View::All,
            services,
        }
    }
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tunables: ArcSwap<Tunables>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// Serializes changes of the snapshot; readers never take it.
    publishing: Mutex<()>,
    /// Services that are judged by their calls, and by those of how long.
    judged: Mutex<HashMap<Id<Service>, Duration>>,
    /// Ticks when the snapshot changed; streams to clients look then.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) keys: KeyRing<Holder>,
    /// Uses of keys, one per key and ten seconds. When it is full they are not noted.
    pub(crate) key_uses: mpsc::Sender<KeyUse>,
    /// Until somebody takes it.
    used_keys: Mutex<Option<mpsc::Receiver<KeyUse>>>,
    pub(crate) tokens: ArcSwap<Tokens>,
    /// Signs what services are told of their callers.
    pub(crate) issuer: Arc<ArcSwapOption<Issuer>>,
    pub(crate) unguarded: Principal,
    pub(crate) sessions: Sessions,
    pub(crate) interactions: Interactions,
    pub(crate) interests: Arc<Interests>,
    pub(crate) task_ids: Tasks,
    pub(crate) sealer: Arc<Sealer>,
    pub(crate) replayed: replay::Budget,
    /// Streams of clients of 2024-11-05.
    pub(crate) streams_of_2024: oldest::Streams,
    /// What is said upstream on behalf of a caller without a session.
    pub(crate) nobody: ArcSwap<ModernMeta>,
    pub(crate) records: mpsc::Sender<CallRecord>,
    pub(crate) incidents: Incidents,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Clock,
    pub(crate) meters: Meters,
    pub(crate) egress: Egress,
    /// Streams to clients.
    pub(crate) tasks: TaskTracker,
    pub(crate) streams: AtomicUsize,
    /// Ends streams that have no end of their own.
    pub(crate) stop: CancellationToken,
    pub(crate) cut: Cut,
    pub(crate) tls: Tls,
    pub(crate) runtime: tokio::runtime::Handle,
    fallback: ArcSwapOption<Box<dyn Fallback>>,
}

impl Gateway {
    /// A data plane without services; nothing listens yet.
    pub fn new(config: Config, deps: Deps, registry: &mut Registry) -> Self {
        let sealer = Arc::new(deps.sealer);
        let tasks = TaskTracker::new();
        let interests = Arc::<Interests>::default();
        let sessions = Sessions::new(
            Arc::clone(&sealer),
            Arc::clone(&interests),
            config.sessions_max,
            config.session_idle,
        );
        let interactions = Interactions::new(
            Arc::clone(&sealer),
            deps.clock.clone(),
            (config.parked_max, config.parked_per_caller),
            config.answer_wait,
            tasks.clone(),
        );
        let (key_uses, used_keys) = mpsc::channel(KEY_USES);
        let shared = Shared {
            tunables: ArcSwap::from_pointee(deps.tunables),
            snapshot: ArcSwap::default(),
            publishing: Mutex::default(),
            judged: Mutex::default(),
            changed: watch::Sender::new(()),
            keys: KeyRing::default(),
            key_uses,
            used_keys: Mutex::new(Some(used_keys)),
            tokens: ArcSwap::default(),
            issuer: Arc::default(),
            unguarded: Principal::unguarded(),
            sessions,
            interactions,
            interests,
            task_ids: Tasks::new(Arc::clone(&sealer)),
            sealer,
            replayed: replay::Budget::default(),
            streams_of_2024: oldest::Streams::default(),
            nobody: ArcSwap::from_pointee(upstream::own_meta()),
            records: deps.records,
            incidents: Incidents::default(),
            metrics: Metrics::new(registry),
            meters: Meters::new(deps.clock.clone()),
            clock: deps.clock,
            egress: deps.egress,
            tasks,
            streams: AtomicUsize::new(0),
            stop: CancellationToken::new(),
            cut: Cut::default(),
            tls: Tls::default(),
            runtime: deps.runtime,
            fallback: ArcSwapOption::empty(),
            config,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Accepts and serves connections until `stop`, then lets requests in flight end, at most for
    /// the configured grace. Runs on the data plane's runtime.
    pub async fn serve(
        &self,
        listener: TcpListener,
        fallback: Arc<dyn Fallback>,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        self.shared
            .fallback
            .store(Some(Arc::new(Box::new(Forwarding(fallback)))));
        let shared = Arc::clone(&self.shared);
        let serving = self
            .shared
            .runtime
            .spawn(listener::run(shared, listener, stop));
        serving.await.map_err(std::io::Error::other)?
    }

    /// Encrypts all connections from now on, and shows this certificate to their clients. Connections that are
    /// open stay as they are.
    pub fn secure(&self, certificate: Certificate) {
        self.shared.tls.show(certificate);
    }

    /// Says why the certificate was not replaced by another one, or that it need not be.
    pub fn note_certificate(&self, problem: Option<String>) {
        self.shared.tls.note(problem);
    }

    /// The certificate that is shown to clients; `None` where nothing is encrypted.
    pub fn certificate(&self) -> Option<CertificateStatus> {
        self.shared.tls.status()
    }

    /// Adds a service or replaces it; the next request sees it.
    pub fn publish(&self, entry: ServiceEntry) {
        let parts = Parts {
            id: entry.id,
            name: entry.name,
            limits: entry.limits,
            tools: entry.tools,
            validate: entry.validate,
            catalog: entry.catalog,
            links: entry.links,
            balance: entry.balance,
            about: entry.about,
            unavailable: entry.unavailable,
        };
        let is_there = !parts.links.is_empty();
        if parts.links.len() > 1 {
            parts.links.iter().for_each(Link::compare);
        }
        let (id, name_max) = (parts.id, self.shared.config.name_max);
        self.shared
            .change(|old| old.with(parts, name_max, |name| self.shared.meter(id, name)));
        // Whoever publishes a connection has had an answer over it.
        if is_there && let Some(shard) = self.shared.snapshot.load().shard(id) {
            shard.meter.breaker.reset();
        }
    }

    /// Remembers the calls of the last `window` of a service, which is judged by them; without one they
    /// are forgotten.
    pub fn judge(&self, id: Id<Service>, window: Option<Duration>) {
        // Nobody makes a meter meanwhile.
        let _serialized = self.shared.publishing.lock();
        let mut judged = self.shared.judged.lock();
        match window {
            Some(window) => judged.insert(id, window),
            None => judged.remove(&id),
        };
        if let Some(shard) = self.shared.snapshot.load().shard(id) {
            shard.meter.judge(window);
        }
    }

    /// What the remembered calls of a service come to (see [`Gateway::judge`]).
    pub fn figures(&self, id: Id<Service>) -> Figures {
        let snapshot = self.shared.snapshot.load();
        let figures = snapshot.shard(id).map(|shard| {
            let now = self.shared.clock.now();
            shard.meter.figures(now)
        });
        figures.unwrap_or_default()
    }

    pub(crate) fn interests(&self) -> &Interests {
        &self.shared.interests
    }

    /// Makes those look again who wait for a change.
    pub(crate) fn look_again(&self) {
        self.shared.changed.send_replace(());
    }

    /// Takes a service away; the next request no longer sees it.
    pub fn withdraw(&self, id: Id<Service>) {
        self.shared.change(|old| old.without(id));
        self.shared.interests.forget(id);
    }

    /// Serves these sets and no others; the next request sees it.
    pub fn publish_sets<S: Into<ServedSet>>(&self, sets: Vec<S>) {
        let sets = sets.into_iter().map(Into::into).collect();
        self.shared.change(|old| old.with_sets(sets));
    }

    /// How much a set shows of each of its services that are there; nothing when there is no such set.
    pub fn shown_in_set(&self, name: &ToolsetName) -> Vec<ShownOf> {
        let snapshot = self.shared.snapshot.load();
        let set = snapshot.set(name.as_str());
        set.map(|set| set.counts(&snapshot)).unwrap_or_default()
    }

    /// Remembers what clients had set in their sessions when it was saved. To be called before
    /// anything is served.
    pub fn restore_sessions(&self, saved: Vec<SessionState>) {
        self.shared.sessions.remembered.restore(saved);
    }

    /// Waits until clients have set something in their sessions that is not saved; takes it, the newest
    /// state of each session once. An empty state is to be forgotten.
    pub async fn changed_sessions(&self) -> Vec<SessionState> {
        self.shared.sessions.remembered.changed().await
    }

    /// The same without waiting.
    pub fn take_changed_sessions(&self) -> Vec<SessionState> {
        self.shared.sessions.remembered.take()
    }

    /// These states could not be saved: they are handed over again.
    pub fn sessions_not_saved(&self, states: &[SessionState]) {
        self.shared.sessions.remembered.not_saved(states);
    }

    /// Waits until something was refused that is to be audited.
    pub async fn refused(&self) {
        self.shared.incidents.changed().await;
    }

    /// Takes what is to be audited now of what was refused; `all`: also what waits for more of its kind. The
    /// second says whether more waits.
    pub fn take_incidents(&self, now: Timestamp, all: bool) -> (Vec<Incident>, bool) {
        self.shared.incidents.take(now, all)
    }

    /// These could not be written: they are handed over again.
    pub fn incidents_not_written(&self, incidents: Vec<Incident>) {
        self.shared.incidents.not_written(incidents);
    }

    /// The keys that callers can show. What is changed in there counts from the next request on.
    pub fn keys(&self) -> &KeyRing<Holder> {
        &self.shared.keys
    }

    /// The uses of keys from now on, for the one who notes them.
    pub fn take_key_uses(&self) -> Option<mpsc::Receiver<KeyUse>> {
        self.shared.used_keys.lock().take()
    }

    /// Replaces who may come with a token of this server.
    pub fn publish_tokens(&self, tokens: Tokens) {
        self.shared.tokens.store(Arc::new(tokens));
    }

    /// Replaces what signs the tokens by which services are told who calls.
    pub fn publish_issuer(&self, issuer: Issuer) {
        self.shared.issuer.store(Some(Arc::new(issuer)));
    }

    /// Changes what may change while requests are served.
    pub fn tune(&self, tunables: Tunables) {
        self.shared.tunables.store(Arc::new(tunables));
    }

    /// Speaks to an upstream until it gave a real MCP answer.
    pub async fn connect(&self, target: ConnectTarget) -> Result<Link, Failure> {
        self.connect_by(&self.shared.egress, target).await
    }

    /// The same by another egress, for addresses of somebody who may name less.
    pub async fn connect_by(&self, by: &Egress, target: ConnectTarget) -> Result<Link, Failure> {
        let (shared, by) = (Arc::clone(&self.shared), by.clone());
        let connecting = async move { connect::connect(shared, &by, target).await };
        let connecting = self.shared.runtime.spawn(connecting);
        connecting.await.map_err(Failure::internal)?
    }

    /// Calls a tool on one instance to find out how it is.
    ///
    /// # Errors
    /// `UnknownTool`, `Busy` when the service has all the calls that it takes, and those of calls.
    pub async fn check(&self, link: &Link, check: ToolCheck) -> Result<CheckReply, Failure> {
        let (shared, link) = (Arc::clone(&self.shared), link.clone());
        let calling = AbortOnDropHandle::new(
            self.shared
                .runtime
                .spawn(crate::check::call(shared, link, check)),
        );
        calling.await.map_err(Failure::internal)?
    }

    /// What outgoing connections are made with, for whoever looks at what services need.
    pub fn egress(&self) -> &Egress {
        &self.shared.egress
    }

    /// The service and its own name behind an exposed tool name.
    pub fn tool(&self, exposed: &str) -> Option<(Id<Service>, ServiceName, Arc<str>)> {
        let snapshot = self.shared.snapshot.load();
        let (shard, offer) = snapshot.tool(exposed)?;
        Some((shard.id, shard.name.clone(), Arc::clone(&offer.own)))
    }

    /// The tools that a client sees, of all services or of one, in the order of lists.
    pub fn exposed_tools(
        &self,
        principal: &Principal,
        service: Option<Id<Service>>,
    ) -> Vec<ExposedTool> {
        let snapshot = self.shared.snapshot.load();
        let sight = Sight::of(principal);
        let wanted = |id: Id<Service>| service.is_none_or(|service| service == id);
        let shards = snapshot.shards.values().filter(|shard| wanted(shard.id));
        shards
            .flat_map(|shard| {
                let shows = |offer: &&Offer| sight.shows(principal, shard, Some(&offer.own));
                let shown = shard.offers.tools.iter().filter(shows);
                shown.map(|offer| ExposedTool {
                    name: Arc::clone(&offer.exposed),
                    service: shard.name.clone(),
                    tool: Arc::clone(&offer.own),
                    definition: Arc::clone(&offer.definition),
                })
            })
            .collect()
    }

    /// Whether a principal may know of a service; of one that is not served only who may know of all.
    pub fn may_know(&self, principal: &Principal, service: Id<Service>) -> bool {
        let snapshot = self.shared.snapshot.load();
        match snapshot.shard(service) {
            Some(shard) => authorize::may_know(principal, shard),
            None => Sight::of(principal).is_whole(),
        }
    }

    /// Counts a service that a caller creates.
    ///
    /// # Errors
    /// `RateLimited` when it is one too many.
    pub fn count_creation(&self, caller: &Principal) -> Result<(), Failure> {
        self.shared.count_creation(caller)
    }

    /// Gives back what [`Gateway::count_creation`] took, when the service was not created.
    pub fn uncount_creation(&self, caller: &Principal) {
        Shared::uncount_creation(caller);
    }

    /// Every limit that holds for a caller, with what is left of it: its own, and those of a service and of
    /// one of its tools.
    pub fn levels(
        &self,
        caller: &Principal,
        service: Option<Id<Service>>,
        tool: Option<&str>,
    ) -> Vec<Level> {
        let snapshot = self.shared.snapshot.load();
        let shard = service.and_then(|id| snapshot.shard(id));
        self.shared.levels(caller, (shard.map(|one| &**one), tool))
    }

    /// Call records that were dropped since the start because their queue was full.
    pub fn records_lost(&self) -> u64 {
        self.shared.metrics.records_lost.get()
    }

    /// What a service has to do; zero for one that is not there.
    pub fn load(&self, id: Id<Service>) -> Load {
        let snapshot = self.shared.snapshot.load();
        let Some(shard) = snapshot.shard(id) else {
            return Load::default();
        };
        let (in_flight, calls, errors) = shard.meter.read();
        Load {
            in_flight,
            calls,
            errors,
        }
    }
}

impl Shared {
    /// The meter of a new service.
    fn meter(&self, id: Id<Service>, name: &ServiceName) -> Arc<Meter> {
        let meter = self.metrics.meter(name);
        meter.judge(self.judged.lock().get(&id).copied());
        meter
    }

    fn change(&self, change: impl FnOnce(&Snapshot) -> Snapshot) {
        let _serialized = self.publishing.lock();
        let next = change(&self.snapshot.load());
        self.snapshot.store(Arc::new(next));
        self.changed.send_replace(());
    }

    pub(crate) async fn fallback(
        &self,
        request: http::Request<Incoming>,
    ) -> http::Response<FallbackBody> {
        if let Some(fallback) = self.fallback.load_full() {
            return fallback.call(request).await;
        }
        let mut response = http::Response::new(FallbackBody::default());
        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        response
    }

    /// Ends what was opened upstream for callers who do not use it any more.
    pub(crate) fn sweep_upstreams(&self) {
        let snapshot = self.snapshot.load_full();
        let links = snapshot.shards.values().flat_map(|shard| &shard.links);
        links.for_each(|link| link.sweep(self.config.upstream_idle));
    }

    /// Counts a stream in, unless there are too many.
    pub(crate) fn enter_stream(self: &Arc<Self>) -> Result<OpenStream, Failure> {
        let open = self.streams.fetch_add(1, Ordering::Relaxed);
        let stream = OpenStream(Arc::clone(self));
        self.metrics.streams.inc();
        if open >= self.config.streams_max {
            let detail = format!("{open} streams are open, which is the limit (limits.streams)");
            return Err(Failure::new(Kind::Busy, detail).retry_after(10));
        }
        Ok(stream)
    }
}

/// A stream that is counted until it is dropped.
pub(crate) struct OpenStream(Arc<Shared>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.streams.dec();
    }
}

/// A shared fallback as an owned one.
struct Forwarding(Arc<dyn Fallback>);

impl Fallback for Forwarding {
    fn call(
        &self,
        request: http::Request<Incoming>,
    ) -> futures_util::future::BoxFuture<'static, http::Response<FallbackBody>> {
        self.0.call(request)
    }
}
