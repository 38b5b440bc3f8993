//! Real clients of others, through Vaxel, to real servers of others.

use std::process::Command;

use rmcp::{
    model::{CallToolRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, serve_client_with_lifecycle},
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};

use crate::harness::{TestVaxel, plan, repository, text, tools, wait_for};

#[test]
fn every_client_calls_tools_of_every_server() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start_with(&["--demo"]);
    let files = vaxel.home.path().join("files");
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("a.txt"), "file content").unwrap();
    let repo = git_repository(&vaxel);
    let node = |package: &str| {
        let file = tools.join(format!(
            "npm/node_modules/@modelcontextprotocol/{package}/dist/index.js"
        ));
        file.display().to_string()
    };
    let python = |name: &str| tools.join("py/bin").join(name).display().to_string();
    let folder = files.display().to_string();
    let fast = repository("tests/peers/servers/fast.py")
        .display()
        .to_string();
    vaxel.add("everything", &["node", &node("server-everything"), "stdio"]);
    vaxel.add("files", &["node", &node("server-filesystem"), &folder]);
    vaxel.add("memory", &["node", &node("server-memory")]);
    vaxel.add("time", &[&python("mcp-server-time")]);
    vaxel.add("git", &[&python("mcp-server-git"), "--repository", &repo]);
    vaxel.add("fast", &[&python("python"), &fast]);
    let file = files.join("a.txt").display().to_string();
    let calls = json!([
        {"tool": "everything__echo", "arguments": {"message": "hej"}, "expect_contains": "hej"},
        {"tool": "everything__trigger-long-running-operation",
         "arguments": {"duration": 0.4, "steps": 2}, "progress": true, "expect_contains": "completed"},
        {"tool": "files__read_text_file", "arguments": {"path": file}, "expect_contains": "file content"},
        {"tool": "memory__read_graph", "arguments": {}, "expect_contains": "entities"},
        {"tool": "time__get_current_time", "arguments": {"timezone": "UTC"}, "expect_contains": "UTC"},
        {"tool": "git__git_status", "arguments": {"repo_path": repo}, "expect_contains": "branch"},
        {"tool": "fast__add", "arguments": {"a": 2, "b": 40}, "expect_contains": "42"},
        {"tool": "fast__fail", "arguments": {}, "expect_error": true, "expect_contains": "on purpose"},
        {"tool": "demo__echo", "arguments": {"message": "inside"}, "expect_contains": "inside"},
    ]);
    let mut plan = plan(&vaxel, &calls);
    plan["reads"] = json!([
        {"uri": "fast://greeting", "expect_contains": "hello from fast"},
        {"uri": "fast://square/12", "expect_contains": "144"},
    ]);
    plan["prompts"] = json!([
        {"name": "fast__review", "arguments": {"topic": "lifts"}, "expect_contains": "lifts"},
    ]);
    for client in clients(&interactive(&plan), &vaxel) {
        client.run(&tools);
    }
    for lifecycle in [rmcp_legacy(), rmcp_modern()] {
        rmcp_calls(&plan, lifecycle);
    }
    let records = vaxel.json(&["calls", "--service", "fast", "--outcome", "tool_error"]);
    assert!(
        !records.as_array().unwrap().is_empty(),
        "failed calls leave records"
    );
}

/// A program of others that serves HTTP on a free port; ended with the test.
struct HttpServer {
    child: std::process::Child,
    url: String,
}

