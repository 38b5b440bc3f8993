//! A call that is more than one answer: notes on the way, questions of the server to its client, and
//! then the end. What the four pairs of eras do differently about questions stands here and nowhere
//! else.
//!
//! | client | legacy server asks by a request | modern server asks by its result |
//! |---|---|---|
//! | legacy | asked on the call's own stream, answers handed over | the same; with all answers the server is called again |
//! | modern | the call waits in `interactions`, the client is asked by a result | the result passes, its state sealed |

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use vaxel_core::{
    failure::{Failure, Kind},
    sse,
};
use vaxel_mcp::{
    envelope::Envelope,
    interaction::{self, Round},
    level::Level,
    meta,
    method::Method,
    request::Input,
    response::{self, Response as Answered, Verdict},
    revision::Era,
};

use crate::{
    answer,
    edge::Client,
    interactions::{OpenQuestion, Parked},
    relay::{Call, record_failure, unless_cancelled},
    respond::{self, Body, Response},
    session::Session,
    upstream::{Answer, Asked, Event, Events, NowPlus},
};

/// Pieces of one answer on their way to the client. When it is full the upstream is read no
/// further, until the client has read or gone.
const PIECES: usize = 32;
/// How long a caller that does not read keeps the end of its call waiting.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// Questions of one call that may be open at once; a server that asks more is refused.
const QUESTIONS: usize = 32;
/// Rounds of questions of one modern server before its call is given up.
const ROUNDS: u32 = 8;
/// Questions that come within this time are asked together.
const TOGETHER: Duration = Duration::from_millis(5);
/// Pause before a server that asked nothing is called again with its state.
const PACE: Duration = Duration::from_millis(250);

pub(crate) struct Conversation {
    call: Call,
    server: Server,
    /// What the server asked and the client has not answered.
    open: Vec<OpenQuestion>,
    asked: u32,
    rounds: u32,
}

/// Where the server stands.
enum Server {
    /// It works; its pieces come from here.
    Works(Events),
    /// A modern one ended its answer with questions; these are the answers so far, and its state.
    Asks(Vec<u8>, Option<Box<RawValue>>),
    /// It has answered at once.
    Done(Answered),
}

/// How a call ended.
enum End {
    Answered(Answered),
    Failed(Failure),
}

/// An answer of a legacy client, with the key of its question.
type Reply = BoxFuture<'static, (Box<str>, Option<Answered>)>;

impl Conversation {
    /// Carries on after the first piece of an answer.
    pub(crate) async fn begin(call: Call, first: Answer) -> Response {
        let server = match first {
            Answer::Stream(events) => Server::Works(events),
            Answer::Done(answered) => Server::Done(answered),
        };
        Self::of(call, server, Vec::new()).start().await
    }

    /// Carries on with a call that waited for its client's answers, which it brings now.
    pub(crate) async fn resume(mut call: Call, parked: Box<Parked>) -> Response {
        call.reached.link = parked.link;
        let mut resumed = Self::of(call, Server::Works(parked.events), parked.open);
        if let Err(failure) = resumed.take_brought() {
            return resumed.call.fail(&failure);
        }
        resumed.start().await
    }

    fn of(call: Call, server: Server, open: Vec<OpenQuestion>) -> Self {
        Self {
            call,
            server,
            open,
            asked: 0,
            rounds: 0,
        }
    }

    /// Answers with a stream where there may be more than the end to tell, and the client takes one.
    async fn start(mut self) -> Response {
        let is_over = matches!(self.server, Server::Done(_))
            && self.call.exchange.client.era() == Era::Modern;
        if is_over || !self.call.accepts_stream() {
            let end = self.carry(None).await;
            return self.single(end);
        }
        let (sender, receiver) = mpsc::channel(PIECES);
        let shared = Arc::clone(&self.call.shared);
        shared.tasks.spawn(self.stream(sender));
        respond::stream(receiver)
    }

    fn single(self, end: Option<End>) -> Response {
        match end {
            Some(End::Answered(answered)) => self.call.answer(&answered),
            Some(End::Failed(failure)) => self.call.fail(&failure),
            // Nobody is left to read it.
            None => respond::json(http::StatusCode::OK, Body::EMPTY),
        }
    }

