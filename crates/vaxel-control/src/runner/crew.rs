//! The instances of one service and the picture that they make together. Pure but for the handles it
//! keeps, so that the rules of the lifecycle stand in one place.

use std::{collections::BTreeMap, sync::Arc};

use tokio_util::sync::CancellationToken;
use vaxel_core::{
    catalog::Catalog,
    failure::Issue,
    health,
    lifecycle::Lifecycle,
    name::ServiceName,
    quantity::Span,
    service::{ServiceResource, ToolFilter},
    status::{Health, InstanceStatus, ServiceStatus},
    time::Timestamp,
};
use vaxel_gateway::{Bell, Link, Unavailable};
use vaxel_mcp::revision::Era;
use vaxel_supervisor::ProcessHandle;

use super::{
    offer::{same_offer, server_name},
    proof::Gate,
    report::{News, Seat},
    watched::Watched,
};

pub(super) struct Crew {
    name: ServiceName,
    filter: ToolFilter,
    /// It is started here, and not elsewhere.
    is_own: bool,
    generation: u32,
    /// Of what is wanted now.
    gate: Gate,
    /// Boxed: a node of the map has room for eleven, and most services have one.
    members: BTreeMap<Seat, Box<Member>>,
    check: Check,
    catalog: Option<Arc<Catalog>>,
    status: ServiceStatus,
    /// Nobody called it, so it was stopped: for how long nobody had, and what whoever calls rings.
    resting: Option<(Span, Bell)>,
    /// What the data plane sees differs from what it was told last.
    changed: bool,
}

/// What the check of what is wanted found; it comes before every new generation.
enum Check {
    /// Nothing yet.
    Pending,
    /// It can be started, and was.
    Passed,
    /// It cannot, for these reasons.
    Refused(Vec<Issue>),
}

struct Member {
    status: InstanceStatus,
    link: Option<Link>,
    process: Option<ProcessHandle>,
    stop: CancellationToken,
    /// Starting it again and again does not help.
    hopeless: bool,
    /// What it does not do that it should, so that it may not serve.
    issues: Vec<Issue>,
    /// It answered, or failed, at least once.
    tried: bool,
    /// It is not wanted any more.
    dismissed: bool,
    watched: Watched,
}

impl Member {
    /// Takes it out of the picture; it ends with [`Crew::release`], once nobody is sent to it.
    fn dismiss(&mut self) {
        self.link = None;
        self.dismissed = true;
    }
}

impl Crew {
    pub(super) fn new(
        resource: &ServiceResource,
        catalog: Option<Arc<Catalog>>,
        now: Timestamp,
    ) -> Self {
        Self {
            name: resource.name.clone(),
            filter: resource.spec.tools.clone(),
            is_own: resource.spec.runs_on_host(),
            generation: 0,
            gate: Gate::default(),
            members: BTreeMap::new(),
            check: Check::Pending,
            catalog,
            status: ServiceStatus::new(Lifecycle::Draft, now),
            resting: None,
            changed: true,
        }
    }

    /// Takes over what a new revision says about the service as a whole.
    pub(super) fn rename(&mut self, resource: &ServiceResource) {
        self.name = resource.name.clone();
        self.filter = resource.spec.tools.clone();
        self.is_own = resource.spec.runs_on_host();
        self.changed = true;
    }

    /// The number of a new generation. Older ones that serve do so until it does; the others leave.
    pub(super) fn next_generation(&mut self, now: Timestamp) -> u32 {
        self.generation += 1;
        self.check = Check::Passed;
        for old in self.members.values_mut().filter(|one| one.link.is_none()) {
            old.dismiss();
        }
        // What was idle stays active while it is started again.
        if !matches!(
            self.status.lifecycle,
            Lifecycle::Updating | Lifecycle::Active
        ) {
            self.move_to(Lifecycle::Deploying, now);
        }
        self.generation
    }

    /// What is wanted cannot be started, for all these reasons. What runs goes on.
    pub(super) fn refuse(&mut self, issues: Vec<Issue>, now: Timestamp) {
        self.check = Check::Refused(issues);
        self.move_to(Lifecycle::Error, now);
    }

    /// What new instances have to pass before they serve.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What comes next has to prove itself.
    pub(super) fn doubt(&mut self) {
        self.gate = Gate::default();
    }

    /// Whether what is wanted serves, or did.
    pub(super) fn has_taken_over(&self) -> bool {
        self.gate.is_open()
    }