impl HttpServer {
    fn start(program: &std::path::Path, args: &[&str]) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new(program)
            .args(args)
            .env("PORT", address.port().to_string())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_for("an HTTP server to listen", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        Self {
            child,
            url: format!("http://{address}/mcp"),
        }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn remote_servers_of_both_eras_are_reached_and_a_forgotten_session_is_opened_again() {
    let Some(tools) = tools() else { return };
    let vaxel = TestVaxel::start();
    let python = tools.join("py/bin/python");
    let fast = repository("tests/peers/servers/fast.py")
        .display()
        .to_string();
    let modern = HttpServer::start(&python, &[&fast]);
    vaxel.ok(&["service", "add", "fast", "--url", &modern.url]);
    let script =
        tools.join("npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    let script = script.display().to_string();
    let legacy = HttpServer::start("node".as_ref(), &[&script, "streamableHttp"]);
    vaxel.ok(&["service", "add", "everything", "--url", &legacy.url]);
    let oldest = HttpServer::start("node".as_ref(), &[&script, "sse"]);
    let stream = oldest.url.replace("/mcp", "/sse");
    vaxel.ok(&["service", "add", "oldest", "--url", &stream]);
    let era = |name: &str| {
        let service = vaxel.json(&["service", "show", name]);
        service["status"]["era"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (era("fast").as_str(), era("everything").as_str()),
        ("modern", "legacy")
    );
    let calls = json!([
        {"tool": "fast__add", "arguments": {"a": 2, "b": 40}, "expect_contains": "42"},
        {"tool": "fast__slow", "arguments": {"steps": 2}, "progress": true, "expect_contains": "done"},
        {"tool": "everything__echo", "arguments": {"message": "hej"}, "expect_contains": "hej"},
        {"tool": "everything__trigger-long-running-operation",
         "arguments": {"duration": 0.4, "steps": 2}, "progress": true, "expect_contains": "completed"},
        {"tool": "oldest__echo", "arguments": {"message": "hej"}, "expect_contains": "hej"},
        {"tool": "oldest__trigger-long-running-operation",
         "arguments": {"duration": 0.4, "steps": 2}, "progress": true, "expect_contains": "completed"},
    ]);
    let plan = plan(&vaxel, &calls);
    for client in clients(&interactive(&plan), &vaxel) {
        client.run(&tools);
    }
    // The same address, and no memory of any session.
    let port = legacy
        .url
        .rsplit(':')
        .next()
        .unwrap()
        .trim_end_matches("/mcp")
        .to_owned();
    drop(legacy);
    let again = Command::new("node")
        .args([&script, "streamableHttp"])
        .env("PORT", &port)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _again = HttpServer {
        child: again,
        url: String::new(),
    };
    wait_for("the server to know us again", || {
        vaxel
            .cli(&["call", "everything__echo", "--arg", "message=x"])
            .status
            .success()
    });
}

/// The plan with calls in which servers ask their clients: a legacy one by requests, a modern one by
/// its result.
fn interactive(plan: &Value) -> Value {
    let asking = json!([
        {"tool": "everything__trigger-elicitation-request", "expect_contains": "Ada"},
        {"tool": "everything__trigger-sampling-request", "arguments": {"prompt": "how high?"},
         "expect_contains": "you said: Resource trigger-sampling-request context: how high?"},
        {"tool": "fast__greet", "expect_contains": "hello Ada, asked for the name"},
    ]);
    let mut plan = plan.clone();
    let calls = plan["calls"].as_array_mut().unwrap();
    calls.extend(asking.as_array().unwrap().iter().cloned());
    plan
}

fn rmcp_legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

fn rmcp_modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
    }
}

/// The Rust SDK makes the same calls, in this process.
fn rmcp_calls(plan: &Value, lifecycle: ClientLifecycleMode) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = plan["url"].as_str().unwrap().to_owned();
        let key = plan["key"].as_str().unwrap().to_owned();
        let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(key);
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = serve_client_with_lifecycle((), transport, lifecycle)
            .await
            .unwrap();
        let tools = client.list_all_tools().await.unwrap();
        for call in plan["calls"].as_array().unwrap() {
            let name = call["tool"].as_str().unwrap().to_owned();
            assert!(
                tools.iter().any(|tool| tool.name == name),
                "{name} is not listed"
            );
            let arguments = call["arguments"].as_object().unwrap().clone();
            let request = CallToolRequestParams::new(name.clone()).with_arguments(arguments);
            let answer = client.call_tool(request).await.unwrap();
            assert_eq!(
                answer.is_error == Some(true),
                call["expect_error"] == true,
                "{name}"
            );
            let said = serde_json::to_string(&answer).unwrap();
            assert!(
                said.contains(call["expect_contains"].as_str().unwrap()),
                "{name}: {said}"
            );
        }
        client.cancel().await.unwrap();
    });
}

struct Client {
    program: &'static str,
    file: &'static str,
    request: Value,
    protocol: &'static str,
}

fn clients(plan: &Value, vaxel: &TestVaxel) -> Vec<Client> {
    const LEGACY: &str = "2025-11-25";
    const MODERN: &str = "2026-07-28";
    let era = |era: &str| {
        let mut request = plan.clone();
        request["era"] = era.into();
        request
    };
    let over_stdio = |era: &str| {
        let mut request = plan.clone();
        request["url"].take();
        request["command"] = env!("CARGO_BIN_EXE_vaxel").into();
        request["args"] = json!(["stdio"]);
        request["env"] = json!({"HOME": vaxel.home.path().display().to_string()});
        request["era"] = era.into();
        request
    };
    let mut over_sse = plan.clone();
    let base = plan["url"].as_str().unwrap().replace("/mcp", "/sse");
    over_sse["url"] = base.into();
    over_sse["transport"] = "sse".into();
    let client = |program, file, request, protocol| Client {
        program,
        file,
        request,
        protocol,
    };
    vec![
        client("node", "ts-v1.mjs", plan.clone(), LEGACY),
        client("node", "ts-v1.mjs", over_sse, LEGACY),
        client("node", "ts-v1.mjs", over_stdio("legacy"), LEGACY),
        client("node", "ts-v2.mjs", era("legacy"), LEGACY),
        client("node", "ts-v2.mjs", era("auto"), MODERN),
        client("node", "ts-v2.mjs", era("modern"), MODERN),
        client("python", "py.py", era("legacy"), LEGACY),
        client("python", "py.py", era("modern"), MODERN),
        client("python", "py.py", over_stdio("modern"), MODERN),
    ]
}

impl Client {
    fn run(&self, tools: &std::path::Path) {
        let program = match self.program {
            "python" => tools.join("py/bin/python"),
            other => other.into(),
        };
        let output = Command::new(program)
            .arg(repository("tests/peers/clients").join(self.file))
            .arg(self.request.to_string())
            .env("VAXEL_TEST_TOOLS", tools)
            .output()
            .unwrap();
        let said = text(&output);
        assert!(
            output.status.success(),
            "{} {}:\n{said}",
            self.file,
            self.request["era"]
        );
        assert!(
            said.contains(self.protocol),
            "{} speaks another revision:\n{said}",
            self.file
        );
    }
}

fn git_repository(vaxel: &TestVaxel) -> String {
    let repo = vaxel.home.path().join("repo").display().to_string();
    let made = Command::new("git")
        .args(["init", "-q", &repo])
        .status()
        .unwrap();
    assert!(made.success());
    repo
}
