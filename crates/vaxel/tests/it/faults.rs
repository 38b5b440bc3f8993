//! Servers that do everything wrong: each harms only its own calls, which end with a clear error.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::harness::{TestVaxel, text, wait_for};

/// A stdio server whose `tools/call` does what `call` says; everything else is right.
fn server(vaxel: &TestVaxel, name: &str, call: &str) -> PathBuf {
    let file = vaxel.home.path().join(format!("{name}.py"));
    let script = SERVER.replace("CALL", &call.replace('\n', "\n        "));
    fs::write(&file, script).unwrap();
    file
}

const SERVER: &str = r#"
import json, os, sys, time
def say(message):
    print(json.dumps(message), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if id is None or method is None:
        continue
    def answer(result, id=id):
        say({"jsonrpc": "2.0", "id": id, "result": result})
    def text(value):
        answer({"content": [{"type": "text", "text": value}]})
    if method == "initialize":
        answer({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                "serverInfo": {"name": "bad", "version": "1"}})
    elif method == "tools/list":
        answer({"tools": [{"name": "do", "inputSchema": {"type": "object"}}]})
    elif method == "tools/call":
        CALL
    elif method == "ping":
        answer({})
    else:
        say({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "unknown"}})
"#;

fn start(vaxel: &TestVaxel, name: &str, call: &str) {
    let file = server(vaxel, name, call).display().to_string();
    vaxel.add(name, &["python3", &file]);
}

fn log_of(vaxel: &TestVaxel, name: &str) -> String {
    vaxel.ok(&["logs", name])
}

#[test]
fn garbage_floods_and_wrong_answers_are_survived_and_reported() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    start(
        &vaxel,
        "garbage",
        "print('Listening on nothing', flush=True)\nprint('{broken', flush=True)\ntext('fine')",
    );
    assert_eq!(vaxel.ok(&["call", "garbage__do"]).trim(), "fine");
    let log = log_of(&vaxel, "garbage");
    assert!(
        log.contains("Listening on nothing") && log.contains("{broken"),
        "{log}"
    );
    start(
        &vaxel,
        "twice",
        "text('once')\ntext('again')\nanswer({}, 999999)",
    );
    for _ in 0..3 {
        assert_eq!(vaxel.ok(&["call", "twice__do"]).trim(), "once");
    }
    assert!(log_of(&vaxel, "twice").contains("nobody waits for"));
    start(
        &vaxel,
        "flood",
        "for n in range(20000):\n    say({'jsonrpc': '2.0', 'method': 'notifications/progress', 'params': {'progressToken': n, 'progress': n}})\nsys.stderr.write('x' * 200000 + '\\n')\ntext('after the flood')",
    );
    assert_eq!(vaxel.ok(&["call", "flood__do"]).trim(), "after the flood");
    assert_eq!(
        vaxel
            .ok(&["call", "demo__echo", "--arg", "message=well"])
            .trim(),
        "well"
    );
}

#[test]
fn a_server_that_says_nothing_costs_its_caller_only_the_deadline() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    start(&vaxel, "silent", "pass");
    let waited = vaxel.cli(&["call", "silent__do", "--timeout", "300ms"]);
    assert!(
        text(&waited).contains("did not answer in time"),
        "{}",
        text(&waited)
    );
    assert_eq!(
        vaxel
            .ok(&["call", "demo__echo", "--arg", "message=well"])
            .trim(),
        "well"
    );
    wait_for("the call to be on record", || {
        let calls = vaxel.json(&["calls", "--service", "silent"]);
        calls
            .as_array()
            .unwrap()
            .iter()
            .any(|call| call["outcome"] == "timeout")
    });
}

#[test]
fn a_server_that_closes_its_output_ends_its_calls_at_once() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    start(&vaxel, "mute", "os.close(1)\ntime.sleep(1000)");
    let ended = vaxel.cli(&["call", "mute__do", "--timeout", "50s"]);
    assert!(text(&ended).contains("standard output"), "{}", text(&ended));
    wait_for("it to be replaced", || {
        let service = vaxel.json(&["service", "show", "mute"]);
        service["status"]["lifecycle"] == "active"
            && service["status"]["instances"][0]["restarts"].as_u64() > Some(0)
    });
}

#[test]
fn questions_of_a_server_get_a_correct_refusal() {
    let vaxel = TestVaxel::start();
    let ask = "say({'jsonrpc': '2.0', 'id': 'q', 'method': 'sampling/createMessage', 'params': {}})\nreply = json.loads(sys.stdin.readline())\ntext(str(reply['error']['code']))";
    start(&vaxel, "asks", ask);
    assert_eq!(vaxel.ok(&["call", "asks__do"]).trim(), "-32601");
    let ping = "say({'jsonrpc': '2.0', 'id': 'p', 'method': 'ping'})\nreply = json.loads(sys.stdin.readline())\ntext(json.dumps(reply['result']))";
    start(&vaxel, "pings", ping);
    assert_eq!(vaxel.ok(&["call", "pings__do"]).trim(), "{}");
}

#[test]
fn a_crash_loop_is_named_with_the_last_words_and_harms_nobody() {
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let file = vaxel.home.path().join("dies.py");
    fs::write(&file, "import sys\nsys.exit('no license found')\n").unwrap();
    let path = file.display().to_string();
    vaxel.ok(&[
        "service",
        "add",
        "dies",
        "--no-wait",
        "--",
        "python3",
        &path,
    ]);
    let mut service = Value::Null;
    wait_for("the crash loop to be seen", || {
        service = vaxel.json(&["service", "show", "dies"]);
        service["status"]["lifecycle"] == "error"
            && service["status"]["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("no license found"))
    });
    assert_eq!(
        vaxel
            .ok(&["call", "demo__echo", "--arg", "message=well"])
            .trim(),
        "well"
    );
    let refused = vaxel.cli(&["call", "dies__do"]);
    assert!(!refused.status.success());
}

#[test]
fn unknown_fields_and_exact_numbers_pass_through() {
    let vaxel = TestVaxel::start();
    start(
        &vaxel,
        "mirror",
        "line = line.strip()\nanswer({'content': [{'type': 'text', 'text': line}], 'vendor': {'n': 1}})",
    );
    let json = r#"{"a":1.0,"b":12345678901234567890,"c":"\u00e9"}"#;
    let body = vaxel.ok(&["call", "mirror__do", "--raw", "--json", json]);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["result"]["vendor"]["n"], 1);
    let seen = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(
        seen.contains("1.0") && seen.contains("12345678901234567890"),
        "{seen}"
    );
}
