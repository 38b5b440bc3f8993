//! What control must know that is no resource: deadlines, places and the facts that the status shows.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, time::Duration};

use vaxel_auth::jwt::Algorithm;
use vaxel_core::{
    backoff::Backoff,
    health::spec::{HealthSpec, Rules},
    name::RoleName,
    quota::RoleQuotas,
    secret::Secret,
    time::Timestamp,
};

/// Resolved settings; the binary composes them.
#[derive(Debug, Clone)]
pub struct Config {
    /// What the status says of the running server.
    pub server: ServerFacts,
    /// How instances are started, watched and stopped.
    pub process: ProcessConfig,
    /// After how long a catalog is read again although nobody announced a change.
    pub catalog_ttl: Duration,
    /// How services are checked.
    pub health: HealthConfig,
    /// Sign-ins and the tokens that come of them.
    pub tokens: TokensConfig,
    /// Clients that log in for users.
    pub oauth: OauthConfig,
    /// How much users with built-in roles may take.
    pub callers: RoleQuotas,
    /// How call records are kept.
    pub records: RecordsConfig,
    /// The feed of changes.
    pub feed: FeedConfig,
    /// The audit.
    pub audit: AuditConfig,
    /// After how long in the archive a service is gone for good; `None`: never.
    pub archive: Option<Duration>,

    /// Longest exposed name of a tool or prompt, characters; the data plane has the same.
    pub name_max: usize,
    /// How long [`crate::Control::stop`] waits for services and writes before it goes on.
    pub grace: Duration,
}

impl Config {
    /// How a service with this spec is checked.
    pub(crate) fn rules(&self, spec: &HealthSpec) -> Rules {
        let default = Rules {
            interval: self.process.health_interval,
            ..self.health.rules.clone()
        };
        default.with(spec)
    }
}

/// Sign-ins and the tokens that come of them.
#[derive(Debug, Clone, Copy)]
pub struct TokensConfig {
    /// How access tokens are signed.
    pub algorithm: Algorithm,
    /// How long a key signs before the next one does.
    pub rotation: Duration,
    /// A sign-in that is not renewed for so long is over.
    pub sign_in: Duration,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            rotation: Duration::from_hours(30 * 24),
            sign_in: Duration::from_hours(30 * 24),
        }
    }
}

/// Clients that log in for users.
#[derive(Debug, Clone)]
pub struct OauthConfig {
    /// Whether they can.
    pub enabled: bool,
    /// Whether they may register themselves.
    pub registration: bool,
    /// Another authorization server, which clients of MCP are sent to.
    pub issuer: Option<IssuerConfig>,
}

/// Another authorization server.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// What it calls itself.
    pub url: String,
    /// The claim that holds the name of a user here.
    pub user_claim: String,
    /// The claim that holds its words for the roles of the user; `None`: roles are given here alone.
    pub roles_claim: Option<String>,
    /// Which roles here those words mean.
    pub roles: HashMap<String, RoleName>,
    /// What it signs with, where it shares a secret (`HS256`) and has no keys that it gives away.
    pub secret: Option<Secret<String>>,
}

impl Default for OauthConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            registration: true,
            issuer: None,
        }
    }
}

/// How services are checked.
#[derive(Debug, Clone)]
pub struct HealthConfig {
    /// Where a service does not say otherwise. The interval is that of [`ProcessConfig`].
    pub rules: Rules,
    /// So many checks begin at once, over all services.
    pub checks_at_once: usize,
    /// Changes of health are kept so long; the last one of each service stays.
    pub retention: Duration,
    /// How long a service that registers itself may be silent, when it does not say so; `None`: for ever.
    pub lease: Option<Duration>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            checks_at_once: 64,
            retention: Duration::from_hours(90 * 24),
            lease: None,
        }
    }
}

/// Facts of the running server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// Version of the binary.
    pub version: String,
    /// Start of this process.
    pub started_at: Timestamp,
    /// The bound address.
    pub listen: SocketAddr,
    /// Base URL for people and clients, without a slash at the end.
    pub url: String,
    /// Holds the database, keys and logs; hidden from every child process.
    pub data_dir: PathBuf,
    /// Whether a key is required; false only with `--no-auth` on loopback.
    pub auth: bool,
    /// What cannot be done on this machine, such as a missing sandbox feature; one sentence each.
    pub notes: Vec<String>,
}

/// How instances are started, watched and stopped.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// Until the first real MCP answer.
    pub start_timeout: Duration,
    /// How long calls in flight may take to end before their instance is stopped.
    pub drain: Duration,
    /// Whether an instance that ended unasked is started again.
    pub auto_restart: bool,
    /// How waits between starts grow, and when starting counts as a crash loop.
    pub backoff: Backoff,
    /// Longest wait of a service for those that it depends on.
    pub dependency_wait: Duration,
    /// Between two health checks of one instance.
    pub health_interval: Duration,
    /// So many starts and connects happen at once.
    pub starts_at_once: usize,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_mins(1),
            drain: Duration::from_secs(5),
            auto_restart: true,
            backoff: Backoff::default(),
            dependency_wait: Duration::from_secs(30),
            health_interval: Duration::from_secs(30),
            starts_at_once: 16,
        }
    }
}

/// How call records are kept.
#[derive(Debug, Clone, Copy)]
pub struct RecordsConfig {
    /// Older records are deleted.
    pub retention: Duration,
    /// More records than this are deleted, oldest first.
    pub max_rows: u64,
    /// Older sums of hours are deleted.
    pub hours: Duration,
    /// Older sums of days are deleted.
    pub days: Duration,
    /// Whether parameters and results that are kept are sealed.
    pub seal: bool,
}

impl Default for RecordsConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(30 * 24),
            max_rows: 1_000_000,
            hours: Duration::from_hours(35 * 24),
            days: Duration::from_hours(400 * 24),
            seal: false,
        }
    }
}

/// The audit.
#[derive(Debug, Clone, Copy)]
pub struct AuditConfig {
    /// Older lines are deleted; those about what services went through as soon as [`HealthConfig::retention`]
    /// says.
    pub retention: Duration,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(365 * 24),
        }
    }
}

/// The feed of changes.
#[derive(Debug, Clone, Copy)]
pub struct FeedConfig {
    /// Older changes are deleted.
    pub retention: Duration,
    /// More changes than this are deleted, oldest first.
    pub max_rows: u64,
    /// Readers that follow at once; further ones are refused as busy.
    pub readers: usize,
    /// The newest changes, kept in memory for them.
    pub ring: usize,
    /// A reader that took nothing for this long, although more waits than the ring holds, loses its
    /// place.
    pub patience: Duration,
}

impl Default for FeedConfig {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(7 * 24),
            max_rows: 100_000,
            readers: 1_000,
            ring: 4_096,
            patience: Duration::from_secs(30),
        }
    }
}
