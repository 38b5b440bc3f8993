//! A call and its answer: the one place where a request reaches an upstream. What is more than one
//! answer (notes, questions) becomes a conversation.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, request::Parts};
use serde_json::{json, value::RawValue};
use tokio::time::{Instant, error::Elapsed, timeout_at};
use vaxel_core::{
    call::Door,
    failure::{Failure, Kind},
    id::{Id, Service},
    principal::{Principal, Proof},
};
use vaxel_mcp::{
    error::{HEADER_MISMATCH, URL_ELICITATION_REQUIRED},
    handshake::capabilities::Answers,
    headers::{self, params::Mismatch},
    interaction::required_urls,
    method::Method,
    request::{Input, Request},
    response::{self, Response as Answered, Verdict},
    revision::{Era, Revision},
};

use crate::{
    addresses,
    admit::{self, Asking, Permit},
    answer,
    authorize::{self, Authorized},
    conversation::Conversation,
    edge::{self, Client, Exchange, modern},
    gateway::Shared,
    interactions::{Binding, Parked, Resumed},
    pipeline::{Carrier, Context},
    record::{Arrival, Recording},
    respond::{self, Response},
    route::{self, Route, route},
    session::InFlight,
    snapshot::{Shard, Snapshot},
    tasks,
    upstream::{
        self, Answer, Engaged, Event, Events, NowPlus, OnBehalf, Outbound, pulse::was_unsent,
    },
    validate,
};

/// Seconds after which it is worth calling again when no instance takes connections.
const RETRY_AFTER: u32 = 5;

/// A call that found its upstream.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) principal: Principal,
    head: Parts,
    pub(crate) exchange: Exchange,
    authorized: Authorized<Route>,
    /// What its addresses were decided on, where they may differ from those that the service knows.
    addresses: Option<Arc<Snapshot>>,
    pub(crate) reached: Reached,
    pub(crate) recording: Recording,
    pub(crate) cancel: Option<InFlight>,
}

/// Answers a `tools/call`, `prompts/get`, `resources/read` or `completion/complete`.
pub(crate) async fn call(context: Context, exchange: Exchange) -> Response {
    let routed = match exchange.request.method() {
        method if method.is_about_task() => tasks::route(&context, &exchange.request),
        _ => route(&context.snapshot, &context.scope, &exchange.request),
    };
    let authorized = match routed.and_then(|route| authorized(&context, &exchange.request, route)) {
        Ok(authorized) => authorized,
        Err(failure) => {
            let request = &exchange.request;
            let what = request.key().unwrap_or_default();
            let what = format!("{} {what}", request.method().as_str());
            let mut answer = refused(&exchange, &failure);
            context.note_denied(&what, &failure, &mut answer);
            return answer;
        }
    };
    if let Err(mismatch) = check_mirrored(&context, &exchange, authorized.get()) {
        return modern::refuse(
            exchange.request.id(),
            HEADER_MISMATCH,
            &mismatch.to_string(),
        );
    }
    let mut recording = start_recording(&context, &exchange, authorized.get());
    let cancel = match &exchange.client {
        Client::Legacy(session) => Some(session.enter(exchange.request.id())),
        Client::Modern => None,
    };
    let arguments = exchange.request.arguments();
    let asking = Asking {
        goes_on: state_of(&exchange).is_some(),
        ..Asking::new(&context.principal, &exchange.request)
    };
    let reaching = async {
        let reaching = pin!(reach(&context.shared, &authorized, arguments, asking));
        let reaching = context.shared.cut.unless(reaching);
        unless_cancelled(cancel.as_ref(), reaching).await
    };
    let reached = match reaching.await {
        Ok(reached) => reached,
        Err(failure) => {
            let response = refused(&exchange, &failure);
            record_failure(recording, &failure, cancel.as_ref());
            return response;
        }
    };
    recording.reached(reached.link.revision().as_str());
    let shares_addresses = authorized.get().shares_addresses;
    let mut call = Call {
        addresses: shares_addresses.then_some(context.snapshot),
        shared: context.shared,
        principal: context.principal,
        head: context.head,
        exchange,
        authorized,
        reached,
        recording,
        cancel,
    };
    match call.resume() {
        Ok(None) => {}
        Ok(Some(parked)) => return Box::pin(Conversation::resume(call, parked)).await,
        Err(failure) => return call.fail(&failure),
    }
    let begun = call.begin().await;
    match begun.or_else(|failure| call.or_consent(failure)) {
        Ok(Answer::Done(answered)) if !call.goes_on_after(&answered) => {
            match call.judge(&answered).await {
                Ok(()) => call.answer(&answered),
                Err(failure) => call.fail(&failure),
            }
        }
        Ok(answer) => Box::pin(Conversation::begin(call, answer)).await,
        Err(failure) => call.fail(&failure),
    }
}

