//! The calls of the last minutes as figures: how many, how many failed, how long they took. A few
//! kilobytes, whatever the traffic.

use std::time::Duration;

use super::{
    check::Finding,
    spec::{Percent, PerformanceLimits},
};
use crate::{call::Outcome, quantity::Span, time::Timestamp};

/// Parts that the window is made of: the oldest is forgotten as a whole.
const PARTS: usize = 10;
/// Four buckets per doubling, from 16 µs on: figures are exact to a fifth, upwards.
const BUCKETS: usize = 128;
const SHIFT: u32 = 4;
/// Fewer calls say nothing about how a service does.
pub const FEWEST: u64 = 5;

/// The calls of the last while.
#[derive(Debug, Clone)]
pub struct Traffic {
    part: Duration,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    /// Number of the part of time that it is about.
    number: u64,
    calls: u64,
    errors: u64,
    buckets: Box<[u32; BUCKETS]>,
}

/// What the calls came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Calls that say something about the service.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Half of the calls took no longer.
    pub p50: Duration,
    /// Nineteen of twenty calls took no longer.
    pub p95: Duration,
}

impl Traffic {
    /// Without any call yet.
    pub fn new(window: Duration) -> Self {
        let parts = u32::try_from(PARTS).unwrap_or(1);
        Self {
            part: (window / parts).max(Duration::from_millis(1)),
            parts: Vec::new(),
        }
    }

    /// Whether it looks back so far.
    pub fn is_over(&self, window: Duration) -> bool {
        self.part == Self::new(window).part
    }

    /// Takes note of a call that ended now. What its caller or a rule of ours ended says nothing.
    pub fn note(&mut self, outcome: Outcome, took: Duration, now: Timestamp) {
        let is_error = match outcome {
            Outcome::Cancelled | Outcome::Denied => return,
            Outcome::Ok => false,
            Outcome::ToolError | Outcome::Error | Outcome::Timeout | Outcome::Unavailable => true,
        };
        let number = self.number(now);
        if self.parts.last().is_none_or(|last| last.number < number) {
            self.parts
                .retain(|part| part.number + PARTS as u64 > number);
            self.parts.push(Part {
                number,
                calls: 0,
                errors: 0,
                buckets: Box::new([0; BUCKETS]),
            });
        }
        if let Some(part) = self.parts.last_mut() {
            part.calls += 1;
            part.errors += u64::from(is_error);
            let bucket = &mut part.buckets[bucket(took)];
            *bucket = bucket.saturating_add(1);
        }
    }

    /// What the calls of the window came to.
    pub fn figures(&self, now: Timestamp) -> Figures {
        let number = self.number(now);
        let recent = || {
            self.parts
                .iter()
                .filter(|part| part.number + PARTS as u64 > number)
        };
        let calls: u64 = recent().map(|part| part.calls).sum();
        let count =
            |bucket: usize| -> u64 { recent().map(|part| u64::from(part.buckets[bucket])).sum() };
        let quantile = |share: u64| {
            let wanted = (calls * share).div_ceil(100).max(1);
            let mut seen = 0;
            for bucket in 0..BUCKETS {
                seen += count(bucket);
                if seen >= wanted {
                    return upper(bucket);
                }
            }
            Duration::ZERO
        };
        Figures {
            calls,
            errors: recent().map(|part| part.errors).sum(),
            p50: quantile(50),
            p95: quantile(95),
        }
    }

