use proptest::prelude::*;

use super::*;

const ALL: [Balance; 5] = [
    Balance::RoundRobin,
    Balance::LeastConnections,
    Balance::Weighted,
    Balance::PeakEwma,
    Balance::ConsistentHash,
];

/// One that is there for long and has nothing to do.
fn one(identity: u64) -> Candidate {
    Candidate {
        ready: true,
        aside: false,
        in_flight: 0,
        weight: 1,
        latency: Some(1_000_000),
        age: Duration::from_hours(1),
        identity,
    }
}

fn weighing(weights: &[u16]) -> Vec<Candidate> {
    let weighs = |(index, weight): (usize, &u16)| Candidate {
        weight: *weight,
        ..one(index as u64)
    };
    weights.iter().enumerate().map(weighs).collect()
}

fn at(turn: usize) -> Draw {
    Draw {
        turn,
        caller: turn as u64,
    }
}

/// How often each is chosen in so many turns.
fn counts(balance: Balance, all: &[Candidate], turns: usize) -> Vec<u32> {
    let mut counts = vec![0; all.len()];
    for turn in 0..turns {
        counts[choose(balance, all, at(turn)).unwrap()] += 1;
    }
    counts
}

#[test]
fn nobody_is_chosen_who_takes_no_calls() {
    let away = Candidate {
        ready: false,
        ..one(0)
    };
    for balance in ALL {
        assert_eq!(choose(balance, &[], at(0)), None);
        assert_eq!(choose(balance, &[away, away], at(3)), None);
        assert_eq!(counts(balance, &[away, one(1)], 50), [0, 50]);
    }
}

#[test]
fn one_that_fails_is_left_aside_unless_there_is_no_other() {
    let failing = Candidate {
        aside: true,
        ..one(0)
    };
    for balance in ALL {
        assert_eq!(counts(balance, &[failing, one(1)], 50), [0, 50]);
        assert!(choose(balance, &[failing, failing], at(1)).is_some());
    }
}

#[test]
fn equals_take_turns() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections] {
        assert_eq!(counts(balance, &weighing(&[1, 1, 1]), 9), [3, 3, 3]);
    }
    assert_eq!(counts(Balance::RoundRobin, &weighing(&[9, 1]), 10), [5, 5]);
}

#[test]
fn the_one_with_the_fewest_calls_for_its_weight_is_chosen() {
    let busy = |in_flight, weight| Candidate {
        in_flight,
        weight,
        ..one(0)
    };
    let chosen = |all: &[Candidate]| choose(Balance::LeastConnections, all, at(0));
    assert_eq!(chosen(&[busy(5, 1), busy(1, 1), busy(2, 1)]), Some(1));
    assert_eq!(chosen(&[busy(2, 1), busy(5, 4)]), Some(1));
    assert_eq!(chosen(&[busy(2, 1), busy(9, 4)]), Some(0));
}

#[test]
fn the_faster_and_freer_of_two_is_chosen() {
    let of = |latency, in_flight| Candidate {
        in_flight,
        latency,
        ..one(0)
    };
    let check = |left, right, expected| {
        for turn in 0..20 {
            let chosen = choose(Balance::PeakEwma, &[left, right], at(turn));
            assert_eq!(chosen, Some(expected), "{left:?} {right:?}");
        }
    };
    check(of(Some(9), 0), of(Some(5), 0), 1);
    check(of(Some(9), 0), of(Some(5), 1), 0);
    // One that was never asked is asked once, and then has to answer first.
    check(of(Some(5), 0), of(None, 0), 1);
    check(of(Some(5), 0), of(None, 1), 0);
    let heavy = Candidate {
        weight: 3,
        ..of(Some(20), 0)
    };
    check(of(Some(10), 0), heavy, 1);
}

#[test]
fn one_of_many_that_is_slow_gets_next_to_nothing() {
    let mut all = weighing(&[1; 5]);
    all[2].latency = Some(1_000_000_000);
    let counts = counts(Balance::PeakEwma, &all, 1_000);
    assert_eq!(counts[2], 0, "{counts:?}");
    assert!(
        counts.iter().filter(|count| **count > 100).count() == 4,
        "{counts:?}"
    );
}

