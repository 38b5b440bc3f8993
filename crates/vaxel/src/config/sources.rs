//! Where the values of the configuration come from: the manual, a file, variables and flags, in this
//! order, the later ones winning.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use toml::de::DeTable;
use vaxel_core::failure::Issue;

use super::{
    MANUAL,
    layering::{self, Origin},
};
use crate::paths;

/// What the layers are made of.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// `--config`; a missing file is then a problem.
    pub(crate) file: Option<PathBuf>,
    /// Where `config.toml` may be.
    pub(crate) data_dir: PathBuf,
    /// The environment of the process.
    pub(crate) env: BTreeMap<String, String>,
    /// Flags: key path, name of the flag, value.
    pub(crate) flags: Vec<(&'static str, &'static str, Value)>,
}

/// The merged layers.
#[derive(Debug)]
pub(crate) struct Merged {
    layers: layering::Merged,
    issues: Vec<Issue>,
    notes: Vec<String>,
}

/// Names of the AI Platform, and what they mean here. Their durations are milliseconds.
const ALIASES: &[(&str, Meaning)] = &[
    (
        "MCP_HEALTH_CHECK_INTERVAL",
        Meaning::Millis("process.health_interval"),
    ),
    (
        "GATEWAY_HEALTH_CHECK_INTERVAL",
        Meaning::Millis("process.health_interval"),
    ),
    ("MCP_AUTO_RESTART", Meaning::Same("process.auto_restart")),
    ("MCP_MAX_RETRIES", Meaning::Same("process.max_retries")),
    ("GATEWAY_TIMEOUT_MS", Meaning::Millis("calls.timeout")),
    (
        "GATEWAY_LOAD_BALANCING",
        Meaning::Nothing("calls go to the instance with the fewest in flight"),
    ),
    (
        "MCP_SERVERS_DIR",
        Meaning::Nothing("services are kept in the data directory; `vaxel import` brings them in"),
    ),
];

/// What an alias stands for.
#[derive(Clone, Copy)]
enum Meaning {
    /// A key whose bare numbers are milliseconds.
    Millis(&'static str),
    /// A key with the same values.
    Same(&'static str),
    /// No key; this holds instead.
    Nothing(&'static str),
}

/// Variables that are not configuration keys; the last three belong to `./dev` and `bench/run`.
const OTHER_VARIABLES: &[&str] = &[
    "VAXEL_URL",
    "VAXEL_KEY",
    "VAXEL_DATA_DIR",
    "VAXEL_LOG",
    "VAXEL_MOVE_TO",
    "VAXEL_BACKUP_PASSPHRASE",
    crate::root_key::VARIABLE,
    "VAXEL_TEST_TOOLS",
    "VAXEL_TEST_POSTGRES",
    "VAXEL_BENCH_SUITE",
];

/// Kubernetes gives every container variables with these beginnings for a Service called `vaxel`.
const OF_KUBERNETES: &[&str] = &["VAXEL_PORT", "VAXEL_SERVICE_HOST", "VAXEL_SERVICE_PORT"];

impl Merged {
    /// Merges all layers.
    pub(crate) fn of(sources: &Sources) -> Self {
        let manual: toml::Table = MANUAL.parse().expect("the embedded manual is valid TOML");
        let mut merged = Self {
            layers: layering::Merged::default(),
            issues: Vec::new(),
            notes: Vec::new(),
        };
        merged.layers.add(&to_json(manual), &|_| Origin::Default);
        // What kind of value a variable holds is decided by the manual, whatever a file says.
        let manual = merged.layers.clone();
        merged.add_file(sources);
        merged.add_aliases(&sources.env, &manual);
        merged.add_variables(&sources.env, &manual);
        for (path, flag, value) in &sources.flags {
            let origin = Origin::Flag((*flag).to_owned());
            merged.layers.set(path, value.clone(), &origin);
        }
        merged
    }

    /// The values with their origins.
    pub(crate) const fn layers(&self) -> &layering::Merged {
        &self.layers
    }

    /// What is wrong with the sources themselves.
    pub(crate) fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// What somebody set that has no effect, each a sentence.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    fn add_file(&mut self, sources: &Sources) {
        let Some(path) = file(sources) else {
            return;
        };
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let message = match error.kind() {
                    ErrorKind::NotFound => "there is no such file".to_owned(),
                    _ => format!("cannot be read ({error})"),
                };
                return self.issues.push(Issue::new(shown, message));
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => {
                let lines = lines(&text);
                let origin = |key: &str| Origin::File {
                    path: shown.clone(),
                    line: lines.get(key).copied(),
                };
                self.layers.add(&to_json(table), &origin);
            }
            Err(error) => {
                let message = format!("is no TOML: {error}");
                self.issues.push(Issue::new(shown, message.trim_end()));
            }
        }
    }

    fn add_aliases(&mut self, env: &BTreeMap<String, String>, manual: &layering::Merged) {
        for (name, meaning) in ALIASES {
            let Some(text) = env.get(*name) else {
                continue;
            };
            let (path, text) = match meaning {
                Meaning::Nothing(instead) => {
                    self.notes.push(format!("{name} has no effect: {instead}"));
                    continue;
                }
                Meaning::Millis(path) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                    (path, format!("{text}ms"))
                }
                Meaning::Millis(path) | Meaning::Same(path) => (path, text.clone()),
            };
            let value = layering::typed(&text, manual.get(path));
            let origin = Origin::Environment((*name).to_owned());
            self.layers.set(path, value, &origin);
        }
    }

