//! The store: a cheap handle to two databases.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    counts::TransactionStats,
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
    /// Longest wait to be queued, and then to be answered; after that the write is refused.
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
    resources: Database,
    records: Database,
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
    /// Writes of resources since the start.
    pub writes: u64,
    /// Transactions that they were committed in.
    pub commits: u64,
    /// Writes that wait now.
    pub queued: u64,
    /// The last one for which the store is to blame, and the transaction that met it.
    pub last_error: Option<String>,
    /// By name.
    pub transactions: Vec<TransactionStats>,
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
            Database::open(&file, durability, steps, settings)
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

    /// Writes what is queued and ends; later reads and writes are refused. The directory is free for
    /// another Vaxel when the last handle is gone.
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
        let Inner {
            resources, records, ..
        } = &*self.inner;
        let (commits, writes) = resources.commits();
        let mut transactions = resources.counts.by_name();
        transactions.extend(records.counts.by_name());
        let last_error = resources.counts.last_error();
        Stats {
            engine: "sqlite".to_owned(),
            schema: migrations::RESOURCES.len() as u64,
            bytes,
            writes,
            commits,
            queued: (resources.queued() + records.queued()) as u64,
            last_error: last_error.or_else(|| records.counts.last_error()),
            transactions,
        }
    }

    /// Every problem that the engine finds in its files; empty when they are sound. Reads all of
    /// them: for a doctor, not for a timer.
    pub async fn check(&self) -> Result<Vec<String>, Error> {
        static CHECK: Stmt = Stmt::new("PRAGMA integrity_check(20)");
        let mut problems = Vec::new();
        for (name, database) in [
            ("vaxel.db", &self.inner.resources),
            ("records.db", &self.inner.records),
        ] {
            let found = database
                .read("check", |tx| tx.query(&CHECK, &[], |row| row.text(0)))
                .await;
            match found {
                Ok(lines) => problems.extend(lines.into_iter().filter(|line| line != "ok")),
                Err(Error::Corrupt { detail, .. }) => problems.push(format!("{name}: {detail}")),
                Err(error) => return Err(error),
            }
        }
        Ok(problems)
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.resources.write(name, work).await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.resources.read(name, work).await
    }

    pub(crate) fn records(&self) -> &Database {
        &self.inner.records
    }
}

fn make_private_dir(dir: &Path) -> Result<(), Error> {
    let unusable = |source| Error::unusable(dir, source);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(unusable)
}

fn make_private_file(file: &Path) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let unusable = |source| Error::unusable(file, source);
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
