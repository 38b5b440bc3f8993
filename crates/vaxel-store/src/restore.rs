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
use serde::{Deserialize, Serialize};
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
/// was there is moved aside then. A database on a server has no aside: with [`Restoring::aside`] it is emptied
/// first, and stays empty when the restore fails.
///
/// # Errors
/// [`Error::InUse`], [`Error::Occupied`] and [`Error::NotEmpty`] before anything is written;
/// [`Error::NoRow`] and those of the engine, after which everything is as it was.
pub async fn restore(to: &Config, what: Restoring, lines: Lines) -> Result<Vec<Moved>, Error> {
    what.schema.require_known(Path::new("the backup"))?;
    make_private_dir(&to.dir)?;
    let _lock = DirLock::take(&to.dir)?;
    finish(&to.dir)?;
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
    swap(&to.dir, (&names, what.aside.as_deref()))?;
    Ok(moved)
}

/// Names of the files that a restore puts into the data directory.
fn names(to: &Config, files: &[(String, Secret<Vec<u8>>)]) -> Vec<String> {
    let databases = ["records.db", "vaxel.db"];
    let databases = databases.iter().filter(|_| to.url.is_none());
    let files = files.iter().map(|(name, _)| name.clone());
    files.chain(databases.map(ToString::to_string)).collect()
}

/// Where everything is made before it is put in its place, below the data directory.
const STAGING: &str = "restore.new";
/// What says which renames are to be done, as long as not all are.
const MOVES: &str = "restore.moves";

/// A directory that goes away with what is left in it.
struct Staging(PathBuf);

impl Staging {
    fn new(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(STAGING);
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
    let store = if what.aside.is_some() && place.url.is_some() {
        Store::open_emptied_at(place, what.schema)?
    } else {
        Store::open_unlocked_at(place, what.schema)?
    };
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

/// Renames of a restore, which are done all or not at all: written down before the first one, so that the
/// next start carries on where a killed one stopped.
#[derive(Debug, Serialize, Deserialize)]
struct Moves(Vec<(PathBuf, PathBuf)>);

impl Moves {
    /// Files are put in the place of those that are there, which get another name.
    fn plan((names, aside): (&[String], Option<&str>), to: &Path) -> Self {
        let mut moves = Vec::new();
        for name in names {
            // A log that was not written back belongs to its database, under whatever name.
            for tail in ["", "-wal", "-shm"] {
                let old = format!("{name}{tail}");
                if let Some(aside) = aside
                    && to.join(&old).exists()
                {
                    moves.push((old.into(), format!("{name}.{aside}{tail}").into()));
                }
            }
        }
        for name in names {
            moves.push((Path::new(STAGING).join(name), name.into()));
        }
        Self(moves)
    }

    /// What the last restore in `dir` did not come to.
    fn left(dir: &Path) -> Result<Option<Self>, Error> {
        let file = dir.join(MOVES);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::unusable(&file, error)),
        };
        let read = serde_json::from_slice(&text);
        read.map(Some)
            .map_err(|error| Error::unusable(&file, error.into()))
    }

    fn write_down(&self, dir: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(|error| Error::Engine(error.to_string()))?;
        let draft = dir.join(STAGING).join(MOVES);
        write_file(&draft, &text)?;
        let file = dir.join(MOVES);
        fs::rename(&draft, &file).map_err(|error| Error::unusable(&file, error))?;
        sync(dir)
    }

    /// Does what is not done yet. New names of old files are of one restore only, and the staging holds what
    /// is still to come: so each can tell for itself.
    fn carry_out(&self, dir: &Path) -> Result<(), Error> {
        for (old, new) in &self.0 {
            let (old, new) = (dir.join(old), dir.join(new));
            if old.exists() && !new.exists() {
                fs::rename(&old, &new).map_err(|error| Error::unusable(&old, error))?;
            }
        }
        sync(dir)
    }

