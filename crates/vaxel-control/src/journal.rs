//! Takes changes of the health of services to the store, off the way of those who see them.
//!
//! Only changes are written, never results. What is wanted is remembered across restarts: a service that
//! was healthy when Vaxel ended and is so again leaves no line, only the time in between in which nobody
//! looked. The queue is bounded; a change for which there is no room is written when it is seen again.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    failure::Failure,
    id::{Id, Service},
    name::ServiceName,
    status::Health,
    time::{Clock, Timestamp},
};
use vaxel_store::{HealthChange, Store};

use crate::event::Event;

/// Changes that wait to be written.
const QUEUE: usize = 8_192;
/// Most changes in one transaction.
const BATCH: usize = 512;
/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// How often it is written down that somebody looks.
const LOOKING: Duration = Duration::from_mins(1);
/// Where that stands.
const SEEN_AT: &str = "health.seen_at";
/// What a change is called in the change feed.
const ACTION: &str = "service.health";

pub(crate) struct Journal {
    known: Mutex<HashMap<Id<Service>, Known>>,
    queue: mpsc::Sender<HealthChange>,
}

#[derive(Clone, Copy)]
struct Known {
    health: Health,
    /// In this process; otherwise it is what the last one left.
    seen: bool,
}

impl Journal {
    /// A journal that goes on where the last one ended, and what it has to write.
    pub(crate) async fn open(
        store: &Store,
        now: Timestamp,
    ) -> Result<(Self, mpsc::Receiver<HealthChange>), Failure> {
        let last = store.last_healths().await?;
        let seen_at = store.meta(SEEN_AT).await?;
        if let Some(ended) = seen_at.and_then(|text| text.parse().ok()) {
            store
                .record_absence(Timestamp::from_millis(ended), now)
                .await?;
        }
        store.put_meta(SEEN_AT, now.as_millis().to_string()).await?;
        let known = |(id, health)| {
            let seen = false;
            (id, Known { health, seen })
        };
        let (queue, changes) = mpsc::channel(QUEUE);
        let journal = Self {
            known: Mutex::new(last.into_iter().map(known).collect()),
            queue,
        };
        Ok((journal, changes))
    }

    /// The health of a service is this; written when it is another one than before.
    pub(crate) fn note(
        &self,
        (service, name): (Id<Service>, &ServiceName),
        (health, reason): (Health, Option<&str>),
        now: Timestamp,
    ) {
        let mut known = self.known.lock();
        let before = known.get(&service).copied();
        let is_first = before.is_none_or(|before| !before.seen);
        // That a service is starting says nothing new while nothing else was seen of it.
        if health == Health::Unknown || (health == Health::Starting && is_first) {
            return;
        }
        let is_news = before.is_none_or(|before| before.health != health);
        if is_news {
            let change = HealthChange {
                at: now,
                service,
                name: name.to_string(),
                health,
                reason: reason.map(str::to_owned),
            };
            if self.queue.try_send(change).is_err() {
                tracing::warn!(service.name = %name, "a change of its health could not be written down yet");
                return;
            }
        }
        if is_news || is_first {
            known.insert(service, Known { health, seen: true });
        }
    }

    /// The service is not there any more.
    pub(crate) fn forget(&self, service: Id<Service>) {
        self.known.lock().remove(&service);
    }
}

/// Writes changes until `stop`; what waits then is written before it returns.
pub(crate) async fn write(
    (store, clock): (Store, Clock),
    mut changes: mpsc::Receiver<HealthChange>,
    events: broadcast::Sender<Event>,
    stop: CancellationToken,
) {
    let mut batch = Vec::with_capacity(16);
    let mut looking = tokio::time::interval(LOOKING);
    looking.reset();
    loop {
        let more = tokio::select! {
            () = stop.cancelled() => false,
            _ = looking.tick() => {
                note_look(&store, &clock).await;
                continue;
            }
            count = changes.recv_many(&mut batch, BATCH) => count > 0,
        };
        if !more {
            break;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(GATHER) => {}
        }
        take(&mut changes, &mut batch);
        put(&store, std::mem::take(&mut batch), &events).await;
    }
    loop {
        take(&mut changes, &mut batch);
        if batch.is_empty() {
            break;
        }
        put(&store, std::mem::take(&mut batch), &events).await;
    }
    note_look(&store, &clock).await;
}

fn take(changes: &mut mpsc::Receiver<HealthChange>, batch: &mut Vec<HealthChange>) {
    while batch.len() < BATCH {
        match changes.try_recv() {
            Ok(change) => batch.push(change),
            Err(_) => return,
        }
    }
}

async fn put(store: &Store, batch: Vec<HealthChange>, events: &broadcast::Sender<Event>) {
    let services: Vec<Id<Service>> = batch.iter().map(|change| change.service).collect();
    if let Err(error) = store.record_health(batch).await {
        tracing::warn!(%error, "changes of the health of services could not be written and are lost");
        return;
    }
    for id in services {
        let event = Event::Service { id, action: ACTION };
        // Nobody may be listening.
        let _ = events.send(event);
    }
}

async fn note_look(store: &Store, clock: &Clock) {
    let now = clock.now().as_millis().to_string();
    if let Err(error) = store.put_meta(SEEN_AT, now).await {
        tracing::warn!(%error, "it could not be written down that somebody looks at the services");
    }
}
