//! The life of a request. Read this first: each phase is a file of the same name.
//!
//! accept → guard → authenticate → decode → edge (era → one internal request) → dispatch → route →
//! authorize → admit → validate → upstream → relay (answer in the caller's era) → record.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method as Verb, StatusCode, header, request::Parts};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::time::Instant;
use vaxel_core::{
    audit::{Came, Door},
    failure::{Failure, Kind},
    id::{Call, Id},
    principal::Principal,
};

use crate::{
    authenticate, challenge, decode, dispatch, edge,
    gateway::Shared,
    guard, http2, limits,
    respond::{self, Body, Response},
    route::Scope,
    snapshot::Snapshot,
    subscribe,
    upstream::NowPlus,
};

/// An error of a body that was made elsewhere.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of an answer of the [`Fallback`].
pub type FallbackBody = UnsyncBoxBody<Bytes, BoxError>;

/// Answers everything that is not the data plane's: the management API, documentation, metrics.
pub trait Fallback: Send + Sync + 'static {
    /// Answers one request. Its extensions hold [`Identity`], [`Peer`] and [`RequestId`], and a
    /// [`Toll`](crate::Toll) when its caller has a limit.
    fn call(
        &self,
        request: http::Request<Incoming>,
    ) -> BoxFuture<'static, http::Response<FallbackBody>>;
}

/// Who makes a request, or why that is not known.
#[derive(Clone, Debug)]
pub struct Identity(pub Result<Principal, Arc<Failure>>);

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Identifies a request in answers and logs.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(pub Id<Call>);

/// Marks an answer of the [`Fallback`] that says that there is nothing, because its caller may not know what
/// there is.
#[derive(Clone, Copy, Debug)]
pub struct Hidden;

/// What the phases know of one request besides its bytes.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) principal: Principal,
    pub(crate) scope: Scope,
    pub(crate) head: Parts,
    /// The address at the other end of the connection.
    pub(crate) peer: IpAddr,
    pub(crate) carrier: Carrier,
}

/// How a message came, and its answer goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// By a POST of its own: its headers say what it says, and its answer can be taken up again.
    Post,
    /// With others, whose answers go onto the same stream.
    Stream,
}

/// Answers one request.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    request: http::Request<Incoming>,
    peer: SocketAddr,
) -> Response {
    shared.metrics.requests.inc();
    let (head, body) = request.into_parts();
    if let Err(failure) = guard::check(&head.headers, &head.uri, &shared.tunables.load().web) {
        shared.metrics.refused.inc();
        unwanted(&shared, &head, body);
        return respond::problem(&failure, &request_id(&shared));
    }
    let path = head.uri.path();
    let below = match path.strip_prefix("/mcp") {
        Some("" | "/") => None,
        Some(rest) if rest.starts_with('/') => Some(rest.trim_matches('/').to_owned()),
        _ if edge::oldest::is_here(path) => {
            let principal = match edge::oldest::authenticate(&shared, &head, peer.ip()) {
                Ok(principal) => principal,
                Err(failure) => {
                    let id = shared.note_refused(&head.headers, peer.ip(), &failure);
                    return challenge::refuse(&shared, &head, (&failure, id));
                }
            };
            let who = (principal, peer.ip());
            let answered = edge::oldest::serve(&shared, who, head, body).await;
            return answered.unwrap_or_else(|failure| refused(&shared, &failure));
        }
        _ => return fall_back(&shared, head, body, peer).await,
    };
    let principal = match shared.authenticate(&head, peer.ip()) {
        Ok(principal) => principal,
        Err(failure) => {
            let id = shared.note_refused(&head.headers, peer.ip(), &failure);
            unwanted(&shared, &head, body);
            return challenge::refuse(&shared, &head, (&failure, id));
        }
    };
    let who = (principal, peer.ip());
    match mcp(&shared, (head, body), who, below.as_deref()).await {
        Ok(response) => response,
        Err(failure) => refused(&shared, &failure),
    }
}

/// The body of a request that is refused. HTTP/1.1 closes the connection, if need be.
fn unwanted(shared: &Shared, head: &Parts, body: Incoming) {
    if head.version == http::Version::HTTP_2 {
        http2::discard(shared, body);
    }
}

fn refused(shared: &Shared, failure: &Failure) -> Response {
    respond::problem(failure, &request_id(shared))
}

/// An MCP endpoint. `Err` is for what fails before there is a JSON-RPC request to answer.
async fn mcp(
    shared: &Arc<Shared>,
    (head, body): (Parts, Incoming),
    (principal, peer): (Principal, IpAddr),
    path: Option<&str>,
) -> Result<Response, Failure> {
    if let Err(failure) = shared.count_request(&principal) {
        return too_many(shared, &head, body, failure).await;
    }
    let told = limits::told(&principal);
    let mut answered = endpoint(shared, (principal, peer), (head, body), path).await?;
    if let Some(rights) = told {
        shared.tell(&mut answered, &rights);
    }
    Ok(answered)
}

/// The answer to a request of a caller that made too many: under its id, when it has one.
async fn too_many(
    shared: &Shared,
    head: &Parts,
    body: Incoming,
    failure: Failure,
) -> Result<Response, Failure> {
    if head.method == Verb::POST {
        let deadline = Instant::now_plus(shared.config.body_timeout);
        let body = decode::body(body, shared.config.body_max, deadline).await?;
        if let Some(refused) = limits::refused(&body, &failure) {
            return Ok(refused);
        }
    }
    Err(failure)
}

