//! The configuration of the server: layers, their origins, and the settings that come out.
//!
//! Four layers are merged value by value: the embedded manual, a file, the environment and flags.
//! Reading collects every problem with its key path and where the value came from.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde_json::{Map, Value};
use vaxel_auth::web::WebRules;
use vaxel_core::{
    failure::Issue,
    fields::Fields,
    quantity::{Size, Span},
};

mod read;

/// The manual; also the lowest layer.
pub(crate) const MANUAL: &str = include_str!("config/config.default.toml");

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The manual.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable.
    Environment(String),
    /// A flag of `vaxel up`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What the layers are made of.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `--config`; a missing file is then a problem.
    pub(crate) file: Option<PathBuf>,
    /// Where `config.toml` may be.
    pub(crate) data_dir: PathBuf,
    /// The environment of the process.
    pub(crate) env: BTreeMap<String, String>,
    /// Flags, by key path.
    pub(crate) flags: Vec<(&'static str, &'static str, Value)>,
}

/// The merged layers.
#[derive(Debug)]
pub(crate) struct Merged {
    values: Value,
    origins: BTreeMap<String, Origin>,
    issues: Vec<Issue>,
}

/// Settings of a server; see the manual for each.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Listener, authentication, addresses.
    pub(crate) server: Server,
    /// Settings of the data plane.
    pub(crate) gateway: vaxel_gateway::Config,
    /// What SIGHUP may change.
    pub(crate) tunables: vaxel_gateway::Tunables,
    /// Outgoing connections.
    pub(crate) egress: vaxel_egress::Config,
    /// Processes.
    pub(crate) process: Process,
    /// Store.
    pub(crate) store: vaxel_store::Config,
    /// Call records.
    pub(crate) records: Records,
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

impl FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            other => Err(format!(
                "`{other}` is not a format: write auto, human or json"
            )),
        }
    }
}

/// Names of the AI Platform, and what they mean here. Their durations are milliseconds.
const ALIASES: &[(&str, Option<&str>)] = &[
    ("MCP_HEALTH_CHECK_INTERVAL", Some("process.health_interval")),
    (
        "GATEWAY_HEALTH_CHECK_INTERVAL",
        Some("process.health_interval"),
    ),
    ("MCP_AUTO_RESTART", Some("process.auto_restart")),
    ("MCP_MAX_RETRIES", Some("process.max_retries")),
    ("GATEWAY_TIMEOUT_MS", Some("calls.timeout")),
    ("GATEWAY_LOAD_BALANCING", None),
    ("MCP_SERVERS_DIR", None),
];

/// Variables that are not configuration keys; the last two belong to `./dev` and `bench/run`.
const OTHER_VARIABLES: &[&str] = &[
    "VAXEL_URL",
    "VAXEL_KEY",
    "VAXEL_DATA_DIR",
    "VAXEL_LOG",
    "VAXEL_TEST_TOOLS",
    "VAXEL_BENCH_SUITE",
];

impl Merged {
    /// Merges all layers.
    pub(crate) fn of(sources: &Sources) -> Self {
        let manual: toml::Table = MANUAL.parse().expect("the embedded manual is valid TOML");
        let mut merged = Self {
            values: Value::Object(Map::new()),
            origins: BTreeMap::new(),
            issues: Vec::new(),
        };
        merged.add_table(&to_json(toml::Value::Table(manual)), &Origin::Default);
        merged.add_file(sources);
        merged.add_env(&sources.env);
        for (path, flag, value) in &sources.flags {
            merged.set(path, value.clone(), Origin::Flag(flag));
        }
        merged
    }

