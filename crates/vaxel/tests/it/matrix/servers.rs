//! The servers of the matrix, and how each does what the clients look for.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    fixture::Fixture,
    harness::{TestVaxel, free_port, repository, wait_for},
};

/// One column of the table.
pub(super) struct Server {
    /// The name of its service; empty for the endpoint of all services.
    pub(super) name: &'static str,
    /// The head of its column.
    pub(super) title: &'static str,
    /// What it is, for the page.
    pub(super) about: &'static str,
    /// What a client has to do for each thing that the server offers.
    pub(super) things: Value,
    /// The servers that nobody else may use meanwhile, in rising order.
    pub(super) seats: Vec<usize>,
}

/// What has to stay until the test ends.
pub(super) struct Running {
    _programs: Vec<Program>,
    _fixture: Fixture,
}

/// A program of others that serves HTTP; ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What Vaxel has to find out about each, so that the columns are what their heads say.
const ERAS: &[(&str, &str)] = &[
    ("everything", "legacy"),
    ("streamable", "legacy"),
    ("sse", "legacy"),
    ("oldest", "legacy"),
    ("pinned", "legacy"),
    ("both", "modern"),
    ("fast", "modern"),
    ("modern", "modern"),
];

/// Starts every server and adds it to Vaxel.
pub(super) fn start(vaxel: &TestVaxel, tools: &Path) -> (Vec<Server>, Running) {
    let package = |name: &str| {
        let folder = format!("npm/node_modules/@modelcontextprotocol/{name}/dist/index.js");
        tools.join(folder).display().to_string()
    };
    let own = |name: &str| {
        let file = repository("tests/peers/servers").join(name);
        file.display().to_string()
    };
    let bin = |name: &str| tools.join("py/bin").join(name).display().to_string();
    let everything = package("server-everything");
    let python = bin("python");
    let fixture = Fixture::start("modern");
    let (streamable, streamable_at) = serve("node", &[&everything, "streamableHttp"]);
    let (sse, sse_at) = serve("node", &[&everything, "sse"]);
    let (oldest, oldest_at) = serve(&python, &[&own("oldest.py")]);
    let (fast, fast_at) = serve(&python, &[&own("fast.py")]);
    vaxel.add("everything", &["node", &everything, "stdio"]);
    vaxel.add("both", &[&python, &own("both.py")]);
    let pinned = ["service", "add", "pinned", "--era", "legacy", "--"];
    vaxel.ok(&[&pinned[..], &[&python, &own("both.py")]].concat());
    for (name, url) in [
        ("streamable", format!("{streamable_at}/mcp")),
        ("sse", format!("{sse_at}/sse")),
        ("modern", fixture.url.clone()),
        ("oldest", format!("{oldest_at}/sse")),
        ("fast", format!("{fast_at}/mcp")),
    ] {
        vaxel.ok(&["service", "add", name, "--url", &url]);
    }
    let (files, repo) = folders(vaxel);
    vaxel.add("files", &["node", &package("server-filesystem"), &files]);
    vaxel.add("memory", &["node", &package("server-memory")]);
    vaxel.add("time", &[&bin("mcp-server-time")]);
    vaxel.add("git", &[&bin("mcp-server-git"), "--repository", &repo]);
    for (name, era) in ERAS {
        let service = vaxel.json(&["service", "show", name]);
        assert_eq!(service["status"]["era"], *era, "{name}");
    }
    let running = Running {
        _programs: vec![streamable, sse, oldest, fast],
        _fixture: fixture,
    };
    (all(&files, &repo), running)
}

