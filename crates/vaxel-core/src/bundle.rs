//! Many resources in one document: what an export writes and an apply reads.
//!
//! People have such documents in several forms. [`Parts`] takes each of them apart, [`Bundle`] reads the
//! parts; both go on after a problem, so that all of them are named at once.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{
    difference::member,
    failure::Issue,
    fields::Fields,
    import,
    name::ServiceName,
    service::{ServiceDraft, stored},
    template::{DerivedDraft, Template},
    toolset::ToolsetDraft,
};

/// The form of the document, its member `vaxel`.
pub const FORM: u64 = 1;
const TEMPLATES: &str = "templates";

/// A resource, with the place where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<T> {
    /// A path of keys and positions; empty when it is all of the document.
    pub path: String,
    /// What stands there.
    pub value: T,
}

/// A document, taken apart and not read yet.
#[derive(Debug, Default, PartialEq)]
pub struct Parts {
    /// Drafts of services.
    pub services: Vec<Entry<Value>>,
    /// Drafts of sets.
    pub toolsets: Vec<Entry<Value>>,
    /// Templates.
    pub templates: Vec<Entry<Value>>,
    /// What is wrong with the document itself.
    pub issues: Vec<Issue>,
    /// What was taken otherwise than it stands, from the configuration of a client.
    pub notes: Vec<Issue>,
}

/// Everything that a document asks for. As long as `issues` is not empty, some of it is missing.
#[derive(Debug, Default, PartialEq)]
pub struct Bundle {
    /// Services, in the order of the document.
    pub services: Vec<Entry<WantedService>>,
    /// Sets, in the order of the document.
    pub toolsets: Vec<Entry<ToolsetDraft>>,
    /// Templates, in the order of the document.
    pub templates: Vec<Entry<Template>>,
    /// Every problem, at its place.
    pub issues: Vec<Issue>,
}

/// A service as a document asks for it.
#[derive(Debug, Clone, PartialEq)]
pub enum WantedService {
    /// All of it is said.
    Plain(Box<ServiceDraft>),
    /// A template says the rest.
    Derived {
        /// Its name.
        name: ServiceName,
        /// What is said of it.
        draft: Box<DerivedDraft>,
    },
}

impl WantedService {
    /// Reads a draft, with or without a template: `Err` holds every problem with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        if !DerivedDraft::is_one(value) {
            return ServiceDraft::from_json(value).map(|draft| Self::Plain(Box::new(draft)));
        }
        let draft = DerivedDraft::from_json(value)?;
        let name = draft.rest.get("name").and_then(Value::as_str);
        let name = name.unwrap_or_default().parse();
        let name = name.map_err(|error| vec![Issue::new("name", format!("{error}"))])?;
        let draft = Box::new(draft);
        Ok(Self::Derived { name, draft })
    }

    /// Its name.
    pub const fn name(&self) -> &ServiceName {
        match self {
            Self::Plain(draft) => &draft.name,
            Self::Derived { name, .. } => name,
        }
    }
}

/// What a step is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepResource {
    /// A service.
    Service,
    /// A set.
    Toolset,
    /// A template.
    Template,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepAction {
    /// It is not there yet.
    Create,
    /// It is there and something differs.
    Update,
    /// It is there as it is asked for: nothing is written.
    Unchanged,
    /// It is not asked for any more: into the archive.
    Delete,
}

impl Parts {
    /// Takes a document apart: `{ "vaxel": 1, "services": […], … }` (with `format`, when its specs are not
    /// necessarily of the newest one), a list of services, one service or
    /// set, or a client's configuration with `mcpServers`.
    pub fn of(document: &Value) -> Self {
        let mut parts = Self::default();
        match document {
            Value::Array(items) => parts.services = entries("", items),
            Value::Object(object) => {
                let holds = |key: &&str| object.contains_key(*key);
                let listed = |key: &&str| object.get(*key).is_some_and(Value::is_array);
                if holds(&"name") && listed(&"services") && !holds(&"vaxel") {
                    let value = document.clone();
                    let path = String::new();
                    parts.toolsets.push(Entry { path, value });
                } else if holds(&"vaxel")
                    || ["services", "toolsets", "templates"].iter().any(listed)
                {
                    parts.read(document);
                } else if ["spec", "extends", "hosting_mode", "name"]
                    .iter()
                    .any(holds)
                {
                    let value = document.clone();
                    let path = String::new();
                    parts.services.push(Entry { path, value });
                } else {
                    parts.import(document);
                }
            }
            _ => parts.issues.push(Issue::new("", UNKNOWN)),
        }
        parts
    }