    fn add_file(&mut self, sources: &Sources) {
        let default = sources.data_dir.join("config.toml");
        let (path, must_be_there) = match &sources.file {
            Some(path) => (path.clone(), true),
            None => (default, false),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_be_there => return,
            Err(error) => {
                let message = format!("cannot be read ({error})");
                return self
                    .issues
                    .push(Issue::new(path.display().to_string(), message));
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => {
                self.add_table(&to_json(toml::Value::Table(table)), &Origin::File(path));
            }
            Err(error) => {
                self.issues
                    .push(Issue::new(path.display().to_string(), error.to_string()));
            }
        }
    }

    fn add_table(&mut self, table: &Value, origin: &Origin) {
        let Value::Object(sections) = table else {
            return;
        };
        for (section, keys) in sections {
            match keys {
                Value::Object(keys) => {
                    for (key, value) in keys {
                        self.set(&format!("{section}.{key}"), value.clone(), origin.clone());
                    }
                }
                other => self.set(section, other.clone(), origin.clone()),
            }
        }
    }

    fn add_env(&mut self, env: &BTreeMap<String, String>) {
        for (alias, key) in ALIASES {
            let Some(text) = env.get(*alias) else {
                continue;
            };
            let Some(key) = key else {
                tracing::warn!(variable = alias, "this variable has no meaning here yet");
                continue;
            };
            let is_duration = text.bytes().all(|byte| byte.is_ascii_digit())
                && (key.ends_with("interval") || key.ends_with("timeout"));
            let text = if is_duration {
                format!("{text}ms")
            } else {
                text.clone()
            };
            self.set(
                key,
                self.typed(key, &text),
                Origin::Environment((*alias).to_owned()),
            );
        }
        for (name, text) in env {
            if !name.starts_with("VAXEL_") || OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let rest = name["VAXEL_".len()..].to_ascii_lowercase();
            let path = rest.replacen('_', ".", 1);
            self.set(
                &path,
                self.typed(&path, text),
                Origin::Environment(name.clone()),
            );
        }
    }

    /// A variable's text as the kind of value that the manual has at `path`.
    fn typed(&self, path: &str, text: &str) -> Value {
        match self.get(path) {
            Some(Value::Bool(_)) => match text {
                "true" | "1" | "yes" => Value::Bool(true),
                "false" | "0" | "no" => Value::Bool(false),
                other => other.into(),
            },
            Some(Value::Number(_)) => text.parse::<u64>().map_or_else(|_| text.into(), Into::into),
            Some(Value::Array(_)) => text
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(Value::from)
                .collect(),
            _ => text.into(),
        }
    }

    /// The value at a key path.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        path.split('.')
            .try_fold(&self.values, |value, key| value.get(key))
    }

    fn set(&mut self, path: &str, value: Value, origin: Origin) {
        let (section, key) = path.split_once('.').unwrap_or((path, ""));
        let Value::Object(sections) = &mut self.values else {
            return;
        };
        if key.is_empty() {
            sections.insert(section.to_owned(), value);
        } else {
            let keys = sections
                .entry(section.to_owned())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(keys) = keys {
                keys.insert(key.to_owned(), value);
            }
        }
        self.origins.insert(path.to_owned(), origin);
    }

    /// Every key path with its value and origin, in the order of their names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        self.origins
            .iter()
            .filter_map(|(path, origin)| Some((path.as_str(), self.get(path)?, origin)))
    }

    /// The settings, or every problem. `data_dir` is where everything is kept.
    pub(crate) fn resolve(&self, data_dir: &Path) -> Result<Config, Vec<Issue>> {
        let mut issues = self.issues.clone();
        let config = Fields::read(&self.values, "", &mut issues, |fields| {
            read::config(fields, data_dir)
        });
        for issue in &mut issues {
            let origin = self.origins.get(&issue.path);
            if let Some(origin) = origin.filter(|origin| **origin != Origin::Default) {
                issue.message = format!("{} (from {origin})", issue.message);
            }
        }
        match config.flatten() {
            Some(config) if issues.is_empty() => Ok(config),
            _ => Err(issues),
        }
    }
}

fn to_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => Value::Bool(truth),
        toml::Value::Datetime(at) => Value::String(at.to_string()),
        toml::Value::Array(items) => items.into_iter().map(to_json).collect(),
        toml::Value::Table(table) => Value::Object(
            table
                .into_iter()
                .map(|(key, value)| (key, to_json(value)))
                .collect(),
        ),
    }
}

/// Rules for Host and Origin headers; problems are told at their keys.
fn web_rules(
    fields: &mut Fields<'_>,
    listen: SocketAddr,
    hosts: Vec<String>,
    origins: Vec<String>,
) -> Option<WebRules> {
    let all: Vec<String> = hosts.into_iter().chain(origins).collect();
    match WebRules::new(listen, &all) {
        Ok(rules) => Some(rules),
        Err(issues) => {
            for issue in issues {
                fields.issue("allowed_hosts", issue.message);
            }
            None
        }
    }
}

/// A duration at `key`.
fn span(fields: &mut Fields<'_>, key: &'static str) -> Duration {
    fields
        .parsed::<Span>(key)
        .map_or(Duration::ZERO, |span| span.0)
}

/// A size at `key`, bytes.
fn size(fields: &mut Fields<'_>, key: &'static str) -> usize {
    let size = fields.parsed::<Size>(key).map_or(0, |size| size.0);
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// A count at `key`, at least `least`.
fn count(fields: &mut Fields<'_>, key: &'static str, least: u64) -> usize {
    let count = fields.integer(key, least..=1_000_000_000).unwrap_or(least);
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