impl Call {
    /// A modern client's retry: what it brings goes to the server that asked, or to the call that
    /// waits here for it.
    fn resume(&mut self) -> Result<Option<Box<Parked>>, Failure> {
        let request = &self.exchange.request;
        let Some((input, state)) = state_of(&self.exchange) else {
            return Ok(None);
        };
        match self.shared.interactions.resume(&self.binding(), state)? {
            Resumed::Parked(parked) => Ok(Some(parked)),
            Resumed::Gone => Err(Failure::new(
                Kind::InteractionUnsupported,
                "The interaction has expired: its answers came too late, or Vaxel was restarted. \
                 Call again",
            )),
            Resumed::Server(own) => {
                // To the server it is one more: whoever repeats it repeats the call.
                let asking = Asking::new(&self.principal, request);
                admit::count(&self.shared, self.authorized.get(), asking)?;
                // A legacy server that refused the call knows of no answers: it is called as before.
                let takes_answers = self.reached.link.era() == Era::Modern;
                let input = Input {
                    responses: input.responses.filter(|_| takes_answers),
                    state: own.as_deref(),
                };
                let retried = request.retried(request.id(), &input);
                self.exchange.request = retried.map_err(Failure::internal)?;
                Ok(None)
            }
        }
    }

    /// A server that wants its user to log in has said so in the words of a legacy one, where the client can be
    /// asked to visit a page: old clients know them, new ones are asked by a result, and their retry is the same
    /// call again.
    fn or_consent(&self, failure: Failure) -> Result<Answer, Failure> {
        let link = failure.link.as_deref();
        let Some(link) =
            link.filter(|_| failure.kind == Kind::ConsentNeeded && self.answers().urls)
        else {
            return Err(failure);
        };
        let elicitation = json!({
            "mode": "url",
            "elicitationId": self.recording.id().map(|id| id.to_string()),
            "url": link,
            "message": format!("`{}` wants you to log in there", self.authorized.get().shard.name),
        });
        let data = json!({ "elicitations": [elicitation] }).to_string();
        let id = self.exchange.request.id();
        let told = response::error(
            id,
            URL_ELICITATION_REQUIRED,
            &failure.detail,
            Some(data.as_bytes()),
        );
        let told = Answered::read(told).map_err(Failure::internal)?;
        Ok(Answer::Done(told))
    }

    /// Whether an answer may be a question: of a modern server, or a refusal of a legacy one that a
    /// modern client can do something about.
    fn goes_on_after(&self, answered: &Answered) -> bool {
        match answered.verdict {
            Verdict::InputRequired => true,
            Verdict::Error => {
                let eras = (self.exchange.client.era(), self.reached.link.era());
                let asks_to_visit = || {
                    let error = answered.payload().err();
                    error.is_some_and(|error| !required_urls(error).is_empty())
                };
                eras.0 == Era::Modern && (eras.1 == Era::Legacy || asks_to_visit())
            }
            _ => false,
        }
    }

    /// Sends the client's request: to one instance after the other, as long as none can have had it.
    async fn begin(&mut self) -> Result<Answer, Failure> {
        loop {
            let asked = async {
                let asked = pin!(self.ask(&self.exchange.request));
                let asked = self.shared.cut.unless(asked);
                unless_cancelled(self.cancel.as_ref(), asked).await
            };
            let mut asked = asked.await;
            if let Err(failure) = &mut asked
                && self.goes_elsewhere(failure)
            {
                continue;
            }
            return asked;
        }
    }

