//! The bridge as a whole: callers of every kind and servers of every kind, and whatever happens to
//! them in whatever order. Nothing hangs, nothing is answered twice, nothing crosses callers.
//!
//! Cases are random. One that fails is shrunk and printed with the seed of its run;
//! `VAXEL_BRIDGE_SEED` plays that run again, `VAXEL_BRIDGE_CASES` says how many are played.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use prometheus_client::encoding::text::encode;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::time::{Instant, MissedTickBehavior};
use vaxel_auth::web::WebRules;
use vaxel_core::{
    balance::Balance,
    id::{Id, Service},
    service::{EraChoice, Limits, ToolFilter, Validate},
    time::Clock,
};
use vaxel_gateway::{ConnectTarget, Link, ServiceEntry, Tunables};

use crate::harness::{PATIENCE, Plan as RigPlan, Rig, about, wait_for};

mod caller;
mod carriers;
mod schedule;
mod server;
mod world;

use self::{
    caller::Caller,
    carriers::Server,
    schedule::{How, Schedule, Step, Wrong},
    world::{CALLERS, Call, Ledger, SERVERS, Speaks, Standing, Via, World},
};

/// Cases of one run, where nobody says otherwise.
const CASES: u64 = 64;
/// Deadlines of a case in which everything must end by itself.
const HURRY: Duration = Duration::from_millis(200);
/// A call that waits for another is not waited for longer than this.
const SETTLE: Duration = Duration::from_millis(30);
/// When nothing more happened for so long, something hangs.
const ENDING: Duration = Duration::from_secs(20);
/// Calls of one case.
const CALLS: usize = 24;

#[test]
fn whatever_happens_every_call_ends_once_and_for_its_own_caller() {
    let wished = |name: &str| -> Option<u64> { wish(name)?.parse().ok() };
    let seed = wished("VAXEL_BRIDGE_SEED").unwrap_or_else(|| RandomState::new().hash_one(()));
    let cases = wished("VAXEL_BRIDGE_CASES").unwrap_or(CASES);
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 400,
        max_shrink_time: 90_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let played = runner.run(&schedule::schedules(), |schedule| {
        let faults = play(&schedule);
        if faults.is_empty() {
            return Ok(());
        }
        Err(TestCaseError::fail(faults.join("\n")))
    });
    if let Err(error) = played {
        panic!("{error}\nagain: VAXEL_BRIDGE_SEED={seed} VAXEL_BRIDGE_CASES={cases}");
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "long runs are asked for by hand, not by configuration"
)]
fn wish(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Plays one case in a runtime of its own; returns what was wrong.
fn play(schedule: &Schedule) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = Arc::new(World::new(schedule.is_hurried, schedule.scope));
        let mut scene = Scene::set(Arc::clone(&world), schedule.is_hurried).await;
        for step in &schedule.steps {
            scene.take(step).await;
        }
        scene.end().await;
        let tasks = tokio::runtime::Handle::current();
        let left = || (tasks.metrics().num_alive_tasks() == 0).then_some(());
        wait_for("every task to end", left).await;
        world.with(|ledger| std::mem::take(&mut ledger.faults))
    })
}

/// A case that is being played.
struct Scene {
    world: Arc<World>,
    rig: Rig,
    callers: Vec<Caller>,
    servers: Vec<Server>,
    services: Vec<Id<Service>>,
    links: Vec<Link>,
}

impl Scene {
    async fn set(world: Arc<World>, is_hurried: bool) -> Self {
        let mut plan = RigPlan::default();
        if is_hurried {
            plan.config.answer_wait = HURRY;
            plan.call_timeout = HURRY;
        }
        let rig = Rig::start_with(&plan);
        let mut tunables = Tunables::new(WebRules::new(rig.address, &[]).unwrap());
        tunables.call_timeout = plan.call_timeout;
        tunables.breaker.failures = 0;
        rig.gateway.tune(tunables);
        let mut scene = Self {
            world,
            rig,
            callers: Vec::new(),
            servers: Vec::new(),
            services: Vec::new(),
            links: Vec::new(),
        };
        for index in 0..SERVERS.len() {
            let server = Server::start(index, Arc::clone(&scene.world)).await;
            scene.servers.push(server);
            scene.services.push(Id::new(Clock::system().now()));
            scene.connect(index).await;
        }
        for index in 0..CALLERS.len() {
            let world = Arc::clone(&scene.world);
            scene
                .callers
                .push(Caller::connect(index, world, &scene.rig).await);
        }
        scene
    }

