//! One database: a writer that commits what is queued together, and a few readers.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use vaxel_core::time::Clock;

use crate::{
    counts::Counts,
    error::Error,
    link::{Link, Reader},
    tx::Tx,
    writer::Writer,
};

/// The resources, or the records.
pub(crate) struct Database {
    writer: Writer,
    /// As many permits as there are readers. Reads wait for one in the order of their arrival.
    turns: Arc<Semaphore>,
    /// Those that rest.
    readers: Arc<Mutex<Vec<Reader>>>,
    timeout: Duration,
    clock: Clock,
    pub(crate) counts: Arc<Counts>,
}

impl Database {
    /// `queue` writes may wait, each at most `timeout`; so long a read waits for its turn, too.
    pub(crate) fn start(
        writer: Link,
        readers: Vec<Reader>,
        (queue, timeout): (usize, Duration),
    ) -> std::io::Result<Self> {
        Ok(Self {
            turns: Arc::new(Semaphore::new(readers.len())),
            readers: Arc::new(Mutex::new(readers)),
            writer: Writer::start(writer, (queue.max(1), timeout))?,
            timeout,
            clock: Clock::system(),
            counts: Arc::default(),
        })
    }

    /// Runs `work` in a transaction; answers after the commit. `work` runs again when the
    /// transaction that it shared with others was lost.
    ///
    /// # Errors
    /// Those of `work`, of the engine, and of [`Writer::write`].
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let begun = self.clock.instant();
        let written = self.writer.write(work).await;
        self.counts.note(name, begun.elapsed(), written.as_ref());
        written
    }

    /// Runs `work` on one of the readers, off the caller's runtime threads. It sees one moment of
    /// the database.
    ///
    /// # Errors
    /// Those of `work` and of the engine; [`Error::Busy`] when no reader was free in time.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let begun = self.clock.instant();
        let found = self.read_on_a_turn(work).await;
        self.counts.note(name, begun.elapsed(), found.as_ref());
        found
    }

    async fn read_on_a_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = tokio::time::timeout(self.timeout, turn).await;
        let turn = turn.map_err(|_| Error::Busy)?.map_err(|_| Error::Closed)?;
        let readers = Arc::clone(&self.readers);
        let (told, found) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let Some(mut reader) = readers.lock().pop() else {
                return;
            };
            let found = reader.link().and_then(|link| {
                link.begin_read()?;
                guarded(|| work(&mut link.tx()))
            });
            let rest = |mut reader: Reader| {
                reader.roll_back();
                if !turn.semaphore().is_closed() {
                    readers.lock().push(reader);
                }
                drop((readers, turn));
            };
            // Who asked may have gone away. With PostgreSQL the end of the transaction is a round
            // trip, for which nobody has to wait.
            if reader.is_remote() {
                let _ = told.send(found);
                rest(reader);
            } else {
                rest(reader);
                let _ = told.send(found);
            }
        });
        // The work's own panics are caught; this is a runtime or a store that ends.
        found.await.map_err(|_| Error::Closed)?
    }

    /// Writes that wait now.
    pub(crate) fn queued(&self) -> usize {
        self.writer.queued()
    }

    /// Transactions that were committed, and the writes in them.
    pub(crate) fn commits(&self) -> (u64, u64) {
        self.writer.commits()
    }

    /// Writes what is queued and ends.
    pub(crate) fn close(&self) {
        self.turns.close();
        self.readers.lock().clear();
        self.writer.close();
    }
}

/// Runs what is not ours; its panic must not end the thread for all others.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(Err(Error::Panicked))
}
