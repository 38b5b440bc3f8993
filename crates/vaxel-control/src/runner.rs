//! Keeps one service as it is wanted: its instances, its entry in the data plane, its status.
//!
//! One task per enabled service. It compares what is wanted (a level, not a series of commands: see
//! [`Wanted`]) with its instances, and publishes after every difference. A fault in here harms this
//! service only; the reconciler starts the task again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore, mpsc, watch},
    task::{Id as TaskId, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    catalog::Catalog,
    failure::Issue,
    health::{recovery::Attempts, spec::HealthSpec},
    lifecycle::Lifecycle,
    principal::{Permission, Principal},
    quantity::Span,
    service::{ServiceResource, ServiceSpec},
    status::Health,
    time::Clock,
};
use vaxel_egress::Egress;
use vaxel_gateway::{Bell, Gateway, ServiceEntry, TokenRequest};
use vaxel_supervisor::Supervisor;

use crate::{
    config::Config,
    definitions,
    demo::Demo,
    journal::Journal,
    lease::Leases,
    plan::{Action, plan},
    reconcile::about,
    rights::People,
    seal::Vault,
    status::{Board, Seen},
};

mod attend;
mod checkup; // is an instance well, and what if not
mod crew;
pub(crate) mod eras;
mod idle;
mod instance;
mod needs;
mod offer;
pub(crate) mod preflight;
mod proof; // does a new generation do what it should
mod report;
mod surroundings; // is all well around the service
mod target;
mod watched;
mod functional;

use crew::Crew;
pub(crate) use crew::stopped;
use eras::Eras;
use idle::Idle;
use instance::Instance;
use report::{News, Report, Seat};
use surroundings::Surroundings;
pub(crate) use watched::Watched;

/// Reports that wait for the runner; instances wait when it is full.
const REPORTS: usize = 64;

/// What every runner needs.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) store: vaxel_store::Store,
    pub(crate) supervisor: Supervisor,
    pub(crate) gateway: Gateway,
    /// Reaches what URLs of people lead to who may run nothing on this machine.
    pub(crate) outside: Egress,
    /// What every user may do.
    pub(crate) people: Arc<People>,
    pub(crate) vault: Vault,
    pub(crate) board: Board,
    pub(crate) demo: Arc<Demo>,
    pub(crate) eras: Eras,
    pub(crate) leases: Leases,
    /// Bounds the starts and connects that happen at once.
    pub(crate) starts: Arc<Semaphore>,
    /// Bounds the checks that begin at once.
    pub(crate) checks: Arc<Semaphore>,
    pub(crate) journal: Journal,
    /// Where the data plane asks for tokens of services.
    pub(crate) upstream_tokens: mpsc::Sender<TokenRequest>,
    /// The checks of all services that say nothing about them, which are most.
    pub(crate) usual_health: Arc<HealthSpec>,
}

impl Context {
    /// What reaches the addresses that a service names. Who may run programs on this machine reaches its networks
    /// anyway; the URLs of others lead to the public internet, and to the networks that the configuration names.
    pub(crate) fn egress(&self, service: &ServiceResource) -> &Egress {
        if self.is_insider(&service.owner) {
            self.gateway.egress()
        } else {
            &self.outside
        }
    }

    /// Whether services of this owner may be in local networks. One who is gone counts as before: what was
    /// accepted goes on.
    pub(crate) fn is_insider(&self, owner: &str) -> bool {
        let nobody = [Principal::system().name, Principal::unguarded().name];
        if !self.config.server.auth {
            return true;
        }
        match self.people.all().get(owner) {
            Some(person) => {
                let everywhere = person.rights.reach().everywhere;
                everywhere.contains(Permission::HostExecute)
            }
            None => nobody.iter().any(|name| **name == *owner),
        }
    }

    /// What is to be checked, for everyone who has to know.
    fn health(&self, spec: &HealthSpec) -> Arc<HealthSpec> {
        if *spec == *self.usual_health {
            return Arc::clone(&self.usual_health);
        }
        Arc::new(spec.clone())
    }
}