    async fn stream(mut self, sender: mpsc::Sender<Bytes>) {
        let shared = Arc::clone(&self.call.shared);
        let Some(end) = shared.cut.drive(pin!(self.carry(Some(&sender)))).await else {
            // Dropped unfinished, the record says that the caller went away.
            return;
        };
        let body = self.end(end);
        // Nobody is left to be told when this fails; the record says how it ended.
        let _ = timeout(LAST_WORDS, sender.send(sse::event(&body, None))).await;
    }

    /// Writes the record, gives the place among the service's calls back, and says what is left to
    /// be said.
    fn end(self, end: End) -> Bytes {
        match end {
            End::Answered(answered) => {
                let body = self.call.outward(&answered);
                self.call.recording.answered(&answered);
                body
            }
            End::Failed(failure) => {
                let Call {
                    exchange,
                    recording,
                    cancel,
                    ..
                } = self.call;
                let body = answer::of_failure(&exchange, &failure);
                record_failure(recording, &failure, cancel.as_ref());
                body
            }
        }
    }

    /// Up to the end; `None` when the caller takes no more.
    async fn carry(&mut self, sender: Option<&mpsc::Sender<Bytes>>) -> Option<End> {
        let shared = Arc::clone(&self.call.shared);
        let cut = &shared.cut;
        let cancel = self.call.cancel.take();
        let carried = match &self.call.exchange.client {
            Client::Legacy(session) => {
                let session = Arc::clone(session);
                let carrying = pin!(self.with_session(&session, sender));
                unless_cancelled(cancel.as_ref(), cut.unless(carrying)).await
            }
            Client::Modern => {
                let carrying = pin!(self.without_session(sender));
                tokio::select! {
                    biased;
                    carried = cut.unless(carrying) => carried,
                    // A modern client that goes away cancels its call (MCP 2026-07-28, Streamable
                    // HTTP, "Cancellation"); the disconnect of a legacy one does not.
                    () = gone(sender) => return None,
                }
            }
        };
        self.call.cancel = cancel;
        match carried {
            Ok(Some(answered)) => Some(match self.call.judge(&answered).await {
                Ok(()) => End::Answered(answered),
                Err(failure) => End::Failed(failure),
            }),
            Ok(None) => None,
            Err(failure) => Some(End::Failed(failure)),
        }
    }

