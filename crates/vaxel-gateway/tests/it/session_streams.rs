//! Legacy servers over HTTP that ask on the stream of the session instead of the call's own, as those do
//! that do not say which call a question belongs to.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use vaxel_core::{call::Outcome, service::SessionScope};

use crate::harness::{
    Client, PATIENCE, Plan, Reply, Rig, Script, Seen, Served, Terms, Upstream,
    client::{Message, Stream},
    wait_for,
};

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

/// A server that tells what there is to tell only in the session of a call, beside its answer.
#[derive(Default)]
struct Discreet {
    opened: AtomicUsize,
    /// The sessions in which it was told a level, and those that were ended.
    told: Mutex<Vec<String>>,
    ended: Mutex<Vec<String>>,
    /// The streams of its sessions.
    streams: Mutex<HashMap<String, mpsc::Sender<String>>>,
}

const NEWS: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;

impl Discreet {
    async fn start(rig: &Rig, session: SessionScope) -> (Arc<Self>, Served) {
        let discreet = Arc::new(Self::default());
        let hears = Arc::clone(&discreet);
        let upstream = Upstream::legacy(move |seen| Some(hears.hear(seen))).await;
        let terms = Terms {
            session,
            ..Terms::default()
        };
        let served = rig.add_http_on("up", &upstream, terms).await;
        // It serves for as long as the test runs.
        std::mem::forget(upstream);
        (discreet, served)
    }

    fn hear(&self, seen: &Seen) -> Reply {
        if seen.verb == Method::GET {
            let (sender, receiver) = mpsc::channel(16);
            let session = seen.header("mcp-session-id").unwrap();
            self.streams.lock().insert(session.to_owned(), sender);
            return Reply::Live(receiver);
        }
        let session = seen.header("mcp-session-id").unwrap_or_default();
        if seen.verb == Method::DELETE {
            self.ended.lock().push(session.to_owned());
        }
        if seen.method() == "logging/setLevel" {
            self.told.lock().push(session.to_owned());
        }
        if seen.json["id"].is_null() {
            return Reply::Json(202, String::new());
        }
        let result = match seen.method() {
            "initialize" => {
                let id = format!("s{}", self.opened.fetch_add(1, Ordering::Relaxed));
                let result = json!({"protocolVersion": "2025-11-25", "capabilities":
                    {"tools": {"listChanged": true}, "resources": {"subscribe": true}, "logging": {}},
                    "serverInfo": {"name": "up", "version": "1"}});
                return Reply::Opened(id, seen.result(&result));
            }
            "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            "resources/list" => json!({"resources": [{"uri": "note://one", "name": "one"}]}),
            "resources/templates/list" => json!({"resourceTemplates": []}),
            "tools/call" if seen.json["params"]["arguments"]["inline"] == true => {
                return Reply::Events(vec![NEWS.to_owned(), seen.say("done")]);
            }
            "tools/call" => return Reply::Json(200, seen.say("done")),
            "server/discover" => return Reply::Json(400, String::new()),
            _ => json!({}),
        };
        Reply::Json(200, seen.result(&result))
    }

    /// Says it on the stream of a session, as soon as that is there.
    async fn say(&self, session: &str, note: &str) {
        let stream = wait_for("the stream of a session", || {
            self.streams.lock().get(session).cloned()
        });
        stream.await.send(note.to_owned()).await.unwrap();
    }
}

fn line(level: &str, text: &str) -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": level, "data": text}})
    .to_string()
}

