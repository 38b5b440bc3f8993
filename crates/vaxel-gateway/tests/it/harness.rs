//! A real gateway on a port of its own, with scripted upstreams behind it and a client that says
//! exactly what it is told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{process::Child, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use vaxel_auth::{
    key::{ApiKey, StoredKey},
    ring::{Entry, State},
    seal::{RootKey, Sealer},
    web::WebRules,
};
use vaxel_core::{
    balance::Balance,
    call::CallRecord,
    catalog::Catalog,
    failure::Failure,
    id::{Id, Service},
    principal::{Principal, Proof},
    rights::{Limits as CredentialLimits, Rights},
    service::{EraChoice, Limits, SessionScope, ToolFilter, Validate},
    time::Clock,
};
use vaxel_gateway::{
    About, Config, ConnectTarget, Deps, Fallback, FallbackBody, Gateway, Holder, Introduced, Link,
    ServiceEntry, Standing, Transport, Tunables, Unavailable,
};

pub(crate) mod child;
pub(crate) mod client;
pub(crate) mod socket;
pub(crate) mod upstream;

pub(crate) use child::Script;
pub(crate) use client::Client;
pub(crate) use upstream::{Reply, Seen, Upstream};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A gateway that serves.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    /// Two callers' keys.
    pub(crate) keys: [String; 2],
    /// What it counts.
    pub(crate) registry: Registry,
    records: Mutex<mpsc::Receiver<CallRecord>>,
    children: Mutex<Vec<Child>>,
    pub(crate) files: tempfile::TempDir,
    stop: CancellationToken,
    serving: JoinSet<()>,
}

/// What a rig is made of.
pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) records: usize,
    pub(crate) root: RootKey,
    pub(crate) call_timeout: Duration,
    pub(crate) clock: Clock,
    /// The two callers, so that a second rig can know them too.
    pub(crate) callers: [(String, Id<vaxel_core::id::Key>); 2],
}

impl Default for Plan {
    fn default() -> Self {
        let caller = || {
            let (key, _) = ApiKey::generate();
            (key.expose().clone(), Id::new(Clock::system().now()))
        };
        Self {
            config: Config {
                probe_timeout: Duration::from_secs(5),
                shutdown_grace: Duration::from_secs(1),
                ..Config::default()
            },
            records: 4096,
            root: RootKey::ephemeral(),
            call_timeout: PATIENCE,
            clock: Clock::system(),
            callers: [caller(), caller()],
        }
    }
}

/// How one service is served.
#[derive(Default)]
pub(crate) struct Terms {
    pub(crate) session: SessionScope,
    pub(crate) era: EraChoice,
    pub(crate) limits: Limits,
    pub(crate) tools: ToolFilter,
    pub(crate) validate: Validate,
    /// How it wants to be told who calls.
    pub(crate) introduced: Option<Introduced>,
}

/// A service that is published.
pub(crate) struct Served {
    pub(crate) id: Id<Service>,
    pub(crate) link: Link,
    pub(crate) catalog: Arc<Catalog>,
}

struct Nothing;

