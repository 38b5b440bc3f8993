//! The store: a cheap handle to two databases, of resources and of records, on either engine.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    backup::Schema,
    chain::Chain,
    counts::TransactionStats,
    database::Database,
    error::Error,
    left_out::LeftOut,
    link::{Link, Reader},
    lock::DirLock,
    migrations,
    postgres::{DatabaseUrl, Ear, Role, Server, Session},
    restore,
    sqlite::{self, Durability},
    stmt::Stmt,
    tx::Tx,
};

/// Settings of a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data directory; made when it is missing.
    pub dir: PathBuf,
    /// Where the database is, when it is no file in that directory.
    pub url: Option<DatabaseUrl>,
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
            url: None,
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

pub(crate) struct Inner {
    resources: Database,
    records: Database,
    pub(crate) engine: Engine,
    /// What chains lines of the audit.
    pub(crate) chain: Arc<Chain>,
    /// Counts up whenever something may have been committed.
    pub(crate) ticks: watch::Sender<u64>,
    /// Hears what others commit, from the first time that somebody waits.
    pub(crate) ear: Mutex<Option<Ear>>,
    pub(crate) left_out: LeftOut,
    _lock: Option<DirLock>,
}

/// What the two databases are.
pub(crate) enum Engine {
    /// Two files in this directory.
    Sqlite(PathBuf),
    /// Tables of one schema.
    Postgres(Arc<Server>),
}

/// How a store is opened.
#[derive(Clone, Copy)]
struct How {
    /// Others may write to the same database.
    is_shared: bool,
    schema: Schema,
    /// Everything in it goes away first; a server's only.
    is_emptied: bool,
}

impl Default for How {
    fn default() -> Self {
        Self {
            is_shared: false,
            schema: Schema::NEWEST,
            is_emptied: false,
        }
    }
}

/// Both databases of an engine.
type Opened = (Database, Database, Engine);

