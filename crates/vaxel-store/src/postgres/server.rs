//! The server: how it is reached, and what its errors mean.

use std::{
    error::Error as _,
    fs, io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Runtime,
};
use tokio_postgres::{
    Client, Connection, NoTls, Socket,
    config::SslMode,
    error::{DbError, SqlState},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use vaxel_core::{
    id::{Id, Service},
    time::Clock,
};

use super::{DatabaseUrl, lock};
use crate::error::Error;

/// Longest wait for a connection, name resolution, TLS and login included.
const CONNECT: Duration = Duration::from_secs(5);
/// The server ends what takes too long; this is how much longer it may take to say so.
const MARGIN: Duration = Duration::from_secs(1);

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Writes resources, and holds the lock of the database.
    Resources,
    /// Writes records, of which a crash may cost the last moments.
    Records,
    /// Reads.
    Reader,
}

/// One database on one server.
pub(crate) struct Server {
    config: tokio_postgres::Config,
    tls: Option<MakeRustlsConnect>,
    name: String,
    application: String,
    /// Longest time for one statement.
    limit: Duration,
    version: OnceLock<String>,
    bytes: AtomicU64,
    /// Several may write: so that tests can be several nodes.
    is_shared: bool,
}

impl Server {
    /// `limit` is the longest time for one statement.
    pub(crate) fn new(url: &DatabaseUrl, limit: Duration, is_shared: bool) -> Result<Self, Error> {
        let mut config = url.config.clone();
        // Two of one process id on two hosts must differ, and the server shows 63 characters.
        let host = rustix::system::uname();
        let host: String = host.nodename().to_string_lossy().chars().take(24).collect();
        let id = Id::<Service>::new(Clock::system().now()).to_string();
        let application = format!("vaxel {} at {host} {}", std::process::id(), &id[24..]);
        config
            .application_name(&application)
            .connect_timeout(CONNECT)
            .tcp_user_timeout(limit + MARGIN)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3);
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(tls(url.roots.as_deref())?),
        };
        Ok(Self {
            config,
            tls,
            name: url.place(),
            application,
            limit,
            version: OnceLock::new(),
            bytes: AtomicU64::new(0),
            is_shared,
        })
    }

    /// Which one, for people.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What this process calls itself there.
    pub(super) fn application(&self) -> &str {
        &self.application
    }

    /// Its version, once it was reached.
    pub(crate) fn version(&self) -> &str {
        self.version.get().map_or("", String::as_str)
    }

    /// Size of what is stored, bytes, as it was seen last.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn saw_bytes(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) const fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    pub(super) fn tls(&self) -> Option<MakeRustlsConnect> {
        self.tls.clone()
    }

    /// Longest wait for an answer.
    pub(super) fn patience(&self) -> Duration {
        self.limit + MARGIN
    }

    pub(super) fn unreachable(&self, detail: &str) -> Error {
        Error::Unreachable {
            server: self.name.clone(),
            detail: detail.to_owned(),
        }
    }

    pub(super) fn refused(&self, detail: &str) -> Error {
        Error::Refused {
            server: self.name.clone(),
            detail: detail.to_owned(),
        }
    }

    /// An error by what can be done about it, and whether the connection is gone with it.
    pub(super) fn sorted(&self, error: &tokio_postgres::Error) -> (Error, bool) {
        if let Some(said) = error.as_db_error() {
            return self.told(said);
        }
        let mut detail = error.to_string();
        let mut is_lost = error.is_closed();
        let mut source = error.source();
        while let Some(cause) = source {
            is_lost |= cause.is::<io::Error>();
            detail = cause.to_string();
            source = cause.source();
        }
        if is_lost {
            return (self.unreachable(&detail), true);
        }
        (Error::Engine(detail), false)
    }

    fn told(&self, said: &DbError) -> (Error, bool) {
        let code = said.code();
        let message = said.message();
        let class = &code.code()[..2];
        let error = match *code {
            SqlState::UNIQUE_VIOLATION => Error::Taken,
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
                Error::Contended
            }
            SqlState::QUERY_CANCELED | SqlState::LOCK_NOT_AVAILABLE => Error::Busy,
            SqlState::DISK_FULL => Error::Full,
            SqlState::IO_ERROR => Error::Disk(message.to_owned()),
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => Error::Corrupt {
                file: (&self.name).into(),
                detail: message.to_owned(),
            },
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::DATABASE_DROPPED
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => {
                return (self.unreachable(message), true);
            }
            // A standby, and whatever it lacks: connections, memory.
            SqlState::READ_ONLY_SQL_TRANSACTION => self.unreachable(message),
            _ if class == "53" => self.unreachable(message),
            // Login, rights, a database or a schema that is not there.
            SqlState::INSUFFICIENT_PRIVILEGE
            | SqlState::INVALID_CATALOG_NAME
            | SqlState::INVALID_SCHEMA_NAME => self.refused(message),
            _ if class == "28" => self.refused(message),
            _ => Error::Engine(format!("{message} ({})", code.code())),
        };
        let is_over = matches!(said.severity(), "FATAL" | "PANIC");
        (error, is_over)
    }
}

