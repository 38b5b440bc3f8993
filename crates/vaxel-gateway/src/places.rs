//! Places of connections: so many in all, and so many of one address, so that nobody keeps the others out.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vaxel_egress::Networks;

/// How many connections there may be.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    per_address: usize,
    exempt: Networks,
    by_address: Mutex<HashMap<IpAddr, Taken>>,
}

#[derive(Default)]
struct Taken {
    count: usize,
    /// That one was refused is said once, until they are fewer again.
    is_told: bool,
}

/// The place of a connection, until it is dropped.
pub(crate) struct Place {
    _one: OwnedSemaphorePermit,
    of: Option<(Arc<Places>, IpAddr)>,
}

impl Places {
    /// `per_address` is without bound when it is 0.
    pub(crate) fn new(all: usize, per_address: usize, exempt: Networks) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            per_address,
            exempt,
            by_address: Mutex::default(),
        }
    }

    /// Waits for a place among all; `None` never comes.
    pub(crate) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// The place of a connection from `peer`; `None` when that has all that it may have.
    pub(crate) fn take(self: &Arc<Self>, one: OwnedSemaphorePermit, peer: IpAddr) -> Option<Place> {
        let peer = peer.to_canonical();
        if self.per_address == 0 || peer.is_loopback() || self.exempt.contain(peer) {
            return Some(Place {
                _one: one,
                of: None,
            });
        }
        let whose = household(peer);
        let mut by_address = self.by_address.lock();
        let taken = by_address.entry(whose).or_default();
        if taken.count >= self.per_address {
            if !std::mem::replace(&mut taken.is_told, true) {
                tracing::warn!(
                    address = %peer,
                    connections = taken.count,
                    "connections are refused: one address has as many as it may have \
                     (limits.connections_per_address)"
                );
            }
            return None;
        }
        taken.count += 1;
        Some(Place {
            _one: one,
            of: Some((Arc::clone(self), whose)),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, whose)) = &self.of else {
            return;
        };
        if let Entry::Occupied(mut taken) = places.by_address.lock().entry(*whose) {
            taken.get_mut().count -= 1;
            if taken.get().count < places.per_address / 2 {
                taken.get_mut().is_told = false;
            }
            if taken.get().count == 0 {
                taken.remove();
            }
        }
    }
}

/// Of IPv6 everyone has a whole network of addresses: 64 bits count as one.
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(all: usize, per_address: usize, exempt: &[&str]) -> Arc<Places> {
        let exempt = exempt.iter().map(|text| text.parse().unwrap());
        Arc::new(Places::new(all, per_address, Networks::new(exempt)))
    }

    async fn take(places: &Arc<Places>, peer: &str) -> Option<Place> {
        let one = places.wait().await?;
        places.take(one, peer.parse().unwrap())
    }

    #[tokio::test]
    async fn one_address_has_no_more_than_its_places_and_others_have_theirs() {
        let places = places(10, 2, &[]);
        let first = take(&places, "203.0.113.7").await;
        let second = take(&places, "::ffff:203.0.113.7").await;
        assert!(first.is_some() && second.is_some());
        assert!(take(&places, "203.0.113.7").await.is_none());
        assert!(take(&places, "203.0.113.8").await.is_some());
        drop(first);
        assert!(take(&places, "203.0.113.7").await.is_some());
        drop(second);
        assert!(places.by_address.lock().is_empty(), "nobody is remembered");
        assert_eq!(places.all.available_permits(), 10);
    }

    #[tokio::test]
    async fn addresses_of_one_network_of_ipv6_count_as_one() {
        let places = places(10, 1, &[]);
        let _held = take(&places, "2001:db8:1:2::1").await.unwrap();
        assert!(take(&places, "2001:db8:1:2:ffff::9").await.is_none());
        assert!(take(&places, "2001:db8:1:3::1").await.is_some());
    }

    #[tokio::test]
    async fn this_machine_and_what_is_exempt_are_not_counted() {
        let places = places(10, 1, &["10.0.0.0/8", "fd00::1"]);
        let mut held = Vec::new();
        for peer in ["127.0.0.1", "::1", "10.1.2.3", "fd00::1"] {
            held.push(take(&places, peer).await.unwrap());
            held.push(take(&places, peer).await.unwrap());
        }
        let _other = take(&places, "fd00::2").await.unwrap();
        assert!(take(&places, "fd00::2").await.is_none());
    }
}
