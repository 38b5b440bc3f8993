//! Which single resources clients watch: what links ask their servers to tell, and who hears of it.
//! However many clients watch a resource, a server is asked once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, watch},
    time::timeout,
};
use vaxel_core::id::{Id, Service};

/// Updates that one stream may be behind. One that is further behind is told that everything it
/// watches may have changed.
const UPDATES: usize = 1_024;

/// Longest that a client waits until its server knows what it watches. A change that comes before that
/// is missed; a server that is slower than this must not hold up the client.
const TAKE_NOTE: Duration = Duration::from_secs(2);

/// The interests in all services.
pub(crate) struct Interests {
    by_service: Mutex<HashMap<Id<Service>, Arc<Interest>>>,
    updates: broadcast::Sender<Update>,
}

/// A resource has changed.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) service: Id<Service>,
    pub(crate) uri: Arc<str>,
}

/// What clients watch of one service. Links come and go; this stays.
pub(crate) struct Interest {
    service: Id<Service>,
    /// How many watch each URI.
    wanted: watch::Sender<BTreeMap<Arc<str>, u32>>,
    /// What the server of each link that listens has taken note of.
    noted: watch::Sender<HashMap<u64, BTreeSet<Arc<str>>>>,
    next_listener: AtomicU64,
    updates: broadcast::Sender<Update>,
}

/// One client watches one resource, until this is dropped.
pub(crate) struct Watched {
    interest: Arc<Interest>,
    uri: Arc<str>,
    /// What the client calls it.
    known_as: Arc<str>,
}

impl Default for Interests {
    fn default() -> Self {
        Self {
            by_service: Mutex::default(),
            updates: broadcast::Sender::new(UPDATES),
        }
    }
}

impl Interests {
    pub(crate) fn of(&self, service: Id<Service>) -> Arc<Interest> {
        let mut all = self.by_service.lock();
        let interest = all.entry(service).or_insert_with(|| {
            Arc::new(Interest {
                service,
                wanted: watch::Sender::default(),
                noted: watch::Sender::default(),
                next_listener: AtomicU64::default(),
                updates: self.updates.clone(),
            })
        });
        Arc::clone(interest)
    }

    /// Whether anybody watches anything of a service.
    pub(crate) fn is_watched(&self, service: Id<Service>) -> bool {
        let all = self.by_service.lock();
        let interest = all.get(&service);
        interest.is_some_and(|interest| !interest.wanted.borrow().is_empty())
    }

    /// The service is gone; who still watches it hears nothing more.
    pub(crate) fn forget(&self, service: Id<Service>) {
        self.by_service.lock().remove(&service);
    }

    pub(crate) fn updates(&self) -> broadcast::Receiver<Update> {
        self.updates.subscribe()
    }
}

impl Interest {
    /// A client watches the resource `uri`, which it knows as `known_as`.
    pub(crate) fn watch(self: &Arc<Self>, uri: &str, known_as: &str) -> Watched {
        let known_as: Arc<str> = known_as.into();
        let uri = if *uri == *known_as {
            Arc::clone(&known_as)
        } else {
            uri.into()
        };
        self.wanted.send_if_modified(|wanted| {
            let count = wanted.entry(Arc::clone(&uri)).or_default();
            *count += 1;
            *count == 1
        });
        Watched {
            interest: Arc::clone(self),
            uri,
            known_as,
        }
    }

    /// What is watched, and word of when that changes, for a link that listens to its server.
    pub(crate) fn wanted(self: &Arc<Self>) -> Wanted {
        let listener = self.next_listener.fetch_add(1, Ordering::Relaxed);
        self.noted
            .send_modify(|noted| drop(noted.insert(listener, BTreeSet::new())));
        Wanted {
            watched: self.wanted.subscribe(),
            interest: Arc::clone(self),
            listener,
        }
    }

    /// Whose resources these are.
    pub(crate) const fn service(&self) -> Id<Service> {
        self.service
    }

