//! SQLite: one writer thread that commits what is queued in one transaction (group commit, a
//! savepoint per caller, so that one that fails rolls back alone), and a few readers.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use crate::{
    error::Error,
    stmt::{Row, Stmt, Value},
};

/// Writes committed together at most.
const BATCH: usize = 256;

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
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Vec<Mutex<Connection>>,
    next_reader: AtomicU64,
    write_timeout: Duration,
    pub(crate) counts: Arc<Counts>,
    pub(crate) file: PathBuf,
}

/// What the writer has done.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) writes: AtomicU64,
    pub(crate) commits: AtomicU64,
}

type Work = Box<dyn FnOnce(&mut Tx<'_>) -> Result<Finish, Error> + Send>;
/// Tells the caller what became of its write, once it is known whether the commit held.
type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

struct Write {
    work: Work,
    /// Told when the work itself failed.
    refuse: Box<dyn FnOnce(Error) + Send>,
}

/// A transaction; statements run in it one after the other.
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
}

impl Tx<'_> {
    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(&mut self, stmt: &Stmt, values: &[Value<'_>]) -> Result<usize, Error> {
        let mut prepared = self
            .connection
            .prepare_cached(stmt.for_sqlite())
            .map_err(Error::of)?;
        prepared
            .execute(rusqlite::params_from_iter(values))
            .map_err(Error::of)
    }

    /// All rows of a statement, each read by `read`.
    pub(crate) fn query<T>(
        &mut self,
        stmt: &Stmt,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut prepared = self
            .connection
            .prepare_cached(stmt.for_sqlite())
            .map_err(Error::of)?;
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

impl Database {
    pub(crate) fn open(
        file: &Path,
        durability: Durability,
        migrations: &[&str],
        (readers, queue, write_timeout): (usize, usize, Duration),
    ) -> Result<Self, Error> {
        let connection = connect(file, durability)?;
        crate::migrations::apply(&connection, file, migrations)?;
        let mut reading = Vec::with_capacity(readers);
        for _ in 0..readers.max(1) {
            reading.push(Mutex::new(connect_reader(file)?));
        }
        let (sender, receiver) = mpsc::channel(queue.max(1));
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let writer = std::thread::Builder::new()
            .name("vaxel-store".to_owned())
            .spawn(move || write_all(&connection, receiver, &counted))
            .map_err(|source| Error::Unusable {
                path: file.to_owned(),
                source,
            })?;
        Ok(Self {
            writes: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            readers: reading,
            next_reader: AtomicU64::new(0),
            write_timeout,
            counts,
            file: file.to_owned(),
        })
    }

    /// Runs `work` in a transaction; answers after the commit. Waits for a place in the queue, at
    /// most for the configured time.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (told, answer) = oneshot::channel();
        let told = Arc::new(Mutex::new(Some(told)));
        let refused = Arc::clone(&told);
        let tell = move |result: Result<T, Error>| {
            if let Some(told) = told.lock().take() {
                // A caller that no longer waits does not need to know.
                let _ = told.send(result);
            }
        };
        let write = Write {
            work: Box::new(move |tx| {
                let value = work(tx)?;
                Ok(Box::new(move |committed: Result<(), Error>| {
                    tell(committed.map(|()| value));
                }))
            }),
            refuse: Box::new(move |error| {
                if let Some(told) = refused.lock().take() {
                    // As above.
                    let _ = told.send(Err(error));
                }
            }),
        };
        let sender = self.writes.lock().clone().ok_or(Error::Closed)?;
        let queued = tokio::time::timeout(self.write_timeout, sender.send(write)).await;
        queued
            .map_err(|_| Error::Busy)?
            .map_err(|_| Error::Closed)?;
        drop(sender);
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Runs `work` on one of the readers, off the caller's runtime threads.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let database = Arc::clone(self);
        let reading = tokio::task::spawn_blocking(move || {
            let turn = database.next_reader.fetch_add(1, Ordering::Relaxed);
            let count = database.readers.len() as u64;
            let reader = &database.readers[usize::try_from(turn % count).unwrap_or(0)];
            work(&mut Tx {
                connection: &reader.lock(),
            })
        });
        reading
            .await
            .map_err(|error| Error::unreadable("answer", error))?
    }

    /// Writes what is queued and ends the writer.
    pub(crate) fn close(&self) {
        self.writes.lock().take();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!(file = %self.file.display(), "the writer of the store panicked");
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.close();
    }
}

fn connect(file: &Path, durability: Durability) -> Result<Connection, Error> {
    let connection = Connection::open(file).map_err(|error| unusable(file, error))?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Relaxed => "NORMAL",
    };
    let settings = format!(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; PRAGMA foreign_keys=ON; \
         PRAGMA busy_timeout=5000; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-2048; \
         PRAGMA secure_delete=ON;"
    );
    connection
        .execute_batch(&settings)
        .map_err(|error| unusable(file, error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn connect_reader(file: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(file, flags).map_err(|error| unusable(file, error))?;
    let settings = "PRAGMA busy_timeout=5000; PRAGMA cache_size=-1024;";
    connection
        .execute_batch(settings)
        .map_err(|error| unusable(file, error))?;
    Ok(connection)
}

fn unusable(file: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Error::Corrupt {
            file: file.to_owned(),
            detail: error.to_string(),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Error::Unusable {
                path: file.to_owned(),
                source: std::io::Error::other(error),
            }
        }
        _ => Error::of(error),
    }
}

fn write_all(connection: &Connection, mut queue: mpsc::Receiver<Write>, counts: &Counts) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = queue.blocking_recv() {
        batch.push(first);
        while batch.len() < BATCH
            && let Ok(next) = queue.try_recv()
        {
            batch.push(next);
        }
        counts
            .writes
            .fetch_add(batch.len() as u64, Ordering::Relaxed);
        commit(connection, &mut batch);
        counts.commits.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs a batch in one transaction and tells every caller how it went.
fn commit(connection: &Connection, batch: &mut Vec<Write>) {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        let detail = error.to_string();
        tracing::error!(%error, "no transaction could be begun");
        for write in batch.drain(..) {
            (write.refuse)(again(&error, &detail));
        }
        return;
    }
    let mut finishes: Vec<Finish> = Vec::with_capacity(batch.len());
    for write in batch.drain(..) {
        match savepoint(connection, write.work) {
            Ok(finish) => finishes.push(finish),
            Err(error) => (write.refuse)(error),
        }
    }
    let committed = connection.execute_batch("COMMIT");
    if let Err(error) = &committed {
        tracing::error!(%error, writes = finishes.len(), "a transaction could not be committed");
        if let Err(error) = connection.execute_batch("ROLLBACK") {
            // SQLite rolls back by itself after some errors, and then says that there is nothing.
            tracing::debug!(%error, "nothing to roll back");
        }
    }
    for finish in finishes {
        finish(match &committed {
            Ok(()) => Ok(()),
            Err(error) => Err(again(error, &error.to_string())),
        });
    }
}

fn savepoint(connection: &Connection, work: Work) -> Result<Finish, Error> {
    connection
        .execute_batch("SAVEPOINT caller")
        .map_err(Error::of)?;
    // A panic in one caller's closure must not end the writer for all others.
    let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        work(&mut Tx { connection })
    }));
    let worked = worked.unwrap_or_else(|_| Err(Error::unreadable("write", "it panicked")));
    let end = if worked.is_ok() {
        "RELEASE caller"
    } else {
        "ROLLBACK TO caller; RELEASE caller"
    };
    match (worked, connection.execute_batch(end)) {
        (Ok(finish), Ok(())) => Ok(finish),
        (Ok(_), Err(error)) => Err(Error::of(error)),
        (Err(error), _) => Err(error),
    }
}

/// The same error for every caller of a batch.
fn again(error: &rusqlite::Error, detail: &str) -> Error {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Error::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy,
        _ => Error::unreadable("commit", detail.to_owned()),
    }
}
