//! The clients of the matrix: programs of others, and the Rust SDK in this process.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{TestVaxel, repository, tools};

use super::{Cell, Outcome, THINGS, gaps, rust_sdk, servers::Server};

/// How long a thing that works may take, in milliseconds.
const PATIENCE: u64 = 30_000;
/// How long it takes to say that what never works did not work this time.
const KNOWN_TO_FAIL: u64 = 500;

/// The one client that is not written in JavaScript.
const PYTHON: &str = "py.py";

/// How a client reaches Vaxel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Http,
    /// HTTP+SSE of 2024-11-05.
    Sse,
    /// `vaxel stdio`.
    Stdio,
    WebSocket,
}

/// One row of the table.
pub(super) struct Client {
    /// The head of its row.
    pub(super) title: &'static str,
    /// A file of `tests/peers/clients`, or nothing for the Rust SDK.
    file: Option<&'static str>,
    way: Way,
    era: &'static str,
    /// The revision that it has to end up with; empty where a client does not say.
    pub(super) revision: &'static str,
}

/// What a client said about one server.
pub(super) struct Report {
    pub(super) cell: Cell,
    /// The revision that it spoke.
    pub(super) revision: String,
    /// Why it could not even connect.
    pub(super) failure: Option<String>,
}

pub(super) fn all() -> Vec<Client> {
    const LEGACY: &str = "2025-11-25";
    const MODERN: &str = "2026-07-28";
    let client = |title, file, way, era, revision| Client {
        title,
        file: Some(file),
        way,
        era,
        revision,
    };
    let rust = |title, era, revision| Client {
        title,
        file: None,
        way: Way::Http,
        era,
        revision,
    };
    let (v1, v2, py) = ("ts-v1.mjs", "ts-v2.mjs", PYTHON);
    let (raw, inspector) = ("raw.mjs", "inspector.mjs");
    vec![
        client("TypeScript SDK 1.32", v1, Way::Http, "legacy", LEGACY),
        client(
            "TypeScript SDK 1.32, HTTP+SSE",
            v1,
            Way::Sse,
            "legacy",
            LEGACY,
        ),
        client(
            "TypeScript SDK 1.32, `vaxel stdio`",
            v1,
            Way::Stdio,
            "legacy",
            LEGACY,
        ),
        client(
            "TypeScript SDK 2.4, legacy",
            v2,
            Way::Http,
            "legacy",
            LEGACY,
        ),
        client("TypeScript SDK 2.4, auto", v2, Way::Http, "auto", MODERN),
        client(
            "TypeScript SDK 2.4, pinned modern",
            v2,
            Way::Http,
            "modern",
            MODERN,
        ),
        client("Python SDK 2.3, legacy", py, Way::Http, "legacy", LEGACY),
        client("Python SDK 2.3, modern", py, Way::Http, "modern", MODERN),
        client(
            "Python SDK 2.3, modern, `vaxel stdio`",
            py,
            Way::Stdio,
            "modern",
            MODERN,
        ),
        rust("Rust SDK 3.9, `initialize`", "legacy", LEGACY),
        rust("Rust SDK 3.9, `server/discover`", "modern", MODERN),
        client(
            "inspector CLI 2.12, legacy",
            inspector,
            Way::Http,
            "legacy",
            "",
        ),
        client("inspector CLI 2.12, auto", inspector, Way::Http, "auto", ""),
        client(
            "inspector CLI 2.12, modern",
            inspector,
            Way::Http,
            "modern",
            "",
        ),
        client(
            "no SDK, HTTP+SSE of 2024-11-05",
            raw,
            Way::Sse,
            "legacy",
            "2024-11-05",
        ),
        client(
            "no SDK, WebSocket, legacy",
            raw,
            Way::WebSocket,
            "legacy",
            LEGACY,
        ),
        client(
            "no SDK, WebSocket, modern",
            raw,
            Way::WebSocket,
            "modern",
            MODERN,
        ),
    ]
}

/// A client at work; without a program it is the Rust SDK.
pub(super) struct Working(Option<Program>);