/// What should be. Only the latest value counts.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) resource: Arc<ServiceResource>,
    /// Counts the requests to start the instances anew.
    pub(crate) restarts: u64,
    /// The service should not run any more.
    pub(crate) stop: bool,
}

pub(crate) struct Runner {
    context: Arc<Context>,
    wanted: watch::Receiver<Wanted>,
    current: Wanted,
    crew: Crew,
    /// Rings when what it depends on begins or ceases to serve.
    bell: Arc<Notify>,
    /// The newest generation is being checked.
    checks: JoinSet<Vec<Issue>>,
    idle: Idle,
    tasks: JoinSet<()>,
    seats: HashMap<TaskId, Seat>,
    reports: mpsc::Sender<Report>,
    inbox: mpsc::Receiver<Report>,
    health: Arc<HealthSpec>,
    /// What was tried to mend each replica, across instances.
    attempts: HashMap<u16, Arc<Mutex<Attempts>>>,
    around: Around,
}

/// What is around the service, where there is anything to look at.
#[derive(Default)]
struct Around {
    watched: Option<Watched>,
    /// The one who looks; ends with its place in here.
    task: JoinSet<()>,
    changed: Arc<Notify>,
    /// What the service offers was compared with what was accepted.
    compared: bool,
}

impl Runner {
    /// A runner that knows the service's last `catalog` and has published it already, so that its
    /// lists are there at once.
    pub(crate) fn new(
        context: Arc<Context>,
        mut wanted: watch::Receiver<Wanted>,
        catalog: Option<Arc<Catalog>>,
    ) -> Self {
        let current = wanted.borrow_and_update().clone();
        let (reports, inbox) = mpsc::channel(REPORTS);
        let health = context.health(&current.resource.spec.health);
        let mut crew = Crew::new(&current.resource, catalog, context.clock.now());
        crew.move_to(Lifecycle::Validating, context.clock.now());
        let bell = context.board.follow(&current.resource.spec.depends_on);
        let mut runner = Self {
            context,
            wanted,
            current,
            crew,
            bell,
            checks: JoinSet::new(),
            idle: Idle::new(Instant::now()),
            tasks: JoinSet::new(),
            seats: HashMap::new(),
            reports,
            inbox,
            health,
            attempts: HashMap::new(),
            around: Around::default(),
        };
        runner.look_around(false);
        runner.keep_lease();
        runner.publish();
        runner
    }

    /// From when on it is silent for too long.
    fn keep_lease(&self) {
        let (id, lease) = (self.current.resource.id, self.current.resource.spec.lease);
        let length = lease.map(|lease| lease.0);
        self.context
            .leases
            .set(id, length, &self.bell, self.context.clock.now());
    }

    /// Runs until the service is not wanted any more and nothing of it runs. Boxed, since a future that is
    /// given a value holds it twice, and there are many.
    pub(crate) async fn run(mut self: Box<Self>) {
        self.prepare(Duration::ZERO);
        self.publish();
        loop {
            let (bell, after) = (self.crew.bell(), self.idle_after());
            tokio::select! {
                Some(Ok(issues)) = self.checks.join_next() => self.checked(issues),
                // On the heap while it lasts: most of its life a runner waits.
                Some(report) = self.inbox.recv() => Box::pin(self.note(report)).await,
                () = self.idle.due(after) => self.rest_if_idle(),
                () = rung(bell) => self.rouse(),
                Some(ended) = self.tasks.join_next_with_id() => self.seat_left(ended),
                () = self.bell.notified() => self.publish(),
                () = self.around.changed.notified() => self.publish(),
                changed = self.wanted.changed() => {
                    if changed.is_err() || self.wanted.borrow().stop {
                        break;
                    }
                    self.adopt();
                }
            }
        }
        self.dissolve().await;
    }

