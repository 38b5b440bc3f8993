//! Stops calls to a service that does not answer, so that its callers hear it at once instead of waiting
//! for one deadline after the other (the circuit breaker of M. Nygard, "Release It!", 2nd ed., ch. 5).
//!
//! Closed, it counts failures in a row. At the limit it opens: calls are refused for a while. Then one
//! call is let through, and what becomes of it closes the breaker or opens it again.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use vaxel_core::{call::Outcome, time::Timestamp};

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerRules {
    /// So many calls in a row without an answer; 0: never.
    pub failures: u32,
    /// How long calls are refused before one is tried.
    pub pause: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: AtomicU32,
    /// Unix milliseconds.
    open_until: AtomicU64,
    /// A call is on its way to find out.
    trying: AtomicBool,
}

impl Breaker {
    /// Whether a call may go; how long to wait when not.
    pub(crate) fn admit(&self, now: Timestamp, rules: BreakerRules) -> Result<(), Duration> {
        if rules.failures == 0 || self.failures.load(Relaxed) < rules.failures {
            return Ok(());
        }
        let until = Timestamp::from_millis(self.open_until.load(Relaxed));
        if now < until {
            return Err(until.since(now));
        }
        if self.trying.swap(true, Relaxed) {
            return Err(rules.pause);
        }
        Ok(())
    }

    /// Takes note of how a call ended that was admitted; `tells` when it was sent to the service, and had
    /// the time that the service has.
    pub(crate) fn note(&self, outcome: Outcome, tells: bool, now: Timestamp, rules: BreakerRules) {
        match outcome {
            // An answer is an answer, whatever it says.
            Outcome::Ok | Outcome::ToolError | Outcome::Error if tells => self.reset(),
            Outcome::Timeout | Outcome::Unavailable if tells => self.failed(now, rules),
            _ => self.trying.store(false, Relaxed),
        }
    }

    /// The service was seen to be there.
    pub(crate) fn reset(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.trying.store(false, Relaxed);
        }
    }

    fn failed(&self, now: Timestamp, rules: BreakerRules) {
        let before = self.failures.load(Relaxed);
        let failures = before.saturating_add(1);
        self.failures.store(failures, Relaxed);
        if failures >= rules.failures {
            let pause = u64::try_from(rules.pause.as_millis()).unwrap_or(u64::MAX);
            let until = now.as_millis().saturating_add(pause);
            self.open_until.store(until, Relaxed);
        }
        self.trying.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: BreakerRules = BreakerRules {
        failures: 3,
        pause: Duration::from_secs(10),
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn opened() -> Breaker {
        let breaker = Breaker::default();
        for second in 0..3 {
            assert_eq!(breaker.admit(at(second), RULES), Ok(()));
            breaker.note(Outcome::Timeout, true, at(second), RULES);
        }
        breaker
    }

    #[test]
    fn it_opens_at_the_limit_and_tries_one_call_after_the_pause() {
        let breaker = opened();
        assert_eq!(breaker.admit(at(5), RULES), Err(Duration::from_secs(7)));
        assert_eq!(breaker.admit(at(12), RULES), Ok(()));
        assert!(breaker.admit(at(12), RULES).is_err(), "only one is tried");
        breaker.note(Outcome::Unavailable, true, at(13), RULES);
        assert!(breaker.admit(at(14), RULES).is_err());
        assert_eq!(breaker.admit(at(23), RULES), Ok(()));
        breaker.note(Outcome::ToolError, true, at(24), RULES);
        assert_eq!(breaker.admit(at(24), RULES), Ok(()));
        assert_eq!(breaker.admit(at(24), RULES), Ok(()));
    }

    #[test]
    fn a_trial_that_came_to_nothing_is_no_verdict() {
        let breaker = opened();
        assert_eq!(breaker.admit(at(12), RULES), Ok(()));
        breaker.note(Outcome::Cancelled, true, at(12), RULES);
        assert_eq!(breaker.admit(at(12), RULES), Ok(()));
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew() {
        let breaker = Breaker::default();
        for outcome in [
            Outcome::Timeout,
            Outcome::Timeout,
            Outcome::Ok,
            Outcome::Timeout,
        ] {
            breaker.note(outcome, true, at(0), RULES);
        }
        // What never reached the service says nothing about it.
        breaker.note(Outcome::Unavailable, false, at(0), RULES);
        breaker.note(Outcome::Timeout, true, at(0), RULES);
        assert_eq!(breaker.admit(at(0), RULES), Ok(()));
    }

    #[test]
    fn it_can_be_switched_off() {
        let off = BreakerRules {
            failures: 0,
            ..RULES
        };
        assert_eq!(opened().admit(at(3), off), Ok(()));
    }
}
