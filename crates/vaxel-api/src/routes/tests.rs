use std::collections::BTreeSet;

use serde_json::Value;

use crate::Api;

/// The document as it is kept in the repository; what programs generate clients from.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

/// Run it to accept a change of the API:
/// `cargo nextest run -p vaxel-api --run-ignored only writes_the_openapi_document`
#[test]
#[ignore = "writes docs/openapi.json; run it to accept a change of the API"]
fn writes_the_openapi_document() {
    std::fs::write(KEPT, Api::openapi() + "\n").unwrap();
}

#[test]
fn the_openapi_document_is_the_one_that_is_kept() {
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    assert!(
        kept.trim_end() == Api::openapi(),
        "The API's document changed. When that is meant, accept it: \
         cargo nextest run -p vaxel-api --run-ignored only writes_the_openapi_document"
    );
}

fn operations() -> Vec<(String, String, Value)> {
    let document: Value = serde_json::from_str(&Api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut operations = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            operations.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    operations
}

/// What needs no credential: signs of life, and what gives one.
const OPEN: [&str; 5] = [
    "/health/live",
    "/health/ready",
    "/.well-known/jwks.json",
    "/api/v1/auth/login",
    "/api/v1/auth/refresh",
];

#[test]
fn every_operation_has_a_name_a_summary_and_its_failures() {
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations() {
        let place = format!("{method} {path}");
        let name = operation["operationId"].as_str().unwrap();
        assert!(
            names.insert(name.to_owned()),
            "{place}: {name} is used twice"
        );
        assert!(name.contains('_'), "{place}: {name} is not verb_noun");
        assert!(operation["summary"].is_string(), "{place} has no summary");
        let responses = operation["responses"].as_object().unwrap();
        let open = OPEN.contains(&&*path);
        let asks_nobody = operation["security"] == serde_json::json!([{}]);
        assert_eq!(
            asks_nobody, open,
            "{place}: who may ask is in the list above"
        );
        let refuses = ["401", "403"].map(|status| responses.contains_key(status));
        assert!(open || refuses == [true, true], "{place} says no refusal");
        for (status, response) in responses {
            let content = response["content"].as_object();
            if status.as_str() >= "400" {
                let kinds: Vec<&String> = content.unwrap().keys().collect();
                assert_eq!(kinds, ["application/problem+json"], "{place} {status}");
            }
        }
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document: Value = serde_json::from_str(&Api::openapi()).unwrap();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
    assert_eq!(document["openapi"], "3.1.0");
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                references.push(reference.clone());
            }
            object.values().for_each(|one| collect(one, references));
        }
        Value::Array(items) => items.iter().for_each(|one| collect(one, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
