//! The desired state of a service, and its validation.
//!
//! A [`ServiceSpec`] is what someone asked for. It is accepted whole or refused with every problem
//! named; once accepted it is an immutable revision. Values that are or may be secret (environment,
//! headers) are replaced by `secret:` references at `submit`, before anything is stored.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    balance::Balance,
    failure::Issue,
    fields::Fields,
    health::spec::{HealthSpec, is_default},
    id::{Id, SecretValue, Service},
    name::ServiceName,
    quantity::{Size, Span},
    rate::Rate,
    time::Timestamp,
};

pub mod category;
mod derivation;
mod http;
mod identity; // what a service is told of its callers
mod read;
mod read_http;
mod schema;
mod settings;
pub mod stored; // what a row says, whichever Vaxel wrote it
mod upstream_auth; // what remote servers want to be shown

pub(crate) use derivation::pointer;
pub use derivation::{Derivation, Link, leaves};
pub use http::{HttpInstance, HttpSource, HttpTool, Scheme, ToolDeclaration};
pub use identity::{Identity, IdentityToken};
pub use schema::draft_schema;
pub use settings::{Setting, settings};
pub use upstream_auth::{Grant, McpAuth, Registration, UpstreamOauth};

/// A service as it is stored: identity, bookkeeping and desired state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceResource {
    /// Never changes.
    pub id: Id<Service>,
    /// Unique among services that are not deleted.
    pub name: ServiceName,
    /// Counts every write; `If-Match` compares it.
    pub version: u64,
    /// Number of the current spec.
    pub revision: u64,
    /// Whether it should run.
    pub enabled: bool,
    /// For people and filters.
    pub tags: Vec<String>,
    /// `dev`, `staging`, `prod` or own; `default` when not given.
    pub environment: String,
    /// Name of the principal that created it.
    pub owner: String,
    /// What it is.
    pub spec: ServiceSpec,
    /// First accepted.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
    /// First switched on. A service that never was is a draft.
    pub activated_at: Option<Timestamp>,
    /// Set while it is in the archive.
    pub deleted_at: Option<Timestamp>,
    /// What cannot be read of what is stored; then `spec` is only as much of it as can.
    #[serde(skip)]
    pub defect: Option<Box<stored::Defect>>,
}

/// What someone sends to create or replace a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceDraft {
    /// See [`ServiceName`] for the grammar.
    #[schema(value_type = String, example = "files", max_length = 32)]
    pub name: ServiceName,
    /// Whether it should run; default true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// For people and filters.
    #[serde(default)]
    pub tags: Vec<String>,
    /// `dev`, `staging`, `prod` or own.
    #[serde(default = "default_environment")]
    pub environment: String,
    /// What it is.
    pub spec: ServiceSpec,
}

/// The desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ServiceSpec {
    /// Name for people, at most 120 characters; the service's own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "File System Server", max_length = 120)]
    pub title: Option<String>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is run or reached.
    pub source: Source,
    /// How many processes share the calls (process sources only), 1 to 64.
    #[serde(default = "one")]
    #[schema(default = 1, minimum = 1, maximum = 64)]
    pub replicas: u16,
    /// Which of its instances takes the next call, where there is more than one.
    #[serde(default)]
    pub balance: Balance,
    /// Without calls for so long its processes are stopped; the next call starts them again (process
    /// sources only), 1 second to 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub idle_timeout: Option<Span>,
    /// Which MCP era to speak to it.
    #[serde(default)]
    pub era: EraChoice,
    /// Which of its tools callers can see and call.
    #[serde(default)]
    pub tools: ToolFilter,
    /// What of its tool calls is checked against the schemas of its tools.
    #[serde(default)]
    pub validate: Validate,
    /// Whether it is told who calls, and how.
    #[serde(default, skip_serializing_if = "Identity::is_none")]
    pub identity: Identity,
    /// Bounds of calls and processes.
    #[serde(default)]
    pub limits: Limits,
    /// Names of services that it needs: it starts after them, and is degraded while one of them does not
    /// serve. At most 64, without circles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 64, example = json!(["db"]))]
    pub depends_on: Vec<ServiceName>,
    /// How long it may be silent before it is unhealthy; three times as long, and it is removed. For
    /// services that register themselves and say from time to time that they live. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "90s")]
    pub lease: Option<Span>,
    /// What is checked of it, and what is done when a check fails.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: HealthSpec,
    /// The template that it was made from; written by Vaxel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub extends: Option<Box<Derivation>>,
}

/// What is run or reached; exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A stdio MCP server that Vaxel runs.
    Process(ProcessSource),
    /// A remote MCP server.
    Mcp(McpSource),
    /// A service that is called by plain HTTP.
    Http(HttpSource),
    /// A server that is part of the binary.
    Builtin(Builtin),
}

