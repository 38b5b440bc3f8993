//! A client over standard input and output that listens for a task (SEP-2663) of a server on pipes.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::TestVaxel;

/// Begins a task, and says how it stands when it is called again.
const SERVER: &str = r#"
import json, sys
def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if id is None:
        continue
    lasting = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    task = {"taskId": "own", "status": "working", "ttlMs": None,
            "createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:00Z"}
    if method == "server/discover":
        tasks = {"io.modelcontextprotocol/tasks": {}}
        say({"id": id, "result": {**lasting, "supportedVersions": ["2026-07-28"],
             "capabilities": {"tools": {}, "extensions": tasks}}})
    elif method == "tools/list":
        say({"id": id, "result": {**lasting, "tools": [
            {"name": name, "inputSchema": {"type": "object"}} for name in ("begin", "end")]}})
    elif method == "subscriptions/listen":
        say({"method": "notifications/subscriptions/acknowledged", "params": {
            "notifications": params["notifications"],
            "_meta": {"io.modelcontextprotocol/subscriptionId": id}}})
    elif method == "tools/call" and params["name"] == "begin":
        say({"id": id, "result": {"resultType": "task", **task}})
    elif method == "tools/call":
        say({"method": "notifications/tasks", "params": {**task, "status": "cancelled"}})
        say({"id": id, "result": {"resultType": "complete", "content": []}})
    else:
        say({"id": id, "error": {"code": -32601, "message": "unknown"}})
"#;

/// `vaxel stdio`, and what it says.
struct Bridge {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Bridge {
    fn open(vaxel: &TestVaxel) -> Self {
        let mut command = vaxel.command(&["stdio"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        #[expect(clippy::disallowed_methods, reason = "it ends with the program")]
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input,
            lines,
        }
    }

    fn say(&mut self, id: u64, method: &str, mut params: Value) {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities":
                {"extensions": {"io.modelcontextprotocol/tasks": {}}},
        });
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(self.input, "{message}").unwrap();
    }

    fn hear(&self) -> Value {
        let line = self.lines.recv_timeout(Duration::from_secs(30)).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_stdio_client_hears_how_a_task_of_a_stdio_server_stands() {
    let vaxel = TestVaxel::start();
    let server = vaxel.home.path().join("server.py");
    fs::write(&server, SERVER).unwrap();
    vaxel.add("up", &["python3", server.to_str().unwrap()]);
    let mut client = Bridge::open(&vaxel);
    client.say(
        1,
        "tools/call",
        json!({"name": "up__begin", "arguments": {}}),
    );
    let begun = client.hear();
    let id = &begun["result"]["taskId"];
    assert!(id.is_string() && id != "own", "{begun}");
    let wanted = json!({"taskIds": [id]});
    client.say(2, "subscriptions/listen", json!({"notifications": wanted}));
    let agreed = client.hear();
    assert_eq!(agreed["params"]["notifications"], wanted, "{agreed}");
    client.say(3, "tools/call", json!({"name": "up__end", "arguments": {}}));
    let heard = [client.hear(), client.hear()];
    let word = heard
        .iter()
        .find(|one| one["method"] == "notifications/tasks");
    let word = &word.unwrap_or_else(|| panic!("{heard:?}"))["params"];
    assert_eq!(
        [&word["taskId"], &word["status"]],
        [id, &json!("cancelled")]
    );
    assert_eq!(word["_meta"]["io.modelcontextprotocol/subscriptionId"], 2);
}
