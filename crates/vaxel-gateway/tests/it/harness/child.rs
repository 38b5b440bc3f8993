//! Scripted MCP servers over stdio: small programs whose `tools/call` does what a test says.

use std::{path::Path, process::Stdio, sync::Arc};

use parking_lot::Mutex;
use tokio::process::{Child, Command};
use vaxel_gateway::Transport;

/// A program to be.
pub(crate) struct Script {
    modern: bool,
    call: String,
    /// Its capabilities, a Python dictionary.
    offers: String,
    /// Run before anything is read.
    first: String,
    /// What the gateway found on standard output that was no protocol.
    pub(crate) garbage: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Speaks 2026-07-28 only; `call` is the Python that answers `tools/call`.
    pub(crate) fn modern(call: &str) -> Self {
        Self {
            modern: true,
            call: call.to_owned(),
            offers: "{\"tools\": {}, \"logging\": {}}".to_owned(),
            first: String::new(),
            garbage: Arc::default(),
        }
    }

    /// Speaks 2025-11-25 only.
    pub(crate) fn legacy(call: &str) -> Self {
        Self {
            modern: false,
            call: call.to_owned(),
            offers: "{\"tools\": {}, \"logging\": {}}".to_owned(),
            first: String::new(),
            garbage: Arc::default(),
        }
    }

    /// Declares these capabilities, JSON, and offers the resource `note://one`.
    pub(crate) fn offering(mut self, capabilities: &str) -> Self {
        self.offers = format!("{{\"tools\": {{}}, **json.loads('{capabilities}')}}");
        self
    }

    /// Does this before it reads anything.
    pub(crate) fn broken(first: &str) -> Self {
        Self {
            first: first.to_owned(),
            ..Self::legacy("pass")
        }
    }

    /// Says back the raw line that it was told.
    pub(crate) const ECHO: &str = "text(line.strip())";

    pub(super) fn start(&self, folder: &Path, name: &str) -> (Child, Transport) {
        let file = folder.join(format!("{name}.py"));
        let program = SERVER
            .replace(
                "SEEN",
                &format!("\"{}\"", folder.join(format!("{name}.seen")).display()),
            )
            .replace("MODERN", if self.modern { "True" } else { "False" })
            .replace("FIRST", &self.first)
            .replace("OFFERS", &self.offers)
            .replace("CALL", &self.call.replace('\n', "\n        "));
        std::fs::write(&file, program).unwrap();
        let mut child = Command::new("python3")
            .arg("-u")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let garbage = Arc::clone(&self.garbage);
        let transport = Transport::Stdio {
            stdin: child.stdin.take().unwrap(),
            stdout: child.stdout.take().unwrap(),
            garbage: Arc::new(move |text: &str| garbage.lock().push(text.to_owned())),
        };
        (child, transport)
    }
}

const SERVER: &str = r#"
import json, os, sys, time
seen = open(SEEN, "a", buffering=1)
held = []
FIRST
def say(message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
def note(method, **params):
    say({"jsonrpc": "2.0", "method": method, "params": params})
def hear():
    line = sys.stdin.readline()
    seen.write(line)
    return json.loads(line)
while True:
    line = sys.stdin.readline()
    if not line:
        break
    seen.write(line)
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if id is None or method is None:
        continue
    params = message.get("params", {})
    meta = params.get("_meta", {})
    token = meta.get("progressToken")
    def answer(result, id=id):
        if MODERN:
            result.setdefault("resultType", "complete")
        say({"jsonrpc": "2.0", "id": id, "result": result})
    def text(value, id=id):
        answer({"content": [{"type": "text", "text": value}], "vendor": {"field": 12},
                "_meta": {"com.example/kept": "yes"}}, id)
    def refuse(code, words):
        say({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": words}})
    if method == "initialize" and not MODERN:
        answer({"protocolVersion": "2025-11-25", "capabilities": OFFERS,
                "serverInfo": {"name": "child", "version": "1"}})
    elif method == "server/discover" and MODERN:
        answer({"supportedVersions": ["2026-07-28"], "capabilities": OFFERS,
                "ttlMs": 0, "cacheScope": "private",
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "child", "version": "1"}}})
    elif method == "tools/list":
        answer({"tools": [
            {"name": "echo", "inputSchema": {"type": "object"}, "vendor": {"kept": 1.0}},
            {"name": "other", "inputSchema": {"type": "object"}}], "ttlMs": 0, "cacheScope": "private"})
    elif method == "resources/list":
        answer({"resources": [{"uri": "note://one", "name": "one"}], "ttlMs": 0, "cacheScope": "private"})
    elif method == "resources/templates/list":
        answer({"resourceTemplates": [], "ttlMs": 0, "cacheScope": "private"})
    elif method in ("resources/subscribe", "resources/unsubscribe") and not MODERN:
        answer({})
    elif method == "subscriptions/listen" and MODERN:
        note("notifications/subscriptions/acknowledged", notifications=params["notifications"])
    elif method == "ping":
        answer({})
    elif method == "tools/call":
        CALL
    else:
        refuse(-32601, "Method not found")
"#;
