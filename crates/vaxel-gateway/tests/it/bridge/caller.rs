//! Callers: what they send, and what they make of what they hear.

use std::{collections::HashSet, sync::Arc};

use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_tungstenite::tungstenite;

use super::{
    schedule::{Ask, Beat, Finish, How, Plan, Wrong},
    world::{CALLERS, Call, Ledger, Open, Speaks, Standing, World, marks},
};
use crate::harness::{
    Client, Rig,
    client::{Message, Stream},
    socket::Socket,
};

const ABLE: &str = r#"{"sampling":{},"elicitation":{"form":{}}}"#;

/// One caller with its session.
pub(super) struct Caller {
    index: usize,
    world: Arc<World>,
    client: Client,
    next_id: u64,
    /// What is sent over a WebSocket.
    socket: Option<mpsc::Sender<String>>,
    /// Follows the one stream of a client that has only one.
    following: JoinSet<()>,
    /// Everything else that it does.
    tasks: JoinSet<()>,
}

impl Caller {
    pub(super) async fn connect(index: usize, world: Arc<World>, rig: &Rig) -> Self {
        let (speaks, principal) = CALLERS[index];
        let key = &rig.keys[principal];
        let silent = Client::silent(rig.address, key);
        let mut following = JoinSet::new();
        let mut socket = None;
        let client = match speaks {
            Speaks::Modern => Client::modern(rig.address, key).able(ABLE),
            Speaks::Legacy => silent.able(ABLE).opened("2025-11-25").await,
            Speaks::Unable => silent.opened("2025-11-25").await,
            Speaks::Oldest => {
                let (client, stream) = greet(silent).await;
                following.spawn(follow(Arc::clone(&world), index, stream));
                client
            }
            Speaks::Socket => {
                let mut open = Socket::open(rig.address, "/mcp", key).await;
                let able = serde_json::from_str(ABLE).unwrap();
                open.initialize("2025-11-25", &able).await;
                let (sender, queue) = mpsc::channel(64);
                socket = Some(sender);
                following.spawn(talk(Arc::clone(&world), index, open, queue));
                silent.able(ABLE)
            }
        };
        Self {
            index,
            world,
            client,
            next_id: 1,
            socket,
            following,
            tasks: JoinSet::new(),
        }
    }

