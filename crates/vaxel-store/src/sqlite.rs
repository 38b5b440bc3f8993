//! SQLite: files of their own, opened for one writer and a few readers.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use crate::{
    database::Database,
    error::Error,
    link::{Link, Reader},
};

/// How soon a commit is on disk.
#[derive(Clone, Copy)]
pub(crate) enum Durability {
    /// Before it is answered.
    Full,
    /// A crash of the machine may cost the last moments, never the file.
    Relaxed,
}

/// Opens one file, which is brought to the newest schema.
pub(crate) fn open(
    file: &Path,
    durability: Durability,
    migrations: &[&str],
    (readers, queue, timeout): (usize, usize, Duration),
) -> Result<Database, Error> {
    let connection = connect(file, durability)?;
    crate::migrations::apply(&connection, file, migrations)?;
    let readers = (0..readers.max(1))
        .map(|_| Reader::Unopened(file.to_owned()))
        .collect();
    let started = Database::start(Link::Sqlite(connection), readers, (queue, timeout));
    started.map_err(|source| Error::unusable(file, source))
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

pub(crate) fn connect_reader(file: &Path) -> Result<Link, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(file, flags).map_err(|error| Error::opening(file, error))?;
    let settings = "PRAGMA busy_timeout=5000; PRAGMA cache_size=-1024;";
    connection
        .execute_batch(settings)
        .map_err(|error| Error::opening(file, error))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(Link::Sqlite(connection))
}
