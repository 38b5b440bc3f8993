//! Legacy servers over HTTP that ask on the stream of the session instead of the call's own, as those do
//! that do not say which call a question belongs to.

use std::collections::HashMap;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vaxel_core::call::Outcome;

use crate::harness::{Client, Reply, Rig, Seen, Upstream, client::Message, wait_for};

const ABLE: &str = r#"{"elicitation":{"form":{}}}"#;

#[derive(Default)]
struct Aloof {
    /// The streams of its sessions.
    streams: Mutex<HashMap<String, mpsc::Sender<String>>>,
    /// Calls by the ids of their questions.
    calls: Mutex<HashMap<String, (Value, mpsc::Sender<String>)>>,
    /// Answers in one piece, when everything is known.
    answers_whole: bool,
}

impl Aloof {
    fn hear(&self, seen: &Seen) -> Option<Reply> {
        let session = seen.header("mcp-session-id").unwrap_or_default();
        if seen.verb == Method::GET {
            let (sender, receiver) = mpsc::channel(16);
            self.streams.lock().insert(session.to_owned(), sender);
            return Some(Reply::Live(receiver));
        }
        if seen.method() == "tools/call" {
            let (sender, receiver) = mpsc::channel(16);
            let mut calls = self.calls.lock();
            let id = format!("q{}", calls.len());
            let question = json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create",
                "params": {"message": "m", "requestedSchema": {"type": "object"}}});
            calls.insert(id, (seen.json.clone(), sender));
            if seen.json["params"]["arguments"]["quiet"] == true {
                return Some(Reply::Live(receiver));
            }
            let wants_both = seen.json["params"]["arguments"]["both"] == true;
            if !wants_both || calls.len() > 1 {
                let stream = self.streams.lock()[session].clone();
                stream.try_send(question.to_string()).unwrap();
            }
            return Some(if self.answers_whole {
                Reply::Later(receiver)
            } else {
                Reply::Live(receiver)
            });
        }
        if seen.method() == "notifications/cancelled" {
            // It had already begun to ask; what comes of it is the answer to the last call.
            let mut calls = self.calls.lock();
            let last = calls[&format!("q{}", calls.len() - 1)].clone();
            calls.insert("late".to_owned(), last);
            let question = json!({"jsonrpc": "2.0", "id": "late", "method": "elicitation/create",
                "params": {"message": "m", "requestedSchema": {"type": "object"}}});
            let stream = self.streams.lock()[session].clone();
            stream.try_send(question.to_string()).unwrap();
        }
        if seen.method().is_empty() {
            let calls = self.calls.lock();
            let (call, sender) = &calls[seen.json["id"].as_str().unwrap()];
            let said = seen.json.get("result").unwrap_or(&seen.json["error"]);
            let text = json!({"content": [{"type": "text", "text": said.to_string()}]});
            let answer = json!({"jsonrpc": "2.0", "id": call["id"], "result": text});
            sender.try_send(answer.to_string()).unwrap();
            return Some(Reply::Json(202, String::new()));
        }
        None
    }
}

async fn start(rig: &Rig) -> Upstream {
    start_aloof(rig, Aloof::default()).await
}

async fn start_aloof(rig: &Rig, aloof: Aloof) -> Upstream {
    let upstream = Upstream::legacy(move |seen| aloof.hear(seen)).await;
    rig.add_http("up", &upstream).await;
    upstream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_on_the_sessions_stream_reaches_the_only_call() {
    for answers_whole in [false, true] {
        asks_on_the_sessions_stream(answers_whole).await;
    }
}

async fn asks_on_the_sessions_stream(answers_whole: bool) {
    let rig = Rig::start();
    let aloof = Aloof {
        answers_whole,
        ..Aloof::default()
    };
    let upstream = start_aloof(&rig, aloof).await;
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(ABLE);
    let legacy = legacy.opened("2025-11-25").await;
    for _ in 0..2 {
        let mut stream = legacy.open(&Message::call("up__echo", "{}")).await;
        let question = stream.event().await.unwrap();
        assert_eq!(question["method"], "elicitation/create");
        let reply =
            json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}});
        legacy.post(&reply.to_string()).await;
        let last = stream.event().await.unwrap();
        assert_eq!(
            last["result"]["content"][0]["text"],
            r#"{"action":"decline"}"#
        );
    }
    let modern = rig.modern().able(ABLE);
    let first = Message::call("up__echo", "{}");
    let asked = modern.say(&first).await.json()["result"].clone();
    assert_eq!(asked["resultType"], "input_required");
    let key = asked["inputRequests"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    let params = format!(
        r#"{},"inputResponses":{{"{key}":{{"action":"cancel"}}}},"requestState":{}"#,
        first.params, asked["requestState"]
    );
    let last = modern
        .say(&Message::new("tools/call", &params).id("2"))
        .await
        .json();
    assert_eq!(
        last["result"]["content"][0]["text"],
        r#"{"action":"cancel"}"#
    );
    let streams = upstream
        .seen("")
        .into_iter()
        .filter(|seen| seen.verb == Method::GET);
    assert_eq!(
        streams.count(),
        1,
        "both clients are one caller who answers the same: one session, one stream"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_could_be_of_either_call_is_refused() {
    let rig = Rig::start();
    let upstream = start(&rig).await;
    let client = rig.modern().able(ABLE);
    let both = Message::call("up__echo", r#"{"both":true}"#);
    let mut calls = tokio::task::JoinSet::new();
    let (one, message) = (
        client.clone(),
        Message::call("up__echo", r#"{"both":true}"#),
    );
    calls.spawn(async move { one.say(&message).await });
    wait_for("the first call", || {
        (upstream.seen("tools/call").len() == 1).then_some(())
    })
    .await;
    let refused = client.say(&both).await.json();
    let text = refused["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("-32601"), "{text}");
    calls.abort_all();
    while calls.join_next().await.is_some() {}
    let outcomes = [rig.record().await.outcome, rig.record().await.outcome];
    assert!(outcomes.contains(&Outcome::Ok) && outcomes.contains(&Outcome::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_a_call_that_was_left_is_nobodys() {
    let rig = Rig::start();
    let upstream = start(&rig).await;
    let client = rig.modern().able(ABLE);
    let quiet = Message::call("up__echo", r#"{"quiet":true}"#);
    let mut calls = tokio::task::JoinSet::new();
    let (one, message) = (
        client.clone(),
        Message::call("up__echo", r#"{"quiet":true}"#),
    );
    calls.spawn(async move { one.say(&message).await });
    wait_for("the first call", || {
        (upstream.seen("tools/call").len() == 1).then_some(())
    })
    .await;
    let (two, ()) = tokio::join!(client.say(&quiet), async {
        wait_for("the second call", || {
            (upstream.seen("tools/call").len() == 2).then_some(())
        })
        .await;
        calls.shutdown().await;
    });
    let text = two.text;
    assert!(text.contains("-32601"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_answers_nothing_needs_no_stream() {
    let rig = Rig::start();
    let upstream = Upstream::legacy(|_| None).await;
    rig.add_http("up", &upstream).await;
    rig.modern().call("up__echo", "{}").await;
    rig.modern().able(ABLE).call("up__echo", "{}").await;
    rig.modern().able(ABLE).call("up__echo", "{}").await;
    // The server has no such stream and is asked once.
    let asked = upstream
        .seen("")
        .into_iter()
        .filter(|seen| seen.verb == Method::GET);
    assert_eq!(asked.count(), 1);
}
