//! Services that have to say from time to time that they live: one that is silent for longer than its
//! lease is unhealthy, and one that stays silent is removed.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    failure::Failure,
    id::{Id, Service},
    principal::{Permission, Principal},
    time::Timestamp,
};

use crate::{
    change::{Change, ServiceRef, Terms},
    control::{Control, conflict},
};

/// How often leases are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After so many leases without a word a service is removed.
const REMOVED_AFTER: u32 = 3;

/// Who has a lease, and when it was heard last. In memory: after a start everyone has a whole lease.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    all: Mutex<HashMap<Id<Service>, Lease>>,
    /// When they were looked at last.
    looked_at: Mutex<Option<Timestamp>>,
}

#[derive(Debug)]
struct Lease {
    length: Duration,
    heard: Timestamp,
    /// Its runner, which shows what came of it.
    bell: Weak<Notify>,
}

impl Lease {
    fn is_over(&self, times: u32, now: Timestamp) -> bool {
        let silent = now.as_millis().saturating_sub(self.heard.as_millis());
        u128::from(silent) > (self.length * times).as_millis()
    }
}

/// What a service is told that said that it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// When it was heard.
    pub heard_at: Timestamp,
    /// Until when it has to say so again.
    pub expires_at: Timestamp,
}

impl Leases {
    /// The lease of a service is so long from now on, or there is none.
    pub(crate) fn set(
        &self,
        id: Id<Service>,
        length: Option<Duration>,
        bell: &Arc<Notify>,
        now: Timestamp,
    ) {
        let mut leases = self.all.lock();
        let Some(length) = length else {
            leases.remove(&id);
            return;
        };
        let heard = leases.get(&id).map_or(now, |lease| lease.heard);
        let bell = Arc::downgrade(bell);
        leases.insert(
            id,
            Lease {
                length,
                heard,
                bell,
            },
        );
    }

    pub(crate) fn remove(&self, id: Id<Service>) {
        self.all.lock().remove(&id);
    }

    /// Why a service that should have been heard of is not well.
    pub(crate) fn silence(&self, id: Id<Service>, now: Timestamp) -> Option<String> {
        let leases = self.all.lock();
        let lease = leases.get(&id).filter(|lease| lease.is_over(1, now))?;
        let length = lease.length.as_secs();
        Some(format!(
            "it has not said for more than {length} s that it lives"
        ))
    }

    fn renew(&self, id: Id<Service>, now: Timestamp) -> Option<Heartbeat> {
        let mut leases = self.all.lock();
        let lease = leases.get_mut(&id)?;
        let was_silent = lease.is_over(1, now);
        lease.heard = now;
        if let Some(bell) = lease.bell.upgrade().filter(|_| was_silent) {
            bell.notify_one();
        }
        Some(Heartbeat {
            heard_at: now,
            expires_at: now.plus(lease.length),
        })
    }

    /// Wakes the runners of those that are silent; answers those that are to be removed.
    fn look(&self, now: Timestamp) -> Vec<Id<Service>> {
        let mut leases = self.all.lock();
        let absence = self.absence(now);
        if !absence.is_zero() {
            for lease in leases.values_mut() {
                lease.heard = lease.heard.plus(absence).min(now);
            }
        }
        let silent = leases.values().filter(|lease| lease.is_over(1, now));
        silent
            .filter_map(|lease| lease.bell.upgrade())
            .for_each(|bell| bell.notify_one());
        let gone = leases
            .iter()
            .filter(|(_, lease)| lease.is_over(REMOVED_AFTER, now));
        gone.map(|(id, _)| *id).collect()
    }

    /// How long nobody looked who should have: Vaxel was suspended, or the clock was set. Nobody could be
    /// heard then, so it counts as no silence.
    fn absence(&self, now: Timestamp) -> Duration {
        let before = self.looked_at.lock().replace(now);
        let gap = before.map_or(Duration::ZERO, |before| now.since(before));
        if gap > LOOK * 2 {
            gap.saturating_sub(LOOK)
        } else {
            Duration::ZERO
        }
    }

    /// Whether it is still to be removed: it may have been heard while others were.
    fn is_gone(&self, id: Id<Service>, now: Timestamp) -> bool {
        let leases = self.all.lock();
        let lease = leases.get(&id);
        lease.is_some_and(|lease| lease.is_over(REMOVED_AFTER, now))
    }
}

