//! Templates, services made from them, and what the API says of their values.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};

use crate::home::{As, Home, open, request};

async fn send(home: &Home, place: (&str, &str), body: &Value) -> crate::home::Answer {
    home.ask_with(As::admin(), place, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_made_read_changed_and_deleted() {
    let home = open().await;
    let mut template = json!({
        "name": "quiet", "extends": "http", "spec": { "tools": { "deny": ["${never}*"] } },
        "parameters": { "never": { "type": "string", "default": "delete_" } },
    });
    let made = send(&home, ("POST", "/api/v1/templates"), &template).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert_eq!(
        (made.header("location"), made.header("etag")),
        ("/api/v1/templates/quiet", "\"1\"")
    );
    let read = home
        .ask(As::admin(), "GET", "/api/v1/templates/quiet")
        .await
        .json();
    assert_eq!(
        (&read["chain"], &read["builtin"]),
        (&json!(["http"]), &json!(false))
    );
    let accepts: Vec<&String> = read["accepts"].as_object().unwrap().keys().collect();
    assert_eq!(accepts, ["authorization", "never", "session", "url"]);
    let list = home
        .ask(As::admin(), "GET", "/api/v1/templates")
        .await
        .json();
    let names: Vec<&str> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "everything",
            "fetch",
            "filesystem",
            "git",
            "http",
            "memory",
            "postgres",
            "quiet",
            "time"
        ]
    );
    template["description"] = json!("Says less");
    let put = |tag: &str| {
        let request = request("PUT", "/api/v1/templates/quiet")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, tag);
        request.body(Body::from(template.to_string())).unwrap()
    };
    let stale = home.send(As::admin(), put("\"7\"")).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let written = home.send(As::admin(), put("\"1\"")).await;
    assert_eq!(
        (written.status, written.header("etag")),
        (StatusCode::OK, "\"2\"")
    );
    let bad = json!({ "name": "bad", "extends": "nothing", "spec": { "description": "${x}" } });
    let refused = send(&home, ("POST", "/api/v1/templates"), &bad).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.json()["errors"][0]["path"], "extends");
    let gone = home
        .ask(As::admin(), "DELETE", "/api/v1/templates/quiet")
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let unknown = home
        .ask(As::admin(), "GET", "/api/v1/templates/quiet")
        .await;
    assert_eq!(unknown.json()["type"], "/errors/not-found");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_from_a_template_says_where_its_values_came_from() {
    let home = open().await;
    let draft = json!({
        "name": "remote", "enabled": false,
        "extends": { "template": "http", "with": { "url": "https://mcp.example.com/mcp", "authorization": "planted" } },
        "spec": { "validate": "arguments" },
    });
    let made = send(&home, ("POST", "/api/v1/services"), &draft).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    assert!(!made.text().contains("planted"), "{}", made.text());
    let made = made.json();
    assert_eq!(made["extends"]["template"], "http");
    assert_eq!(made["own"], json!({ "validate": "arguments" }));
    assert!(
        made["extends"]["with"]["authorization"]
            .as_str()
            .unwrap()
            .starts_with("secret:")
    );
    let config = home
        .ask(As::admin(), "GET", "/api/v1/services/remote/config")
        .await
        .json();
    let one = |category: &str, path: &str| {
        let found = config[category]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["path"] == path);
        found
            .unwrap_or_else(|| panic!("{path} in {config}"))
            .clone()
    };
    assert_eq!(
        one("network", "source.mcp.url"),
        json!({ "path": "source.mcp.url", "value": "https://mcp.example.com/mcp", "from": "template:http", "default": null })
    );
    assert_eq!(one("security", "validate")["from"], "own");
    assert_eq!(one("security", "validate")["default"], "none");
    assert_eq!(one("runtime", "replicas")["from"], "default");
    // What the view says can be sent as it is.
    let again = json!({ "name": "remote", "enabled": false, "extends": made["extends"], "spec": made["own"] });
    let same = send(&home, ("PUT", "/api/v1/services/remote"), &again)
        .await
        .json();
    assert_eq!(same["revision"], 1, "{same}");
    let refresh = home
        .ask(As::admin(), "POST", "/api/v1/services/remote/refresh")
        .await;
    assert_eq!(refresh.status, StatusCode::ACCEPTED);
    home.with_demo().await;
    let plain = home
        .ask(As::admin(), "POST", "/api/v1/services/demo/refresh")
        .await;
    assert_eq!(plain.status, StatusCode::CONFLICT);
    let wrong = json!({ "name": "x", "extends": { "template": "http", "with": { "url": "ftp://x", "session": "mine", "colour": 1 } } });
    let refused = send(&home, ("POST", "/api/v1/services"), &wrong)
        .await
        .json();
    let paths: Vec<&str> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["path"].as_str())
        .collect();
    assert_eq!(
        paths,
        ["parameters.colour", "parameters.session", "parameters.url"]
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_of_a_service_is_everyones_and_says_category_and_default() {
    let home = open().await;
    let schema = home.ask(As::Nobody, "GET", "/api/v1/schemas/service").await;
    assert_eq!(schema.status, StatusCode::OK);
    assert_eq!(schema.header("content-type"), "application/schema+json");
    let schema = schema.json();
    let memory = schema
        .pointer("/anyOf/0/properties/spec/properties/replicas")
        .unwrap();
    assert_eq!(
        (&memory["x-category"], &memory["default"]),
        (&json!("runtime"), &json!(1))
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_only_what_is_its_own_sees_the_templates_that_it_may_use() {
    let home = open().await;
    let spec = json!({ "source": { "builtin": "demo" } });
    for (name, approved) in [("open", true), ("closed", false)] {
        let draft = json!({ "name": name, "approved": approved, "spec": spec });
        let made = home
            .ask_with(As::admin(), ("POST", "/api/v1/templates"), &draft)
            .await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    }
    let anna = json!({ "name": "anna", "roles": ["user"] });
    let made = home
        .ask_with(As::admin(), ("POST", "/api/v1/users"), &anna)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let listed = home
        .ask(As::User("anna"), "GET", "/api/v1/templates")
        .await
        .json();
    let names: Vec<&str> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"open") && names.contains(&"filesystem"),
        "{names:?}"
    );
    assert!(!names.contains(&"closed"), "{names:?}");
    let status = async |name: &str| {
        let path = format!("/api/v1/templates/{name}");
        home.ask(As::User("anna"), "GET", &path)
            .await
            .status
            .as_u16()
    };
    assert_eq!(
        (status("open").await, status("filesystem").await),
        (200, 200)
    );
    assert_eq!(status("closed").await, 404);
}
