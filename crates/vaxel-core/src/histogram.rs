//! How long things took, so small that it can be kept for every hour of every tool, and added up.
//!
//! Sixteen steps per doubling: a percentile is wrong by at most one part in sixteen, whatever was
//! added up to it.

/// Steps per doubling, as a power of two.
const STEP_BITS: u32 = 4;
/// Values below this have a step of their own.
const EXACT: u64 = 1 << STEP_BITS;
/// So many steps cover every `u64`.
const STEPS: usize = (1 << STEP_BITS) * (65 - STEP_BITS as usize);

/// Counts of values by their size.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// Steps that hold anything, ascending, with how many values.
    counts: Vec<(u16, u64)>,
}

impl Histogram {
    /// One more value.
    pub fn note(&mut self, value: u64) {
        self.add(step(value), 1);
    }

    /// Everything in `other`, too.
    pub fn merge(&mut self, other: &Self) {
        for (step, count) in &other.counts {
            self.add(*step, *count);
        }
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        let counts = self.counts.iter().map(|(_, count)| *count);
        counts.fold(0, u64::saturating_add)
    }

    /// The value that so many of a thousand values do not exceed: 500 is the median. `None` when
    /// there is no value.
    pub fn per_mille(&self, share: u32) -> Option<u64> {
        let total = u128::from(self.count());
        let rank = (total * u128::from(share)).div_ceil(1_000).max(1);
        let mut seen = 0;
        self.counts.iter().find_map(|(step, count)| {
            seen += u128::from(*count);
            (seen >= rank).then(|| middle(*step))
        })
    }

    /// As few bytes as it can be kept in.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.counts.len() * 3);
        let mut last = 0;
        for (step, count) in &self.counts {
            put(&mut bytes, u64::from(step - last));
            put(&mut bytes, *count);
            last = *step;
        }
        bytes
    }

    /// From [`Histogram::to_bytes`]; `None` for anything else.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let mut counts: Vec<(u16, u64)> = Vec::new();
        let mut last: u64 = 0;
        while !bytes.is_empty() {
            let apart = take(&mut bytes)?;
            let count = take(&mut bytes)?;
            if count == 0 || (apart == 0 && !counts.is_empty()) {
                return None;
            }
            last = last.checked_add(apart)?;
            let step = u16::try_from(last).ok()?;
            if usize::from(step) >= STEPS {
                return None;
            }
            counts.push((step, count));
        }
        Some(Self { counts })
    }

    fn add(&mut self, step: u16, count: u64) {
        match self.counts.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => self.counts.insert(at, (step, count)),
        }
    }
}

fn step(value: u64) -> u16 {
    let step = if value < EXACT {
        value
    } else {
        let doublings = u64::from(value.ilog2() - STEP_BITS);
        (doublings + 1) * EXACT + ((value >> doublings) - EXACT)
    };
    u16::try_from(step).unwrap_or(u16::MAX)
}

/// A value in the middle of a step.
fn middle(step: u16) -> u64 {
    let step = u64::from(step);
    if step < EXACT {
        return step;
    }
    let doublings = step / EXACT - 1;
    let low = (step % EXACT + EXACT) << doublings;
    low + ((1 << doublings) >> 1)
}

/// Seven bits a byte, the lowest first; the last byte has its highest bit clear.
fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(low_bits(number) | 0x80);
        number >>= 7;
    }
    bytes.push(low_bits(number));
}

fn low_bits(number: u64) -> u8 {
    u8::try_from(number & 0x7F).unwrap_or(0)
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(first & 0x7F);
        if bits > u64::MAX >> shift {
            return None;
        }
        number |= bits << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, proptest};

    use super::*;

    #[test]
    fn percentiles_of_what_is_small_are_exact() {
        let mut one = Histogram::default();
        assert_eq!(one.per_mille(500), None);
        (1..=10).for_each(|value| one.note(value));
        let all = [(0, 1), (500, 5), (950, 10), (990, 10), (1_000, 10)];
        for (share, value) in all {
            assert_eq!(one.per_mille(share), Some(value), "{share}");
        }
    }

    proptest! {
        #[test]
        fn percentiles_are_wrong_by_a_sixteenth_at_most(
            mut values in prop::collection::vec(any::<u64>().prop_flat_map(|top| 0..=top), 1..200),
            share in 0_u32..=1_000, cut in 0_usize..200,
        ) {
            let (mut left, mut right) = (Histogram::default(), Histogram::default());
            for (index, value) in values.iter().enumerate() {
                if index < cut { left.note(*value) } else { right.note(*value) }
            }
            left.merge(&right);
            values.sort_unstable();
            let rank = (values.len() * share as usize).div_ceil(1_000).max(1);
            let exact = values[rank - 1];
            let found = left.per_mille(share).unwrap();
            prop_assert!(found.abs_diff(exact) <= exact / 16, "{} is not {}", found, exact);
            prop_assert_eq!(left.count(), values.len() as u64);
            prop_assert_eq!(Histogram::from_bytes(&left.to_bytes()), Some(left));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(read) = Histogram::from_bytes(&bytes) {
                read.per_mille(990);
                prop_assert_eq!(Histogram::from_bytes(&read.to_bytes()), Some(read));
            }
        }
    }
}
