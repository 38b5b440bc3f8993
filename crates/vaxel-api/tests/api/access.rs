//! Who may ask what: every operation of the document, without a key and with a worthless one.

use std::net::SocketAddr;

use axum::{body::Body, http::StatusCode};
use serde_json::{Value, json};
use vaxel_api::{Api, MetricsAccess};
use vaxel_core::principal::{Permission, Permissions};
use vaxel_gateway::Peer;

use crate::home::{As, open, open_with, request};

/// Operations that take `Public`.
const OPEN: &[&str] = &["get_liveness", "get_readiness", "get_key_set"];

/// Operations that take `Public` and want a proof in their bodies.
const PROVEN: &[&str] = &["sign_in", "renew_sign_in"];

/// Operations of which everyone with a key may ask about themselves.
const OWN: &[&str] = &["get_whoami", "list_sign_ins"];

/// Operations that are about the token of the request, which a key is not.
const WITH_TOKEN: &[&str] = &["sign_out"];

/// A body that each operation reads, so that it is the permission that is missing and nothing else.
fn body_of(operation: &str) -> Option<Value> {
    match operation {
        "create_service" | "update_service" => {
            Some(json!({ "name": "other", "spec": { "source": { "builtin": "demo" } } }))
        }
        "create_toolset" | "update_toolset" => {
            Some(json!({ "name": "work", "services": [{ "service": "demo" }] }))
        }
        "create_template" => Some(json!({ "name": "other" })),
        "update_template" => Some(json!({ "name": "filesystem" })),
        "apply_bundle" => {
            Some(json!([{ "name": "x", "spec": { "source": { "builtin": "demo" } } }]))
        }
        "create_user" | "update_user" => Some(json!({ "name": "admin" })),
        "create_role" | "update_role" => {
            Some(json!({ "name": "analyst", "permissions": ["mcp:read"] }))
        }
        "create_grant" => Some(json!({ "to": "role:client", "service": "demo" })),
        "create_policy" | "update_policy" => Some(json!({ "name": "quiet", "effect": "deny" })),
        "explain_access" => Some(json!({ "user": "admin", "permission": "mcp:read" })),
        "sign_in" => Some(json!({ "username": "admin", "password": "not the password" })),
        "renew_sign_in" => Some(json!({ "refresh_token": "vxr_" })),
        "set_user_password" => Some(json!({ "password": "a good long password" })),
        "create_key" => Some(json!({ "name": "x" })),
        "rollback_service" => Some(json!({ "to": 1 })),
        "label_service_revision" => Some(json!({ "revision": 1 })),
        "call_tool" | "call_service_tool" => Some(json!({ "arguments": { "message": "x" } })),
        _ => None,
    }
}

fn operations() -> Vec<(String, String, String)> {
    let document: Value = serde_json::from_str(&Api::openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap().to_owned();
            let path = path
                .replace("{service}", "demo")
                .replace("{toolset}", "work")
                .replace("{exposed}", "demo__echo")
                .replace("{tool}", "echo")
                .replace("{revision}", "1")
                .replace("{label}", "good")
                .replace("{key}", "admin")
                .replace("{user}", "admin")
                .replace("{session}", "01890a5d-ac96-774b-bcce-b302099a8057")
                .replace("{role}", "client")
                .replace("{grant}", "01890a5d-ac96-774b-bcce-b302099a8057")
                .replace("{policy}", "quiet")
                .replace("{template}", "filesystem");
            operations.push((name, method.to_uppercase(), path));
        }
    }
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_who_shows_no_key_and_who_may_nothing() {
    let home = open().await;
    home.with_demo().await;
    let operations = operations();
    assert!(operations.len() > 25);
    for (name, method, path) in operations {
        let place = format!("{name}: {method} {path}");
        let ask = async |who: As| match body_of(&name) {
            Some(body) => home.ask_with(who, (&method, &path), &body).await,
            None => home.ask(who, &method, &path).await,
        };
        let anonymous = ask(As::Nobody).await;
        if OPEN.contains(&name.as_str()) {
            assert_eq!(anonymous.status, StatusCode::OK, "{place}");
            continue;
        }
        assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED, "{place}");
        assert_eq!(anonymous.header("www-authenticate"), "Bearer", "{place}");
        assert_eq!(
            anonymous.header("content-type"),
            "application/problem+json",
            "{place}"
        );
        assert_eq!(
            anonymous.json()["type"],
            "/errors/unauthenticated",
            "{place}"
        );
        let powerless = ask(As::With(Permissions::NONE)).await;
        if PROVEN.contains(&name.as_str()) {
            assert_eq!(powerless.status, StatusCode::UNAUTHORIZED, "{place}");
            continue;
        }
        if WITH_TOKEN.contains(&name.as_str()) {
            assert_eq!(powerless.status, StatusCode::CONFLICT, "{place}");
            continue;
        }
        if OWN.contains(&name.as_str()) {
            assert_eq!(powerless.status, StatusCode::OK, "{place}");
            continue;
        }
        assert_eq!(
            powerless.status,
            StatusCode::FORBIDDEN,
            "{place}: {}",
            powerless.text()
        );
        assert_eq!(powerless.json()["status"], 403, "{place}");
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_this_machine_for_keys_or_for_nobody() {
    let from = |address: [u8; 4]| {
        let mut request = request("GET", "/metrics").body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(Peer(SocketAddr::from((address, 1))));
        request
    };
    let (here, elsewhere) = ([127, 0, 0, 1], [192, 0, 2, 7]);
    let scraper = As::With(Permissions::of(&[Permission::MetricsRead]));
    let cases = [
        (MetricsAccess::Loopback, here, As::Nobody, 200),
        (MetricsAccess::Loopback, elsewhere, As::Nobody, 401),
        (MetricsAccess::Loopback, elsewhere, scraper, 200),
        (MetricsAccess::Key, here, As::Nobody, 401),
        (MetricsAccess::Key, elsewhere, scraper, 200),
        (MetricsAccess::Off, here, scraper, 404),
    ];
    for (access, address, who, expected) in cases {
        let home = open_with(access).await;
        let answer = home.send(who, from(address)).await;
        assert_eq!(answer.status.as_u16(), expected, "{access:?} {address:?}");
        if expected == 200 {
            assert!(
                answer
                    .header("content-type")
                    .starts_with("application/openmetrics-text")
            );
            assert!(answer.text().trim_end().ends_with("# EOF"));
            assert!(
                answer.text().contains("vaxel_store_size_bytes"),
                "{}",
                answer.text()
            );
        }
        home.control.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_keys_needs_the_permission_to_manage_keys_too() {
    let home = open().await;
    let asked = ("POST", "/api/v1/backup");
    let keeper = As::With(Permissions::of(&[Permission::SystemManage]));
    let sealed = json!({ "passphrase": "correct horse" });
    let refused = home.ask_with(keeper, asked, &sealed).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let given = home.ask(keeper, asked.0, asked.1).await;
    assert_eq!(given.status, StatusCode::OK);
    assert_eq!(given.header("content-length"), given.body.len().to_string());
    assert!(given.text().starts_with("{\"vaxel_backup\":1,"));
    assert!(!given.text().contains("\"table\":\"keys\""));
    let given = home.ask_with(As::admin(), asked, &sealed).await;
    assert_eq!(given.status, StatusCode::OK);
    let short = json!({ "passphrase": "short" });
    let refused = home.ask_with(As::admin(), asked, &short).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text().contains("at least 8"), "{}", refused.text());
}
