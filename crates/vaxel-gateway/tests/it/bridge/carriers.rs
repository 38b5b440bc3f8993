//! The transports of the scripted servers, and how they fail.

use std::{net::SocketAddr, os::fd::OwnedFd, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream, unix::pipe},
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{Request, Response},
};
use vaxel_gateway::Transport;

use super::world::{Ledger, SERVERS, Via, World};
use crate::harness::{Reply, Seen, Upstream};

/// Messages of one stream that wait to be written.
const WAITING: usize = 256;

/// A server that runs, or did.
pub(super) struct Server {
    index: usize,
    world: Arc<World>,
    body: Body,
    pub(super) is_alive: bool,
}

enum Body {
    Http(Upstream),
    Pipes(JoinSet<()>),
    /// Its address, and what listens there.
    Socket(SocketAddr, JoinSet<()>),
}

impl Server {
    pub(super) async fn start(index: usize, world: Arc<World>) -> Self {
        let hears = Arc::clone(&world);
        let script = move |seen: &Seen| {
            hears.with(|ledger| match SERVERS[index] {
                Via::Modern => modern(ledger, index, seen),
                Via::Oldest => Some(oldest(ledger, index, seen)),
                Via::Answers | Via::Session | Via::Pipes | Via::Socket => {
                    Some(legacy(ledger, index, seen))
                }
            })
        };
        let body = match SERVERS[index] {
            Via::Modern => Body::Http(Upstream::modern(script).await),
            Via::Pipes => Body::Pipes(JoinSet::new()),
            Via::Socket => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                Body::Socket(address, accept(&world, index, listener))
            }
            _ => Body::Http(Upstream::legacy(script).await),
        };
        Self {
            index,
            world,
            body,
            is_alive: true,
        }
    }

    /// The way to it.
    pub(super) fn transport(&mut self) -> Transport {
        match &mut self.body {
            Body::Http(upstream) => Transport::Http {
                url: upstream.url(),
                headers: Vec::new(),
                session: self.world.with(|ledger| ledger.scope),
                tokens: None,
            },
            Body::Socket(address, _) => Transport::Http {
                url: format!("ws://{address}/mcp").parse().unwrap(),
                headers: Vec::new(),
                session: self.world.with(|ledger| ledger.scope),
                tokens: None,
            },
            Body::Pipes(tasks) => pipes(&self.world, self.index, tasks),
        }
    }

    pub(super) async fn die(&mut self) {
        self.is_alive = false;
        match &mut self.body {
            Body::Http(upstream) => upstream.die().await,
            Body::Pipes(tasks) | Body::Socket(_, tasks) => tasks.shutdown().await,
        }
        self.forget(true);
    }

    /// Returns whether it has to be connected anew.
    pub(super) async fn come_back(&mut self) -> bool {
        self.is_alive = true;
        match &mut self.body {
            Body::Http(upstream) => {
                upstream.come_back().await;
                false
            }
            Body::Socket(address, tasks) => {
                let listener = TcpListener::bind(*address).await.unwrap();
                *tasks = accept(&self.world, self.index, listener);
                false
            }
            Body::Pipes(_) => true,
        }
    }

    /// Knows no session any more.
    pub(super) fn forget(&self, cut: bool) {
        let index = self.index;
        self.world.with(|ledger| {
            if cut {
                ledger.cut(index, "its server forgot it");
            }
            ledger.sessions.retain(|(of, _), _| *of != index);
            for job in ledger.jobs.iter_mut().filter(|job| job.server == index) {
                // Nobody can cancel it any more.
                job.lost.get_or_insert("its session was forgotten");
            }
        });
    }
}

fn result(message: &Value, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
}

fn tools(message: &Value) -> Value {
    let tools = json!([{"name": "echo", "inputSchema": {"type": "object"}}]);
    result(
        message,
        &json!({"tools": tools, "resultType": "complete",
        "ttlMs": 0, "cacheScope": "private"}),
    )
}

