//! A call and its answer: the one place where a request reaches an upstream and the answer goes back
//! in the caller's era.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use vaxel_core::{
    call::Door,
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::Principal,
    sse,
};
use vaxel_mcp::{
    envelope::Envelope,
    error, headers,
    level::Level,
    method::Method,
    request::{ModernMeta, Request},
    response::{self, Response as Answered, Verdict},
    revision::{Era, Revision},
    translate,
};

use crate::{
    admit::{self, Permit},
    authorize::{self, Authorized},
    edge::{Client, Exchange},
    gateway::Shared,
    pipeline::Context,
    record::{Arrival, Recording},
    respond::{self, Body, Response},
    route::{Route, route},
    session::InFlight,
    upstream::{Answer, Event, Events, Link, NowPlus, Outbound},
};

/// Pieces of one answer on their way to the client. When it is full the upstream is read no
/// further, until the client has read or gone.
const PIECES: usize = 32;
/// How long a caller that does not read keeps the end of its call waiting.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Answers a `tools/call`, `prompts/get`, `resources/read` or `completion/complete`.
pub(crate) async fn call(context: Context, exchange: Exchange) -> Response {
    let routed = route(&context.snapshot, &context.scope, &exchange.request);
    let authorized = routed.and_then(|route| authorize::check(&context.principal, route));
    let authorized = match authorized {
        Ok(authorized) => authorized,
        Err(failure) => return refused(&exchange, &failure),
    };
    let mut recording = start_recording(&context, &exchange, authorized.get());
    let meta = exchange.client.meta(&context.shared.nobody);
    let cancel = match &exchange.client {
        Client::Legacy(session) => Some(session.enter(exchange.request.id())),
        Client::Modern => None,
    };
    let reaching = reach(&context.shared, &authorized);
    let reached = match unless_cancelled(cancel.as_ref(), reaching).await {
        Ok(reached) => reached,
        Err(failure) => {
            let response = refused(&exchange, &failure);
            record_failure(recording, &failure, cancel.as_ref());
            return response;
        }
    };
    recording.reached(reached.link.revision().as_str());
    if let Some(level) = exchange.log_level() {
        reached
            .link
            .want_level(level, context.principal.proof)
            .await;
    }
    let asked = ask(&context, &exchange, &authorized, &meta, &reached);
    let answer = match unless_cancelled(cancel.as_ref(), asked).await {
        Ok(Answer::Done(answered)) => Ok(answered),
        Ok(Answer::Stream(events)) if accepts_stream(&context) => {
            let pump = Pump {
                exchange,
                reached,
                recording,
                cancel,
                events,
            };
            return pump.start(&context.shared);
        }
        Ok(Answer::Stream(events)) => {
            unless_cancelled(cancel.as_ref(), last(events, reached.deadline)).await
        }
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(answered) => {
            let response = single(&exchange, reached.link.revision(), &answered);
            recording.answered(&answered);
            response
        }
        Err(failure) => {
            let response = refused(&exchange, &failure);
            record_failure(recording, &failure, cancel.as_ref());
            response
        }
    }
}

/// A call that its caller cancelled is no failure of the service: dropped, its record says so.
fn record_failure(recording: Recording, failure: &Failure, cancel: Option<&InFlight>) {
    if !cancel.is_some_and(InFlight::is_cancelled) {
        recording.failed(failure);
    }
}

/// An upstream that takes the call, and until when.
pub(crate) struct Reached {
    pub(crate) link: Link,
    pub(crate) deadline: Instant,
    _permit: Permit,
}

/// Takes a place among the calls of the service and chooses the instance.
pub(crate) async fn reach(
    shared: &Shared,
    authorized: &Authorized<Route>,
) -> Result<Reached, Failure> {
    let shard = &authorized.get().shard;
    let permit = admit::admit(shard, &shared.tunables.load())?;
    let deadline = Instant::now_plus(permit.timeout);
    let link = match shard.choose() {
        Ok(link) => link.clone(),
        // Rare, and kept out of the state that every call carries.
        Err(_) if shard.is_starting() => Box::pin(started(shared, shard.id, deadline)).await?,
        Err(failure) => return Err(failure),
    };
    Ok(Reached {
        link,
        deadline,
        _permit: permit,
    })
}

/// The first instance of a service that is being started; why there is none when that fails or
/// takes too long.
async fn started(
    shared: &Shared,
    service: Id<Service>,
    deadline: Instant,
) -> Result<Link, Failure> {
    let until = deadline.min(Instant::now_plus(shared.config.start_wait));
    let mut changed = shared.changed.subscribe();
    loop {
        let snapshot = shared.snapshot.load_full();
        let shard = snapshot.shard(service).ok_or_else(gone_meanwhile)?;
        let failure = match shard.choose() {
            Ok(link) => return Ok(link.clone()),
            Err(failure) => failure,
        };
        let is_over = !shard.is_starting() || timeout_at(until, changed.changed()).await.is_err();
        if is_over {
            return Err(failure);
        }
    }
}

