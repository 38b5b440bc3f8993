//! Brings the control plane up: everything that was stored is served again at once, and started in
//! the background.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use vaxel_core::{
    call::CallRecord, failure::Failure, principal::Principal, role::BuiltIn,
    service::ServiceResource,
};
use vaxel_store::HealthChange;

use crate::{
    archive,
    audit::{self, Audit},
    backup::VALUES,
    bodies::Bodies,
    change::{KeyDraft, Terms},
    config::Config,
    control::{Control, Deps, Inner, Started, Task},
    demo::Demo,
    event,
    feed::{self, Feed},
    journal::{self, Journal},
    key::{self, ring::Holders, rotation::Unsettled, uses::KeyUses},
    lease::{self, Leases},
    oauth::{Oauth, issuer},
    password::Guesses,
    reconcile::{Known, Reconciler, Signals},
    recorder::{self, RecordCounts},
    root_key::{self, Roots},
    runner::{Context, eras::Eras},
    seal::Vault,
    sessions,
    signing::{self, Signing},
    status::Board,
    transitions,
    upstream_oauth::{self, UpstreamTokens},
};

impl Control {
    /// Loads what is stored, gives it to the data plane, and starts it in the background. A stored
    /// service that does not work any more is in error; it never keeps the others from starting.
    ///
    /// # Errors
    /// When the store cannot be read, or the first key cannot be written.
    pub async fn start(config: Config, deps: Deps) -> Result<(Self, Started), Failure> {
        let Deps {
            clock,
            store,
            supervisor,
            gateway,
            roots,
            records,
        } = deps;
        let (journal, changes) = Journal::open(&store, clock.now()).await?;
        let (asks, asked) = mpsc::channel(upstream_oauth::WAITING);
        let context = Arc::new(Context {
            vault: Vault::new(store.clone(), Arc::new(roots.sealer(VALUES))),
            board: Board::new(),
            demo: Arc::new(Demo::new(
                store.clone(),
                clock.clone(),
                config.server.version.clone(),
            )),
            eras: Eras::default(),
            leases: Leases::default(),
            starts: Arc::new(Semaphore::new(config.process.starts_at_once.max(1))),
            checks: Arc::new(Semaphore::new(config.health.checks_at_once.max(1))),
            journal,
            usual_health: Arc::default(),
            clock,
            store,
            supervisor,
            outside: gateway.egress().outside().map_err(Failure::from)?,
            people: Arc::default(),
            gateway,
            config,
            upstream_tokens: asks,
        });
        let sealing = (&context.store, context.vault.sealer());
        let seal = context.config.records.seal;
        let bodies = Bodies::open(sealing, seal, context.clock.now()).await?;
        let inner = Inner {
            bodies: Arc::new(bodies),
            context: Arc::clone(&context),
            signals: Arc::new(Signals::default()),
            key_uses: Arc::new(KeyUses::default()),
            holders: Holders::default(),
            unsettled: Unsettled::default(),
            people: Arc::clone(&context.people),
            signing: Signing::default(),
            oauth: Oauth::default(),
            roots: Roots::new(roots),
            sealing: tokio::sync::RwLock::default(),
            upstream_tokens: UpstreamTokens::default(),
            guesses: Guesses::default(),
            access: tokio::sync::Mutex::default(),
            events: broadcast::Sender::new(event::WAITING),
            feed: Arc::new(Feed::new(context.config.feed)),
            records: Arc::new(RecordCounts::default()),
            changes: TaskTracker::new(),
            key_ring: tokio::sync::Mutex::default(),
            audit: Audit::default(),
            backup: tokio::sync::Mutex::default(),
            toolsets: tokio::sync::Mutex::default(),
            shutdown: CancellationToken::new(),
            tasks: Mutex::default(),
        };
        let control = Self {
            inner: Arc::new(inner),
            terms: Terms::default(),
            planned: [].into(),
        };
        control.begin_audit().await?;
        let context = &control.inner.context;
        sessions::restore(&context.store, &context.gateway).await?;
        control.first_user().await?;
        control.publish_access().await?;
        // What is not settled now is tried again later.
        control.settle_key_files().await;
        control.fill_key_ring().await?;
        control.rotate_due_keys().await?;
        control.refresh_signing_keys().await?;
        let admin_key = control.first_key().await?;
        control.publish_toolsets().await?;
        let newest = control.store().last_change().await?;
        control.inner.feed.begin(newest);
        control.renew_specs().await;
        let known = control.load().await?;
        let services = known.len();
        control.begin(known, (records, changes));
        control.run("upstream tokens", |stop| {
            upstream_oauth::serve(control.clone(), asked, stop)
        });
        Ok((
            control,
            Started {
                admin_key,
                services,
            },
        ))
    }

