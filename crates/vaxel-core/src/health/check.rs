//! One result of a check, and the results that are kept of an instance.

use std::{borrow::Cow, collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::tally::{State, Tally};
use crate::time::Timestamp;

/// What is checked.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It runs and answers at all.
    Basic,
    /// Its tools do what they should.
    Functional,
    /// It is as fast and as small as it should be.
    Performance,
    /// What it needs is there.
    Dependency,
    /// It is what was accepted, and reached safely.
    Security,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Basic,
        Self::Functional,
        Self::Performance,
        Self::Dependency,
        Self::Security,
    ];

    /// The name in APIs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Functional => "functional",
            Self::Performance => "performance",
            Self::Dependency => "dependency",
            Self::Security => "security",
        }
    }
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Pass,
    /// Works, and somebody should look at it all the same.
    Warn,
    /// Not as it should be.
    Fail,
    /// Nothing could be said this time.
    Skip,
}

impl Verdict {
    /// The name in APIs and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// What was checked.
    pub kind: Kind,
    /// What it came to.
    pub verdict: Verdict,
    /// Why, as a sentence for people.
    pub message: Cow<'static, str>,
    /// When it was made.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
}

/// What one check found, before it is dated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it came to.
    pub verdict: Verdict,
    /// Why, as a sentence for people.
    pub message: Cow<'static, str>,
}

impl Finding {
    /// All is well.
    pub fn pass(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Pass, message)
    }

    /// Works, and somebody should look at it all the same.
    pub fn warn(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Warn, message)
    }

    /// Not as it should be.
    pub fn fail(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Fail, message)
    }

    /// Nothing can be said.
    pub fn skip(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Verdict::Skip, message)
    }

    fn new(verdict: Verdict, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self { verdict, message }
    }

    /// Several findings as one: the worst verdict, with the sentences of all that have it. None of
    /// nothing.
    pub fn worst(findings: impl IntoIterator<Item = Self>) -> Option<Self> {
        let rank = |verdict| match verdict {
            Verdict::Skip => 0,
            Verdict::Pass => 1,
            Verdict::Warn => 2,
            Verdict::Fail => 3,
        };
        findings.into_iter().reduce(|one, other| {
            match rank(one.verdict).cmp(&rank(other.verdict)) {
                std::cmp::Ordering::Less => other,
                std::cmp::Ordering::Greater => one,
                // That all is well is said once.
                std::cmp::Ordering::Equal if one.verdict == Verdict::Pass => one,
                std::cmp::Ordering::Equal => Self {
                    message: format!("{}; {}", one.message, other.message).into(),
                    ..one
                },
            }
        })
    }
}

/// Results that went wrong, or differ from the one before, that are kept of one instance.
pub const KEPT: usize = 32;

/// What is known of one instance, or of what is around a service: the last result of each kind, the
/// states that follow from them, and the last results that meant something.
#[derive(Debug, Clone, Default)]
pub struct Record {
    last: Vec<(CheckResult, Tally)>,
    notable: VecDeque<CheckResult>,
}

impl Record {
    /// Takes note of a result. Whether the state of its kind changed.
    pub fn note(&mut self, result: CheckResult, rise: u32, fall: u32) -> bool {
        let known = self
            .last
            .iter()
            .position(|(last, _)| last.kind == result.kind);
        let before = known.map(|index| self.last[index].0.verdict);
        let mut tally = known.map_or_else(Tally::default, |index| self.last[index].1);
        let changed = match result.verdict {
            Verdict::Pass | Verdict::Warn => tally.note(true, rise, fall),
            Verdict::Fail => tally.note(false, rise, fall),
            Verdict::Skip => false,
        };
        let is_news = before.is_some_and(|before| before != result.verdict);
        if result.verdict == Verdict::Fail || is_news {
            if self.notable.len() == KEPT {
                self.notable.pop_front();
            }
            self.notable.push_back(result.clone());
        }
        if let Some(index) = known {
            self.last[index] = (result, tally);
        } else {
            // Most instances have one kind, and there are many of them.
            self.last.reserve_exact(1);
            self.last.push((result, tally));
            self.last.sort_by_key(|(last, _)| last.kind);
        }
        changed
    }