    fn number(&self, now: Timestamp) -> u64 {
        let part = u64::try_from(self.part.as_millis()).unwrap_or(u64::MAX);
        now.as_millis() / part.max(1)
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros())
        .unwrap_or(u64::MAX)
        .max(1 << SHIFT);
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    let bucket = u64::from(doubling - SHIFT) * 4 + quarter;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest duration of a bucket.
fn upper(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let base = 1_u64 << (bucket / 4 + u64::from(SHIFT));
    Duration::from_micros(base + base / 4 * (bucket % 4 + 1))
}

impl Figures {
    /// Whether the calls are within the limits.
    pub fn judge(&self, limits: &PerformanceLimits) -> Finding {
        if self.calls < FEWEST {
            let (calls, window) = (self.calls, Span(limits.window()));
            return Finding::skip(format!(
                "{calls} calls within {window} are too few to judge"
            ));
        }
        let rate = Percent::of(self.errors, self.calls);
        let slower = |name: &str, took: Duration, limit: Option<Span>| {
            let limit = limit.filter(|limit| took > limit.0)?;
            let took = Span(Duration::from_millis(
                u64::try_from(took.as_millis()).unwrap_or(0),
            ));
            Some(format!("{name} of its calls is {took}, limit {limit}"))
        };
        let failing = limits.error_rate.filter(|limit| rate > *limit);
        let failing = failing.map(|limit| format!("{rate} of its calls fail, limit {limit}"));
        let problems: Vec<String> = [
            slower("the median time", self.p50, limits.p50),
            slower("p95", self.p95, limits.p95),
            failing,
        ]
        .into_iter()
        .flatten()
        .collect();
        if problems.is_empty() {
            return Finding::pass(format!("{} calls are within the limits", self.calls));
        }
        Finding::fail(problems.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::check::Verdict;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    #[test]
    fn only_the_calls_of_the_window_count_and_only_those_that_say_something() {
        let mut traffic = Traffic::new(Duration::from_secs(100));
        for second in 0..100 {
            traffic.note(Outcome::Ok, Duration::from_millis(10), at(second));
            traffic.note(Outcome::Cancelled, Duration::from_secs(9), at(second));
        }
        traffic.note(Outcome::Timeout, Duration::from_mins(1), at(99));
        let figures = traffic.figures(at(99));
        assert_eq!((figures.calls, figures.errors), (101, 1));
        assert!(
            figures.p50 >= Duration::from_millis(10) && figures.p95 < Duration::from_millis(13)
        );
        assert_eq!(traffic.figures(at(1_000)).calls, 0);
        traffic.note(Outcome::Ok, Duration::ZERO, at(1_000));
        assert_eq!(traffic.parts.len(), 1, "old parts are given back");
    }

    #[test]
    fn limits_are_judged_one_by_one_and_few_calls_not_at_all() {
        let mut traffic = Traffic::new(PerformanceLimits::WINDOW);
        let limits = PerformanceLimits {
            p50: Some(Span(Duration::from_millis(50))),
            p95: Some(Span(Duration::from_secs(1))),
            error_rate: Some("10%".parse().unwrap()),
            ..PerformanceLimits::default()
        };
        traffic.note(Outcome::Error, Duration::from_secs(5), at(1));
        assert_eq!(traffic.figures(at(1)).judge(&limits).verdict, Verdict::Skip);
        for _ in 0..19 {
            traffic.note(Outcome::Ok, Duration::from_millis(1), at(1));
        }
        assert_eq!(traffic.figures(at(1)).judge(&limits).verdict, Verdict::Pass);
        for _ in 0..5 {
            traffic.note(Outcome::ToolError, Duration::from_secs(2), at(1));
        }
        let finding = traffic.figures(at(1)).judge(&limits);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert!(
            finding.message.contains("p95 of its calls is 2"),
            "{}",
            finding.message
        );
        assert!(
            finding.message.contains("24% of its calls fail, limit 10%"),
            "{}",
            finding.message
        );
        assert!(!finding.message.contains("median"), "{}", finding.message);
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_below_the_truth_nor_far_above(
            mut micros in prop::collection::vec(16_u64..60_000_000, 1..200)
        ) {
            let mut traffic = Traffic::new(Duration::from_mins(1));
            for one in &micros {
                traffic.note(Outcome::Ok, Duration::from_micros(*one), at(1));
            }
            micros.sort_unstable();
            let truth = micros[(micros.len() * 95).div_ceil(100) - 1];
            let found = traffic.figures(at(1)).p95;
            prop_assert!(found >= Duration::from_micros(truth));
            prop_assert!(found <= Duration::from_micros(truth + truth / 3 + 1), "{found:?} of {truth}");
        }
    }
}