async fn endpoint(
    shared: &Arc<Shared>,
    (principal, peer): (Principal, IpAddr),
    (head, body): (Parts, Incoming),
    path: Option<&str>,
) -> Result<Response, Failure> {
    let snapshot = shared.snapshot.load_full();
    let scope = match Scope::find(&snapshot, path, &principal) {
        Ok(scope) => scope,
        Err(failure) => {
            let noted = shared.note_denied((&principal, peer), head.uri.path(), &failure);
            let id = noted.map_or_else(|| request_id(shared), |id| id.to_string());
            return Ok(respond::problem(&failure, &id));
        }
    };
    let context = Context {
        shared: Arc::clone(shared),
        snapshot,
        principal,
        scope,
        head,
        peer,
        carrier: Carrier::Post,
    };
    match context.head.method {
        Verb::GET if edge::websocket::is_wanted(&context.head.headers) => {
            edge::websocket::open(context, path)
        }
        Verb::POST => post(context, body).await,
        Verb::GET => subscribe::legacy_stream(&context),
        Verb::DELETE => edge::legacy::end(&context),
        _ => Ok(respond::method_not_allowed("POST, GET, DELETE")),
    }
}

async fn post(context: Context, body: Incoming) -> Result<Response, Failure> {
    let config = &context.shared.config;
    let kind = context
        .head
        .headers
        .get(header::CONTENT_TYPE)
        .map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"application/json")) {
        let detail = "The content type of an MCP request is application/json";
        return Err(Failure::new(Kind::Malformed, detail));
    }
    let deadline = Instant::now_plus(config.body_timeout);
    let body = decode::body(body, config.body_max, deadline).await?;
    if edge::batch::is_taken(&context, &body) {
        return edge::batch::answer(&context, &body);
    }
    match edge::open(&context, &body) {
        Ok(exchange) if challenge::is_too_narrow(&context.principal, exchange.request.method()) => {
            Ok(challenge::narrow(&context, &exchange))
        }
        Ok(exchange) => Ok(dispatch::dispatch(context, exchange).await),
        Err(answer) => Ok(*answer),
    }
}

async fn fall_back(
    shared: &Arc<Shared>,
    head: Parts,
    body: Incoming,
    peer: SocketAddr,
) -> Response {
    let asked = Asked::of(shared, &head, peer);
    let id = asked
        .came
        .request
        .unwrap_or_else(|| Id::new(shared.clock.now()));
    let told = asked.who.as_ref().ok().and_then(limits::told);
    let mut request = http::Request::from_parts(head, body);
    let extensions = request.extensions_mut();
    if told.is_some() {
        extensions.insert(limits::Toll(Arc::clone(shared)));
    }
    extensions.insert(Identity(asked.who.clone()));
    extensions.insert(Peer(peer));
    extensions.insert(RequestId(id));
    let response = shared.fallback(request).await;
    asked.look_at(shared, &response);
    let mut answered = response.map(Body::Fallback);
    if let Some(rights) = told {
        shared.tell(&mut answered, &rights);
    }
    answered
}

/// What is remembered of a request to the fallback, to note when it is refused.
struct Asked {
    who: Result<Principal, Arc<Failure>>,
    came: Came,
    headers: http::HeaderMap,
    what: String,
}

impl Asked {
    fn of(shared: &Shared, head: &Parts, peer: SocketAddr) -> Self {
        let agent = head.headers.get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok());
        let now = shared.clock.now();
        let came = Came {
            address: peer.ip(),
            door: Door::of_agent(agent.unwrap_or_default()),
            request: Some(Id::new(now)),
            sign_in: authenticate::sign_in(&head.headers, &shared.tokens.load(), now),
        };
        let who = shared.authenticate(head, peer.ip()).map_err(Arc::new);
        // What would show the credential that was refused is needed then alone.
        let headers = match &who {
            Ok(_) => http::HeaderMap::new(),
            Err(_) => head.headers.clone(),
        };
        Self {
            who: who.map(|who| Principal {
                came: Some(Arc::new(came.clone())),
                ..who
            }),
            came,
            headers,
            what: format!("{} {}", head.method, head.uri.path()),
        }
    }

    fn look_at(self, shared: &Shared, response: &http::Response<FallbackBody>) {
        let is_hidden = response.extensions().get::<Hidden>().is_some();
        match (self.who, response.status()) {
            (Err(failure), StatusCode::UNAUTHORIZED) => {
                shared.note_credential(&self.headers, self.came, &failure);
            }
            (Ok(who), StatusCode::FORBIDDEN) => {
                shared.note_refusal(&who, &self.what, Kind::NotPermitted);
            }
            (Ok(who), _) if is_hidden => shared.note_refusal(&who, &self.what, Kind::NotFound),
            _ => {}
        }
    }
}

pub(crate) fn request_id(shared: &Shared) -> String {
    Id::<Call>::new(shared.clock.now()).to_string()
}

impl Shared {
    /// The caller, or everyone when authentication is off. `peer` is where the request comes from.
    pub(crate) fn authenticate(&self, head: &Parts, peer: IpAddr) -> Result<Principal, Failure> {
        self.authenticate_at(&head.headers, head.uri.path(), peer)
    }

    /// The same where the endpoint is another one than the request's path says.
    pub(crate) fn authenticate_at(
        &self,
        headers: &http::HeaderMap,
        path: &str,
        peer: IpAddr,
    ) -> Result<Principal, Failure> {
        if !self.config.auth {
            return Ok(self.unguarded.clone());
        }
        let tokens = self.tokens.load();
        let known = (&self.keys, &**tokens);
        let (principal, used) =
            authenticate::authenticate((headers, path), known, self.clock.now())?;
        if let Some(mut used) = used {
            used.address = Some(peer);
            // When so many wait, this one is not noted.
            let _ = self.key_uses.try_send(used);
        }
        Ok(principal)
    }
}