    fn speaks(&self) -> Speaks {
        CALLERS[self.index].0
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Calls a tool; `number` is that of the call, which is known already.
    pub(super) fn call(&mut self, number: usize, service: &str, plan: &Plan) {
        let arguments = arguments(number, plan);
        let params = format!(r#""name":"{service}__echo","arguments":{arguments}"#);
        self.request(number, &params);
    }

    fn request(&mut self, number: usize, params: &str) {
        let id = self.id();
        let (wants_notes, turn) = self.world.with(|ledger| {
            let call = &mut ledger.calls[number];
            call.id = id;
            call.requests += 1;
            call.standing = Standing::Runs;
            (call.plan.wants_notes, call.turn)
        });
        let mut message = Message::new("tools/call", params).id(&id.to_string());
        if wants_notes {
            message = message.token(&format!("\"p{number}\""));
        }
        if self.speaks().is_on_one_connection() {
            let body = self.client.body(&message);
            return self.post(body);
        }
        let (client, world) = (self.client.clone(), Arc::clone(&self.world));
        let reading = self.tasks.spawn(async move {
            let stream = client.open(&message).await;
            read(&world, (number, id), turn, stream).await;
        });
        self.world
            .with(|ledger| ledger.calls[number].reading = Some(reading));
    }

    /// Answers what it is asked for this call.
    pub(super) fn answer(&mut self, number: usize, how: How, service: &str) {
        let count = if how == How::First { 1 } else { usize::MAX };
        let (open, state) = self.world.with(|ledger| {
            let call = &mut ledger.calls[number];
            let count = count.min(call.open.len());
            let open: Vec<Open> = call.open.drain(..count).collect();
            call.done.extend(open.iter().map(|one| one.name.clone()));
            (open, call.state.clone())
        });
        if self.speaks() == Speaks::Modern {
            return self.retry(number, (&open, &state.unwrap_or_default()), (how, service));
        }
        for one in &open {
            let reply = self.world.with(|ledger| reply(ledger, number, one, how));
            if self.speaks() == Speaks::Socket {
                self.post(reply.to_string());
                continue;
            }
            let (client, world) = (self.client.clone(), Arc::clone(&self.world));
            self.tasks.spawn(async move {
                let taken = client.post(&reply.to_string()).await;
                world.with(|ledger| {
                    if taken.status != 202 && ledger.calls[number].disturbed.is_none() {
                        ledger.fault(format!("an answer of c{number} got {}", taken.status));
                    }
                });
            });
        }
    }

    fn retry(
        &mut self,
        number: usize,
        (open, state): (&[Open], &Value),
        (how, service): (How, &str),
    ) {
        let params = self.world.with(|ledger| {
            let answers = open.iter().map(|one| {
                let mut answer = ledger.answer(number, &one.name, one.ask);
                if how == How::Refuse && one.ask == Ask::Form {
                    answer = json!({"action": "decline"});
                }
                let given = &mut ledger.calls[number].given;
                given.entry(one.name.clone()).or_default().push(answer.clone());
                (one.under.as_str().unwrap().to_owned(), answer)
            });
            let answers: serde_json::Map<String, Value> = answers.collect();
            let call = &mut ledger.calls[number];
            call.open.clear();
            let params = format!(
                r#""name":"{service}__echo","arguments":{},"inputResponses":{},"requestState":{state}"#,
                arguments(number, &call.plan),
                Value::Object(answers)
            );
            call.spent.push(params.clone());
            params
        });
        self.request(number, &params);
    }

    /// Sends what brings answers and must not get anywhere. `params` are those of a retry of the
    /// call, which was sent already when it is sent `again`.
    pub(super) fn retry_wrongly(&mut self, number: usize, params: &str, wrong: Wrong) {
        let id = self.id();
        let message = Message::new("tools/call", params).id(&id.to_string());
        let (client, world) = (self.client.clone(), Arc::clone(&self.world));
        self.tasks.spawn(async move {
            let answer = client.say(&message).await;
            let text = answer.text.clone();
            let json = answer.json();
            world.with(|ledger| {
                let other = marks(&text).find(|mark| mark.0 != number);
                let is_refused = json["error"].is_object() || json["result"]["isError"] == true;
                if other.is_some() || (!is_refused && wrong != Wrong::Again) || json["id"] != id {
                    ledger.fault(format!("a wrong retry ({wrong:?}) of c{number} got {text}"));
                }
            });
        });
    }

    /// Answers a question that another was asked.
    pub(super) fn steal(&mut self, number: usize, one: &Open) {
        let reply = self.world.with(|ledger| {
            let answer = ledger.answer(number, &one.name, one.ask);
            ledger.stolen.insert(answer.to_string(), self.index);
            json!({"jsonrpc": "2.0", "id": one.under, "result": answer})
        });
        self.post(reply.to_string());
    }

    /// Sends what needs no answer of its own.
    fn post(&mut self, message: String) {
        self.tasks.spawn(self.posting(message));
    }

    fn posting(&self, message: String) -> impl Future<Output = ()> + Send + use<> {
        let (socket, client) = (self.socket.clone(), self.client.clone());
        async move {
            if let Some(socket) = socket {
                // The connection may be gone.
                let _ = socket.send(message).await;
            } else {
                client.post(&message).await;
            }
        }
    }

    /// Takes a call back, in its own way.
    pub(super) fn cancel(&mut self, number: usize) {
        if self.speaks() == Speaks::Modern {
            return self.disconnect(number);
        }
        let found = self.world.with(|ledger| {
            let call = &mut ledger.calls[number];
            let is_on_its_way = std::mem::replace(&mut call.is_cancelling, true);
            (!is_on_its_way).then_some(call.id)
        });
        let Some(id) = found else {
            return;
        };
        let message = json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id}});
        let posting = self.posting(message.to_string());
        let world = Arc::clone(&self.world);
        self.tasks.spawn(async move {
            posting.await;
            world.with(|ledger| ledger.calls[number].is_cancelling = false);
        });
    }

    /// Comes back for the rest of an answer whose connection broke.
    pub(super) fn resume(&mut self, number: usize) {
        let place = self.world.with(|ledger| {
            let call = &mut ledger.calls[number];
            call.standing = Standing::Runs;
            let last = call.last_event.clone().unwrap_or_default();
            (call.id, last, call.turn)
        });
        let (id, last, turn) = place;
        let client = self.client.clone().with("last-event-id", &last);
        let world = Arc::clone(&self.world);
        let reading = self.tasks.spawn(async move {
            let stream = client.send(Method::GET, "").await;
            read(&world, (number, id), turn, stream).await;
        });
        self.world
            .with(|ledger| ledger.calls[number].reading = Some(reading));
    }

    /// The connection of one call breaks; some clients have one for all.
    pub(super) fn disconnect(&mut self, number: usize) {
        self.world.with(|ledger| {
            let call = &mut ledger.calls[number];
            if let (Standing::Runs, Some(reading)) = (&call.standing, call.reading.take()) {
                // It may be in the middle of something, and ends a moment later.
                reading.abort();
                call.turn += 1;
                call.standing = Standing::Gone;
            }
        });
    }

    /// Ends its session and opens another.
    pub(super) async fn leave(&mut self, rig: &Rig) {
        let index = self.index;
        let speaks = self.speaks();
        let mut calls_end = true;
        self.world.with(|ledger| {
            let calls = ledger.calls.iter().filter(|call| call.caller == index);
            let may_run = |call: &&Call| matches!(call.standing, Standing::Runs | Standing::Gone);
            let mut calls = calls.filter(may_run);
            calls_end = ledger.is_hurried || calls.all(Call::ends_alone);
        });
        // Calls of a session that has ended go on; nobody can answer or cancel them any more.
        if speaks == Speaks::Modern || !calls_end {
            return;
        }
        self.world.with(|ledger| {
            ledger.disturb("its caller left", |call| call.caller == index);
            if speaks.is_on_one_connection() {
                let calls = ledger.calls.iter_mut();
                for call in calls.filter(|call| call.caller == index) {
                    if matches!(call.standing, Standing::Runs) {
                        call.standing = Standing::Gone;
                    }
                }
            }
        });
        if speaks.is_on_one_connection() {
            self.following.shutdown().await;
        } else {
            self.client.send(Method::DELETE, "").await.read().await;
        }
        let mut anew = Self::connect(index, Arc::clone(&self.world), rig).await;
        std::mem::swap(&mut self.client, &mut anew.client);
        std::mem::swap(&mut self.following, &mut anew.following);
        self.socket = anew.socket;
    }

    /// Waits until it has sent all that it had to, and is gone.
    pub(super) async fn end(mut self) {
        self.following.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && !error.is_cancelled()
            {
                let index = self.index;
                self.world
                    .with(|ledger| ledger.fault(format!("caller {index}: {error}")));
            }
        }
    }
}

