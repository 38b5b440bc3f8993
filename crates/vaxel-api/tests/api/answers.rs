//! What the resources answer: views, versions, pages, problems.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};

use crate::home::{As, open, request};

const SERVICES: &str = "/api/v1/services";

fn paths(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap();
    errors
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_through_its_life() {
    let home = open().await;
    let admin = As::admin();
    let draft =
        json!({ "name": "demo", "tags": ["first"], "spec": { "source": { "builtin": "demo" } } });
    let made = home.ask_with(admin, ("POST", SERVICES), &draft).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.header(header::ETAG), "\"1\"");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.header(header::LOCATION),
        format!("/api/v1/services/{id}")
    );
    assert!(!made.header("x-request-id").is_empty());

    let path = format!("{SERVICES}/{id}");
    let health = home
        .ask(admin, "GET", &format!("{path}/health?wait=20s"))
        .await
        .json();
    assert_eq!(
        (&health["lifecycle"], &health["ready"]),
        (&json!("active"), &json!(true))
    );

    let mut next = draft.clone();
    next["tags"] = json!(["second"]);
    let put = request("PUT", &path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::IF_MATCH, "\"1\"");
    let updated = home
        .send(admin, put.body(Body::from(next.to_string())).unwrap())
        .await;
    assert_eq!(
        (updated.status, updated.header(header::ETAG)),
        (StatusCode::OK, "\"2\"")
    );
    let put = request("PUT", &path)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::IF_MATCH, "\"1\"");
    let late = home
        .send(admin, put.body(Body::from(next.to_string())).unwrap())
        .await;
    assert_eq!(late.status, StatusCode::PRECONDITION_FAILED);
    assert!(
        late.json()["detail"]
            .as_str()
            .unwrap()
            .contains("version 2")
    );

    for (turn, enabled) in [("restart", true), ("stop", false), ("start", true)] {
        let answer = home.ask(admin, "POST", &format!("{path}/{turn}")).await;
        assert_eq!(
            answer.status,
            StatusCode::ACCEPTED,
            "{turn}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["enabled"], enabled);
    }
    let deleted = home.ask(admin, "DELETE", &path).await;
    assert!(
        deleted.json()["deleted_at"].is_string(),
        "{}",
        deleted.text()
    );
    let gone = home.ask(admin, "GET", &path).await;
    assert_eq!(
        (gone.status, gone.json()["type"].as_str()),
        (StatusCode::NOT_FOUND, Some("/errors/unknown-service"))
    );
    let archive = home
        .ask(admin, "GET", "/api/v1/services?deleted=true")
        .await
        .json();
    assert_eq!(archive["items"][0]["name"], "demo");
    let restored = home.ask(admin, "POST", &format!("{path}/restore")).await;
    assert_eq!(restored.status, StatusCode::ACCEPTED);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_found_and_called_by_both_of_its_names() {
    let home = open().await;
    let admin = As::admin();
    home.with_demo().await;
    let tools = home
        .ask(admin, "GET", "/api/v1/tools?text=REPEAT")
        .await
        .json();
    assert_eq!(
        tools["items"].as_array().unwrap().len(),
        0,
        "descriptions are searched, not schemas"
    );
    let tools = home
        .ask(admin, "GET", "/api/v1/tools?text=message&limit=1")
        .await
        .json();
    assert_eq!(tools["items"][0]["name"], "demo__echo");
    assert_eq!(
        tools["items"][0]["definition"]["inputSchema"]["type"],
        "object"
    );
    let page = home.ask(admin, "GET", "/api/v1/tools?limit=2").await.json();
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = home
        .ask(admin, "GET", &format!("/api/v1/tools?cursor={cursor}"))
        .await
        .json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);

    let body = json!({ "arguments": { "message": "a \u{1f600} b" }, "timeout": "5s" });
    for path in [
        "/api/v1/tools/demo__echo/call",
        "/api/v1/services/demo/tools/echo/call",
    ] {
        let answer = home.ask_with(admin, ("POST", path), &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
        let reply = answer.json();
        assert_eq!(reply["result"]["content"][0]["text"], "a \u{1f600} b");
        assert_eq!(reply["is_error"], false);
        assert!(reply["call_id"].is_string() && reply["duration_ms"].is_number());
    }
    for (path, slug) in [
        ("/api/v1/tools/demo__nothing/call", "/errors/unknown-tool"),
        (
            "/api/v1/services/demo/tools/nothing/call",
            "/errors/unknown-tool",
        ),
        (
            "/api/v1/services/nothing/tools/echo/call",
            "/errors/unknown-service",
        ),
    ] {
        let answer = home.ask_with(admin, ("POST", path), &body).await;
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (StatusCode::NOT_FOUND, Some(slug))
        );
    }
    let wrong = json!({ "arguments": [1] });
    let answer = home
        .ask_with(admin, ("POST", "/api/v1/tools/demo__echo/call"), &wrong)
        .await;
    assert_eq!(
        (answer.status.as_u16(), paths(&answer.json())),
        (422, vec!["arguments"])
    );
    for list in ["tools", "prompts", "resources", "resource-templates"] {
        let path = format!("{SERVICES}/demo/{list}");
        let answer = home.ask(admin, "GET", &path).await.json();
        assert_eq!(answer["stale"], false, "{list}");
    }
    let prompts = home
        .ask(admin, "GET", "/api/v1/services/demo/prompts")
        .await
        .json();
    assert_eq!(prompts["items"][0]["name"], "demo__introduce");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_an_input_is_told_at_once() {
    let home = open().await;
    let admin = As::admin();
    let bad = json!({
        "name": "Not A Name", "tags": [""], "colour": "blue",
        "spec": { "source": { "process": { "args": "x" } }, "replicas": 0 }
    });
    let answer = home.ask_with(admin, ("POST", SERVICES), &bad).await;
    assert_eq!(answer.status.as_u16(), 422);
    let problem = answer.json();
    for path in [
        "name",
        "tags",
        "colour",
        "spec.source.process.command",
        "spec.source.process.args",
        "spec.replicas",
    ] {
        assert!(
            paths(&problem).contains(&path),
            "{path} is missing in {problem}"
        );
    }
    let answer = home
        .ask(admin, "GET", "/api/v1/services?limit=0&state=asleep&lmit=3")
        .await;
    assert_eq!(answer.status.as_u16(), 422);
    assert_eq!(paths(&answer.json()), ["state", "limit", "lmit"]);
    let answer = home
        .ask(admin, "GET", "/api/v1/calls?outcome=fine&since=yesterday")
        .await;
    assert_eq!(paths(&answer.json()), ["outcome", "since"]);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_request_is_told_where_it_is_broken() {
    let home = open().await;
    let admin = As::admin();
    let post = |kind: &str, body: &str| {
        let request = request("POST", SERVICES).header(header::CONTENT_TYPE, kind);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let json = "application/json";
    let broken = home
        .send(admin, post(json, "{\n  \"name\": \"x\",\n  oops\n}"))
        .await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    let detail = broken.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("line 3"), "{detail}");
    let form = home.send(admin, post("text/plain", "{}")).await;
    assert_eq!(form.status, StatusCode::BAD_REQUEST);
    let long = home.send(admin, post(json, &" ".repeat(1025 * 1024))).await;
    assert_eq!(
        (long.status.as_u16(), long.json()["type"].as_str()),
        (413, Some("/errors/too-large"))
    );

    let nowhere = home.ask(admin, "GET", "/api/v1/nothing").await;
    assert_eq!(
        (nowhere.status.as_u16(), nowhere.json()["type"].as_str()),
        (404, Some("/errors/not-found"))
    );
    let wrong = home.ask(admin, "PATCH", SERVICES).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.json()["type"].as_str()),
        (405, Some("/errors/method-not-allowed"))
    );
    let allowed = wrong.header(header::ALLOW);
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
    let encoded = home.ask(admin, "GET", "/api/v1/services/%ff").await;
    assert_eq!(
        (encoded.status.as_u16(), encoded.header("content-type")),
        (404, "application/problem+json")
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once() {
    let home = open().await;
    let admin = As::admin();
    let body = json!({ "name": "laptop", "role": "client", "expires_in": "90d" });
    let made = home.ask_with(admin, ("POST", "/api/v1/keys"), &body).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let made = made.json();
    let text = made["key"].as_str().unwrap();
    assert!(text.starts_with(made["prefix"].as_str().unwrap()));
    assert_eq!(made["permissions"], json!(["mcp:read", "mcp:execute"]));
    assert!(made["expires_at"].is_string());
    let list = home.ask(admin, "GET", "/api/v1/keys").await;
    assert!(!list.text().contains(text));
    assert_eq!(list.json()["items"].as_array().unwrap().len(), 2);
    let revoked = home.ask(admin, "DELETE", "/api/v1/keys/laptop").await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    let list = home.ask(admin, "GET", "/api/v1/keys").await.json();
    assert!(list["items"][0]["revoked_at"].is_string());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_where_everything_is() {
    let home = open().await;
    let admin = As::admin();
    home.with_demo().await;
    let status = home.ask(admin, "GET", "/api/v1/status").await.json();
    assert_eq!(status["mcp_url"], "http://127.0.0.1:3010/mcp");
    assert_eq!(status["auth"], "keys");
    assert_eq!(
        status["services"],
        json!({ "total": 1, "active": 1, "error": 0 })
    );
    assert_eq!(status["store"]["engine"], "sqlite");
    let stats = home
        .ask(admin, "GET", "/api/v1/services/demo/stats")
        .await
        .json();
    assert_eq!(stats["in_flight"], 0);
    let logs = home
        .ask(admin, "GET", "/api/v1/services/demo/logs?tail=5")
        .await
        .json();
    assert_eq!(logs["items"], json!([]));
    assert_eq!(
        home.ask(admin, "POST", "/api/v1/shutdown").await.status,
        StatusCode::ACCEPTED
    );
    home.control.shutdown_asked().await;
    assert_eq!(
        home.ask(As::Nobody, "GET", "/health/ready")
            .await
            .status
            .as_u16(),
        503
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_to_its_end_and_followed() {
    let home = open().await;
    let admin = As::admin();
    home.with_demo().await;
    let logs = home.supervisor.logs("demo");
    logs.append(vaxel_supervisor::Stream::Stderr, 0, "first\nsecond");
    let tail = home
        .ask(admin, "GET", "/api/v1/services/demo/logs?tail=1")
        .await
        .json();
    assert_eq!(tail["items"][0]["text"], "second");
    assert_eq!(tail["items"][0]["stream"], "stderr");

    let follow = request("GET", "/api/v1/services/demo/logs?tail=2&follow=true");
    let mut stream = home
        .stream(admin, follow.body(Body::empty()).unwrap())
        .await;
    let mut seen = String::new();
    while !seen.contains("second") {
        seen.push_str(&stream.next().await);
    }
    assert!(seen.contains("first"), "{seen}");
    logs.append(vaxel_supervisor::Stream::Vaxel, 0, "third");
    while !seen.contains("third") {
        seen.push_str(&stream.next().await);
    }
    // More than a follower may have waiting: what it missed is counted.
    for line in 0..2_000 {
        logs.append(vaxel_supervisor::Stream::Stderr, 0, &format!("line {line}"));
    }
    while !seen.contains("event: lost") {
        seen.push_str(&stream.next().await);
    }
    assert!(seen.contains("data: {\"count\":"), "{seen}");
    home.control.stop().await;
}
