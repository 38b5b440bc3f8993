//! Whether a service works: what is checked, what a result says, and what follows from it.
//!
//! Pure: whoever asks a server is elsewhere and hands over what it heard. A [`check::Kind`] of check
//! gives a [`check::Verdict`]; a [`tally::Tally`] turns verdicts into a state that does not flap;
//! states make the [`Health`] of an instance and of a service; [`recovery::plan`] says what to do about
//! one that is bad, and when to leave it alone.

pub mod spec; // read this first: what someone asked for
mod read;
pub mod check; // one result, and what several of them make
pub mod expect; // what a tool should answer
pub mod tally;
pub mod traffic; // the calls of the last minutes, as figures
pub mod recovery;
pub mod availability;

use crate::status::Health;
use check::Kind;
use tally::State;

pub(crate) use read::health as read_spec;

/// The health of an instance that is connected, from the states of its checks. What does not work makes
/// it unhealthy; what works badly degrades it.
pub fn of_instance(states: impl IntoIterator<Item = (Kind, State)>) -> Health {
    let mut health = Health::Healthy;
    for (kind, _) in states
        .into_iter()
        .filter(|(_, state)| *state == State::Down)
    {
        match kind {
            Kind::Basic | Kind::Functional => return Health::Unhealthy,
            Kind::Performance | Kind::Dependency | Kind::Security => health = Health::Degraded,
        }
    }
    health
}

/// The health of a service: of its instances together, each at best degraded while something around
/// them is bad. What is bad around an instance never makes it unhealthy: calls go on.
pub fn of_service(instances: impl IntoIterator<Item = Health>, bad_around: bool) -> Health {
    Health::of_all(instances.into_iter().map(|health| match health {
        Health::Healthy if bad_around => Health::Degraded,
        other => other,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{Degraded, Healthy, Starting, Unhealthy};

    #[test]
    fn what_does_not_work_outweighs_what_works_badly() {
        let table = [
            (vec![], Healthy),
            (
                vec![(Kind::Basic, State::Up), (Kind::Functional, State::Unknown)],
                Healthy,
            ),
            (vec![(Kind::Performance, State::Down)], Degraded),
            (
                vec![
                    (Kind::Performance, State::Down),
                    (Kind::Functional, State::Down),
                ],
                Unhealthy,
            ),
            (
                vec![(Kind::Basic, State::Down), (Kind::Security, State::Down)],
                Unhealthy,
            ),
        ];
        for (states, expected) in table {
            assert_eq!(of_instance(states.clone()), expected, "{states:?}");
        }
    }

    #[test]
    fn a_bad_dependency_degrades_and_never_hides_what_is_worse() {
        assert_eq!(of_service([Healthy], true), Degraded);
        assert_eq!(of_service([Healthy, Healthy], false), Healthy);
        assert_eq!(of_service([Unhealthy], true), Unhealthy);
        assert_eq!(of_service([Starting], true), Starting);
        assert_eq!(of_service([Healthy, Unhealthy], true), Degraded);
    }
}
