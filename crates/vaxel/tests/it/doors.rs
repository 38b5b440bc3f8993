//! The MCP doors as a raw client meets them: refusals, headers, sessions, streams.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{TestVaxel, wait_for};

/// An answer, taken apart just enough.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let text = self
            .body
            .lines()
            .find_map(|line| line.strip_prefix("data: ").filter(|data| !data.is_empty()));
        serde_json::from_str(text.unwrap_or(&self.body))
            .unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// A client that says exactly what it is told.
pub(crate) struct Raw {
    pub(crate) address: String,
    pub(crate) key: String,
}

impl Raw {
    pub(crate) fn of(vaxel: &TestVaxel) -> Self {
        Self {
            address: vaxel.url().replace("http://", ""),
            key: vaxel.key(),
        }
    }

    pub(crate) fn send(
        &self,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.open(verb, path, headers, body);
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn open(
        &self,
        verb: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> TcpStream {
        let mut all = vec![
            ("host".to_owned(), self.address.clone()),
            ("authorization".to_owned(), format!("Bearer {}", self.key)),
            ("content-type".to_owned(), "application/json".to_owned()),
            (
                "accept".to_owned(),
                "application/json, text/event-stream".to_owned(),
            ),
            ("connection".to_owned(), "close".to_owned()),
            ("content-length".to_owned(), body.len().to_string()),
        ];
        for (name, value) in headers {
            all.retain(|(known, _)| known != name);
            if !value.is_empty() {
                all.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        let mut head = format!("{verb} {path} HTTP/1.1\r\n");
        for (name, value) in &all {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        write!(stream, "{head}\r\n{body}").unwrap();
        stream
    }

    pub(crate) fn modern(&self, method: &str, params: Value) -> Answer {
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
            ("mcp-name", &name),
        ];
        self.send("POST", "/mcp", &headers, &modern(method, params))
    }

    /// Opens a legacy session and returns its id.
    pub(crate) fn session(&self, version: &str) -> (String, Value) {
        let params = json!({"protocolVersion": version, "capabilities": {},
                            "clientInfo": {"name": "raw", "version": "1"}});
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = self.send("POST", "/mcp", &[], &message.to_string());
        (
            answer.header("mcp-session-id").unwrap().to_owned(),
            answer.json(),
        )
    }
}

fn modern(method: &str, mut params: Value) -> String {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

const ECHO: &str = r#"{"jsonrpc":"2.0","id":"abc","method":"tools/call","params":{"name":"demo__echo","arguments":{"message":"hi"}}}"#;

#[test]
fn strangers_are_refused_before_anything_else() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let list = modern("tools/list", json!({}));
    let none = raw.send("POST", "/mcp", &[("authorization", "")], &list);
    assert_eq!(none.status, 401);
    assert!(
        none.header("www-authenticate")
            .unwrap()
            .starts_with("Bearer")
    );
    assert_eq!(
        none.header("content-type"),
        Some("application/problem+json")
    );
    let wrong = [(
        "authorization",
        "Bearer vxl_0123456789_0123456789012345678901234567890123",
    )];
    assert_eq!(raw.send("POST", "/mcp", &wrong, &list).status, 401);
    assert_eq!(
        raw.send("POST", "/mcp", &[("host", "evil.example")], &list)
            .status,
        403
    );
    assert_eq!(
        raw.send("POST", "/mcp", &[("origin", "https://evil.example")], &list)
            .status,
        403
    );
    assert_eq!(
        raw.send("GET", "/api/v1/services", &[("host", "evil.example")], "")
            .status,
        403
    );
    assert_eq!(
        raw.send("GET", "/api/v1/services", &[("authorization", "")], "")
            .status,
        401
    );
    assert_eq!(
        raw.send("GET", "/health/live", &[("authorization", "")], "")
            .status,
        200
    );
}

#[test]
fn bad_input_gets_a_clear_answer() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let post = |body: &str| raw.send("POST", "/mcp", &[], body);
    let malformed = post("{");
    assert_eq!(
        (malformed.status, malformed.json()["error"]["code"].as_i64()),
        (400, Some(-32700))
    );
    assert_eq!(post("[]").status, 400);
    assert_eq!(post("{}").status, 400);
    assert_eq!(
        raw.send("POST", "/mcp", &[("content-type", "text/plain")], "{}")
            .status,
        400
    );
    let put = raw.send("PUT", "/mcp", &[], "{}");
    assert_eq!(
        (put.status, put.header("allow")),
        (405, Some("POST, GET, DELETE"))
    );
    assert_eq!(raw.send("POST", "/mcp/nothing", &[], ECHO).status, 404);
    let large = "x".repeat(5 << 20);
    assert_eq!(
        raw.send(
            "POST",
            "/mcp",
            &[("content-length", &large.len().to_string())],
            ""
        )
        .status,
        413
    );
}

#[test]
fn a_modern_request_must_say_the_same_in_headers_and_body() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let params = json!({"name": "demo__echo", "arguments": {"message": "hi"}});
    let body = modern("tools/call", params.clone());
    let good = raw.modern("tools/call", params);
    assert_eq!(good.json()["result"]["content"][0]["text"], "hi");
    assert_eq!(good.json()["result"]["resultType"], "complete");
    let code = |headers: &[(&str, &str)], body: &str| {
        let answer = raw.send("POST", "/mcp", headers, body);
        (
            answer.status,
            answer.json()["error"]["code"].as_i64().unwrap(),
        )
    };
    let version = ("mcp-protocol-version", "2026-07-28");
    assert_eq!(code(&[], &body), (400, -32020));
    assert_eq!(
        code(&[version, ("mcp-method", "tools/list")], &body),
        (400, -32020)
    );
    let other = [
        version,
        ("mcp-method", "tools/call"),
        ("mcp-name", "demo__clock"),
    ];
    assert_eq!(code(&other, &body), (400, -32020));
    let future = body.replace("2026-07-28", "2099-01-01");
    assert_eq!(
        code(&[("mcp-protocol-version", "2099-01-01")], &future),
        (400, -32022)
    );
    let bare = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert_eq!(
        code(&[version, ("mcp-method", "tools/list")], bare),
        (400, -32602)
    );
    assert_eq!(raw.modern("ping", json!({})).status, 404);
    assert_eq!(
        raw.modern("no/such", json!({})).json()["error"]["code"],
        -32601
    );
    let unknown = raw.modern(
        "tools/call",
        json!({"name": "demo__nothing", "arguments": {}}),
    );
    assert_eq!(
        (unknown.status, unknown.json()["error"]["code"].as_i64()),
        (200, Some(-32602))
    );
    let discovered = raw.modern("server/discover", json!({}));
    assert_eq!(
        discovered.json()["result"]["supportedVersions"],
        json!(["2026-07-28"])
    );
}

#[test]
fn a_legacy_session_is_opened_used_survives_a_restart_and_ends() {
    let mut vaxel = TestVaxel::start_with(&["--demo"]);
    let raw = Raw::of(&vaxel);
    let (session, introduction) = raw.session("2025-03-26");
    assert_eq!(introduction["result"]["protocolVersion"], "2025-03-26");
    assert_eq!(
        raw.session("2026-07-28").1["result"]["protocolVersion"],
        "2025-11-25"
    );
    let ask =
        |raw: &Raw, session: &str| raw.send("POST", "/mcp", &[("mcp-session-id", session)], ECHO);
    let answer = ask(&raw, &session).json();
    assert_eq!(
        (&answer["id"], &answer["result"]["content"][0]["text"]),
        (&json!("abc"), &json!("hi"))
    );
    assert!(answer["result"].get("resultType").is_none(), "{answer}");
    assert_eq!(ask(&raw, "").status, 400);
    assert_eq!(ask(&raw, "unknown").status, 404);
    let other = vaxel.ok(&["key", "create", "other"]);
    let stranger = Raw {
        address: raw.address.clone(),
        key: other.trim().to_owned(),
    };
    assert_eq!(ask(&stranger, &session).status, 404);
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(
        raw.send("POST", "/mcp", &[("mcp-session-id", &session)], told)
            .status,
        202
    );
    vaxel.ok(&["down"]);
    vaxel.launch();
    let raw = Raw::of(&vaxel);
    wait_for("the service behind the session", || {
        ask(&raw, &session).json()["result"]["content"][0]["text"] == "hi"
    });
    assert_eq!(
        raw.send("DELETE", "/mcp", &[("mcp-session-id", &session)], "")
            .status,
        204
    );
    assert_eq!(ask(&raw, &session).status, 404);
}

#[test]
fn both_eras_hear_of_changed_lists() {
    let vaxel = TestVaxel::start();
    let raw = Raw::of(&vaxel);
    let (session, _) = raw.session("2025-06-18");
    let mut legacy = raw.open("GET", "/mcp", &[("mcp-session-id", &session)], "");
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "subscriptions/listen"),
    ];
    let mut listening = raw.open(
        "POST",
        "/mcp",
        &headers,
        &modern("subscriptions/listen", wanted),
    );
    read_until(&mut legacy, ": listening");
    // Its first message; the comment before it says nothing.
    let said = read_until(&mut listening, r#""method":"#);
    assert!(
        said.contains("notifications/subscriptions/acknowledged"),
        "{said}"
    );
    let script = crate::harness::echo_server(vaxel.home.path())
        .display()
        .to_string();
    vaxel.add("echo", &["python3", &script]);
    read_until(&mut legacy, "notifications/tools/list_changed");
    let said = read_until(&mut listening, "notifications/tools/list_changed");
    assert!(
        said.contains("io.modelcontextprotocol/subscriptionId"),
        "{said}"
    );
}

const LOUD: &str = r#"
import json, sys
level = "emergency"
def say(message):
    print(json.dumps(message), flush=True)
def log(severity):
    say({"jsonrpc": "2.0", "method": "notifications/message",
         "params": {"level": severity, "data": "said at " + severity + ", told " + level}})
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if id is None:
        continue
    result = {}
    if method == "initialize":
        result = {"protocolVersion": "2025-06-18", "serverInfo": {"name": "loud", "version": "1"},
                  "capabilities": {"tools": {}, "logging": {}}}
    elif method == "tools/list":
        result = {"tools": [{"name": "talk", "inputSchema": {"type": "object"}}]}
    elif method == "logging/setLevel":
        level = message["params"]["level"]
    elif method == "tools/call":
        log("debug"), log("error")
        result = {"content": [{"type": "text", "text": "done"}]}
    say({"jsonrpc": "2.0", "id": id, "result": result})
"#;

#[test]
fn log_messages_reach_who_asked_for_them_at_their_level() {
    let vaxel = TestVaxel::start();
    let script = vaxel.home.path().join("loud.py");
    std::fs::write(&script, LOUD).unwrap();
    // Named legacy: it answers every method, and so would pass for a modern one.
    let path = script.display().to_string();
    vaxel.ok(&[
        "service", "add", "loud", "--era", "legacy", "--", "python3", &path,
    ]);
    let raw = Raw::of(&vaxel);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"loud__talk","arguments":{}}}"#;
    let (session, _) = raw.session("2025-06-18");
    let headers = [("mcp-session-id", session.as_str())];
    let level =
        r#"{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{"level":"LEVEL"}}"#;
    let refused = raw.send("POST", "/mcp", &headers, level).json();
    assert_eq!(refused["error"]["code"], -32602);
    raw.send("POST", "/mcp", &headers, &level.replace("LEVEL", "warning"));
    let said = raw.send("POST", "/mcp", &headers, call).body;
    assert!(said.contains("said at error, told warning"), "{said}");
    assert!(!said.contains("said at debug"), "{said}");
    let mut params = json!({"name": "loud__talk", "arguments": {}});
    assert!(
        !raw.modern("tools/call", params.clone())
            .body
            .contains("said at")
    );
    params["_meta"] = json!({"io.modelcontextprotocol/logLevel": "debug"});
    let said = raw.modern("tools/call", params).body;
    assert!(
        said.contains("said at debug, told debug") && said.contains("said at error"),
        "{said}"
    );
}