    /// A legacy client is asked on the stream of its call.
    async fn with_session(
        &mut self,
        session: &Arc<Session>,
        sender: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Option<Answered>, Failure> {
        let mut replies: FuturesUnordered<Reply> = FuturesUnordered::new();
        loop {
            let event = tokio::select! {
                biased;
                Some((key, reply)) = replies.next(), if !replies.is_empty() => {
                    self.take(&key, reply.as_ref())?;
                    continue;
                }
                event = self.next() => event?,
            };
            match event {
                Event::Notification(note) => {
                    if self.wants(&note) && !self.pass_on(sender, &note).await {
                        return Ok(None);
                    }
                }
                Event::Question(asked) => {
                    self.ask_client(session, sender, *asked, &mut replies)
                        .await?;
                }
                Event::Done(answered) if answered.verdict == Verdict::InputRequired => {
                    let questions = self.next_round(&answered)?;
                    for asked in questions {
                        self.ask_client(session, sender, asked, &mut replies)
                            .await?;
                    }
                }
                Event::Done(answered) => return Ok(Some(answered)),
            }
        }
    }

    /// A modern client is asked by a result.
    async fn without_session(
        &mut self,
        sender: Option<&mpsc::Sender<Bytes>>,
    ) -> Result<Option<Answered>, Failure> {
        loop {
            if !self.open.is_empty() {
                return self.wait_for_client().await.map(Some);
            }
            match self.next().await? {
                Event::Notification(note) => {
                    if self.wants(&note) && !self.pass_on(sender, &note).await {
                        return Ok(None);
                    }
                }
                Event::Question(asked) => self.hear(*asked),
                Event::Done(answered) if answered.verdict == Verdict::InputRequired => {
                    return self.seal(&answered).map(Some);
                }
                Event::Done(answered) => return self.or_urls(answered).map(Some),
            }
        }
    }

    /// The next piece of the server's answer, or a failure when it takes too long.
    async fn next(&mut self) -> Result<Event, Failure> {
        let deadline = self.call.reached.deadline;
        match &mut self.server {
            Server::Works(events) => events.next(deadline).await,
            Server::Asks(..) if self.open.is_empty() => self.call_again().await,
            Server::Asks(..) => {
                sleep_until(deadline).await;
                Err(unanswered("did not answer in time"))
            }
            Server::Done(answered) => Ok(Event::Done(answered.clone())),
        }
    }

    /// Notes a question of a legacy server, or refuses it when its client cannot be asked.
    fn hear(&mut self, asked: Asked) {
        let can =
            self.open.len() < QUESTIONS && asked.question.is_answered_by(&self.call.answers());
        if !can {
            return self.reply(asked.refusal());
        }
        self.asked += 1;
        self.open.push(OpenQuestion {
            key: format!("q{}", self.asked).into(),
            asked,
        });
    }

    /// Leaves the call here until its client comes back with answers.
    async fn wait_for_client(&mut self) -> Result<Answered, Failure> {
        let until = Instant::now_plus(TOGETHER);
        let mut ended = None;
        while let Server::Works(events) = &mut self.server {
            match timeout_at(until, events.next(self.call.reached.deadline)).await {
                Ok(Ok(Event::Question(asked))) => self.hear(*asked),
                // Notes that come now are lost: the client is about to be answered.
                Ok(Ok(Event::Notification(_))) => {}
                Ok(Ok(Event::Done(answered))) => {
                    ended = Some(answered);
                    break;
                }
                Ok(Err(failure)) => return Err(failure),
                Err(_) => break,
            }
        }
        if let Some(answered) = ended {
            // It did not wait for its own questions.
            self.open.clear();
            return Ok(answered);
        }
        let Server::Works(events) =
            std::mem::replace(&mut self.server, Server::Asks(Vec::new(), None))
        else {
            return Err(Failure::internal("only a legacy server's call can wait"));
        };
        let call = &self.call;
        let parked = Parked {
            link: call.reached.link.clone(),
            events,
            open: std::mem::take(&mut self.open),
            proof: call.principal.proof,
        };
        let result = call.shared.interactions.park(&call.binding(), parked)?;
        read_own(call, &result)
    }

    /// The answers that a modern client brought with its retry.
    fn take_brought(&mut self) -> Result<(), Failure> {
        let brought = self.call.exchange.request.input();
        let responses = brought.and_then(|input| input.responses);
        let responses = responses.and_then(|all| meta::members(all.get()));
        let responses = responses.ok_or_else(|| {
            Failure::new(Kind::Invalid, "`params.inputResponses` must be an object")
        })?;
        let found: Vec<(usize, Bytes)> = self
            .open
            .iter()
            .enumerate()
            .filter_map(|(index, one)| {
                let (_, result) = responses.iter().find(|(key, _)| **key == *one.key)?;
                Some((
                    index,
                    response::result(&one.asked.id, result.get().as_bytes()),
                ))
            })
            .collect();
        for (index, message) in found.into_iter().rev() {
            self.open.remove(index);
            self.reply(message);
        }
        Ok(())
    }

    /// Seals the state of a modern server's questions, so that their answers can only come back to
    /// the same call.
    fn seal(&self, answered: &Answered) -> Result<Answered, Failure> {
        let (result, round) = read_round(answered)?;
        let interactions = &self.call.shared.interactions;
        let state = interactions.seal(&self.call.binding(), round.state.as_deref())?;
        let mut quoted = Vec::new();
        meta::quote(&mut quoted, &state);
        let result = meta::rewrite(Some(result), |_| false, &[("requestState", &quoted)]);
        read_own(&self.call, &result)
    }

    /// A legacy server may refuse a call until its client has visited some URLs: a modern client is
    /// asked to do so, and its retry is the same call again.
    fn or_urls(&self, answered: Answered) -> Result<Answered, Failure> {
        let Err(error) = answered.payload() else {
            return Ok(answered);
        };
        let questions = interaction::required_urls(error);
        let answers = self.call.answers();
        let can_be_asked = questions.iter().all(|one| one.is_answered_by(&answers));
        if questions.is_empty() || !can_be_asked {
            return Ok(answered);
        }
        let interactions = &self.call.shared.interactions;
        let state = interactions.seal(&self.call.binding(), None)?;
        let keys: Vec<String> = (1..=questions.len()).map(|n| format!("q{n}")).collect();
        let keyed = keys.iter().map(String::as_str).zip(&questions);
        read_own(&self.call, &interaction::input_required(keyed, &state))
    }

    /// What a modern server asks with its result, to be asked one by one.
    fn next_round(&mut self, answered: &Answered) -> Result<Vec<Asked>, Failure> {
        self.rounds += 1;
        if self.rounds > ROUNDS {
            let detail = format!("asked for input {ROUNDS} times without coming to an end");
            return Err(unanswered(&detail));
        }
        let (_, round) = read_round(answered)?;
        self.server = Server::Asks(vec![b'{'], round.state);
        let asked = round.questions.into_iter().map(|(key, question)| Asked {
            id: Bytes::copy_from_slice(key.as_bytes()),
            question,
        });
        Ok(asked.collect())
    }

    /// Asks a legacy client something, by a request on the stream of its call.
    async fn ask_client(
        &mut self,
        session: &Arc<Session>,
        sender: Option<&mpsc::Sender<Bytes>>,
        asked: Asked,
        replies: &mut FuturesUnordered<Reply>,
    ) -> Result<(), Failure> {
        let answer = session.ask();
        let is_answered = asked.question.is_answered_by(&session.answers);
        let id = answer.id.to_string();
        let params = asked.question.to_legacy(session.revision, &id);
        let (Some(params), Some(sender), true) = (params, sender, is_answered) else {
            return self.cannot_ask(&asked);
        };
        if self.open.len() >= QUESTIONS {
            return self.cannot_ask(&asked);
        }
        self.asked += 1;
        let key: Box<str> = match self.server {
            // A modern server's own key comes back with the answer.
            Server::Asks(..) => String::from_utf8_lossy(&asked.id).into(),
            Server::Works(_) | Server::Done(_) => format!("q{}", self.asked).into(),
        };
        let message = request(&id, asked.question.method(), &params);
        self.open.push(OpenQuestion {
            key: key.clone(),
            asked,
        });
        self.call.reached.deadline = Instant::now_plus(self.call.shared.interactions.patience());
        replies.push(Box::pin(async move { (key, answer.wait().await) }));
        let sending = sender.send(sse::event(&message, None));
        match timeout_at(self.call.reached.deadline, sending).await {
            Ok(Ok(())) => Ok(()),
            // Its stream is gone, and with it the way to ask.
            Ok(Err(_)) | Err(_) => Err(unanswered("its client is gone")),
        }
    }

    /// A legacy server hears it; a modern one has no ear for it, so its call fails.
    fn cannot_ask(&self, asked: &Asked) -> Result<(), Failure> {
        match self.server {
            Server::Works(_) => {
                self.reply(asked.refusal());
                Ok(())
            }
            Server::Asks(..) | Server::Done(_) => {
                let method = asked.question.method().as_str();
                Err(unanswered(&format!(
                    "asks for `{method}`, which its client did not declare or cannot be told"
                )))
            }
        }
    }

    /// A legacy client's answer goes to the server, or to the others of its round.
    fn take(&mut self, key: &str, reply: Option<&Answered>) -> Result<(), Failure> {
        let place = self.open.iter().position(|one| *one.key == *key);
        let Some(place) = place else { return Ok(()) };
        let Some(reply) = reply else {
            return Err(unanswered("its client has ended its session"));
        };
        let question = self.open.remove(place);
        if self.open.is_empty() {
            self.call.reached.deadline = Instant::now_plus(self.call.timeout());
        }
        match &mut self.server {
            Server::Works(events) => events.reply(reply.with_id(&question.asked.id)),
            Server::Asks(answers, _) => {
                let result = match reply.payload() {
                    Ok(result) => result.get().as_bytes(),
                    // A form that a client cannot show is one that was not filled in.
                    Err(_) if question.asked.question.method() == Method::Elicit => {
                        br#"{"action":"cancel"}"#
                    }
                    Err(error) => {
                        let detail = format!("was refused by its client: {}", error.get());
                        return Err(unanswered(&detail));
                    }
                };
                meta::member(answers, key, result);
            }
            Server::Done(_) => {}
        }
        Ok(())
    }

    /// Calls a modern server again, with the answers to what it asked.
    async fn call_again(&mut self) -> Result<Event, Failure> {
        let Server::Asks(answers, state) = &mut self.server else {
            return Err(Failure::internal(
                "a server is called again that asked nothing",
            ));
        };
        if answers.len() == 1 {
            tokio::time::sleep(PACE).await;
        }
        answers.push(b'}');
        let answers = String::from_utf8(std::mem::take(answers)).map_err(Failure::internal)?;
        let answers = RawValue::from_string(answers).map_err(Failure::internal)?;
        let input = Input {
            responses: (answers.get() != "{}").then_some(&*answers),
            state: state.as_deref(),
        };
        let id = format!("\"vaxel-{}\"", self.rounds);
        let request = self.call.exchange.request.retried(id.as_bytes(), &input);
        let request = request.map_err(Failure::internal)?;
        match self.call.ask(&request).await? {
            Answer::Done(answered) => Ok(Event::Done(answered)),
            Answer::Stream(mut events) => {
                let first = events.next(self.call.reached.deadline).await;
                self.server = Server::Works(events);
                first
            }
        }
    }

    fn reply(&self, message: Bytes) {
        if let Server::Works(events) = &self.server {
            events.reply(message);
        }
    }

    /// False when the caller takes no more: a modern one that is gone, or one of either era that
    /// does not read before the call's time is up.
    async fn pass_on(&mut self, sender: Option<&mpsc::Sender<Bytes>>, note: &[u8]) -> bool {
        let Some(sender) = sender else { return true };
        let sending = sender.send(sse::event(note, None));
        match timeout_at(self.call.reached.deadline, sending).await {
            Ok(Ok(())) => true,
            // A legacy client that went away did not cancel: the call goes on.
            Ok(Err(_)) => matches!(self.call.exchange.client, Client::Legacy(_)),
            Err(_) => false,
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
        let exchange = &self.call.exchange;
        let level = envelope.params.and_then(Level::of_message);
        match exchange.log_level() {
            Some(wanted) => level.is_none_or(|level| level >= wanted),
            // A legacy server may send what it likes until its client says otherwise.
            None => exchange.client.era() == Era::Legacy,
        }
    }
}

/// Resolves when the client has gone away; never for one that is answered without a stream, whose
/// request ends by itself.
async fn gone(sender: Option<&mpsc::Sender<Bytes>>) {
    match sender {
        Some(sender) => sender.closed().await,
        None => std::future::pending().await,
    }
}

/// An `input_required` result, and what it asks.
fn read_round(answered: &Answered) -> Result<(&RawValue, Round), Failure> {
    let result = answered.payload().unwrap_or(RawValue::NULL);
    match Round::read(result) {
        Ok(round) => Ok((result, round)),
        Err(error) => {
            let detail =
                format!("The service asks for input in a way that cannot be read: {error}");
            Err(Failure::new(Kind::UpstreamProtocol, detail))
        }
    }
}

/// A result of our own, as if the server had answered it.
fn read_own(call: &Call, result: &[u8]) -> Result<Answered, Failure> {
    let body = response::result(call.exchange.request.id(), result);
    Answered::read(body).map_err(Failure::internal)
}

fn request(id: &str, method: Method, params: &[u8]) -> Bytes {
    let mut name = Vec::new();
    meta::quote(&mut name, method.as_str());
    let mut message = vec![b'{'];
    meta::member(&mut message, "jsonrpc", b"\"2.0\"");
    meta::member(&mut message, "id", id.as_bytes());
    meta::member(&mut message, "method", &name);
    meta::member(&mut message, "params", params);
    message.push(b'}');
    message.into()
}

fn unanswered(why: &str) -> Failure {
    let detail = format!("The service asks its client something, and the call {why}");
    Failure::new(Kind::InteractionUnsupported, detail)
}
