//! The store: a cheap handle to two databases.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::Error,
    lock::DirLock,
    migrations,
    sqlite::{Database, Durability, Tx},
    stmt::Stmt,
};

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory; made when it is missing.
    pub dir: PathBuf,
    /// Connections that read, per database.
    pub readers: usize,
    /// Writes that may wait; further ones wait to be queued.
    pub queue: usize,
    /// Longest wait to be queued; then the write is refused.
    pub write_timeout: Duration,
}

impl Config {
    /// The defaults, for a data directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            readers: 2,
            queue: 1_024,
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// Resources and records. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    resources: Arc<Database>,
    records: Arc<Database>,
    dir: PathBuf,
    _lock: DirLock,
}

/// Figures of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// `sqlite`
    pub engine: String,
    /// Number of the schema.
    pub schema: u64,
    /// Size on disk, bytes.
    pub bytes: u64,
    /// Writes since the start.
    pub writes: u64,
    /// Transactions that they were committed in.
    pub commits: u64,
}

impl Store {
    /// Opens the store in `config.dir`, making what is missing and bringing the schema up to date.
    pub fn open(config: &Config) -> Result<Self, Error> {
        make_private_dir(&config.dir)?;
        let lock = DirLock::take(&config.dir)?;
        let settings = (config.readers, config.queue, config.write_timeout);
        let open = |name: &str, durability, steps| {
            let file = config.dir.join(name);
            make_private_file(&file)?;
            Database::open(&file, durability, steps, settings).map(Arc::new)
        };
        Ok(Self {
            inner: Arc::new(Inner {
                resources: open("vaxel.db", Durability::Full, migrations::RESOURCES)?,
                records: open("records.db", Durability::Relaxed, migrations::RECORDS)?,
                dir: config.dir.clone(),
                _lock: lock,
            }),
        })
    }

    /// Writes what is queued and ends. Later writes are refused.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        let closing = tokio::task::spawn_blocking(move || {
            inner.resources.close();
            inner.records.close();
        });
        if let Err(error) = closing.await {
            tracing::error!(%error, "the store did not close");
        }
    }

    /// Figures of the store.
    pub fn stats(&self) -> Stats {
        let bytes = ["vaxel.db", "vaxel.db-wal", "records.db", "records.db-wal"]
            .iter()
            .filter_map(|name| fs::metadata(self.inner.dir.join(name)).ok())
            .map(|file| file.len())
            .sum();
        let counts = &self.inner.resources.counts;
        Stats {
            engine: "sqlite".to_owned(),
            schema: migrations::RESOURCES.len() as u64,
            bytes,
            writes: counts.writes.load(Ordering::Relaxed),
            commits: counts.commits.load(Ordering::Relaxed),
        }
    }

    /// Every problem that the engine finds in its files; empty when they are sound.
    pub async fn check(&self) -> Result<Vec<String>, Error> {
        static CHECK: Stmt = Stmt::new("PRAGMA integrity_check(20)");
        let mut problems = Vec::new();
        for database in [&self.inner.resources, &self.inner.records] {
            let found = database
                .read(|tx| tx.query(&CHECK, &[], |row| row.text(0)))
                .await?;
            problems.extend(found.into_iter().filter(|line| line != "ok"));
        }
        Ok(problems)
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let written = self.inner.resources.write(work).await;
        if let Err(error) = &written {
            tracing::debug!(transaction = name, %error, "a write was refused");
        }
        written
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.resources.read(work).await
    }

    pub(crate) fn records(&self) -> &Arc<Database> {
        &self.inner.records
    }
}

fn make_private_dir(dir: &Path) -> Result<(), Error> {
    let unusable = |source| Error::Unusable {
        path: dir.to_owned(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(unusable)
}

fn make_private_file(file: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let unusable = |source| Error::Unusable {
        path: file.to_owned(),
        source,
    };
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(file)
        .map_err(unusable)?;
    let mode = opened.metadata().map_err(unusable)?.permissions().mode();
    if mode & 0o077 != 0 {
        opened
            .set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(unusable)?;
    }
    Ok(())
}