/// The arguments of a call. Servers know from their own copy what to do.
fn arguments(number: usize, plan: &Plan) -> Value {
    json!({"call": number, "plan": format!("{plan:?}")})
}

fn reply(ledger: &mut Ledger, number: usize, one: &Open, how: How) -> Value {
    let answer = ledger.answer(number, &one.name, one.ask);
    let call = &mut ledger.calls[number];
    let given = call.given.entry(one.name.clone()).or_default();
    if how == How::Refuse {
        let error = json!({"code": -1, "message": format!("c{number}/{}: no", one.name)});
        given.extend([error.clone(), json!({"action": "cancel"})]);
        call.disturbed.get_or_insert("its caller refuses to answer");
        return json!({"jsonrpc": "2.0", "id": one.under, "error": error});
    }
    given.push(answer.clone());
    json!({"jsonrpc": "2.0", "id": one.under, "result": answer})
}

/// Opens the stream of a client of 2024-11-05 and says hello.
async fn greet(client: Client) -> (Client, Stream) {
    let mut stream = client.clone().at("/sse").send(Method::GET, "").await;
    let endpoint = stream.data().await.unwrap();
    let client = client.at(&endpoint);
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {"sampling": {}},
        "clientInfo": {"name": "test", "version": "1"}}});
    client.post(&hello.to_string()).await;
    stream.event().await.unwrap();
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    client.post(told).await;
    (client, stream)
}

/// Reads the answer to one request to its end, while it is this turn.
async fn read(world: &World, (number, id): (usize, u64), turn: usize, mut stream: Stream) {
    if !stream.is_stream() {
        let answer = stream.read().await.json();
        return world.with(|ledger| {
            if ledger.calls[number].turn == turn {
                hear(ledger, number, id, answer);
            }
        });
    }
    let mut is_answered = false;
    while let Some((message, last)) = stream.next_with_id().await {
        world.with(|ledger| {
            if ledger.calls[number].turn != turn {
                return;
            }
            if last.is_some() {
                ledger.calls[number].last_event = last;
            }
            if message.is_null() {
                return;
            }
            if is_answered {
                ledger.fault(format!("c{number} was told after its answer: {message}"));
            }
            is_answered = message.get("method").is_none();
            hear(ledger, number, id, message);
        });
    }
    if !is_answered {
        world.with(|ledger| {
            let call = &ledger.calls[number];
            if call.turn == turn && matches!(call.standing, Standing::Runs) {
                ledger.fault(format!("the stream of c{number} ended without an answer"));
            }
        });
    }
}

