//! One connection to a database, and what goes around the work of callers on it.

use std::path::PathBuf;

use rusqlite::Connection;

use crate::{
    error::Error,
    postgres::Session,
    sqlite,
    tx::{Engine, Tx},
};

/// A connection of either engine.
pub(crate) enum Link {
    Sqlite(Connection),
    Postgres(Box<Session>),
}

impl Link {
    /// Begins a transaction that writes. With PostgreSQL this only says so: whether it can be begun
    /// shows with the first statement.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => frame(connection, "BEGIN IMMEDIATE"),
            Self::Postgres(session) => {
                session.begin_write();
                Ok(())
            }
        }
    }

    /// Begins a transaction that sees one moment of the database.
    pub(crate) fn begin_read(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => frame(connection, "BEGIN"),
            Self::Postgres(session) => {
                session.begin_read();
                Ok(())
            }
        }
    }

    /// From here on a caller's work can be taken back alone.
    pub(crate) fn save(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => frame(connection, "SAVEPOINT caller"),
            Self::Postgres(session) => {
                session.save();
                Ok(())
            }
        }
    }

    /// Waits for what was said and not answered yet.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(session) => session.settle(),
        }
    }

    /// Keeps what was done since it was saved.
    pub(crate) fn keep(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => frame(connection, "RELEASE caller"),
            Self::Postgres(session) => {
                session.keep();
                Ok(())
            }
        }
    }

    /// Takes back what was done since it was saved.
    pub(crate) fn take_back(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => {
                frame(connection, "ROLLBACK TO caller")?;
                frame(connection, "RELEASE caller")
            }
            Self::Postgres(session) => session.take_back(),
        }
    }

    /// Commits; on return it is as durable as the database was opened for.
    pub(crate) fn commit(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(connection) => frame(connection, "COMMIT"),
            Self::Postgres(session) => session.commit(),
        }
    }

    /// Ends the transaction, when there still is one; nothing of it stays.
    pub(crate) fn roll_back(&mut self) {
        let ended = match self {
            Self::Sqlite(connection) if connection.is_autocommit() => Ok(()),
            Self::Sqlite(connection) => frame(connection, "ROLLBACK"),
            Self::Postgres(session) => session.roll_back(),
        };
        if let Err(error) = ended {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }

    /// Why the transaction did not even begin, where that shows only in its work.
    pub(crate) fn could_not_begin(&self) -> Option<Error> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(session) => session.could_not_begin(),
        }
    }

    /// The transaction that was begun.
    pub(crate) fn tx(&mut self) -> Tx<'_> {
        match self {
            Self::Sqlite(connection) => Tx::on(Engine::Sqlite(connection)),
            Self::Postgres(session) => Tx::on(Engine::Postgres(session)),
        }
    }

    /// Ends it in order. SQLite's log goes into its file, so that a copy of the one file is a copy of
    /// everything.
    pub(crate) fn finish(self) {
        match self {
            Self::Sqlite(connection) => {
                let moved = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
                if let Err(error) = moved {
                    tracing::warn!(%error, "the write-ahead log stays beside the database; the next start reads it");
                }
            }
            Self::Postgres(session) => session.finish(),
        }
    }
}

/// A link to read on. One to a file of SQLite is opened when it is first needed: it takes a hundred
/// kilobytes and more, and most are never needed on a machine with little to do.
pub(crate) enum Reader {
    Unopened(PathBuf),
    Open(Link),
}

impl Reader {
    /// The link, opened now where it was not.
    pub(crate) fn link(&mut self) -> Result<&mut Link, Error> {
        loop {
            match self {
                Self::Unopened(file) => *self = Self::Open(sqlite::connect_reader(file)?),
                Self::Open(link) => return Ok(link),
            }
        }
    }

    /// Ends the transaction, when there is one.
    pub(crate) fn roll_back(&mut self) {
        if let Self::Open(link) = self {
            link.roll_back();
        }
    }

    /// Whether the end of a transaction is a round trip.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self, Self::Open(Link::Postgres(_)))
    }
}

/// Runs one of the statements around the work of callers.
fn frame(connection: &Connection, sql: &str) -> Result<(), Error> {
    let done = connection
        .prepare_cached(sql)
        .and_then(|mut sql| sql.execute([]));
    done.map(drop).map_err(Error::of)
}