/// A program that reads requests and writes lines; ended when dropped.
struct Program {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Client {
    pub(super) fn start(&self, vaxel: &TestVaxel) -> Working {
        Working(self.file.map(|file| Program::start(vaxel, file)))
    }

    /// What the client is asked to do with a server.
    pub(super) fn request(&self, vaxel: &TestVaxel, server: &Server) -> Value {
        let below = match server.name {
            "" => String::new(),
            name => format!("/{name}"),
        };
        let patience = |thing: &str| {
            let known = gaps::of(self, server, thing).is_some();
            if known { KNOWN_TO_FAIL } else { PATIENCE }
        };
        let patience: Value = THINGS
            .iter()
            .map(|(thing, _)| ((*thing).to_owned(), patience(thing).into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        // What one client makes must be new also after another one.
        let mark = format!("{:x}", self.title.bytes().map(usize::from).sum::<usize>());
        let things = server.things.to_string().replace("CLIENT", &mark);
        let things: Value = serde_json::from_str(&things).unwrap();
        let key = vaxel.key();
        let mut request = json!({
            "key": key, "era": self.era, "things": things, "patience": patience,
        });
        match self.way {
            Way::Http | Way::WebSocket => {
                request["url"] = format!("{}/mcp{below}", vaxel.url()).into();
            }
            Way::Sse => {
                request["url"] = format!("{}/sse{below}", vaxel.url()).into();
                request["transport"] = "sse".into();
            }
            Way::Stdio => {
                let one = ["stdio", "--service", server.name];
                let all = if server.name.is_empty() {
                    &one[..1]
                } else {
                    &one
                };
                let home = vaxel.home.path().display().to_string();
                request["command"] = env!("CARGO_BIN_EXE_vaxel").into();
                request["args"] = json!(all);
                request["env"] = json!({"HOME": home, "VAXEL_KEY": key});
            }
        }
        request
    }

    /// Turns what a client said about a server into a cell.
    pub(super) fn judge(&self, server: &Server, report: Report) -> Cell {
        let Report {
            mut cell,
            revision,
            failure,
        } = report;
        if failure.is_none() {
            let place = format!("{} before {}", self.title, server.title);
            assert_eq!(revision, self.revision, "{place}");
        }
        let why = failure.unwrap_or_else(|| "nothing was said of it".to_owned());
        for thing in server.things.as_object().unwrap().keys() {
            cell.entry(thing.clone())
                .or_insert_with(|| Outcome::Fails(why.clone()));
        }
        cell
    }
}

impl Working {
    /// Meets one server.
    pub(super) fn meet(&mut self, request: &Value) -> Report {
        match &mut self.0 {
            Some(program) => program.meet(request),
            None => rust_sdk::meet(request),
        }
    }
}

impl Program {
    fn start(vaxel: &TestVaxel, file: &str) -> Self {
        let tools = tools().unwrap();
        let interpreter = match file {
            PYTHON => tools.join("py/bin/python"),
            _ => tools.join("node22/bin/node"),
        };
        let mut child = Command::new(interpreter)
            .arg(repository("tests/peers/clients").join(file))
            .env("VAXEL_TEST_TOOLS", tools)
            .env("TMPDIR", vaxel.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            stdin,
            lines,
        }
    }

    /// Writes a request, and reads what is said until it is done.
    fn meet(&mut self, request: &Value) -> Report {
        writeln!(self.stdin, "{request}").unwrap();
        let mut cell = Cell::new();
        loop {
            let line = self.lines.next().expect("the client ended").unwrap();
            let said: Value = serde_json::from_str(&line).expect(&line);
            let text = |member: &str| said[member].as_str().map(str::to_owned);
            if said["done"] == true {
                return Report {
                    cell,
                    revision: text("protocol").unwrap_or_default(),
                    failure: text("why"),
                };
            }
            let why = text("why").unwrap_or_default();
            let outcome = match said["outcome"].as_str() {
                Some("works") => Outcome::Works,
                Some("cannot") => Outcome::Cannot(why),
                _ => Outcome::Fails(why),
            };
            cell.insert(text("thing").unwrap(), outcome);
        }
    }
}