    fn read(&mut self, document: &Value) {
        let mut issues = Vec::new();
        let read = Fields::read(document, "", &mut issues, |fields| {
            match fields.value("vaxel").map(Value::as_u64) {
                Some(Some(FORM)) => {}
                Some(_) => fields.issue("vaxel", "must be 1: no other form is known here"),
                None => fields.issue("vaxel", "is missing: write `vaxel: 1`"),
            }
            let format = fields.value("format").cloned();
            let mut lists = ["services", "toolsets", "templates"].map(|key| list(fields, key));
            if let Some(format) = format {
                let specs = lists[0].iter_mut();
                let specs = specs.filter_map(|entry| entry.value.get_mut("spec"));
                let mut renewed = specs.map(|spec| stored::from_format(spec, &format));
                if let Some(Err(issue)) = renewed.find(Result::is_err) {
                    fields.issue("format", issue.message);
                }
            }
            lists
        });
        if let Some(lists) = read {
            [self.services, self.toolsets, self.templates] = lists;
        }
        self.issues.append(&mut issues);
    }

    fn import(&mut self, document: &Value) {
        let Ok(imported) = import::from_value(document) else {
            self.issues.push(Issue::new("", UNKNOWN));
            return;
        };
        self.notes = imported.issues;
        self.issues = imported.refused;
        for draft in imported.drafts {
            match serde_json::to_value(&draft) {
                Ok(value) => self.services.push(Entry {
                    path: draft.name.to_string(),
                    value,
                }),
                Err(error) => {
                    let issue = Issue::new(draft.name.as_str(), error.to_string());
                    self.issues.push(issue);
                }
            }
        }
    }
}

const UNKNOWN: &str = "is none of these: `vaxel: 1` with `services`, a list of services, one service \
                       or set, the `mcpServers` of a client";

