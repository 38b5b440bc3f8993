//! The JSON Schema (2020-12) of what people send: made from the types, so that it cannot differ from
//! them, with the category and the default of each value.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::{ServiceDraft, ServiceSpec, category::category, settings::default_at};
use crate::template::Extends;

/// Deepest nesting of types.
const DEPTH_MAX: usize = 16;

static SPEC: LazyLock<Value> = LazyLock::new(|| {
    let mut spec = whole::<ServiceSpec>();
    let mut none = Vec::new();
    annotate(&mut spec, "", &mut none);
    spec
});

/// The schema of the draft of a service: with a whole `spec`, or with `extends` and what is overridden.
pub fn draft_schema() -> Value {
    let mut spec = SPEC.clone();
    take(&mut spec, "extends");
    let mut own = whole::<ServiceDraft>();
    own["properties"]["spec"] = spec.clone();
    own["properties"]["enabled"]["default"] = json!(true);
    own["properties"]["tags"]["default"] = json!([]);
    own["properties"]["environment"]["default"] = json!("default");
    own["additionalProperties"] = json!(false);
    let mut derived = own.clone();
    let name = json!({ "type": "string", "description": "Name of the template." });
    derived["required"] = json!(["name", "extends"]);
    derived["properties"]["extends"] = json!({
        "description": "The template that the service is made from; its name, or with values of its parameters.",
        "anyOf": [name, whole::<Extends>()],
    });
    derived["properties"]["spec"] = partial(spec);
    own["title"] = json!("A service");
    derived["title"] = json!("A service made from a template");
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "/api/v1/schemas/service",
        "title": "The draft of a service",
        "description": "`x-category` says what a value is about: runtime, network, security, integration \
    or monitoring.",
        "anyOf": [own, derived],
    })
}

/// The path of every value that a spec can hold; what has free keys, such as `source.process.env`, is
/// one.
pub(super) fn paths() -> Vec<String> {
    let mut spec = SPEC.clone();
    let mut paths = Vec::new();
    annotate(&mut spec, "", &mut paths);
    paths
}

/// The schema of `T` with everything that it refers to in its place.
fn whole<T: ToSchema + PartialSchema>() -> Value {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    let parts: Map<String, Value> = parts
        .into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()))
        .collect();
    let mut schema = serde_json::to_value(T::schema()).unwrap_or_default();
    expand(&mut schema, &parts, 0);
    schema
}

/// Puts what is referred to in the place of the reference; words beside the reference stay.
fn expand(schema: &mut Value, parts: &Map<String, Value>, depth: usize) {
    match schema {
        Value::Object(object) if depth < DEPTH_MAX => {
            if let Some(Value::String(reference)) = object.remove("$ref") {
                let name = reference.rsplit('/').next().unwrap_or_default();
                let target = parts.get(name).and_then(Value::as_object);
                for (key, value) in target.into_iter().flatten() {
                    object.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
            // JSON Schema calls it `examples`.
            if let Some(example) = object.remove("example") {
                object.insert("examples".to_owned(), json!([example]));
            }
            object
                .values_mut()
                .for_each(|one| expand(one, parts, depth + 1));
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|one| expand(one, parts, depth + 1)),
        _ => {}
    }
}

/// Notes category and default at every value, and adds its path to `paths`.
fn annotate(schema: &mut Value, path: &str, paths: &mut Vec<String>) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    let mut is_leaf = true;
    for key in ["oneOf", "anyOf", "allOf"] {
        let choices = object.get_mut(key).and_then(Value::as_array_mut);
        for choice in choices.into_iter().flatten() {
            if holds_members(choice) {
                is_leaf = false;
                annotate(choice, path, paths);
            }
        }
    }
    if let Some(members) = object.get_mut("properties").and_then(Value::as_object_mut) {
        is_leaf = false;
        for (key, member) in members {
            let dot = if path.is_empty() { "" } else { "." };
            annotate(member, &format!("{path}{dot}{key}"), paths);
        }
    }
    if !is_leaf {
        return;
    }
    paths.push(path.to_owned());
    if let Some(category) = category(path) {
        object.insert("x-category".to_owned(), json!(category));
    }
    if let Some(default) = default_at(path) {
        object.insert("default".to_owned(), default);
    }
}

/// Whether a schema describes an object with named members, at once or in one of its choices.
fn holds_members(schema: &Value) -> bool {
    let choices = ["oneOf", "anyOf", "allOf"]
        .into_iter()
        .filter_map(|key| schema.get(key));
    schema.get("properties").is_some()
        || choices
            .filter_map(Value::as_array)
            .flatten()
            .any(holds_members)
}

fn take(schema: &mut Value, member: &str) {
    if let Some(members) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        members.remove(member);
    }
}

/// The same with nothing required, and `null` for what is taken away.
fn partial(schema: Value) -> Value {
    let Value::Object(mut object) = schema else {
        return schema;
    };
    object.remove("required");
    if let Some(choices) = object.remove("oneOf") {
        object.insert("anyOf".to_owned(), choices);
    }
    for key in ["anyOf", "allOf"] {
        if let Some(Value::Array(choices)) = object.get_mut(key) {
            *choices = std::mem::take(choices).into_iter().map(partial).collect();
        }
    }
    if let Some(Value::Object(members)) = object.get_mut("properties") {
        for member in members.values_mut() {
            let inner = partial(member.take());
            *member = json!({ "anyOf": [inner, { "type": "null" }] });
        }
    }
    Value::Object(object)
}
