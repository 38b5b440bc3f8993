//! Layers of configuration, merged value by value, each value with the place that it comes from.
//!
//! Defaults, a file, the environment and flags are trees of the same shape. A person who reads of a
//! problem, or wonders why a value holds, has to know which of them to change: so every value keeps
//! its [`Origin`], and every problem found while reading names it.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};
use vaxel_core::{failure::Issue, fields::Fields};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing else was said.
    Default,
    /// A file, and the line in it when it is known; the first is 1.
    File {
        /// The file, as it was named.
        path: String,
        /// The line of the key.
        line: Option<u32>,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The command-line flag of this name, such as `--listen`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{path}:{line}"),
            Self::File { path, line: None } => f.write_str(path),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Layers merged into one tree. Whatever is added later wins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Merged {
    values: Map<String, Value>,
    origins: BTreeMap<String, Origin>,
}

impl Merged {
    /// Adds a layer: objects are merged key by key, everything else replaces what was there.
    /// `origin` is asked for the origin of each key path.
    pub(crate) fn add(&mut self, layer: &Map<String, Value>, origin: &impl Fn(&str) -> Origin) {
        let mut path = Vec::new();
        merge(&mut self.values, layer, &mut path, &mut |path| {
            self.origins.insert(path.to_owned(), origin(path));
        });
    }

    /// Sets one value, the keys of its path separated by dots. Below something that is no object
    /// nothing can be set: that stays as it is, a problem for whoever reads it.
    pub(crate) fn set(&mut self, path: &str, value: Value, origin: &Origin) {
        let nested = path.rsplit('.').fold(value, |value, key| {
            Map::from_iter([(key.to_owned(), value)]).into()
        });
        if let Value::Object(layer) = nested {
            self.add(&layer, &|_| origin.clone());
        }
    }

    /// The value at a path.
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        let (first, rest) = split(path);
        let first = self.values.get(first)?;
        rest.map_or(Some(first), |rest| {
            rest.split('.').try_fold(first, |value, key| value.get(key))
        })
    }

    /// Where the value at a path comes from; for a path inside a value, where that value does.
    pub(crate) fn origin(&self, path: &str) -> Option<&Origin> {
        let mut path = path;
        loop {
            if let Some(origin) = self.origins.get(path) {
                return Some(origin);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Every value that is no object, with its path and origin, in the order of the paths.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        self.origins
            .iter()
            .filter_map(|(path, origin)| Some((path.as_str(), self.get(path)?, origin)))
    }

    /// Reads the whole tree by `read`, adding to `issues` every problem with its key path and, when
    /// the value is no default, its origin.
    pub(crate) fn read<T>(
        &self,
        issues: &mut Vec<Issue>,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let whole = Value::Object(self.values.clone());
        let mut found = Vec::new();
        let result = Fields::read(&whole, "", &mut found, read);
        for mut issue in found {
            if let Some(origin) = self.place_of(&issue.path) {
                issue.message = format!("{} (from {origin})", issue.message);
            }
            issues.push(issue);
        }
        result
    }

    /// The origin of a problem. An unknown section has none of its own: its first key does.
    fn place_of(&self, path: &str) -> Option<&Origin> {
        let below = || {
            let inside = |key: &str| {
                key.strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('.'))
            };
            let mut origins = self.origins.iter();
            origins
                .find(|(key, _)| inside(key))
                .map(|(_, origin)| origin)
        };
        let origin = self.origin(path).or_else(below);
        origin.filter(|origin| **origin != Origin::Default)
    }
}

/// A text from a variable as the kind of value that `like` is. What does not read as that kind stays
/// text, so that reading it says what is expected.
pub(crate) fn typed(text: &str, like: Option<&Value>) -> Value {
    let stays = || Value::from(text);
    match like {
        Some(Value::Bool(_)) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => stays(),
        },
        Some(Value::Number(_)) => text
            .trim()
            .parse::<u64>()
            .map_or_else(|_| stays(), Into::into),
        Some(Value::Array(_)) => text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Value::from)
            .collect(),
        _ => stays(),
    }
}

