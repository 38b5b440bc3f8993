//! SQLite: one writer that commits what is queued together, and a few readers.
//!
//! Everything that only SQLite has is in here and in `sqlite/`; the resources above see [`Tx`].

use std::{path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, OpenFlags};
use tokio::sync::Semaphore;
use vaxel_core::time::Clock;

use crate::{
    counts::Counts,
    error::Error,
    sqlite::writer::Writer,
    stmt::{Row, Stmt, Value},
};

mod writer;

/// How soon a commit is on disk.
#[derive(Clone, Copy)]
pub(crate) enum Durability {
    /// Before it is answered.
    Full,
    /// A crash of the machine may cost the last moments, never the file.
    Relaxed,
}

/// One database file.
pub(crate) struct Database {
    writer: Writer,
    /// As many permits as there are readers. Reads wait for one in the order of their arrival.
    turns: Arc<Semaphore>,
    /// Those that rest.
    readers: Arc<Mutex<Vec<Connection>>>,
    timeout: Duration,
    clock: Clock,
    pub(crate) counts: Arc<Counts>,
}

/// A transaction; statements run in it one after the other.
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
}

impl Tx<'_> {
    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(&mut self, stmt: &Stmt, values: &[Value<'_>]) -> Result<usize, Error> {
        self.prepare(stmt)?.execute(values)
    }

    /// A statement that is run many times.
    pub(crate) fn prepare(&mut self, stmt: &Stmt) -> Result<Prepared<'_>, Error> {
        let prepared = self.connection.prepare_cached(stmt.for_sqlite());
        prepared.map(Prepared).map_err(Error::of)
    }

    /// All rows of a statement, each read by `read`.
    pub(crate) fn query<T>(
        &mut self,
        stmt: &Stmt,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut prepared = self.prepare(stmt)?.0;
        let mut rows = prepared
            .query(rusqlite::params_from_iter(values))
            .map_err(Error::of)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(Error::of)? {
            found.push(read(&Row(row))?);
        }
        Ok(found)
    }

    /// The first row, when there is one.
    pub(crate) fn find<T>(
        &mut self,
        stmt: &Stmt,
        values: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        Ok(self.query(stmt, values, read)?.into_iter().next())
    }
}

/// A statement that was prepared once.
pub(crate) struct Prepared<'a>(CachedStatement<'a>);

impl Prepared<'_> {
    /// Runs it; returns how many rows it changed.
    pub(crate) fn execute(&mut self, values: &[Value<'_>]) -> Result<usize, Error> {
        let values = rusqlite::params_from_iter(values);
        self.0.execute(values).map_err(Error::of)
    }
}

impl Database {
    pub(crate) fn open(
        file: &Path,
        durability: Durability,
        migrations: &[&str],
        (readers, queue, timeout): (usize, usize, Duration),
    ) -> Result<Self, Error> {
        let connection = connect(file, durability)?;
        crate::migrations::apply(&connection, file, migrations)?;
        let readers = readers.max(1);
        let reading: Result<Vec<_>, Error> = (0..readers).map(|_| connect_reader(file)).collect();
        Ok(Self {
            turns: Arc::new(Semaphore::new(readers)),
            readers: Arc::new(Mutex::new(reading?)),
            writer: Writer::start(connection, file, (queue.max(1), timeout))?,
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
        let reading = tokio::task::spawn_blocking(move || {
            let Some(connection) = readers.lock().pop() else {
                return Err(Error::Closed);
            };
            let found = read_at_one_moment(&connection, work);
            if !turn.semaphore().is_closed() {
                readers.lock().push(connection);
            }
            drop(turn);
            found
        });
        // The work's own panics are caught; this is a runtime that ends.
        reading.await.map_err(|_| Error::Closed)?
    }

    /// Writes that wait now.
    pub(crate) fn queued(&self) -> usize {
        self.writer.queued()
    }

    /// Transactions that were committed, and the writes in them.
    pub(crate) fn commits(&self) -> (u64, u64) {
        self.writer.commits()
    }

    /// Writes what is queued, moves all of it into the file and ends.
    pub(crate) fn close(&self) {
        self.turns.close();
        self.readers.lock().clear();
        self.writer.close();
    }
}

fn read_at_one_moment<T>(
    connection: &Connection,
    work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    frame(connection, "BEGIN").map_err(Error::of)?;
    let found = guarded(|| work(&mut Tx { connection }));
    let ended = frame(connection, "ROLLBACK").map_err(Error::of);
    found.and_then(|found| ended.map(|()| found))
}

/// Runs what is not ours; its panic must not end the thread for all others.
fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or(Err(Error::Panicked))
}

/// Runs one of the statements around the work of callers.
fn frame(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

fn connect(file: &Path, durability: Durability) -> Result<Connection, Error> {
    let connection = Connection::open(file).map_err(|error| Error::opening(file, error))?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    let settings = format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA foreign_keys=ON; \
         PRAGMA busy_timeout=5000; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2048; \
         PRAGMA secure_delete=ON; PRAGMA journal_size_limit=16777216;"
    );
    connection
        .execute_batch(&settings)
        .map_err(|error| Error::opening(file, error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn connect_reader(file: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(file, flags).map_err(|error| Error::opening(file, error))?;
    let settings = "PRAGMA busy_timeout=5000; PRAGMA cache_size=-1024;";
    connection
        .execute_batch(settings)
        .map_err(|error| Error::opening(file, error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}
