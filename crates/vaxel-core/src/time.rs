//! Time as an argument. [`Clock`] is the only place that asks the operating system.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in APIs (`Display`), as a number in
/// storage (`as_millis`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }
    /// Milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }
    /// This time plus `duration`, at most the largest representable time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
    /// This time less `duration`, at least the epoch.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{millis} ms"),
        }
    }
}
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        u64::try_from(at.as_millisecond())
            .map(Self)
            .map_err(|_| serde::de::Error::custom("a time before 1970"))
    }
}

/// Where time comes from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Milliseconds since the epoch, when a test drives the time.
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The clock of the machine.
    pub const fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that moves only by [`Clock::advance`].
    pub fn manual(start: Timestamp) -> Self {
        Self {
            manual: Some(Arc::new(AtomicU64::new(start.as_millis()))),
        }
    }

    /// Moves a manual clock; does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Some(now) = &self.manual {
            now.fetch_add(millis(by), Ordering::Relaxed);
        }
    }

    /// The time of day.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    pub fn now(&self) -> Timestamp {
        if let Some(now) = &self.manual {
            return Timestamp(now.load(Ordering::Relaxed));
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(since.map_or(0, millis))
    }

    /// A monotonic instant of the machine, for measuring durations; never manual.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the monotonic clock"
    )]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// Says how long ago it was made: time that never goes back, whatever happens to the time of day.
#[derive(Clone, Debug)]
pub struct Stopwatch {
    clock: Clock,
    made: (Timestamp, Instant),
}

impl Stopwatch {
    /// One that begins now; that of a manual clock moves with it.
    pub fn new(clock: Clock) -> Self {
        let made = (clock.now(), clock.instant());
        Self { clock, made }
    }

    /// Since it was made.
    pub fn elapsed(&self) -> Duration {
        match &self.clock.manual {
            Some(_) => self.clock.now().since(self.made.0),
            None => self.clock.instant().duration_since(self.made.1),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_reads_and_writes_rfc_3339() {
        let at = Timestamp::from_millis(1_700_000_000_123);
        assert_eq!(at.to_string(), "2023-11-14T22:13:20.123Z");
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
    }

    #[test]
    fn no_time_is_before_the_epoch_or_after_the_last_one() {
        let at = Timestamp::from_millis(5_000);
        assert_eq!(at.minus(Duration::from_secs(2)).as_millis(), 3_000);
        assert_eq!(at.minus(Duration::MAX).as_millis(), 0);
        assert_eq!(at.plus(Duration::MAX).as_millis(), u64::MAX);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp::from_millis(5));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_millis(1_005));
        let stopwatch = Stopwatch::new(clock.clone());
        clock.advance(Duration::from_secs(2));
        assert_eq!(stopwatch.elapsed(), Duration::from_secs(2));
    }
}