    /// Sends `request`, the client's own or its retry.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        let route = self.authorized.get();
        let meta = self.exchange.client.meta(&self.shared.nobody);
        let param_headers = match (&route.mirrored, &self.exchange.client) {
            (Some(mirrored), _) => mirrored.mirror(request.arguments()),
            (None, Client::Modern) => {
                let is_extension = request.method() == Method::Other;
                param_headers(&self.head.headers, is_extension)
            }
            (None, Client::Legacy(_)) => Vec::new(),
        };
        let told = self.reached.link.told(&self.principal)?;
        let out = Outbound {
            request,
            key_json: route.own_json.as_deref(),
            key: &route.own,
            client_era: self.exchange.client.era(),
            meta: &meta,
            on_behalf: self.on_behalf(),
            user: upstream::user_of(&self.principal),
            told: told.as_ref(),
            client: match &self.exchange.client {
                Client::Legacy(session) => Some(session),
                Client::Modern => None,
            },
            wants_logs: self.exchange.log_level().is_some(),
            param_headers: &param_headers,
            call: self.recording.id(),
            deadline: self.reached.deadline,
        };
        if let Some(level) = self.exchange.log_level() {
            self.reached.link.want_level(level, out.on_behalf).await;
        }
        self.reached.link.exchange(&out).await
    }

    /// Whether another instance is to be asked, since this one cannot have had the request.
    fn goes_elsewhere(&mut self, failure: &mut Failure) -> bool {
        let caller = self.principal.proof;
        self.reached
            .instead(&self.authorized.get().shard, caller, failure)
    }

    fn on_behalf(&self) -> OnBehalf {
        let answers = match self.reached.link.era() {
            Era::Legacy => self.answers(),
            // Modern servers are told with each request.
            Era::Modern => Answers::default(),
        };
        let client = match &self.exchange.client {
            Client::Legacy(session) => Some(session.id),
            Client::Modern => None,
        };
        let link = &self.reached.link;
        link.on_behalf(self.principal.proof, answers, client)
    }

    /// Which questions of a server the client answers.
    pub(crate) fn answers(&self) -> Answers {
        match &self.exchange.client {
            Client::Legacy(session) => session.answers,
            Client::Modern => match self.exchange.request.capabilities() {
                Some(declared) if declared.get() != "{}" => Answers::of(Revision::LATEST, declared),
                _ => Answers::default(),
            },
        }
    }

    /// What a question of this call is bound to.
    pub(crate) fn binding(&self) -> Binding {
        Binding::of(
            &self.principal,
            self.authorized.get(),
            &self.exchange.request,
        )
    }

    /// The longest time that the service may work without asking.
    pub(crate) const fn timeout(&self) -> Duration {
        self.reached.permit.timeout
    }

    pub(crate) fn accepts_stream(&self) -> bool {
        edge::accepts_stream(&self.head)
    }

    /// Whether an answer is what the tool promises.
    pub(crate) async fn judge(&self, answered: &Answered) -> Result<(), Failure> {
        validate::result(self.authorized.get(), answered, self.reached.deadline).await
    }

    pub(crate) fn answer(self, answered: &Answered) -> Response {
        let response = answer::single(&self.exchange, answered.verdict, self.outward(answered));
        self.recording.answered(answered);
        response
    }

    /// An answer as the caller reads it.
    pub(crate) fn outward(&self, answered: &Answered) -> Bytes {
        let link = &self.reached.link;
        let task = self.shared.task_ids.outward(
            self.principal.proof,
            (self.authorized.get(), link),
            (&self.exchange.request, answered),
        );
        let answered = task.as_ref().unwrap_or(answered);
        let (route, method) = (self.authorized.get(), self.exchange.request.method());
        let snapshot = self.addresses.as_deref();
        let known = addresses::outward(snapshot, (route, method), answered);
        let answered = known.as_ref().unwrap_or(answered);
        answer::outward(&self.exchange, link.revision(), answered)
    }

    pub(crate) fn fail(self, failure: &Failure) -> Response {
        let response = refused(&self.exchange, failure);
        record_failure(self.recording, failure, self.cancel.as_ref());
        response
    }
}

/// What a modern client's retry brings, and what it goes on with.
fn state_of(exchange: &Exchange) -> Option<(Input<'_>, &RawValue)> {
    let input = exchange.request.input();
    let input = input.filter(|_| exchange.client.era() == Era::Modern)?;
    let state = input.state?;
    Some((input, state))
}

