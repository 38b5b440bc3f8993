//! `vaxel stdio`: lets a client that only speaks stdio use a running Vaxel over HTTP.
//!
//! Every line of standard input is one message and becomes one POST; every answer and every
//! notification becomes one line of standard output. Nothing else is ever written there. Both eras
//! pass: a modern message gets the headers that mirror it, a legacy client's session is kept here
//! and opened again when the server has forgotten it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method as Verb, StatusCode, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Stdin, Stdout},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use url::Url;
use vaxel_core::sse;
use vaxel_egress::{Body, Egress, Reply, Roots, Target};
use vaxel_mcp::{
    envelope::{Envelope, Kind, Malformed},
    error::{INTERNAL_ERROR, INVALID_REQUEST},
    headers,
    lines::{Line, Lines},
    method::Method,
    request::Request,
    response,
    revision::Revision,
};

/// Largest message in either direction, bytes.
const MESSAGE_MAX: usize = 16 << 20;
/// Longest time for one answer; services have shorter limits of their own.
const ANSWER: Duration = Duration::from_hours(1);
/// Lines waiting to be written. When it is full the client does not read, and answers wait.
const LINES: usize = 256;
/// Pause before a broken stream of notifications is opened again.
const AGAIN: Duration = Duration::from_secs(2);

/// Where the bridge leads.
pub(crate) struct Bridge {
    /// The MCP endpoint.
    pub(crate) endpoint: Url,
    /// The key that is shown there; absent when the server asks for none.
    pub(crate) key: Option<String>,
    /// Who vouches for its certificate.
    pub(crate) roots: Roots,
}

/// Bridges until standard input ends and every answer was written.
pub(crate) async fn run(bridge: Bridge) -> anyhow::Result<()> {
    let egress = Egress::new(vaxel_egress::Config {
        roots: bridge.roots,
        ..vaxel_egress::Config::default()
    })?;
    let target = egress.origin(&bridge.endpoint)?;
    let mut base = HeaderMap::new();
    base.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let accept = HeaderValue::from_static("application/json, text/event-stream");
    base.insert(header::ACCEPT, accept);
    if let Some(key) = &bridge.key {
        let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
            .context("the key holds characters that no key has")?;
        value.set_sensitive(true);
        base.insert(header::AUTHORIZATION, value);
    }
    let (out, lines) = mpsc::channel(LINES);
    let shared = Arc::new(Shared {
        target,
        base,
        out,
        state: Mutex::default(),
    });
    let mut writing = JoinSet::new();
    writing.spawn(write(tokio::io::stdout(), lines));
    let mut work = JoinSet::new();
    read(tokio::io::stdin(), &shared, &mut work).await?;
    shared.end(&mut work).await;
    drop(shared);
    while writing.join_next().await.is_some() {}
    Ok(())
}

struct Shared {
    target: Target,
    base: HeaderMap,
    out: mpsc::Sender<Bytes>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<HeaderValue>,
    revision: Option<HeaderValue>,
    /// The client's own `initialize`, to be sent again when the server forgot the session.
    initialize: Option<Bytes>,
    /// The task of each request in flight, by raw id.
    in_flight: HashMap<Vec<u8>, AbortHandle>,
    streaming: bool,
}

async fn write(mut stdout: Stdout, mut lines: mpsc::Receiver<Bytes>) {
    while let Some(line) = lines.recv().await {
        let line: Vec<u8> = line
            .iter()
            .map(|byte| {
                if matches!(byte, b'\n' | b'\r') {
                    b' '
                } else {
                    *byte
                }
            })
            .chain([b'\n'])
            .collect();
        let written = stdout.write_all(&line).await;
        if written.is_err() || stdout.flush().await.is_err() {
            return; // the client is gone
        }
    }
}

async fn read(
    mut stdin: Stdin,
    shared: &Arc<Shared>,
    work: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let mut lines = Lines::new(MESSAGE_MAX);
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = stdin
            .read(&mut chunk)
            .await
            .context("standard input broke")?;
        if count == 0 {
            return Ok(());
        }
        lines.push(&chunk[..count]);
        while let Some(line) = lines.next() {
            match line {
                Line::Message(message) => shared.take(message, work).await,
                Line::Garbage { .. } | Line::TooLong { .. } => {
                    let detail = "a line that is no JSON-RPC message, or too long a one";
                    shared
                        .write(response::error(b"", INVALID_REQUEST, detail, None))
                        .await;
                }
            }
            while work.try_join_next().is_some() {}
        }
    }
}

