//! From the lines of a backup to a store: checked while it is written beside what is there, and put in its
//! place at the end, whole or not at all.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use parking_lot::Mutex;
use vaxel_core::secret::Secret;

use crate::{
    backup::{Schema, TableHead},
    database::Database,
    error::Error,
    lock::DirLock,
    stmt::Value,
    store::{Config, Store, make_private_dir},
    transfer::{
        BATCH, Moved, PATIENCE, Parcel, WAITING, clear, digest_of, receive, refuse_rows, tables,
        tables_of,
    },
};

/// What is restored.
pub struct Restoring {
    /// How far the schema had come; what is restored is brought to the newest one.
    pub schema: Schema,
    /// Heads of its tables, in their order.
    pub tables: Vec<TableHead>,
    /// Files of the data directory, by name.
    pub files: Vec<(String, Secret<Vec<u8>>)>,
    /// What is added to the names of files that are in the way; `None`: nothing may be in the way.
    pub aside: Option<String>,
}

/// The lines of a backup: heads of tables and rows, as [`Store::dump`] wrote them.
pub type Lines = Box<dyn Iterator<Item = Result<Vec<u8>, Error>> + Send>;

/// Makes a store at `to` of what `lines` say. Nothing is seen of it before all of it is written, and what
/// was there is moved aside then.
///
/// # Errors
/// [`Error::InUse`], [`Error::Occupied`] and [`Error::NotEmpty`] before anything is written;
/// [`Error::NoRow`] and those of the engine, after which everything is as it was.
pub async fn restore(to: &Config, what: Restoring, lines: Lines) -> Result<Vec<Moved>, Error> {
    what.schema.require_known(Path::new("the backup"))?;
    make_private_dir(&to.dir)?;
    let _lock = DirLock::take(&to.dir)?;
    let names = names(to, &what.files);
    if what.aside.is_none()
        && let Some(path) = names
            .iter()
            .map(|name| to.dir.join(name))
            .find(|path| path.exists())
    {
        return Err(Error::Occupied(path));
    }
    let staging = Staging::new(&to.dir)?;
    let mut place = Config {
        write_timeout: PATIENCE,
        ..to.clone()
    };
    if to.url.is_none() {
        place.dir.clone_from(&staging.0);
    }
    let moved = fill(&place, &what, lines).await?;
    // Brings it to the newest schema.
    Store::open_unlocked(&place)?.close().await;
    for (name, bytes) in &what.files {
        write_file(&staging.0.join(name), bytes.expose())?;
    }
    swap(&staging.0, &to.dir, (&names, what.aside.as_deref()))?;
    Ok(moved)
}

/// Names of the files that a restore puts into the data directory.
fn names(to: &Config, files: &[(String, Secret<Vec<u8>>)]) -> Vec<String> {
    let databases = ["records.db", "vaxel.db"];
    let databases = databases.iter().filter(|_| to.url.is_none());
    let files = files.iter().map(|(name, _)| name.clone());
    files.chain(databases.map(ToString::to_string)).collect()
}

/// A directory that goes away with what is left in it.
struct Staging(PathBuf);

impl Staging {
    fn new(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("restore.new");
        let unusable = |error| Error::unusable(&path, error);
        if path.exists() {
            // Of one that was killed: the directory is locked by us.
            fs::remove_dir_all(&path).map_err(unusable)?;
        }
        make_private_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "restore.new stays in the data directory; the next restore removes it");
        }
    }
}

async fn fill(place: &Config, what: &Restoring, lines: Lines) -> Result<Vec<Moved>, Error> {
    let store = Store::open_unlocked_at(place, what.schema)?;
    let steps = [what.schema.resource_steps(), what.schema.record_steps()];
    let databases = [store.resources(), store.records()];
    for (database, steps) in databases.into_iter().zip(steps) {
        refuse_rows(database, steps, &store.stats().place).await?;
    }
    let filled = fill_parts(databases, steps, (what.tables.clone(), lines)).await;
    if filled.is_err() {
        for (database, steps) in databases.into_iter().zip(steps) {
            if let Err(error) = clear(database, steps).await {
                tracing::error!(%error, "what was restored halfway could not be taken back");
            }
        }
    }
    store.close().await;
    filled
}