/// What came for a call on its own stream.
fn hear(ledger: &mut Ledger, number: usize, id: u64, message: Value) {
    ledger.moves += 1;
    let call = &ledger.calls[number];
    let speaks = CALLERS[call.caller].0;
    match message["method"].as_str() {
        Some("notifications/progress") => {
            let token = format!("p{number}");
            let is_own = message["params"]["progressToken"] == token;
            if !is_own || !call.plan.wants_notes || !call.plan.beats.contains(&Beat::Note) {
                ledger.fault(format!("c{number} heard {message}"));
            }
        }
        Some(_) if speaks != Speaks::Modern => ask(ledger, number, &message["id"], &message),
        Some(_) => ledger.fault(format!("c{number} of a modern caller heard {message}")),
        None if message["result"]["resultType"] == "input_required" => {
            park(ledger, number, &message);
        }
        None => {
            // What never became an exchange is no JSON-RPC message.
            if message.get("jsonrpc").is_some() && message["id"] != id {
                ledger.fault(format!("c{number} asked under {id} and heard {message}"));
            }
            ledger.ended(number, message);
        }
    }
}

/// Takes note of a question to the caller of a call.
fn ask(ledger: &mut Ledger, number: usize, under: &Value, question: &Value) {
    let text = question["params"].to_string();
    let found: HashSet<(usize, &str)> = marks(&text).collect();
    let call = &mut ledger.calls[number];
    let name = match found.into_iter().next() {
        Some((of, name)) if of == number => name.to_owned(),
        other => {
            return ledger.fault(format!(
                "c{number} was asked what is {other:?}'s: {question}"
            ));
        }
    };
    let ask = if question["method"] == "elicitation/create" {
        Ask::Form
    } else {
        Ask::Sampling
    };
    if !CALLERS[call.caller].0.answers(ask) {
        return ledger.fault(format!(
            "c{number} was asked what it does not answer: {question}"
        ));
    }
    if call.done.contains(&name) || call.open.iter().any(|one| one.name == name) {
        return ledger.fault(format!("c{number} was asked {name} twice"));
    }
    if matches!(call.standing, Standing::Over(_)) {
        return ledger.fault(format!("c{number} was asked {name} after its end"));
    }
    call.open.push(Open {
        under: under.clone(),
        name,
        ask,
    });
}

/// A modern caller is asked by a result.
fn park(ledger: &mut Ledger, number: usize, message: &Value) {
    let result = &message["result"];
    ledger.calls[number].open.clear();
    ledger.calls[number].standing = Standing::Parked;
    ledger.calls[number].state = Some(result["requestState"].clone());
    for (key, question) in result["inputRequests"].as_object().into_iter().flatten() {
        ask(ledger, number, &key.as_str().into(), question);
    }
}

/// Follows the one stream of a client of 2024-11-05.
async fn follow(world: Arc<World>, caller: usize, mut stream: Stream) {
    let mut ids = HashSet::new();
    while let Some(message) = stream.event().await {
        world.with(|ledger| hear_any(ledger, caller, &mut ids, message));
    }
}

/// The same over WebSocket, where it speaks, too.
async fn talk(
    world: Arc<World>,
    caller: usize,
    mut socket: Socket,
    mut queue: mpsc::Receiver<String>,
) {
    let mut ids = HashSet::new();
    loop {
        tokio::select! {
            said = queue.recv() => match said {
                Some(said) => socket.put(tungstenite::Message::text(said)).await,
                None => return,
            },
            heard = socket.stream.next() => match heard {
                Some(Ok(tungstenite::Message::Text(text))) => {
                    let message = serde_json::from_str(&text).unwrap();
                    world.with(|ledger| hear_any(ledger, caller, &mut ids, message));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

/// What came on a stream for all calls of a caller.
fn hear_any(ledger: &mut Ledger, caller: usize, ids: &mut HashSet<String>, message: Value) {
    let is_request = message.get("method").is_some();
    let found = if message["method"] == "notifications/tools/list_changed" {
        return;
    } else if is_request {
        let text = message["params"].to_string();
        marks(&text).next().map(|mark| mark.0)
    } else {
        let same = |call: &Call| call.caller == caller && message["id"] == call.id;
        ledger.calls.iter().position(same)
    };
    let is_own = |number: &usize| ledger.calls[*number].caller == caller;
    let Some(number) = found.filter(is_own) else {
        return ledger.fault(format!("caller {caller} heard {message}"));
    };
    if is_request && !message["id"].is_null() && !ids.insert(message["id"].to_string()) {
        ledger.fault(format!("caller {caller} was asked twice: {message}"));
    }
    let id = ledger.calls[number].id;
    hear(ledger, number, id, message);
}

impl Plan {
    /// Whether its server comes to an end.
    pub(super) fn ends(&self) -> bool {
        self.end != Finish::Silence
    }
}

impl Call {
    /// Whether it comes to its end without its caller.
    fn ends_alone(&self) -> bool {
        self.plan.ends() && self.plan.asks().is_empty()
    }
}
