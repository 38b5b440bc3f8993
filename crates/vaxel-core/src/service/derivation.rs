//! What a service keeps of the template that it was made from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::ServiceSpec;
use crate::{
    fields::Fields,
    template::{Origin, TemplateName},
};

/// How a spec came to be. It stays as it is when the template changes: only a refresh renders the
/// template again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Derivation {
    /// The template and what it extends, each with the version that was rendered.
    pub chain: Vec<Link>,
    /// Values of parameters.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "root": "/data" }))]
    pub with: BTreeMap<String, Value>,
    /// Values of secret parameters, as `secret:` references.
    #[serde(default)]
    pub sealed: BTreeMap<String, String>,
    /// Who gave each value, by its path: `template:NAME` or `own`. What is not here is a default.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "source.process.command": "template:filesystem" }))]
    pub from: BTreeMap<String, Origin>,
    /// What the service itself took away, as JSON pointers (RFC 6901).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// A template as it was when it was rendered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Link {
    /// Its name.
    #[schema(value_type = String, example = "filesystem")]
    pub template: TemplateName,
    /// Its version.
    pub version: u64,
}

impl Derivation {
    /// The template that was named.
    pub fn template(&self) -> Option<&TemplateName> {
        self.chain.first().map(|link| &link.template)
    }
}

impl ServiceSpec {
    /// The spec without what it was made from, as JSON.
    pub fn effective(&self) -> Value {
        let mut plain = self.clone();
        plain.extends = None;
        serde_json::to_value(&plain).unwrap_or_default()
    }

    /// What the service itself overrides of its template: an object as it stands beside `extends`.
    pub fn own(&self) -> Value {
        let Some(derivation) = &self.extends else {
            return self.effective();
        };
        let mut own = Map::new();
        for (path, value) in leaves(&self.effective()) {
            if derivation.from.get(&path.join(".")) == Some(&Origin::Own) {
                put(&mut own, &path, value);
            }
        }
        for removed in &derivation.removed {
            put(&mut own, &keys(removed), Value::Null);
        }
        Value::Object(own)
    }

    /// Notes what differs from `old` as overridden, when both came from the same template in the same
    /// way: whoever changes values of the effective spec means to override them. What the sender says
    /// about origins does not count then.
    pub fn follow(&mut self, old: &Self) {
        let (Some(sent), Some(known)) = (&self.extends, &old.extends) else {
            return;
        };
        let same = |one: &Derivation| (one.chain.clone(), one.with.clone(), one.sealed.clone());
        if same(sent) != same(known) {
            return;
        }
        let mut derivation = known.clone();
        let before: BTreeMap<_, _> = leaves(&old.effective()).into_iter().collect();
        let after = leaves(&self.effective());
        let mut gone: BTreeSet<&Vec<String>> = before.keys().collect();
        for (path, value) in &after {
            gone.remove(path);
            if before.get(path) != Some(value) {
                let path_text = path.join(".");
                // A spec of another revision says who gave the value there.
                let said = sent
                    .from
                    .get(&path_text)
                    .filter(|said| known.from.get(&path_text) != Some(said));
                let from = said.cloned().unwrap_or(Origin::Own);
                derivation.from.insert(path_text, from);
                let pointer = pointer(path);
                derivation.removed.retain(|removed| *removed != pointer);
            }
        }
        for path in gone {
            if derivation.from.remove(&path.join(".")).is_some() {
                derivation.removed.push(pointer(path));
            }
        }
        self.extends = Some(derivation);
    }
}

/// Every value of an object that is no object itself, with its keys from the outside in.
pub fn leaves(value: &Value) -> Vec<(Vec<String>, Value)> {
    fn collect(value: &Value, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, Value)>) {
        let Value::Object(object) = value else {
            return found.push((path.clone(), value.clone()));
        };
        for (key, member) in object {
            path.push(key.clone());
            collect(member, path, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    collect(value, &mut Vec::new(), &mut found);
    found
}

/// A path as a JSON pointer (RFC 6901 §3).
pub(crate) fn pointer(path: &[String]) -> String {
    let parts = path
        .iter()
        .map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1")));
    parts.collect()
}

fn keys(pointer: &str) -> Vec<String> {
    let parts = pointer.split('/').skip(1);
    parts
        .map(|key| key.replace("~1", "/").replace("~0", "~"))
        .collect()
}

fn put(object: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => _ = object.insert(last.clone(), value),
        [first, rest @ ..] => {
            let inner = object
                .entry(first.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Reads what an earlier answer said about the origin of a spec.
pub(super) fn read(fields: &mut Fields<'_>) -> Option<Derivation> {
    let mut part = |key: &'static str| {
        let value = fields.value(key).cloned();
        value.map(|value| (key.to_owned(), value))
    };
    let keys = ["chain", "with", "sealed", "from", "removed"];
    let whole: Map<String, Value> = keys.into_iter().filter_map(&mut part).collect();
    match serde_json::from_value::<Derivation>(Value::Object(whole)) {
        Ok(derivation) if derivation.chain.is_empty() => {
            fields.issue("chain", "names no template");
            None
        }
        Ok(derivation) => Some(derivation),
        Err(error) => {
            let message = format!(
                "is not what Vaxel writes here ({error}): `extends` stands beside `spec`, as a template's \
                 name or `{{template, with}}`"
            );
            fields.issue("", message);
            None
        }
    }
}
