//! Compares what is stored with what runs, and starts or ends runners.
//!
//! Runs on a signal after every change and on a timer, and is idempotent: a signal says only *which*
//! service to look at. A runner that breaks is started again after a while; nothing it does reaches
//! another service.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::{Id as TaskId, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    catalog::Catalog,
    failure::{Failure, Issue},
    id::{Id, Service},
    lifecycle::Lifecycle,
    service::ServiceResource,
    status::{Health, ServiceStatus},
};
use vaxel_gateway::{About, ServiceEntry, Unavailable};

use crate::{
    plan::{Action, plan},
    runner::{Context, Runner, Wanted, stopped},
    status::Seen,
};

/// How often everything is compared although nobody said that it changed.
const EVERYTHING: Duration = Duration::from_mins(1);
/// How long after a fault it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Which services to look at. Holds each service once, however often it changes, so it is bounded by
/// the number of services.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pending: Mutex<Pending>,
    ring: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    changed: HashSet<Id<Service>>,
    restart: HashSet<Id<Service>>,
}

impl Signals {
    /// Something about `id` changed.
    pub(crate) fn changed(&self, id: Id<Service>) {
        self.pending.lock().changed.insert(id);
        self.ring.notify_one();
    }

    /// The instances of `id` should be started anew.
    pub(crate) fn restart(&self, id: Id<Service>) {
        let mut pending = self.pending.lock();
        pending.restart.insert(id);
        pending.changed.insert(id);
        drop(pending);
        self.ring.notify_one();
    }

    fn take(&self) -> Pending {
        std::mem::take(&mut self.pending.lock())
    }
}

/// A service with what it offered when it was last asked.
pub(crate) struct Known {
    pub(crate) resource: Arc<ServiceResource>,
    pub(crate) catalog: Option<Arc<Catalog>>,
}

pub(crate) struct Reconciler {
    context: Arc<Context>,
    signals: Arc<Signals>,
    running: HashMap<Id<Service>, Running>,
    /// The version of each service that was looked at last.
    seen: HashMap<Id<Service>, u64>,
    tasks: JoinSet<()>,
    names: HashMap<TaskId, Id<Service>>,
}

struct Running {
    wanted: watch::Sender<Wanted>,
}

impl Running {
    fn resource(&self) -> Arc<ServiceResource> {
        Arc::clone(&self.wanted.borrow().resource)
    }

    fn is_stopping(&self) -> bool {
        self.wanted.borrow().stop
    }
}