fn read_until(stream: &mut TcpStream, mark: &str) -> String {
    let mut said = String::new();
    let mut chunk = [0; 4_096];
    while !said.contains(mark) {
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the stream ended before `{mark}`:\n{said}");
        said.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
    said
}

#[test]
fn the_management_api_names_every_problem_and_its_page() {
    let vaxel = TestVaxel::start();
    let raw = Raw::of(&vaxel);
    let bad = json!({"name": "Bad Name", "colour": 1, "spec": {
        "source": {"mcp": {"url": "ftp://x"}}, "replicas": 0, "limits": {"timeout": "soon"}}});
    let refused = raw.send("POST", "/api/v1/services", &[], &bad.to_string());
    assert_eq!(refused.status, 422, "{}", refused.body);
    let problem = refused.json();
    let paths: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    for path in [
        "name",
        "colour",
        "spec.source.mcp.url",
        "spec.replicas",
        "spec.limits.timeout",
    ] {
        assert!(paths.contains(&path), "{path} is missing in {paths:?}");
    }
    let page = raw.send(
        "GET",
        problem["type"].as_str().unwrap(),
        &[("authorization", "")],
        "",
    );
    assert_eq!(page.status, 200);
    let metrics = raw.send("GET", "/metrics", &[("authorization", "")], "");
    assert!(
        metrics.body.contains("vaxel_http_requests_total"),
        "{}",
        metrics.body
    );
    let document = raw.send("GET", "/api/v1/openapi.json", &[], "");
    assert_eq!(document.json()["openapi"], "3.1.0");
}
