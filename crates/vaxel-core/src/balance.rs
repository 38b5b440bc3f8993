//! Which instance gets the next call. Pure: counters, times and chance are arguments.

use std::{str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// How long an instance takes to get its whole share: what has just come is slow at first.
const SLOW_START: Duration = Duration::from_secs(10);
/// How fast what was measured loses its meaning.
const DECAY: Duration = Duration::from_secs(10);
/// What an instance counts as that has calls and has answered none yet, nanoseconds.
const UNPROVEN: u64 = 1_000_000_000;
/// The golden ratio as a fraction of 2^64: its multiples lie evenly on the circle, however many.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which instance of a service takes the next call. All of them look only at instances that take
/// calls, and at those that failed several in a row only when there is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in its turn, whatever its weight.
    RoundRobin,
    /// The one with the fewest calls for its weight.
    LeastConnections,
    /// Each as often as its weight says.
    Weighted,
    /// The better of two that are drawn: by how long it takes to answer, slow answers counting at once,
    /// how many calls it has, and its weight (peak EWMA over two random choices).
    #[default]
    PeakEwma,
    /// The same one for the same caller, as long as it takes calls.
    ConsistentHash,
}

/// What the choice knows of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Takes calls.
    pub ready: bool,
    /// Failed several calls in a row a moment ago.
    pub aside: bool,
    /// Calls in flight.
    pub in_flight: u32,
    /// Its share, 1 to 1000.
    pub weight: u16,
    /// How long it takes to answer, nanoseconds; `None` before its first answer. See [`decayed`].
    pub latency: Option<u64>,
    /// Since when it is there.
    pub age: Duration,
    /// Tells it from the others, also after it was started anew.
    pub identity: u64,
}

/// What makes one choice differ from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Counts the choices.
    pub turn: usize,
    /// Who calls.
    pub caller: u64,
}

/// The instance that takes the call; `None` when none is ready.
pub fn choose(balance: Balance, candidates: &[Candidate], draw: Draw) -> Option<usize> {
    let ready = |index: &usize| candidates[*index].ready;
    let trusted = |index: &usize| ready(index) && !candidates[*index].aside;
    let mut open: Vec<usize> = (0..candidates.len()).filter(trusted).collect();
    if open.is_empty() {
        open = (0..candidates.len()).filter(ready).collect();
    }
    let count = open.len();
    if count == 0 {
        return None;
    }
    let one = |place: usize| &candidates[open[place]];
    let place = match balance {
        Balance::RoundRobin => draw.turn % count,
        Balance::LeastConnections => (0..count)
            .map(|step| draw.turn.wrapping_add(step) % count)
            .reduce(|best, next| {
                if is_freer(one(next), one(best)) {
                    next
                } else {
                    best
                }
            })?,
        Balance::Weighted => weighted((0..count).map(|place| share(one(place))), draw.turn)?,
        Balance::PeakEwma => {
            let (first, second) = two_of(count, draw.turn);
            let better = cost(one(second), one(first)) < cost(one(first), one(second));
            if better { second } else { first }
        }
        Balance::ConsistentHash => (0..count).max_by(|left, right| {
            let score = |place: &usize| rendezvous(one(*place), draw.caller);
            score(left).total_cmp(&score(right))
        })?,
    };
    Some(open[place])
}

/// What was measured, as it counts after nothing was measured for a while: an instance that was slow
/// is tried again some time.
pub fn decayed(latency: u64, since: Duration) -> u64 {
    scaled(latency, kept(since))
}

/// What counts after another answer took `sample`: at once when it was slower, little by little when
/// it was faster. `since` is how long ago the one before it came.
pub fn measured(latency: Option<u64>, since: Duration, sample: u64) -> u64 {
    match latency {
        Some(before) if sample < before => {
            let kept = kept(since);
            scaled(before, kept)
                .saturating_add(scaled(sample, 1.0 - kept))
                .max(1)
        }
        _ => sample.max(1),
    }
}

/// How much of what was measured counts after a while, 0 to 1.
fn kept(since: Duration) -> f64 {
    (-since.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times need no more digits than a float has, and the factor lies between 0 and 1"
)]
fn scaled(nanoseconds: u64, factor: f64) -> u64 {
    (nanoseconds as f64 * factor) as u64
}

/// The weight of an instance in thousandths, less while it is new.
fn share(one: &Candidate) -> u64 {
    let full = SLOW_START.as_millis();
    let warm = one.age.as_millis().clamp(full / 10, full) * 1_000 / full;
    u64::from(one.weight) * u64::try_from(warm).unwrap_or(1_000)
}

fn is_freer(one: &Candidate, other: &Candidate) -> bool {
    let calls = |one: &Candidate| u64::from(one.in_flight);
    calls(one) * share(other) < calls(other) * share(one)
}

/// The place that `turn` falls on: over any run of turns each comes as often as its share says, and
/// not in clusters.
fn weighted(shares: impl Iterator<Item = u64> + Clone, turn: usize) -> Option<usize> {
    let total: u128 = shares.clone().map(u128::from).sum();
    let point = (turn as u64).wrapping_mul(GOLDEN);
    let mut left = (u128::from(point) * total) >> 64;
    for (place, share) in shares.enumerate() {
        match left.checked_sub(u128::from(share)) {
            None => return Some(place),
            Some(rest) => left = rest,
        }
    }
    None
}

/// What a call costs at `one`, in a unit that both have.
fn cost(one: &Candidate, other: &Candidate) -> u128 {
    let latency = match (one.latency, one.in_flight) {
        (Some(latency), _) => latency.max(1),
        (None, 0) => 0,
        (None, _) => UNPROVEN,
    };
    u128::from(latency) * (u128::from(one.in_flight) + 1) * u128::from(other.weight)
}

/// Two different places of `count`, by chance that `turn` stands for; the same when there is one.
fn two_of(count: usize, turn: usize) -> (usize, usize) {
    let (count, chance) = (count as u64, mixed(turn as u64));
    let first = (chance >> 32) % count;
    let step = match count {
        1 => 0,
        _ => 1 + (chance & 0xffff_ffff) % (count - 1),
    };
    let place = |at: u64| usize::try_from(at % count).unwrap_or(0);
    (place(first), place(first + step))
}

/// How well an instance fits a caller. When one goes, only its callers move, and they spread over all
/// (weighted rendezvous hashing).
fn rendezvous(one: &Candidate, caller: u64) -> f64 {
    let hash = mixed(caller ^ mixed(one.identity)) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
    let unit = (hash as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(one.weight) / unit.ln()
}

/// Bits that look like chance and are not (`SplitMix64`).
const fn mixed(number: u64) -> u64 {
    let mut bits = number.wrapping_add(GOLDEN);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Balance {
    /// The name in specs and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::Weighted => "weighted",
            Self::PeakEwma => "peak_ewma",
            Self::ConsistentHash => "consistent_hash",
        }
    }
}

impl FromStr for Balance {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [
            Self::RoundRobin,
            Self::LeastConnections,
            Self::Weighted,
            Self::PeakEwma,
            Self::ConsistentHash,
        ];
        let found = all.into_iter().find(|one| one.as_str() == text);
        found.ok_or_else(|| {
            let names = all.map(Self::as_str).join(", ");
            format!("`{text}` is no way to balance: write one of {names}")
        })
    }
}

#[cfg(test)]
mod tests;
