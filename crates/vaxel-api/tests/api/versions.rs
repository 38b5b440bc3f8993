//! `If-Match` on everything that is written.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};

use crate::home::{Answer, As, Home, open, request};

const SERVICES: &str = "/api/v1/services";

/// Writes of things that have a version, with the version that each has in this test.
const VERSIONED: &[(&str, &str, u64)] = &[
    ("PUT", "/services/{service}", 1),
    ("DELETE", "/services/{service}", 1),
    ("POST", "/services/{service}/start", 1),
    ("POST", "/services/{service}/stop", 1),
    ("POST", "/services/{service}/restart", 1),
    ("POST", "/services/{service}/rollback", 1),
    ("POST", "/services/{service}/refresh", 1),
    ("PUT", "/services/{service}/labels/{label}", 1),
    ("DELETE", "/services/{service}/labels/{label}", 1),
    ("POST", "/services/{service}/health/accept", 1),
    ("POST", "/services/{gone}/restore", 2),
    ("POST", "/services/{gone}/purge", 2),
    ("PUT", "/toolsets/{toolset}", 1),
    ("DELETE", "/toolsets/{toolset}", 1),
    ("PUT", "/templates/{template}", 1),
    ("DELETE", "/templates/{template}", 1),
    ("PUT", "/users/{user}", 1),
    ("DELETE", "/users/{user}", 1),
    ("PUT", "/roles/{role}", 1),
    ("DELETE", "/roles/{role}", 1),
    ("PUT", "/policies/{policy}", 1),
    ("DELETE", "/policies/{policy}", 1),
];

/// Writes that make something, or change what has no version: no version fits them.
const NEW: &[(&str, &str)] = &[
    ("POST", "/services"),
    ("POST", "/toolsets"),
    ("POST", "/templates"),
    ("POST", "/roles"),
    ("POST", "/users"),
    ("POST", "/grants"),
    ("DELETE", "/grants/{grant}"),
    ("POST", "/policies"),
    ("POST", "/keys"),
    ("DELETE", "/keys/{key}"),
    ("POST", "/keys/{key}/rotate"),
    ("POST", "/root-key/rotate"),
    ("POST", "/signing-keys/rotate"),
    ("PUT", "/users/{user}/password"),
    ("DELETE", "/auth/sessions/{session}"),
    ("DELETE", "/oauth/clients/{client}"),
    ("DELETE", "/services/{service}/authorization"),
];

/// What changes nothing that is stored, or asks for the versions of many things in its body.
const OTHER: &[(&str, &str)] = &[
    ("POST", "/apply"),
    ("POST", "/backup"),
    ("POST", "/shutdown"),
    ("POST", "/audit/verify"),
    ("POST", "/auth/explain"),
    ("POST", "/auth/login"),
    ("POST", "/auth/logout"),
    ("POST", "/auth/refresh"),
    ("POST", "/services/{service}/heartbeat"),
    ("POST", "/services/{service}/health/check"),
    ("POST", "/services/{service}/tools/{tool}/call"),
    ("POST", "/tools/{exposed}/call"),
];

fn body(path: &str) -> Value {
    let path = path.trim_start_matches('/');
    match path.split('/').collect::<Vec<_>>()[..] {
        ["services"] => service("another"),
        ["services", _] => service("one"),
        ["services", _, "rollback"] => json!({ "to": 1 }),
        ["services", _, "labels", _] => json!({ "revision": 1 }),
        ["toolsets", ..] => json!({ "name": "work", "services": [{ "service": "one" }] }),
        ["templates", ..] => template("base"),
        ["users", _, "password"] => json!({ "password": "a pair of brown shoes" }),
        ["users", ..] => json!({ "name": "anna", "roles": ["analyst"] }),
        ["roles", ..] => json!({ "name": "analyst", "permissions": ["mcp:read"] }),
        ["grants"] => json!({ "to": "user:anna", "service": "one" }),
        ["policies", ..] => json!({ "name": "quiet", "effect": "deny" }),
        ["keys"] => json!({ "name": "k" }),
        ["keys", _, "rotate"] | ["root-key", "rotate"] => json!({}),
        _ => Value::Null,
    }
}