    /// Connects a server and publishes it.
    async fn connect(&mut self, index: usize) {
        let name = service(index);
        let target = ConnectTarget {
            introduced: None,
            service: self.services[index],
            name: name.parse().unwrap(),
            era: EraChoice::default(),
            transport: self.servers[index].transport(),
        };
        let link = self.rig.gateway.connect(target).await.unwrap();
        let catalog = link.catalog().await.unwrap();
        self.rig.gateway.publish(ServiceEntry {
            id: self.services[index],
            name: name.parse().unwrap(),
            limits: Limits::default(),
            tools: ToolFilter::default(),
            validate: Validate::None,
            catalog: Some(Arc::new(catalog)),
            links: vec![link.clone()],
            balance: Balance::default(),
            about: about(),
            unavailable: None,
        });
        self.links.push(link);
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Call(by, of, plan) => self.call(by % CALLERS.len(), of % SERVERS.len(), plan),
            Step::Go(which) => self.world.with(|ledger| {
                let jobs = ledger.jobs.iter().enumerate();
                let waiting = jobs.filter(|(_, job)| job.waits_for_steps());
                if let Some((job, _)) = choose(waiting.collect(), *which) {
                    ledger.go(job, true);
                }
            }),
            Step::Answer(which, how) => {
                if let Some((number, caller, server)) = self.asked(*which) {
                    self.callers[caller].answer(number, *how, &service(server));
                }
            }
            Step::WrongRetry(which, wrong) => self.retry_wrongly(*which, *wrong),
            Step::Steal(which) => self.steal(*which),
            Step::Cancel(which) => {
                if let Some((number, caller)) = self.running("cancelled", *which) {
                    self.callers[caller].cancel(number);
                }
            }
            Step::Disconnect(which) => {
                if let Some((number, caller)) = self.running("disconnected", *which) {
                    self.callers[caller].disconnect(number);
                }
            }
            Step::Resume(which) => self.resume(*which),
            Step::Leave(which) => self.callers[which % CALLERS.len()].leave(&self.rig).await,
            Step::Forget(which, cut) => self.forget(which % SERVERS.len(), *cut),
            Step::Die(which) => self.die(which % SERVERS.len()).await,
            Step::ComeBack => self.come_back().await,
            Step::Settle => {
                self.world.becomes(SETTLE, Ledger::is_settled).await;
            }
        }
    }

    fn call(&mut self, caller: usize, server: usize, plan: &schedule::Plan) {
        let is_alive = self.servers[server].is_alive;
        let number = self.world.with(|ledger| {
            let is_shaky = !is_alive || ledger.shaky.contains(&server);
            ledger.calls.push(Call {
                caller,
                server,
                plan: plan.clone(),
                disturbed: is_shaky.then_some("its server was away"),
                ..Call::default()
            });
            ledger.calls.len() - 1
        });
        if number < CALLS {
            self.callers[caller].call(number, &service(server), plan);
        } else {
            self.world.with(|ledger| ledger.calls.pop());
        }
    }

    /// A call whose caller is asked something.
    fn asked(&self, which: usize) -> Option<(usize, usize, usize)> {
        self.world.with(|ledger| {
            let calls = ledger.calls.iter().enumerate();
            let asked = calls.filter(|(_, call)| !call.open.is_empty() && call.is_there());
            let (number, call) = choose(asked.collect(), which)?;
            Some((number, call.caller, call.server))
        })
    }

    /// A call that runs, to which something happens.
    fn running(&self, why: &'static str, which: usize) -> Option<(usize, usize)> {
        self.world.with(|ledger| {
            let calls = ledger.calls.iter_mut().enumerate();
            let running = calls.filter(|(_, call)| matches!(call.standing, Standing::Runs));
            let (number, call) = choose(running.collect(), which)?;
            call.disturbed.get_or_insert(why);
            Some((number, call.caller))
        })
    }

    /// A caller that can come back for the rest of an answer.
    fn resume(&mut self, which: usize) {
        let found = self.world.with(|ledger| {
            let calls = ledger.calls.iter().enumerate();
            let gone = calls.filter(|(_, call)| {
                let is_gone = matches!(call.standing, Standing::Gone);
                is_gone && call.last_event.is_some() && call.disturbed == Some("disconnected")
            });
            let (number, call) = choose(gone.collect(), which)?;
            Some((number, call.caller))
        });
        if let Some((number, caller)) = found {
            self.callers[caller].resume(number);
        }
    }

    fn retry_wrongly(&mut self, which: usize, wrong: Wrong) {
        let found = self.world.with(|ledger| {
            let calls = ledger.calls.iter_mut().enumerate();
            let retried = calls.filter(|(_, call)| !call.spent.is_empty() && call.plan.ends());
            let (number, call) = choose(retried.collect(), which)?;
            // The last one may be on its way; what comes first of two that are the same is right.
            let is_on_its_way = wrong == Wrong::Again && matches!(call.standing, Standing::Runs);
            let spent = call.spent.iter().rev().nth(usize::from(is_on_its_way));
            let params = spent?.clone();
            if wrong == Wrong::Again && SERVERS[call.server] == Via::Modern {
                // It keeps no record of what it was told.
                call.requests += 1;
            }
            Some((number, call.caller, params))
        });
        let Some((number, caller, params)) = found else {
            return;
        };
        let (by, params) = match wrong {
            Wrong::Stranger => (usize::from(CALLERS[caller].1 == 0), params),
            Wrong::Again => (caller, params),
            Wrong::OtherArguments => (caller, params.replace(r#""plan":"#, r#""other":"#)),
        };
        self.callers[by].retry_wrongly(number, &params, wrong);
    }

    fn steal(&mut self, which: usize) {
        let Some((number, caller, _)) = self.asked(which) else {
            return;
        };
        let one = self
            .world
            .with(|ledger| ledger.calls[number].open.first().cloned());
        let others = (0..CALLERS.len()).filter(|other| {
            let speaks = CALLERS[*other].0;
            *other != caller && !matches!(speaks, Speaks::Modern | Speaks::Unable)
        });
        let legacy: Vec<usize> = others.collect();
        if let Some(one) = one.filter(|one| one.under.is_u64()) {
            self.callers[legacy[which % legacy.len()]].steal(number, &one);
        }
    }

    fn forget(&mut self, server: usize, cut: bool) {
        if !self.servers[server].is_alive || matches!(SERVERS[server], Via::Modern | Via::Pipes) {
            return;
        }
        self.world.with(|ledger| {
            ledger.disturb("its session was forgotten", |call| call.server == server);
            if SERVERS[server].is_connection() {
                ledger.shaky.insert(server);
            }
        });
        self.servers[server].forget(cut || SERVERS[server].is_connection());
    }

    async fn die(&mut self, server: usize) {
        if !self.servers[server].is_alive {
            return;
        }
        self.world.with(|ledger| {
            ledger.disturb("its server died", |call| call.server == server);
            ledger.shaky.insert(server);
        });
        self.servers[server].die().await;
    }

    async fn come_back(&mut self) {
        for index in 0..SERVERS.len() {
            if !self.servers[index].is_alive && self.servers[index].come_back().await {
                self.connect(index).await;
            }
        }
    }

    /// Lets everything come to its end, and looks at what is left.
    async fn end(mut self) {
        self.come_back().await;
        if !self.world.with(|ledger| ledger.is_hurried) {
            self.let_go();
        }
        let mut every = tokio::time::interval(SETTLE);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // However long it takes where there is little of the processor: things go on.
        let (mut moved, mut at) = (0, Instant::now());
        while !self.world.with(|ledger| ledger.is_over()) || !self.is_idle() {
            self.help();
            every.tick().await;
            let moves = self.world.with(|ledger| ledger.moves);
            if std::mem::replace(&mut moved, moves) != moves {
                at = Instant::now();
            } else if at.elapsed() > ENDING {
                self.world.with(report);
                break;
            }
        }
        let is_hurried = self.world.with(|ledger| ledger.is_hurried);
        if is_hurried {
            self.check_jobs().await;
        }
        for caller in std::mem::take(&mut self.callers) {
            caller.end().await;
        }
        for gauge in ["streams", "connections"] {
            let line = format!("vaxel_{gauge} 0\n");
            let shown = || {
                let mut text = String::new();
                encode(&mut text, &self.rig.registry).unwrap();
                text.contains(&line).then_some(())
            };
            wait_for(&line, shown).await;
        }
        self.rig.stopped().await;
        self.check_jobs().await;
        for link in &self.links {
            link.close().await;
        }
    }

    fn is_idle(&self) -> bool {
        let mut services = self.services.iter();
        services.all(|service| self.rig.gateway.load(*service).in_flight == 0)
    }

    /// Servers wait for nobody any more.
    fn let_go(&self) {
        self.world.with(|ledger| {
            ledger.gates_open = true;
            for job in 0..ledger.jobs.len() {
                ledger.go(job, false);
            }
        });
    }

    /// Answers what is asked, and cancels what cannot end otherwise.
    fn help(&mut self) {
        let (is_hurried, asked, stuck) = self.world.with(|ledger| {
            let calls = || ledger.calls.iter().enumerate();
            let asked = calls().filter(|(_, call)| !call.open.is_empty() && call.is_there());
            let stuck = calls().filter(|(_, call)| {
                let is_stuck = call.disturbed.is_some() || !call.plan.ends();
                is_stuck && matches!(call.standing, Standing::Runs | Standing::Gone)
            });
            let place = |(number, call): (usize, &Call)| (number, call.caller, call.server);
            let stuck: Vec<_> = stuck.map(place).collect();
            (
                ledger.is_hurried,
                asked.map(place).collect::<Vec<_>>(),
                stuck,
            )
        });
        if is_hurried {
            return;
        }
        for (number, caller, server) in asked {
            self.callers[caller].answer(number, How::All, &service(server));
        }
        for (number, caller, _) in stuck {
            self.world.with(|ledger| {
                ledger.calls[number]
                    .disturbed
                    .get_or_insert("cancelled at the end");
            });
            self.callers[caller].cancel(number);
        }
    }

    /// Every server knows of every job of its that nobody waits for it.
    async fn check_jobs(&self) {
        let is_told = |ledger: &Ledger| {
            let mut jobs = ledger.jobs.iter();
            jobs.all(|job| {
                let is_told = match SERVERS[job.server] {
                    Via::Modern => !job.is_left_alone(),
                    _ => !job.is_open(),
                };
                is_told || job.lost.is_some()
            })
        };
        if !self.world.becomes(PATIENCE, is_told).await {
            self.world.with(|ledger| {
                ledger.fault("a server works for nobody".to_owned());
                report(ledger);
            });
        }
    }
}

fn report(ledger: &mut Ledger) {
    let mut lines = vec!["something hangs:".to_owned()];
    let calls = ledger.calls.iter().enumerate();
    for (number, call) in calls.filter(|(_, call)| !matches!(call.standing, Standing::Over(_))) {
        let (speaks, via) = (CALLERS[call.caller].0, SERVERS[call.server]);
        lines.push(format!(
            "c{number} ({speaks:?} of {via:?}, {:?}): {:?}, {:?}, asked {:?}",
            call.plan, call.standing, call.disturbed, call.open
        ));
    }
    for job in ledger.jobs.iter().filter(|job| job.is_open()) {
        let is_silent = job.is_silent();
        lines.push(format!(
            "an open job of c{}: silent {is_silent}, {:?}",
            job.call, job.lost
        ));
    }
    ledger.fault(lines.join("\n"));
}

fn service(index: usize) -> String {
    format!("s{index}")
}

fn choose<T>(mut among: Vec<T>, which: usize) -> Option<T> {
    let count = among.len();
    (count > 0).then(|| among.swap_remove(which % count))
}