impl Shared {
    /// Takes one message of the client. `initialize` is waited for, since everything after it
    /// needs the session; other requests run side by side.
    async fn take(self: &Arc<Self>, message: Bytes, work: &mut JoinSet<()>) {
        let envelope = match Envelope::parse(&message) {
            Ok(envelope) => envelope,
            Err(error) => return self.malformed(&error).await,
        };
        let method = Method::of(envelope.method.as_deref().unwrap_or_default());
        let id = envelope.id.map(|id| id.get().as_bytes().to_vec());
        match (envelope.kind(), method) {
            (Kind::Request, Method::Initialize) => {
                self.state.lock().initialize = Some(message.clone());
                self.exchange(message.clone(), id.unwrap_or_default()).await;
                self.stream(work);
            }
            (Kind::Request, _) => {
                let id = id.unwrap_or_default();
                let task = Arc::clone(self).answer(message.clone(), id.clone());
                let handle = work.spawn(task);
                self.state.lock().in_flight.insert(id, handle);
            }
            (Kind::Notification, Method::Cancelled) if self.is_modern() => self.abort(&envelope),
            _ => {
                let sending = Arc::clone(self).tell(message.clone());
                work.spawn(sending);
            }
        }
    }

    async fn answer(self: Arc<Self>, message: Bytes, id: Vec<u8>) {
        self.exchange(message, id.clone()).await;
        self.state.lock().in_flight.remove(&id);
    }

    /// Posts a request and writes everything that comes back.
    async fn exchange(&self, message: Bytes, id: Vec<u8>) {
        if let Err(error) = self.try_exchange(message).await {
            self.write(response::error(
                &id,
                INTERNAL_ERROR,
                &error.to_string(),
                None,
            ))
            .await;
        }
    }

    async fn try_exchange(&self, message: Bytes) -> anyhow::Result<()> {
        let reply = self.post(message.clone()).await?;
        let had_session = self.state.lock().session.is_some();
        let reply = if reply.parts.status == StatusCode::NOT_FOUND && had_session {
            self.initialize_again().await?;
            self.post(message).await?
        } else {
            reply
        };
        self.keep_session(&reply);
        self.pass_on(reply).await
    }

