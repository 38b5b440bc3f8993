//! The edge of 2024-11-05 (HTTP+SSE): `GET /sse` opens a stream whose first event names the address to
//! post to, and on which everything is answered. The stream is the session: it ends with it.
//!
//! What is posted and what goes onto the stream is a [`Duplex`].

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use http::{Method as Verb, StatusCode, request::Parts};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;
use vaxel_core::{
    failure::{self, Failure},
    principal::{Principal, Proof},
};

use super::duplex::Duplex;
use crate::{
    authorize, decode,
    gateway::{OpenStream, Shared},
    meta,
    pipeline::{Carrier, Context},
    respond::{self, Response},
    route::Scope,
    upstream::NowPlus,
};

/// Requests of one client that are being answered at once; a client that sends more waits.
const AT_ONCE: usize = 64;
/// Letters of the id that a client posts under. It is no credential: the key is asked for as well.
const ID: usize = 32;

/// All streams of such clients, by the id that they post under.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<Box<str>, Weak<Stream>>>);

/// The stream of one client.
struct Stream {
    proof: Proof,
    /// The one service that is seen, or the set; else all.
    path: Option<Box<str>>,
    duplex: Arc<Duplex>,
}

/// Whether a path is of this edge.
pub(crate) fn is_here(path: &str) -> bool {
    path == "/messages" || below(path).is_some()
}

/// The service or set whose stream a path opens; empty for all services.
fn below(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/sse")?.trim_end_matches('/');
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

/// Who asks. What is posted belongs to the endpoint of its stream.
pub(crate) fn authenticate(
    shared: &Shared,
    head: &Parts,
    peer: IpAddr,
) -> Result<Principal, Failure> {
    let stream = below(head.uri.path())
        .is_none()
        .then(|| stream_of(shared, head));
    match stream.flatten() {
        None => shared.authenticate(head, peer),
        Some(stream) => {
            let path = stream.path.as_deref().unwrap_or_default();
            shared.authenticate_at(&head.headers, &format!("/sse/{path}"), peer)
        }
    }
}

/// Answers a request to `/sse…` or `/messages`.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    (principal, peer): (Principal, IpAddr),
    head: Parts,
    body: Incoming,
) -> Result<Response, Failure> {
    match (below(head.uri.path()), &head.method) {
        (Some(path), &Verb::GET) => {
            shared.count_request(&principal)?;
            let path = Some(path).filter(|path| !path.is_empty());
            open(shared, &principal, (path, head.uri.query()))
        }
        (None, &Verb::POST) => post(shared, (principal, peer), head, body).await,
        (Some(_), _) => Ok(respond::method_not_allowed("GET")),
        (None, _) => Ok(respond::method_not_allowed("POST")),
    }
}

fn open(
    shared: &Arc<Shared>,
    principal: &Principal,
    (path, query): (Option<&str>, Option<&str>),
) -> Result<Response, Failure> {
    authorize::may_list(principal)?;
    Scope::find(&shared.snapshot.load(), path, principal)?;
    let place = shared.enter_stream()?;
    let (duplex, events) = Duplex::new(AT_ONCE);
    let id: Box<str> = vaxel_auth::random::token(ID).into();
    // What is posted there is seen as the stream is.
    let view = if meta::is_in(query) {
        format!("&{}", meta::ASKED)
    } else {
        String::new()
    };
    let endpoint = format!("event: endpoint\ndata: /messages?session={id}{view}\n\n");
    // The channel is new and has room.
    let _ = duplex.sender().try_send(endpoint.into());
    let stream = Arc::new(Stream {
        proof: principal.proof,
        path: path.map(Into::into),
        duplex,
    });
    let streams = &shared.streams_of_2024;
    streams.0.lock().insert(id.clone(), Arc::downgrade(&stream));
    shared
        .tasks
        .spawn(keep(Arc::clone(shared), stream, id, place));
    Ok(respond::stream(events))
}

/// Holds a stream until its client is gone.
async fn keep(shared: Arc<Shared>, stream: Arc<Stream>, id: Box<str>, place: OpenStream) {
    let duplex = &stream.duplex;
    tokio::select! {
        () = duplex.sender().closed() => {}
        () = duplex.stays_silent() => {}
        () = shared.stop.cancelled() => duplex.settled().await,
    }
    shared.streams_of_2024.0.lock().remove(&id);
    duplex.end(&shared);
    drop(place);
}

/// A message of a client; its answer goes onto the client's stream.
async fn post(
    shared: &Arc<Shared>,
    (principal, peer): (Principal, IpAddr),
    head: Parts,
    body: Incoming,
) -> Result<Response, Failure> {
    let stream = stream_of(shared, &head);
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
    let turn = stream.duplex.turn(&body).await?;
    // What is no request may be what a call waits for.
    if turn.is_some()
        && let Err(failure) = shared.count_request(&principal)
    {
        stream.duplex.refuse(&body, &failure);
        return Ok(respond::empty(StatusCode::ACCEPTED));
    }
    let snapshot = shared.snapshot.load_full();
    let found = Scope::find(&snapshot, stream.path.as_deref(), &principal);
    let scope = found.inspect_err(|failure| {
        shared.note_denied((&principal, peer), head.uri.path(), failure);
    })?;
    let context = Context {
        shared: Arc::clone(shared),
        snapshot,
        principal,
        scope,
        head,
        peer,
        carrier: Carrier::Stream,
    };
    stream.duplex.hear(context, body, turn);
    Ok(respond::empty(StatusCode::ACCEPTED))
}

fn stream_of(shared: &Shared, head: &Parts) -> Option<Arc<Stream>> {
    let id = session_id(head.uri.query().unwrap_or_default())?;
    shared.streams_of_2024.0.lock().get(id)?.upgrade()
}

fn session_id(query: &str) -> Option<&str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == "session").map(|(_, id)| id)
}