fn gone_meanwhile() -> Failure {
    Failure::new(Kind::UnknownService, "The service is not here any more")
}

async fn ask(
    context: &Context,
    exchange: &Exchange,
    authorized: &Authorized<Route>,
    meta: &ModernMeta,
    reached: &Reached,
) -> Result<Answer, Failure> {
    let route = authorized.get();
    let param_headers = match exchange.client {
        Client::Modern => param_headers(&context.head.headers),
        Client::Legacy(_) => Vec::new(),
    };
    let out = Outbound {
        request: &exchange.request,
        key_json: route.own_json.as_deref(),
        key: &route.own,
        client_era: exchange.client.era(),
        meta,
        proof: context.principal.proof,
        wants_logs: exchange.log_level().is_some(),
        param_headers: &param_headers,
        deadline: reached.deadline,
    };
    reached.link.exchange(&out).await
}

/// A tool call of the REST door: the same route as every other, without an edge.
pub(crate) async fn call_tool(
    shared: &Arc<Shared>,
    principal: &Principal,
    request: &Request,
    authorized: &Authorized<Route>,
    within: Option<Duration>,
) -> Result<(Recording, Revision, Answered), (Option<Recording>, Failure)> {
    let route = authorized.get();
    let mut recording = Recording::start(
        shared,
        &route.shard,
        Arrival {
            method: request.method(),
            target: &route.own,
            principal,
            door: Door::Rest,
            client_revision: "",
            trace_id: None,
            request_bytes: request.body().len(),
            parameters: request.arguments(),
        },
    );
    let reached = match reach(shared, authorized).await {
        Ok(reached) => reached,
        Err(failure) => return Err((Some(recording), failure)),
    };
    let revision = reached.link.revision();
    recording.reached(revision.as_str());
    let nobody = shared.nobody.load();
    let deadline = within.map_or(reached.deadline, |within| {
        Instant::now_plus(within).min(reached.deadline)
    });
    let out = Outbound {
        request,
        key_json: None,
        key: &route.own,
        client_era: Era::Legacy,
        meta: &nobody,
        proof: principal.proof,
        wants_logs: false,
        param_headers: &[],
        deadline,
    };
    let answer = match reached.link.exchange(&out).await {
        Ok(Answer::Done(answered)) => Ok(answered),
        Ok(Answer::Stream(events)) => last(events, deadline).await,
        Err(failure) => Err(failure),
    };
    match answer {
        Ok(answered) => Ok((recording, revision, answered)),
        Err(failure) => Err((Some(recording), failure)),
    }
}

/// The end of a stream whose pieces nobody wants.
async fn last(mut events: Events, deadline: Instant) -> Result<Answered, Failure> {
    loop {
        if let Event::Done(answered) = events.next(deadline).await? {
            return Ok(answered);
        }
    }
}

async fn unless_cancelled<T>(
    cancel: Option<&InFlight>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(cancel) = cancel else {
        return work.await;
    };
    tokio::select! {
        biased;
        done = work => done,
        () = cancel.cancelled() => {
            Err(Failure::new(Kind::UpstreamLost, "The call was cancelled by its caller"))
        }
    }
}

fn start_recording(context: &Context, exchange: &Exchange, route: &Route) -> Recording {
    let request = &exchange.request;
    let arrival = Arrival {
        method: request.method(),
        target: &route.own,
        principal: &context.principal,
        door: Door::Mcp,
        client_revision: exchange.client.revision().as_str(),
        trace_id: exchange.trace_id.clone(),
        request_bytes: request.body().len(),
        parameters: request.arguments(),
    };
    Recording::start(&context.shared, &route.shard, arrival)
}

