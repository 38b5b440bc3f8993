//! Limits of users and services on every door of the real binary, and on the command line.

use serde_json::{Value, json};

use crate::harness::{Door, TestVaxel, text};

/// The door of a new user of this role with these limits.
fn user(vaxel: &TestVaxel, role: &str, limits: &[&str]) -> Door {
    let mut add = vec!["user", "add", "anna", "--role", role];
    add.extend(limits.iter().flat_map(|limit| ["--limit", limit]));
    vaxel.ok(&add);
    let key = vaxel.json(&["key", "create", "anna", "--user", "anna", "--role", role]);
    Door {
        key: key["key"].as_str().unwrap().to_owned(),
        ..Door::of(vaxel)
    }
}

fn ask(door: &Door, verb: &str, path: &str, body: Option<&Value>) -> (String, Value) {
    door.ask_in_full(verb, path, body)
        .unwrap_or_else(|error| panic!("{verb} {path}: {error}"))
}

fn assert_has(head: &str, lines: &[&str]) {
    for line in lines {
        assert!(head.lines().any(|one| one == *line), "{line} in {head}");
    }
}

#[test]
fn requests_are_counted_on_every_door_that_needs_a_key() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let anna = user(&vaxel, "client", &["requests=6/1h", "calls=9/1h"]);
    for left in [5, 4] {
        let (head, _) = ask(&anna, "GET", "/api/v1/services", None);
        let said = format!(r#"ratelimit: "requests";r={left};t=600, "calls";r=9"#);
        assert_has(&head, &["HTTP/1.1 200 OK", &said]);
    }
    // What is open to everybody is not counted, whoever asks.
    for path in ["/health/live", "/api/v1/openapi.json"] {
        let (head, _) = ask(&anna, "GET", path, None);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    let (_, who) = ask(&anna, "GET", "/api/v1/auth/whoami", None);
    let requests = json!({"limit": "requests", "allows": "6/1h", "left": 3, "more_after": 600});
    assert_eq!(who["limits"][0], requests, "{who}");
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}}});
    ask(&anna, "POST", "/mcp", Some(&list));
    ask(&anna, "GET", "/api/mcp", None);
    ask(&anna, "GET", "/api/v1/tools", None);

    let policy = r#"ratelimit-policy: "requests";q=6;w=3600"#;
    let left = r#"ratelimit: "requests";r=0;t=600"#;
    let lines = [
        "HTTP/1.1 429 Too Many Requests",
        "retry-after: 600",
        policy,
        left,
    ];
    let (head, problem) = ask(&anna, "GET", "/api/v1/services", None);
    assert_has(&head, &lines);
    assert_eq!(problem["type"], "/errors/rate-limited", "{problem}");
    assert_eq!(problem["limit"], "requests");
    let said = "`anna` may make 6 requests in 1h; try again in 600 s";
    assert_eq!(problem["detail"], said);
    let (head, refused) = ask(&anna, "GET", "/api/mcp", None);
    assert_has(&head, &lines);
    assert_eq!(refused, json!({"error": said, "detail": said}));
    let (head, refused) = ask(&anna, "POST", "/mcp", Some(&list));
    assert_has(&head, &lines);
    assert_eq!(
        (&refused["id"], &refused["error"]["code"]),
        (&json!(1), &json!(1429))
    );

    let (head, _) = ask(&Door::of(&vaxel), "GET", "/api/v1/services", None);
    assert!(!head.contains("ratelimit"), "an admin has no limit: {head}");
}

#[test]
fn calls_and_creations_are_counted_over_rest_and_at_the_ai_platforms_door() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let anna = user(&vaxel, "admin", &["calls=2/1h", "creations=1/1h"]);
    let echo = json!({"arguments": {"message": "hi"}});
    let call = || ask(&anna, "POST", "/api/v1/tools/demo__echo/call", Some(&echo));
    for _ in 0..2 {
        let (head, answer) = call();
        assert!(head.starts_with("HTTP/1.1 200"), "{head} {answer}");
    }
    let (head, problem) = call();
    assert_has(
        &head,
        &["retry-after: 1800", r#"ratelimit: "calls";r=0;t=1800"#],
    );
    assert_eq!(
        (&problem["status"], &problem["limit"]),
        (&json!(429), &json!("calls"))
    );

    let server = json!({"name": "Mine", "command": "true", "enabled": false});
    let (head, _) = ask(&anna, "POST", "/api/mcp", Some(&server));
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    let (head, refused) = ask(&anna, "POST", "/api/mcp", Some(&server));
    let left = r#"ratelimit: "creations";r=0;t=3600"#;
    assert_has(
        &head,
        &["HTTP/1.1 429 Too Many Requests", "retry-after: 3600", left],
    );
    let said = "`anna` may create 1 service in 1h; try again in 3600 s";
    assert_eq!(refused, json!({"error": said, "detail": said}));
    let demo = json!({"name": "other", "spec": {"source": {"builtin": "demo"}}});
    let (_, problem) = ask(&anna, "POST", "/api/v1/services", Some(&demo));
    assert_eq!(problem["limit"], "creations", "{problem}");
}

#[test]
fn limits_are_set_and_seen_on_the_command_line() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let table = vaxel.ok(&["role", "ls"]);
    assert!(
        table.contains("calls=20/1m creations=5/5m requests=100/1m"),
        "{table}"
    );
    let add = [
        "role",
        "add",
        "trial",
        "mcp:read",
        "mcp:execute",
        "--limit",
        "calls=3/1h",
    ];
    vaxel.ok(&add);
    let shown = vaxel.json(&["role", "show", "trial"]);
    assert_eq!(shown["limits"], json!({"calls": "3/1h"}));
    let wrong = vaxel.cli(&["role", "add", "x", "mcp:read", "--limit", "calls=many"]);
    assert!(
        text(&wrong).contains("`many` is not a rate"),
        "{}",
        text(&wrong)
    );

    vaxel.ok(&["user", "add", "anna", "--role", "trial"]);
    let key = vaxel.json(&["key", "create", "anna", "--user", "anna"]);
    let key = key["key"].as_str().unwrap().to_owned();
    let mine = |args: &[&str]| {
        let mut all = vec!["--key", &*key];
        all.extend(args);
        text(&vaxel.cli(&all))
    };
    mine(&["call", "demo__echo", "--arg", "message=hello"]);
    let who = mine(&["whoami"]);
    assert!(who.contains("calls 3/1h (2 left)"), "{who}");
    let why = vaxel.ok(&["auth", "why", "anna", "mcp:execute", "demo", "echo"]);
    assert!(why.contains("limits: calls 3/1h (2 left)"), "{why}");
    for _ in 0..2 {
        mine(&["call", "demo__echo", "--arg", "message=hello"]);
    }
    let refused = mine(&["call", "demo__echo", "--arg", "message=hello"]);
    assert!(
        refused.contains("`anna` may make 3 tool calls in 1h"),
        "{refused}"
    );
    vaxel.ok(&["user", "edit", "anna", "--limit", "none"]);
    let call = vaxel.cli(&[
        "--key",
        &key,
        "call",
        "demo__echo",
        "--arg",
        "message=hello",
    ]);
    assert!(call.status.success(), "{}", text(&call));
    let user = vaxel.json(&["user", "show", "anna"]);
    assert_eq!(user["limits"], json!({}));
}