impl Reconciler {
    pub(crate) fn new(context: Arc<Context>, signals: Arc<Signals>) -> Self {
        Self {
            context,
            signals,
            running: HashMap::new(),
            seen: HashMap::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Starts what was stored, without asking the store once per service.
    pub(crate) fn begin(&mut self, known: Vec<Known>) {
        for Known { resource, catalog } in known {
            self.seen.insert(resource.id, resource.version);
            match plan(Some(&resource), None) {
                Action::Start => self.start_if_sound(resource, catalog),
                Action::Rest | Action::Stop | Action::Replace | Action::Retune => {
                    self.rest(&resource);
                }
            }
        }
    }

    /// Runs until `stop`; then every runner has ended.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut everything = tokio::time::interval(EVERYTHING);
        everything.reset();
        loop {
            let signals = Arc::clone(&self.signals);
            tokio::select! {
                () = stop.cancelled() => break,
                () = signals.ring.notified() => self.look(signals.take()).await,
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                _ = everything.tick() => self.look_at_everything().await,
            }
        }
        for running in self.running.values() {
            running.wanted.send_modify(|wanted| wanted.stop = true);
        }
        while self.tasks.join_next().await.is_some() {}
    }

    async fn look(&mut self, pending: Pending) {
        for id in pending.changed {
            let restart = pending.restart.contains(&id);
            if let Err(failure) = self.reconcile(id, restart).await {
                tracing::error!(service.id = %id, cause = ?failure.cause, "the stored state of a service could not be read; it is tried again: {failure}");
                self.again(id, restart);
            }
        }
    }

    async fn look_at_everything(&mut self) {
        match self.context.store.service_versions().await {
            Ok(versions) => {
                let stored: HashMap<Id<Service>, u64> = versions.into_iter().collect();
                let other =
                    |(id, version): &(&Id<Service>, &u64)| self.seen.get(id) != Some(version);
                let gone = self.seen.keys().filter(|id| !stored.contains_key(id));
                let differing = stored.iter().filter(other).map(|(id, _)| id).chain(gone);
                differing.for_each(|id| self.signals.changed(*id));
            }
            Err(error) => tracing::warn!(%error, "the stored services could not be listed"),
        }
    }

    async fn reconcile(&mut self, id: Id<Service>, restart: bool) -> Result<(), Failure> {
        let stored = self.context.store.service(id).await?.map(Arc::new);
        let running = self.running.get(&id);
        if running.is_some_and(Running::is_stopping) {
            // Its end is a signal of its own.
            return Ok(());
        }
        let current = running.map(Running::resource);
        let action = plan(stored.as_deref(), current.as_deref());
        if let Some(resource) = &stored {
            self.seen.insert(id, resource.version);
        }
        match (action, stored) {
            (Action::Start, Some(resource)) => {
                let catalog = self.context.store.catalog(id).await?.map(Arc::new);
                self.start_if_sound(resource, catalog);
            }
            // What runs goes on.
            (Action::Replace | Action::Retune, Some(resource)) if resource.defect.is_some() => {}
            (Action::Stop, stored) => self.end(id, stored),
            (Action::Replace | Action::Retune, Some(resource)) => self.tell(id, resource, restart),
            (Action::Rest, Some(resource)) if current.is_none() => self.rest(&resource),
            (Action::Rest, Some(resource)) if restart => self.tell(id, resource, restart),
            (Action::Rest, Some(_)) => {}
            (Action::Start | Action::Rest | Action::Replace | Action::Retune, None) => {
                self.forget(id);
            }
        }
        Ok(())
    }

    fn end(&self, id: Id<Service>, stored: Option<Arc<ServiceResource>>) {
        if let Some(running) = self.running.get(&id) {
            running.wanted.send_modify(|wanted| {
                wanted.stop = true;
                wanted.resource = stored.unwrap_or_else(|| Arc::clone(&wanted.resource));
            });
        }
    }

    fn tell(&self, id: Id<Service>, resource: Arc<ServiceResource>, restart: bool) {
        if let Some(running) = self.running.get(&id) {
            running.wanted.send_modify(|wanted| {
                wanted.resource = resource;
                wanted.restarts += u64::from(restart);
            });
        }
    }

    /// Starts it, unless what is stored of it is not what it should be: that is said, and waits for somebody
    /// who writes it anew.
    fn start_if_sound(&mut self, resource: Arc<ServiceResource>, catalog: Option<Arc<Catalog>>) {
        let problems = resource.problems();
        if problems.is_empty() {
            return self.start(resource, catalog);
        }
        let status = self.of_problems(&resource, (Lifecycle::Error, Health::Error), problems);
        let reason = status.reason.clone().unwrap_or_default();
        tracing::error!(service.name = %resource.name, service.id = %resource.id, "a service cannot be started: {reason}");
        let because = format!("it does not work: {reason}");
        self.show(&resource, status, because);
    }

    fn of_problems(
        &self,
        resource: &ServiceResource,
        (state, health): (Lifecycle, Health),
        problems: Vec<Issue>,
    ) -> ServiceStatus {
        let mut status = ServiceStatus::new(state, self.context.clock.now());
        status.health = health;
        status.reason = stored_badly(resource, &problems);
        status.issues = problems;
        status
    }

    fn start(&mut self, resource: Arc<ServiceResource>, catalog: Option<Arc<Catalog>>) {
        let id = resource.id;
        let (wanted, latest) = watch::channel(Wanted {
            resource,
            restarts: 0,
            stop: false,
        });
        let runner = Box::new(Runner::new(Arc::clone(&self.context), latest, catalog));
        let task = self.tasks.spawn(runner.run());
        self.names.insert(task.id(), id);
        self.running.insert(id, Running { wanted });
    }

    /// A service that should not run: known to callers, with the reason; gone when it is deleted.
    fn rest(&mut self, resource: &ServiceResource) {
        if resource.deleted_at.is_some() {
            return self.forget(resource.id);
        }
        let seen_as = (resting(resource), Health::Stopped);
        let status = self.of_problems(resource, seen_as, resource.problems());
        self.show(resource, status, stopped(&resource.name));
    }

    /// Shows a service of which nothing runs, to callers and to people.
    fn show(&self, resource: &ServiceResource, status: ServiceStatus, because: String) {
        self.context.gateway.publish(ServiceEntry {
            id: resource.id,
            name: resource.name.clone(),
            limits: resource.spec.limits.clone(),
            tools: resource.spec.tools.clone(),
            validate: resource.spec.validate,
            catalog: None,
            links: Vec::new(),
            balance: resource.spec.balance,
            about: about(resource),
            unavailable: Some(Unavailable::Because(because)),
        });
        let (health, reason) = (status.health, status.reason.clone());
        let seen = Seen {
            name: resource.name.clone(),
            version: resource.version,
            revision: resource.revision,
            status,
            catalog: None,
            watched: Vec::new(),
            probes: Vec::new(),
        };
        self.context.board.put(resource.id, seen);
        let (whose, now) = ((resource.id, &resource.name), self.context.clock.now());
        self.context
            .journal
            .note(whose, (health, reason.as_deref()), now);
    }

    fn forget(&mut self, id: Id<Service>) {
        self.seen.remove(&id);
        self.context.gateway.withdraw(id);
        self.context.board.remove(id);
        self.context.journal.forget(id);
    }

    fn ended(&mut self, ended: Result<(TaskId, ()), JoinError>) {
        let (task, fault) = match ended {
            Ok((task, ())) => (task, None),
            Err(error) => (error.id(), Some(error)),
        };
        let Some(id) = self.names.remove(&task) else {
            // A pause before another try: it has given its signal.
            return;
        };
        self.running.remove(&id);
        match fault {
            None => self.signals.changed(id),
            Some(error) => {
                tracing::error!(service.id = %id, %error, "the runner of a service broke; it is started again");
                self.again(id, false);
            }
        }
    }

    /// Gives the signal again, a little later.
    fn again(&mut self, id: Id<Service>, restart: bool) {
        let signals = Arc::clone(&self.signals);
        self.tasks.spawn(async move {
            tokio::time::sleep(AGAIN).await;
            if restart {
                signals.restart(id);
            } else {
                signals.changed(id);
            }
        });
    }
}

/// Why a service cannot be started as it is stored.
pub(crate) fn stored_badly(resource: &ServiceResource, problems: &[Issue]) -> Option<String> {
    let sentences: Vec<String> = problems.iter().map(Issue::to_string).collect();
    (!sentences.is_empty()).then(|| {
        format!(
            "what is stored of it is not what it should be: {}; `vaxel service edit {}` writes it anew",
            sentences.join("; "),
            resource.name
        )
    })
}

/// The state of a service that should not run.
pub(crate) const fn resting(resource: &ServiceResource) -> Lifecycle {
    match resource.activated_at {
        Some(_) => Lifecycle::Inactive,
        None => Lifecycle::Draft,
    }
}

/// What access to a service is decided by.
pub(crate) fn about(resource: &ServiceResource) -> About {
    About {
        owner: resource.owner.as_str().into(),
        environment: resource.environment.as_str().into(),
        tags: resource.tags.as_slice().into(),
    }
}
