//! Puts the parts together: the one place that knows them all.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::{
    runtime::Runtime,
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;
use vaxel_api::Api;
use vaxel_client::ADMIN_KEY;
use vaxel_control::{Control, ProcessConfig, RecordsConfig, STOP_REST, ServerFacts};
use vaxel_core::time::Clock;
use vaxel_egress::Egress;
use vaxel_gateway::Gateway;
use vaxel_store::Store;
use vaxel_supervisor::Supervisor;

use crate::{config::Config, paths, root_key};

/// A running server.
pub(crate) struct Running {
    /// The data plane.
    pub(crate) gateway: Gateway,
    /// The control plane.
    pub(crate) control: Control,
    /// Base URL.
    pub(crate) url: String,
    /// The bound address.
    pub(crate) listen: SocketAddr,
    /// How many services were found.
    pub(crate) services: usize,
    serving: JoinHandle<std::io::Result<()>>,
    stop: CancellationToken,
    /// Longest time that the whole of the end takes.
    stop_within: Duration,
    data_plane: Runtime,
}

/// Starts everything; it serves when this returns.
pub(crate) async fn start(config: &Config) -> anyhow::Result<Running> {
    let clock = Clock::system();
    let listener = bind(config.server.listen)?;
    let listen = listener
        .local_addr()
        .context("the bound address is unknown")?;
    let url = config.server.public_url.clone();
    let url = url.unwrap_or_else(|| local_url(config, listen));
    let store = Store::open(&config.store)?;
    let certificate = config.tls.as_ref().map(|pair| pair.open(clock.now()));
    let certificate = certificate.transpose()?;
    let roots = root_key::load(config).await?;
    let data_plane = data_plane(config.server.workers)?;
    let (records, record_queue) = mpsc::channel(config.records.queue);
    let mut registry = Registry::default();
    let gateway = Gateway::new(
        config.gateway.clone(),
        vaxel_gateway::Deps {
            clock: clock.clone(),
            egress: Egress::new(config.egress.clone())?,
            sealer: roots.sealer("legacy sessions"),
            records,
            runtime: data_plane.handle().clone(),
            tunables: config.tunables.clone(),
        },
        &mut registry,
    );
    if let Some(certificate) = certificate {
        gateway.secure(certificate);
    }
    let supervisor = supervisor(config, clock.clone())?;
    let deps = vaxel_control::Deps {
        clock: clock.clone(),
        store,
        supervisor,
        gateway: gateway.clone(),
        roots,
        records: record_queue,
    };
    let facts = ServerFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: clock.now(),
        listen,
        url: url.clone(),
        data_dir: config.data_dir.clone(),
        auth: config.gateway.auth,
        notes: Vec::new(),
    };
    let (control, started) = Control::start(control_config(config, facts), deps).await?;
    if let Some(key) = &started.admin_key {
        // Before anything is served: who sees a ready server finds its key.
        let text = format!("{}\n", key.expose());
        write_private(&config.data_dir.join(ADMIN_KEY), &text)?;
    }
    control.register_metrics(&mut registry);
    let api = Api::new(
        vaxel_api::Config {
            base: url.clone(),
            public_url: config.server.public_url.clone(),
            body_max: config.gateway.body_max,
            body_timeout: config.gateway.body_timeout,
            // Of `localhost` with a certificate of our own, browsers would remember that for every other server.
            only_tls: config
                .tls
                .as_ref()
                .is_some_and(|pair| pair.made_for.is_none()),
            metrics: config.metrics,
        },
        vaxel_api::Deps {
            control: control.clone(),
            runtime: tokio::runtime::Handle::current(),
            registry: Arc::new(registry),
        },
    );
    let stop = CancellationToken::new();
    let serving = {
        let (gateway, stop) = (gateway.clone(), stop.clone());
        let serve = async move { gateway.serve(listener, Arc::new(api), stop).await };
        tokio::runtime::Handle::current().spawn(serve)
    };
    Ok(Running {
        gateway,
        control,
        url,
        listen,
        services: started.services,
        serving,
        stop,
        stop_within: stop_within(config),
        data_plane,
    })
}

