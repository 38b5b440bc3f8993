//! Which instance gets the next call. Pure: the counters are arguments.

/// What the choice knows of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Takes calls.
    pub ready: bool,
    /// Calls in flight.
    pub in_flight: u32,
}

/// The ready instance with the fewest calls in flight; among equals the one that `turn` points at,
/// so that idle instances share the work. `None` when no instance is ready.
pub fn least_busy(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let count = candidates.len();
    (0..count)
        .map(|step| (turn.wrapping_add(step)) % count)
        .filter(|index| candidates[*index].ready)
        .min_by_key(|index| candidates[*index].in_flight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_ready_instance_is_chosen_and_equals_take_turns() {
        let one = |ready, in_flight| Candidate { ready, in_flight };
        assert_eq!(least_busy(&[], 0), None);
        assert_eq!(least_busy(&[one(false, 0)], 3), None);
        assert_eq!(
            least_busy(&[one(true, 5), one(true, 1), one(false, 0)], 0),
            Some(1)
        );
        let equals = [one(true, 0), one(true, 0)];
        assert_eq!(
            (least_busy(&equals, 0), least_busy(&equals, 1)),
            (Some(0), Some(1))
        );
    }
}
