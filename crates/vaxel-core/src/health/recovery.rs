//! What to do about an instance that does not work, within a budget: never a loop of restarts.

use std::time::Duration;

use super::spec::{RecoveryAction, Rules};
use crate::time::Timestamp;

/// What is known when the question comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Situation {
    /// What the instance is.
    pub is: InstanceKind,
    /// Other instances of its service work.
    pub others_work: bool,
    /// It gets no calls any more.
    pub is_ejected: bool,
}

/// What an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceKind {
    /// A process that may be started again.
    Process,
    /// A connection to a server that somebody else runs.
    Remote,
    /// Nothing that could be made anew.
    Fixed,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Calls go to the others.
    Eject,
    /// The connection is made anew.
    Reinitialise,
    /// The process is ended and started again.
    Restart,
    /// New instances take over.
    Replace,
    /// It is too soon for another attempt.
    Wait(Timestamp),
    /// It is left as it is; until then, when the budget is the reason.
    GiveUp(Option<Timestamp>),
}

/// What was tried with one instance, as far as it still counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts(Vec<Timestamp>);

impl Attempts {
    /// Takes note of an attempt. Only as many are kept as a budget can ask for.
    pub fn note(&mut self, rules: &Rules, now: Timestamp) {
        self.0.push(now);
        let most = usize::try_from(rules.budget).unwrap_or(usize::MAX).max(1);
        let surplus = self.0.len().saturating_sub(most);
        self.0.drain(..surplus);
    }

    /// Those of the last `window`, oldest first.
    fn within(&self, window: Duration, now: Timestamp) -> &[Timestamp] {
        let first = self.0.partition_point(|at| now.since(*at) >= window);
        &self.0[first..]
    }
}

/// What to do about an instance that is down. Taking it out of the way of calls is free; every other
/// attempt costs one of the budget, waits longer than the one before, and is the next one of the list.
pub fn plan(rules: &Rules, situation: Situation, attempts: &Attempts, now: Timestamp) -> Step {
    let wants_ejection = rules.actions.contains(&RecoveryAction::Eject);
    if wants_ejection && situation.others_work && !situation.is_ejected {
        return Step::Eject;
    }
    let steps = |action: &RecoveryAction| match (action, situation.is) {
        (RecoveryAction::Reinitialise, InstanceKind::Remote) => Some(Step::Reinitialise),
        (RecoveryAction::Restart, InstanceKind::Process) => Some(Step::Restart),
        (RecoveryAction::Replace, InstanceKind::Process | InstanceKind::Remote) => {
            Some(Step::Replace)
        }
        _ => None,
    };
    let possible: Vec<Step> = rules.actions.iter().filter_map(steps).collect();
    let Some(last_resort) = possible.last() else {
        return Step::GiveUp(None);
    };
    let made = attempts.within(rules.window, now);
    if made.len() >= usize::try_from(rules.budget).unwrap_or(usize::MAX) {
        return Step::GiveUp(made.first().map(|oldest| oldest.plus(rules.window)));
    }
    if let Some(last) = made.last() {
        let doublings = u32::try_from(made.len() - 1).unwrap_or(u32::MAX).min(31);
        let wait = rules
            .backoff
            .saturating_mul(1 << doublings)
            .min(rules.window);
        let due = last.plus(wait);
        if now < due {
            return Step::Wait(due);
        }
    }
    *possible.get(made.len()).unwrap_or(last_resort)
}

#[cfg(test)]
mod tests {
    use super::*;
    use InstanceKind::{Fixed, Process, Remote};
    use RecoveryAction::{Eject, Reinitialise, Replace, Restart};
    use proptest::prelude::*;

    const ALONE: Situation = Situation {
        is: InstanceKind::Process,
        others_work: false,
        is_ejected: false,
    };

    fn rules() -> Rules {
        Rules {
            budget: 3,
            window: Duration::from_mins(10),
            backoff: Duration::from_secs(10),
            ..Rules::default()
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + seconds * 1_000)
    }

    fn attempts(seconds: &[u64]) -> Attempts {
        Attempts(seconds.iter().map(|second| at(*second)).collect())
    }

