//! The words of the queries: what is asked, and what is answered. Each query is authorized like a
//! change; none of them waits for an upstream.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde_json::value::RawValue;
use vaxel_core::{
    call::Outcome,
    lifecycle::Lifecycle,
    name::ServiceName,
    service::ServiceResource,
    status::{Health, ServiceStatus},
    time::Timestamp,
};
use vaxel_gateway::tls::CertificateStatus;

use crate::{change::ServiceRef, config::ServerFacts, status::Totals};

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Longest page.
    pub limit: u32,
    /// `next_cursor` of the page before; `None`: the first page.
    pub cursor: Option<String>,
}

impl Page {
    /// Default of [`Page::limit`].
    pub const LIMIT: u32 = 100;
    /// Longest page there is.
    pub const LIMIT_MAX: u32 = 500;

    /// The first page.
    pub const FIRST: Self = Self {
        limit: Self::LIMIT,
        cursor: None,
    };
}

/// One page.
#[derive(Debug, Clone)]
pub struct List<T> {
    /// In the order of the list.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last one.
    pub next_cursor: Option<String>,
}

/// Which services. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceFilter {
    /// Part of the name, description, command or URL; case does not matter.
    pub text: Option<String>,
    /// All of these are among its tags.
    pub tags: Vec<String>,
    /// Its environment.
    pub environment: Option<String>,
    /// `process`, `mcp` or `builtin`.
    pub source: Option<String>,
    /// Its state.
    pub state: Option<Lifecycle>,
    /// Its health.
    pub health: Option<Health>,
    /// Name of the principal that created it.
    pub owner: Option<String>,
    /// It offers a tool of this name, its own or the exposed one; `*` stands for any run of
    /// characters.
    pub tool: Option<String>,
    /// The archive instead of what is in use.
    pub deleted: bool,
    /// In which order.
    pub sort: ServiceSort,
}

/// The order of a list of services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceSort {
    /// What decides.
    pub by: SortKey,
    /// The other way round.
    pub backwards: bool,
}

/// What decides the order of a list; of services that are equal in it, the older one comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortKey {
    /// The name.
    #[default]
    Name,
    /// When they were made, the oldest first.
    Created,
    /// When they were written last, the longest ago first.
    Updated,
    /// The health; those that need a look first.
    Health,
    /// How often they were called, the least first.
    Calls,
}

impl SortKey {
    const ALL: [(&'static str, Self); 5] = [
        ("name", Self::Name),
        ("created", Self::Created),
        ("updated", Self::Updated),
        ("health", Self::Health),
        ("calls", Self::Calls),
    ];
}

impl fmt::Display for ServiceSort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = SortKey::ALL.iter().find(|(_, key)| *key == self.by);
        let sign = if self.backwards { "-" } else { "" };
        write!(f, "{sign}{}", word.map_or("", |(word, _)| word))
    }
}

impl FromStr for ServiceSort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, backwards) = match text.strip_prefix('-') {
            Some(word) => (word, true),
            None => (text, false),
        };
        let found = SortKey::ALL.iter().find(|(known, _)| *known == word);
        let known = || SortKey::ALL.map(|(known, _)| known).join(", ");
        found
            .map(|(_, by)| Self { by: *by, backwards })
            .ok_or_else(|| {
                format!(
                    "`{text}` is no order: one of {}, or with `-` before it",
                    known()
                )
            })
    }
}

/// A service with what is seen of it.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Desired state and bookkeeping.
    pub resource: ServiceResource,
    /// Observed state.
    pub status: ServiceStatus,
    /// Its calls.
    pub stats: Stats,
    /// Whether a template that it was made from is another one now.
    pub behind: bool,
}

/// Figures of a service's calls.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stats {
    /// Calls on record.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Mean duration, milliseconds.
    pub average_ms: f64,
    /// Arrival of the last one.
    pub last_used_at: Option<Timestamp>,
    /// Calls that are being answered now.
    pub in_flight: u32,
}

/// The four kinds of things that a service offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferKind {
    /// Tools.
    Tools,
    /// Prompts.
    Prompts,
    /// MCP resources.
    Resources,
    /// Templates of MCP resources.
    Templates,
}

/// Something that a service offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its name at the federated endpoint.
    pub name: Arc<str>,
    /// The service's own name of it; the URI or URI template of a resource.
    pub own: Arc<str>,
    /// The service.
    pub service: ServiceName,
    /// Name for people.
    pub title: Option<String>,
    /// What it does.
    pub description: Option<String>,
    /// As the service sent it.
    pub definition: Arc<RawValue>,
}

/// What one service offers of one kind.
#[derive(Debug, Clone)]
pub struct Offers {
    /// In the server's order.
    pub items: Vec<Offer>,
    /// The server could not be asked since.
    pub stale: bool,
    /// When it was asked last.
    pub fetched_at: Option<Timestamp>,
}

/// Which tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolQuery {
    /// Of this service only.
    pub service: Option<ServiceRef>,
    /// Part of name, title or description; case does not matter.
    pub text: Option<String>,
}

/// Which tool is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolTarget {
    /// By its exposed name.
    Exposed(String),
    /// By service and own name.
    Of {
        /// The service.
        service: ServiceRef,
        /// Its own name of the tool.
        tool: String,
    },
}

/// What a tool is called with.
#[derive(Debug, Default)]
pub struct ToolInput {
    /// A JSON object; `None`: an empty one.
    pub arguments: Option<Box<RawValue>>,
    /// Shorter than what the service allows.
    pub timeout: Option<Duration>,
}

/// Which calls. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallFilter {
    /// Name of the tool or prompt, URI of the resource; as the service knows it.
    pub target: Option<String>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Name of the user.
    pub principal: Option<String>,
    /// Arrived then or later.
    pub since: Option<Timestamp>,
    /// Arrived earlier.
    pub until: Option<Timestamp>,
}

/// The running server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// What does not change while it runs.
    pub server: ServerFacts,
    /// Its process id.
    pub pid: u32,
    /// What connections are encrypted with; `None`: they are not.
    pub certificate: Option<CertificateStatus>,
    /// How many services are in which state.
    pub services: Totals,
    /// Calls since the start, of services that are there now.
    pub calls: CallTotals,
    /// The database.
    pub store: StoreFacts,
    /// Call records on their way.
    pub records: RecordFacts,
    /// What is stored and cannot be read, one sentence each.
    pub left_out: Vec<String>,
    /// Where the audit does not hold, when that was found since the start.
    pub audit_problem: Option<String>,
}

/// Calls since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallTotals {
    /// All of them.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Those that are being answered now.
    pub in_flight: u32,
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreFacts {
    /// Which engine.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// Where it is: a directory, or a server with its database.
    pub place: String,
    /// Why it does not answer; `None` when it does.
    pub problem: Option<String>,
    /// Number of its layout.
    pub schema: u64,
    /// Size on disk, bytes.
    pub bytes: u64,
}

/// Call records on their way to the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordFacts {
    /// Waiting to be written.
    pub queued: u64,
    /// Lost since the start.
    pub lost: u64,
}