impl Control {
    /// A service says that it lives. `mcp:write`.
    ///
    /// # Errors
    /// `Conflict` when it has no lease, which a service gets with `lease` in its spec.
    pub async fn heartbeat(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Heartbeat, Failure> {
        let found = self.find_for(caller, Permission::McpWrite, service).await?;
        let Some(length) = found.spec.lease else {
            let name = &found.name;
            return Err(conflict(format!(
                "`{name}` has no lease: it need not say that it lives"
            )));
        };
        let now = self.now();
        // Its runner may not have begun: then its lease begins whole.
        let renewed = self.inner.context.leases.renew(found.id, now);
        Ok(renewed.unwrap_or(Heartbeat {
            heard_at: now,
            expires_at: now.plus(length.0),
        }))
    }

    /// When a service with a lease said last that it lives.
    pub fn last_seen(&self, id: Id<Service>) -> Option<Timestamp> {
        let leases = self.inner.context.leases.all.lock();
        leases.get(&id).map(|lease| lease.heard)
    }

    /// How long a service that registers itself may be silent, when it does not say so itself.
    pub fn default_lease(&self) -> Option<Duration> {
        self.inner.context.config.health.lease
    }
}

/// Looks at the leases until `stop`.
pub(crate) async fn watch(control: Control, stop: CancellationToken) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = look.tick() => {}
        }
        let leases = &control.inner.context.leases;
        for id in leases.look(control.now()) {
            if leases.is_gone(id, control.now()) {
                remove(&control, id).await;
            }
        }
    }
}

async fn remove(control: &Control, id: Id<Service>) {
    let terms = Terms {
        message: Some("it did not say that it lives for three leases".to_owned()),
        ..Terms::default()
    };
    let change = Change::DeleteService {
        service: ServiceRef::Id(id),
        expected: None,
    };
    match control.on(terms).submit(&Principal::system(), change).await {
        Ok(_) => tracing::info!(service.id = %id, "a service that stayed silent is removed"),
        Err(failure) => {
            tracing::warn!(service.id = %id, "a service that stayed silent could not be removed: {failure}");
        }
    }
    control.inner.context.leases.remove(id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_after_one_lease_and_ends_it_after_three() {
        let (leases, bell) = (Leases::default(), Arc::new(Notify::new()));
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let id = Id::new(at(0));
        leases.set(id, Some(Duration::from_secs(10)), &bell, at(0));
        assert_eq!(leases.silence(id, at(10)), None);
        assert!(leases.silence(id, at(11)).is_some());
        assert_eq!(leases.look(at(30)), []);
        assert_eq!(leases.look(at(31)), [id]);
        let renewed = leases.renew(id, at(31)).unwrap();
        assert_eq!(renewed.expires_at, at(41));
        for second in 32..=41 {
            assert_eq!(leases.look(at(second)), []);
        }
        assert_eq!(leases.silence(id, at(41)), None);
        // Another length does not forget when it was heard.
        leases.set(id, Some(Duration::from_secs(5)), &bell, at(40));
        assert!(leases.silence(id, at(40)).is_some());
        leases.set(id, None, &bell, at(40));
        assert_eq!(leases.silence(id, at(99)), None);
    }

    #[test]
    fn time_in_which_nobody_could_be_heard_is_no_silence() {
        let (leases, bell) = (Leases::default(), Arc::new(Notify::new()));
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let id = Id::new(at(0));
        leases.set(id, Some(Duration::from_secs(10)), &bell, at(0));
        assert_eq!(leases.look(at(5)), []);
        // Vaxel is suspended for an hour.
        assert_eq!(leases.look(at(3_606)), []);
        assert_eq!(leases.silence(id, at(3_606)), None);
        // Six seconds of silence before and after it; four more, and it is told.
        assert_eq!(leases.silence(id, at(3_610)), None);
        assert!(leases.silence(id, at(3_611)).is_some());
        let silent = (3_607..4_000).find(|second| !leases.look(at(*second)).is_empty());
        assert_eq!(silent, Some(3_631));
        assert!(leases.is_gone(id, at(3_631)));
        leases.renew(id, at(3_631));
        assert!(!leases.is_gone(id, at(3_631)), "it was heard meanwhile");
    }
}
