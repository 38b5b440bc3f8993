//! `vaxel up`: the server from its first line to its last.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::task::AbortOnDropHandle;
use vaxel_client::{ADMIN_KEY, RunFile};
use vaxel_control::{Change, ServiceRef};
use vaxel_core::{
    name::ServiceName,
    principal::Principal,
    service::{Builtin, ServiceDraft, Source},
    time::{Clock, Timestamp},
};

use crate::{
    certificate::{self, Watch},
    config::{Config, LogFormat, Merged, Sources},
    output, paths,
    wire::{self, Running, write_private},
};

/// Flags of `vaxel up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// Address and port to listen at [default: 127.0.0.1:3010]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Configuration file [default: config.toml in the data directory, else in ~/.config/vaxel]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Ask nobody for a key: everyone who reaches the listener is admin. Loopback only
    #[arg(long)]
    no_auth: bool,
    /// Speak HTTPS with a certificate that Vaxel makes for itself, for development
    #[arg(long)]
    self_signed: bool,
    /// Add a small built-in server (clock, echo, notes) called `demo`
    #[arg(long)]
    demo: bool,
}

/// Everything that decides the configuration.
pub(crate) fn sources(
    args: &UpArgs,
    data_dir: &std::path::Path,
    env: &BTreeMap<String, String>,
) -> Sources {
    let mut flags: Vec<(&'static str, &'static str, Value)> = Vec::new();
    if let Some(listen) = &args.listen {
        flags.push(("server.listen", "--listen", listen.as_str().into()));
    }
    if args.no_auth {
        flags.push(("server.auth", "--no-auth", false.into()));
    }
    if args.self_signed {
        flags.push(("tls.cert", "--self-signed", "self-signed".into()));
        flags.push(("tls.key", "--self-signed", "".into()));
    }
    Sources {
        file: args.config.clone(),
        data_dir: data_dir.to_owned(),
        env: env.clone(),
        flags,
    }
}

/// Runs the server until it is told to stop.
pub(crate) async fn run(args: UpArgs, data_dir: PathBuf) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    let begun = clock.instant();
    let env = paths::environment();
    let sources = sources(&args, &data_dir, &env);
    let merged = Merged::of(&sources);
    let config = match merged.resolve(&data_dir) {
        Ok(config) => config,
        Err(issues) => {
            let count = issues.len();
            output::note(format!("error: the configuration has {count} problem(s)"));
            for issue in issues {
                output::note(format!("  {}: {}", issue.path, issue.message));
            }
            return Ok(ExitCode::from(output::FAILED));
        }
    };
    let level = start_logging(&config);
    for note in merged.notes() {
        tracing::warn!("{note}");
    }
    let mut running = wire::start(&config).await?;
    if args.demo {
        add_demo(&running).await?;
    }
    let look = Arc::new(Notify::new());
    let announced = Announced {
        file: config.data_dir.join(RunFile::NAME),
        url: wire::local_url(&config, running.listen),
        started_at: clock.now(),
    };
    let shown = running.gateway.certificate();
    announced.write(
        shown
            .into_iter()
            .map(|shown| shown.facts.fingerprint)
            .collect(),
    )?;
    let watching = config.tls.clone().map(|pair| {
        let watch = Watch {
            pair,
            gateway: running.gateway.clone(),
            clock: clock.clone(),
            now: Arc::clone(&look),
        };
        let watching = watch.run(move |certificates| announced.renew(certificates));
        AbortOnDropHandle::new(tokio::runtime::Handle::current().spawn(watching))
    });
    banner(&config, &running, (begun, &clock), args.demo);
    let ended = until_told(&mut running, (&sources, &data_dir), (&level, &look)).await;
    drop(watching);
    let hard = hard_stop();
    tokio::select! {
        () = running.stop() => {}
        () = hard => output::note("Stopping at once."),
    }
    remove_run_file(&config);
    match ended {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error),
    }
}