/// A call that its caller cancelled is no failure of the service: dropped, its record says so.
pub(crate) fn record_failure(recording: Recording, failure: &Failure, cancel: Option<&InFlight>) {
    if !cancel.is_some_and(InFlight::is_cancelled) {
        recording.failed(failure);
    }
}

/// An upstream that takes the call, and until when.
pub(crate) struct Reached {
    pub(crate) link: Engaged,
    pub(crate) deadline: Instant,
    permit: Permit,
    /// Instances that did not take the request.
    refused: Vec<u64>,
}

impl Reached {
    /// Takes another instance in the place of one that a request cannot have reached; false when the
    /// failure is the answer.
    fn instead(&mut self, shard: &Shard, caller: Proof, failure: &mut Failure) -> bool {
        if !was_unsent(failure) {
            return false;
        }
        self.refused.push(self.link.id());
        if let Some(link) = shard.choose_but(&self.refused, caller) {
            self.link = link;
            return true;
        }
        failure.retry_after.get_or_insert(RETRY_AFTER);
        false
    }
}

/// Takes a place among the calls of the service, chooses the instance and looks at the arguments.
pub(crate) async fn reach(
    shared: &Shared,
    authorized: &Authorized<Route>,
    arguments: Option<&str>,
    asking: Asking<'_>,
) -> Result<Reached, Failure> {
    let (shard, caller) = (&authorized.get().shard, asking.caller.proof);
    let permit = admit::admit(shared, authorized.get(), asking)?;
    let deadline = Instant::now_plus(permit.timeout);
    let link = match shard.choose_for(authorized.get().instance, caller) {
        Ok(link) => link,
        // Rare, and kept out of the state that every call carries.
        Err(_) if shard.is_awaited() => {
            Box::pin(arrived(shared, (shard.id, caller), deadline)).await?
        }
        Err(failure) => return Err(failure),
    };
    validate::arguments(authorized.get(), arguments, deadline).await?;
    Ok(Reached {
        link,
        deadline,
        permit,
        refused: Vec::new(),
    })
}

/// The first instance of a service that is being started, or is for this; why there is none when that
/// fails or takes too long.
async fn arrived(
    shared: &Shared,
    (service, caller): (Id<Service>, Proof),
    deadline: Instant,
) -> Result<Engaged, Failure> {
    let until = deadline.min(Instant::now_plus(shared.config.start_wait));
    let mut changed = shared.changed.subscribe();
    loop {
        let snapshot = shared.snapshot.load_full();
        let shard = snapshot.shard(service).ok_or_else(gone_meanwhile)?;
        let failure = match shard.choose(caller) {
            Ok(link) => return Ok(link),
            Err(failure) => failure,
        };
        shard.wake();
        let is_over = !shard.is_awaited() || timeout_at(until, changed.changed()).await.is_err();
        if is_over {
            return Err(failure);
        }
    }
}

fn gone_meanwhile() -> Failure {
    Failure::new(Kind::UnknownService, "The service is not here any more")
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
    let own = route.shard.timeout;
    let own = own.unwrap_or_else(|| shared.tunables.load().call_timeout);
    let hurry = within.filter(|time| *time < own).map(Instant::now_plus);
    if hurry.is_some() {
        recording.hurried();
    }
    let asking = Asking::new(principal, request);
    let reaching = reach(shared, authorized, request.arguments(), asking);
    let reached = match hurry {
        Some(end) => in_time(&route.shard, timeout_at(end, reaching).await),
        None => reaching.await,
    };
    let mut reached = match reached {
        Ok(reached) => reached,
        Err(failure) => return Err((Some(recording), failure)),
    };
    let revision = reached.link.revision();
    recording.reached(revision.as_str());
    let nobody = shared.nobody.load();
    let deadline = hurry.unwrap_or(reached.deadline);
    let mirrored = route.mirrored.as_ref();
    let param_headers = mirrored.map_or_else(Vec::new, |one| one.mirror(request.arguments()));
    let told = match reached.link.told(principal) {
        Ok(told) => told,
        Err(failure) => return Err((Some(recording), failure)),
    };
    let mut out = Outbound {
        request,
        key_json: None,
        key: &route.own,
        client_era: Era::Legacy,
        meta: &nobody,
        on_behalf: (reached.link).on_behalf(principal.proof, Answers::default(), None),
        user: upstream::user_of(principal),
        told: told.as_ref(),
        client: None,
        wants_logs: false,
        param_headers: &param_headers,
        call: recording.id(),
        deadline,
    };
    let answer = async {
        let exchanged = loop {
            let mut exchanged = if hurry.is_some() {
                reached.link.exchange_hurriedly(&out).await
            } else {
                reached.link.exchange(&out).await
            };
            if let Err(failure) = &mut exchanged
                && reached.instead(&route.shard, principal.proof, failure)
            {
                out.on_behalf = (reached.link).on_behalf(principal.proof, Answers::default(), None);
                continue;
            }
            break exchanged;
        };
        match exchanged? {
            Answer::Done(answered) => Ok(answered),
            Answer::Stream(events) => last(events, deadline).await,
        }
    };
    let answer = async {
        let answer = pin!(answer);
        let answer = pin!(shared.cut.unless(answer));
        shared.cut.drive(answer).await
    };
    match answer.await {
        Ok(answered) if answered.verdict == Verdict::InputRequired => {
            Err((Some(recording), not_here()))
        }
        Ok(answered) => match validate::result(route, &answered, deadline).await {
            Ok(()) => Ok((recording, revision, answered)),
            Err(failure) => Err((Some(recording), failure)),
        },
        Err(failure) => Err((Some(recording), failure)),
    }
}

