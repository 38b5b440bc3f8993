//! How often strangers may make us keep something.

use std::{net::IpAddr, time::Duration};

use parking_lot::Mutex;
use vaxel_core::{
    failure::{Failure, Kind},
    time::Timestamp,
};

use crate::addresses::{Addresses, network};

/// So much is kept for one address within this, and for all.
const WINDOW: Duration = Duration::from_hours(1);
const PER_ADDRESS: u64 = 60;
const FOR_ALL: u64 = 1_000;

/// Counts per address and for all. Programs of this machine are counted for all only: a proxy may be one of them.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    all: (u64, Timestamp),
    each: Addresses,
}

impl Limiter {
    /// Counts one more.
    pub(crate) fn count(&self, address: IpAddr, now: Timestamp) -> Result<(), Failure> {
        let mut counts = self.0.lock();
        let Counts { all, each } = &mut *counts;
        if now.since(all.1) >= WINDOW {
            *all = (0, now);
        }
        let its = network(address).map(|network| each.of(network, (WINDOW, now)));
        if let Some((times, since)) = its {
            let detail = "Too many clients came from this address; try again later";
            take((times, *since), PER_ADDRESS, (detail, now))?;
        }
        let detail = "Too many clients came here within an hour; try again later";
        take((&mut all.0, all.1), FOR_ALL, (detail, now))
    }
}

fn take(
    (times, since): (&mut u64, Timestamp),
    most: u64,
    (detail, now): (&'static str, Timestamp),
) -> Result<(), Failure> {
    if *times >= most {
        let wait = WINDOW.saturating_sub(now.since(since)).as_secs() + 1;
        let seconds = u32::try_from(wait).unwrap_or(u32::MAX);
        return Err(Failure::new(Kind::Busy, detail).retry_after(seconds));
    }
    *times += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn an_address_that_asks_too_often_waits_and_no_other() {
        let limiter = Limiter::default();
        let count = |address: &str, now| limiter.count(address.parse().unwrap(), now);
        for _ in 0..PER_ADDRESS {
            count("203.0.113.7", NOW).unwrap();
            count("127.0.0.1", NOW).unwrap();
        }
        assert!(count("203.0.113.7", NOW).is_err());
        assert!(count("203.0.113.8", NOW).is_ok());
        assert!(count("127.0.0.1", NOW).is_ok());
        assert!(count("203.0.113.7", NOW.plus(WINDOW)).is_ok());
    }

    #[test]
    fn all_together_are_bounded_also_behind_a_proxy_on_this_machine() {
        let limiter = Limiter::default();
        let count = |now| limiter.count("127.0.0.1".parse().unwrap(), now);
        for _ in 0..FOR_ALL {
            count(NOW).unwrap();
        }
        assert!(count(NOW).is_err());
        assert!(count(NOW.plus(WINDOW)).is_ok());
    }
}
