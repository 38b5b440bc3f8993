//! The configuration of the server: the manual, the layers above it, and the settings that come out.
//!
//! Four layers are merged value by value: the embedded manual, a file, the environment and flags.
//! Reading collects every problem with its key path and where the value came from.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use vaxel_core::failure::Issue;

use crate::certificate::Pair;

mod sources; // read this first: where values come from
mod layering;
mod read;

pub(crate) use sources::{Merged, Sources};

/// The manual; also the lowest layer.
pub(crate) const MANUAL: &str = include_str!("config/config.default.toml");

/// Settings of a server; see the manual for each.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Listener, authentication, addresses.
    pub(crate) server: Server,
    /// What connections are encrypted with; `None`: they are not.
    pub(crate) tls: Option<Pair>,
    /// Settings of the data plane.
    pub(crate) gateway: vaxel_gateway::Config,
    /// What SIGHUP may change.
    pub(crate) tunables: vaxel_gateway::Tunables,
    /// Outgoing connections.
    pub(crate) egress: vaxel_egress::Config,
    /// Processes.
    pub(crate) process: Process,
    /// Gives the root key, when that is neither in its file nor in the environment; empty: there is none.
    pub(crate) root_key_command: Vec<String>,
    /// Sign-ins and their tokens.
    pub(crate) tokens: vaxel_control::TokensConfig,
    /// Clients that log in for users.
    pub(crate) oauth: vaxel_control::OauthConfig,
    /// How much users with built-in roles may take.
    pub(crate) callers: vaxel_core::quota::RoleQuotas,
    /// Health checks.
    pub(crate) health: vaxel_control::HealthConfig,
    /// Store.
    pub(crate) store: vaxel_store::Config,
    /// Call records.
    pub(crate) records: Records,
    /// The feed of changes.
    pub(crate) feed: vaxel_control::FeedConfig,
    /// The audit.
    pub(crate) audit: vaxel_control::AuditConfig,
    /// After how long the archive forgets.
    pub(crate) archive: Option<Duration>,
    /// Logs.
    pub(crate) logs: Logs,
    /// Who may read metrics.
    pub(crate) metrics: vaxel_api::MetricsAccess,
    /// A catalog is read again after this.
    pub(crate) catalog_ttl: Duration,
}

/// `[server]`
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Address and port.
    pub(crate) listen: SocketAddr,
    /// Base of the URLs that are named.
    pub(crate) public_url: Option<String>,
    /// Threads of the data plane.
    pub(crate) workers: usize,
}

/// `[process]`
#[derive(Debug, Clone)]
pub(crate) struct Process {
    /// To the first MCP answer.
    pub(crate) start_timeout: Duration,
    /// Between the steps of stopping.
    pub(crate) stop_grace: Duration,
    /// Whether ended processes are started again.
    pub(crate) auto_restart: bool,
    /// How waits grow.
    pub(crate) backoff: vaxel_core::backoff::Backoff,
    /// Between signs of life.
    pub(crate) health_interval: Duration,
    /// For services that one depends on.
    pub(crate) dependency_wait: Duration,
}

/// `[records]`
#[derive(Debug, Clone)]
pub(crate) struct Records {
    /// Records that may wait.
    pub(crate) queue: usize,
    /// Older ones are deleted.
    pub(crate) retention: Duration,
    /// More than this are deleted.
    pub(crate) max_rows: u64,
    /// Older sums of hours are deleted.
    pub(crate) hours: Duration,
    /// Older sums of days are deleted.
    pub(crate) days: Duration,
    /// Whether what they keep is sealed.
    pub(crate) seal: bool,
}

/// `[logs]`
#[derive(Debug, Clone)]
pub(crate) struct Logs {
    /// Filter.
    pub(crate) level: String,
    /// Output.
    pub(crate) format: LogFormat,
    /// Longest line, bytes.
    pub(crate) line_max: usize,
    /// Size at which a file is rotated, bytes.
    pub(crate) file_max: u64,
    /// Older files kept.
    pub(crate) files: u32,
    /// Lines in memory.
    pub(crate) tail: usize,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// For programs.
    Json,
}

impl Merged {
    /// The settings, or every problem. `data_dir` is where everything is kept.
    pub(crate) fn resolve(&self, data_dir: &Path) -> Result<Config, Vec<Issue>> {
        let mut issues = self.issues().to_vec();
        let config = self
            .layers()
            .read(&mut issues, |fields| read::config(fields, data_dir));
        match config.flatten() {
            Some(config) if issues.is_empty() => Ok(config),
            _ => Err(issues),
        }
    }
}

#[cfg(test)]
mod tests;
