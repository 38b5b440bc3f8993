//! Reads JSON objects that people wrote, collecting *every* problem with its key path.
//!
//! serde stops at the first error; a person with five mistakes wants to hear of five. Specs,
//! manifests and configuration files are read through [`Fields`].

use std::{collections::BTreeMap, fmt::Display, ops::RangeInclusive, str::FromStr};

use serde_json::{Map, Value};

use crate::failure::Issue;

/// One object being read. Each accessor takes a key once; what nobody took is reported as unknown
/// by [`Fields::read`].
pub struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
    known: Vec<&'static str>,
    issues: &'a mut Vec<Issue>,
}

impl<'a> Fields<'a> {
    /// Reads `value`, which must be an object, by `read`; then reports keys that `read` did not ask
    /// for. `None` when `value` is no object.
    pub fn read<T>(
        value: &'a Value,
        path: &str,
        issues: &'a mut Vec<Issue>,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let Value::Object(object) = value else {
            issues.push(Issue::new(
                path,
                format!("expected an object, found {}", kind(value)),
            ));
            return None;
        };
        let mut fields = Fields {
            object,
            path: path.to_owned(),
            known: Vec::new(),
            issues,
        };
        let result = read(&mut fields);
        fields.report_unknown();
        Some(result)
    }

    /// The path of `key` in this object.
    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Reports a problem at `key`.
    pub fn issue(&mut self, key: &str, message: impl Into<String>) {
        let path = self.path(key);
        self.issues.push(Issue::new(path, message));
    }

    /// Whether `key` is present and not null.
    pub fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(|value| !value.is_null())
    }

    /// The raw value at `key`; null counts as absent.
    pub fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// A string.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => Some(text.clone()),
            other => self.wrong(key, "a string", other),
        }
    }

    /// A string that must be there and not be empty.
    pub fn required_string(&mut self, key: &'static str) -> Option<String> {
        if !self.has(key) {
            self.known.push(key);
            self.issue(key, "is missing");
            return None;
        }
        let text = self.string(key)?;
        if text.trim().is_empty() {
            self.issue(key, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// A string (or number) that parses as `T`; the parse error becomes the issue.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<T> {
        let text = match self.value(key)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return self.wrong(key, "a string", other),
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.issue(key, error.to_string());
                None
            }
        }
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.value(key)?;
        match value.as_u64() {
            Some(number) if range.contains(&number) => Some(number),
            Some(number) => {
                let (low, high) = (range.start(), range.end());
                self.issue(key, format!("{number} is not between {low} and {high}"));
                None
            }
            None => self.wrong(key, "a whole number", value),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.value(key)? {
            Value::Bool(value) => Some(*value),
            other => self.wrong(key, "true or false", other),
        }
    }

    /// A list of strings.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let Value::Array(items) = value else {
            return self.wrong(key, "a list of strings", value);
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                other => {
                    let message = format!("expected a string, found {}", kind(other));
                    self.issue(&format!("{key}[{index}]"), message);
                }
            }
        }
        Some(texts)
    }

    /// An object whose values are strings; numbers and booleans are taken as their text, since that
    /// is what people mean in `env`.
    pub fn string_map(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        let value = self.value(key)?;
        let Value::Object(object) = value else {
            return self.wrong(key, "an object of strings", value);
        };
        let mut map = BTreeMap::new();
        for (name, item) in object {
            let text = match item {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(value) => value.to_string(),
                other => {
                    let message = format!("expected a string, found {}", kind(other));
                    self.issue(&format!("{key}.{name}"), message);
                    continue;
                }
            };
            map.insert(name.clone(), text);
        }
        Some(map)
    }

    /// A list, whose items `read` makes of value and path, reporting what is wrong; those that it makes
    /// nothing of are left out.
    pub fn items<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value, &str, &mut Vec<Issue>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Value::Array(items) = value else {
            return self.wrong(key, "a list", value);
        };
        let path = self.path(key);
        let read = |(index, item)| read(item, &format!("{path}[{index}]"), self.issues);
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    /// A nested object.
    pub fn nested<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let value = self.value(key)?;
        let path = self.path(key);
        Fields::read(value, &path, self.issues, read)
    }

    /// An object with keys of any name, each value an object that is read by `read`.
    pub fn map<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Fields<'_>) -> T,
    ) -> Option<BTreeMap<String, T>> {
        let value = self.value(key)?;
        let Value::Object(object) = value else {
            return self.wrong(key, "an object", value);
        };
        let path = self.path(key);
        let mut map = BTreeMap::new();
        for (name, item) in object {
            let read = Fields::read(item, &format!("{path}.{name}"), self.issues, &mut read);
            map.extend(read.map(|one| (name.clone(), one)));
        }
        Some(map)
    }

    /// A list of objects, each read by `read`; what is no object is left out, with its problem.
    pub fn objects<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Fields<'_>) -> T,
    ) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Value::Array(items) = value else {
            return self.wrong(key, "a list of objects", value);
        };
        let path = self.path(key);
        let mut objects = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            objects.extend(Fields::read(item, &path, self.issues, &mut read));
        }
        Some(objects)
    }

    fn wrong<T>(&mut self, key: &str, expected: &str, found: &Value) -> Option<T> {
        self.issue(key, format!("expected {expected}, found {}", kind(found)));
        None
    }

    fn report_unknown(&mut self) {
        for key in self.object.keys() {
            if self.known.contains(&key.as_str()) {
                continue;
            }
            let message = match closest(key, &self.known) {
                Some(known) => format!("is not a known key; did you mean `{known}`?"),
                None => format!("is not a known key; known are {}", self.known.join(", ")),
            };
            let path = self.path(key);
            self.issues.push(Issue::new(path, message));
        }
    }
}

/// What kind of JSON value this is, for people.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => {
            format!("the string {:?}", text.chars().take(40).collect::<String>())
        }
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The candidate that a mistyped `text` most likely meant, when one is near.
pub fn closest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let near = |candidate: &&&str| distance(text, candidate) <= text.len().max(3) / 3;
    candidates
        .iter()
        .filter(near)
        .min_by_key(|one| distance(text, one))
        .copied()
}

/// Levenshtein distance, by bytes.
fn distance(left: &str, right: &str) -> usize {
    let right = right.as_bytes();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_problem_is_reported_with_its_path() {
        let value = json!({
            "comand": "node", "count": 0, "args": ["a", 1], "deep": {"on": "yes", "one": 1}
        });
        let mut issues = Vec::new();
        Fields::read(&value, "source", &mut issues, |fields| {
            fields.required_string("command");
            fields.integer("count", 1..=9);
            fields.strings("args");
            fields.nested("deep", |fields| fields.boolean("on"));
        });
        let text: Vec<String> = issues
            .iter()
            .map(|issue| format!("{}: {}", issue.path, issue.message))
            .collect();
        assert_eq!(
            text,
            [
                "source.command: is missing",
                "source.count: 0 is not between 1 and 9",
                "source.args[1]: expected a string, found 1",
                "source.deep.on: expected true or false, found the string \"yes\"",
                "source.deep.one: is not a known key; did you mean `on`?",
                "source.comand: is not a known key; did you mean `command`?",
            ]
        );
    }
}
