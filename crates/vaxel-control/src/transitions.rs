//! What services go through by themselves, on its way to the feed and the audit.
//!
//! The board notes every difference; a task writes them, many in one transaction. What happens to a
//! service within one gathering is one event (and a line of the audit for each step), so that ten thousand services that start are a few
//! hundred writes and what waits is bounded by the number of services.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    id::{Id, Service},
    lifecycle::Lifecycle,
    time::{Clock, Timestamp},
};
use vaxel_store::{Happening, Step, Store};

use crate::status::Seen;

/// How long differences are gathered.
const GATHER: Duration = Duration::from_millis(50);
/// Events in one transaction.
const BATCH: usize = 1_000;
/// Pause after a store that refused.
const AGAIN: Duration = Duration::from_secs(1);
/// States that one event names, and lines of the audit that belong to it; the oldest of more are left out.
const STEPS_MAX: usize = 32;

/// What was noted and is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Transitions {
    pending: Mutex<HashMap<Id<Service>, Pending>>,
    bell: Notify,
}

#[derive(Debug)]
struct Pending {
    name: String,
    steps: Vec<Arrow>,
    reason: Option<String>,
}

/// One arrow of the diagram that a service went along.
#[derive(Debug)]
struct Arrow {
    at: Timestamp,
    /// What was wanted then.
    revision: u64,
    from: Lifecycle,
    to: Lifecycle,
    reason: Option<String>,
}

impl Transitions {
    /// Compares what was seen of a service with what is seen now.
    pub(crate) fn note(&self, id: Id<Service>, before: Option<&Seen>, now: &Seen) {
        let to = now.status.lifecycle;
        // What rests from the start on is no news.
        let mut from = match before {
            Some(before) => before.status.lifecycle,
            None if to == Lifecycle::Inactive => return,
            None => Lifecycle::Draft,
        };
        if from == to {
            return;
        }
        let mut all = self.pending.lock();
        let pending = all.entry(id).or_insert_with(|| Pending {
            name: String::new(),
            steps: Vec::new(),
            reason: None,
        });
        pending.name = now.name.to_string();
        pending.reason.clone_from(&now.status.reason);
        for next in from.path(to).unwrap_or_else(|| vec![to]) {
            pending.steps.push(Arrow {
                at: now.status.since,
                revision: now.revision,
                from,
                to: next,
                reason: now.status.reason.clone().filter(|_| next == to),
            });
            from = next;
        }
        let surplus = pending.steps.len().saturating_sub(STEPS_MAX);
        pending.steps.drain(..surplus);
        drop(all);
        self.bell.notify_one();
    }

    fn take(&self, now: Timestamp) -> Vec<Happening> {
        let all = std::mem::take(&mut *self.pending.lock());
        let events = all.into_iter().filter_map(|(id, one)| event(id, one, now));
        events.collect()
    }
}

fn event(id: Id<Service>, pending: Pending, at: Timestamp) -> Option<Happening> {
    let Pending {
        name,
        steps,
        reason,
    } = pending;
    let (first, last) = (steps.first()?, steps.last()?);
    let via: Vec<Lifecycle> = steps.iter().skip(1).map(|step| step.from).collect();
    let mut detail = json!({ "from": first.from, "via": via, "to": last.to });
    if let Some(reason) = reason {
        detail["reason"] = reason.into();
    }
    let steps = steps.into_iter().map(|arrow| {
        let mut detail = json!({ "from": arrow.from, "to": arrow.to });
        if let Some(reason) = arrow.reason {
            detail["reason"] = reason.into();
        }
        Step {
            at: arrow.at,
            revision: arrow.revision,
            detail,
        }
    });
    Some(Happening {
        at,
        action: "service.lifecycle",
        service: id,
        name,
        detail,
        steps: steps.collect(),
    })
}

/// Writes what is noted, until `stop` and then what is left.
pub(crate) async fn write(
    (store, clock): (Store, Clock),
    transitions: Arc<Transitions>,
    stop: CancellationToken,
) {
    let mut last = false;
    while !last {
        tokio::select! {
            () = stop.cancelled() => last = true,
            () = transitions.bell.notified() => tokio::time::sleep(GATHER).await,
        }
        let mut events = transitions.take(clock.now());
        while !events.is_empty() {
            let rest = events.split_off(events.len().min(BATCH));
            keep(&store, events, &stop).await;
            events = rest;
        }
    }
}

/// Tries until it is written; at the end once.
async fn keep(store: &Store, events: Vec<Happening>, stop: &CancellationToken) {
    while let Err(error) = store.append_changes(events.clone()).await {
        tracing::warn!(%error, "what services went through could not be written into the feed");
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}
