//! A scripted MCP server over HTTP: what a script has no opinion on is answered properly.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use url::Url;

/// A request as it arrived.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) verb: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Seen {
    pub(crate) fn method(&self) -> &str {
        self.json["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The id as raw JSON.
    pub(crate) fn id(&self) -> String {
        self.json["id"].to_string()
    }

    /// A result for this request.
    pub(crate) fn result(&self, result: &Value) -> String {
        json!({"jsonrpc": "2.0", "id": self.json["id"], "result": result}).to_string()
    }

    /// A tool's answer with this text.
    pub(crate) fn say(&self, text: &str) -> String {
        self.result(&json!({"content": [{"type": "text", "text": text}], "resultType": "complete"}))
    }
}

/// What is answered.
pub(crate) enum Reply {
    /// A status and a JSON body.
    Json(u16, String),
    /// A status and a body of this type.
    Plain(u16, &'static str, &'static [u8]),
    /// The same with a session id.
    Opened(String, String),
    /// Events, and then the end.
    Events(Vec<String>),
    /// Events as they are sent, until the sender is dropped.
    Live(mpsc::Receiver<String>),
    /// A JSON body, once there is one.
    Later(mpsc::Receiver<String>),
    /// Events, and then nothing, for ever.
    EventsForEver(Vec<String>),
    /// Half a body, and then the connection breaks.
    Cut(String),
    /// Nothing, for ever.
    Never,
}

type Script = Arc<dyn Fn(&Seen) -> Option<Reply> + Send + Sync>;

struct Inner {
    modern: bool,
    script: Script,
    seen: Mutex<Vec<Seen>>,
    sessions: Mutex<Vec<String>>,
    /// Requests that were left by their caller before they were answered to the end.
    left: AtomicUsize,
}

/// A server that runs.
pub(crate) struct Upstream {
    address: SocketAddr,
    inner: Arc<Inner>,
    dying: CancellationToken,
    accepting: JoinSet<()>,
}

impl Upstream {
    /// Speaks 2026-07-28 only.
    pub(crate) async fn modern(
        script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start(true, Arc::new(script)).await
    }

    /// Speaks 2025-11-25 only, with sessions.
    pub(crate) async fn legacy(
        script: impl Fn(&Seen) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start(false, Arc::new(script)).await
    }

    async fn start(modern: bool, script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            modern,
            script,
            seen: Mutex::default(),
            sessions: Mutex::default(),
            left: AtomicUsize::new(0),
        });
        let dying = CancellationToken::new();
        Self {
            address,
            accepting: accept(listener, Arc::clone(&inner), dying.clone()),
            dying,
            inner,
        }
    }

    /// Ends every connection and takes no more, as a process that dies does; returns when all are ended.
    pub(crate) async fn die(&mut self) {
        self.dying.cancel();
        while self.accepting.join_next().await.is_some() {}
        self.inner.sessions.lock().clear();
    }

    /// Is there again, at the same address.
    pub(crate) async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.dying = CancellationToken::new();
        self.accepting = accept(listener, Arc::clone(&self.inner), self.dying.clone());
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://{}/mcp", self.address).parse().unwrap()
    }

    /// Requests of this method so far; of every method when empty.
    pub(crate) fn seen(&self, method: &str) -> Vec<Seen> {
        let seen = self.inner.seen.lock();
        seen.iter()
            .filter(|seen| method.is_empty() || seen.method() == method)
            .cloned()
            .collect()
    }

    /// Requests that were left unanswered by their caller.
    pub(crate) fn left(&self) -> usize {
        self.inner.left.load(Ordering::Relaxed)
    }

    /// Forgets every session, as a restart does.
    pub(crate) fn forget_sessions(&self) {
        self.inner.sessions.lock().clear();
    }
}

