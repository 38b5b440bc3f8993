//! The edge of 2024-11-05 (HTTP+SSE): `GET /sse` opens a stream whose first event names the address to
//! post to, and on which everything is answered. The stream is the session: it ends with it.
//!
//! Inside, such a client is a legacy client like any other: each posted message goes the way of a POST
//! that names the session, and what that would have answered goes onto the stream.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method as Verb, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use vaxel_core::{
    failure::{self, Failure},
    principal::{Principal, Proof},
};
use vaxel_mcp::{
    envelope::{Envelope, Kind},
    headers,
};

use super::{legacy, onto_stream::put};
use crate::{
    authorize, decode, dispatch, edge,
    gateway::{OpenStream, Shared},
    pipeline::{self, Context},
    respond::{self, Response},
    subscribe,
    upstream::NowPlus,
};

/// Events waiting for one client. When it is full its calls wait, until it has read or gone.
const EVENTS: usize = 64;
/// Requests of one client that are being answered at once; a client that sends more waits.
const AT_ONCE: usize = 64;
/// How long a client may take to say hello.
const HELLO: Duration = Duration::from_mins(1);
/// Letters of the id that a client posts under. It is no credential: the key is asked for as well.
const ID: usize = 32;

/// All streams of such clients, by the id that they post under.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<Box<str>, Weak<Stream>>>);

/// The stream of one client.
struct Stream {
    proof: Proof,
    /// The one service that is seen, or all.
    service: Option<Box<str>>,
    sender: mpsc::Sender<Bytes>,
    /// The session's id, when there is one.
    session: OnceLock<HeaderValue>,
    at_once: Arc<Semaphore>,
    answering: Mutex<JoinSet<()>>,
}

/// Whether a path is of this edge.
pub(crate) fn is_here(path: &str) -> bool {
    path == "/messages" || service_of(path).is_some()
}

/// The service whose stream a path opens; empty for all of them.
fn service_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/sse")?.trim_end_matches('/');
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

/// Answers a request to `/sse…` or `/messages`.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    head: Parts,
    body: Incoming,
) -> Result<Response, Failure> {
    let principal = shared.authenticate(&head.headers)?;
    match (service_of(head.uri.path()), &head.method) {
        (Some(service), &Verb::GET) => {
            let service = Some(service).filter(|name| !name.is_empty());
            open(shared, &principal, service)
        }
        (None, &Verb::POST) => post(shared, principal, head, body).await,
        (Some(_), _) => Ok(respond::method_not_allowed("GET")),
        (None, _) => Ok(respond::method_not_allowed("POST")),
    }
}

fn open(
    shared: &Arc<Shared>,
    principal: &Principal,
    service: Option<&str>,
) -> Result<Response, Failure> {
    authorize::may_list(principal)?;
    pipeline::scope(&shared.snapshot.load(), service)?;
    let place = shared.enter_stream()?;
    let (sender, receiver) = mpsc::channel(EVENTS);
    let id: Box<str> = vaxel_auth::random::token(ID).into();
    let endpoint = format!("event: endpoint\ndata: /messages?session={id}\n\n");
    // The channel is new and has room.
    let _ = sender.try_send(endpoint.into());
    let stream = Arc::new(Stream {
        proof: principal.proof,
        service: service.map(Into::into),
        sender,
        session: OnceLock::new(),
        at_once: Arc::new(Semaphore::new(AT_ONCE)),
        answering: Mutex::default(),
    });
    let streams = &shared.streams_of_2024;
    streams.0.lock().insert(id.clone(), Arc::downgrade(&stream));
    shared
        .tasks
        .spawn(keep(Arc::clone(shared), stream, id, place));
    Ok(respond::stream(receiver))
}

