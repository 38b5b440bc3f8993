//! Checks one instance that answered once: whether it still does, whether its tools do what they should,
//! what it costs; and mends it, within a budget.
//!
//! A check is one task's work: the next one begins when it has ended. An instance that answers calls is
//! not asked for a sign of life, and one that hangs is asked again only after it had its time.

use std::{sync::Arc, time::Duration};

use vaxel_core::{
    health::{
        check::{Finding, Kind, Record, Verdict},
        recovery::{InstanceKind, Situation, Step, plan},
        spec::{HealthSpec, Percent, Rules},
    },
    quantity::{Size, Span},
    service::Source,
    status::Health,
    time::Timestamp,
};
use vaxel_gateway::Link;
use vaxel_supervisor::ProcessHandle;

use super::{
    functional::{self, Schemas},
    instance::{End, Instance, random},
    report::News,
    watched::in_turn,
};

/// Between a result that speaks against what is believed and the next check.
const RECHECK: Duration = Duration::from_secs(5);
/// So many missed signs of life in a row count while calls are in flight: a server that works on one
/// call at a time cannot answer meanwhile.
const MISSED_WHILE_BUSY: u32 = 10;
/// So many calls in a row without an answer are a fault, whatever the server says to a ping.
const UNANSWERED: u32 = 10;

pub(super) struct Checkup<'a> {
    instance: &'a Instance,
    link: &'a Link,
    process: Option<&'a ProcessHandle>,
    spec: Arc<HealthSpec>,
    rules: Rules,
    /// Calls that were answered until the last check.
    answered: u64,
    /// CPU time at the last check.
    used: Option<(Duration, Timestamp)>,
    schemas: Schemas,
    /// What the runner knows.
    told: Health,
    gave_up: bool,
}

impl<'a> Checkup<'a> {
    pub(super) fn new(
        instance: &'a Instance,
        link: &'a Link,
        process: Option<&'a ProcessHandle>,
    ) -> Self {
        let spec = instance.watched.spec();
        Self {
            instance,
            link,
            process,
            rules: instance.context.config.rules(&spec),
            spec,
            answered: link.evidence().answered,
            used: None,
            schemas: Schemas::default(),
            told: instance.watched.health(),
            gave_up: false,
        }
    }

    /// The wait before the first check: services that were started together are not checked together.
    pub(super) fn first_wait(&self) -> Duration {
        let is_urgent = self.told != Health::Healthy || !self.spec.functional.is_empty();
        let most = if is_urgent {
            self.rules.interval.min(RECHECK)
        } else {
            self.rules.interval
        };
        most.mul_f64(f64::from(random()) / f64::from(u32::MAX))
    }

    /// The wait before the next check.
    pub(super) fn wait(&self) -> Duration {
        if self.instance.watched.read(Record::is_undecided) {
            return self.rules.interval.min(RECHECK);
        }
        self.rules.next_wait(random())
    }

    /// Takes over what is to be checked now; whether that changed.
    pub(super) fn adopt(&mut self) -> bool {
        let spec = self.instance.watched.spec();
        if Arc::ptr_eq(&spec, &self.spec) {
            return false;
        }
        self.rules = self.instance.context.config.rules(&spec);
        self.spec = spec;
        let limits = self.spec.performance;
        let measures = limits.of_calls() || limits.of_processes();
        let calls = !self.spec.functional.is_empty();
        self.instance.watched.keep(|kind| match kind {
            Kind::Performance => measures,
            Kind::Functional => calls,
            Kind::Basic | Kind::Dependency | Kind::Security => true,
        });
        true
    }

    /// Checks everything. `asked`: somebody wants to know, so that what calls say is not enough.
    /// Resolves with an end when the instance has to be made anew.
    pub(super) async fn check(&mut self, asked: bool) -> Option<End> {
        if self.basic(asked).await {
            self.functional().await;
        }
        self.performance();
        self.conclude().await
    }

    /// Whether it answers.
    async fn basic(&mut self, asked: bool) -> bool {
        let begun = self.now();
        let answered = self.link.evidence().answered;
        let is_answering = std::mem::replace(&mut self.answered, answered) != answered;
        let finding = if is_answering && !asked {
            Finding::pass("It answered calls since the last check")
        } else {
            let ping = self.link.ping(self.rules.timeout);
            match in_turn(&self.instance.context.checks, ping).await {
                Ok(took) => Finding::pass(format!("It answered within {} ms", took.as_millis())),
                Err(failure) => Finding::fail(format!("It missed a health check: {failure}")),
            }
        };
        let answers = finding.verdict != Verdict::Fail;
        self.note(Kind::Basic, finding, begun);
        answers
    }

    async fn functional(&mut self) {
        let begun = self.now();
        let mut findings = Vec::new();
        let silent = self.link.evidence().unanswered;
        if silent >= UNANSWERED {
            let message = format!("It answers a ping, but none of its last {silent} calls");
            findings.push(Finding::fail(message));
        }
        let spec = Arc::clone(&self.spec);
        for check in &spec.functional {
            let context = &self.instance.context;
            let look = functional::look(
                (&context.gateway, self.link, None),
                self.instance.resource.id,
                (check, self.rules.timeout),
                &mut self.schemas,
            );
            // On the heap while it lasts: most of its life an instance waits.
            findings.push(in_turn(&context.checks, Box::pin(look)).await);
        }
        let finding = Finding::worst(findings).or_else(|| {
            // Without a tool to call only its silence is a fault, which ends with an answer.
            let failures =
                |record: &Record| record.last().any(|(last, _)| last.kind == Kind::Functional);
            let was_silent = self.instance.watched.read(failures);
            was_silent.then(|| Finding::pass("It answers calls"))
        });
        if let Some(finding) = finding {
            self.note(Kind::Functional, finding, begun);
        }
    }