/// What came of reaching a service for a caller with little time.
fn in_time(
    shard: &Shard,
    reached: Result<Result<Reached, Failure>, Elapsed>,
) -> Result<Reached, Failure> {
    reached.unwrap_or_else(|_| {
        let detail = format!("`{}` took no call in the time that you gave it", shard.name);
        Err(Failure::new(Kind::UpstreamTimeout, detail))
    })
}

fn not_here() -> Failure {
    Failure::new(
        Kind::InteractionUnsupported,
        "The service asks its caller for input, which this door cannot pass on: call it over MCP",
    )
}

/// The end of a stream whose pieces nobody wants, and whose questions nobody answers.
pub(crate) async fn last(mut events: Events, deadline: Instant) -> Result<Answered, Failure> {
    loop {
        match events.next(deadline).await? {
            Event::Notification(_) => {}
            Event::Question(asked) => events.reply(asked.refusal()),
            Event::Done(answered) => return Ok(answered),
        }
    }
}

pub(crate) async fn unless_cancelled<T>(
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

/// The right to take a route; what the caller may not know of is as if it were not there.
fn authorized(
    context: &Context,
    request: &Request,
    route: Route,
) -> Result<Authorized<Route>, Failure> {
    let principal = &context.principal;
    let asked = (request.arguments(), context.shared.clock.now());
    let checked = match request.method() {
        method if method.is_about_task() => authorize::check_begun(principal, route),
        _ => authorize::check(principal, route, asked),
    };
    checked.map_err(|denied| {
        let unknown = || match request.method() {
            method if method.is_about_task() => tasks::unknown(),
            method => route::unknown(method, &context.scope, &request.key().unwrap_or_default()),
        };
        authorize::unknown(denied, unknown)
    })
}

/// Whether the headers of a modern client say what its arguments say.
fn check_mirrored(context: &Context, exchange: &Exchange, route: &Route) -> Result<(), Mismatch> {
    match (&route.mirrored, &exchange.client) {
        (Some(mirrored), Client::Modern) if context.carrier == Carrier::Post => {
            mirrored.check(exchange.request.arguments(), &context.head.headers)
        }
        _ => Ok(()),
    }
}

/// `Mcp-Param-*` headers that mean nothing here are passed on; so is the name that a request of an
/// extension is about.
fn param_headers(all: &http::HeaderMap, is_extension: bool) -> Vec<(HeaderName, HeaderValue)> {
    let mut found = Vec::new();
    for (name, value) in all {
        let is_name = is_extension && *name == headers::MCP_NAME;
        if is_name || name.as_str().starts_with(headers::MCP_PARAM_PREFIX) {
            found.push((name.clone(), value.clone()));
        }
    }
    found
}

fn refused(exchange: &Exchange, failure: &Failure) -> Response {
    match answer::of_tool(exchange, failure) {
        Some(body) => respond::json(http::StatusCode::OK, respond::Body::full(body)),
        None => respond::failure(exchange.request.id(), failure, exchange.client.era()),
    }
}
