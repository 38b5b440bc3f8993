//! A spec as a list of values: what each is, what it is about, who gave it, and what it would be
//! otherwise.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Builtin, HttpSource, McpSource, ProcessSource, ServiceSpec, Source,
    category::{Category, category},
    derivation::leaves,
    schema,
};
use crate::template::Origin;

/// One value of a spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Where it stands, such as `limits.memory`.
    pub path: String,
    /// What it is about.
    pub category: Category,
    /// What holds; null is nothing. Sealed values stand as `secret:` references.
    pub value: Value,
    /// Who gave it.
    pub from: Origin,
    /// What holds when nobody gives one; null where the server's configuration decides, or where one
    /// must be given.
    pub default: Value,
}

/// Every value of `spec` that is or could be, by category and path; of its kind of source alone.
pub fn settings(spec: &ServiceSpec) -> Vec<Setting> {
    let kind = format!("source.{}", spec.source.kind());
    let defaults = defaults(&spec.source);
    let mut values: BTreeMap<String, Value> = leaves(&spec.effective())
        .into_iter()
        .map(|(path, value)| (path.join("."), value))
        .collect();
    for path in schema::paths() {
        let other_source = path.starts_with("source.") && !is_at_or_below(&path, &kind);
        let has_members = values.keys().any(|known| is_at_or_below(known, &path));
        if !other_source && !has_members && !is_at_or_below(&path, "extends") {
            values.insert(path, Value::Null);
        }
    }
    let mut settings: Vec<Setting> = values
        .into_iter()
        .map(|(path, value)| {
            let default = defaults.get(&path).cloned().unwrap_or_default();
            Setting {
                // The table has a row for everything; a test holds it to that.
                category: category(&path).unwrap_or(Category::Integration),
                from: origin(spec, &path, value == default),
                path,
                value,
                default,
            }
        })
        .collect();
    settings.sort_by(|one, other| (one.category, &one.path).cmp(&(other.category, &other.path)));
    settings
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn origin(spec: &ServiceSpec, path: &str, is_default: bool) -> Origin {
    let known = spec
        .extends
        .as_ref()
        .and_then(|extends| extends.from.get(path));
    match known {
        Some(known) => known.clone(),
        None if is_default => Origin::Default,
        None => Origin::Own,
    }
}

/// The values of a spec with a source of this kind that nobody gave anything else.
fn defaults(source: &Source) -> BTreeMap<String, Value> {
    // What must be given is empty here.
    let (bare, required) = match source {
        Source::Process(_) => (
            Source::Process(ProcessSource::default()),
            "source.process.command",
        ),
        Source::Mcp(_) => (Source::Mcp(McpSource::default()), "source.mcp.url"),
        Source::Http(_) => (Source::Http(HttpSource::default()), "source.http.instances"),
        Source::Builtin(Builtin::Demo) => (Source::Builtin(Builtin::Demo), "source.builtin"),
    };
    let all = leaves(&ServiceSpec::new(bare).effective());
    let all = all.into_iter().map(|(path, value)| (path.join("."), value));
    all.filter(|(path, _)| path != required).collect()
}

/// The default at `path`, whatever the source.
pub(super) fn default_at(path: &str) -> Option<Value> {
    let sources = [
        Source::Process(ProcessSource::default()),
        Source::Mcp(McpSource::default()),
        Source::Http(HttpSource::default()),
        Source::Builtin(Builtin::Demo),
    ];
    sources
        .iter()
        .find_map(|source| defaults(source).remove(path))
}