fn accepts_stream(context: &Context) -> bool {
    let accept = context
        .head
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/event-stream") || accept.contains("*/*"))
}

/// `Mcp-Param-*` mirrors arguments, which stay as they are: it is passed on.
fn param_headers(all: &http::HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut found = Vec::new();
    for (name, value) in all {
        if name.as_str().starts_with(headers::MCP_PARAM_PREFIX) {
            found.push((name.clone(), value.clone()));
        }
    }
    found
}

fn refused(exchange: &Exchange, failure: &Failure) -> Response {
    respond::failure(exchange.request.id(), failure, exchange.client.era())
}

/// An answer as one JSON body.
fn single(exchange: &Exchange, upstream: Revision, answered: &Answered) -> Response {
    let body = outward(exchange, upstream, answered);
    let status = match (exchange.client.era(), answered.verdict) {
        (Era::Modern, Verdict::Error) => error_status(&body),
        _ => StatusCode::OK,
    };
    respond::json(status, Body::full(body))
}

/// The answer in the caller's revision, under the caller's id.
fn outward(exchange: &Exchange, upstream: Revision, answered: &Answered) -> Bytes {
    let id = exchange.request.id();
    let client = exchange.client.revision();
    if client == upstream {
        return answered.with_id(id);
    }
    let method = exchange.request.method();
    match answered.payload() {
        Ok(result) => {
            if answered.verdict == Verdict::InputRequired && client.era() == Era::Legacy {
                let failure = Failure::new(
                    Kind::InteractionUnsupported,
                    "The service asks for input that this client did not declare it can give",
                );
                return error::render(id, &failure, Era::Legacy);
            }
            match to_revision(method, client, result) {
                Cow::Borrowed(_) => answered.with_id(id),
                Cow::Owned(changed) => response::result(id, &changed),
            }
        }
        Err(error) => match translate::error(method, client, error) {
            Cow::Borrowed(_) => answered.with_id(id),
            Cow::Owned(changed) => response::error_object(id, &changed),
        },
    }
}

/// A result in another revision.
pub(crate) fn to_revision(
    method: Method,
    revision: Revision,
    result: &serde_json::value::RawValue,
) -> Cow<'_, [u8]> {
    match revision.era() {
        Era::Modern => translate::result_to_modern(method, result, None),
        Era::Legacy => translate::result_to_legacy(method, revision, result),
    }
}

fn error_status(body: &[u8]) -> StatusCode {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Code,
    }
    #[derive(serde::Deserialize)]
    struct Code {
        code: i32,
    }
    let code = serde_json::from_slice::<Answer>(body).map_or(0, |answer| answer.error.code);
    StatusCode::from_u16(error::modern_status(code)).unwrap_or(StatusCode::OK)
}

/// Carries a streamed answer to its client, piece by piece, as a task of its own.
struct Pump {
    exchange: Exchange,
    reached: Reached,
    recording: Recording,
    cancel: Option<InFlight>,
    events: Events,
}

impl Pump {
    fn start(self, shared: &Arc<Shared>) -> Response {
        let (sender, receiver) = mpsc::channel(PIECES);
        shared.tasks.spawn(self.run(sender));
        respond::stream(receiver)
    }

    async fn run(mut self, sender: mpsc::Sender<Bytes>) {
        let Some(ended) = self.carry(&sender).await else {
            // Dropped unfinished, the record says that the caller went away.
            return;
        };
        let body = self.end(ended);
        // Nobody is left to be told when this fails; the record says how it ended.
        let _ = timeout(LAST_WORDS, sender.send(sse::event(&body, None))).await;
    }

    /// Passes notifications on up to the end of the call; `None` when its caller takes no more.
    async fn carry(&mut self, sender: &mpsc::Sender<Bytes>) -> Option<Result<Answered, Failure>> {
        loop {
            let next = self.events.next(self.reached.deadline);
            let event = tokio::select! {
                biased;
                event = unless_cancelled(self.cancel.as_ref(), next) => event,
                () = gone(sender, &self.exchange.client) => return None,
            };
            match event {
                Ok(Event::Notification(note)) => {
                    if self.wants(&note) && !self.pass_on(sender, &note).await {
                        return None;
                    }
                }
                Ok(Event::Done(answered)) => return Some(Ok(answered)),
                Err(failure) => return Some(Err(failure)),
            }
        }
    }

    /// False when the caller takes no more: a modern one that is gone, or one of either era that
    /// does not read before the call's time is up.
    async fn pass_on(&mut self, sender: &mpsc::Sender<Bytes>, note: &[u8]) -> bool {
        let sending = sender.send(sse::event(note, None));
        match timeout_at(self.reached.deadline, sending).await {
            Ok(Ok(())) => true,
            // A legacy client that went away did not cancel: the call goes on.
            Ok(Err(_)) => matches!(self.exchange.client, Client::Legacy(_)),
            Err(_) => false,
        }
    }

    /// Writes the record, gives the place among the service's calls back, and says what is left to
    /// be said.
    fn end(self, ended: Result<Answered, Failure>) -> Bytes {
        match ended {
            Ok(answered) => {
                let upstream = self.reached.link.revision();
                let body = outward(&self.exchange, upstream, &answered);
                self.recording.answered(&answered);
                body
            }
            Err(failure) => {
                let era = self.exchange.client.era();
                let body = error::render(self.exchange.request.id(), &failure, era);
                record_failure(self.recording, &failure, self.cancel.as_ref());
                body
            }
        }
    }

    /// Progress goes to who asked for it by a token, log lines to who set a level.
    fn wants(&self, note: &[u8]) -> bool {
        let Ok(envelope) = Envelope::parse(note) else {
            return false;
        };
        let method = envelope.method.as_deref().map(Method::of);
        if method != Some(Method::LogMessage) {
            return method.is_some();
        }
        let level = envelope.params.and_then(Level::of_message);
        match self.exchange.log_level() {
            Some(wanted) => level.is_none_or(|level| level >= wanted),
            // A legacy server may send what it likes until its client says otherwise.
            None => self.exchange.client.era() == Era::Legacy,
        }
    }
}

/// Resolves when a modern client has gone away, which cancels its call (MCP 2026-07-28, Streamable
/// HTTP, "Cancellation"); never for a legacy one, whose disconnect does not.
async fn gone(sender: &mpsc::Sender<Bytes>, client: &Client) {
    match client {
        Client::Modern => sender.closed().await,
        Client::Legacy(_) => std::future::pending().await,
    }
}
