//! What handlers share: handles, and the few settings that answers depend on.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use vaxel_control::Control;

/// Settings of the management API.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base of the URLs in answers, without a slash at the end.
    pub base: String,
    /// The same where it is configured; else clients name the server as they reach it.
    pub public_url: Option<String>,
    /// Largest request body, bytes.
    pub body_max: usize,
    /// Longest wait for the rest of a request body.
    pub body_timeout: Duration,
    /// Whether browsers are told to come back with TLS and nothing else (RFC 6797).
    pub only_tls: bool,
    /// Who may read `/metrics`.
    pub metrics: MetricsAccess,
}

/// Who may read `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MetricsAccess {
    /// Programs on this machine, and keys with `metrics:read`.
    #[default]
    Loopback,
    /// Keys with `metrics:read`.
    Key,
    /// Nobody.
    Off,
}

/// Cheap to clone; each request has one.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) control: Control,
    pub(crate) config: Arc<Config>,
    pub(crate) registry: Arc<Registry>,
}
