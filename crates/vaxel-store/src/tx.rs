//! A transaction, as the resources see it: the same for every engine.

use rusqlite::{CachedStatement, Connection};

use crate::{
    chain::Chain,
    error::Error,
    postgres::Session,
    stmt::{Row, Stmt, Value},
};

/// A transaction; statements run in it one after the other. One that fails spoils what its caller
/// does in the transaction: whatever follows is refused by PostgreSQL, so it is to be given on.
pub(crate) struct Tx<'a> {
    pub(crate) engine: Engine<'a>,
    /// What chains lines of the audit, where something is written.
    pub(crate) chain: Option<&'a Chain>,
}

/// What a transaction runs on.
pub(crate) enum Engine<'a> {
    Sqlite(&'a Connection),
    Postgres(&'a mut Session),
}

impl<'a> Tx<'a> {
    pub(crate) const fn on(engine: Engine<'a>) -> Self {
        Self {
            engine,
            chain: None,
        }
    }
}

impl Tx<'_> {
    /// The same transaction, in which lines of the audit are chained.
    pub(crate) fn chaining<'b>(&'b mut self, chain: &'b Chain) -> Tx<'b> {
        let engine = match &mut self.engine {
            Engine::Sqlite(connection) => Engine::Sqlite(connection),
            Engine::Postgres(session) => Engine::Postgres(session),
        };
        Tx {
            engine,
            chain: Some(chain),
        }
    }

    /// Runs a statement; returns how many rows it changed.
    pub(crate) fn execute(&mut self, stmt: &Stmt, values: &[Value<'_>]) -> Result<usize, Error> {
        self.prepare(stmt)?.execute(values)
    }

    /// Runs a statement of which nobody wants to know more than that it went well. PostgreSQL is
    /// told together with what follows, which saves a round trip; that it failed shows there.
    pub(crate) fn put(&mut self, stmt: &Stmt, values: &[Value<'_>]) -> Result<(), Error> {
        self.prepare(stmt)?.put(values)
    }

    /// A statement that is run many times.
    pub(crate) fn prepare(&mut self, stmt: &Stmt) -> Result<Prepared<'_>, Error> {
        match &mut self.engine {
            Engine::Sqlite(connection) => {
                let prepared = connection.prepare_cached(stmt.for_sqlite());
                prepared.map(Prepared::Sqlite).map_err(Error::of)
            }
            // It is prepared when it is known what its values are, and kept then.
            Engine::Postgres(session) => Ok(Prepared::Postgres(session, stmt.for_postgres())),
        }
    }

    /// Those rows of a statement that can be read.
    pub(crate) fn query_readable<T>(
        &mut self,
        stmt: &Stmt,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.query(stmt, values, |row| Ok(read(row).ok()))?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// All rows of a statement, each read by `read`.
    pub(crate) fn query<T>(
        &mut self,
        stmt: &Stmt,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        match &mut self.engine {
            Engine::Sqlite(connection) => {
                let prepared = connection.prepare_cached(stmt.for_sqlite());
                let mut prepared = prepared.map_err(Error::of)?;
                let mut rows = prepared
                    .query(rusqlite::params_from_iter(values))
                    .map_err(Error::of)?;
                let mut found = Vec::new();
                while let Some(row) = rows.next().map_err(Error::of)? {
                    found.push(read(&Row::Sqlite(row))?);
                }
                Ok(found)
            }
            Engine::Postgres(session) => {
                let rows = session.query(stmt.for_postgres(), values)?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
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

/// For moves between engines.
impl Tx<'_> {
    /// Every row of a statement without values, however many there are; `name` is that of its table.
    pub(crate) fn each(
        &mut self,
        stmt: &'static Stmt,
        name: &str,
        mut read: impl FnMut(&Row<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match &mut self.engine {
            Engine::Sqlite(connection) => {
                let mut prepared = connection.prepare(stmt.for_sqlite()).map_err(Error::of)?;
                let mut rows = prepared.query([]).map_err(Error::of)?;
                while let Some(row) = rows.next().map_err(Error::of)? {
                    read(&Row::Sqlite(row))?;
                }
                Ok(())
            }
            Engine::Postgres(session) => {
                session.each(stmt.for_postgres(), name, |row| read(&Row::Postgres(row)))
            }
        }
    }

    /// Numbers go on behind those that were copied. SQLite does that by itself.
    pub(crate) fn continue_numbers(&mut self, table: &str, has_seq: bool) -> Result<(), Error> {
        match &mut self.engine {
            Engine::Postgres(session) if has_seq => session.continue_numbers(table),
            Engine::Sqlite(_) | Engine::Postgres(_) => Ok(()),
        }
    }
}

/// A statement that was prepared once.
pub(crate) enum Prepared<'a> {
    Sqlite(CachedStatement<'a>),
    Postgres(&'a mut Session, &'static str),
}

impl Prepared<'_> {
    /// Runs it; returns how many rows it changed.
    pub(crate) fn execute(&mut self, values: &[Value<'_>]) -> Result<usize, Error> {
        match self {
            Self::Sqlite(prepared) => {
                let values = rusqlite::params_from_iter(values);
                prepared.execute(values).map_err(Error::of)
            }
            Self::Postgres(session, text) => session.execute(text, values),
        }
    }

    /// The same as [`Tx::put`].
    pub(crate) fn put(&mut self, values: &[Value<'_>]) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => self.execute(values).map(drop),
            Self::Postgres(session, text) => session.put(text, values),
        }
    }
}