fn list(fields: &mut Fields<'_>, key: &'static str) -> Vec<Entry<Value>> {
    match fields.value(key) {
        Some(Value::Array(items)) => entries(key, items),
        Some(_) => {
            fields.issue(key, "must be a list");
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn entries(list: &str, items: &[Value]) -> Vec<Entry<Value>> {
    let entry = |(index, value): (usize, &Value)| Entry {
        path: format!("{list}[{index}]"),
        value: value.clone(),
    };
    items.iter().enumerate().map(entry).collect()
}

impl Bundle {
    /// Reads what a document was taken apart into; `service` reads one service.
    pub fn read(
        parts: Parts,
        service: impl Fn(&Value) -> Result<WantedService, Vec<Issue>>,
    ) -> Self {
        let Parts {
            services,
            toolsets,
            templates,
            issues,
            notes: _,
        } = parts;
        let mut bundle = Self {
            issues,
            ..Self::default()
        };
        bundle.services = read_all(services, service, &mut bundle.issues);
        bundle.toolsets = read_all(toolsets, ToolsetDraft::from_json, &mut bundle.issues);
        bundle.templates = read_all(templates, Template::from_json, &mut bundle.issues);
        let repeated = [
            repeated(
                "service",
                names(&bundle.services, |one| one.name().to_string()),
            ),
            repeated("set", names(&bundle.toolsets, |one| one.name.to_string())),
            repeated(
                "template",
                names(&bundle.templates, |one| one.name.to_string()),
            ),
        ];
        bundle.issues.extend(repeated.into_iter().flatten());
        bundle
    }
}

fn read_all<T>(
    entries: Vec<Entry<Value>>,
    read: impl Fn(&Value) -> Result<T, Vec<Issue>>,
    issues: &mut Vec<Issue>,
) -> Vec<Entry<T>> {
    let mut all = Vec::with_capacity(entries.len());
    for Entry { path, value } in entries {
        match read(&value) {
            Ok(value) => all.push(Entry { path, value }),
            Err(found) => {
                let at_their_place = found
                    .into_iter()
                    .map(|issue| Issue::new(below(&path, &issue.path), issue.message));
                issues.extend(at_their_place);
            }
        }
    }
    all
}

/// The place and the name of each.
fn names<T>(entries: &[Entry<T>], name: impl Fn(&T) -> String) -> Vec<(String, String)> {
    let named = |entry: &Entry<T>| (entry.path.clone(), name(&entry.value));
    entries.iter().map(named).collect()
}

/// Names that stand at more than one place.
fn repeated(what: &str, names: Vec<(String, String)>) -> Vec<Issue> {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    let mut issues = Vec::new();
    for (path, name) in names {
        if let Some(other) = first.get(&name) {
            let other = if other.is_empty() { "before" } else { other };
            let message = format!("the {what} `{name}` stands at {other} as well");
            issues.push(Issue::new(below(&path, "name"), message));
        } else {
            first.insert(name, path);
        }
    }
    issues
}

/// The path of something inside of what is at `path`.
pub fn below(path: &str, inner: &str) -> String {
    match (path, inner) {
        ("", rest) | (rest, "") => rest.to_owned(),
        (path, inner) if inner.starts_with('[') => format!("{path}{inner}"),
        (path, inner) => format!("{path}.{inner}"),
    }
}

/// Puts values of `environment` in the place of each `${NAME}` in the texts of a document; `$$` stands
/// for `$`. Answers every name that cannot be replaced, at its place; those stay as they are. So do the
/// `templates` of a document: their `${name}` are for whoever uses them.
pub fn expand(value: &mut Value, environment: impl Fn(&str) -> Option<String>) -> Vec<Issue> {
    let mut issues = Vec::new();
    let templates = value.as_object_mut().and_then(|all| all.remove(TEMPLATES));
    each_text("", value, &mut |path, text| {
        let (expanded, problems) = expanded(text, &environment);
        let at_place = problems
            .into_iter()
            .map(|message| Issue::new(path, message));
        issues.extend(at_place);
        expanded
    });
    put_back(value, templates);
    issues
}

fn put_back(value: &mut Value, templates: Option<Value>) {
    if let (Value::Object(all), Some(templates)) = (value, templates) {
        all.insert(TEMPLATES.to_owned(), templates);
    }
}

/// Writes every text of a document so that [`expand`] gives it back.
pub fn escape(value: &mut Value) {
    let templates = value.as_object_mut().and_then(|all| all.remove(TEMPLATES));
    each_text("", value, &mut |_, text| {
        let mut escaped = String::with_capacity(text.len());
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            escaped.push(letter);
            if letter == '$' && matches!(rest.peek(), Some('$' | '{')) {
                escaped.push('$');
            }
        }
        escaped
    });
    put_back(value, templates);
}

fn expanded(text: &str, environment: &impl Fn(&str) -> Option<String>) -> (String, Vec<String>) {
    let (mut done, mut rest) = (String::with_capacity(text.len()), text);
    let mut problems = Vec::new();
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            done.push('$');
            rest = after;
            continue;
        }
        let Some(inner) = rest.strip_prefix("${") else {
            done.push('$');
            rest = &rest[1..];
            continue;
        };
        let name = inner.split('}').next().unwrap_or_default();
        let end = "${".len() + name.len() + usize::from(name.len() < inner.len());
        match environment(name).filter(|_| is_variable(name)) {
            Some(value) if name.len() < inner.len() => done.push_str(&value),
            _ => {
                problems.push(if is_variable(name) && name.len() < inner.len() {
                    format!("`${{{name}}}` is not set in the environment")
                } else {
                    let found: String = rest[..end].chars().take(40).collect();
                    format!("`{found}` names no variable; write `$${{` for a text with `${{`")
                });
                done.push_str(&rest[..end]);
            }
        }
        rest = &rest[end..];
    }
    done.push_str(rest);
    (done, problems)
}

fn is_variable(name: &str) -> bool {
    let inside = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    !name.is_empty() && name.chars().all(inside) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn each_text(path: &str, value: &mut Value, change: &mut impl FnMut(&str, &str) -> String) {
    match value {
        Value::String(text) if text.contains('$') => *text = change(path, text),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                each_text(&format!("{path}[{index}]"), item, change);
            }
        }
        Value::Object(members) => {
            for (key, item) in members.iter_mut() {
                each_text(&member(path, key), item, change);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
