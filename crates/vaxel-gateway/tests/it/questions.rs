//! Servers that ask their clients something in the middle of a call, in both eras on both sides.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vaxel_core::call::Outcome;

use crate::harness::{
    Client, Reply, Rig, Script, Seen, Served, Upstream,
    client::{Message, Stream},
    wait_for,
};

/// What an able client declares.
const ABLE: &str = r#"{"roots":{},"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}}"#;

/// Asks what its arguments say, one after the other or together, and says back the answers.
const LEGACY: &str = r#"
asks = params.get("arguments", {}).get("ask", [])
def put(n):
    say({"jsonrpc": "2.0", "id": "ask-%d" % n, **asks[n]})
def reply():
    while True:
        heard = hear()
        if heard.get("method") is None:
            return heard
got = {}
if params["arguments"].get("together"):
    for n in range(len(asks)):
        put(n)
    while len(got) < len(asks):
        heard = reply()
        got[heard["id"]] = heard
else:
    for n in range(len(asks)):
        put(n)
        heard = reply()
        got[heard["id"]] = heard
text(json.dumps([got["ask-%d" % n].get("result", {"refused": True}) for n in range(len(asks))]))
"#;

/// The same as a modern server does it, with all that it has to remember in its state.
const MODERN: &str = r#"
asks = params.get("arguments", {}).get("ask", [])
got = json.loads(params["requestState"]) if "requestState" in params else []
brought = params.get("inputResponses", {})
got += [brought[key] for key in sorted(brought)]
left = asks[len(got):]
if left:
    now = left if params["arguments"].get("together") else left[:1]
    answer({"resultType": "input_required", "requestState": json.dumps(got),
            "inputRequests": {"k%d" % (len(got) + n): ask for n, ask in enumerate(now)}})
else:
    text(json.dumps(got))
"#;

/// A legacy server over HTTP that does the same on the stream of the call.
#[derive(Default)]
struct Asking {
    calls: Mutex<Vec<AskingCall>>,
}

struct AskingCall {
    call: Value,
    asks: Vec<Value>,
    got: HashMap<usize, Value>,
    sender: mpsc::Sender<String>,
}

impl Asking {
    fn hear(&self, seen: &Seen) -> Option<Reply> {
        if seen.method() == "tools/call" {
            let arguments = &seen.json["params"]["arguments"];
            let (sender, receiver) = mpsc::channel(64);
            let mut call = AskingCall {
                call: seen.json.clone(),
                asks: arguments["ask"].as_array().cloned().unwrap_or_default(),
                got: HashMap::new(),
                sender,
            };
            let first = if arguments["together"] == true {
                call.asks.len()
            } else {
                1
            };
            let mut calls = self.calls.lock();
            for ask in 0..first.min(call.asks.len()) {
                call.put(calls.len(), ask);
            }
            call.finish();
            calls.push(call);
            return Some(Reply::Live(receiver));
        }
        if seen.method().is_empty() && seen.json.get("id").is_some() {
            let id = seen.json["id"].as_str().unwrap();
            let (call, ask) = id.split_once('-').unwrap();
            let (call, ask): (usize, usize) = (call.parse().unwrap(), ask.parse().unwrap());
            let mut calls = self.calls.lock();
            let one = &mut calls[call];
            let result = seen.json.get("result").cloned();
            one.got
                .insert(ask, result.unwrap_or_else(|| json!({"refused": true})));
            if one.call["params"]["arguments"]["together"] != true && ask + 1 < one.asks.len() {
                one.put(call, ask + 1);
            }
            one.finish();
            return Some(Reply::Json(202, String::new()));
        }
        None
    }
}

impl AskingCall {
    fn put(&self, call: usize, ask: usize) {
        let mut question = self.asks[ask].clone();
        question["jsonrpc"] = "2.0".into();
        question["id"] = format!("{call}-{ask}").into();
        self.sender.try_send(question.to_string()).unwrap();
    }

    fn finish(&mut self) {
        if self.got.len() < self.asks.len() {
            return;
        }
        let all: Vec<&Value> = (0..self.asks.len()).map(|ask| &self.got[&ask]).collect();
        let text = serde_json::to_string(&all).unwrap();
        let result = json!({"content": [{"type": "text", "text": text}]});
        let answer = json!({"jsonrpc": "2.0", "id": self.call["id"], "result": result});
        self.sender.try_send(answer.to_string()).unwrap();
        // The stream ends with its last sender.
        self.sender = mpsc::channel(64).0;
    }
}

