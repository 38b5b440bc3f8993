//! What is observed of every service: in memory, lost on restart, readable by everyone at once.
//!
//! Each service's runner writes its own entry; readers take an `Arc` and never wait for a writer's
//! work. Whoever waits for a state subscribes to the counter.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use vaxel_core::{
    catalog::Catalog,
    id::{Id, Service},
    lifecycle::Lifecycle,
    name::ServiceName,
    status::ServiceStatus,
};
use vaxel_supervisor::ProcessHandle;

use crate::{runner::Watched, transitions::Transitions};

/// The observed states.
#[derive(Debug)]
pub(crate) struct Board {
    entries: RwLock<HashMap<Id<Service>, Arc<Seen>>>,
    names: RwLock<HashMap<ServiceName, Id<Service>>>,
    /// Who wants to know when a service of that name begins or ceases to serve.
    followers: Mutex<HashMap<ServiceName, Vec<Weak<Notify>>>>,
    /// Counts the changes, so that waiters look again.
    changed: watch::Sender<u64>,
    /// What the changes were, for the feed.
    pub(crate) transitions: Arc<Transitions>,
}

/// What is seen of one service.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) name: ServiceName,
    /// The version of the stored service that this is about.
    pub(crate) version: u64,
    /// The revision of it.
    pub(crate) revision: u64,
    pub(crate) status: ServiceStatus,
    /// What it offered when it was last asked.
    pub(crate) catalog: Option<Arc<Catalog>>,
    /// What is known of the health of its instances and of what is around it.
    pub(crate) watched: Vec<Watched>,
    /// The processes of its replicas, to be asked what they use when someone wants to know.
    pub(crate) probes: Vec<(u16, ProcessHandle)>,
}

impl Seen {
    /// The status with what its processes use now.
    pub(crate) fn measured(&self) -> ServiceStatus {
        let mut status = self.status.clone();
        for (replica, process) in &self.probes {
            let usage = process.usage();
            let instance = status
                .instances
                .iter_mut()
                .find(|one| one.replica == *replica);
            if let Some(instance) = instance {
                instance.cpu_ms = u64::try_from(usage.cpu.as_millis()).unwrap_or(u64::MAX);
                instance.memory_bytes = usage.memory_bytes;
                instance.processes = usage.processes;
            }
        }
        status
    }
}

/// How many services there are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Every service that is not deleted.
    pub total: u32,
    /// Those in service.
    pub active: u32,
    /// Those that are wanted but do not work.
    pub error: u32,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            entries: RwLock::default(),
            names: RwLock::default(),
            followers: Mutex::default(),
            changed: watch::Sender::new(0),
            transitions: Arc::default(),
        }
    }

    /// The state of `id`, when anything was done for it yet.
    pub(crate) fn find(&self, id: Id<Service>) -> Option<Arc<Seen>> {
        self.entries.read().get(&id).cloned()
    }

    /// The state of the service called `name`, when anything was done for it yet.
    pub(crate) fn find_by_name(&self, name: &ServiceName) -> Option<Arc<Seen>> {
        let id = self.names.read().get(name).copied()?;
        self.find(id)
    }

    pub(crate) fn put(&self, id: Id<Service>, seen: Seen) {
        let seen = Arc::new(seen);
        let old = self.entries.write().insert(id, Arc::clone(&seen));
        if old.as_ref().is_none_or(|old| old.name != seen.name) {
            self.call_it(id, Some(&seen.name), old.as_ref().map(|old| &old.name));
        }
        let picture = |seen: &Seen| (seen.status.lifecycle, seen.status.health);
        if old.as_deref().map(picture) != Some(picture(&seen)) {
            self.tell_followers(&seen.name);
        }
        self.transitions.note(id, old.as_deref(), &seen);
        self.changed.send_modify(|count| *count += 1);
    }

    pub(crate) fn remove(&self, id: Id<Service>) {
        let old = self.entries.write().remove(&id);
        if let Some(old) = old {
            self.call_it(id, None, Some(&old.name));
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Rings whenever one of the services called `names` begins or ceases to serve, comes or goes.
    /// Followed for as long as the answer is kept.
    pub(crate) fn follow(&self, names: &[ServiceName]) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut followers = self.followers.lock();
        for name in names {
            let all = followers.entry(name.clone()).or_default();
            all.retain(|one| one.strong_count() > 0);
            all.push(Arc::downgrade(&bell));
        }
        bell
    }

    /// `id` is called `new` now, and not `old` any more.
    fn call_it(&self, id: Id<Service>, new: Option<&ServiceName>, old: Option<&ServiceName>) {
        let mut names = self.names.write();
        if let Some(old) = old.filter(|old| names.get(*old) == Some(&id)) {
            names.remove(old);
        }
        if let Some(new) = new {
            names.insert(new.clone(), id);
        }
        drop(names);
        if let Some(old) = old {
            self.tell_followers(old);
        }
    }

    fn tell_followers(&self, name: &ServiceName) {
        if let Some(all) = self.followers.lock().get(name) {
            all.iter()
                .filter_map(Weak::upgrade)
                .for_each(|bell| bell.notify_one());
        }
    }

    /// Every service that anything is known of.
    pub(crate) fn ids(&self) -> Vec<Id<Service>> {
        self.entries.read().keys().copied().collect()
    }

    /// Everything that is seen.
    pub(crate) fn all(&self) -> Vec<Arc<Seen>> {
        self.entries.read().values().cloned().collect()
    }

    /// Changes when any entry does.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn totals(&self) -> Totals {
        let entries = self.entries.read();
        let count = |state: Lifecycle| {
            let matching = entries.values().filter(|one| one.status.lifecycle == state);
            u32::try_from(matching.count()).unwrap_or(u32::MAX)
        };
        Totals {
            total: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            active: count(Lifecycle::Active),
            error: count(Lifecycle::Error),
        }
    }
}