/// Waits for a signal, a request to stop, or the end of the listener, which is returned.
async fn until_told(
    running: &mut Running,
    (sources, data_dir): (&Sources, &std::path::Path),
    (level, look): (&LevelHandle, &Notify),
) -> Option<anyhow::Error> {
    let (Ok(mut term), Ok(mut int), Ok(mut hup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        return Some(anyhow::anyhow!("signals cannot be received"));
    };
    let control = running.control.clone();
    loop {
        tokio::select! {
            _ = term.recv() => return None,
            _ = int.recv() => return None,
            () = control.shutdown_asked() => return None,
            error = running.ended() => return Some(error),
            _ = hup.recv() => {
                look.notify_one();
                reload(running, sources, data_dir, level);
            }
        }
    }
}

/// A second signal while stopping means: now.
async fn hard_stop() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn reload(running: &Running, sources: &Sources, data_dir: &std::path::Path, level: &LevelHandle) {
    match Merged::of(sources).resolve(data_dir) {
        Ok(config) => {
            running.gateway.tune(config.tunables);
            set_level(level, &config.logs.level);
            tracing::info!("the configuration was read again");
        }
        Err(issues) => {
            for issue in issues {
                tracing::error!(key = issue.path, "{}", issue.message);
            }
            tracing::error!("the configuration has problems and stays as it was");
        }
    }
}

async fn add_demo(running: &Running) -> anyhow::Result<()> {
    let name: ServiceName = "demo".parse()?;
    let found = running
        .control
        .service(&Principal::system(), &ServiceRef::Name(name.clone()))
        .await;
    if found.is_err() {
        let draft = ServiceDraft::new(name, Source::Builtin(Builtin::Demo));
        let change = Change::CreateService(Box::new(draft));
        running.control.submit(&Principal::system(), change).await?;
    }
    Ok(())
}

/// What the command line finds the server by.
struct Announced {
    file: PathBuf,
    url: String,
    started_at: Timestamp,
}

impl Announced {
    fn write(&self, certificates: Vec<String>) -> anyhow::Result<()> {
        let run = RunFile {
            pid: std::process::id(),
            url: self.url.parse().context("the address is no URL")?,
            started_at: self.started_at.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            certificates,
        };
        write_private(&self.file, &serde_json::to_string(&json!(run))?)
    }

    fn renew(&self, certificates: Vec<String>) {
        if let Err(error) = self.write(certificates) {
            tracing::error!(%error, "the command line does not know the new certificate");
        }
    }
}

fn remove_run_file(config: &Config) {
    if let Err(error) = std::fs::remove_file(config.data_dir.join(RunFile::NAME)) {
        tracing::debug!(%error, "the run file was gone already");
    }
}

fn banner(config: &Config, running: &Running, (begun, clock): (Instant, &Clock), demo: bool) {
    let took = clock.instant().duration_since(begun).as_millis();
    let key = config.data_dir.join(ADMIN_KEY);
    output::note(format!("Vaxel is ready after {took} ms."));
    output::note(format!(
        "  API and documentation  {0}  {0}/docs",
        running.url
    ));
    output::note(format!("  MCP                    {}/mcp", running.url));
    if config
        .tls
        .as_ref()
        .is_some_and(|pair| pair.made_for.is_some())
        && let Some(shown) = running.gateway.certificate()
    {
        let fingerprint = certificate::shown(&shown.facts);
        output::note(format!("  certificate (SHA-256)  {fingerprint}"));
    }
    if config.gateway.auth {
        output::note(format!("  admin key              {}", key.display()));
    } else {
        output::note("  NO AUTHENTICATION: everyone on this machine is admin (--no-auth)");
    }
    output::note(match (running.services, demo) {
        (0, false) => "  next: vaxel up --demo, or: vaxel service add everything -- npx -y \
             @modelcontextprotocol/server-everything"
            .to_owned(),
        (_, true) => "  next: vaxel call demo__echo --arg message=hello".to_owned(),
        (services, false) => format!("  {services} services; next: vaxel ls"),
    });
}

type LevelHandle =
    tracing_subscriber::reload::Handle<tracing_subscriber::EnvFilter, tracing_subscriber::Registry>;

fn start_logging(config: &Config) -> LevelHandle {
    use tracing_subscriber::{
        EnvFilter, Layer, layer::SubscriberExt, reload, util::SubscriberInitExt,
    };
    let filter = EnvFilter::try_new(&config.logs.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::new(filter);
    let human = match config.logs.format {
        LogFormat::Auto => output::can_show_progress(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if human {
        lines
            .with_ansi(output::can_show_progress())
            .with_target(false)
            .boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    // Only tests could have set another subscriber, and they do not come here.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    handle
}

fn set_level(handle: &LevelHandle, level: &str) {
    match tracing_subscriber::EnvFilter::try_new(level) {
        Ok(filter) => {
            if let Err(error) = handle.reload(filter) {
                tracing::error!(%error, "the log level could not be changed");
            }
        }
        Err(error) => tracing::error!(%error, "logs.level is no filter and stays as it was"),
    }
}