    /// Takes back what is done, the last one first.
    fn take_back(&self, dir: &Path) {
        for (old, new) in self.0.iter().rev() {
            let (old, new) = (dir.join(old), dir.join(new));
            if new.exists()
                && !old.exists()
                && let Err(error) = fs::rename(&new, &old)
            {
                tracing::error!(%error, "{} could not be named {} again", new.display(), old.display());
            }
        }
    }

    fn forget(dir: &Path) -> Result<(), Error> {
        let file = dir.join(MOVES);
        fs::remove_file(&file).map_err(|error| Error::unusable(&file, error))
    }
}

/// Ends what a restore in `dir` was killed in: from its first rename on, it is carried out. For who has
/// locked the directory, before anything in it is read.
pub(crate) fn finish(dir: &Path) -> Result<(), Error> {
    let Some(moves) = Moves::left(dir)? else {
        return Ok(());
    };
    moves.carry_out(dir)?;
    Moves::forget(dir)?;
    tracing::warn!("a restore was broken off between its last steps; it was carried out");
    // What is left of it has nothing in it.
    drop(Staging(dir.join(STAGING)));
    Ok(())
}

/// All of the renames, or none.
fn swap(dir: &Path, what: (&[String], Option<&str>)) -> Result<(), Error> {
    let moves = Moves::plan(what, dir);
    moves.write_down(dir)?;
    let done = moves.carry_out(dir);
    if done.is_err() {
        moves.take_back(dir);
    }
    Moves::forget(dir)?;
    done
}

fn sync(dir: &Path) -> Result<(), Error> {
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| Error::unusable(dir, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["root.key", "records.db", "vaxel.db"];

    /// A directory with old files, and new ones that are ready.
    fn prepared() -> (tempfile::TempDir, Moves) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(STAGING)).unwrap();
        for name in NAMES {
            fs::write(dir.path().join(name), "old").unwrap();
            fs::write(dir.path().join(STAGING).join(name), "new").unwrap();
        }
        fs::write(dir.path().join("vaxel.db-wal"), "old").unwrap();
        let names = NAMES.map(str::to_owned);
        let moves = Moves::plan((&names, Some("before")), dir.path());
        (dir, moves)
    }

    fn state(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap_or_default();
                format!("{} {text}", path.file_name().unwrap().to_string_lossy())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_restore_that_was_killed_between_two_renames_is_carried_out_at_the_next_start() {
        let whole = [
            "records.db new",
            "records.db.before old",
            "root.key new",
            "root.key.before old",
            "vaxel.db new",
            "vaxel.db.before old",
            "vaxel.db.before-wal old",
        ];
        let (_dir, moves) = prepared();
        for done in 0..=moves.0.len() {
            let (dir, moves) = prepared();
            moves.write_down(dir.path()).unwrap();
            for (old, new) in &moves.0[..done] {
                fs::rename(dir.path().join(old), dir.path().join(new)).unwrap();
            }
            finish(dir.path()).unwrap();
            assert_eq!(state(dir.path()), whole, "after {done} renames");
            finish(dir.path()).unwrap();
            assert_eq!(state(dir.path()), whole, "there is nothing more to do");
        }
    }

    #[test]
    fn a_restore_that_was_killed_before_its_first_rename_never_was() {
        let (dir, _moves) = prepared();
        let before = state(dir.path());
        finish(dir.path()).unwrap();
        assert_eq!(state(dir.path()), before);
    }

    #[test]
    fn renames_that_fail_are_taken_back() {
        let (dir, _moves) = prepared();
        let names = [
            NAMES.map(str::to_owned).to_vec(),
            vec!["missing/x".to_owned()],
        ]
        .concat();
        fs::create_dir(dir.path().join(STAGING).join("missing")).unwrap();
        fs::write(dir.path().join(STAGING).join("missing/x"), "new").unwrap();
        let before = state(dir.path());
        let failed = swap(dir.path(), (&names, Some("before")));
        assert!(failed.is_err(), "its folder is not there");
        assert_eq!(state(dir.path()), before);
    }
}
