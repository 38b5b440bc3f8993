//! Legacy clients go on with the session they have after Vaxel was restarted, politely or not.

use std::{
    fs,
    io::Read,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    doors::{Answer, Raw},
    harness::{TestVaxel, wait_for},
};

/// A legacy server that knows who subscribed to what, logs, tells of changes and asks.
const NOTES: &str = r#"
import json, sys
subscribed = []
def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
def hear():
    return json.loads(sys.stdin.readline())
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if id is None or method is None:
        continue
    result = {}
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "serverInfo": {"name": "notes", "version": "1"},
                  "capabilities": {"tools": {}, "logging": {}, "resources": {"subscribe": True}}}
    elif method == "tools/list":
        tools = ["touch", "log", "subscribed", "ask"]
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in tools]}
    elif method == "resources/list":
        result = {"resources": [{"uri": "note://one", "name": "one"}]}
    elif method == "resources/templates/list":
        result = {"resourceTemplates": []}
    elif method == "resources/subscribe":
        subscribed.append(params["uri"])
    elif method == "tools/call":
        text = json.dumps(subscribed)
        if params["name"] == "touch":
            say({"method": "notifications/resources/updated", "params": {"uri": "note://one"}})
        if params["name"] == "log":
            for level in ["debug", "error"]:
                say({"method": "notifications/message", "params": {"level": level, "data": level}})
        if params["name"] == "ask":
            say({"id": "q", "method": "elicitation/create", "params": {
                "message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}})
            text = json.dumps(hear())
        result = {"content": [{"type": "text", "text": text}]}
    elif method not in ("ping", "logging/setLevel"):
        say({"id": id, "error": {"code": -32601, "message": "unknown"}})
        continue
    say({"id": id, "result": result})
"#;

fn start() -> TestVaxel {
    let vaxel = TestVaxel::start();
    let file = vaxel.home.path().join("notes.py");
    fs::write(&file, NOTES).unwrap();
    vaxel.add("notes", &["python3", &file.display().to_string()]);
    vaxel
}

/// Ends it and starts it again.
fn restart(vaxel: &mut TestVaxel, politely: bool) {
    if politely {
        vaxel.ok(&["down"]);
    } else {
        vaxel.kill();
    }
    vaxel.launch();
    wait_for("the service to be back", || {
        vaxel.cli(&["call", "notes__subscribed"]).status.success()
    });
}

fn ask(raw: &Raw, session: &str, method: &str, params: &Value) -> Answer {
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let headers = [("mcp-session-id", session)];
    raw.send("POST", "/mcp", &headers, &message.to_string())
}

/// Reads on until `wanted` stands in what came.
fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let (mut text, mut chunk) = (String::new(), [0; 4096]);
    while !text.contains(wanted) {
        let read = stream.read(&mut chunk).unwrap();
        assert!(read > 0, "the stream ended without `{wanted}`: {text}");
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    text
}

#[test]
fn level_and_subscriptions_of_a_session_outlive_a_restart_and_its_end_does() {
    for politely in [true, false] {
        let mut vaxel = start();
        let raw = Raw::of(&vaxel);
        let (ended, _) = raw.session("2025-11-25");
        let gone = raw.send("DELETE", "/mcp", &[("mcp-session-id", &ended)], "");
        assert_eq!(gone.status, 204);
        let (kept, _) = raw.session("2025-11-25");
        let level = json!({"level": "error"});
        assert_eq!(ask(&raw, &kept, "logging/setLevel", &level).status, 200);
        let one = json!({"uri": "note://one"});
        assert_eq!(ask(&raw, &kept, "resources/subscribe", &one).status, 200);
        if !politely {
            // What was set a moment ago is being written; what is written stays.
            let log = vaxel.data_dir().join("vaxel.db-wal");
            wait_for("it to be written", || {
                let bytes = fs::read(&log).unwrap_or_default();
                let wanted = b"\",\"note://one\"]]";
                bytes.windows(wanted.len()).any(|part| part == wanted)
            });
        }
        restart(&mut vaxel, politely);

        let raw = Raw::of(&vaxel);
        assert_eq!(ask(&raw, &ended, "ping", &json!({})).status, 404);
        let stranger = vaxel.json(&["key", "create", "stranger"]);
        let mut other = Raw::of(&vaxel);
        stranger["key"].as_str().unwrap().clone_into(&mut other.key);
        assert_eq!(ask(&other, &kept, "ping", &json!({})).status, 404);

        let mut stream = raw.open("GET", "/mcp", &[("mcp-session-id", &kept)], "");
        read_until(&mut stream, ": listening");
        wait_for("the server to be told of the subscription again", || {
            let subscribed = vaxel.ok(&["call", "notes__subscribed"]);
            subscribed.contains("note://one")
        });
        vaxel.ok(&["call", "notes__touch"]);
        let told = read_until(&mut stream, "note://one");
        assert!(told.contains("notifications/resources/updated"), "{told}");
        let log = json!({"name": "notes__log", "arguments": {}});
        let told = ask(&raw, &kept, "tools/call", &log).body;
        let wanted = told.contains(r#""data": "error""#);
        assert!(wanted && !told.contains(r#""data": "debug""#), "{told}");
    }
}

#[test]
fn a_question_whose_call_did_not_outlive_a_restart_has_expired() {
    for politely in [true, false] {
        let mut vaxel = start();
        let params = |more: Value| {
            let mut params = json!({"name": "notes__ask", "arguments": {}, "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}});
            let more = more.as_object().unwrap().clone();
            params.as_object_mut().unwrap().extend(more);
            params
        };
        let call = |vaxel: &TestVaxel, params: &Value| {
            let headers = [
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "notes__ask"),
            ];
            let message =
                json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
            let raw = Raw::of(vaxel);
            raw.send("POST", "/mcp", &headers, &message.to_string())
                .json()["result"]
                .clone()
        };
        let asked = call(&vaxel, &params(json!({})));
        assert_eq!(asked["resultType"], "input_required", "{asked}");
        restart(&mut vaxel, politely);
        let brought = json!({"inputResponses": {"q1": {"action": "decline"}},
            "requestState": asked["requestState"]});
        let told = call(&vaxel, &params(brought));
        assert_eq!(told["isError"], true, "{told}");
        assert!(
            told["content"][0]["text"]
                .as_str()
                .unwrap()
                .contains("expired"),
            "{told}"
        );
    }
}

#[test]
fn a_call_in_flight_fails_clearly_when_vaxel_is_killed() {
    let mut vaxel = start();
    let raw = Raw::of(&vaxel);
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "raw", "version": "1"}});
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let hello = raw.send("POST", "/mcp", &[], &hello.to_string());
    let session = hello.header("mcp-session-id").unwrap().to_owned();
    let call = json!({"jsonrpc": "2.0", "id": "the call", "method": "tools/call",
        "params": {"name": "notes__ask", "arguments": {}}});
    let headers = [("mcp-session-id", &*session)];
    let mut stream = raw.open("POST", "/mcp", &headers, &call.to_string());
    let told = read_until(&mut stream, "elicitation/create");
    let last = told.lines().rfind(|line| line.starts_with("id: ")).unwrap();
    let last = last.trim_start_matches("id: ").to_owned();
    vaxel.kill();
    // The client sees its connection end; what came on it is no answer.
    let mut rest = String::new();
    let _ = stream.read_to_string(&mut rest);
    assert!(!rest.contains("the call"), "{rest}");
    vaxel.launch();
    // Asked for the rest of it, Vaxel says what became of the call.
    let headers = [("mcp-session-id", &*session), ("last-event-id", &last)];
    let told = Raw::of(&vaxel).send("GET", "/mcp", &headers, "").json();
    assert_eq!(told["id"], "the call");
    let reason = told["error"]["message"].as_str().unwrap();
    assert!(reason.contains("Vaxel was restarted"), "{told}");
}

/// Keeps the store from writing, as a process that will not let go of it does, until it is dropped.
struct Held(Child);

impl Held {
    fn store(vaxel: &TestVaxel) -> Self {
        let script = "import sqlite3, sys\n\
                      store = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n\
                      store.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut holds = Command::new("python3")
            .args(["-c", script])
            .arg(vaxel.data_dir().join("vaxel.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 4];
        holds
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut told)
            .unwrap();
        Self(holds)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NOT_SAVED: &str = "what clients set in their sessions was not saved";

#[test]
fn a_session_goes_on_while_the_store_does_not_write_and_what_it_set_is_saved_later() {
    let mut vaxel = start();
    let raw = Raw::of(&vaxel);
    let (session, _) = raw.session("2025-11-25");
    let held = Held::store(&vaxel);
    let one = json!({"uri": "note://one"});
    assert_eq!(ask(&raw, &session, "resources/subscribe", &one).status, 200);
    let level = json!({"level": "error"});
    assert_eq!(ask(&raw, &session, "logging/setLevel", &level).status, 200);
    let log = json!({"name": "notes__log", "arguments": {}});
    let told = ask(&raw, &session, "tools/call", &log).body;
    let wanted = told.contains(r#""data": "error""#) && !told.contains(r#""data": "debug""#);
    assert!(wanted, "{told}");
    wait_for("the log to say so", || vaxel.log().contains(NOT_SAVED));
    assert_eq!(ask(&raw, &session, "ping", &json!({})).status, 200);
    drop(held);
    let written = vaxel.data_dir().join("vaxel.db-wal");
    wait_for("it to be written", || {
        let bytes = fs::read(&written).unwrap_or_default();
        let wanted = b"\",\"note://one\"]]";
        bytes.windows(wanted.len()).any(|part| part == wanted)
    });
    restart(&mut vaxel, false);
    let told = ask(&Raw::of(&vaxel), &session, "tools/call", &log).body;
    let wanted = told.contains(r#""data": "error""#) && !told.contains(r#""data": "debug""#);
    assert!(wanted, "{told}");
}

#[test]
fn what_a_session_set_and_the_store_did_not_take_before_the_end_is_said_in_the_log() {
    let mut vaxel = start();
    let raw = Raw::of(&vaxel);
    let (session, _) = raw.session("2025-11-25");
    let held = Held::store(&vaxel);
    let level = json!({"level": "error"});
    assert_eq!(ask(&raw, &session, "logging/setLevel", &level).status, 200);
    wait_for("the log to say so", || vaxel.log().contains(NOT_SAVED));
    vaxel.kill();
    drop(held);
    vaxel.launch();
    let known = ask(&Raw::of(&vaxel), &session, "ping", &json!({}));
    assert_eq!(known.status, 200, "the session itself needs no store");
}
