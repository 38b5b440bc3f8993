//! What is known of the health of one instance, or of what is around a service: written by whoever
//! checks it, read by everyone, and the way to have it checked at once.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Duration, timeout},
};
use vaxel_core::{
    health::{
        self,
        check::{CheckResult, Finding, Kind, Record},
        spec::{HealthSpec, Rules},
    },
    status::Health,
    time::{Clock, Timestamp},
};

/// A check that takes longer stops counting against the number of checks at once, so that servers that
/// hang do not hold up the checks of others.
const SHARE: Duration = Duration::from_secs(1);

/// Cheap to clone; all clones are about the same.
#[derive(Clone, Debug)]
pub(crate) struct Watched(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None`: what is around the service.
    replica: Option<u16>,
    record: Mutex<Record>,
    spec: Mutex<Arc<HealthSpec>>,
    ejected: AtomicBool,
    /// Counts the checks that were asked for, and up to which of them they were made.
    wanted: AtomicU64,
    made: AtomicU64,
    ring: Notify,
    done: Notify,
}

impl Watched {
    pub(crate) fn new(replica: Option<u16>, spec: Arc<HealthSpec>) -> Self {
        Self(Arc::new(Shared {
            replica,
            record: Mutex::default(),
            spec: Mutex::new(spec),
            ejected: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            made: AtomicU64::new(0),
            ring: Notify::new(),
            done: Notify::new(),
        }))
    }

    pub(crate) fn replica(&self) -> Option<u16> {
        self.0.replica
    }

    /// Reads what is known.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.0.record.lock())
    }

    /// The health that follows from what is known.
    pub(crate) fn health(&self) -> Health {
        self.read(|record| {
            health::of_instance(record.last().map(|(last, state)| (last.kind, state)))
        })
    }

    /// Why it is not healthy.
    pub(crate) fn reason(&self) -> Option<String> {
        self.read(|record| record.reason().map(str::to_owned))
    }

    /// Takes note of what a check that began then found. Whether the state of its kind changed.
    pub(super) fn note(
        &self,
        (kind, finding): (Kind, Finding),
        (begun, clock): (Timestamp, &Clock),
        rules: &Rules,
    ) -> bool {
        let Finding { verdict, message } = finding;
        let result = CheckResult {
            kind,
            verdict,
            message,
            at: begun,
            duration: clock.now().since(begun),
        };
        let mut record = self.0.record.lock();
        record.note(result, rules.rise, rules.fall)
    }

    /// Forgets kinds that are not checked any more.
    pub(super) fn keep(&self, wanted: impl Fn(Kind) -> bool) {
        self.0.record.lock().keep(wanted);
    }

    /// What is to be checked now.
    pub(super) fn spec(&self) -> Arc<HealthSpec> {
        Arc::clone(&self.0.spec.lock())
    }

    /// From now on this is to be checked.
    pub(super) fn adopt(&self, spec: Arc<HealthSpec>) {
        *self.0.spec.lock() = spec;
        self.0.ring.notify_one();
    }

    /// Whether it is kept out of the way of calls.
    pub(super) fn is_ejected(&self) -> bool {
        self.0.ejected.load(Relaxed)
    }

    pub(super) fn set_ejected(&self, ejected: bool) {
        self.0.ejected.store(ejected, Relaxed);
    }

    /// Asks for a check; [`Self::made`] resolves with its number. Several orders may be one check.
    pub(crate) fn order(&self) -> u64 {
        let number = self.0.wanted.fetch_add(1, Relaxed) + 1;
        self.0.ring.notify_one();
        number
    }

    /// Resolves when the check with this number, or a later one, was made.
    pub(crate) async fn made(&self, number: u64) {
        loop {
            let mut done = std::pin::pin!(self.0.done.notified());
            done.as_mut().enable();
            if self.0.made.load(Relaxed) >= number {
                return;
            }
            done.await;
        }
    }

    /// Resolves when a check was asked for, or something else is to be checked.
    pub(super) async fn rung(&self) {
        self.0.ring.notified().await;
    }

    /// The newest order that was not carried out, if there is one.
    pub(super) fn pending(&self) -> Option<u64> {
        let wanted = self.0.wanted.load(Relaxed);
        (wanted > self.0.made.load(Relaxed)).then_some(wanted)
    }

    /// The order was carried out.
    pub(super) fn carried_out(&self, number: u64) {
        self.0.made.fetch_max(number, Relaxed);
        self.0.done.notify_waiters();
    }
}

/// Does `work` in its turn: a bounded number of checks is made at once, over all services. The wait for
/// the turn is bounded since everyone gives it up after [`SHARE`].
pub(super) async fn in_turn<T>(turns: &Arc<Semaphore>, work: impl Future<Output = T>) -> T {
    let turn = Arc::clone(turns).acquire_owned().await;
    let mut work = std::pin::pin!(work);
    if let Ok(done) = timeout(SHARE, &mut work).await {
        return done;
    }
    drop(turn);
    work.await
}
