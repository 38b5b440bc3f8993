//! What is counted of addresses that ask: few enough to be kept, whoever asks.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use vaxel_core::time::Timestamp;

/// Addresses that are remembered.
const MOST: usize = 10_000;

/// A number and a time for each address.
#[derive(Default)]
pub(crate) struct Addresses(HashMap<IpAddr, (u64, Timestamp)>);

impl Addresses {
    /// What is known of one, however old.
    pub(crate) fn find(&self, network: IpAddr) -> Option<(u64, Timestamp)> {
        self.0.get(&network).copied()
    }

    /// What is known of one, to be changed: zero and `now` when that is nothing, or older than `keep`. The one that
    /// has been quiet for longest makes room.
    pub(crate) fn of(
        &mut self,
        network: IpAddr,
        (keep, now): (Duration, Timestamp),
    ) -> &mut (u64, Timestamp) {
        let is_over = |at: Timestamp| now.since(at) >= keep;
        if self.0.len() >= MOST && !self.0.contains_key(&network) {
            self.0.retain(|_, (_, at)| !is_over(*at));
        }
        if self.0.len() >= MOST && !self.0.contains_key(&network) {
            let quietest = self.0.iter().min_by_key(|(_, (_, at))| *at);
            if let Some(quietest) = quietest.map(|(address, _)| *address) {
                self.0.remove(&quietest);
            }
        }
        let known = self.0.entry(network).or_insert((0, now));
        if is_over(known.1) {
            *known = (0, now);
        }
        known
    }
}

/// What counts as one address: of IPv6 the network, in which one machine may have any number. None for programs
/// of this machine, since a proxy here speaks for everyone.
pub(crate) fn network(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(address) => {
            let bits = u128::from(address) & (u128::MAX << 64);
            Some(Ipv6Addr::from(bits).into())
        }
        IpAddr::V4(address) => Some(address.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_quietest_makes_room_when_there_are_too_many() {
        let (mut all, start) = (
            Addresses::default(),
            Timestamp::from_millis(1_800_000_000_000),
        );
        let address = |number: u32| IpAddr::from(Ipv4Addr::from(0xcb00_0000 + number));
        let keep = Duration::from_hours(1);
        for number in 0..u32::try_from(MOST).unwrap() {
            let at = start.plus(Duration::from_millis(number.into()));
            all.of(address(number), (keep, at)).0 += 1;
        }
        let later = start.plus(Duration::from_mins(1));
        all.of(address(1 << 20), (keep, later)).0 += 1;
        assert_eq!(all.0.len(), MOST);
        assert_eq!(all.find(address(0)), None);
        assert!(all.find(address(1)).is_some());
        assert_eq!(
            all.of(address(1), (keep, later.plus(keep))).0,
            0,
            "it is long ago"
        );
    }
}