/// Starts a program that serves HTTP at the port in `PORT`, and waits until it listens.
fn serve(program: &str, args: &[&str]) -> (Program, String) {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let child = Command::new(program)
        .args(args)
        .env("PORT", address.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let program = Program(child);
    wait_for("an HTTP server to listen", || {
        TcpStream::connect(address).is_ok()
    });
    (program, format!("http://{address}"))
}

/// A folder with a file, and an empty git repository.
fn folders(vaxel: &TestVaxel) -> (String, String) {
    let files = vaxel.home.path().join("files");
    std::fs::create_dir_all(&files).unwrap();
    std::fs::write(files.join("a.txt"), "file content").unwrap();
    let repo = vaxel.home.path().join("repo").display().to_string();
    let made = Command::new("git").args(["init", "-q", &repo]).status();
    assert!(made.unwrap().success());
    (files.display().to_string(), repo)
}

fn all(files: &str, repo: &str) -> Vec<Server> {
    let mut servers = vec![
        server(
            "everything",
            "everything, stdio",
            "`server-everything` 2026.8.31 over stdio, 2025-11-25",
            everything(),
        ),
        server(
            "streamable",
            "everything, HTTP",
            "`server-everything` 2026.8.31 over Streamable HTTP, 2025-11-25",
            everything(),
        ),
        server(
            "sse",
            "everything, HTTP+SSE",
            "`server-everything` 2026.8.31 over the HTTP+SSE transport of 2024-11-05",
            everything(),
        ),
        server(
            "oldest",
            "2024-11-05",
            "a server without an SDK that speaks 2024-11-05 alone, over HTTP+SSE",
            oldest(),
        ),
        server(
            "pinned",
            "both eras, held to legacy",
            "a server on the Python SDK 2.3 that speaks both eras over stdio, with `era: legacy`",
            both(),
        ),
        server(
            "both",
            "both eras",
            "the same server as Vaxel finds it: 2026-07-28",
            both(),
        ),
        server(
            "fast",
            "fastmcp",
            "a server on fastmcp 4.1 over Streamable HTTP: both eras, found as 2026-07-28",
            fast(),
        ),
        server(
            "modern",
            "modern only",
            "a server on the Rust SDK 3.9 that refuses all but 2026-07-28, over Streamable HTTP",
            modern(),
        ),
    ];
    for (number, server) in servers.iter_mut().enumerate() {
        server.seats = vec![number];
    }
    let others = (0..servers.len()).collect();
    servers.push(Server {
        seats: others,
        ..server(
            "",
            "all at once",
            "the endpoint of all services: these, `server-filesystem` and `-memory` 2026.8.31, \
             `mcp-server-time` and `-git` 2026.10.19, and the built-in demo",
            together(files, repo),
        )
    });
    servers
}

fn server(name: &'static str, title: &'static str, about: &'static str, things: Value) -> Server {
    Server {
        name,
        title,
        about,
        things,
        seats: Vec::new(),
    }
}

fn everything() -> Value {
    json!({
        "tool": {"calls": [{"tool": "echo", "arguments": {"message": "hej"}, "expect": "hej"}]},
        "resource": {"uri": "demo://resource/static/document/features.md", "expect": "Everything"},
        "prompt": {"name": "args-prompt", "arguments": {"city": "Oslo"}, "expect": "Oslo"},
        "completion": {"ref": {"type": "ref/prompt", "name": "completable-prompt"},
                       "argument": {"name": "department", "value": "Eng"}, "expect": "Engineering"},
        "error": {"tool": "echo", "fails": true, "expect": "message"},
        "form": {"tool": "trigger-elicitation-request", "expect": "Ada"},
        "sampling": {"tool": "trigger-sampling-request", "arguments": {"prompt": "how high?"},
                     "expect": "how high?"},
        "progress": {"tool": "trigger-long-running-operation",
                     "arguments": {"duration": 0.8, "steps": 4}, "expect": "completed"},
        "log": {"tool": "toggle-simulated-logging", "until": "Started", "expect": "essage"},
        "list": {"kind": "resources", "tool": "gzip-file-as-resource",
                 "arguments": {"name": "CLIENT.gz", "data": "data:text/plain,hej"}},
        "update": {"uri": "demo://resource/static/document/features.md",
                   "tool": "toggle-subscriber-updates", "until": "Started"},
        "cancel": {"tool": "trigger-long-running-operation",
                   "arguments": {"duration": 20, "steps": 200}},
    })
}

fn oldest() -> Value {
    let mut things = both();
    let things_of = things.as_object_mut().unwrap();
    things_of.remove("form");
    things["resource"]["uri"] = "oldest://greeting".into();
    things["update"]["uri"] = "oldest://watched".into();
    things
}

fn both() -> Value {
    json!({
        "tool": {"calls": [{"tool": "echo", "arguments": {"message": "hej"}, "expect": "hej"}]},
        "resource": {"uri": "both://greeting", "expect": "content of"},
        "prompt": {"name": "review", "arguments": {"topic": "lifts"}, "expect": "lifts"},
        "completion": {"ref": {"type": "ref/prompt", "name": "review"},
                       "argument": {"name": "topic", "value": "li"}, "expect": "lifts lights"},
        "error": {"tool": "fail", "fails": true, "expect": "on purpose"},
        "form": {"tool": "ask_name", "expect": "hello Ada"},
        "sampling": {"tool": "ask_model", "expect": "the model: you said: how high?"},
        "progress": {"tool": "steps", "expect": "done"},
        "log": {"tool": "log", "expect": "logged on purpose"},
        "list": {"kind": "tools", "tool": "change"},
        "update": {"uri": "both://watched", "tool": "touch"},
        "cancel": {"tool": "wait", "witness": "cancelled"},
    })
}

fn fast() -> Value {
    json!({
        "tool": {"calls": [
            {"tool": "add", "arguments": {"a": 2, "b": 40}, "expect": "42"},
            {"tool": "point", "arguments": {"x": 3, "y": 4}, "expect": "5"},
        ]},
        "resource": {"uri": "fast://greeting", "expect": "hello from fast"},
        "prompt": {"name": "review", "arguments": {"topic": "lifts"}, "expect": "lifts"},
        "error": {"tool": "fail", "fails": true, "expect": "on purpose"},
        "form": {"tool": "greet", "expect": "hello Ada, asked for the name"},
        "progress": {"tool": "slow", "arguments": {"steps": 4, "pause_ms": 200}, "expect": "done"},
        "log": {"tool": "log", "expect": "logged on purpose"},
        "cancel": {"tool": "wait", "witness": "cancelled"},
    })
}

fn modern() -> Value {
    json!({
        "tool": {"calls": [{"tool": "test_simple_text", "expect": "simple text"}]},
        "resource": {"uri": "test://static-text", "expect": "static text"},
        "prompt": {"name": "test_prompt_with_arguments",
                   "arguments": {"arg1": "lifts", "arg2": "doors"}, "expect": "lifts"},
        "completion": {"ref": {"type": "ref/prompt", "name": "test_prompt_with_arguments"},
                       "argument": {"name": "arg1", "value": "par"}, "expect": "paris"},
        "error": {"tool": "test_error_handling", "fails": true, "expect": "intentionally"},
        "form": {"tool": "test_input_required_result_elicitation", "expect": "Hello, Ada!"},
        "sampling": {"tool": "test_input_required_result_sampling",
                     "expect": "The model says: you said:"},
        "progress": {"tool": "test_tool_with_progress", "expect": "successfully"},
        "log": {"tool": "test_logging_tool", "expect": "Here is the message"},
        "list": {"kind": "tools", "tool": "test_trigger_tool_change"},
        "update": {"uri": "test://watched-resource", "tool": "test_trigger_resource_change"},
        "cancel": {"tool": "test_wait", "witness": "test_cancelled"},
    })
}

/// Some of each, under the names that the endpoint of all services gives them.
fn together(files: &str, repo: &str) -> Value {
    let file = format!("{files}/a.txt");
    json!({
        "tool": {"calls": [
            {"tool": "everything__echo", "arguments": {"message": "hej"}, "expect": "hej"},
            {"tool": "files__read_text_file", "arguments": {"path": file}, "expect": "file content"},
            {"tool": "memory__read_graph", "expect": "entities"},
            {"tool": "time__get_current_time", "arguments": {"timezone": "UTC"}, "expect": "UTC"},
            {"tool": "git__git_status", "arguments": {"repo_path": repo}, "expect": "branch"},
            {"tool": "demo__echo", "arguments": {"message": "inside"}, "expect": "inside"},
        ]},
        "resource": {"uri": "fast://greeting", "expect": "hello from fast"},
        "prompt": {"name": "fast__review", "arguments": {"topic": "lifts"}, "expect": "lifts"},
        "completion": {"ref": {"type": "ref/prompt", "name": "everything__completable-prompt"},
                       "argument": {"name": "department", "value": "Eng"}, "expect": "Engineering"},
        "error": {"tool": "fast__fail", "fails": true, "expect": "on purpose"},
        "form": {"tool": "fast__greet", "expect": "hello Ada, asked for the name"},
        "sampling": {"tool": "everything__trigger-sampling-request",
                     "arguments": {"prompt": "how high?"}, "expect": "how high?"},
        "progress": {"tool": "streamable__trigger-long-running-operation",
                     "arguments": {"duration": 0.8, "steps": 4}, "expect": "completed"},
        "log": {"tool": "modern__test_logging_tool", "expect": "Here is the message"},
        "list": {"kind": "tools", "tool": "modern__test_trigger_tool_change"},
        "update": {"uri": "test://watched-resource",
                   "tool": "modern__test_trigger_resource_change"},
        "cancel": {"tool": "both__wait", "witness": "both__cancelled"},
    })
}
