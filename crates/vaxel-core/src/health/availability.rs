//! How much of each day a service worked, from the moments at which its health changed.

use std::time::Duration;

use crate::{status::Health, time::Timestamp};

const DAY: u64 = 24 * 60 * 60 * 1_000;

/// Something that changes what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The health of the service became this.
    Became(Health),
    /// Vaxel ended: from now on nobody looked.
    Ended,
    /// Vaxel started again.
    Started,
}

/// One day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Its beginning.
    pub start: Timestamp,
    /// How long the service worked.
    pub up: Duration,
    /// How long it was wanted, looked at, and did not work.
    pub down: Duration,
}

impl Day {
    /// The share of the time that counts in which the service worked, in per cent to three decimal
    /// places; none when nothing counts.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a day has less than 52 bits of milliseconds"
    )]
    pub fn percent(&self) -> Option<f64> {
        let (up, all) = (self.up.as_millis(), (self.up + self.down).as_millis());
        (all > 0).then(|| (up as f64 / all as f64 * 100_000.0).floor() / 1_000.0)
    }
}

/// The days from that of `from` to that of `now`. `moments` are in the order of time and begin before
/// `from`, if there were any; until the first one nothing is known. Time in which the service was
/// stopped on purpose, or nobody looked, counts neither way.
pub fn per_day(moments: &[(Timestamp, Moment)], from: Timestamp, now: Timestamp) -> Vec<Day> {
    let first = from.as_millis() / DAY;
    let count = (now.as_millis() / DAY).saturating_sub(first) + 1;
    let mut days: Vec<Day> = (0..count)
        .map(|index| Day {
            start: Timestamp::from_millis((first + index) * DAY),
            up: Duration::ZERO,
            down: Duration::ZERO,
        })
        .collect();
    let mut health = Health::Unknown;
    let ends = moments.iter().skip(1).map(|(at, _)| *at).chain([now]);
    for ((at, moment), end) in moments.iter().zip(ends) {
        let looking = match moment {
            Moment::Became(next) => {
                health = *next;
                true
            }
            Moment::Ended => false,
            Moment::Started => true,
        };
        if looking {
            add(&mut days, health, (*at, end.min(now)));
        }
    }
    days
}

/// Adds a stretch of time to the days that it lies in.
fn add(days: &mut [Day], health: Health, (from, to): (Timestamp, Timestamp)) {
    let is_up = match health {
        Health::Healthy | Health::Degraded => true,
        Health::Unhealthy | Health::Error | Health::Starting => false,
        Health::Stopped | Health::Unknown => return,
    };
    let (from, to) = (from.as_millis(), to.as_millis());
    for day in days {
        let start = day.start.as_millis();
        let overlap = to.min(start + DAY).saturating_sub(from.max(start));
        let side = if is_up { &mut day.up } else { &mut day.down };
        *side += Duration::from_millis(overlap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{Degraded, Healthy, Starting, Stopped, Unhealthy};
    use Moment::{Became, Ended, Started};
    use proptest::prelude::*;

    /// An hour of the days that the tests are about.
    fn hour(hours: u64) -> Timestamp {
        Timestamp::from_millis(20_000 * DAY + hours * 3_600_000)
    }

    fn hours(moments: &[(u64, Moment)], from: u64, now: u64) -> Vec<(u64, u64, Option<f64>)> {
        let moments: Vec<_> = moments
            .iter()
            .map(|(at, what)| (hour(*at), *what))
            .collect();
        let days = per_day(&moments, hour(from), hour(now));
        let hours = |span: Duration| span.as_secs() / 3_600;
        days.iter()
            .map(|day| (hours(day.up), hours(day.down), day.percent()))
            .collect()
    }

    #[test]
    fn a_day_is_the_share_of_the_time_that_counts() {
        let moments = [
            (0, Became(Starting)),
            (1, Became(Healthy)),
            (13, Became(Unhealthy)),
            (16, Became(Degraded)),
            (20, Became(Stopped)),
            (30, Became(Healthy)),
        ];
        assert_eq!(
            hours(&moments, 0, 40),
            [(16, 4, Some(80.0)), (10, 0, Some(100.0))]
        );
        assert_eq!(hours(&moments, 24, 40), [(10, 0, Some(100.0))]);
        assert_eq!(hours(&[], 0, 5), [(0, 0, None)]);
    }

    #[test]
    fn time_in_which_nobody_looked_counts_neither_way() {
        let moments = [
            (0, Became(Healthy)),
            (6, Ended),
            (18, Started),
            (23, Became(Unhealthy)),
        ];
        assert_eq!(
            hours(&moments, 0, 24),
            [(11, 1, Some(91.666)), (0, 0, None)]
        );
    }

    #[test]
    fn what_began_before_the_first_day_goes_on_in_it() {
        let moments = [(0, Became(Healthy)), (48, Became(Unhealthy))];
        assert_eq!(
            hours(&moments, 36, 60),
            [(24, 0, Some(100.0)), (0, 12, Some(0.0))]
        );
    }

    proptest! {
        #[test]
        fn no_day_has_more_time_than_there_was(
            steps in prop::collection::vec((0_u64..100, 0_usize..6), 0..60), extra in 0_u64..100
        ) {
            let kinds = [Became(Healthy), Became(Unhealthy), Became(Stopped), Ended, Started, Became(Starting)];
            let (mut at, mut moments) = (0, Vec::new());
            for (pause, kind) in steps {
                at += pause;
                moments.push((hour(at), kinds[kind]));
            }
            let now = hour(at + extra);
            let days = per_day(&moments, hour(0), now);
            let counted: Duration = days.iter().map(|day| day.up + day.down).sum();
            prop_assert!(counted <= now.since(hour(0)));
            for day in days {
                prop_assert!(day.up + day.down <= Duration::from_millis(DAY));
                prop_assert!(day.percent().is_none_or(|share| (0.0..=100.0).contains(&share)));
            }
        }
    }
}