    /// Takes the step from what runs to what is wanted now.
    fn adopt(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let restart = wanted.restarts != self.current.restarts;
        let action = plan(Some(&wanted.resource), Some(&self.current.resource));
        self.bell = self.context.board.follow(&wanted.resource.spec.depends_on);
        let before = std::mem::replace(&mut self.current, wanted);
        let was_resting = self.crew.bell().is_some();
        let anew = restart || action == Action::Replace || self.is_judged_anew(&before);
        if anew || self.idle_after().is_none() {
            self.crew.rouse();
        }
        self.idle.stir(Instant::now());
        self.crew.rename(&self.current.resource);
        self.adopt_health(&before.resource.spec);
        self.keep_lease();
        if anew {
            // Whoever asks for new instances asks for new attempts, too.
            self.attempts.clear();
            self.crew.doubt();
            self.crew.renew(self.context.clock.now());
        }
        if restart {
            self.crew.dismiss_all();
        }
        // After a restart nothing begins before everything has ended: see `seat_left`.
        if (anew && !restart) || action == Action::Replace || (restart && self.crew.is_empty()) {
            self.prepare(Duration::ZERO);
        } else if was_resting {
            self.start_if_none();
        }
        self.publish();
    }

    /// Whether what should have taken over and did not is to be held against something else now.
    fn is_judged_anew(&self, before: &Wanted) -> bool {
        let now = &self.current.resource.spec.health.functional;
        before.resource.spec.health.functional != *now && !self.crew.has_taken_over()
    }

    /// Checks what is wanted, after a while; what comes of it is [`Self::checked`].
    fn prepare(&mut self, after: Duration) {
        let (context, resource) = (
            Arc::clone(&self.context),
            Arc::clone(&self.current.resource),
        );
        // A check of something that is not wanted any more is of no use.
        self.checks = JoinSet::new();
        self.checks.spawn(async move {
            tokio::time::sleep(after).await;
            let issues = preflight::problems(&context, &resource).await;
            if issues.is_empty() {
                let longest = context.config.process.dependency_wait;
                needs::arrival(&context.board, &resource.spec.depends_on, longest).await;
            }
            issues
        });
    }

    /// What the check found: the new generation is started, or the service is in error and checked
    /// again later, since what is missing may come.
    fn checked(&mut self, issues: Vec<Issue>) {
        if issues.is_empty() {
            self.deploy();
        } else {
            self.crew.refuse(issues, self.context.clock.now());
            self.prepare(self.context.config.process.backoff.max);
        }
        self.publish();
    }

    fn idle_after(&self) -> Option<Duration> {
        self.current.resource.spec.idle_timeout.map(|span| span.0)
    }

    /// Stops the instances when nobody has called for so long. A call that comes meanwhile is either
    /// seen, or finds them closed and rings.
    fn rest_if_idle(&mut self) {
        let Some(after) = self.idle_after() else {
            return;
        };
        let (gateway, id) = (&self.context.gateway, self.current.resource.id);
        let load = gateway.load(id);
        let is_busy = load.in_flight > 0 || gateway.is_watched(id);
        let now = Instant::now();
        if !self.idle.look((load.calls, is_busy), after, now) || !self.crew.can_rest() {
            return;
        }
        if !gateway.retire(&self.crew.links()) {
            return self.idle.stir(now);
        }
        let name = &self.current.resource.name;
        tracing::info!(service.name = %name, "nobody has called it for {}: it is stopped until somebody does", Span(after));
        self.crew.rest(Span(after));
        self.publish();
    }

    /// Somebody calls an idle service.
    fn rouse(&mut self) {
        self.crew.rouse();
        self.idle.stir(Instant::now());
        self.start_if_none();
        self.publish();
    }

    /// Starts instances, once those are gone that were stopped: a program may not bear a second one.
    fn start_if_none(&mut self) {
        if self.crew.is_empty() && self.crew.bell().is_none() && self.checks.is_empty() {
            self.prepare(Duration::ZERO);
        }
    }

    /// Starts a new generation of instances beside what runs.
    fn deploy(&mut self) {
        let generation = self.crew.next_generation(self.context.clock.now());
        for replica in 0..self.current.resource.spec.instances() {
            self.start(
                Seat {
                    generation,
                    replica,
                },
                0,
            );
        }
    }

