//! How much in how much time: rates as people write them, and the arithmetic that holds them.
//!
//! A [`Bucket`] is one number, the moment at which it is full again (the generic cell rate algorithm): what is
//! taken moves it on, and it never has to be filled by anybody. Whoever takes all at once waits for one
//! share of the time for each further one.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quantity::Span;

/// Most of anything in one span.
const COUNT_MAX: u32 = 1_000_000;
/// Shortest and longest span.
const PER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(30 * 24);

/// So many in so much time, written `20/1m`: 1 to 1000000 in 1s to 30d.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    per: Duration,
}

/// A text that is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRate {
    /// Not a rate.
    #[error("`{0}` is not a rate: write how many in how much time, such as 20/1m or 5/5m")]
    Text(String),
    /// Out of bounds.
    #[error("`{0}` is not between 1 and {COUNT_MAX} in 1s to 30d")]
    Bounds(String),
}

impl Rate {
    /// So many in so much time.
    ///
    /// # Errors
    /// When either is out of bounds.
    pub fn new(count: u32, per: Duration) -> Result<Self, InvalidRate> {
        if (1..=COUNT_MAX).contains(&count) && PER.contains(&per) {
            return Ok(Self { count, per });
        }
        Err(InvalidRate::Bounds(format!("{count}/{}", Span(per))))
    }

    /// How many.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// In how much time.
    pub const fn per(self) -> Duration {
        self.per
    }

    /// The one of the two that allows more in the long run; of two that allow the same, the one that
    /// allows more at once.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        if self.covers(other) { self } else { other }
    }

    /// The one that allows less.
    #[must_use]
    pub fn least(self, other: Self) -> Self {
        if self.covers(other) { other } else { self }
    }

    /// Whether this allows as much as the other.
    pub fn covers(self, other: Self) -> bool {
        let share = |one: Self, of: Self| u128::from(one.count) * of.per.as_nanos();
        let (ours, theirs) = (share(self, other), share(other, self));
        ours > theirs || (ours == theirs && self.count >= other.count)
    }

    /// Nanoseconds of one.
    fn share(self) -> u64 {
        nanos(self.per) / u64::from(self.count)
    }

    /// Nanoseconds of all.
    fn room(self) -> u64 {
        self.share() * u64::from(self.count)
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;
    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let invalid = || InvalidRate::Text(text.chars().take(80).collect());
        let (count, per) = text.split_once('/').ok_or_else(invalid)?;
        let count: u64 = count.trim().parse().map_err(|_| invalid())?;
        let per: Span = per.trim().parse().map_err(|_| invalid())?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self::new(count, per.0)
    }
}
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, Span(self.per))
    }
}
impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// What was taken of a rate. Full when it is new.
///
/// Time is that of a [`Stopwatch`](crate::time::Stopwatch). When it should go back, or the rate becomes
/// another one, a bucket is empty at most.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

/// What is left in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// How many can be taken at once.
    pub count: u32,
    /// When there is one more; zero when it is full.
    pub more_in: Duration,
}

