//! What the data plane is told once ([`Config`]) and what may change while it runs ([`Tunables`]).

use std::time::Duration;

use vaxel_auth::web::WebRules;
use vaxel_egress::Networks;

use crate::breaker::BreakerRules;

/// Fixed for the life of the process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether callers must show a key. When false, everyone who reaches the listener is admin.
    pub auth: bool,
    /// Whether refused clients are told where their users can log in.
    pub oauth: bool,
    /// The address of this server for its clients, without a slash at the end; absent: the one that they use.
    pub public_url: Option<String>,
    /// Version shown to clients and upstreams.
    pub version: &'static str,
    /// Largest request body, bytes.
    pub body_max: usize,
    /// Largest request head, bytes.
    pub head_max: usize,
    /// Longest wait for a request head.
    pub head_timeout: Duration,
    /// Longest wait for the rest of a request body.
    pub body_timeout: Duration,
    /// Client connections at once; further ones wait to be accepted.
    pub connections_max: usize,
    /// Client connections of one address at once (of IPv6: of one /64); further ones are closed. 0: any number.
    pub connections_per_address: usize,
    /// Whose connections are not counted, besides those of this machine: proxies.
    pub connections_exempt: Networks,
    /// Largest answer of an upstream, bytes.
    pub response_max: usize,
    /// Largest line of a stdio server, bytes.
    pub line_max: usize,
    /// Legacy sessions kept at once; the longest idle one makes room.
    pub sessions_max: usize,
    /// An idle legacy session ends after this.
    pub session_idle: Duration,
    /// A session with a server that no caller has used for so long is ended.
    pub upstream_idle: Duration,
    /// How often idle sessions are looked for.
    pub sweep_every: Duration,
    /// How often a server over HTTP is asked again which era it speaks.
    pub era_recheck: Duration,
    /// Open streams to clients at once; further ones are refused as busy.
    pub streams_max: usize,
    /// Longest exposed name, characters.
    pub name_max: usize,
    /// Longest list page, items.
    pub page_size: usize,
    /// Longest wait for the first answer of an upstream in one era.
    pub probe_timeout: Duration,
    /// How long a call waits for a service that is being started.
    pub start_wait: Duration,
    /// How long a client may take to answer a question of a server.
    pub answer_wait: Duration,
    /// Calls of modern clients that wait for such answers at once, in all.
    pub parked_max: usize,
    /// The same for one caller.
    pub parked_per_caller: usize,
    /// Most definitions read from one upstream per list.
    pub catalog_items_max: usize,
    /// How long requests in flight may take to end at shutdown.
    pub shutdown_grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            auth: true,
            oauth: true,
            public_url: None,
            version: "0.0.0",
            body_max: 4 << 20,
            head_max: 32 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            connections_max: 10_000,
            connections_per_address: 512,
            connections_exempt: Networks::default(),
            response_max: 16 << 20,
            line_max: 16 << 20,
            sessions_max: 100_000,
            session_idle: Duration::from_hours(1),
            upstream_idle: Duration::from_mins(15),
            sweep_every: Duration::from_mins(1),
            era_recheck: Duration::from_hours(24),
            streams_max: 10_000,
            name_max: 50,
            page_size: 500,
            probe_timeout: Duration::from_secs(10),
            start_wait: Duration::from_secs(15),
            answer_wait: Duration::from_mins(10),
            parked_max: 10_000,
            parked_per_caller: 1_000,
            catalog_items_max: 10_000,
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// May change while the process runs.
#[derive(Debug, Clone)]
pub struct Tunables {
    /// Which Host and Origin headers may come in.
    pub web: WebRules,
    /// Longest time for one call, where the service does not say.
    pub call_timeout: Duration,
    /// Calls in flight per service, where the service does not say.
    pub concurrency: u32,
    /// When calls to a service that does not answer are refused.
    pub breaker: BreakerRules,
    /// Whether calls leave records.
    pub records: bool,
    /// What records keep of parameters and results.
    pub keep: Keep,
    /// Bytes kept of each.
    pub keep_max: usize,
}

impl Tunables {
    /// The defaults behind these rules.
    pub const fn new(web: WebRules) -> Self {
        Self {
            web,
            call_timeout: Duration::from_mins(1),
            concurrency: 256,
            breaker: BreakerRules {
                failures: 10,
                pause: Duration::from_secs(10),
            },
            records: true,
            keep: Keep::None,
            keep_max: 4 << 10,
        }
    }
}

/// What call records keep of parameters and results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Neither.
    None,
    /// Parameters only.
    Parameters,
    /// Both.
    All,
}