/// What every legacy server says to what is no call; `None` when that is nothing.
fn plain(message: &Value, revision: &str) -> Option<Value> {
    message.get("id")?;
    let method = message["method"].as_str()?;
    Some(match method {
        "initialize" => result(
            message,
            &json!({"protocolVersion": revision,
            "capabilities": {"tools": {}}, "serverInfo": {"name": "up", "version": "1"}}),
        ),
        "ping" => result(message, &json!({})),
        "tools/list" => tools(message),
        _ => json!({"jsonrpc": "2.0", "id": message["id"],
            "error": {"code": -32601, "message": "Method not found"}}),
    })
}

/// A call over HTTP: what it is answered, at once or as a stream.
fn call(ledger: &mut Ledger, at: (usize, &str), message: &Value) -> Reply {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    ledger.called(at, message, sender);
    match (receiver.len(), receiver.is_closed()) {
        (1, true) => Reply::Json(200, receiver.try_recv().unwrap()),
        _ => Reply::Live(receiver),
    }
}

fn modern(ledger: &mut Ledger, index: usize, seen: &Seen) -> Option<Reply> {
    (seen.method() == "tools/call").then(|| call(ledger, (index, ""), &seen.json))
}

fn legacy(ledger: &mut Ledger, index: usize, seen: &Seen) -> Reply {
    let session = seen.header("mcp-session-id").unwrap_or_default();
    let at = (index, session);
    let is_known = ledger.sessions.contains_key(&(index, session.to_owned()));
    if seen.method() == "initialize" {
        ledger.sessions_opened += 1;
        let id = format!("session-{}", ledger.sessions_opened);
        ledger.sessions.insert((index, id.clone()), None);
        return Reply::Opened(id, plain(&seen.json, "2025-11-25").unwrap().to_string());
    }
    if !is_known {
        let error = json!({"jsonrpc": "2.0", "id": seen.json["id"],
            "error": {"code": -32001, "message": "Session not found"}});
        return Reply::Json(
            if session.is_empty() { 400 } else { 404 },
            error.to_string(),
        );
    }
    if seen.verb == Method::GET && SERVERS[index] == Via::Session {
        let (sender, receiver) = mpsc::channel(WAITING);
        let streams = &mut ledger.session_streams;
        streams.insert((index, session.to_owned()), sender);
        return Reply::Live(receiver);
    }
    if seen.verb != Method::POST {
        return Reply::Json(405, String::new());
    }
    if seen.method() == "tools/call" {
        return call(ledger, at, &seen.json);
    }
    match hear(ledger, at, &seen.json, "2025-11-25") {
        Some(answer) => Reply::Json(200, answer.to_string()),
        None => Reply::Json(202, String::new()),
    }
}

/// What is no call.
fn hear(ledger: &mut Ledger, at: (usize, &str), message: &Value, revision: &str) -> Option<Value> {
    match message["method"].as_str() {
        None => {
            ledger.answered(at, message);
            None
        }
        Some("notifications/cancelled") => {
            ledger.cancelled(at, &message["params"]["requestId"]);
            None
        }
        Some(_) => plain(message, revision),
    }
}

fn oldest(ledger: &mut Ledger, index: usize, seen: &Seen) -> Reply {
    if seen.verb == Method::GET {
        ledger.sessions_opened += 1;
        let id = ledger.sessions_opened.to_string();
        let (sender, receiver) = mpsc::channel(WAITING);
        let endpoint = format!("event: endpoint\ndata: /messages?stream={id}");
        sender.try_send(endpoint).unwrap();
        ledger.sessions.insert((index, id.clone()), None);
        ledger.session_streams.insert((index, id), sender);
        return Reply::Live(receiver);
    }
    let stream = seen
        .path
        .strip_prefix("/messages?stream=")
        .unwrap_or_default();
    let outlet = ledger.session_streams.get(&(index, stream.to_owned()));
    let Some(outlet) = outlet.cloned() else {
        return Reply::Json(404, String::new());
    };
    let at = (index, stream);
    if seen.method() == "tools/call" {
        ledger.called(at, &seen.json, outlet);
    } else if let Some(answer) = hear(ledger, at, &seen.json, "2024-11-05") {
        // Its caller may be gone.
        let _ = outlet.try_send(answer.to_string());
    }
    Reply::Json(202, String::new())
}

