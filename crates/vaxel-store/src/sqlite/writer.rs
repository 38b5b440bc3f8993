//! The one writer of a database (group commit).
//!
//! What waits in the queue is committed in one transaction, so that many writers share the price of
//! one flush. Each has a savepoint of its own: one that fails rolls back alone. Nobody is answered
//! before the commit. When the transaction itself is lost (SQLite rolls all of it back when the disk
//! is full, and so does a commit that fails), each write is tried again alone, so that one that is
//! too large for the disk takes no other with it.

use std::{
    path::Path,
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::{Tx, frame, guarded};
use crate::error::Error;

/// Writes committed together at most.
const BATCH: usize = 256;

/// The queue and the thread at its end.
pub(super) struct Writer {
    /// Bounded. When it is full, callers wait for a place, at most `timeout`.
    queue: Mutex<Option<mpsc::Sender<Box<dyn Write>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    timeout: Duration,
    commits: Arc<Commits>,
}

#[derive(Default)]
struct Commits {
    transactions: AtomicU64,
    writes: AtomicU64,
}

/// A transaction that is gone: a statement around the callers' work failed. That is also how it
/// shows when the engine gave it up inside a caller's work, because then no savepoint is left.
struct Lost {
    /// Whether it had begun. One that could not (others keep the database busy, say) cannot for
    /// each write alone either.
    begun: bool,
    error: rusqlite::Error,
}

/// One caller's write.
trait Write: Send {
    /// Runs its work; true when that went well.
    fn attempt(&mut self, tx: &mut Tx<'_>) -> bool;
    /// What was written does not count. An error of its own is kept.
    fn fail(&mut self, error: Error);
    /// The caller went away or gave up waiting.
    fn is_abandoned(&self) -> bool;
    /// Tells the caller.
    fn answer(self: Box<Self>);
}

struct Job<T, F> {
    work: F,
    outcome: Option<Result<T, Error>>,
    told: oneshot::Sender<Result<T, Error>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        file: &Path,
        (queue, timeout): (usize, Duration),
    ) -> Result<Self, Error> {
        let (sender, receiver) = mpsc::channel(queue);
        let commits: Arc<Commits> = Arc::default();
        let counted = Arc::clone(&commits);
        let thread = std::thread::Builder::new()
            .name("vaxel-store".to_owned())
            .spawn(move || write_all(&connection, receiver, &counted))
            .map_err(|source| Error::unusable(file, source))?;
        Ok(Self {
            queue: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
            timeout,
            commits,
        })
    }

    /// Runs `work` in a transaction; answers after the commit.
    ///
    /// # Errors
    /// [`Error::Busy`] when the queue stayed full: nothing was written. [`Error::Late`] when no
    /// answer came in time: a write that has not begun by then is not begun any more.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (told, answer) = oneshot::channel();
        let job = Box::new(Job {
            work,
            outcome: None,
            told,
        });
        let sender = self.queue.lock().clone().ok_or(Error::Closed)?;
        let queued = tokio::time::timeout(self.timeout, sender.send(job)).await;
        queued
            .map_err(|_| Error::Busy)?
            .map_err(|_| Error::Closed)?;
        drop(sender);
        let answer = tokio::time::timeout(self.timeout, answer).await;
        answer
            .map_err(|_| Error::Late)?
            .map_err(|_| Error::Closed)?
    }

    pub(super) fn queued(&self) -> usize {
        let queue = self.queue.lock();
        queue
            .as_ref()
            .map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    pub(super) fn commits(&self) -> (u64, u64) {
        let Commits {
            transactions,
            writes,
        } = &*self.commits;
        (
            transactions.load(Ordering::Relaxed),
            writes.load(Ordering::Relaxed),
        )
    }

    /// Writes what is queued and ends the thread.
    pub(super) fn close(&self) {
        self.queue.lock().take();
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        // The last handle of the store may have been in one of its own writes.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the writer of the store panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T, F> Write for Job<T, F>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T, Error> + Send,
{
    fn attempt(&mut self, tx: &mut Tx<'_>) -> bool {
        let outcome = guarded(|| (self.work)(tx));
        self.outcome.insert(outcome).is_ok()
    }

    fn fail(&mut self, error: Error) {
        if !matches!(self.outcome, Some(Err(_))) {
            self.outcome = Some(Err(error));
        }
    }

    fn is_abandoned(&self) -> bool {
        self.told.is_closed()
    }

    fn answer(self: Box<Self>) {
        // A caller that no longer waits does not need to know.
        let _ = self.told.send(self.outcome.unwrap_or(Err(Error::Closed)));
    }
}

fn write_all(connection: &Connection, mut queue: mpsc::Receiver<Box<dyn Write>>, counts: &Commits) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = queue.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        batch.retain(|write| !write.is_abandoned());
        commit(connection, &mut batch, counts);
        for write in batch.drain(..) {
            write.answer();
        }
    }
    // So that a copy of the one file is a copy of everything.
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the write-ahead log stays beside the database; the next start reads it");
    }
}

fn commit(connection: &Connection, batch: &mut [Box<dyn Write>], counts: &Commits) {
    if batch.is_empty() {
        return;
    }
    let lost = match together(connection, batch, counts) {
        Ok(()) => return,
        Err(lost) => lost,
    };
    // What each caller meets is told to that caller; this is for whoever looks at the disk.
    tracing::warn!(writes = batch.len(), reason = %lost.error, "a transaction of the store was lost");
    if batch.len() == 1 || !lost.begun {
        for write in batch {
            write.fail(Error::sorted(&lost.error));
        }
        return;
    }
    for write in batch {
        if let Err(lost) = together(connection, slice::from_mut(write), counts) {
            write.fail(Error::sorted(&lost.error));
        }
    }
}

/// Runs `batch` in one transaction. When that is lost, nothing of it was written.
fn together(
    connection: &Connection,
    batch: &mut [Box<dyn Write>],
    counts: &Commits,
) -> Result<(), Lost> {
    let lost = |begun| move |error| Lost { begun, error };
    frame(connection, "BEGIN IMMEDIATE").map_err(lost(false))?;
    let done = batch
        .iter_mut()
        .try_for_each(|write| in_savepoint(connection, write.as_mut()))
        .and_then(|()| frame(connection, "COMMIT"))
        .map_err(lost(true));
    if done.is_ok() {
        counts.transactions.fetch_add(1, Ordering::Relaxed);
        counts
            .writes
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
    } else if !connection.is_autocommit()
        && let Err(error) = frame(connection, "ROLLBACK")
    {
        tracing::error!(%error, "a lost transaction could not be rolled back");
    }
    done
}

fn in_savepoint(connection: &Connection, write: &mut dyn Write) -> rusqlite::Result<()> {
    frame(connection, "SAVEPOINT caller")?;
    if !write.attempt(&mut Tx { connection }) {
        frame(connection, "ROLLBACK TO caller")?;
    }
    frame(connection, "RELEASE caller")
}