/// A modern server over HTTP that does the same.
fn modern(seen: &Seen) -> Option<Reply> {
    if seen.method() != "tools/call" {
        return None;
    }
    let params = &seen.json["params"];
    let state = params["requestState"].as_str();
    let mut got: Vec<Value> =
        state.map_or_else(Vec::new, |state| serde_json::from_str(state).unwrap());
    let brought: std::collections::BTreeMap<String, Value> =
        serde_json::from_value(params["inputResponses"].clone()).unwrap_or_default();
    got.extend(brought.into_values());
    let asks = params["arguments"]["ask"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let left = &asks[got.len().min(asks.len())..];
    let now = if params["arguments"]["together"] == true {
        left
    } else {
        &left[..left.len().min(1)]
    };
    if now.is_empty() {
        return Some(Reply::Json(
            200,
            seen.say(&serde_json::to_string(&got).unwrap()),
        ));
    }
    let asked = now.iter().enumerate();
    let asked: serde_json::Map<String, Value> = asked
        .map(|(n, ask)| (format!("k{}", got.len() + n), ask.clone()))
        .collect();
    let result = json!({"resultType": "input_required", "inputRequests": asked,
        "requestState": serde_json::to_string(&got).unwrap()});
    Some(Reply::Json(200, seen.result(&result)))
}

/// One server of each era over each transport.
async fn every_server(rig: &Rig) -> ([Upstream; 2], [Served; 4]) {
    let asking = Asking::default();
    let legacy = Upstream::legacy(move |seen| asking.hear(seen)).await;
    let modern = Upstream::modern(modern).await;
    let served = [
        rig.add_http("hl", &legacy).await,
        rig.add_http("hm", &modern).await,
        rig.add_stdio("sl", &Script::legacy(LEGACY)).await,
        rig.add_stdio("sm", &Script::modern(MODERN)).await,
    ];
    ([legacy, modern], served)
}

const SERVERS: [&str; 4] = ["hl", "hm", "sl", "sm"];

fn form(message: &str) -> Value {
    json!({"method": "elicitation/create", "params": {
        "mode": "form", "message": message,
        "requestedSchema": {"type": "object", "properties": {"n": {"type": "string"}}},
    }})
}

fn sampling(text: &str) -> Value {
    json!({"method": "sampling/createMessage", "params": {
        "messages": [{"role": "user", "content": {"type": "text", "text": text}}], "maxTokens": 5,
    }})
}

fn url(url: &str) -> Value {
    json!({"method": "elicitation/create", "params": {
        "mode": "url", "message": "go there", "url": url, "elicitationId": "e",
    }})
}

/// How the test's clients answer.
fn answer(question: &Value) -> Value {
    let params = &question["params"];
    match question["method"].as_str().unwrap() {
        "elicitation/create" if params["mode"] == "url" => json!({"action": "accept"}),
        "elicitation/create" => json!({"action": "accept", "content": {"n": params["message"]}}),
        "sampling/createMessage" => json!({
            "role": "assistant", "model": "m", "stopReason": "endTurn",
            "content": {"type": "text", "text": params["messages"][0]["content"]["text"]},
        }),
        "roots/list" => json!({"roots": [{"uri": "file:///x"}]}),
        other => panic!("asked {other}"),
    }
}

fn call(service: &str, asks: &[Value], together: bool) -> Message {
    let arguments = json!({"ask": asks, "together": together});
    Message::call(&format!("{service}__echo"), &arguments.to_string())
}

/// Calls, answers everything that is asked, and returns the last answer and what was asked.
async fn converse(client: &Client, message: Message) -> (Value, Vec<Value>) {
    if client.modern {
        return with_retries(client, message).await;
    }
    let mut stream = client.open(&message).await;
    let mut asked = Vec::new();
    if !stream.is_stream() {
        return (stream.read().await.json(), asked);
    }
    loop {
        let event = next(&mut stream).await;
        if event.get("method").is_none() {
            return (event, asked);
        }
        let reply = json!({"jsonrpc": "2.0", "id": event["id"], "result": answer(&event)});
        asked.push(event);
        assert_eq!(client.post(&reply.to_string()).await.status, 202);
    }
}

async fn next(stream: &mut Stream) -> Value {
    stream
        .event()
        .await
        .expect("the stream ended without an answer")
}

async fn with_retries(client: &Client, mut message: Message) -> (Value, Vec<Value>) {
    let original = message.params.clone();
    let mut asked = Vec::new();
    for id in 2.. {
        let last = client.say(&message).await.json();
        if last["result"]["resultType"] != "input_required" {
            return (last, asked);
        }
        let (params, questions) = retry(&original, &last["result"]);
        asked.extend(questions);
        message.params = params;
        message.id = id.to_string();
    }
    unreachable!()
}

/// The members of `params` of the retry that answers `result`.
fn retry(original: &str, result: &Value) -> (String, Vec<Value>) {
    let none = serde_json::Map::new();
    let questions = result["inputRequests"].as_object().unwrap_or(&none);
    let responses: serde_json::Map<String, Value> = questions
        .iter()
        .map(|(key, question)| (key.clone(), answer(question)))
        .collect();
    let params = format!(
        r#"{original},"inputResponses":{},"requestState":{}"#,
        Value::Object(responses),
        result["requestState"]
    );
    (params, questions.values().cloned().collect())
}

fn said(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

async fn able(rig: &Rig) -> [Client; 2] {
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(ABLE);
    [rig.modern().able(ABLE), legacy.opened("2025-11-25").await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_either_era_answers_a_server_of_either_era() {
    let rig = Rig::start();
    let _servers = every_server(&rig).await;
    let rounds: [(&[Value], bool); 5] = [
        (&[form("one")], false),
        (&[form("one"), form("two"), form("three")], false),
        (&[form("one"), sampling("two")], true),
        (&[sampling("what?"), url("https://example.com/x")], false),
        (&[], false),
    ];
    for client in able(&rig).await {
        for service in SERVERS {
            for (asks, together) in rounds {
                let (last, asked) = converse(&client, call(service, asks, together)).await;
                let expected: Vec<Value> = asks.iter().map(answer).collect();
                assert_eq!(said(&last), json!(expected), "{service}");
                assert_eq!(asked.len(), asks.len(), "{service}");
                assert!(last["id"].is_number());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_did_not_declare_is_not_asked_of_it() {
    let rig = Rig::start();
    let _servers = every_server(&rig).await;
    for client in [rig.modern(), rig.legacy().await] {
        for service in ["hl", "sl"] {
            let (last, asked) = converse(&client, call(service, &[form("one")], false)).await;
            assert_eq!(said(&last), json!([{"refused": true}]), "{service}");
            assert_eq!(asked, Vec::<Value>::new());
        }
    }
    // A modern server that asks what was not declared has broken the protocol; its caller hears it.
    let (last, asked) = converse(&rig.legacy().await, call("sm", &[form("one")], false)).await;
    assert_eq!(asked, Vec::<Value>::new());
    assert_eq!(last["result"]["isError"], true, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_is_told_what_its_caller_answers() {
    let rig = Rig::start();
    let ([legacy, modern], _served) = every_server(&rig).await;
    for client in able(&rig).await {
        for service in ["hl", "hm"] {
            converse(&client, call(service, &[], false)).await;
        }
    }
    let able: Value = serde_json::from_str(ABLE).unwrap();
    for call in modern.seen("tools/call") {
        let told = &call.json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(told, &able);
    }
    // One session for what Vaxel asks itself, one for both callers, who answer the same.
    let told: Vec<Value> = legacy
        .seen("initialize")
        .into_iter()
        .map(|seen| seen.json["params"]["capabilities"].clone())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1], able);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_opens_for_its_own_call_alone() {
    let rig = Rig::start();
    let _servers = every_server(&rig).await;
    let client = rig.modern().able(ABLE);
    for (service, other) in [("hl", "hm"), ("hm", "hl")] {
        let first = call(service, &[form("one")], false);
        let asked = client.say(&first).await.json();
        let (right, _) = retry(&first.params, &asked["result"]);
        let state = asked["result"]["requestState"].as_str().unwrap().to_owned();
        let with = |params: &str| {
            let mut message = Message::new("tools/call", params).id("2");
            message.method = first.method.clone();
            message
        };
        let mut tampered = state.clone().into_bytes();
        let middle = tampered.len() / 2;
        tampered[middle] = if tampered[middle] == b'A' { b'B' } else { b'A' };
        let tampered = String::from_utf8(tampered).unwrap();
        let other_tool = right.replace("__echo", "__other");
        let [here, there] = [service, other].map(|name| format!("{name}__echo"));
        let wrong = [
            ("tampered", right.replace(&state, &tampered)),
            ("garbage", right.replace(&state, "x")),
            (
                "other arguments",
                right.replace(r#""together":false"#, r#""together":true"#),
            ),
            ("other tool", other_tool),
            (
                "the same tool of another service",
                right.replace(&here, &there),
            ),
        ];
        for (what, params) in wrong {
            let answer = client.say(&with(&params)).await;
            assert_eq!(answer.code(), -32602, "{service}: {what}");
        }
        let stranger = Client::modern(rig.address, &rig.keys[1]).able(ABLE);
        assert_eq!(
            stranger.say(&with(&right)).await.code(),
            -32602,
            "{service}: another caller"
        );
        // None of these took anything from the one it belongs to.
        let answered = client.say(&with(&right)).await.json();
        assert_eq!(said(&answered), json!([answer(&form("one"))]), "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_waits_is_resumed_once() {
    let rig = Rig::start();
    let (_servers, served) = every_server(&rig).await;
    let client = rig.modern().able(ABLE);
    let first = call("hl", &[form("one"), form("two")], true);
    let asked = client.say(&first).await.json();
    let questions = asked["result"]["inputRequests"].as_object().unwrap();
    assert_eq!(questions.len(), 2);
    // It holds no place among the calls of its service.
    rig.idle(&served[0]).await;
    let (both, _) = retry(&first.params, &asked["result"]);
    let (key, question) = questions.iter().next().unwrap();
    let half = format!(
        r#"{},"inputResponses":{{"{key}":{}}},"requestState":{}"#,
        first.params,
        answer(question),
        asked["result"]["requestState"]
    );
    // Half of the answers: it is asked for the other half.
    let again = client
        .say(&Message::new("tools/call", &half).id("2"))
        .await
        .json();
    assert_eq!(
        again["result"]["inputRequests"].as_object().unwrap().len(),
        1
    );
    let expired = client
        .say(&Message::new("tools/call", &both).id("3"))
        .await
        .json();
    assert_eq!(expired["result"]["isError"], true, "{expired}");
    assert!(expired.to_string().contains("expired"), "{expired}");
    let (rest, _) = retry(&first.params, &again["result"]);
    let last = client
        .say(&Message::new("tools/call", &rest).id("4"))
        .await
        .json();
    assert_eq!(
        said(&last),
        json!([answer(&form("one")), answer(&form("two"))])
    );
    let outcomes: Vec<Outcome> = rig.records().iter().map(|record| record.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Ok, Outcome::Ok, Outcome::Error, Outcome::Ok]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_resumed_leaves_no_task_behind() {
    let rig = Rig::start();
    let _servers = every_server(&rig).await;
    let client = rig.modern().able(ABLE);
    converse(&client, call("hl", &[], false)).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    for _ in 0..100 {
        converse(&client, call("hl", &[form("one")], false)).await;
    }
    wait_for("the tasks of a hundred calls to end", || {
        (tasks.num_alive_tasks() < before + 50).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_client_never_comes_back_is_called_off() {
    let mut plan = crate::harness::Plan::default();
    plan.config.answer_wait = std::time::Duration::from_millis(50);
    let rig = Rig::start_with(&plan);
    let asking = Arc::new(Asking::default());
    let hears = Arc::clone(&asking);
    let legacy = Upstream::legacy(move |seen| hears.hear(seen)).await;
    rig.add_http("hl", &legacy).await;
    rig.add_stdio("sl", &Script::legacy(LEGACY)).await;
    let client = rig.modern().able(ABLE);
    for service in ["hl", "sl"] {
        let asked = client
            .say(&call(service, &[form("one")], false))
            .await
            .json();
        assert_eq!(asked["result"]["resultType"], "input_required");
    }
    wait_for("the call over HTTP to be called off", || {
        (legacy.seen("notifications/cancelled").len() == 1).then_some(())
    })
    .await;
    wait_for("the call over stdio to be called off", || {
        let told = rig.told("sl");
        told.iter()
            .any(|line| line.contains("notifications/cancelled"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_no_is_heard() {
    let rig = Rig::start();
    let _servers = every_server(&rig).await;
    let legacy = Client::silent(rig.address, &rig.keys[0])
        .able(ABLE)
        .opened("2025-11-25")
        .await;
    for (service, asks, expected) in [
        ("sl", form("one"), Some(json!([{"refused": true}]))),
        ("hl", sampling("one"), Some(json!([{"refused": true}]))),
        // A form that was not shown counts as cancelled; a sampling that was refused ends the call.
        ("sm", form("one"), Some(json!([{"action": "cancel"}]))),
        ("hm", sampling("one"), None),
    ] {
        let mut stream = legacy.open(&call(service, &[asks], false)).await;
        let question = next(&mut stream).await;
        let refusal = json!({"jsonrpc": "2.0", "id": question["id"],
            "error": {"code": -1, "message": "the user said no"}});
        assert_eq!(legacy.post(&refusal.to_string()).await.status, 202);
        let last = next(&mut stream).await;
        if let Some(expected) = expected {
            assert_eq!(said(&last), expected, "{service}");
        } else {
            assert_eq!(last["result"]["isError"], true, "{last}");
            assert!(last.to_string().contains("the user said no"), "{last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdio_server_never_asks_the_wrong_caller() {
    let rig = Rig::start();
    // Asks on behalf of nobody in particular, while two calls are in flight.
    let script = Script::legacy(
        r#"
held.append(id)
if len(held) == 2:
    say({"jsonrpc": "2.0", "id": "whose", "method": "elicitation/create", "params": {"message": "m"}})
    while hear().get("id") != "whose":
        pass
    for one in held:
        text("done", one)
elif len(held) > 2:
    say({"jsonrpc": "2.0", "id": "mine", "method": "elicitation/create", "params": {"message": "m"}})
    heard = hear()
    text(json.dumps([heard.get("result", {"refused": True})]))
"#,
    );
    let served = rig.add_stdio("sl", &script).await;
    let [modern, legacy] = able(&rig).await;
    let message = Message::call("sl__echo", "{}");
    let mut waiting = tokio::task::JoinSet::new();
    let one = Message::call("sl__echo", "{}");
    waiting.spawn(async move { legacy.say(&one).await.json() });
    wait_for("the first call", || {
        (rig.gateway.load(served.id).in_flight == 1).then_some(())
    })
    .await;
    let second = modern.say(&message).await.json();
    assert_eq!(second["result"]["content"][0]["text"], "done");
    let first = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(first["result"]["content"][0]["text"], "done");
    // From now on it gets one call at a time, so its questions have an address.
    let (one, two) = tokio::join!(
        converse(&modern, call("sl", &[], false)),
        converse(&modern, call("sl", &[], false))
    );
    for (last, asked) in [one, two] {
        assert_eq!(asked.len(), 1);
        assert_eq!(
            said(&last),
            json!([{"action": "accept", "content": {"n": "m"}}])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_call_was_left_its_server_can_ask_about_the_next_ones() {
    let rig = Rig::start();
    // Never answers the call that will be cancelled.
    let script = Script::legacy(
        r#"
if params["arguments"].get("hold"):
    note("notifications/progress", progressToken=token, progress=1)
else:
    say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "m"}})
    while True:
        heard = hear()
        if heard.get("id") == "q":
            break
    text(json.dumps([heard.get("result", {"refused": True})]))
"#,
    );
    rig.add_stdio("sl", &script).await;
    let [modern, legacy] = able(&rig).await;
    let held = Message::call("sl__echo", r#"{"hold":true}"#).token("1");
    let mut stream = modern.open(&held).await;
    assert_eq!(next(&mut stream).await["method"], "notifications/progress");
    drop(stream);
    wait_for("the server to know of it", || {
        let told = rig.told("sl");
        told.iter()
            .any(|line| line.contains("notifications/cancelled"))
            .then_some(())
    })
    .await;
    let other = Client::silent(rig.address, &rig.keys[1]).able(ABLE);
    let other = other.opened("2025-11-25").await;
    for (client, asked) in [(&modern, 1), (&legacy, 1), (&other, 1)] {
        let (last, questions) = converse(client, call("sl", &[], false)).await;
        assert_eq!(questions.len(), asked, "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_client_is_asked_in_its_own_words_or_not_at_all() {
    let rig = Rig::start();
    let _servers = every_server(&rig).await;
    let silent =
        || Client::silent(rig.address, &rig.keys[0]).able(r#"{"elicitation":{},"sampling":{}}"#);
    let client = silent().opened("2025-06-18").await;
    for service in SERVERS {
        let (last, asked) = converse(&client, call(service, &[form("one")], false)).await;
        assert_eq!(said(&last), json!([answer(&form("one"))]), "{service}");
        assert!(asked[0]["params"].get("mode").is_none(), "{}", asked[0]);
    }
    let oldest = silent().opened("2025-03-26").await;
    let (last, asked) = converse(&oldest, call("sl", &[form("one"), sampling("two")], false)).await;
    assert_eq!(asked.len(), 1);
    assert_eq!(
        said(&last),
        json!([{"refused": true}, answer(&sampling("two"))])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_hundreds_of_calls_that_wait_none_is_lost_or_mixed_up() {
    const CALLS: usize = 500;
    let mut plan = crate::harness::Plan::default();
    plan.config.parked_per_caller = CALLS;
    let rig = Rig::start_with(&plan);
    let asking = Asking::default();
    let legacy = Upstream::legacy(move |seen| asking.hear(seen)).await;
    let terms = crate::harness::Terms {
        limits: vaxel_core::service::Limits {
            concurrency: Some(10_000),
            ..vaxel_core::service::Limits::default()
        },
        ..crate::harness::Terms::default()
    };
    rig.add_http_on("hl", &legacy, terms).await;
    let client = rig.modern().able(ABLE);
    let mut asked = Vec::new();
    for number in 0..CALLS {
        let first = call("hl", &[form(&number.to_string())], false);
        let result = client.say(&first).await.json()["result"].clone();
        asked.push((first, result));
    }
    let refused = client.say(&call("hl", &[form("one more")], false)).await;
    assert!(refused.text.contains("calls.parked"), "{}", refused.text);
    let mut answers = tokio::task::JoinSet::new();
    for (number, (first, result)) in asked.into_iter().enumerate().rev() {
        let client = client.clone();
        answers.spawn(async move {
            let (params, _) = retry(&first.params, &result);
            let last = client
                .say(&Message::new("tools/call", &params).id("2"))
                .await;
            (number, said(&last.json()))
        });
        // A few at a time.
        if answers.len() >= 16 {
            check(answers.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(answered) = answers.join_next().await {
        check(answered.unwrap());
    }
}

fn check((number, said): (usize, Value)) {
    assert_eq!(said, json!([answer(&form(&number.to_string()))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_cancelled_also_while_its_client_is_asked() {
    let rig = Rig::start();
    let (_servers, served) = every_server(&rig).await;
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(ABLE);
    let legacy = legacy.opened("2025-11-25").await;
    for service in SERVERS {
        let mut stream = legacy
            .open(&call(service, &[form("one")], false).id("\"c\""))
            .await;
        let question = next(&mut stream).await;
        let cancel =
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c"}}"#;
        assert_eq!(legacy.post(cancel).await.status, 202);
        let last = next(&mut stream).await;
        assert!(last["error"].is_object(), "{service}: {last}");
        assert_eq!(rig.record().await.outcome, Outcome::Cancelled, "{service}");
        // An answer that comes too late is taken and means nothing.
        let late = json!({"jsonrpc": "2.0", "id": question["id"], "result": answer(&question)});
        assert_eq!(legacy.post(&late.to_string()).await.status, 202);
    }
    for one in &served {
        rig.idle(one).await;
    }
    let told = rig.told("sl");
    assert!(
        told.iter()
            .any(|line| line.contains("notifications/cancelled"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_while_its_client_thinks_is_named_at_the_retry() {
    let rig = Rig::start();
    let script = Script::legacy(
        r#"
if params["arguments"].get("die"):
    os._exit(3)
say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {"message": "m"}})
"#,
    );
    let served = rig.add_stdio("sl", &script).await;
    let client = rig.modern().able(ABLE);
    let first = call("sl", &[], false);
    let asked = client.say(&first).await.json();
    assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    client.call("sl__echo", r#"{"die":true}"#).await;
    served.link.closed().await;
    let (params, _) = retry(&first.params, &asked["result"]);
    let last = client
        .say(&Message::new("tools/call", &params).id("2"))
        .await;
    assert!(last.text.contains("sl"), "{}", last.text);
    assert!(last.json()["error"].is_object(), "{}", last.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_is_not_waited_for_for_ever() {
    let mut plan = crate::harness::Plan::default();
    plan.config.answer_wait = std::time::Duration::from_millis(50);
    let rig = Rig::start_with(&plan);
    let _servers = every_server(&rig).await;
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(ABLE);
    let legacy = legacy.opened("2025-11-25").await;
    for service in SERVERS {
        let mut stream = legacy.open(&call(service, &[form("one")], false)).await;
        next(&mut stream).await;
        let last = next(&mut stream).await;
        let is_error = last["error"].is_object() || last["result"]["isError"] == true;
        assert!(is_error, "{service}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_without_end_is_given_up() {
    let rig = Rig::start();
    let endless = Upstream::modern(|seen: &Seen| {
        let asked = json!({"resultType": "input_required", "requestState": "again",
            "inputRequests": {"k": form("once more?")}});
        (seen.method() == "tools/call").then(|| Reply::Json(200, seen.result(&asked)))
    })
    .await;
    rig.add_http("hm", &endless).await;
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(ABLE);
    let legacy = legacy.opened("2025-11-25").await;
    let (last, asked) = converse(&legacy, call("hm", &[], false)).await;
    assert_eq!(last["result"]["isError"], true, "{last}");
    assert_eq!(asked.len(), 8);
    // Each round was a request of its own, with the answers of that round and the server's own state.
    let calls = endless.seen("tools/call");
    assert_eq!(calls.len(), 9);
    let mut ids: Vec<String> = calls.iter().map(Seen::id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 9);
    for retried in &calls[1..] {
        let params = &retried.json["params"];
        assert_eq!(params["requestState"], "again");
        assert_eq!(params["inputResponses"]["k"]["action"], "accept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_wants_urls_visited_first_becomes_a_question() {
    let rig = Rig::start();
    let visited = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_visited = Arc::clone(&visited);
    let upstream = Upstream::legacy(move |seen: &Seen| {
        let refuses = seen.method() == "tools/call"
            && !is_visited.load(std::sync::atomic::Ordering::Relaxed);
        refuses.then(|| {
            let error = json!({"code": -32042, "message": "sign in first", "data": {"elicitations": [
                {"mode": "url", "elicitationId": "e1", "url": "https://sign.in/", "message": "Sign in"}]}});
            Reply::Json(200, json!({"jsonrpc": "2.0", "id": seen.json["id"], "error": error}).to_string())
        })
    })
    .await;
    rig.add_http("old", &upstream).await;
    let call = Message::call("old__echo", r#"{"a":1}"#);
    let able = rig.modern().able(ABLE);
    let asked = able.say(&call).await.json()["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let question = &asked["inputRequests"]["q1"];
    assert_eq!(question["method"], "elicitation/create");
    let params = json!({"mode": "url", "url": "https://sign.in/", "message": "Sign in"});
    assert_eq!(question["params"], params);
    visited.store(true, std::sync::atomic::Ordering::Relaxed);
    let retry = format!(
        r#"{},"inputResponses":{{"q1":{{"action":"accept"}}}},"requestState":{}"#,
        call.params, asked["requestState"]
    );
    let answer = able.say(&Message::new("tools/call", &retry)).await.json();
    assert!(answer["result"]["content"].is_array(), "{answer}");
    let told = upstream.seen("tools/call").pop().unwrap();
    assert_eq!(told.json["params"]["arguments"], json!({"a": 1}));
    assert!(
        told.json["params"].get("inputResponses").is_none(),
        "{}",
        told.text
    );
    // Clients that cannot be asked, and those who know the error, read it.
    visited.store(false, std::sync::atomic::Ordering::Relaxed);
    let told = rig.modern().say(&call).await.json();
    assert_eq!(told["error"]["message"], "sign in first");
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(ABLE);
    let told = legacy.opened("2025-11-25").await.say(&call).await.json();
    assert_eq!(told["error"]["code"], -32042);
}
