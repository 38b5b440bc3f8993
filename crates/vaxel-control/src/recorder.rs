//! Carries call records to the store, off the way of the calls.
//!
//! The channel is bounded; when it is full the gateway drops records and counts them. Records are
//! moved, never copied: a batch goes to the store's writer as it is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    call::CallRecord,
    session,
    time::{Clock, Timestamp},
};
use vaxel_store::{Store, UsageBatch};

use crate::{
    bodies::Bodies,
    config::{FeedConfig, RecordsConfig},
};

/// Most records in one transaction.
const BATCH: usize = 512;
/// How long records are gathered. One wake-up per gathering, not one per record.
const GATHER: Duration = Duration::from_millis(200);
/// Between two looks for records that are too old or too many.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// Sign-ins that are over are kept so long.
const SIGN_INS: Duration = Duration::from_hours(90 * 24);
/// Records deleted in one step of a sweep, so that writers wait little.
pub(crate) const SWEEP_STEP: u32 = 2_000;

/// What is known of records on their way.
#[derive(Debug, Default)]
pub(crate) struct RecordCounts {
    /// Waiting when the recorder looked last.
    pub(crate) queued: AtomicU64,
    /// Refused by the store.
    pub(crate) lost: AtomicU64,
}

/// Writes records until the channel is closed or `stop`; what waits then is written before it
/// returns.
pub(crate) async fn record(
    store: Store,
    mut records: mpsc::Receiver<CallRecord>,
    (stop, counts): (CancellationToken, Arc<RecordCounts>),
    bodies: Arc<Bodies>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut usage = UsageBatch::default();
    loop {
        let more = tokio::select! {
            () = stop.cancelled() => {
                records.close();
                false
            }
            count = records.recv_many(&mut batch, BATCH) => count > 0,
        };
        if more && batch.len() < BATCH {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
        }
        loop {
            while batch.len() < BATCH {
                match records.try_recv() {
                    Ok(record) => batch.push(record),
                    Err(_) => break,
                }
            }
            let full = batch.len() == BATCH;
            let next = Vec::with_capacity(if full { BATCH } else { batch.len() });
            counts
                .queued
                .store((records.len() + batch.len()) as u64, Ordering::Relaxed);
            for record in &mut batch {
                usage.note(record);
                bodies.seal(record);
            }
            write(&store, std::mem::replace(&mut batch, next), &counts).await;
            counts.queued.store(records.len() as u64, Ordering::Relaxed);
            if !full {
                break;
            }
        }
        sum_up(&store, std::mem::take(&mut usage)).await;
        if !more {
            return;
        }
    }
}

async fn write(store: &Store, batch: Vec<CallRecord>, counts: &RecordCounts) {
    if batch.is_empty() {
        return;
    }
    let count = batch.len() as u64;
    if let Err(error) = store.record_calls(batch).await {
        counts.lost.fetch_add(count, Ordering::Relaxed);
        tracing::warn!(%error, count, "records of calls could not be written and are lost");
    }
}

/// Adds calls to the sums of their hours and days.
async fn sum_up(store: &Store, usage: UsageBatch) {
    if usage.is_empty() {
        return;
    }
    if let Err(error) = store.add_usage(usage).await {
        tracing::warn!(%error, "calls could not be added to the usage and are missing in it");
    }
}

/// Deletes records that are too old or too many, and change events that no reader resumes from any
/// more, in small steps.
pub(crate) async fn sweep(
    store: Store,
    clock: Clock,
    (config, feed, health): (RecordsConfig, FeedConfig, Duration),
    stop: CancellationToken,
) {
    let mut hourly = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hourly.tick() => {}
        }
        let before = ago(&clock, config.retention);
        let calls = || store.sweep_calls(before, config.max_rows, SWEEP_STEP);
        delete_all("records of calls", calls, &stop).await;
        let (hours, days) = (ago(&clock, config.hours), ago(&clock, config.days));
        let usage = || store.sweep_usage(hours, days);
        delete_all("usage", usage, &stop).await;
        let before = ago(&clock, feed.retention);
        let changes = || store.trim_changes(before, feed.max_rows, SWEEP_STEP);
        delete_all("change events", changes, &stop).await;
        let before = ago(&clock, health);
        let healths = || store.trim_health(before, SWEEP_STEP);
        delete_all("changes of health", healths, &stop).await;
        if let Err(error) = store.forget_sessions(ago(&clock, session::LIFE)).await {
            tracing::warn!(%error, "what is kept of old sessions could not be deleted");
        }
        if let Err(error) = store.forget_sign_ins(ago(&clock, SIGN_INS)).await {
            tracing::warn!(%error, "old sign-ins could not be deleted");
        }
    }
}

/// The time that is so long ago.
pub(crate) fn ago(clock: &Clock, long: Duration) -> Timestamp {
    clock.now().minus(long)
}

/// Repeats a deletion until there is nothing left to delete.
async fn delete_all<F>(what: &str, step: impl Fn() -> F, stop: &CancellationToken)
where
    F: Future<Output = Result<usize, vaxel_store::Error>>,
{
    while !stop.is_cancelled() {
        match step().await {
            Ok(0) => return,
            Ok(count) => tracing::debug!(count, what, "what is too old was deleted"),
            Err(error) => {
                tracing::warn!(%error, what, "what is too old could not be deleted");
                return;
            }
        }
    }
}