    /// Without any key nobody could ever make one: the first start makes it.
    async fn first_key(&self) -> Result<Option<vaxel_core::secret::Secret<String>>, Failure> {
        if self.store().count_keys().await? > 0 {
            return Ok(None);
        }
        let draft = KeyDraft {
            name: "admin".to_owned(),
            permissions: BuiltIn::Admin.permissions(),
            ..KeyDraft::default()
        };
        let key = self.make_key(&Principal::system(), draft).await?;
        Ok(Some(key.text))
    }

    /// Brings what earlier versions wrote into the form of this one. What cannot be rewritten now can be read
    /// all the same.
    async fn renew_specs(&self) {
        match self.store().renew_specs().await {
            Ok(0) => {}
            Ok(renewed) => tracing::info!(renewed, "specs were rewritten in the newest format"),
            Err(error) => tracing::warn!(%error, "specs of earlier formats could not be rewritten"),
        }
    }

    async fn load(&self) -> Result<Vec<Known>, Failure> {
        let services = self.store().all_services().await?;
        let mut catalogs = self.store().all_catalogs().await?;
        let known = |resource: ServiceResource| {
            let resource = Arc::new(resource);
            let catalog = catalogs.remove(&resource.id).map(Arc::new);
            Known { resource, catalog }
        };
        Ok(services.into_iter().map(known).collect())
    }

    fn begin(
        &self,
        known: Vec<Known>,
        (records, changes): (mpsc::Receiver<CallRecord>, mpsc::Receiver<HealthChange>),
    ) {
        let inner = &self.inner;
        let (context, store) = (&inner.context, &inner.context.store);
        let mut reconciler = Reconciler::new(Arc::clone(context), Arc::clone(&inner.signals));
        reconciler.begin(known);
        self.run("reconciler", |stop| reconciler.run(stop));
        let (feed, clock) = (Arc::clone(&inner.feed), context.clock.clone());
        self.run("transitions", |stop| {
            let transitions = Arc::clone(&context.board.transitions);
            transitions::write((store.clone(), clock.clone()), transitions, stop)
        });
        self.run("feed", |stop| {
            feed::follow((store.clone(), clock), feed, stop)
        });
        if let Some(noted) = context.gateway.take_key_uses() {
            let uses = (noted, Arc::clone(&inner.key_uses));
            self.run("key uses", |stop| {
                key::uses::write(store.clone(), uses, stop)
            });
        }
        self.run("key rotation", |stop| {
            key::rotation::rotate(self.clone(), stop)
        });
        self.run("sweep", |stop| {
            recorder::sweep(
                store.clone(),
                context.clock.clone(),
                (
                    context.config.records,
                    context.config.feed,
                    context.config.health.retention,
                ),
                stop,
            )
        });
        self.run("old lines of the audit", |stop| {
            audit::remove_old(self.clone(), stop)
        });
        self.run("journal", |stop| {
            let events = inner.events.clone();
            journal::write(
                (store.clone(), context.clock.clone()),
                changes,
                events,
                stop,
            )
        });
        self.run("leases", |stop| lease::watch(self.clone(), stop));
        self.run("signing keys", |stop| signing::rotate(self.clone(), stop));
        if let Some(issuer) = context.config.oauth.issuer.clone() {
            self.run("issuer", |stop| issuer::follow(self.clone(), issuer, stop));
        }
        self.run("root key", |stop| root_key::follow(self.clone(), stop));
        self.run("archive", |stop| archive::empty(self.clone(), stop));
        self.run("sessions", |stop| {
            let (gateway, clock) = (context.gateway.clone(), context.clock.clone());
            sessions::save(store.clone(), gateway, clock, stop)
        });
        self.run("incidents", |stop| {
            audit::write_incidents(self.clone(), stop)
        });
        self.run("end of the audit", |stop| {
            audit::keep_head(self.clone(), stop)
        });
        self.run("recorder", |stop| {
            let (counts, bodies) = (Arc::clone(&inner.records), Arc::clone(&inner.bodies));
            recorder::record(store.clone(), records, (stop, counts), bodies)
        });
    }

    /// Starts a background task. They are ended in the order in which they were started.
    fn run<F>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let handle = tokio::runtime::Handle::current().spawn(task(stop.clone()));
        self.inner.tasks.lock().push(Task { name, stop, handle });
    }
}
