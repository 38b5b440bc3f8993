//! Exponential back-off with full jitter, and when to stop trying so hard.

use std::time::Duration;

/// How waits between attempts grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Longest first wait.
    pub initial: Duration,
    /// Longest wait ever.
    pub max: Duration,
    /// An instance that ran this long starts again from `initial`.
    pub reset_after: Duration,
    /// After this many failures in a row the instance counts as crash-looping. It is still tried
    /// again, every `max`.
    pub max_retries: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(500),
            max: Duration::from_mins(1),
            reset_after: Duration::from_mins(1),
            max_retries: 3,
        }
    }
}

impl Backoff {
    /// The wait before the next attempt, after `failures` failures in a row. `jitter` is a random
    /// number; the wait lies between half of the exponential bound and the bound itself, so that
    /// many services that fail together do not come back together.
    pub fn wait(&self, failures: u32, jitter: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.initial.saturating_mul(1 << doublings).min(self.max);
        let half = bound / 2;
        half + half.mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }

    /// Whether so many failures in a row are a crash loop.
    pub const fn is_crash_loop(&self, failures: u32) -> bool {
        failures > self.max_retries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_grow_and_stay_bounded(failures in 0_u32..1_000, jitter: u32) {
            let backoff = Backoff::default();
            let wait = backoff.wait(failures, jitter);
            prop_assert!(wait >= backoff.initial / 2 && wait <= backoff.max);
            prop_assert!(backoff.wait(failures + 2, jitter) >= wait);
        }
    }
}
