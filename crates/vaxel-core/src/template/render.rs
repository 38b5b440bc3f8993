//! From a template and values to a draft.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Chain, Extends, Origin, Parameter, TemplateName,
    chain::unknown,
    layer::{Layer, Leaf, Place, Settled},
    placeholder::{Part, parts},
    read_extends,
};
use crate::{
    failure::Issue,
    fields::Fields,
    service::{Derivation, Link, ServiceDraft, pointer},
};

/// Longest text that comes of filling one in, and of all of them, bytes.
const TEXT_MAX: usize = 32 * 1024;
const TOTAL_MAX: usize = 1 << 20;

/// What someone sends to create or replace a service by a template: `extends`, and in `spec` what is
/// to be different.
#[derive(Debug, Clone, PartialEq)]
pub struct DerivedDraft {
    /// The template, and values of its parameters.
    pub extends: Extends,
    /// What the service overrides, an object.
    pub own: Value,
    /// Everything that stands beside: name, tags and so on.
    pub rest: Map<String, Value>,
}

impl DerivedDraft {
    /// Whether a draft that a person wrote extends a template.
    pub fn is_one(value: &Value) -> bool {
        value
            .get("extends")
            .is_some_and(|extends| !extends.is_null())
    }

    /// Reads a draft that extends a template: `Err` holds every problem that shows without the
    /// template, with its path.
    pub fn from_json(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let mut rest = value.as_object().cloned().unwrap_or_default();
        rest.remove("extends");
        let own = match rest.remove("spec") {
            None | Some(Value::Null) => json!({}),
            Some(own @ Value::Object(_)) => own,
            Some(_) => {
                issues.push(Issue::new("spec", "expected an object"));
                json!({})
            }
        };
        if own.get("extends").is_some() {
            let message = "`extends` stands beside `spec`, not in it";
            issues.push(Issue::new("spec.extends", message));
        }
        let only = json!({ "extends": value.get("extends") });
        let extends = Fields::read(&only, "", &mut issues, read_extends).flatten();
        // The rest is read with any source that is right: problems of it are told together.
        issues.extend(
            draft(&rest, &json!({ "source": { "builtin": "demo" } }))
                .err()
                .unwrap_or_default(),
        );
        match extends {
            Some(extends) if issues.is_empty() => Ok(Self { extends, own, rest }),
            _ => Err(issues),
        }
    }
}

fn draft(rest: &Map<String, Value>, spec: &Value) -> Result<ServiceDraft, Vec<Issue>> {
    let mut whole = rest.clone();
    whole.insert("spec".to_owned(), spec.clone());
    ServiceDraft::from_json(&Value::Object(whole))
}

/// A value of a parameter on its way into texts.
#[derive(Debug, Clone)]
struct Given {
    value: Value,
    is_secret: bool,
}

/// The parameters that texts can name; `None` is one that was left out.
type Scope = BTreeMap<String, Option<Given>>;

impl Chain {
    /// The draft that comes of the chain with the values and overrides of `derived`. Secret parameters
    /// stand in it in clear, in [`Derivation::sealed`] and where they are used: whoever stores it seals
    /// them.
    ///
    /// # Errors
    /// Every problem: of parameters with the path `parameters.NAME`, of the result with its path there
    /// and the origin of the value.
    pub fn render(&self, derived: &DerivedDraft) -> Result<ServiceDraft, Vec<Issue>> {
        let mut filling = Filling {
            issues: Vec::new(),
            left: TOTAL_MAX,
        };
        let given = derived.extends.with.iter().map(|(name, value)| {
            let is_secret = self.is_secret(name);
            let value = value.clone();
            (name.clone(), Given { value, is_secret })
        });
        let whole = self.layers(given.collect(), &mut filling);
        let whole = whole.under(Layer::plain(&derived.own, &Origin::Own));
        let mut settled = Settled::default();
        let spec = whole.settle(&mut Vec::new(), &mut settled);
        if !filling.issues.is_empty() {
            return Err(filling.issues);
        }
        let spec = spec.unwrap_or_else(|| json!({}));
        let mut draft = draft(&derived.rest, &spec).map_err(|issues| {
            issues
                .into_iter()
                .map(|one| told(one, &settled.places))
                .collect::<Vec<_>>()
        })?;
        let exposed = exposed(&draft, &settled.places);
        if !exposed.is_empty() {
            return Err(exposed);
        }
        draft.spec.extends = Some(Box::new(self.derivation(derived, settled)));
        Ok(draft)
    }

    fn derivation(&self, derived: &DerivedDraft, settled: Settled) -> Derivation {
        let link = |(template, version): &(super::Template, u64)| Link {
            template: template.name.clone(),
            version: *version,
        };
        let (mut with, mut sealed) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in &derived.extends.with {
            match value {
                Value::String(text) if self.is_secret(name) => {
                    sealed.insert(name.clone(), text.clone());
                }
                value => _ = with.insert(name.clone(), value.clone()),
            }
        }
        let places = settled.places.into_iter();
        let own_gone = settled
            .gone
            .into_iter()
            .filter(|(_, by)| *by == Origin::Own);
        Derivation {
            chain: self.links.iter().map(link).collect(),
            with,
            sealed,
            from: places
                .map(|place| (place.path.join("."), place.from))
                .collect(),
            removed: own_gone.map(|(path, _)| pointer(&path)).collect(),
        }
    }