/// A server over WebSocket: every connection is a session.
fn accept(world: &Arc<World>, index: usize, listener: TcpListener) -> JoinSet<()> {
    let world = Arc::clone(world);
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(converse(Arc::clone(&world), index, stream));
        }
    });
    accepting
}

#[expect(
    clippy::result_large_err,
    reason = "the callback has the form that the library wants"
)]
async fn converse(world: Arc<World>, index: usize, stream: TcpStream) {
    let choose = |_: &Request, mut response: Response| {
        let protocol = HeaderValue::from_static("mcp");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, choose).await else {
        return;
    };
    let (outlet, mut queue) = mpsc::channel::<String>(WAITING);
    let session = world.with(|ledger| {
        ledger.sessions_opened += 1;
        let session = format!("socket-{}", ledger.sessions_opened);
        let place = (index, session.clone());
        ledger.sessions.insert(place.clone(), None);
        ledger.session_streams.insert(place, outlet);
        session
    });
    loop {
        let message = tokio::select! {
            // When its server forgets it, nothing more is said.
            said = queue.recv() => match said {
                Some(said) => match socket.send(Message::text(said)).await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                None => return,
            },
            heard = socket.next() => match heard {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                _ => return,
            },
        };
        let message: Value = serde_json::from_str(&message).unwrap_or_default();
        world.with(|ledger| {
            let at = (index, &*session);
            let outlet = ledger.session_streams.get(&(index, session.clone()));
            let Some(outlet) = outlet.cloned() else {
                return;
            };
            if message["method"] == "tools/call" {
                ledger.called(at, &message, outlet);
            } else if let Some(answer) = hear(ledger, at, &message, "2025-11-25") {
                // Whoever hears may be gone.
                let _ = outlet.try_send(answer.to_string());
            }
        });
    }
}

/// A server behind new pipes.
fn pipes(world: &Arc<World>, index: usize, tasks: &mut JoinSet<()>) -> Transport {
    let (hears, stdin) = std::io::pipe().unwrap();
    let (stdout, says) = std::io::pipe().unwrap();
    let hears = pipe::Receiver::from_owned_fd(OwnedFd::from(hears)).unwrap();
    let mut says = pipe::Sender::from_owned_fd(OwnedFd::from(says)).unwrap();
    let (outlet, mut queue) = mpsc::channel::<String>(WAITING);
    tasks.spawn(async move {
        while let Some(message) = queue.recv().await {
            let line = message + "\n";
            if says.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    });
    let session = world.with(|ledger| {
        ledger.sessions_opened += 1;
        format!("pipe-{}", ledger.sessions_opened)
    });
    let world = Arc::clone(world);
    tasks.spawn(async move {
        let at = (index, &*session);
        let mut lines = BufReader::new(hears).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let message: Value = serde_json::from_str(&line).unwrap_or_default();
            let outlet = outlet.clone();
            world.with(|ledger| {
                if message["method"] == "tools/call" {
                    ledger.called(at, &message, outlet);
                } else if let Some(answer) = hear(ledger, at, &message, "2025-11-25") {
                    // Whoever hears may be gone.
                    let _ = outlet.try_send(answer.to_string());
                }
            });
        }
    });
    let stdin = std::process::ChildStdin::from(OwnedFd::from(stdin));
    let stdout = std::process::ChildStdout::from(OwnedFd::from(stdout));
    Transport::Stdio {
        stdin: ChildStdin::from_std(stdin).unwrap(),
        stdout: ChildStdout::from_std(stdout).unwrap(),
        garbage: Arc::new(|_: &str| {}),
    }
}
