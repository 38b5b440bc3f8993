//! How an instance answers: what the choice between several goes by.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;
use vaxel_core::{
    balance::{self, Candidate},
    failure::{Failure, Kind},
};

/// So many calls in a row without an answer put an instance aside.
const FAILURES: u32 = 3;
/// For how long, the first time; longer each time that it fails again.
const ASIDE: Duration = Duration::from_secs(5);
/// How often that doubles at most.
const DOUBLINGS: u32 = 4;

/// What is known of one instance. Writers may overwrite each other: every value stands for itself.
#[derive(Debug)]
pub(crate) struct Pulse {
    weight: u16,
    identity: u64,
    began: Instant,
    /// There are others to choose from.
    is_taken: AtomicBool,
    /// Nanoseconds; 0 before the first answer.
    latency: AtomicU64,
    /// When that was, nanoseconds since `began`.
    measured: AtomicU64,
    failures: AtomicU32,
    /// Nanoseconds since `began`.
    aside_until: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(weight: u16, identity: u64, began: Instant) -> Self {
        Self {
            weight: weight.max(1),
            identity,
            began,
            is_taken: AtomicBool::new(false),
            latency: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            aside_until: AtomicU64::new(0),
        }
    }

    /// From now on it is measured: there is more than one to choose from.
    pub(crate) fn take(&self) {
        self.is_taken.store(true, Relaxed);
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.is_taken.load(Relaxed)
    }

    pub(crate) fn candidate(&self, ready: bool, in_flight: u32, now: Instant) -> Candidate {
        let now = self.at(now);
        let since = Duration::from_nanos(now.saturating_sub(self.measured.load(Relaxed)));
        let latency = match self.latency.load(Relaxed) {
            0 => None,
            latency => Some(balance::decayed(latency, since)),
        };
        Candidate {
            ready,
            aside: now < self.aside_until.load(Relaxed),
            in_flight,
            weight: self.weight,
            latency,
            age: Duration::from_nanos(now),
            identity: self.identity,
        }
    }

    /// Takes note of how a request that began then came out `now`.
    pub(crate) fn note<T>(&self, begun: Instant, now: Instant, answered: &Result<T, Failure>) {
        match answered {
            Ok(_) => self.answered(nanoseconds(now.duration_since(begun)), self.at(now)),
            Err(failure) if was_unsent(failure) => self.failed(FAILURES, now),
            Err(failure) => match failure.kind {
                Kind::UpstreamTimeout | Kind::UpstreamLost | Kind::UpstreamUnavailable => {
                    self.failed(1, now);
                }
                _ => {}
            },
        }
    }

    /// A moment as it is written down.
    fn at(&self, now: Instant) -> u64 {
        nanoseconds(now.duration_since(self.began))
    }

    fn answered(&self, took: u64, now: u64) {
        let since = now.saturating_sub(self.measured.swap(now, Relaxed));
        let before = Some(self.latency.load(Relaxed)).filter(|latency| *latency > 0);
        let latency = balance::measured(before, Duration::from_nanos(since), took);
        self.latency.store(latency, Relaxed);
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
            self.aside_until.store(0, Relaxed);
        }
    }

    fn failed(&self, at_least: u32, now: Instant) {
        let before = self.failures.fetch_add(1, Relaxed);
        let failures = before.saturating_add(1).max(at_least);
        self.failures.store(failures, Relaxed);
        if let Some(again) = failures.checked_sub(FAILURES) {
            let aside = ASIDE * (1 << again.min(DOUBLINGS));
            let until = self.at(now + aside);
            self.aside_until.store(until, Relaxed);
        }
    }
}

/// Whether a request did not leave, so that another instance can have it.
pub(crate) fn was_unsent(failure: &Failure) -> bool {
    let cause = failure.cause.as_deref();
    let cause = cause.and_then(|cause| cause.downcast_ref::<vaxel_egress::Error>());
    cause.is_some_and(|error| !error.was_sent())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: Kind) -> Result<(), Failure> {
        Err(Failure::new(kind, "it failed"))
    }

    #[test]
    fn an_instance_that_fails_is_put_aside_and_longer_each_time() {
        let mut now = Instant::now();
        let pulse = Pulse::new(1, 1, now);
        let is_aside = |now| pulse.candidate(true, 0, now).aside;
        for kind in [Kind::UpstreamTimeout, Kind::UpstreamLost] {
            pulse.note(now, now, &failed(kind));
        }
        // What the caller did wrong says nothing about it.
        pulse.note(now, now, &failed(Kind::Invalid));
        assert!(!is_aside(now));
        pulse.note(now, now, &failed(Kind::UpstreamUnavailable));
        assert!(is_aside(now));
        now += ASIDE;
        assert!(!is_aside(now));
        pulse.note(now, now, &failed(Kind::UpstreamTimeout));
        now += ASIDE;
        assert!(is_aside(now));
        pulse.note(now, now, &Ok(()));
        assert!(!is_aside(now));
    }

    #[test]
    fn an_answer_is_measured() {
        let begun = Instant::now();
        let now = begun + Duration::from_millis(5);
        let pulse = Pulse::new(3, 1, begun);
        assert_eq!(pulse.candidate(true, 0, now).latency, None);
        pulse.note(begun, now, &Ok(()));
        let one = pulse.candidate(true, 2, now);
        assert_eq!(one.latency, Some(5_000_000));
        assert_eq!((one.weight, one.in_flight), (3, 2));
    }
}