impl Fallback for Nothing {
    fn call(
        &self,
        _: http::Request<hyper::body::Incoming>,
    ) -> BoxFuture<'static, http::Response<FallbackBody>> {
        Box::pin(async { http::Response::new(FallbackBody::default()) })
    }
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::start_with(&Plan::default())
    }

    pub(crate) fn start_with(plan: &Plan) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, records) = mpsc::channel(plan.records);
        let mut tunables = Tunables::new(WebRules::new(address, &[]).unwrap());
        tunables.call_timeout = plan.call_timeout;
        let deps = Deps {
            clock: plan.clock.clone(),
            egress: vaxel_egress::Egress::new(vaxel_egress::Config::default()).unwrap(),
            sealer: Sealer::new(&plan.root, "sessions"),
            records: sender,
            runtime: tokio::runtime::Handle::current(),
            tunables,
        };
        let mut registry = Registry::default();
        let gateway = Gateway::new(plan.config.clone(), deps, &mut registry);
        plan.callers
            .iter()
            .for_each(|key| gateway.keys().put(entry(key)));
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        let (serves, until) = (gateway.clone(), stop.clone());
        serving.spawn(async move {
            serves
                .serve(listener, Arc::new(Nothing), until)
                .await
                .unwrap();
        });
        Self {
            gateway,
            address,
            keys: plan.callers.each_ref().map(|(key, _)| key.clone()),
            registry,
            records: Mutex::new(records),
            children: Mutex::default(),
            files: tempfile::tempdir().unwrap(),
            stop,
            serving,
        }
    }

    /// A client that speaks the modern era.
    pub(crate) fn modern(&self) -> Client {
        Client::modern(self.address, &self.keys[0])
    }

    /// A client that opened a legacy session.
    pub(crate) async fn legacy(&self) -> Client {
        Client::legacy(self.address, &self.keys[0]).await
    }

    /// Connects to an upstream over HTTP and publishes it.
    pub(crate) async fn add_http(&self, name: &str, upstream: &Upstream) -> Served {
        self.add_http_on(name, upstream, Terms::default()).await
    }

    pub(crate) async fn add_http_on(
        &self,
        name: &str,
        upstream: &Upstream,
        terms: Terms,
    ) -> Served {
        let transport = Transport::Http {
            url: upstream.url(),
            headers: Vec::new(),
            session: terms.session,
            tokens: None,
        };
        let added = self.add(name, transport, terms).await;
        added.unwrap()
    }

    /// The same, for a server that may not be one that can be reached.
    pub(crate) async fn try_url(&self, name: &str, url: url::Url) -> Result<Served, Failure> {
        self.add(name, over_http(url), Terms::default()).await
    }

    /// Connects to one more instance of a service, which is published by nobody yet.
    pub(crate) async fn connect_to(
        &self,
        name: &str,
        service: Id<Service>,
        upstream: &Upstream,
    ) -> Link {
        let target = ConnectTarget {
            introduced: None,
            service,
            name: name.parse().unwrap(),
            era: EraChoice::Auto,
            transport: over_http(upstream.url()),
        };
        self.gateway.connect(target).await.unwrap()
    }

    /// Starts a child, connects to it and publishes it.
    pub(crate) async fn add_stdio(&self, name: &str, script: &Script) -> Served {
        self.add_stdio_on(name, script, Terms::default()).await
    }

    /// The same, for a child that may not be one that can be reached.
    pub(crate) async fn try_stdio(&self, name: &str, script: &Script) -> Result<Served, Failure> {
        let (child, transport) = script.start(self.files.path(), name);
        self.children.lock().push(child);
        self.add(name, transport, Terms::default()).await
    }

    pub(crate) async fn add_stdio_on(&self, name: &str, script: &Script, terms: Terms) -> Served {
        let (child, transport) = script.start(self.files.path(), name);
        self.children.lock().push(child);
        self.add(name, transport, terms).await.unwrap()
    }

    pub(crate) async fn add(
        &self,
        name: &str,
        transport: Transport,
        terms: Terms,
    ) -> Result<Served, Failure> {
        let id = Id::new(Clock::system().now());
        let target = ConnectTarget {
            introduced: terms.introduced,
            service: id,
            name: name.parse().unwrap(),
            era: terms.era,
            transport,
        };
        let link = self.gateway.connect(target).await?;
        let catalog = Arc::new(link.catalog().await?);
        self.gateway.publish(ServiceEntry {
            id,
            name: name.parse().unwrap(),
            limits: terms.limits,
            tools: terms.tools,
            validate: terms.validate,
            catalog: Some(Arc::clone(&catalog)),
            links: vec![link.clone()],
            balance: Balance::default(),
            about: about(),
            unavailable: None,
        });
        Ok(Served { id, link, catalog })
    }

    /// Publishes the service anew: with its link, or with the reason why it has none.
    pub(crate) fn put(
        &self,
        name: &str,
        served: &Served,
        catalog: Option<Arc<Catalog>>,
        unavailable: Option<Unavailable>,
    ) {
        let links = unavailable.is_none().then(|| served.link.clone());
        self.gateway.publish(ServiceEntry {
            id: served.id,
            name: name.parse().unwrap(),
            limits: Limits::default(),
            tools: ToolFilter::default(),
            validate: Validate::None,
            catalog,
            links: links.into_iter().collect(),
            balance: Balance::default(),
            about: about(),
            unavailable,
        });
    }

    /// Lets someone in with these rights, besides the two who are always there; the key.
    pub(crate) fn admit(&self, who: Principal) -> String {
        let (key, stored) = ApiKey::generate();
        let id = who.key().unwrap_or_else(|| Id::new(Clock::system().now()));
        self.gateway.keys().put(key_of(who, id, &stored));
        key.expose().clone()
    }

    /// Publishes the service anew, with these limits.
    pub(crate) fn limit(&self, name: &str, served: &Served, limits: Limits) {
        self.gateway.publish(ServiceEntry {
            id: served.id,
            name: name.parse().unwrap(),
            limits,
            tools: ToolFilter::default(),
            validate: Validate::None,
            catalog: Some(Arc::clone(&served.catalog)),
            links: vec![served.link.clone()],
            balance: Balance::default(),
            about: about(),
            unavailable: None,
        });
    }

    /// Stops serving, in its own time.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// The records that were left until now.
    pub(crate) fn records(&self) -> Vec<CallRecord> {
        let mut records = self.records.lock();
        std::iter::from_fn(|| records.try_recv().ok()).collect()
    }

    /// The next record.
    pub(crate) async fn record(&self) -> CallRecord {
        wait_for("a call record", || self.records.lock().try_recv().ok()).await
    }

    /// What the child of this name was told so far, line by line.
    pub(crate) fn told(&self, name: &str) -> Vec<String> {
        let seen = std::fs::read_to_string(self.files.path().join(format!("{name}.seen")));
        seen.unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Stops and waits until nothing is served any more.
    pub(crate) async fn stopped(&mut self) {
        self.stop();
        let ending = async { while self.serving.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, ending).await;
        ended.expect("the gateway did not stop");
    }

    /// Waits until no call of this service is in flight.
    pub(crate) async fn idle(&self, service: &Served) {
        wait_for("no call to be in flight", || {
            (self.gateway.load(service.id).in_flight == 0).then_some(())
        })
        .await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) const fn over_http(url: url::Url) -> Transport {
    Transport::Http {
        url,
        headers: Vec::new(),
        session: SessionScope::PerPrincipal,
        tokens: None,
    }
}

fn entry((key, id): &(String, Id<vaxel_core::id::Key>)) -> Entry<Holder> {
    let who = (Proof::Key(*id), "someone".into());
    let principal = Principal::of_user(who, Rights::unlimited(), None);
    key_of(principal, *id, &StoredKey::of(key).unwrap())
}

fn key_of(who: Principal, id: Id<vaxel_core::id::Key>, key: &StoredKey) -> Entry<Holder> {
    let is_narrow = who.permissions != who.rights.reach().everywhere;
    let narrow = || CredentialLimits {
        permissions: who.permissions,
        services: None,
        environments: None,
    };
    let limits = who.limits.clone();
    let limits = limits.or_else(|| is_narrow.then(|| Arc::new(narrow())));
    let standing = Standing {
        name: who.name,
        rights: who.rights,
        limits,
        is_enabled: true,
    };
    Entry {
        digest: key.digest,
        id,
        holder: Arc::new(Holder::new(standing)),
        expires_at: None,
        state: State::Good,
    }
}

/// What belongs to nobody in particular.
pub(crate) fn about() -> About {
    About {
        owner: "anna".into(),
        environment: "default".into(),
        tags: Arc::default(),
    }
}

/// Looks until there is something, or fails.
pub(crate) async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    found.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