    /// What the templates say, the last one at the bottom.
    fn layers(&self, given: BTreeMap<String, Given>, filling: &mut Filling) -> Layer {
        let mut parts = Vec::new();
        let mut given = given;
        for (level, (template, _)) in self.links.iter().enumerate() {
            let giver = level.checked_sub(1).map(|above| &self.links[above].0.name);
            let scope = filling.scope((&template.name, giver), &self.accepts_from(level), given);
            let from = Origin::Template(template.name.clone());
            let mut path = vec!["spec".to_owned()];
            let spec = Value::Object(template.spec.clone());
            parts.push(filling.layer(&spec, &from, &scope, &mut path));
            given = self.given_to(level + 1, &scope, filling);
        }
        parts.into_iter().rev().fold(Layer::NONE, Layer::under)
    }

    /// What the template above gives to the one at `level`.
    fn given_to(
        &self,
        level: usize,
        scope: &Scope,
        filling: &mut Filling,
    ) -> BTreeMap<String, Given> {
        let extends = self.links[level - 1].0.extends.as_ref();
        let mut given = BTreeMap::new();
        for name in self.accepts_from(level).into_keys() {
            let named = extends.and_then(|extends| extends.with.get(name));
            let value = match named {
                Some(value) => {
                    let path = format!("extends.with.{name}");
                    filling.value(value, scope, &path)
                }
                None => scope.get(name).cloned().flatten(),
            };
            given.extend(value.map(|value| (name.to_owned(), value)));
        }
        given
    }
}

/// Filling texts in: what went wrong, and how much room is left.
struct Filling {
    issues: Vec<Issue>,
    left: usize,
}

impl Filling {
    /// The values of the parameters of `template`, each checked.
    fn scope(
        &mut self,
        (template, giver): (&TemplateName, Option<&TemplateName>),
        accepts: &BTreeMap<&str, &Parameter>,
        mut given: BTreeMap<String, Given>,
    ) -> Scope {
        let by = giver.map_or_else(String::new, |giver| {
            format!(" (the template `{giver}` gives it to `{template}`)")
        });
        for name in given
            .keys()
            .filter(|name| !accepts.contains_key(name.as_str()))
        {
            let message = unknown(name, template, accepts);
            self.issues
                .push(Issue::new(format!("parameters.{name}"), message));
        }
        let mut scope = Scope::new();
        for (name, parameter) in accepts {
            let value = match given.remove(*name) {
                Some(given) => Some(self.checked(name, parameter, given, &by)),
                None => self.absent(name, parameter),
            };
            scope.insert((*name).to_owned(), value);
        }
        scope
    }

    /// A value that was given; when it does not fit, that is noted.
    fn checked(&mut self, name: &str, parameter: &Parameter, given: Given, by: &str) -> Given {
        if let Some(problem) = parameter.problem(&given.value) {
            // What comes of a secret is not repeated, whatever it is called here.
            let problem = if given.is_secret && !parameter.is_secret() {
                "does not fit".to_owned()
            } else {
                problem
            };
            let path = format!("parameters.{name}");
            self.issues.push(Issue::new(path, format!("{problem}{by}")));
        }
        Given {
            is_secret: given.is_secret || parameter.is_secret(),
            ..given
        }
    }

    /// What holds when no value was given.
    fn absent(&mut self, name: &str, parameter: &Parameter) -> Option<Given> {
        if parameter.required {
            let doc = parameter.doc.as_deref().unwrap_or_default();
            let colon = if doc.is_empty() { "" } else { ": " };
            let message = format!("is missing{colon}{doc}");
            self.issues
                .push(Issue::new(format!("parameters.{name}"), message));
        }
        let value = parameter.default.clone()?;
        Some(Given {
            value,
            is_secret: false,
        })
    }

    fn layer(
        &mut self,
        value: &Value,
        from: &Origin,
        scope: &Scope,
        path: &mut Vec<String>,
    ) -> Layer {
        if value.is_null() {
            return Layer::Gone(from.clone());
        }
        let Value::Object(object) = value else {
            let filled = self.value(value, scope, &path.join("."));
            let leaf = filled.map(|Given { value, is_secret }| Leaf {
                value,
                from: from.clone(),
                is_secret,
            });
            return leaf.map_or(Layer::NONE, Layer::Leaf);
        };
        let mut members = BTreeMap::new();
        for (key, value) in object {
            path.push(key.clone());
            let member = self.layer(value, from, scope, path);
            path.pop();
            // What was left out says nothing, not even that there is an object.
            let is_absent = member == Layer::NONE && !value.is_object();
            if !is_absent {
                members.insert(key.clone(), member);
            }
        }
        Layer::Branch {
            is_whole: false,
            members,
        }
    }