/// Figures of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// `sqlite` or `postgresql`
    pub engine: &'static str,
    /// Version of the engine.
    pub version: String,
    /// Where it is: a directory, or a server with its database.
    pub place: String,
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
    /// Opens the store, making what is missing and bringing the schema up to date: in `config.dir`, or
    /// at `config.url`. The directory is locked in any case.
    pub fn open(config: &Config) -> Result<Self, Error> {
        Self::open_as(config, false)
    }

    /// `is_shared`: others may write to the same database. No feature yet, but tests are several nodes.
    pub(crate) fn open_as(config: &Config, is_shared: bool) -> Result<Self, Error> {
        make_private_dir(&config.dir)?;
        let lock = DirLock::take(&config.dir)?;
        restore::finish(&config.dir)?;
        let how = How {
            is_shared,
            ..How::default()
        };
        Self::open_with(config, Some(lock), how)
    }

    /// For who has locked the directory.
    pub(crate) fn open_unlocked(config: &Config) -> Result<Self, Error> {
        Self::open_unlocked_at(config, Schema::NEWEST)
    }

    /// The same with an earlier schema.
    pub(crate) fn open_unlocked_at(config: &Config, schema: Schema) -> Result<Self, Error> {
        let how = How {
            schema,
            ..How::default()
        };
        Self::open_with(config, None, how)
    }

    /// The same on a server, with nothing in it: whatever was there is gone.
    pub(crate) fn open_emptied_at(config: &Config, schema: Schema) -> Result<Self, Error> {
        let how = How {
            schema,
            is_emptied: true,
            ..How::default()
        };
        Self::open_with(config, None, how)
    }

    fn open_with(config: &Config, lock: Option<DirLock>, how: How) -> Result<Self, Error> {
        let (resources, records, engine) = match &config.url {
            None => open_files(config, how.schema)?,
            Some(url) => open_server(config, url, how)?,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                resources,
                records,
                engine,
                chain: Arc::default(),
                ticks: watch::Sender::new(0),
                ear: Mutex::new(None),
                left_out: LeftOut::default(),
                _lock: lock,
            }),
        })
    }

    /// Writes what is queued and ends; later reads and writes are refused. The directory is free for
    /// another Vaxel when the last handle is gone.
    pub async fn close(&self) {
        let inner = Arc::clone(&self.inner);
        let closing = tokio::task::spawn_blocking(move || {
            inner.ear.lock().take();
            inner.resources.close();
            inner.records.close();
        });
        if let Err(error) = closing.await {
            tracing::error!(%error, "the store did not close");
        }
    }

    /// Figures of the store.
    pub fn stats(&self) -> Stats {
        let Inner {
            resources, records, ..
        } = &*self.inner;
        let (engine, version, place, bytes) = match &self.inner.engine {
            Engine::Sqlite(dir) => (
                "sqlite",
                rusqlite::version().to_owned(),
                dir.display().to_string(),
                size_of_files(dir),
            ),
            Engine::Postgres(server) => (
                "postgresql",
                server.version().to_owned(),
                server.name().to_owned(),
                server.bytes(),
            ),
        };
        let (commits, writes) = resources.commits();
        let mut transactions = resources.counts.by_name();
        transactions.extend(records.counts.by_name());
        let last_error = resources.counts.last_error();
        Stats {
            engine,
            version,
            place,
            schema: migrations::RESOURCES.len() as u64,
            bytes,
            writes,
            commits,
            queued: (resources.queued() + records.queued()) as u64,
            last_error: last_error.or_else(|| records.counts.last_error()),
            transactions,
        }
    }

    /// Whether the store answers. Notes the size of what is stored, where only the engine knows it.
    pub async fn probe(&self) -> Result<(), Error> {
        static ONE: Stmt = Stmt::new("SELECT 1");
        // The second moment of a size that grows slowly: nobody waits for an exact one.
        static BYTES: Stmt = Stmt::new(
            "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND n.nspname = current_schema()",
        );
        let Engine::Postgres(server) = &self.inner.engine else {
            return self
                .read("probe", |tx| tx.find(&ONE, &[], |_| Ok(())).map(drop))
                .await;
        };
        let bytes = self.read("probe", |tx| tx.find(&BYTES, &[], |row| row.count(0)));
        server.saw_bytes(bytes.await?.unwrap_or(0));
        Ok(())
    }

    /// Every problem that the engine finds in its files; empty when they are sound. Reads all of
    /// them: for a doctor, not for a timer.
    pub async fn check(&self) -> Result<Vec<String>, Error> {
        static CHECK: Stmt = Stmt::new("PRAGMA integrity_check(20)");
        if let Engine::Postgres(_) = &self.inner.engine {
            return self.check_server().await;
        }
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

    /// A server looks after its files itself; what can be wrong are its promises.
    async fn check_server(&self) -> Result<Vec<String>, Error> {
        static PROMISES: Stmt = Stmt::new(
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') \
             AND setting = 'off' ORDER BY name",
        );
        let off = self.read("check", |tx| tx.query(&PROMISES, &[], |row| row.text(0)));
        let said = |name| {
            format!(
                "the server runs with {name} = off: a crash of its machine may lose what was \
                 acknowledged"
            )
        };
        Ok(off.await?.into_iter().map(said).collect())
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Fn(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let chain = Arc::clone(&self.inner.chain);
        let work = move |tx: &mut Tx<'_>| work(&mut tx.chaining(&chain));
        let written = self.inner.resources.write(name, work).await;
        // Also when it failed: that may have been after its commit.
        self.inner.ticks.send_modify(|tick| *tick += 1);
        written
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.resources.read(name, work).await
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn resources(&self) -> &Database {
        &self.inner.resources
    }

    pub(crate) fn records(&self) -> &Database {
        &self.inner.records
    }
}

fn open_files(config: &Config, schema: Schema) -> Result<Opened, Error> {
    let settings = (config.readers, config.queue, config.write_timeout);
    let open = |name: &str, durability, steps| {
        let file = config.dir.join(name);
        make_private_file(&file)?;
        sqlite::open(&file, durability, steps, settings)
    };
    Ok((
        open("vaxel.db", Durability::Full, schema.resource_steps())?,
        open("records.db", Durability::Relaxed, schema.record_steps())?,
        Engine::Sqlite(config.dir.clone()),
    ))
}

fn open_server(config: &Config, url: &DatabaseUrl, how: How) -> Result<Opened, Error> {
    let schema = how.schema;
    let server = Arc::new(Server::new(url, config.write_timeout, how.is_shared)?);
    let session = |role| Session::new(Arc::clone(&server), role);
    let mut writer = session(Role::Resources)?;
    // Sessions block, and whoever opens a store may be where nothing may.
    let opened = std::thread::scope(|scope| {
        let migrating = std::thread::Builder::new()
            .name("vaxel-store-open".to_owned())
            .spawn_scoped(scope, || {
                let parts = [
                    ("resources", schema.resource_steps()),
                    ("records", schema.record_steps()),
                ];
                if how.is_emptied {
                    migrations::empty_postgres(&mut writer, &server)?;
                }
                for part in parts {
                    migrations::apply_to_postgres(&mut writer, &server, part)?;
                }
                Ok(())
            });
        migrating.map(|thread| thread.join().unwrap_or(Err(Error::Panicked)))
    });
    opened.map_err(|error| Error::unusable(&config.dir, error))??;
    let start = |writer: Session| {
        let readers: Result<Vec<_>, Error> = (0..config.readers.max(1))
            .map(|_| {
                session(Role::Reader).map(|session| Reader::Open(Link::Postgres(Box::new(session))))
            })
            .collect();
        let limits = (config.queue, config.write_timeout);
        let started = Database::start(Link::Postgres(Box::new(writer)), readers?, limits);
        started.map_err(|error| Error::unusable(&config.dir, error))
    };
    let resources = start(writer)?;
    let records = start(session(Role::Records)?)?;
    Ok((resources, records, Engine::Postgres(Arc::clone(&server))))
}

fn size_of_files(dir: &Path) -> u64 {
    ["vaxel.db", "vaxel.db-wal", "records.db", "records.db-wal"]
        .iter()
        .filter_map(|name| fs::metadata(dir.join(name)).ok())
        .map(|file| file.len())
        .sum()
}

pub(crate) fn make_private_dir(dir: &Path) -> Result<(), Error> {
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