/// A stdio MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProcessSource {
    /// Program: a path, or a name that is looked up in PATH.
    #[schema(example = "npx")]
    pub command: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment on top of the defined base; values are sealed on arrival.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; default is the home directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// A remote MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct McpSource {
    /// The MCP endpoint: `http` or `https`, or `ws` or `wss` for WebSocket.
    #[schema(example = "https://mcp.example.com/mcp")]
    pub url: String,
    /// Headers sent with every request; values are sealed on arrival.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Which callers share what the server remembers of them.
    #[serde(default)]
    pub session: SessionScope,
    /// How Vaxel proves itself there, beside the headers.
    #[serde(default, skip_serializing_if = "McpAuth::is_none")]
    pub auth: McpAuth,
}

/// What the secret of a client of OAuth is called among the values that are sealed: no header can be called so.
pub const CLIENT_SECRET: &str = "oauth:client_secret";

/// Which callers share a session with a remote server that has sessions. Stateless servers have none,
/// and a program has one for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionScope {
    /// All: for servers that remember nothing of their callers.
    Shared,
    /// Those with the same credential.
    #[default]
    PerPrincipal,
    /// None: each session of a client has one of its own there. Stateless clients share by credential.
    PerClient,
}

/// A server that is part of the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    /// Clock, echo and notes: a first service on a machine without Node or Python.
    Demo,
}

/// Which MCP era to speak to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EraChoice {
    /// Ask the server.
    #[default]
    Auto,
    /// `initialize` and sessions (up to 2025-11-25).
    Legacy,
    /// Stateless (2026-07-28).
    Modern,
}

/// What of a tool call is checked against the tool's schemas. A tool whose schema cannot be used takes
/// no calls then: nothing passes unchecked that was to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Validate {
    /// Nothing: calls and results pass as they are, and the server judges.
    #[default]
    None,
    /// Arguments, before the call.
    Arguments,
    /// Arguments, and the structured content of results.
    All,
}

/// Which tools callers can see and call. A tool must match `allow` (when given) and not match `deny`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolFilter {
    /// Names, `*` stands for any run of characters. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// Names or patterns that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Bounds of one service. What is absent comes from the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Limits {
    /// Longest time for one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "60s")]
    pub timeout: Option<Span>,
    /// Calls in flight at once; further ones are refused as busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Calls of its tools in some time, by all callers together; further ones are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "600/1m")]
    pub rate: Option<Rate>,
    /// The same, by each caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "60/1m")]
    pub caller_rate: Option<Rate>,
    /// The same for each of the tools that fit a name (`*` stands for any run of characters). Of several
    /// that fit the least counts. At most 100.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, ToolLimits>,
    /// Memory of the process tree; above it the tree is killed and started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "512MiB")]
    pub memory: Option<Size>,
    /// Processes in the tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u32>,
    /// Open files of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
}

/// Bounds of calls of one tool. What is absent has no bound but those of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToolLimits {
    /// Calls in some time, by all callers together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5/1m")]
    pub rate: Option<Rate>,
    /// Calls in some time, by each caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "1/1m")]
    pub caller_rate: Option<Rate>,
    /// Calls in flight at once, 1 to 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub concurrent: Option<u32>,
}

impl Limits {
    /// What holds for a tool, by the service's own name for it.
    pub fn of_tool(&self, tool: &str) -> ToolLimits {
        fn least<T>(one: Option<T>, other: Option<T>, least: fn(T, T) -> T) -> Option<T> {
            match (one, other) {
                (Some(one), Some(other)) => Some(least(one, other)),
                (one, other) => one.or(other),
            }
        }
        let fitting = self.tools.iter().filter(|(name, _)| matches(name, tool));
        fitting.fold(ToolLimits::default(), |sum, (_, one)| ToolLimits {
            rate: least(sum.rate, one.rate, Rate::least),
            caller_rate: least(sum.caller_rate, one.caller_rate, Rate::least),
            concurrent: least(sum.concurrent, one.concurrent, u32::min),
        })
    }
}

/// What was asked for of a service, as someone would send it.
impl From<ServiceResource> for ServiceDraft {
    fn from(resource: ServiceResource) -> Self {
        let ServiceResource {
            id: _,
            name,
            version: _,
            revision: _,
            enabled,
            tags,
            environment,
            owner: _,
            spec,
            created_at: _,
            updated_at: _,
            activated_at: _,
            deleted_at: _,
            defect: _,
        } = resource;
        Self {
            name,
            enabled,
            tags,
            environment,
            spec,
        }
    }
}

impl ServiceDraft {
    /// Reads a draft from JSON that a person wrote: `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let draft = Fields::read(value, "", &mut issues, read::draft).flatten();
        match draft {
            Some(draft) if issues.is_empty() => Ok(draft),
            _ => Err(issues),
        }
    }

    /// A draft of `source` under `name`, everything else by default.
    pub fn new(name: ServiceName, source: Source) -> Self {
        Self {
            name,
            enabled: true,
            tags: Vec::new(),
            environment: default_environment(),
            spec: ServiceSpec::new(source),
        }
    }
}

impl ServiceSpec {
    /// A spec of `source`, everything else by default.
    pub fn new(source: Source) -> Self {
        Self {
            title: None,
            description: None,
            source,
            replicas: 1,
            balance: Balance::default(),
            idle_timeout: None,
            era: EraChoice::Auto,
            tools: ToolFilter::default(),
            validate: Validate::None,
            identity: Identity::None,
            limits: Limits::default(),
            depends_on: Vec::new(),
            lease: None,
            health: HealthSpec::default(),
            extends: None,
        }
    }