    fn start(&mut self, seat: Seat, failures: u32) {
        let stop = CancellationToken::new();
        let resource = Arc::clone(&self.current.resource);
        let address = target::address(&resource, seat.replica);
        let watched = Watched::new(Some(seat.replica), Arc::clone(&self.health));
        self.crew
            .enlist((seat, address), stop.clone(), watched.clone());
        let attempts = self.attempts.entry(seat.replica).or_default();
        let instance = Instance {
            context: Arc::clone(&self.context),
            resource,
            seat,
            reports: self.reports.clone(),
            stop,
            watched,
            gate: self.crew.gate(),
            attempts: Arc::clone(attempts),
        };
        let task = self.tasks.spawn(instance.run(failures));
        self.seats.insert(task.id(), seat);
    }

    async fn note(&mut self, Report { seat, news }: Report) {
        let offered = match &*news {
            News::Up { catalog, .. } | News::Offers(catalog) => Some(Arc::clone(catalog)),
            News::Starting { .. }
            | News::Spawned(_)
            | News::Looks { .. }
            | News::Moved
            | News::Worn
            | News::Parted(_)
            | News::Down(_) => None,
        };
        let first = offered.clone().filter(|_| !self.around.compared);
        if matches!(*news, News::Up { .. }) {
            self.idle.stir(Instant::now());
        }
        let fresh = offered.filter(|catalog| self.crew.differs(catalog));
        let is_worn = matches!(*news, News::Worn);
        self.crew.note(seat, *news, self.context.clock.now());
        self.publish();
        if is_worn && self.crew.is_settled() {
            self.crew.renew(self.context.clock.now());
            self.prepare(Duration::ZERO);
        }
        if let Some(catalog) = &fresh {
            self.keep(catalog).await;
        }
        if let Some(catalog) = fresh.or(first) {
            self.compare(&catalog).await;
        }
    }

    /// Whether what the service offers is what was accepted; what is seen first is.
    async fn compare(&mut self, catalog: &Catalog) {
        if !self.health.security.definitions {
            return;
        }
        let (id, name) = (self.current.resource.id, &self.current.resource.name);
        let (store, digests) = (&self.context.store, definitions::digests(catalog));
        let compared = match store.accepted_definitions(id).await {
            Ok(Some(accepted)) => Ok(definitions::drift(&accepted, &digests).is_some()),
            Ok(None) => {
                let now = self.context.clock.now();
                let first = store.accept_definitions(id, (digests, now), None);
                first.await.map(|()| false)
            }
            Err(error) => Err(error),
        };
        match compared {
            Ok(differs) => {
                self.around.compared = true;
                match &self.around.watched {
                    Some(watched) => _ = watched.order(),
                    None if differs => self.look_around(true),
                    None => {}
                }
            }
            Err(error) => {
                tracing::warn!(service.name = %name, %error, "its definitions could not be compared with what was accepted");
            }
        }
    }

    /// Takes over what is to be checked now.
    fn adopt_health(&mut self, before: &ServiceSpec) {
        let spec = &self.current.resource.spec;
        if spec == before {
            return;
        }
        if spec.health != *self.health {
            self.health = self.context.health(&spec.health);
            for watched in self.crew.watched() {
                watched.adopt(Arc::clone(&self.health));
            }
        }
        self.look_around(false);
    }

    /// Has somebody look at what is around the service, when there is anything, or `must`, or somebody
    /// did before.
    fn look_around(&mut self, must: bool) {
        let resource = &self.current.resource;
        let limits = &resource.spec.health.performance;
        let window = limits.of_calls().then(|| limits.window());
        self.context.gateway.judge(resource.id, window);
        let known = self.around.watched.take();
        self.around.task = JoinSet::new();
        if !must && known.is_none() && !surroundings::are_worth_it(resource) {
            return;
        }
        let new = || Watched::new(None, Arc::clone(&self.health));
        let watched = known.unwrap_or_else(new);
        let surroundings = Surroundings {
            context: Arc::clone(&self.context),
            resource: Arc::clone(resource),
            watched: watched.clone(),
            changed: Arc::clone(&self.around.changed),
        };
        self.around.task.spawn(surroundings.run());
        self.around.watched = Some(watched);
    }

