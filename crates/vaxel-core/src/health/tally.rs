//! Rise and fall: how many results in a row it takes to change a mind.

/// What is believed of something that is checked again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It works.
    Up,
    /// It does not.
    Down,
}

/// A state with the results in a row that speak against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    state: State,
    /// Results in a row that contradict the state.
    streak: u32,
    /// Failures in a row.
    failures: u32,
}

impl Tally {
    /// Takes note of a result; whether the state changed. The first pass of all is believed at once.
    /// `rise` and `fall` count from 1.
    pub fn note(&mut self, passed: bool, rise: u32, fall: u32) -> bool {
        self.failures = if passed {
            0
        } else {
            self.failures.saturating_add(1)
        };
        let (next, needed) = match (self.state, passed) {
            (State::Up, true) | (State::Down, false) => {
                self.streak = 0;
                return false;
            }
            (State::Unknown, true) => (State::Up, 1),
            (State::Down, true) => (State::Up, rise),
            (State::Unknown | State::Up, false) => (State::Down, fall),
        };
        self.streak += 1;
        if self.streak < needed {
            return false;
        }
        (self.state, self.streak) = (next, 0);
        true
    }

    /// What is believed.
    pub const fn state(self) -> State {
        self.state
    }

    /// Whether something speaks against the state, and not yet enough.
    pub const fn is_undecided(self) -> bool {
        self.streak > 0
    }

    /// Failures in a row.
    pub const fn failures(self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(results: &str, rise: u32, fall: u32) -> State {
        let mut tally = Tally::default();
        for result in results.chars() {
            tally.note(result == '+', rise, fall);
        }
        tally.state()
    }

    #[test]
    fn it_takes_rise_passes_and_fall_failures_in_a_row() {
        for (results, expected) in [
            ("", State::Unknown),
            ("+", State::Up),
            ("--", State::Unknown),
            ("---", State::Down),
            ("+--", State::Up),
            ("+--+--", State::Up),
            ("+---", State::Down),
            ("+---+", State::Down),
            ("+---+-+-+-", State::Down),
            ("+---++", State::Up),
        ] {
            assert_eq!(after(results, 2, 3), expected, "{results}");
        }
    }

    proptest! {
        #[test]
        fn it_never_flaps_within_its_thresholds(
            results in prop::collection::vec(any::<bool>(), 0..200), rise in 1_u32..6, fall in 1_u32..6
        ) {
            let mut tally = Tally::default();
            let mut run = (true, 0_u32);
            for passed in results {
                run = if run.0 == passed { (passed, run.1 + 1) } else { (passed, 1) };
                let before = tally.state();
                let changed = tally.note(passed, rise, fall);
                prop_assert_eq!(changed, before != tally.state());
                if changed && before != State::Unknown {
                    let needed = if passed { rise } else { fall };
                    prop_assert!(run.1 >= needed, "{} results were enough", run.1);
                }
                // And it does not stick: enough in a row always decide.
                if run.1 >= rise.max(fall) {
                    let expected = if passed { State::Up } else { State::Down };
                    prop_assert_eq!(tally.state(), expected);
                }
            }
        }
    }
}
