//! What becomes of calls that hang when Vaxel is stopped politely.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::{
    doors::Raw,
    harness::{TestVaxel, marked, wait_for},
};

/// What a client reads of a call that hangs when Vaxel is told to stop.
fn left_hanging(vaxel: &TestVaxel, session: Option<&str>, name: &str) -> String {
    let raw = Raw::of(vaxel);
    let mut params = json!({"name": name, "arguments": {}});
    let mut headers = vec![];
    if let Some(session) = session {
        headers.push(("mcp-session-id", session));
    } else {
        headers.extend([
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", name),
        ]);
        params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {}});
    }
    let call =
        json!({"jsonrpc": "2.0", "id": "the call", "method": "tools/call", "params": params});
    let mut stream = raw.open("POST", "/mcp", &headers, &call.to_string());
    let begun = vaxel.home.path().join("begun");
    wait_for("the call to reach its server", || begun.exists());
    vaxel.ok(&["down"]);
    let mut text = String::new();
    // A connection that is cut is what must not be.
    let _ = stream.read_to_string(&mut text);
    text
}

const HANGS: &str = r#"
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
def answer(message):
    method = message.get("method")
    if method == "initialize":
        return {"protocolVersion": "2025-11-25", "serverInfo": {"name": "hangs", "version": "1"},
                "capabilities": {"tools": {}}}
    if method == "tools/list":
        return {"tools": [{"name": "do", "inputSchema": {"type": "object"}}]}
    if method == "tools/call":
        open(sys.argv[1], "w").close()
        time.sleep(1000)
    return {}
def reply(message):
    return json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)})
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        known = message.get("method") != "server/discover"
        body = reply(message).encode() if known and message.get("id") is not None else b""
        self.send_response(400 if not known else 200 if body else 202)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.send_error(405)
    do_DELETE = do_GET
    def log_message(self, *all):
        pass
if len(sys.argv) > 2:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
for line in sys.stdin:
    message = json.loads(line)
    if message.get("id") is not None:
        print(reply(message), flush=True)
"#;

/// A process of its own; killed when it is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that hangs, over HTTP, and its port.
fn hangs_over_http(vaxel: &TestVaxel, file: &str, begun: &str) -> (Server, String) {
    let mut server = Command::new("python3")
        .args([file, begun, "http"])
        .current_dir(vaxel.home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let mut out = BufReader::new(server.stdout.take().unwrap());
    out.read_line(&mut port).unwrap();
    (Server(server), port.trim().to_owned())
}

#[test]
fn a_call_that_hangs_when_vaxel_stops_ends_with_a_clear_error_and_leaves_nothing() {
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), "[server]\nshutdown_grace = \"2s\"\n").unwrap();
    let config = config.path().display().to_string();
    for (over_http, legacy) in [(false, false), (false, true), (true, false), (true, true)] {
        let vaxel = TestVaxel::start_with(&["--config", &config]);
        let file = vaxel.home.path().join("hangs.py");
        fs::write(&file, HANGS).unwrap();
        let file = file.display().to_string();
        let begun = vaxel.home.path().join("begun").display().to_string();
        let mut server = None;
        if over_http {
            let (running, port) = hangs_over_http(&vaxel, &file, &begun);
            let url = format!("http://127.0.0.1:{port}/mcp");
            vaxel.ok(&["service", "add", "hangs", "--url", &url]);
            server = Some(running);
        } else {
            vaxel.add("hangs", &["python3", &file, &begun]);
        }
        let session = legacy.then(|| Raw::of(&vaxel).session("2025-11-25").0);
        let told = left_hanging(&vaxel, session.as_deref(), "hangs__do");
        let is_clear = told.contains("\"the call\"") && told.contains("stopped");
        assert!(is_clear, "over HTTP {over_http}, legacy {legacy}: {told}");
        drop(server);
        wait_for("every child to end", || marked(&file).is_empty());
    }
}
