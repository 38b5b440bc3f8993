//! How long somebody waits who gave wrong passwords again and again.

use std::time::Duration;

/// Wrong passwords that cost nothing: people mistype.
pub const FREE: u64 = 5;
/// The first wait; each further failure doubles it.
const FIRST: Duration = Duration::from_secs(15);
/// The longest wait. Not for ever: else whoever knows a name could shut its user out.
pub const LONGEST: Duration = Duration::from_mins(15);

/// The wait after so many failures in a row, where `free` of them cost nothing.
pub fn wait(failures: u64, free: u64) -> Option<Duration> {
    let over = failures.checked_sub(free.max(1))?;
    let doubled = u32::try_from(over).unwrap_or(u32::MAX).min(16);
    Some(LONGEST.min(FIRST * 2_u32.pow(doubled)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound() {
        let seconds = |failures| wait(failures, FREE).map(|wait| wait.as_secs());
        let waits: Vec<_> = (4..=13).map(seconds).collect();
        let expected = [0, 15, 30, 60, 120, 240, 480, 900, 900, 900];
        let expected = expected.map(|wait| Some(wait).filter(|wait| *wait > 0));
        assert_eq!(waits, expected);
        assert_eq!(seconds(u64::MAX), Some(900));
        assert_eq!(seconds(0), None);
    }
}