/// A session with a level and a stream of news.
async fn with_level(rig: &Rig, key: usize, level: &str) -> (Client, Stream) {
    let client = Client::legacy(rig.address, &rig.keys[key]).await;
    let stream = client.send(Method::GET, "").await;
    let level = Message::new("logging/setLevel", &format!(r#""level":"{level}""#));
    assert_eq!(client.say(&level).await.json()["result"], json!({}));
    (client, stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_heard_in_whatever_session_it_is_told() {
    let rig = Rig::start();
    let (discreet, served) = Discreet::start(&rig, SessionScope::PerPrincipal).await;
    let watcher = rig.legacy().await;
    let mut told = watcher.send(Method::GET, "").await;
    let watch = Message::new("resources/subscribe", r#""uri":"note://one""#);
    assert_eq!(watcher.say(&watch).await.json()["result"], json!({}));
    let caller = Client::modern(rig.address, &rig.keys[1]);
    caller.call("up__echo", "{}").await;
    discreet.say("s1", NEWS).await;
    let heard = timeout(PATIENCE, served.link.catalog_changed()).await;
    heard.expect("nobody heard it on the stream of the session");
    let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": {"uri": "note://one"}});
    discreet.say("s1", &updated.to_string()).await;
    assert_eq!(told.event().await.unwrap(), updated);
    let inline = Message::call("up__echo", r#"{"inline":true}"#);
    let messages = caller.say(&inline).await.messages();
    assert_eq!(messages.len(), 1, "it is no part of the answer");
    let heard = timeout(PATIENCE, served.link.catalog_changed()).await;
    heard.expect("nobody heard it on the stream of the call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_in_the_session_of_one_client_reaches_it_at_any_time() {
    let rig = Rig::start();
    let (discreet, _served) = Discreet::start(&rig, SessionScope::PerClient).await;
    let (first, mut one) = with_level(&rig, 0, "warning").await;
    let (second, mut two) = with_level(&rig, 0, "debug").await;
    first.call("up__echo", "{}").await;
    second.call("up__echo", "{}").await;
    discreet.say("s1", &line("info", "too little")).await;
    discreet.say("s1", &line("error", "of the first")).await;
    assert_eq!(one.event().await.unwrap()["params"]["data"], "of the first");
    discreet.say("s2", &line("debug", "of the second")).await;
    assert_eq!(
        two.event().await.unwrap()["params"]["data"],
        "of the second"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_right_after_the_answer_reaches_who_called() {
    let rig = Rig::start();
    let (discreet, _served) = Discreet::start(&rig, SessionScope::PerPrincipal).await;
    let (caller, mut told) = with_level(&rig, 0, "debug").await;
    let (_same, mut idle) = with_level(&rig, 0, "debug").await;
    let (_other, mut foreign) = with_level(&rig, 1, "debug").await;
    let heard = async {
        loop {
            caller.call("up__echo", "{}").await;
            discreet.say("s1", &line("info", "late")).await;
            // A line that was too late is said again after another call.
            if let Ok(heard) = timeout(Duration::from_millis(300), told.event()).await {
                return heard;
            }
        }
    };
    let heard = timeout(PATIENCE, heard).await.expect("nobody heard it");
    assert_eq!(heard.unwrap()["params"]["data"], "late");
    discreet.say("s0", NEWS).await;
    rig.add_stdio("more", &Script::legacy("text('x')")).await;
    for stream in [&mut idle, &mut foreign] {
        let first = stream.event().await.unwrap();
        assert_eq!(first["method"], "notifications/tools/list_changed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_opened_anew_is_told_the_level_again() {
    let mut plan = Plan::default();
    plan.config.sweep_every = Duration::from_millis(10);
    plan.config.upstream_idle = Duration::from_millis(30);
    let rig = Rig::start_with(&plan);
    let (discreet, _served) = Discreet::start(&rig, SessionScope::PerPrincipal).await;
    let (caller, _stream) = with_level(&rig, 0, "debug").await;
    for number in 1..=2 {
        caller.call("up__echo", "{}").await;
        let session = format!("s{number}");
        assert_eq!(*discreet.told.lock().last().unwrap(), session);
        wait_for("the idle session to end", || {
            discreet.ended.lock().contains(&session).then_some(())
        })
        .await;
    }
}