fn service(name: &str) -> Value {
    json!({ "name": name, "spec": { "source": { "builtin": "demo" } } })
}

fn template(name: &str) -> Value {
    json!({ "name": name, "spec": { "source": { "builtin": "demo" } } })
}

async fn write(home: &Home, (method, path): (&str, &str), on: Option<&str>) -> Answer {
    let filled = path
        .replace("{service}", "one")
        .replace("{gone}", "gone")
        .replace("{label}", "good")
        .replace("{toolset}", "work")
        .replace("{template}", "base")
        .replace("{user}", "anna")
        .replace("{role}", "analyst")
        .replace("{policy}", "quiet")
        .replace("{grant}", "01890a5d-ac96-774b-bcce-b302099a8057")
        .replace("{session}", "01890a5d-ac96-774b-bcce-b302099a8057")
        .replace("{key}", "k");
    let mut asked = request(method, &format!("/api/v1{filled}"));
    if let Some(on) = on {
        asked = asked.header(header::IF_MATCH, on);
    }
    let body = match body(path) {
        Value::Null => Body::empty(),
        body => {
            asked = asked.header(header::CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        }
    };
    home.send(As::admin(), asked.body(body).unwrap()).await
}

async fn furnished() -> Home {
    let home = open().await;
    for name in ["one", "gone"] {
        let made = home
            .ask_with(As::admin(), ("POST", SERVICES), &service(name))
            .await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    }
    home.ask(As::admin(), "DELETE", "/api/v1/services/gone")
        .await;
    let makes = |(method, path): &&(&str, &str)| {
        *method == "POST" && *path != "/services" && !path.ends_with("/rotate")
    };
    for made in NEW.iter().filter(makes) {
        let made = write(&home, *made, None).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    }
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_another_version_is_refused_and_told_the_current_one() {
    let home = furnished().await;
    for &(method, path, version) in VERSIONED {
        let refused = write(&home, (method, path), Some("\"9\"")).await;
        let said = format!("{method} {path}: {}", refused.text());
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{said}");
        assert_eq!(refused.header("etag"), format!("\"{version}\""), "{said}");
        assert_eq!(refused.json()["version"], version, "{said}");
    }
    for &one in NEW {
        let refused = write(&home, one, Some("\"1\"")).await;
        let said = format!("{one:?}: {}", refused.text());
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED, "{said}");
        assert!(said.contains("no version"), "{said}");
    }
    let label = ("PUT", "/services/{service}/labels/{label}");
    let labelled = write(&home, label, Some("\"1\"")).await;
    let seen = (labelled.status.as_u16(), labelled.header("etag"));
    assert_eq!(seen, (204, "\"1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_of_the_document_takes_a_version_or_is_known_to_have_none() {
    let home = open().await;
    let document = home
        .ask(As::admin(), "GET", "/api/v1/openapi.json")
        .await
        .json();
    let known: BTreeSet<(&str, String)> = VERSIONED
        .iter()
        .map(|(method, path, _)| (*method, *path))
        .chain(NEW.iter().copied())
        .chain(OTHER.iter().copied())
        .map(|(method, path)| (method, path.replace("{gone}", "{service}")))
        .collect();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            let operation = &operations[method.to_lowercase()];
            if operation.is_null() {
                continue;
            }
            let short = path.trim_start_matches("/api/v1").to_owned();
            assert!(known.contains(&(method, short.clone())), "{method} {path}");
            let parameters = operation["parameters"].as_array();
            let takes =
                parameters.is_some_and(|all| all.iter().any(|one| one["name"] == "If-Match"));
            let is_other = OTHER.contains(&(method, short.as_str()));
            assert_eq!(takes, !is_other, "{method} {path}");
        }
    }
}