    /// Forgets kinds that are not checked any more.
    pub fn keep(&mut self, wanted: impl Fn(Kind) -> bool) {
        self.last.retain(|(last, _)| wanted(last.kind));
    }

    /// The last result of each kind with the state of that kind, in the order of the kinds.
    pub fn last(&self) -> impl Iterator<Item = (&CheckResult, State)> {
        self.last.iter().map(|(last, tally)| (last, tally.state()))
    }

    /// What is not decided yet: a kind is on its way up or down.
    pub fn is_undecided(&self) -> bool {
        self.last.iter().any(|(_, tally)| tally.is_undecided())
    }

    /// Failures in a row of one kind, as far as they count.
    pub fn failures(&self, kind: Kind) -> u32 {
        let found = self.last.iter().find(|(last, _)| last.kind == kind);
        found.map_or(0, |(_, tally)| tally.failures())
    }

    /// Why what is down is down; the most severe kind first.
    pub fn reason(&self) -> Option<&str> {
        let down = self.last().find(|(_, state)| *state == State::Down);
        down.map(|(last, _)| &*last.message)
    }

    /// The last results that failed or differed from the one before, oldest first; [`KEPT`] at most.
    pub fn notable(&self) -> impl Iterator<Item = &CheckResult> {
        self.notable.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(kind: Kind, finding: Finding) -> CheckResult {
        CheckResult {
            kind,
            verdict: finding.verdict,
            message: finding.message,
            at: Timestamp::from_millis(1),
            duration: Duration::ZERO,
        }
    }

    #[test]
    fn the_worst_finding_speaks_for_all() {
        let worst = |findings: Vec<Finding>| {
            Finding::worst(findings).map(|one| (one.verdict, one.message.into_owned()))
        };
        assert_eq!(worst(vec![]), None);
        let mixed = vec![
            Finding::pass("fine"),
            Finding::fail("a is away"),
            Finding::warn("old"),
            Finding::fail("b is away"),
        ];
        assert_eq!(
            worst(mixed),
            Some((Verdict::Fail, "a is away; b is away".to_owned()))
        );
        let fine = vec![
            Finding::skip("?"),
            Finding::pass("one"),
            Finding::pass("two"),
        ];
        assert_eq!(worst(fine), Some((Verdict::Pass, "one".to_owned())));
    }

    #[test]
    fn what_is_kept_is_bounded_and_leaves_out_what_is_usual() {
        let mut record = Record::default();
        for _ in 0..100 {
            record.note(result(Kind::Basic, Finding::pass("answers")), 1, 3);
        }
        assert_eq!(record.notable().count(), 0);
        for round in 0..100 {
            let message = format!("{round}");
            let changed = record.note(result(Kind::Basic, Finding::fail(message)), 1, 3);
            assert_eq!(changed, round == 2);
        }
        assert_eq!(record.notable().count(), KEPT);
        assert_eq!(record.reason(), Some("99"));
        assert!(record.note(result(Kind::Basic, Finding::pass("answers")), 1, 3));
        assert_eq!(record.reason(), None);
    }

    #[test]
    fn a_check_that_says_nothing_changes_nothing() {
        let mut record = Record::default();
        for _ in 0..3 {
            record.note(result(Kind::Functional, Finding::fail("lies")), 2, 3);
        }
        for _ in 0..9 {
            assert!(!record.note(result(Kind::Functional, Finding::skip("busy")), 2, 3));
        }
        let states: Vec<State> = record.last().map(|(_, state)| state).collect();
        assert_eq!(states, [State::Down]);
    }
}