fn merge(
    base: &mut Map<String, Value>,
    layer: &Map<String, Value>,
    path: &mut Vec<String>,
    placed: &mut impl FnMut(&str),
) {
    for (key, value) in layer {
        path.push(key.clone());
        match (base.get_mut(key), value) {
            (Some(Value::Object(base)), Value::Object(layer)) => merge(base, layer, path, placed),
            (None, Value::Object(layer)) => {
                let mut fresh = Map::new();
                merge(&mut fresh, layer, path, placed);
                base.insert(key.clone(), Value::Object(fresh));
            }
            // Somebody wrote a value where a section belongs: no later layer hides that.
            (Some(_), Value::Object(_)) => {}
            (_, value) => {
                base.insert(key.clone(), value.clone());
                placed(&path.join("."));
            }
        }
        path.pop();
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else {
            panic!("{value} is no object")
        };
        object
    }

    fn file(line: u32) -> Origin {
        Origin::File {
            path: "config.toml".to_owned(),
            line: Some(line),
        }
    }

    fn three_layers() -> Merged {
        let mut merged = Merged::default();
        let defaults = json!({"server": {"listen": "a", "auth": true, "hosts": []}, "limits": {"body": "4MiB"}});
        merged.add(&object(defaults), &|_| Origin::Default);
        let written = json!({"server": {"listen": "b", "hosts": ["x", 5]}});
        merged.add(&object(written), &|path| {
            file(if path == "server.listen" { 2 } else { 3 })
        });
        let variable = Origin::Environment("VAXEL_SERVER_LISTEN".to_owned());
        merged.set("server.listen", "c".into(), &variable);
        merged
    }

    #[test]
    fn the_last_layer_wins_and_each_value_knows_its_origin() {
        let merged = three_layers();
        let entries: Vec<String> = merged
            .entries()
            .map(|(path, value, origin)| format!("{path} = {value} from {origin}"))
            .collect();
        assert_eq!(
            entries,
            [
                "limits.body = \"4MiB\" from default",
                "server.auth = true from default",
                "server.hosts = [\"x\",5] from config.toml:3",
                "server.listen = \"c\" from $VAXEL_SERVER_LISTEN",
            ]
        );
        assert_eq!(merged.origin("server.hosts[1]"), Some(&file(3)));
        assert_eq!(merged.origin("nothing"), None);
    }

    #[test]
    fn problems_name_the_origin_and_what_was_meant() {
        let mut merged = three_layers();
        merged.set(
            "sever.listen",
            1.into(),
            &Origin::Flag("--sever".to_owned()),
        );
        let mut issues = Vec::new();
        merged.read(&mut issues, |fields| {
            fields.nested("server", |fields| {
                fields.integer("listen", 1..=9);
                fields.boolean("auth");
                fields.strings("hosts");
            });
            fields.nested("limits", |fields| fields.boolean("body"));
        });
        let text: Vec<String> = issues
            .iter()
            .map(|issue| format!("{}: {}", issue.path, issue.message))
            .collect();
        assert_eq!(
            text,
            [
                "server.listen: expected a whole number, found the string \"c\" (from \
                 $VAXEL_SERVER_LISTEN)",
                "server.hosts[1]: expected a string, found 5 (from config.toml:3)",
                "limits.body: expected true or false, found the string \"4MiB\"",
                "sever: is not a known key; did you mean `server`? (from --sever)",
            ]
        );
    }

    #[test]
    fn a_value_in_the_place_of_a_section_stays_to_be_reported() {
        let mut merged = three_layers();
        merged.set("server", 5.into(), &file(1));
        merged.set(
            "server.listen",
            "d".into(),
            &Origin::Flag("--listen".to_owned()),
        );
        assert_eq!(merged.get("server"), Some(&json!(5)));
        assert_eq!(merged.get("server.listen"), None);
        assert_eq!(merged.entries().count(), 2, "{merged:?}");
    }

    #[test]
    fn a_text_becomes_what_the_default_is() {
        let like = json!({"truth": true, "number": 1, "list": [], "text": ""});
        let cases = [
            ("truth", "0", json!(false)),
            ("truth", "On", json!(true)),
            ("truth", "maybe", json!("maybe")),
            ("number", "17", json!(17)),
            ("number", "many", json!("many")),
            ("list", "a, b,", json!(["a", "b"])),
            ("text", "5", json!("5")),
            ("unknown", "5", json!("5")),
        ];
        for (key, text, expected) in cases {
            assert_eq!(typed(text, like.get(key)), expected, "{key}={text}");
        }
    }
}