impl Running {
    /// Resolves when the listener ended by itself, which it never should.
    pub(crate) async fn ended(&mut self) -> anyhow::Error {
        match (&mut self.serving).await {
            Ok(Ok(())) => anyhow::anyhow!("the listener ended"),
            Ok(Err(error)) => anyhow::Error::new(error).context("the listener failed"),
            Err(error) => anyhow::Error::new(error).context("the listener broke off"),
        }
    }

    /// Ends everything in order: no new requests, then services, then the store. All of it has one
    /// deadline; what did not end by then is said in the log.
    pub(crate) async fn stop(self) {
        let until = Instant::now() + self.stop_within;
        self.control.announce_end();
        self.stop.cancel();
        match timeout_at(until, self.serving).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the listener broke off"),
            Err(_) => tracing::warn!("the listener did not end in time"),
        }
        self.control.stop_by(until).await;
        self.data_plane.shutdown_background();
    }
}

/// The grace of requests, what the most stubborn programs are given, and a rest for the store.
fn stop_within(config: &Config) -> Duration {
    let programs = config.process.stop_grace.mul_f32(1.25);
    config.gateway.shutdown_grace + programs + STOP_REST
}

/// The URL under which a program on this machine reaches a listener.
pub(crate) fn local_url(config: &Config, listen: SocketAddr) -> String {
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{}", reachable(listen))
}

/// Where a program on this machine reaches a listener.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    listen
}

fn bind(listen: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{listen} is in use by another program; stop it, or give Vaxel another address with \
             --listen"
        ),
        std::io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{listen} may not be used by this user; take a port above 1023")
        }
        _ => anyhow::Error::new(error).context(format!("{listen} cannot be listened at")),
    })
}

fn data_plane(workers: usize) -> anyhow::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder
        .thread_name("vaxel-data")
        .enable_all()
        .build()
        .context("no threads can be started")
}

fn supervisor(config: &Config, clock: Clock) -> anyhow::Result<Supervisor> {
    let program = std::env::current_exe().context("the path of this binary is unknown")?;
    let env = paths::environment();
    let config = vaxel_supervisor::Config {
        program,
        shim_args: vec!["shim".into()],
        base_env: paths::base_env(&env),
        start_timeout: config.process.start_timeout,
        stop_grace: config.process.stop_grace,
        log_dir: config.data_dir.join("logs"),
        log_max_bytes: config.logs.file_max,
        log_files: config.logs.files,
        log_line_max: config.logs.line_max,
        log_tail: config.logs.tail,
    };
    if let Err(error) = vaxel_supervisor::adopt_orphans() {
        tracing::warn!(%error, "orphans of a killed shim cannot be adopted");
    }
    Ok(Supervisor::new(config, clock))
}

fn control_config(config: &Config, server: ServerFacts) -> vaxel_control::Config {
    vaxel_control::Config {
        server,
        process: ProcessConfig {
            start_timeout: config.process.start_timeout,
            auto_restart: config.process.auto_restart,
            backoff: config.process.backoff,
            health_interval: config.process.health_interval,
            dependency_wait: config.process.dependency_wait,
            ..ProcessConfig::default()
        },
        catalog_ttl: config.catalog_ttl,
        tokens: config.tokens,
        oauth: config.oauth.clone(),
        callers: config.callers.clone(),
        health: config.health.clone(),
        records: RecordsConfig {
            retention: config.records.retention,
            max_rows: config.records.max_rows,
            hours: config.records.hours,
            days: config.records.days,
            seal: config.records.seal,
        },
        feed: config.feed,
        audit: config.audit,
        archive: config.archive,
        name_max: config.gateway.name_max,
        grace: config.gateway.shutdown_grace,
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    vaxel_auth::private::replace(path, text.as_bytes())
        .with_context(|| format!("{} cannot be written", path.display()))
}