    /// `value` with its texts filled in; `None` when it is a parameter that was left out.
    fn value(&mut self, value: &Value, scope: &Scope, path: &str) -> Option<Given> {
        match value {
            Value::String(text) => self.text(text, scope, path),
            Value::Array(items) => {
                let filled: Vec<Given> = items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, item)| {
                        self.value(item, scope, &format!("{path}[{index}]"))
                    })
                    .collect();
                Some(Given {
                    is_secret: filled.iter().any(|one| one.is_secret),
                    value: filled.into_iter().map(|one| one.value).collect(),
                })
            }
            Value::Object(object) => {
                let filled: Vec<(String, Given)> = object
                    .iter()
                    .filter_map(|(key, item)| {
                        let item = self.value(item, scope, &format!("{path}.{key}"))?;
                        Some((key.clone(), item))
                    })
                    .collect();
                Some(Given {
                    is_secret: filled.iter().any(|(_, one)| one.is_secret),
                    value: filled
                        .into_iter()
                        .map(|(key, one)| (key, one.value))
                        .collect(),
                })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Some(Given {
                value: value.clone(),
                is_secret: false,
            }),
        }
    }

    fn text(&mut self, text: &str, scope: &Scope, path: &str) -> Option<Given> {
        let parts = match parts(text) {
            Ok(parts) => parts,
            Err(problem) => {
                self.issues.push(Issue::new(path, problem));
                return None;
            }
        };
        if let [Part::Parameter(name)] = parts[..] {
            let found = self.parameter(name, scope, path)?;
            if let Value::String(text) = &found.value {
                self.take(text.len(), path)?;
            }
            return Some(found);
        }
        let (mut filled, mut is_secret) = (String::new(), false);
        for part in parts {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Parameter(name) => {
                    let Some(found) = self.parameter(name, scope, path) else {
                        continue;
                    };
                    is_secret |= found.is_secret;
                    match found.value {
                        Value::String(text) => filled.push_str(&text),
                        other => filled.push_str(&other.to_string()),
                    }
                }
            }
            if filled.len() > TEXT_MAX {
                self.issues
                    .push(Issue::new(path, "comes out longer than 32 KiB"));
                return None;
            }
        }
        self.take(filled.len(), path)?;
        Some(Given {
            value: filled.into(),
            is_secret,
        })
    }

    fn parameter(&mut self, name: &str, scope: &Scope, path: &str) -> Option<Given> {
        let Some(found) = scope.get(name) else {
            let message = format!("`${{{name}}}` is no parameter of this template");
            self.issues.push(Issue::new(path, message));
            return None;
        };
        found.clone()
    }

    fn take(&mut self, length: usize, path: &str) -> Option<()> {
        if let Some(left) = self.left.checked_sub(length) {
            self.left = left;
            return Some(());
        }
        if !self.issues.iter().any(|issue| issue.message == TOO_MUCH) {
            self.issues.push(Issue::new(path, TOO_MUCH));
        }
        None
    }
}

const TOO_MUCH: &str = "the whole comes out longer than 1 MiB";

/// The problem with where its value came from; what a secret went into is not repeated.
fn told(issue: Issue, places: &[Place]) -> Issue {
    let Some(path) = issue.path.strip_prefix("spec.") else {
        return issue;
    };
    let path = path.split('[').next().unwrap_or_default();
    let below = |place: &&Place| {
        let joined = place.path.join(".");
        let rest = joined.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut origins: Vec<String> = Vec::new();
    let mut is_secret = false;
    for place in places.iter().filter(below) {
        is_secret |= place.is_secret;
        let origin = place.from.to_string();
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    let message = if is_secret {
        "is not accepted; a secret parameter is part of it, so it is not shown".to_owned()
    } else {
        issue.message
    };
    if origins.is_empty() {
        return Issue::new(issue.path, message);
    }
    Issue::new(
        issue.path,
        format!("{message} (from {})", origins.join(", ")),
    )
}

/// Places that hold a secret and are not sealed.
fn exposed(draft: &ServiceDraft, places: &[Place]) -> Vec<Issue> {
    const MARK: &str = "\u{0}sealed";
    let secrets = places.iter().filter(|place| place.is_secret);
    let mut marked = draft.spec.clone();
    for (_, value) in marked.sensitive_values() {
        MARK.clone_into(value);
    }
    let marked = serde_json::to_value(&marked).unwrap_or_default();
    let open = secrets.filter(|place| {
        let value = marked.pointer(&pointer(&place.path));
        value.and_then(Value::as_str) != Some(MARK)
    });
    open.map(|place| {
        let message = format!(
            "a secret parameter can only stand where values are sealed: in `env` and `headers` (from {})",
            place.from
        );
        Issue::new(format!("spec.{}", place.path.join(".")), message)
    })
    .collect()
}
