//! The one writer of a database (group commit).
//!
//! What waits in the queue is committed in one transaction, so that many writers share the price of
//! one flush. Each has a savepoint of its own: one that fails rolls back alone. Nobody is answered
//! before the commit. When the transaction itself is lost (SQLite rolls all of it back when the disk
//! is full, and so does a commit that fails; a connection to PostgreSQL may break), each write is
//! tried again alone, so that one that is too large for the disk takes no other with it. A write that
//! met a passing fault, such as a deadlock, is tried again, too. What may have been written is not.

use std::{
    slice,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{database::guarded, error::Error, link::Link, tx::Tx};

/// Writes committed together at most.
const BATCH: usize = 256;
/// How often a write is tried that meets passing faults.
const TRIES: usize = 3;

/// The queue and the thread at its end.
pub(crate) struct Writer {
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
    stage: Stage,
    error: Error,
}

/// How far a lost transaction had come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It could not begin (others keep the database busy, say), and cannot for each write alone
    /// either.
    Begin,
    /// Nothing of it was written.
    Work,
    /// All of it was written, or nothing: nobody knows.
    Commit,
}

/// One caller's write.
trait Write: Send {
    /// Runs its work; true when that went well.
    fn attempt(&mut self, tx: &mut Tx<'_>) -> bool;
    /// What was written does not count. An error of its own is kept.
    fn fail(&mut self, error: Error);
    /// Whether it failed for a reason that may be gone the next time.
    fn may_go_well_again(&self) -> bool;
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
    pub(crate) fn start(link: Link, (queue, timeout): (usize, Duration)) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(queue);
        let commits: Arc<Commits> = Arc::default();
        let counted = Arc::clone(&commits);
        let thread = std::thread::Builder::new()
            .name("vaxel-store".to_owned())
            .spawn(move || write_all(link, receiver, &counted))?;
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
    pub(crate) async fn write<T: Send + 'static>(
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

    pub(crate) fn queued(&self) -> usize {
        let queue = self.queue.lock();
        queue
            .as_ref()
            .map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }

    pub(crate) fn commits(&self) -> (u64, u64) {
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
    pub(crate) fn close(&self) {
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

    fn may_go_well_again(&self) -> bool {
        matches!(&self.outcome, Some(Err(error)) if error.is_passing())
    }

    fn is_abandoned(&self) -> bool {
        self.told.is_closed()
    }

    fn answer(self: Box<Self>) {
        // A caller that no longer waits does not need to know.
        let _ = self.told.send(self.outcome.unwrap_or(Err(Error::Closed)));
    }
}

fn write_all(mut link: Link, mut queue: mpsc::Receiver<Box<dyn Write>>, counts: &Commits) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = queue.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        batch.retain(|write| !write.is_abandoned());
        commit(&mut link, &mut batch, counts);
        for write in batch.drain(..) {
            write.answer();
        }
    }
    link.finish();
}

fn commit(link: &mut Link, batch: &mut [Box<dyn Write>], counts: &Commits) {
    if batch.is_empty() {
        return;
    }
    let lost = together(link, batch, counts).err();
    if let Some(Lost { stage, error }) = &lost {
        // What each caller meets is told to that caller; this is for whoever looks at the store.
        tracing::warn!(writes = batch.len(), reason = %error, "a transaction of the store was lost");
        for write in &mut *batch {
            write.fail(error.again());
        }
        if *stage != Stage::Work {
            return;
        }
    }
    let was_alone = batch.len() == 1;
    for write in batch {
        let again = lost.is_some() && !was_alone;
        if (again || write.may_go_well_again()) && alone(link, write, counts) == Stage::Begin {
            // The others say why they were lost; they would wait for nothing.
            return;
        }
    }
}

/// Tries a write in a transaction of its own; returns how far the last one came.
fn alone(link: &mut Link, write: &mut Box<dyn Write>, counts: &Commits) -> Stage {
    for _ in 0..TRIES {
        let lost = together(link, slice::from_mut(write), counts).err();
        if let Some(Lost { stage, error }) = lost {
            write.fail(error);
            if stage != Stage::Work {
                return stage;
            }
        }
        if !write.may_go_well_again() {
            break;
        }
    }
    Stage::Work
}

/// Runs `batch` in one transaction. When that is lost before its commit, nothing of it was written.
fn together(link: &mut Link, batch: &mut [Box<dyn Write>], counts: &Commits) -> Result<(), Lost> {
    let at = |stage| move |error| Lost { stage, error };
    link.begin().map_err(at(Stage::Begin))?;
    let done = work(link, batch);
    if matches!(done, Ok(true)) {
        let committed = link.commit();
        if committed.is_ok() {
            counts.transactions.fetch_add(1, Ordering::Relaxed);
            let writes = batch.len() as u64;
            counts.writes.fetch_add(writes, Ordering::Relaxed);
            return Ok(());
        }
        link.roll_back();
        return committed.map_err(|error| {
            let stage = match error {
                Error::Unknown { .. } => Stage::Commit,
                _ => Stage::Work,
            };
            Lost { stage, error }
        });
    }
    let unbegun = link.could_not_begin();
    link.roll_back();
    match unbegun {
        Some(error) => Err(at(Stage::Begin)(error)),
        None => done.map(drop).map_err(at(Stage::Work)),
    }
}

/// The callers' work. Whether there is something to commit.
fn work(link: &mut Link, batch: &mut [Box<dyn Write>]) -> Result<bool, Error> {
    if let [only] = batch {
        return Ok(only.attempt(&mut link.tx()));
    }
    for write in batch {
        link.save()?;
        if write.attempt(&mut link.tx()) && is_settled(link, write.as_mut()) {
            link.keep()?;
        } else {
            link.take_back()?;
        }
    }
    Ok(true)
}

/// Whether all went well of which the caller did not wait for the end.
fn is_settled(link: &mut Link, write: &mut dyn Write) -> bool {
    let settled = link.settle();
    settled.map_err(|error| write.fail(error)).is_ok()
}