async fn fill_parts(
    databases: [&Database; 2],
    steps: [&[&str]; 2],
    (heads, lines): (Vec<TableHead>, Lines),
) -> Result<Vec<Moved>, Error> {
    let known = steps.map(tables_of);
    let part_of = |head: &TableHead| known.iter().position(|names| names.contains(&head.table));
    let (mut parts, mut order) = ([Vec::new(), Vec::new()], Vec::new());
    for head in heads {
        let part = part_of(&head)
            .ok_or_else(|| Error::NoRow(format!("there is no table {}", head.table)))?;
        parts[part].push(head.clone());
        order.push((part, head));
    }
    let channels = [(); 2].map(|()| sync_channel(WAITING));
    let [(first, of_first), (second, of_second)] = channels;
    let feeding = tokio::task::spawn_blocking(move || feed(&order, lines, &[first, second]));
    let [resources, records] = parts;
    let loaded = async {
        let mut all = load(databases[0], resources, of_first).await?;
        all.extend(load(databases[1], records, of_second).await?);
        Ok(all)
    };
    let (fed, loaded) = tokio::join!(feeding, loaded);
    // Who ended because the other side did only says that something is missing.
    match (fed.unwrap_or(Err(Error::Panicked)), loaded) {
        (Ok(()), Ok(all)) => Ok(all),
        (Err(error), Ok(_) | Err(Error::Missing)) | (_, Err(error)) => Err(error),
    }
}

/// Sends what the lines say to the databases, in batches.
fn feed(
    heads: &[(usize, TableHead)],
    mut lines: Lines,
    to: &[SyncSender<Parcel>; 2],
) -> Result<(), Error> {
    let changed = || Error::NoRow("it was changed while it was read".to_owned());
    let mut next = || lines.next().unwrap_or_else(|| Err(changed()));
    for (part, head) in heads {
        if TableHead::read(&next()?)? != *head {
            return Err(changed());
        }
        let send = |parcel| to[*part].send(parcel).map_err(|_| Error::Missing);
        let (mut batch, mut digest) = (Vec::with_capacity(BATCH), 0_u64);
        for _ in 0..head.rows {
            let row: Vec<Value<'static>> = head.row(&next()?)?;
            digest = digest.wrapping_add(digest_of(&row));
            batch.push(row);
            if batch.len() == BATCH {
                send(Parcel::Rows(std::mem::take(&mut batch)))?;
            }
        }
        if !batch.is_empty() {
            send(Parcel::Rows(batch))?;
        }
        send(Parcel::End(head.rows, digest))?;
    }
    // The file is checked to its end.
    lines
        .next()
        .map_or(Ok(()), |line| line.and_then(|_| Err(changed())))
}

async fn load(
    target: &Database,
    heads: Vec<TableHead>,
    parcels: Receiver<Parcel>,
) -> Result<Vec<Moved>, Error> {
    // A write may be tried again; what was read is gone then.
    let parcels = Mutex::new(Some(parcels));
    let writing = target.write("restore", move |tx| {
        let lost = || Error::Engine("the target was lost while it was written".into());
        let parcels = parcels.lock().take().ok_or_else(lost)?;
        let names: Vec<String> = heads.iter().map(|head| head.table.clone()).collect();
        let mut all = Vec::new();
        for (head, table) in heads.iter().zip(tables(tx, &names)?) {
            if !head.fits(&table) {
                let detail = format!("the columns of {} are not those of its schema", head.table);
                return Err(Error::NoRow(detail));
            }
            let rows = receive(tx, &table, &parcels)?;
            let table = table.name;
            all.push(Moved { table, rows });
        }
        Ok(all)
    });
    writing.await
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut options = fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    written.map_err(|error| Error::unusable(path, error))
}

/// Puts files in the place of those that are there, which get another name; all of them or none.
fn swap(from: &Path, to: &Path, (names, aside): (&[String], Option<&str>)) -> Result<(), Error> {
    let mut moves = Vec::new();
    for name in names {
        // A log that was not written back belongs to its database, under whatever name.
        for tail in ["", "-wal", "-shm"] {
            let old = to.join(format!("{name}{tail}"));
            if let Some(aside) = aside
                && old.exists()
            {
                moves.push((old, to.join(format!("{name}.{aside}{tail}"))));
            }
        }
    }
    for name in names {
        moves.push((from.join(name), to.join(name)));
    }
    for (done, (old, new)) in moves.iter().enumerate() {
        if let Err(error) = fs::rename(old, new) {
            for (old, new) in moves[..done].iter().rev() {
                if let Err(error) = fs::rename(new, old) {
                    tracing::error!(%error, "{} could not be named {} again", new.display(), old.display());
                }
            }
            return Err(Error::unusable(old, error));
        }
    }
    let synced = fs::File::open(to).and_then(|dir| dir.sync_all());
    synced.map_err(|error| Error::unusable(to, error))
}