#[test]
fn one_that_has_just_come_gets_its_share_little_by_little() {
    let mut all = weighing(&[1, 1]);
    let share_at = |all: &mut Vec<Candidate>, seconds| {
        all[1].age = Duration::from_secs(seconds);
        counts(Balance::Weighted, all, 1_000)[1]
    };
    assert!((80..=100).contains(&share_at(&mut all, 0)));
    assert!((320..=345).contains(&share_at(&mut all, 5)));
    assert!((495..=505).contains(&share_at(&mut all, 10)));
}

#[test]
fn a_slow_answer_counts_at_once_and_fades() {
    let second = Duration::from_secs(1);
    assert_eq!(measured(None, second, 70), 70);
    assert_eq!(measured(Some(10), second, 70), 70);
    let after = measured(Some(1_000), second, 10);
    assert!((900..1_000).contains(&after), "{after}");
    assert!(decayed(1_000, Duration::from_mins(2)) < 10);
    assert_eq!(decayed(1_000, Duration::ZERO), 1_000);
}

#[test]
fn a_caller_stays_with_its_instance_when_another_goes() {
    let mut all = weighing(&[1; 8]);
    let of = |all: &[Candidate], caller: u64| {
        choose(Balance::ConsistentHash, all, Draw { turn: 0, caller }).unwrap()
    };
    let before: Vec<usize> = (0..1_000).map(|caller| of(&all, caller)).collect();
    all[3].ready = false;
    let mut moved = [0; 8];
    for (caller, was) in before.iter().enumerate() {
        let is = of(&all, caller as u64);
        if *was == 3 {
            moved[is] += 1;
        } else {
            assert_eq!(is, *was);
        }
    }
    assert_eq!(moved[3], 0);
    assert!(
        moved.iter().filter(|count| **count > 0).count() == 7,
        "{moved:?}"
    );
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(1_u16..=1_000, 1..=32)
}

proptest! {
    #[test]
    fn each_is_chosen_as_often_as_its_weight_says(weights in weights(), start in 0_usize..1 << 40) {
        let all = weighing(&weights);
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let turns = 2_000_u32;
        let mut counts = vec![0_u32; all.len()];
        for turn in start..start + turns as usize {
            counts[choose(Balance::Weighted, &all, at(turn)).unwrap()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let fair = f64::from(turns) * f64::from(*weight) / total;
            // Evenly, and not only in the long run: chance alone would stray by dozens.
            prop_assert!((f64::from(*count) - fair).abs() < 8.0, "{count} for {fair}");
        }
    }

    #[test]
    fn callers_are_spread_as_the_weights_say(weights in prop::collection::vec(1_u16..=9, 2..=6)) {
        let all = weighing(&weights);
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let counts = counts(Balance::ConsistentHash, &all, 4_000);
        for (count, weight) in counts.iter().zip(&weights) {
            let fair = 4_000.0 * f64::from(*weight) / total;
            prop_assert!((f64::from(*count) - fair).abs() < 250.0, "{count} for {fair}");
        }
    }

    #[test]
    fn whoever_is_chosen_takes_calls(
        ready in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u32..9), 0..9),
        turn in any::<usize>(),
    ) {
        let made = |(index, (ready, aside, in_flight)): (usize, &(bool, bool, u32))| Candidate {
            ready: *ready,
            aside: *aside,
            in_flight: *in_flight,
            ..one(index as u64)
        };
        let all: Vec<Candidate> = ready.iter().enumerate().map(made).collect();
        for balance in ALL {
            let chosen = choose(balance, &all, at(turn));
            prop_assert_eq!(chosen.is_some(), all.iter().any(|one| one.ready));
            if let Some(index) = chosen {
                prop_assert!(all[index].ready);
                let has_better = all.iter().any(|one| one.ready && !one.aside);
                prop_assert!(!(has_better && all[index].aside));
            }
        }
    }

    #[test]
    fn calls_in_flight_stay_even(count in 1_usize..=16, calls in 1_usize..200) {
        let mut all = weighing(&vec![1; count]);
        for turn in 0..calls {
            let chosen = choose(Balance::LeastConnections, &all, at(turn)).unwrap();
            all[chosen].in_flight += 1;
        }
        let busiest = all.iter().map(|one| one.in_flight).max();
        let idlest = all.iter().map(|one| one.in_flight).min();
        prop_assert!(busiest.unwrap() - idlest.unwrap() <= 1);
    }
}