    /// Whether the newest generation serves alone.
    pub(super) fn is_settled(&self) -> bool {
        self.status.lifecycle == Lifecycle::Active
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A new member, and where it is reached, when it is one of several that are.
    pub(super) fn enlist(
        &mut self,
        (seat, address): (Seat, Option<String>),
        stop: CancellationToken,
        watched: Watched,
    ) {
        let status = InstanceStatus {
            replica: seat.replica,
            address,
            health: Health::Starting,
            pid: None,
            started_at: None,
            restarts: 0,
            cpu_ms: 0,
            memory_bytes: 0,
            processes: 0,
            last_error: None,
            next_start_at: None,
            sandbox: Vec::new(),
        };
        let member = Member {
            status,
            link: None,
            process: None,
            stop,
            hopeless: false,
            issues: Vec::new(),
            tried: false,
            dismissed: false,
            watched,
        };
        self.members.insert(seat, Box::new(member));
    }

    /// The member's task is over. Whether it should not have been.
    pub(super) fn leave(&mut self, seat: Seat) -> bool {
        self.changed = true;
        self.members
            .remove(&seat)
            .is_some_and(|member| !member.dismissed)
    }

    /// Nobody is wanted any more.
    pub(super) fn dismiss_all(&mut self) {
        self.members.values_mut().for_each(|one| one.dismiss());
        self.changed = true;
    }

    /// Whether all instances can be stopped for want of calls: they serve, and nothing else is going on.
    pub(super) fn can_rest(&self) -> bool {
        let newest = self.generation;
        let settled = |(seat, one): (&Seat, &Member)| seat.generation == newest && !one.dismissed;
        self.status.lifecycle == Lifecycle::Active
            && self.seated().all(settled)
            && self.members.values().any(|one| one.link.is_some())
    }

    /// Nobody called for so long: nobody is wanted until somebody does.
    pub(super) fn rest(&mut self, after: Span) {
        self.resting = Some((after, Bell::default()));
        self.dismiss_all();
    }

    /// Somebody is wanted again.
    pub(super) fn rouse(&mut self) {
        self.changed |= self.resting.take().is_some();
    }

    /// Rung by whoever calls while it rests.
    pub(super) fn bell(&self) -> Option<Bell> {
        self.resting.as_ref().map(|(_, bell)| bell.clone())
    }

    /// Ends those that are not wanted any more. To be called after the data plane was told: until
    /// then it sends calls to them.
    pub(super) fn release(&self) {
        for member in self.members.values().filter(|one| one.dismissed) {
            member.stop.cancel();
        }
    }

    pub(super) fn note(&mut self, seat: Seat, news: News, now: Timestamp) {
        if let News::Up { catalog, .. } | News::Offers(catalog) = &news {
            self.catalog = Some(Arc::clone(catalog));
            self.changed = true;
        }
        let Some(member) = self.members.get_mut(&seat).filter(|one| !one.dismissed) else {
            return;
        };
        let status = &mut member.status;
        match news {
            News::Starting { restarts } => {
                status.health = Health::Starting;
                status.next_start_at = None;
                status.restarts = restarts;
            }
            News::Spawned(process) => {
                status.pid = Some(process.pid());
                status.started_at = Some(process.started_at());
                status.sandbox.clone_from(&process.sandbox().notes);
                member.process = Some(process);
            }
            News::Up { link, .. } => {
                status.health = member.watched.health();
                status.started_at.get_or_insert(now);
                (member.hopeless, member.tried) = (false, true);
                member.issues.clear();
                self.status.era = Some(era_name(link.era()).to_owned());
                self.status.revision = Some(link.revision().as_str().to_owned());
                member.link = Some(link);
            }
            News::Offers(_) | News::Worn => {}
            News::Looks { health, reason } => {
                status.health = health;
                status.last_error = reason.or(status.last_error.take());
            }
            News::Moved => self.changed = true,
            News::Parted(reason) => {
                status.health = Health::Unhealthy;
                status.last_error = Some(reason);
                member.link = None;
                self.changed = true;
            }
            News::Down(setback) => {
                let over = setback.hopeless;
                status.health = if over {
                    Health::Error
                } else {
                    Health::Unhealthy
                };
                (status.pid, status.started_at) = (None, None);
                status.last_error = Some(setback.reason);
                member.issues = setback.issues;
                status.next_start_at = setback.next_start_at;
                (member.hopeless, member.tried) = (over, true);
                (member.link, member.process) = (None, None);
                self.changed = true;
            }
        }
    }

    /// Draws the conclusions from what was noted: who leaves, and which state the service is in. An old
    /// generation serves until every member of the newest one has been tried and one of them serves.
    /// `outside` says which of the services that it needs do not serve, and that it should have been heard
    /// of.
    pub(super) fn settle(&mut self, outside: (Option<&str>, Option<&str>), now: Timestamp) {
        let newest = self.generation;
        let current: Vec<&Member> = self
            .seated()
            .filter(|(seat, one)| seat.generation == newest && !one.dismissed)
            .map(|(_, one)| one)
            .collect();
        let serves = current.iter().any(|one| one.link.is_some());
        let hopeless = !current.is_empty() && current.iter().all(|one| one.hopeless);
        if serves && current.iter().all(|one| one.tried) {
            for (_, old) in self
                .members
                .iter_mut()
                .filter(|(seat, _)| seat.generation != newest)
            {
                self.changed |= old.link.is_some();
                old.dismiss();
            }
        }
        let mut others = self.members.iter();
        let alone = others.all(|(seat, one)| seat.generation == newest || one.dismissed);
        let decided = matches!(self.check, Check::Passed) && !self.is_asleep();
        if decided && serves && alone {
            self.gate.open();
            self.move_to(Lifecycle::Active, now);
        } else if decided && hopeless {
            self.move_to(Lifecycle::Error, now);
        }
        self.describe(outside);
    }

    /// New instances are about to take over, or to try again, once they were checked.
    pub(super) fn renew(&mut self, now: Timestamp) {
        self.check = Check::Pending;
        match self.status.lifecycle {
            Lifecycle::Active => self.move_to(Lifecycle::Updating, now),
            Lifecycle::Error => self.move_to(Lifecycle::Validating, now),
            Lifecycle::Draft
            | Lifecycle::Validating
            | Lifecycle::Deploying
            | Lifecycle::Updating
            | Lifecycle::Deactivating
            | Lifecycle::Inactive => {}
        }
    }

    /// Moves along the arrows of the diagram to `next`, by the shortest way.
    pub(super) fn move_to(&mut self, next: Lifecycle, now: Timestamp) {
        for step in self.status.lifecycle.path(next).unwrap_or_default() {
            tracing::info!(
                service.name = %self.name, from = self.status.lifecycle.as_str(),
                to = step.as_str(), "the service changed its state"
            );
            self.status.lifecycle = step;
            self.status.since = now;
        }
    }

    fn describe(&mut self, (lack, silence): (Option<&str>, Option<&str>)) {
        let (serving, active) = (self.links().len(), self.active().count());
        let asleep = self.is_asleep();
        let resting = self.resting.as_ref().map(|(after, _)| after);
        self.status.health = match (asleep || resting.is_some(), active) {
            (true, _) => Health::Stopped,
            (false, 0) if matches!(self.check, Check::Refused(_)) => Health::Error,
            (false, 0) => Health::Starting,
            (false, _) if silence.is_some() => Health::Unhealthy,
            (false, _) => {
                let instances = self.active().map(|one| one.status.health);
                health::of_service(instances, lack.is_some())
            }
        };
        let reason = self
            .active()
            .filter(|one| one.status.health != Health::Healthy)
            .find_map(|one| one.status.last_error.clone());
        let reason = match &self.check {
            Check::Refused(issues) => Some(sentences(issues)),
            Check::Pending | Check::Passed => {
                let outside = silence.or(lack).map(str::to_owned);
                reason.or(outside)
            }
        };
        let issues = match &self.check {
            Check::Refused(issues) => issues.clone(),
            Check::Pending | Check::Passed => {
                let found = self.active().map(|one| &one.issues);
                found
                    .max_by_key(|issues| issues.len())
                    .cloned()
                    .unwrap_or_default()
            }
        };
        let status = &mut self.status;
        status.issues = if asleep { Vec::new() } else { issues };
        let worth_it = status.health != Health::Healthy || status.lifecycle == Lifecycle::Error;
        status.reason = reason.filter(|_| worth_it && !asleep);
        if let Some(after) = resting.filter(|_| !asleep) {
            let idle = format!("idle: nobody has called it for {after}; the next call starts it");
            status.reason = Some(idle);
        }
        status.stale = serving == 0 && self.catalog.is_some() && resting.is_none();
        if let Some(catalog) = &self.catalog {
            let visible = catalog
                .tools
                .iter()
                .filter(|tool| self.filter.admits(&tool.key));
            status.tools = count(visible.count());
            status.prompts = count(catalog.prompts.len());
            status.resources = count(catalog.resources.len());
            status.server = server_name(catalog);
            status.catalog_at = Some(catalog.fetched_at);
        }
        status.instances = self
            .members
            .iter()
            .filter(|(_, one)| !one.dismissed)
            .map(|(_, one)| one.status.clone())
            .collect();
        // Room was made for several; most services have one.
        status.instances.shrink_to_fit();
    }

    /// Stopped on purpose, or on the way there.
    const fn is_asleep(&self) -> bool {
        matches!(
            self.status.lifecycle,
            Lifecycle::Deactivating | Lifecycle::Inactive
        )
    }

    fn active(&self) -> impl Iterator<Item = &Member> {
        let members = self.seated().map(|(_, one)| one);
        members.filter(|one| !one.dismissed)
    }

    fn seated(&self) -> impl Iterator<Item = (&Seat, &Member)> {
        self.members.iter().map(|(seat, one)| (seat, &**one))
    }

    /// Whether the data plane must be told; forgets it.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// What the service offers, as long as it is wanted.
    pub(super) fn catalog(&self) -> Option<Arc<Catalog>> {
        let asleep = self.is_asleep();
        self.catalog.clone().filter(|_| !asleep)
    }

    /// What the service offered when it was last asked.
    pub(super) fn last_catalog(&self) -> Option<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// Whether `catalog` offers something else than the last one.
    pub(super) fn differs(&self, catalog: &Catalog) -> bool {
        self.catalog
            .as_deref()
            .is_none_or(|last| !same_offer(last, catalog))
    }

    /// The connections of one generation: of the oldest that has any, since it has all its members yet.
    /// It leaves with [`Self::settle`] once the next one is complete.
    pub(super) fn links(&self) -> Vec<Link> {
        let open = |(seat, one): (&Seat, &Member)| {
            let place = (seat.generation, one.watched.is_ejected());
            Some((place, one.link.clone()?))
        };
        let links: Vec<((u32, bool), Link)> = self.seated().filter_map(open).collect();
        let oldest = links.iter().map(|((generation, _), _)| *generation).min();
        let own = || links.iter().filter(|((of, _), _)| Some(*of) == oldest);
        // When all are put out of the way, none is: a call that may fail is better than none.
        let all_ejected = own().all(|((_, ejected), _)| *ejected);
        own()
            .filter(|((_, ejected), _)| all_ejected || !ejected)
            .map(|(_, link)| link.clone())
            .collect()
    }

    /// What is known of the health of each member.
    pub(super) fn watched(&self) -> impl Iterator<Item = &Watched> {
        self.active().map(|one| &one.watched)
    }

    /// Why no call can be taken.
    pub(super) fn unavailable(&self) -> Option<Unavailable> {
        if self.members.values().any(|one| one.link.is_some()) {
            return None;
        }
        if let Some(bell) = self.bell() {
            return Some(Unavailable::Idle(bell));
        }
        let (name, reason) = (&self.name, self.status.reason.as_deref());
        let because = match (self.status.lifecycle, reason) {
            (Lifecycle::Deactivating | Lifecycle::Inactive, _) => stopped(name),
            (Lifecycle::Error, Some(reason)) => format!("it does not work: {reason}"),
            (_, Some(reason)) if self.is_own => format!("it is being started again: {reason}"),
            (_, Some(reason)) => format!("no instance of it answers: {reason}"),
            (_, None) => return Some(Unavailable::Starting),
        };
        Some(Unavailable::Because(because))
    }

    /// The processes whose use of the machine belongs to the status.
    pub(super) fn probes(&self) -> Vec<(u16, ProcessHandle)> {
        let probe = |(seat, one): (&Seat, &Member)| Some((seat.replica, one.process.clone()?));
        let members = self.seated().filter(|(_, one)| !one.dismissed);
        members.filter_map(probe).collect()
    }

    pub(super) fn status(&self) -> ServiceStatus {
        self.status.clone()
    }
}

/// What callers read of a service that was stopped on purpose.
pub(crate) fn stopped(name: &ServiceName) -> String {
    format!("it is stopped; `vaxel service start {name}` starts it")
}

/// The issues as one sentence.
pub(super) fn sentences(issues: &[Issue]) -> String {
    let sentences: Vec<&str> = issues.iter().map(|issue| &*issue.message).collect();
    sentences.join("; ")
}

const fn era_name(era: Era) -> &'static str {
    match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