    /// Whether it runs a program on this host, which needs `host:execute`.
    pub const fn runs_on_host(&self) -> bool {
        matches!(self.source, Source::Process(_))
    }

    /// For whom a token that says who calls is good: the URL of a remote MCP server as it is written here, and
    /// the name of every other service. Nobody can choose it, so that no service is sent what another one
    /// would take.
    pub fn audience<'a>(&'a self, name: &'a ServiceName) -> &'a str {
        match &self.source {
            Source::Mcp(mcp) => &mcp.url,
            Source::Process(_) | Source::Http(_) | Source::Builtin(_) => name.as_str(),
        }
    }

    /// How many instances it has.
    pub fn instances(&self) -> u16 {
        match &self.source {
            Source::Http(http) => u16::try_from(http.instances.len()).unwrap_or(u16::MAX),
            Source::Process(_) | Source::Mcp(_) | Source::Builtin(_) => self.replicas.max(1),
        }
    }

    /// Every value that may be secret, to be sealed or opened in place.
    pub fn sensitive_values(&mut self) -> impl Iterator<Item = (&str, &mut String)> {
        let (map, secret) = match &mut self.source {
            Source::Process(process) => (Some(&mut process.env), None),
            Source::Mcp(mcp) => (Some(&mut mcp.headers), mcp.auth.secret()),
            Source::Http(http) => (Some(&mut http.headers), None),
            Source::Builtin(_) => (None, None),
        };
        let named = map.into_iter().flatten();
        let named = named.map(|(key, value)| (key.as_str(), value));
        named.chain(secret.map(|value| (CLIENT_SECRET, value)))
    }

    /// Values of secret parameters of its template, to be sealed or opened in place. They reach no
    /// program by themselves.
    pub fn sealed_parameters(&mut self) -> impl Iterator<Item = (&str, &mut String)> {
        let map = self.extends.as_mut().map(|extends| &mut extends.sealed);
        map.into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value))
    }
}

impl ServiceSpec {
    /// Leaves out the values of these names that may be secret.
    pub fn forget(&mut self, names: &[String]) {
        if names.iter().any(|name| name == CLIENT_SECRET)
            && let Source::Mcp(McpSource {
                auth: McpAuth::Oauth(oauth),
                ..
            }) = &mut self.source
        {
            oauth.client_secret = None;
        }
        let map = match &mut self.source {
            Source::Process(process) => &mut process.env,
            Source::Mcp(mcp) => &mut mcp.headers,
            Source::Http(http) => &mut http.headers,
            Source::Builtin(_) => return,
        };
        map.retain(|name, _| !names.contains(name));
    }
}

impl Source {
    /// The kind, as it stands in lists.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Process(_) => "process",
            Self::Mcp(_) => "mcp",
            Self::Http(_) => "http",
            Self::Builtin(_) => "builtin",
        }
    }
}

/// The command line, the URL or the name: what a person recognises a service by.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => {
                f.write_str(&process.command)?;
                process.args.iter().try_for_each(|arg| write!(f, " {arg}"))
            }
            Self::Mcp(mcp) => f.write_str(&mcp.url),
            Self::Http(http) => http.fmt(f),
            Self::Builtin(Builtin::Demo) => f.write_str("demo"),
        }
    }
}

impl ToolFilter {
    /// Whether a tool called `name` is visible and callable.
    pub fn admits(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        self.allow.as_deref().is_none_or(any) && !any(&self.deny)
    }
}

/// Glob match where `*` stands for any run of characters; linear in time.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            let Some(at) = rest.find(middle) else {
                return false;
            };
            rest = &rest[at + middle.len()..];
        }
    }
    last.map_or(rest.is_empty(), |suffix: &str| rest.ends_with(suffix))
}

impl EraChoice {
    /// The name in specs and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

impl FromStr for EraChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "legacy" => Ok(Self::Legacy),
            "modern" => Ok(Self::Modern),
            other => Err(format!(
                "`{other}` is not an era: write auto, legacy or modern"
            )),
        }
    }
}

impl FromStr for SessionScope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "shared" => Ok(Self::Shared),
            "per-principal" => Ok(Self::PerPrincipal),
            "per-client" => Ok(Self::PerClient),
            other => Err(format!(
                "`{other}` is no scope of a session: write shared, per-principal or per-client"
            )),
        }
    }
}

impl FromStr for Validate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "arguments" => Ok(Self::Arguments),
            "all" => Ok(Self::All),
            other => Err(format!(
                "`{other}` is not what can be validated: write none, arguments or all"
            )),
        }
    }
}

/// `secret:<id>`: stands in specs where a sealed value stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretRef(pub Id<SecretValue>);

impl SecretRef {
    /// The reference in `text`, when it is one.
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("secret:")?.parse().ok().map(Self)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret:{}", self.0)
    }
}

const fn yes() -> bool {
    true
}
const fn one() -> u16 {
    1
}
fn default_environment() -> String {
    "default".to_owned()
}

#[cfg(test)]
mod tests;