    /// Stores the catalog, so that the next start knows it. Losing it costs nothing but that.
    async fn keep(&self, catalog: &Catalog) {
        let id = self.current.resource.id;
        if let Err(error) = self.context.store.put_catalog(id, catalog).await {
            tracing::warn!(service.name = %self.current.resource.name, %error, "its catalog could not be stored");
        }
    }

    fn seat_left(&mut self, ended: Result<(TaskId, ()), JoinError>) {
        let (task, fault) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some(seat) = self.seats.remove(&task) else {
            return;
        };
        let wanted = self.crew.leave(seat);
        if let Some(error) = fault.filter(|_| wanted) {
            tracing::error!(service.name = %self.current.resource.name, %error, "an instance's task broke; it is started again");
            self.start(seat, 1);
        } else {
            self.start_if_none();
        }
        self.publish();
    }

    /// Ends every instance; nothing of the service runs afterwards.
    async fn dissolve(&mut self) {
        self.current = self.wanted.borrow_and_update().clone();
        self.checks = JoinSet::new();
        self.around = Around::default();
        self.context.leases.remove(self.current.resource.id);
        self.context.gateway.judge(self.current.resource.id, None);
        self.crew.rouse();
        self.crew
            .move_to(Lifecycle::Deactivating, self.context.clock.now());
        self.crew.dismiss_all();
        self.publish();
        while !self.tasks.is_empty() {
            tokio::select! {
                Some(report) = self.inbox.recv() => {
                    self.crew.note(report.seat, *report.news, self.context.clock.now());
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
                    if let Some(seat) = self.seats.remove(&task) {
                        self.crew.leave(seat);
                    }
                }
            }
        }
        self.crew
            .move_to(Lifecycle::Inactive, self.context.clock.now());
        self.publish();
    }

    /// Tells the data plane and everyone who looks at the status.
    fn publish(&mut self) {
        let resource = &self.current.resource;
        let around = self.around.watched.as_ref();
        let lack = needs::lack(&self.context.board, &resource.spec.depends_on)
            .or_else(|| around.and_then(Watched::reason));
        let now = self.context.clock.now();
        let silence = self.context.leases.silence(resource.id, now);
        self.crew.settle((lack.as_deref(), silence.as_deref()), now);
        if self.crew.take_changed() {
            self.context.gateway.publish(ServiceEntry {
                id: resource.id,
                name: resource.name.clone(),
                limits: resource.spec.limits.clone(),
                tools: resource.spec.tools.clone(),
                validate: resource.spec.validate,
                catalog: self.crew.catalog(),
                links: self.crew.links(),
                balance: resource.spec.balance,
                about: about(resource),
                unavailable: self.crew.unavailable(),
            });
        }
        self.crew.release();
        let seen = Seen {
            name: resource.name.clone(),
            version: resource.version,
            revision: resource.revision,
            status: self.crew.status(),
            catalog: self.crew.last_catalog(),
            watched: self.crew.watched().chain(around).cloned().collect(),
            probes: self.crew.probes(),
        };
        // A service that stops because Vaxel does is still wanted: nobody looks at it any more.
        let is_wanted = resource.enabled && resource.deleted_at.is_none();
        let status = &seen.status;
        if status.health != Health::Stopped || !is_wanted {
            let (whose, seen_as) = ((resource.id, &resource.name), status.reason.as_deref());
            let now = self.context.clock.now();
            self.context
                .journal
                .note(whose, (status.health, seen_as), now);
        }
        self.context.board.put(resource.id, seen);
    }
}

/// Resolves when somebody calls an idle service; never for one that is not.
async fn rung(bell: Option<Bell>) {
    match bell {
        Some(bell) => bell.rung().await,
        None => std::future::pending().await,
    }
}