impl Bucket {
    /// Takes one.
    ///
    /// # Errors
    /// When it is empty: how long until there is one.
    pub fn take(&self, rate: Rate, now: Duration) -> Result<Left, Duration> {
        let (now, share, room) = (nanos(now), rate.share(), rate.room());
        let end = now.saturating_add(room);
        let take = |full_at: u64| {
            let next = full_at.clamp(now, end).saturating_add(share);
            (next <= end).then_some(next)
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        match taken {
            Ok(before) => Ok(left(before.clamp(now, end) + share - now, rate)),
            Err(before) => {
                let over = before.clamp(now, end).saturating_add(share) - end;
                Err(Duration::from_nanos(over))
            }
        }
    }

    /// Gives one back that was taken for nothing.
    pub fn give_back(&self, rate: Rate) {
        let back = |full_at: u64| Some(full_at.saturating_sub(rate.share()));
        // It always has a next value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// What is left.
    pub fn look(&self, rate: Rate, now: Duration) -> Left {
        let used = self.0.load(Ordering::Relaxed).saturating_sub(nanos(now));
        left(used.min(rate.room()), rate)
    }

    /// Whether it is full at any rate, so that a new one would be the same.
    pub fn is_full(&self, now: Duration) -> bool {
        self.0.load(Ordering::Relaxed) <= nanos(now)
    }
}

fn left(used: u64, rate: Rate) -> Left {
    let (share, room) = (rate.share(), rate.room());
    let count = (room - used) / share;
    let more_in = if used == 0 {
        0
    } else {
        (count + 1) * share - (room - used)
    };
    Left {
        count: u32::try_from(count).unwrap_or(u32::MAX),
        more_in: Duration::from_nanos(more_in),
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn people_write_rates() {
        let twenty = rate("20/1m");
        assert_eq!((twenty.count(), twenty.per()), (20, Duration::from_mins(1)));
        assert_eq!(rate("5 / 5m").to_string(), "5/5m");
        for text in [
            "", "20", "20/", "/1m", "20/soon", "-1/1m", "1.5/1m", "20/1m/2",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(matches!(error, InvalidRate::Text(_)), "{text}: {error}");
        }
        for text in [
            "0/1m",
            "1/0s",
            "1/999ms",
            "1/31d",
            "1000001/1m",
            "99999999999/1m",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(matches!(error, InvalidRate::Bounds(_)), "{text}: {error}");
        }
        let json = serde_json::to_string(&twenty).unwrap();
        assert_eq!(json, "\"20/1m\"");
        assert_eq!(serde_json::from_str::<Rate>(&json).unwrap(), twenty);
    }

    #[test]
    fn the_most_generous_of_two_rates_allows_more_in_the_long_run() {
        assert_eq!(rate("20/1m").most(rate("100/1h")), rate("20/1m"));
        assert_eq!(rate("60/1m").most(rate("1/1s")), rate("60/1m"));
        assert_eq!(rate("60/1m").least(rate("1/1s")), rate("1/1s"));
    }

    #[test]
    fn a_full_bucket_gives_all_at_once_and_then_one_after_the_other() {
        let (bucket, rate, now) = (Bucket::default(), rate("20/1m"), Duration::from_secs(7));
        for taken in 1..=20 {
            assert_eq!(bucket.take(rate, now).unwrap().count, 20 - taken);
        }
        assert_eq!(bucket.take(rate, now), Err(Duration::from_secs(3)));
        let later = now + Duration::from_secs(3);
        assert_eq!(bucket.take(rate, later).unwrap().count, 0);
        assert!(bucket.take(rate, later).is_err());
        assert_eq!(bucket.look(rate, now + Duration::from_mins(5)).count, 20);
        assert!(bucket.is_full(now + Duration::from_mins(5)));
    }

    #[test]
    fn time_that_goes_back_costs_no_more_than_an_empty_bucket() {
        let (bucket, rate) = (Bucket::default(), rate("5/5m"));
        bucket.take(rate, Duration::from_hours(1_000)).unwrap();
        assert_eq!(bucket.look(rate, Duration::ZERO).count, 0);
        assert_eq!(
            bucket.take(rate, Duration::ZERO),
            Err(Duration::from_mins(1))
        );
        assert!(bucket.take(rate, Duration::from_hours(999)).is_err());
    }

    fn rates() -> impl Strategy<Value = Rate> {
        (1..=COUNT_MAX, 1_000_u64..=2_592_000_000)
            .prop_map(|(count, millis)| Rate::new(count, Duration::from_millis(millis)).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(rate in rates()) {
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn no_more_is_given_than_the_rate_says_and_no_less(
            count in 1_u32..50,
            steps in prop::collection::vec((0_u64..2_000, 0_u32..60), 1..40),
        ) {
            let rate = Rate::new(count, Duration::from_secs(10)).unwrap();
            let (bucket, mut now, mut given) = (Bucket::default(), Duration::ZERO, 0_u64);
            for (wait, tries) in steps {
                now += Duration::from_millis(wait);
                let looked = bucket.look(rate, now).count;
                let taken = (0..tries).filter(|_| bucket.take(rate, now).is_ok()).count();
                prop_assert_eq!(taken, tries.min(looked) as usize);
                given += taken as u64;
                let most = u128::from(count) + now.as_nanos() / u128::from(rate.share());
                prop_assert!(u128::from(given) <= most);
            }
        }

        #[test]
        fn who_waits_as_long_as_is_said_is_let_in_and_nobody_earlier(
            rate in rates(), start in 0_u64..1 << 40, before in 0_u32..5,
        ) {
            let (bucket, start) = (Bucket::default(), Duration::from_millis(start));
            // As if all but a few had been taken.
            bucket.0.store(nanos(start) + rate.room() - u64::from(before.min(rate.count)) * rate.share(),
                Ordering::Relaxed);
            let mut left = bucket.look(rate, start).count;
            prop_assert_eq!(left, before.min(rate.count));
            while let Ok(after) = bucket.take(rate, start) {
                left -= 1;
                prop_assert_eq!(after.count, left);
            }
            prop_assert_eq!(left, 0);
            let wait = bucket.take(rate, start).unwrap_err();
            prop_assert_eq!(bucket.look(rate, start).more_in, wait);
            let early = wait.saturating_sub(Duration::from_nanos(1));
            prop_assert!(bucket.take(rate, start + early).is_err());
            prop_assert!(bucket.take(rate, start + wait).is_ok());
            bucket.give_back(rate);
            prop_assert!(bucket.take(rate, start + wait).is_ok());
        }
    }
}