    fn performance(&mut self) {
        let begun = self.now();
        let limits = self.spec.performance;
        let mut findings = Vec::new();
        if limits.of_calls() {
            let gateway = &self.instance.context.gateway;
            let figures = gateway.figures(self.instance.resource.id);
            findings.push(figures.judge(&limits));
        }
        if limits.of_processes()
            && let Some(process) = self.process
        {
            let usage = process.usage();
            let memory = Size(usage.memory_bytes);
            if let Some(limit) = limits.memory.filter(|limit| memory > *limit) {
                let mebibytes = usage.memory_bytes >> 20;
                let message = format!("its memory is {mebibytes} MiB, limit {limit}");
                findings.push(Finding::fail(message));
            }
            let before = self.used.replace((usage.cpu, begun));
            if let Some((limit, (cpu, at))) = limits.cpu.zip(before) {
                let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                let spent = millis(usage.cpu.saturating_sub(cpu));
                let share = Percent::of(spent, millis(begun.since(at)));
                if share > limit {
                    let message = format!("it uses {share} of a processor, limit {limit}");
                    findings.push(Finding::fail(message));
                }
            }
            findings.push(Finding::pass("Its processes are within the limits"));
        }
        if let Some(finding) = Finding::worst(findings) {
            self.note(Kind::Performance, finding, begun);
        }
    }

    /// Draws the conclusions, and does what follows from them.
    async fn conclude(&mut self) -> Option<End> {
        let watched = &self.instance.watched;
        let (health, reason) = (watched.health(), watched.reason());
        if health != self.told {
            self.told = health;
            self.tell(health, reason.clone()).await;
        }
        if health == Health::Unhealthy {
            return self.recover(reason.unwrap_or_default()).await;
        }
        self.gave_up = false;
        if watched.is_ejected() {
            watched.set_ejected(false);
            self.instance.tell(News::Moved).await;
        }
        None
    }

    async fn recover(&mut self, reason: String) -> Option<End> {
        if self.may_be_busy() {
            return None;
        }
        let (situation, now) = (self.situation(), self.now());
        let step = {
            let mut attempts = self.instance.attempts.lock();
            let step = plan(&self.rules, situation, &attempts, now);
            if matches!(step, Step::Restart | Step::Reinitialise | Step::Replace) {
                attempts.note(&self.rules, now);
            }
            step
        };
        let name = &self.instance.resource.name;
        match step {
            Step::Eject => {
                tracing::warn!(service.name = %name, "an instance gets no calls while others work: {reason}");
                self.instance.watched.set_ejected(true);
                self.instance.tell(News::Moved).await;
            }
            Step::Restart | Step::Reinitialise => return Some(End::Renew { reason }),
            Step::Replace => {
                tracing::warn!(service.name = %name, "the instances are replaced: {reason}");
                self.instance.tell(News::Worn).await;
            }
            Step::GiveUp(until) if !self.gave_up => {
                self.gave_up = true;
                let reason = format!("{reason}; {}", self.resignation(until));
                tracing::warn!(service.name = %name, "an instance is left as it is: {reason}");
                self.tell(Health::Unhealthy, Some(reason)).await;
            }
            Step::Wait(_) | Step::GiveUp(_) => {}
        }
        None
    }

    /// Why nothing more is done about it.
    fn resignation(&self, until: Option<Timestamp>) -> String {
        let Rules { budget, window, .. } = self.rules;
        match until {
            Some(until) => format!(
                "making it anew {budget} times within {} did not help: it is left as it is until \
                 {until}",
                Span(window)
            ),
            None => "nothing may be done about it (health.recovery)".to_owned(),
        }
    }

    /// Whether its silence may come from a call that it works on.
    fn may_be_busy(&self) -> bool {
        let context = &self.instance.context;
        let missed = self
            .instance
            .watched
            .read(|record| record.failures(Kind::Basic));
        let most = MISSED_WHILE_BUSY.max(self.rules.fall);
        let is_silent = (1..most).contains(&missed);
        is_silent && context.gateway.load(self.instance.resource.id).in_flight > 0
    }

    fn situation(&self) -> Situation {
        let context = &self.instance.context;
        let is = match &self.instance.resource.spec.source {
            Source::Process(_) if context.config.process.auto_restart => InstanceKind::Process,
            Source::Process(_) | Source::Builtin(_) => InstanceKind::Fixed,
            Source::Mcp(_) | Source::Http(_) => InstanceKind::Remote,
        };
        let works = |health: Health| matches!(health, Health::Healthy | Health::Degraded);
        let own = self.instance.seat.replica;
        let seen = context.board.find(self.instance.resource.id);
        let others_work = seen.is_some_and(|seen| {
            let mut instances = seen.status.instances.iter();
            instances.any(|one| one.replica != own && works(one.health))
        });
        Situation {
            is,
            others_work,
            is_ejected: self.instance.watched.is_ejected(),
        }
    }

    async fn tell(&self, health: Health, reason: Option<String>) {
        self.instance.tell(News::Looks { health, reason }).await;
    }

    fn note(&self, kind: Kind, finding: Finding, begun: Timestamp) {
        let clock = &self.instance.context.clock;
        self.instance
            .watched
            .note((kind, finding), (begun, clock), &self.rules);
    }

    fn now(&self) -> Timestamp {
        self.instance.context.clock.now()
    }
}
