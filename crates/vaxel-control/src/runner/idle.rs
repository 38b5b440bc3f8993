//! When a service counts as idle: nobody has called it for as long as its spec says.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// So often within the time it is looked whether somebody has called.
const LOOKS: u32 = 4;

/// What is known of the use of one service.
pub(super) struct Idle {
    /// Calls that had ended when it was looked last.
    calls: u64,
    since: Instant,
    next: Instant,
}

impl Idle {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            calls: 0,
            since: now,
            next: now,
        }
    }

    /// It is in use, or has just come.
    pub(super) const fn stir(&mut self, now: Instant) {
        self.since = now;
        self.next = now;
    }

    /// Resolves when it is time to look; never without a time after which a service is idle.
    pub(super) async fn due(&self, after: Option<Duration>) {
        match after {
            Some(_) => sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }

    /// Takes note of what is seen now: how many calls have ended so far, and whether anything else keeps
    /// the service in use. Returns whether it is idle.
    pub(super) fn look(&mut self, seen: (u64, bool), after: Duration, now: Instant) -> bool {
        let (calls, is_busy) = seen;
        if is_busy || calls != self.calls {
            self.calls = calls;
            self.since = now;
        }
        let idle_at = self.since.checked_add(after).unwrap_or(now);
        self.next = (now + after / LOOKS).min(idle_at);
        if idle_at > now {
            return false;
        }
        self.next = now + after / LOOKS;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_idle_when_nothing_happened_for_so_long() {
        let (start, after) = (Instant::now(), Duration::from_secs(8));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::new(start);
        let steps = [
            (0, 3, false, false), // calls of earlier
            (7, 3, false, false),
            (8, 4, false, false), // one came and went
            (15, 4, true, false), // something goes on
            (22, 4, false, false),
            (23, 4, false, true),
            (24, 4, false, true),
        ];
        for (seconds, calls, is_busy, expected) in steps {
            let is_idle = idle.look((calls, is_busy), after, at(seconds));
            assert_eq!(is_idle, expected, "at {seconds} s");
        }
        idle.stir(at(30));
        assert!(!idle.look((4, false), after, at(37)));
        // It is looked in time, and not all the time.
        assert_eq!(idle.next, at(38));
    }
}