    async fn pass_on(&self, reply: Reply) -> anyhow::Result<()> {
        let status = reply.parts.status;
        let kind = reply
            .parts
            .headers
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        if kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
            return self.pass_stream(reply).await;
        }
        let is_json_rpc = kind.is_some_and(|kind| kind.starts_with(b"application/json"));
        let deadline = Instant::now() + ANSWER;
        let body = reply.body.collect(MESSAGE_MAX, deadline).await?;
        if is_json_rpc {
            self.write(body).await;
            return Ok(());
        }
        anyhow::bail!("Vaxel answered {status}: {}", detail(&body))
    }

    async fn pass_stream(&self, reply: Reply) -> anyhow::Result<()> {
        let mut body = reply.body;
        body.detach();
        let mut decoder = sse::Decoder::new(MESSAGE_MAX);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            decoder.push(&data);
            while let Some(event) = decoder.next() {
                let event = event?;
                if !event.data.is_empty() {
                    self.write(event.data).await;
                }
            }
        }
        Ok(())
    }

    /// Posts a message that has no answer.
    async fn tell(self: Arc<Self>, message: Bytes) {
        let told = async {
            let reply = self.post(message).await?;
            reply
                .body
                .collect(MESSAGE_MAX, Instant::now() + ANSWER)
                .await?;
            anyhow::Ok(())
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "a notification was not delivered");
        }
    }

    async fn post(&self, message: Bytes) -> anyhow::Result<Reply> {
        let headers = self.headers(&message);
        let mut request = http::Request::new(Body::Full(message));
        *request.method_mut() = Verb::POST;
        *request.uri_mut() = self.target.uri().clone();
        *request.headers_mut() = headers;
        Ok(self.target.send(request, Instant::now() + ANSWER).await?)
    }

    fn headers(&self, message: &Bytes) -> HeaderMap {
        let mut map = self.base.clone();
        if self.mirror(message, &mut map).is_some() {
            return map;
        }
        let state = self.state.lock();
        if let Some(session) = &state.session {
            map.insert(headers::MCP_SESSION_ID, session.clone());
        }
        if let Some(revision) = &state.revision {
            map.insert(headers::MCP_PROTOCOL_VERSION, revision.clone());
        }
        map
    }

    /// The headers of a modern request; `None` when the message is none.
    fn mirror(&self, message: &Bytes, map: &mut HeaderMap) -> Option<()> {
        let envelope = Envelope::parse(message).ok()?;
        let (request, claims) = Request::read(message.clone(), &envelope).ok()?;
        let version = claims.version?;
        map.insert(
            headers::MCP_PROTOCOL_VERSION,
            HeaderValue::from_str(&version).ok()?,
        );
        map.insert(
            headers::MCP_METHOD,
            HeaderValue::from_str(request.method_name()).ok()?,
        );
        if request.method().addressed_by().is_some()
            && let Some(key) = request.key()
        {
            let name = HeaderValue::from_str(&headers::encode_value(&key)).ok()?;
            map.insert(headers::MCP_NAME, name);
        }
        self.state.lock().revision = None;
        Some(())
    }

    fn is_modern(&self) -> bool {
        self.state.lock().session.is_none()
    }

    fn keep_session(&self, reply: &Reply) {
        if let Some(session) = reply.parts.headers.get(headers::MCP_SESSION_ID) {
            let mut state = self.state.lock();
            state.session = Some(session.clone());
            let latest = HeaderValue::from_static(Revision::LATEST_LEGACY.as_str());
            state.revision.get_or_insert(latest);
        }
    }

    async fn initialize_again(&self) -> anyhow::Result<()> {
        let message = {
            let mut state = self.state.lock();
            state.session = None;
            state.initialize.clone()
        };
        let message = message.context("the session is unknown to Vaxel")?;
        let reply = self.post(message).await?;
        self.keep_session(&reply);
        reply
            .body
            .collect(MESSAGE_MAX, Instant::now() + ANSWER)
            .await?;
        Ok(())
    }

    /// Opens the legacy stream of notifications, once.
    fn stream(self: &Arc<Self>, work: &mut JoinSet<()>) {
        let mut state = self.state.lock();
        if state.session.is_some() && !std::mem::replace(&mut state.streaming, true) {
            let shared = Arc::clone(self);
            work.spawn(async move {
                while shared.listen().await {
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }

    /// False when there is no such stream.
    async fn listen(&self) -> bool {
        let mut request = http::Request::new(Body::Empty);
        *request.uri_mut() = self.target.uri().clone();
        *request.headers_mut() = self.headers(&Bytes::new());
        match self.target.send(request, Instant::now() + ANSWER).await {
            Ok(reply) if reply.parts.status.is_success() => {
                if let Err(error) = self.pass_stream(reply).await {
                    tracing::debug!(%error, "the stream of notifications broke");
                }
                true
            }
            // There is one, but not now.
            Ok(reply) => reply.parts.status == StatusCode::TOO_MANY_REQUESTS,
            Err(_) => true,
        }
    }

    /// Modern: a call is cancelled by closing its stream.
    fn abort(&self, envelope: &Envelope<'_>) {
        #[derive(serde::Deserialize)]
        struct Cancelled<'a> {
            #[serde(borrow, rename = "requestId")]
            id: &'a serde_json::value::RawValue,
        }
        let cancelled: Option<Cancelled<'_>> = envelope
            .params
            .and_then(|params| serde_json::from_str(params.get()).ok());
        if let Some(cancelled) = cancelled
            && let Some(task) = self
                .state
                .lock()
                .in_flight
                .remove(cancelled.id.get().as_bytes())
        {
            task.abort();
        }
    }

    async fn malformed(&self, error: &Malformed) {
        self.write(response::error(
            b"",
            INVALID_REQUEST,
            &error.to_string(),
            None,
        ))
        .await;
    }

    async fn write(&self, message: Bytes) {
        // A closed channel means that the client reads no more; the end of its input follows.
        let _ = self.out.send(message).await;
    }

    /// Standard input has ended: answers in flight are still written, the session is ended.
    async fn end(&self, work: &mut JoinSet<()>) {
        let waiting = async {
            loop {
                let open = self
                    .state
                    .lock()
                    .in_flight
                    .values()
                    .any(|task| !task.is_finished());
                if !open {
                    return;
                }
                if work.join_next().await.is_none() {
                    return;
                }
            }
        };
        // Clients close their end when they are done; answers that take longer have no reader.
        let _ = tokio::time::timeout(Duration::from_secs(10), waiting).await;
        work.shutdown().await;
        let session = self.state.lock().session.is_some();
        if session {
            let mut request = http::Request::new(Body::Empty);
            *request.method_mut() = Verb::DELETE;
            *request.uri_mut() = self.target.uri().clone();
            *request.headers_mut() = self.headers(&Bytes::new());
            let deadline = Instant::now() + Duration::from_secs(2);
            // Vaxel ends idle sessions by itself.
            let _ = self.target.send(request, deadline).await;
        }
    }
}

fn detail(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    serde_json::from_slice::<Problem>(body).map_or_else(
        |_| String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
        |problem| problem.detail,
    )
}