/// Holds a stream until its client is gone.
async fn keep(shared: Arc<Shared>, stream: Arc<Stream>, id: Box<str>, place: OpenStream) {
    tokio::select! {
        () = stream.sender.closed() => {}
        () = shared.stop.cancelled() => {}
        () = stream.stays_silent() => {}
    }
    stream.answering.lock().abort_all();
    shared.streams_of_2024.0.lock().remove(&id);
    if let Some(session) = stream.session.get().and_then(|id| id.to_str().ok()) {
        shared.sessions.end(session);
    }
    drop(place);
}

/// A message of a client; its answer goes onto the client's stream.
async fn post(
    shared: &Arc<Shared>,
    principal: Principal,
    head: Parts,
    body: Incoming,
) -> Result<Response, Failure> {
    let id = session_id(head.uri.query().unwrap_or_default());
    let stream = id.and_then(|id| shared.streams_of_2024.0.lock().get(id)?.upgrade());
    // Someone else's stream does not exist for this caller.
    let stream = stream.filter(|stream| stream.proof == principal.proof);
    let stream = stream.ok_or_else(|| {
        Failure::new(
            failure::Kind::UnknownSession,
            "There is no such stream: open one with GET /sse",
        )
    })?;
    let deadline = Instant::now_plus(shared.config.body_timeout);
    let body = decode::body(body, shared.config.body_max, deadline).await?;
    // Answers and notifications need no turn: calls that have one may be waiting for them.
    let turn = if is_request(&body) {
        let waiting = Arc::clone(&stream.at_once).acquire_owned();
        Some(waiting.await.map_err(Failure::internal)?)
    } else {
        None
    };
    let snapshot = shared.snapshot.load_full();
    let scope = pipeline::scope(&snapshot, stream.service.as_deref())?;
    let mut context = Context {
        shared: Arc::clone(shared),
        snapshot,
        principal,
        scope,
        head,
    };
    stream.speak_as_its_session(&mut context.head);
    let answering = Arc::clone(&stream).answer(context, body, turn);
    let mut tasks = stream.answering.lock();
    while tasks.try_join_next().is_some() {}
    tasks.spawn(answering);
    drop(tasks);
    Ok(respond::empty(StatusCode::ACCEPTED))
}

fn is_request(body: &[u8]) -> bool {
    Envelope::parse(body).is_ok_and(|envelope| envelope.kind() == Kind::Request)
}

fn session_id(query: &str) -> Option<&str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "session").map(|(_, id)| id)
}

impl Stream {
    /// Resolves when the client has not said hello in time.
    async fn stays_silent(&self) {
        tokio::time::sleep(HELLO).await;
        if self.session.get().is_some() {
            std::future::pending::<()>().await;
        }
    }

    /// What a POST of a later revision says in its headers.
    fn speak_as_its_session(&self, head: &mut Parts) {
        let accept = HeaderValue::from_static("application/json, text/event-stream");
        head.headers.insert(header::ACCEPT, accept);
        head.headers.remove(headers::MCP_PROTOCOL_VERSION);
        head.headers.remove(headers::MCP_SESSION_ID);
        if let Some(session) = self.session.get() {
            head.headers
                .insert(headers::MCP_SESSION_ID, session.clone());
        }
    }

    async fn answer(
        self: Arc<Self>,
        context: Context,
        body: Bytes,
        turn: Option<OwnedSemaphorePermit>,
    ) {
        let shared = Arc::clone(&context.shared);
        let news = context.clone();
        let response = match edge::open(&context, &body) {
            Ok(exchange) => dispatch::dispatch(context, exchange).await,
            Err(answer) => *answer,
        };
        let opened = response.headers().get(headers::MCP_SESSION_ID).cloned();
        put(response, &body, &self.sender).await;
        if let Some(session) = opened
            && self.session.set(session).is_ok()
        {
            self.follow(news, &shared);
        }
        drop(turn);
    }

    /// The stream also tells of what belongs to no request.
    fn follow(&self, mut context: Context, shared: &Arc<Shared>) {
        self.speak_as_its_session(&mut context.head);
        if let Ok(session) = legacy::session(&context) {
            subscribe::follow(shared, &context.scope, session, self.sender.clone());
        }
    }
}
