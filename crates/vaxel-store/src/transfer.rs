//! Moves everything from one place to another: from files to a server, or back.
//!
//! What is there is read at one moment and written in one transaction for the resources and one for
//! the records, so that a move that fails leaves an empty target and an untouched source. Tables and columns are those that the
//! steps of the schema made; nothing here has to know what they hold.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    database::Database,
    error::Error,
    lock::DirLock,
    migrations,
    stmt::{Kind, Row, Stmt, Value, values},
    store::{Config, Store},
    tx::{Engine, Tx},
};

/// A move is one transaction, which may take its time.
pub(crate) const PATIENCE: Duration = Duration::from_hours(1);
/// Rows that are on their way together.
pub(crate) const BATCH: usize = 100;
/// Batches that may wait to be written; the reader waits while there are more.
pub(crate) const WAITING: usize = 8;

/// What was moved of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub table: String,
    /// How many rows.
    pub rows: u64,
}

pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<(String, Kind)>,
}

pub(crate) enum Parcel {
    Rows(Vec<Vec<Value<'static>>>),
    /// The table is complete, with the digest of its rows.
    End(u64, u64),
}

/// Copies everything that is stored at `from` to the empty place `to`, checks what arrived against
/// what was read, and returns what it was. `progress` is told of each table that is done. The source
/// stays as it is.
///
/// # Errors
/// [`Error::NotEmpty`] and [`Error::InUse`] before anything is written; those of either engine, after
/// which the target is empty.
pub async fn transfer(
    from: &Config,
    to: &Config,
    progress: impl Fn(&Moved) + Send + Sync + Clone + 'static,
) -> Result<Vec<Moved>, Error> {
    let locks = [from, to].into_iter().filter_map(|config| {
        let is_known = config.dir == from.dir && !std::ptr::eq(config, from);
        let is_needed = config.url.is_none() || std::ptr::eq(config, from);
        (is_needed && !is_known).then_some(&config.dir)
    });
    let _locks = locks
        .map(|dir| {
            crate::store::make_private_dir(dir)?;
            DirLock::take(dir)
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let patient = |config: &Config| Config {
        write_timeout: PATIENCE,
        ..config.clone()
    };
    let source = Store::open_unlocked(&patient(from))?;
    let target = Store::open_unlocked(&patient(to))?;
    let place = target.stats().place;
    let mut all = Vec::new();
    let parts = [
        (
            source.resources(),
            target.resources(),
            migrations::RESOURCES,
        ),
        (source.records(), target.records(), migrations::RECORDS),
    ];
    for (_, target, steps) in parts {
        refuse_rows(target, steps, &place).await?;
    }
    for (index, (source, target, steps)) in parts.into_iter().enumerate() {
        match copy(source, target, steps, progress.clone()).await {
            Ok(moved) => all.extend(moved),
            Err(error) => {
                for (_, target, steps) in &parts[..index] {
                    clear(target, steps).await?;
                }
                return Err(error);
            }
        }
    }
    source.close().await;
    target.close().await;
    Ok(all)
}

async fn copy(
    source: &Database,
    target: &Database,
    steps: &[&str],
    progress: impl Fn(&Moved) + Send + Sync + 'static,
) -> Result<Vec<Moved>, Error> {
    let names = tables_of(steps);
    let (sender, receiver) = sync_channel(WAITING);
    let (wanted, names_there) = (names.clone(), names);
    let reading = source.read("move", move |tx| {
        for table in tables(tx, &wanted)? {
            send(tx, &table, &sender)?;
        }
        Ok(())
    });
    // A write may be tried again; what was read is gone then.
    let receiver = Mutex::new(Some(receiver));
    let writing = target.write("move", move |tx| {
        let Some(parcels) = receiver.lock().take() else {
            return Err(Error::Engine(
                "the target was lost while it was written".into(),
            ));
        };
        let tables = tables(tx, &names_there)?;
        let mut all = Vec::new();
        for table in &tables {
            let rows = receive(tx, table, &parcels)?;
            let name = table.name.clone();
            all.push(Moved { table: name, rows });
            all.last().into_iter().for_each(&progress);
        }
        Ok(all)
    });
    let (read, written) = tokio::join!(reading, writing);
    // Who reads only sees that nobody takes it any more; who writes knows why, unless it is the
    // other way round.
    match (read, written) {
        (Ok(()), Ok(all)) => Ok(all),
        (Err(error), Ok(_) | Err(Error::Missing)) | (_, Err(error)) => Err(error),
    }
}

/// Names of the tables that are there after these steps, sorted.
pub(crate) fn tables_of(steps: &[&str]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for line in steps.iter().flat_map(|step| step.lines()) {
        let word = |rest: &str| {
            rest.split([' ', '(', ';'])
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            names.insert(word(rest));
        } else if let Some(rest) = line.strip_prefix("DROP TABLE ") {
            names.remove(&word(rest));
        }
    }
    names.into_iter().collect()
}

/// The tables of these names with their columns, in the order of their names on both engines.
pub(crate) fn tables(tx: &mut Tx<'_>, names: &[String]) -> Result<Vec<Table>, Error> {
    static OF_SQLITE: Stmt =
        Stmt::new("SELECT name, type FROM pragma_table_info($1) ORDER BY name");
    static OF_POSTGRES: Stmt = Stmt::new(
        "SELECT column_name::text COLLATE \"C\", data_type::text FROM information_schema.columns \
         WHERE table_schema = current_schema() AND table_name = $1 ORDER BY 1",
    );
    let stmt = match tx.engine {
        Engine::Sqlite(_) => &OF_SQLITE,
        Engine::Postgres(_) => &OF_POSTGRES,
    };
    let mut all = Vec::new();
    for name in names {
        let columns = tx.query(stmt, &values![name.as_str()], |row| {
            let kind = match row.text(1)?.to_ascii_uppercase().as_str() {
                "TEXT" => Kind::Text,
                "BLOB" | "BYTEA" => Kind::Blob,
                _ => Kind::Int,
            };
            Ok((row.text(0)?, kind))
        })?;
        all.push(Table {
            name: name.clone(),
            columns,
        });
    }
    Ok(all)
}

impl Table {
    /// A text with the names of the columns. There is one per table and move, and statements are
    /// prepared once: it stays for the life of the process.
    fn stmt(&self, text: impl FnOnce(&str) -> String) -> &'static Stmt {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let text = text(&names.join(", "));
        Box::leak(Box::new(Stmt::new(Box::leak(text.into_boxed_str()))))
    }

    /// How many rows it has.
    pub(crate) fn count(&self, tx: &mut Tx<'_>) -> Result<u64, Error> {
        let count = self.stmt(|_| format!("SELECT count(*) FROM {}", self.name));
        Ok(tx.find(count, &[], |row| row.count(0))?.unwrap_or(0))
    }

    pub(crate) fn select(&self) -> &'static Stmt {
        self.stmt(|columns| format!("SELECT {columns} FROM {}", self.name))
    }

    fn insert(&self, rows: usize) -> &'static Stmt {
        let width = self.columns.len();
        let row = |row: usize| {
            let values: Vec<String> = (1..=width)
                .map(|at| format!("${}", row * width + at))
                .collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<String> = (0..rows).map(row).collect();
        self.stmt(|columns| {
            let rows = rows.join(", ");
            format!("INSERT INTO {} ({columns}) VALUES {rows}", self.name)
        })
    }

    pub(crate) fn read(&self, row: &Row<'_>) -> Result<Vec<Value<'static>>, Error> {
        let values = self.columns.iter().enumerate().map(|(at, (_, kind))| {
            Ok(match kind {
                Kind::Int => row.maybe_int(at)?.map(Value::Int),
                // What PostgreSQL cannot hold is written as it is read there, for the digest.
                Kind::Text => row
                    .maybe_text(at)?
                    .map(|text| Value::Text(text.replace('\0', "\u{FFFD}").into())),
                Kind::Blob => row.maybe_blob(at)?.map(|bytes| Value::Blob(bytes.into())),
            }
            .unwrap_or(Value::Null(*kind)))
        });
        values.collect()
    }
}

fn send(tx: &mut Tx<'_>, table: &Table, to: &SyncSender<Parcel>) -> Result<(), Error> {
    // Nobody takes it any more: the other side says why.
    let send = |parcel| to.send(parcel).map_err(|_| Error::Missing);
    let (mut rows, mut digest) = (0, 0_u64);
    let mut batch = Vec::with_capacity(BATCH);
    tx.each(table.select(), &table.name, |row| {
        let row = table.read(row)?;
        rows += 1;
        digest = digest.wrapping_add(digest_of(&row));
        batch.push(row);
        if batch.len() == BATCH {
            send(Parcel::Rows(std::mem::take(&mut batch)))?;
        }
        Ok(())
    })?;
    if !batch.is_empty() {
        send(Parcel::Rows(batch))?;
    }
    send(Parcel::End(rows, digest))
}

pub(crate) fn receive(
    tx: &mut Tx<'_>,
    table: &Table,
    from: &Receiver<Parcel>,
) -> Result<u64, Error> {
    let (one, many) = (table.insert(1), table.insert(BATCH));
    let (rows, digest) = loop {
        // Missing: who reads has ended before its time, and says why.
        match from.recv().map_err(|_| Error::Missing)? {
            Parcel::Rows(batch) if batch.len() == BATCH => {
                tx.execute(many, &batch.concat())?;
            }
            Parcel::Rows(batch) => {
                let mut insert = tx.prepare(one)?;
                for row in &batch {
                    insert.execute(row)?;
                }
            }
            Parcel::End(rows, digest) => break (rows, digest),
        }
    };
    tx.continue_numbers(
        &table.name,
        table.columns.iter().any(|(name, _)| name == "seq"),
    )?;
    let (mut found, mut sum) = (0, 0_u64);
    tx.each(table.select(), &table.name, |row| {
        found += 1;
        sum = sum.wrapping_add(digest_of(&table.read(row)?));
        Ok(())
    })?;
    if (found, sum) == (rows, digest) {
        return Ok(rows);
    }
    Err(Error::Differs {
        table: table.name.clone(),
        rows,
        found,
    })
}

/// Refuses a place that has rows in any of its tables.
pub(crate) async fn refuse_rows(
    target: &Database,
    steps: &[&str],
    place: &str,
) -> Result<(), Error> {
    let (names, place) = (tables_of(steps), place.to_owned());
    let counting = target.read("move", move |tx| {
        for table in tables(tx, &names)? {
            let rows = table.count(tx)?;
            if rows > 0 {
                let table = table.name;
                return Err(Error::NotEmpty { place, table, rows });
            }
        }
        Ok(())
    });
    counting.await
}

/// Takes back what a move wrote that cannot be completed.
pub(crate) async fn clear(target: &Database, steps: &[&str]) -> Result<(), Error> {
    let names = tables_of(steps);
    let clearing = target.write("move", move |tx| {
        for table in tables(tx, &names)? {
            let all = table.stmt(|_| format!("DELETE FROM {}", table.name));
            tx.execute(all, &[])?;
        }
        Ok(())
    });
    clearing.await
}

/// A number that rows have in common when they are the same; sums of it do not depend on the order.
pub(crate) fn digest_of(row: &[Value<'_>]) -> u64 {
    let mut digest = DefaultHasher::new();
    for value in row {
        match value {
            Value::Null(_) => 0_u8.hash(&mut digest),
            Value::Int(number) => number.hash(&mut digest),
            Value::Text(text) => text.hash(&mut digest),
            Value::Blob(bytes) => bytes.hash(&mut digest),
        }
    }
    digest.finish()
}

/// Whether there is a store of files in a directory.
pub fn has_files(dir: &Path) -> bool {
    dir.join("vaxel.db").exists()
}