    #[test]
    fn each_attempt_waits_longer_and_the_budget_ends_them() {
        let next = |made: &[u64], now| plan(&rules(), ALONE, &attempts(made), at(now));
        assert_eq!(next(&[], 0), Step::Restart);
        assert_eq!(next(&[0], 5), Step::Wait(at(10)));
        assert_eq!(next(&[0], 10), Step::Restart);
        assert_eq!(next(&[0, 10], 25), Step::Wait(at(30)));
        assert_eq!(next(&[0, 10], 30), Step::Restart);
        assert_eq!(next(&[0, 10, 30], 31), Step::GiveUp(Some(at(600))));
        assert_eq!(next(&[0, 10, 30], 599), Step::GiveUp(Some(at(600))));
        // The oldest does not count any more.
        assert_eq!(next(&[0, 10, 30], 600), Step::Restart);
    }

    #[test]
    fn what_cannot_be_done_is_passed_over() {
        let step = |is, actions: &[RecoveryAction]| {
            let rules = Rules {
                actions: actions.to_vec(),
                ..rules()
            };
            plan(
                &rules,
                Situation { is, ..ALONE },
                &Attempts::default(),
                at(0),
            )
        };
        assert_eq!(step(Process, &[Reinitialise, Restart]), Step::Restart);
        assert_eq!(step(Remote, &[Restart, Reinitialise]), Step::Reinitialise);
        assert_eq!(step(Remote, &[Restart]), Step::GiveUp(None));
        assert_eq!(step(Process, &[Replace]), Step::Replace);
        assert_eq!(step(Fixed, &RecoveryAction::ALL), Step::GiveUp(None));
        assert_eq!(step(Process, &[Eject]), Step::GiveUp(None));
        assert_eq!(step(Process, &[]), Step::GiveUp(None));
    }

    #[test]
    fn it_is_taken_out_of_the_way_first_when_others_work_and_then_mended() {
        let beside = Situation {
            others_work: true,
            ..ALONE
        };
        let out = Situation {
            is_ejected: true,
            ..beside
        };
        assert_eq!(
            plan(&rules(), beside, &attempts(&[0, 1, 2]), at(3)),
            Step::Eject
        );
        assert_eq!(
            plan(&rules(), out, &Attempts::default(), at(0)),
            Step::Restart
        );
    }

    #[test]
    fn a_second_attempt_may_be_another_than_the_first() {
        let actions = vec![RecoveryAction::Restart, RecoveryAction::Replace];
        let rules = Rules { actions, ..rules() };
        assert_eq!(
            plan(&rules, ALONE, &Attempts::default(), at(0)),
            Step::Restart
        );
        assert_eq!(plan(&rules, ALONE, &attempts(&[0]), at(20)), Step::Replace);
        assert_eq!(
            plan(&rules, ALONE, &attempts(&[0, 20]), at(90)),
            Step::Replace
        );
    }

    proptest! {
        #[test]
        fn no_window_ever_sees_more_attempts_than_the_budget(
            budget in 0_u32..6, window in 1_u64..1_000, backoff in 0_u64..100,
            pauses in prop::collection::vec(0_u64..200, 0..200)
        ) {
            let rules = Rules {
                budget, window: Duration::from_secs(window), backoff: Duration::from_secs(backoff),
                ..Rules::default()
            };
            let (mut attempts, mut made, mut now) = (Attempts::default(), Vec::new(), 0);
            for pause in pauses {
                now += pause;
                match plan(&rules, ALONE, &attempts, at(now)) {
                    Step::Restart => {
                        attempts.note(&rules, at(now));
                        made.push(now);
                    }
                    Step::Wait(until) => prop_assert!(until > at(now)),
                    Step::GiveUp(until) => prop_assert!(until.is_none_or(|until| until > at(now))),
                    other => prop_assert!(false, "{:?}", other),
                }
                let recent = made.iter().filter(|then| now - **then < window).count();
                prop_assert!(recent <= budget as usize, "{recent} attempts");
            }
        }
    }
}