fn accept(listener: TcpListener, serves: Arc<Inner>, dying: CancellationToken) -> JoinSet<()> {
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        while let Some(Ok((stream, _))) = dying.run_until_cancelled(listener.accept()).await {
            let serves = Arc::clone(&serves);
            let service = service_fn(move |request| answer(Arc::clone(&serves), request));
            connections.spawn(async move {
                // Scripts end connections as they like.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
        drop(listener);
        connections.shutdown().await;
    });
    accepting
}

/// Counts when it is dropped before its answer was complete.
struct Leaving(Arc<Inner>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
    }
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

async fn answer(
    inner: Arc<Inner>,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let text = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let seen = Seen {
        verb: head.method,
        path: head.uri.to_string(),
        headers: head.headers,
        text: String::from_utf8_lossy(&text).into_owned(),
        json: serde_json::from_slice(&text).unwrap_or_default(),
    };
    inner.seen.lock().push(seen.clone());
    let reply = (inner.script)(&seen);
    let reply = reply.unwrap_or_else(|| {
        if inner.modern {
            modern(&seen)
        } else {
            legacy(&inner, &seen)
        }
    });
    Ok(render(&inner, reply).await)
}

async fn render(inner: &Arc<Inner>, reply: Reply) -> Response<Body> {
    let full = |text: String| {
        Full::new(Bytes::from(text))
            .map_err(|never| match never {})
            .boxed_unsync()
    };
    let response = |status: u16, kind: &str, body| {
        Response::builder()
            .status(status)
            .header("content-type", kind)
            .body(body)
            .unwrap()
    };
    match reply {
        Reply::Json(status, text) => response(status, "application/json", full(text)),
        Reply::Plain(status, kind, body) => {
            let body = Full::new(Bytes::from_static(body));
            response(
                status,
                kind,
                body.map_err(|never| match never {}).boxed_unsync(),
            )
        }
        Reply::Opened(id, text) => {
            let mut opened = response(200, "application/json", full(text));
            opened
                .headers_mut()
                .insert("mcp-session-id", id.parse().unwrap());
            opened
        }
        Reply::Events(events) => response(200, "text/event-stream", full(lines(&events))),
        Reply::Later(mut receiver) => {
            let text = receiver.recv().await.unwrap_or_default();
            response(200, "application/json", full(text))
        }
        Reply::Live(receiver) => {
            let leaving = Leaving(Arc::clone(inner));
            let state = (receiver, Some(leaving));
            let events = stream::unfold(state, |(mut receiver, leaving)| async move {
                let Some(event) = receiver.recv().await else {
                    // It ended by itself.
                    std::mem::forget(leaving);
                    return None;
                };
                let frame = Frame::data(Bytes::from(lines(&[event])));
                Some((Ok(frame), (receiver, leaving)))
            });
            response(
                200,
                "text/event-stream",
                StreamBody::new(events).boxed_unsync(),
            )
        }
        Reply::EventsForEver(events) => {
            let leaving = Leaving(Arc::clone(inner));
            let ever =
                stream::once(async move { std::future::pending::<()>().await }).map(move |()| {
                    let _held = &leaving;
                    Ok(Frame::data(Bytes::new()))
                });
            let first = stream::iter([Ok(Frame::data(Bytes::from(lines(&events))))]);
            response(
                200,
                "text/event-stream",
                StreamBody::new(first.chain(ever)).boxed_unsync(),
            )
        }
        Reply::Cut(text) => {
            let pieces = [
                Ok(Frame::data(Bytes::from(text))),
                Err(std::io::Error::other("cut")),
            ];
            response(
                200,
                "application/json",
                StreamBody::new(stream::iter(pieces)).boxed_unsync(),
            )
        }
        Reply::Never => {
            let _leaving = Leaving(Arc::clone(inner));
            std::future::pending().await
        }
    }
}

fn lines(events: &[String]) -> String {
    events.iter().fold(String::new(), |text, event| {
        let kind = if event.starts_with("event: ") {
            ""
        } else {
            "event: message\ndata: "
        };
        text + kind + event + "\n\n"
    })
}

pub(crate) fn error(seen: &Seen, code: i64, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": seen.json["id"], "error": {"code": code, "message": message}})
        .to_string()
}

fn tools() -> Value {
    json!([
        {"name": "echo", "description": "Says it again", "inputSchema": {"type": "object"}, "vendor": {"kept": 1.0}},
        {"name": "other", "inputSchema": {"type": "object"}},
    ])
}

/// Says back the raw bytes of what it was told.
fn echo(seen: &Seen) -> String {
    seen.result(&json!({
        "content": [{"type": "text", "text": seen.text}],
        "resultType": "complete",
        "vendor": {"field": 12},
        "_meta": {"com.example/kept": "yes"},
    }))
}

fn modern(seen: &Seen) -> Reply {
    if seen.header("mcp-protocol-version") != Some("2026-07-28") {
        return Reply::Json(400, error(seen, -32022, "Unsupported protocol version"));
    }
    let text = match seen.method() {
        "server/discover" => seen.result(&json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "up", "version": "1"}},
        })),
        "tools/list" => seen.result(&json!({
            "resultType": "complete", "tools": tools(), "ttlMs": 0, "cacheScope": "private",
        })),
        "tools/call" => echo(seen),
        _ => return Reply::Json(404, error(seen, -32601, "Method not found")),
    };
    Reply::Json(200, text)
}

fn legacy(inner: &Inner, seen: &Seen) -> Reply {
    if seen.verb != Method::POST {
        return Reply::Json(405, String::new());
    }
    if seen.method() == "initialize" {
        let mut sessions = inner.sessions.lock();
        let opened = inner
            .seen
            .lock()
            .iter()
            .filter(|seen| seen.method() == "initialize")
            .count();
        let id = format!("session-{opened}");
        sessions.push(id.clone());
        let result = json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "up", "version": "1"}});
        return Reply::Opened(id, seen.result(&result));
    }
    let Some(session) = seen.header("mcp-session-id") else {
        return Reply::Json(
            400,
            error(seen, -32000, "Bad Request: Server not initialized"),
        );
    };
    if !inner.sessions.lock().iter().any(|known| known == session) {
        return Reply::Json(404, error(seen, -32001, "Session not found"));
    }
    if seen.json["id"].is_null() {
        return Reply::Json(202, String::new());
    }
    let text = match seen.method() {
        "ping" => seen.result(&json!({})),
        "tools/list" => seen.result(&json!({"tools": tools()})),
        "tools/call" => echo(seen),
        _ => error(seen, -32601, "Method not found"),
    };
    Reply::Json(200, text)
}