    fn add_variables(&mut self, env: &BTreeMap<String, String>, manual: &layering::Merged) {
        for (name, text) in env {
            let Some(rest) = name.strip_prefix("VAXEL_") else {
                continue;
            };
            let is_foreign = OTHER_VARIABLES.contains(&name.as_str())
                || OF_KUBERNETES.iter().any(|start| {
                    let after = name.strip_prefix(start);
                    after.is_some_and(|after| after.is_empty() || after.starts_with('_'))
                });
            if is_foreign {
                continue;
            }
            let path = rest.to_ascii_lowercase().replacen('_', ".", 1);
            let value = layering::typed(text, manual.get(&path));
            let origin = Origin::Environment(name.clone());
            self.layers.set(&path, value, &origin);
        }
    }
}

/// The file that is read: the one that was named, else the first of two places that has one.
fn file(sources: &Sources) -> Option<PathBuf> {
    if sources.file.is_some() {
        return sources.file.clone();
    }
    let home = paths::config_home(&sources.env).map(|home| home.join("vaxel"));
    [Some(sources.data_dir.clone()), home]
        .into_iter()
        .flatten()
        .map(|folder| folder.join("config.toml"))
        .find(|path| is_there(path))
}

/// A file that is there and cannot be read is a problem to report, not one to pass over.
fn is_there(path: &Path) -> bool {
    !matches!(path.symlink_metadata(), Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// The line of every key of a TOML file, by key path.
fn lines(text: &str) -> BTreeMap<String, u32> {
    let mut lines = BTreeMap::new();
    if let Ok(table) = DeTable::parse(text) {
        add_lines(text, "", table.get_ref(), &mut lines);
    }
    lines
}

fn add_lines(text: &str, above: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, u32>) {
    for (key, value) in table {
        let path = format!("{above}{}", key.get_ref());
        let before = text.get(..key.span().start).unwrap_or_default();
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        if let Some(inner) = value.get_ref().as_table() {
            add_lines(text, &format!("{path}."), inner, lines);
        }
        lines.insert(path, u32::try_from(line).unwrap_or(u32::MAX));
    }
}

fn to_json(table: toml::Table) -> Map<String, Value> {
    table
        .into_iter()
        .map(|(key, value)| (key, value_to_json(value)))
        .collect()
}

fn value_to_json(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => number.into(),
        toml::Value::Boolean(truth) => Value::Bool(truth),
        toml::Value::Datetime(at) => Value::String(at.to_string()),
        toml::Value::Array(items) => items.into_iter().map(value_to_json).collect(),
        toml::Value::Table(table) => Value::Object(to_json(table)),
    }
}