    /// The server says that a resource has changed.
    pub(crate) fn updated(&self, uri: &str) {
        // Without streams nobody hears it.
        let _ = self.updates.send(Update {
            service: self.service,
            uri: uri.into(),
        });
    }

    /// Something may have been missed.
    pub(crate) fn all_updated(&self) {
        let watched: Vec<Arc<str>> = self.wanted.borrow().keys().cloned().collect();
        for uri in watched {
            self.updated(&uri);
        }
    }
}

/// What is watched of one service, as it changes, and what of that its server knows.
pub(crate) struct Wanted {
    watched: watch::Receiver<BTreeMap<Arc<str>, u32>>,
    interest: Arc<Interest>,
    listener: u64,
}

impl Wanted {
    pub(crate) fn now(&mut self) -> BTreeSet<Arc<str>> {
        self.watched.borrow_and_update().keys().cloned().collect()
    }

    /// Resolves when there is something else to watch.
    pub(crate) async fn changed(&mut self) {
        if self.watched.changed().await.is_err() {
            // Its service is gone, and with it whoever asks.
            std::future::pending::<()>().await;
        }
    }

    /// The server has taken note that these are watched.
    pub(crate) fn noted(&self, uris: BTreeSet<Arc<str>>) {
        self.interest
            .noted
            .send_modify(|noted| drop(noted.insert(self.listener, uris)));
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.interest
            .noted
            .send_modify(|noted| drop(noted.remove(&self.listener)));
    }
}

impl Watched {
    /// Whether an update is about this.
    pub(crate) fn is(&self, update: &Update) -> bool {
        self.interest.service == update.service && *self.uri == *update.uri
    }

    /// What its service calls it.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// What its client calls it.
    pub(crate) fn known_as(&self) -> &str {
        &self.known_as
    }

    /// Waits until every server that is listened to knows of this, or no longer than is bearable.
    pub(crate) fn noted(&self) -> impl Future<Output = ()> + Send + use<> {
        let uri = Arc::clone(&self.uri);
        let mut noted = self.interest.noted.subscribe();
        async move {
            let known = noted.wait_for(|noted| noted.values().all(|uris| uris.contains(&uri)));
            // A server that is late tells of later changes.
            let _ = timeout(TAKE_NOTE, known).await;
        }
    }

    /// Whose resource it is.
    pub(crate) fn service(&self) -> Id<Service> {
        self.interest.service
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.interest.wanted.send_if_modified(|wanted| {
            let Some(count) = wanted.get_mut(&self.uri) else {
                return false;
            };
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                wanted.remove(&self.uri);
            }
            is_last
        });
    }
}

#[cfg(test)]
mod tests {
    use vaxel_core::time::Clock;

    use super::*;

    #[test]
    fn a_resource_is_wanted_as_long_as_somebody_watches_it() {
        let interests = Interests::default();
        let interest = interests.of(Id::new(Clock::system().now()));
        let mut wanted = interest.wanted();
        let one = interest.watch("a", "a");
        let two = interest.watch("a", "a");
        assert_eq!(wanted.now().len(), 1);
        drop(one);
        assert!(!wanted.watched.has_changed().unwrap());
        drop(two);
        assert!(wanted.watched.has_changed().unwrap());
        assert!(wanted.now().is_empty());
    }

    #[test]
    fn an_update_reaches_who_watches_that_resource_of_that_service() {
        let interests = Interests::default();
        let now = Clock::system().now();
        let (here, there) = (interests.of(Id::new(now)), interests.of(Id::new(now)));
        let mut updates = interests.updates();
        let watched = here.watch("a", "a");
        there.updated("a");
        here.updated("b");
        here.updated("a");
        let heard: Vec<bool> = std::iter::from_fn(|| updates.try_recv().ok())
            .map(|update| watched.is(&update))
            .collect();
        assert_eq!(heard, [false, false, true]);
    }
}
