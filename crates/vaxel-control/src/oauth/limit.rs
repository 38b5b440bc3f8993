//! How often strangers may make us keep something.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use vaxel_core::{
    failure::{Failure, Kind},
    time::Timestamp,
};

use crate::password::network;

/// So much is kept for one address within this.
const WINDOW: Duration = Duration::from_hours(1);
const PER_ADDRESS: u32 = 60;
/// Addresses that are remembered.
const ADDRESSES: usize = 10_000;

/// Counts per address. Programs of this machine are not counted: a proxy may be one of them.
#[derive(Default)]
pub(crate) struct Limiter(Mutex<HashMap<IpAddr, (Timestamp, u32)>>);

impl Limiter {
    /// Counts one more.
    pub(crate) fn count(&self, address: IpAddr, now: Timestamp) -> Result<(), Failure> {
        let Some(network) = network(address) else {
            return Ok(());
        };
        let mut all = self.0.lock();
        if all.len() >= ADDRESSES && !all.contains_key(&network) {
            all.retain(|_, (since, _)| now.since(*since) < WINDOW);
            if all.len() >= ADDRESSES {
                all.clear();
            }
        }
        let (since, times) = all.entry(network).or_insert((now, 0));
        if now.since(*since) >= WINDOW {
            (*since, *times) = (now, 0);
        }
        if *times >= PER_ADDRESS {
            let wait = WINDOW.saturating_sub(now.since(*since)).as_secs() + 1;
            let detail = "Too many clients came from this address; try again later";
            let seconds = u32::try_from(wait).unwrap_or(u32::MAX);
            return Err(Failure::new(Kind::Busy, detail).retry_after(seconds));
        }
        *times += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_asks_too_often_waits_and_no_other() {
        let (limiter, now) = (
            Limiter::default(),
            Timestamp::from_millis(1_800_000_000_000),
        );
        let count = |address: &str, now| limiter.count(address.parse().unwrap(), now);
        for _ in 0..PER_ADDRESS {
            count("203.0.113.7", now).unwrap();
            count("127.0.0.1", now).unwrap();
        }
        assert!(count("203.0.113.7", now).is_err());
        assert!(count("203.0.113.8", now).is_ok());
        assert!(count("127.0.0.1", now).is_ok());
        assert!(count("203.0.113.7", now.plus(WINDOW)).is_ok());
    }
}