/// Opens a connection, which `runtime` drives whenever somebody waits on it.
pub(super) fn connect(
    runtime: &Runtime,
    server: &Arc<Server>,
    role: Role,
) -> Result<Client, Error> {
    let connecting = async {
        let client = match &server.tls {
            None => driven(runtime, server, server.config.connect(NoTls).await)?,
            Some(tls) => driven(runtime, server, server.config.connect(tls.clone()).await)?,
        };
        client
            .batch_execute(&settings(server.limit, role))
            .await
            .map_err(|error| server.sorted(&error).0)?;
        if role == Role::Resources && !server.is_shared {
            lock::take(&client, server).await?;
        }
        Ok(client)
    };
    let connected = runtime.block_on(async { tokio::time::timeout(CONNECT, connecting).await });
    connected.unwrap_or_else(|_| {
        let detail = format!("no answer within {} s", CONNECT.as_secs());
        Err(server.unreachable(&detail))
    })
}

/// Lets the runtime drive a connection.
fn driven<T>(
    runtime: &Runtime,
    server: &Arc<Server>,
    connected: Result<(Client, Connection<Socket, T>), tokio_postgres::Error>,
) -> Result<Client, Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = connected.map_err(|error| server.sorted(&error).0)?;
    if let Some(version) = connection.parameter("server_version") {
        // The first one stays: who upgrades a server restarts it, and Vaxel need not notice.
        let _ = server.version.set(version.to_owned());
    }
    runtime.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the database ended");
        }
    });
    Ok(client)
}

/// What holds for a connection. The server ends what takes too long, and notices a client that is
/// gone.
fn settings(limit: Duration, role: Role) -> String {
    let millis = limit.as_millis();
    // An acknowledged change is on disk, whatever the server's default is.
    let durability = match role {
        Role::Resources => {
            "SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off';"
        }
        Role::Records => "SET synchronous_commit = off;",
        Role::Reader => "",
    };
    format!(
        "SET statement_timeout = {millis}; SET lock_timeout = {millis}; \
         SET idle_in_transaction_session_timeout = {millis}; SET client_min_messages = warning; \
         SET client_encoding = 'UTF8'; SET tcp_keepalives_idle = 30; \
         SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; {durability}"
    )
}

/// The certificates of the system and, when one is named, of a file are trusted.
fn tls(roots: Option<&Path>) -> Result<MakeRustlsConnect, Error> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    store.add_parsable_certificates(found.certs);
    if let Some(path) = roots {
        let unusable = |error: String| Error::unusable(path, io::Error::other(error));
        let pem = fs::read(path).map_err(|error| Error::unusable(path, error))?;
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            store
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Engine(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
