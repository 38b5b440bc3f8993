//! Remote servers that do everything wrong: a refusal, an outage or a lie of one ends its own calls
//! with a clear error and is nobody else's affair.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use vaxel_auth::web::WebRules;
use vaxel_core::{
    call::Outcome, failure::Kind, principal::Principal, quantity::Span, service::Limits,
};
use vaxel_gateway::{BreakerRules, ToolCall, Tunables};

use crate::harness::{
    Plan, Reply, Rig, Seen, Terms, Upstream,
    client::{Message, Stream},
    upstream::error,
    wait_for,
};

fn blamed(answer: &Value) -> &str {
    let message = answer["error"]["message"].as_str();
    message.unwrap_or_else(|| panic!("no error in {answer}"))
}

fn soon() -> Terms {
    Terms {
        limits: Limits {
            timeout: Some(Span(Duration::from_secs(1))),
            ..Limits::default()
        },
        ..Terms::default()
    }
}

/// Answers `tools/call` with what `reply` makes.
fn calls(reply: impl Fn(&Seen) -> Reply) -> impl Fn(&Seen) -> Option<Reply> {
    move |seen| (seen.method() == "tools/call").then(|| reply(seen))
}

/// Both kinds of upstream with the same answer, one call each; what its caller is told, and what
/// its record says.
async fn told(
    reply: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
) -> Vec<(String, Outcome)> {
    told_on(Terms::default, reply).await
}

async fn told_on(
    terms: fn() -> Terms,
    reply: impl Fn(&Seen) -> Reply + Clone + Send + Sync + 'static,
) -> Vec<(String, Outcome)> {
    let mut plan = Plan::default();
    plan.config.response_max = 100_000;
    let rig = Rig::start_with(&plan);
    let modern = Upstream::modern(calls(reply.clone())).await;
    let legacy = Upstream::legacy(calls(reply)).await;
    rig.add_http_on("modern", &modern, terms()).await;
    rig.add_http_on("legacy", &legacy, terms()).await;
    let mut all = Vec::new();
    for client in [rig.modern(), rig.legacy().await] {
        for tool in ["modern__echo", "legacy__echo"] {
            let answer = client
                .say(&Message::call(tool, "{}").token("1"))
                .await
                .json();
            all.push((blamed(&answer).to_owned(), rig.record().await.outcome));
        }
    }
    assert_eq!(rig.records().len(), 0, "each call leaves one record");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_blamed_on_the_configuration() {
    for (said, outcome) in told(|_| Reply::Json(401, "{}".to_owned())).await {
        assert!(said.contains("refuses the credentials"), "{said}");
        assert_eq!(outcome, Outcome::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_with_its_status() {
    for (said, outcome) in told(|_| Reply::Json(500, "<html>".to_owned())).await {
        assert!(said.contains("500"), "{said}");
        assert_eq!(outcome, Outcome::Error);
    }
    for (said, outcome) in told(|_| Reply::Json(503, String::new())).await {
        assert!(said.contains("overloaded"), "{said}");
        assert_eq!(outcome, Outcome::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_lost_and_not_half_believed() {
    let half = r#"{"jsonrpc":"2.0","id":1,"result":{"con"#;
    for (said, outcome) in told(move |_| Reply::Cut(half.to_owned())).await {
        assert!(!said.contains("con\""), "{said}");
        assert_eq!(outcome, Outcome::Unavailable, "{said}");
    }
    let note = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#;
    for (said, outcome) in told(move |_| Reply::Events(vec![note.to_owned()])).await {
        assert!(said.contains("ended its answer"), "{said}");
        assert_eq!(outcome, Outcome::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ends_costs_the_deadline() {
    let note =
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}"#;
    let notes = move |_: &Seen| Reply::EventsForEver(vec![note.to_owned()]);
    for (said, outcome) in told_on(soon, notes).await {
        assert!(said.contains("in time"), "{said}");
        assert_eq!(outcome, Outcome::Timeout);
    }
    for (said, outcome) in told_on(soon, |_| Reply::EventsForEver(Vec::new())).await {
        assert!(said.contains("in time"), "{said}");
        assert_eq!(outcome, Outcome::Timeout);
    }
    for (said, outcome) in told_on(soon, |_| Reply::Never).await {
        assert!(said.contains("in time"), "{said}");
        assert_eq!(outcome, Outcome::Timeout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_limit_is_refused_by_name() {
    let large = |seen: &Seen| seen.say(&"x".repeat(200_000));
    for (said, _) in told(move |seen| Reply::Json(200, large(seen))).await {
        assert!(said.contains("100000 bytes"), "{said}");
    }
    for (said, _) in told(move |seen| Reply::Events(vec![large(seen)])).await {
        assert!(said.contains("modern") || said.contains("legacy"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_message_is_not_passed_on() {
    for text in [
        "",
        "{",
        "[]",
        "\"x\"",
        r#"{"jsonrpc":"2.0","id":1}"#,
        "<html>",
    ] {
        for (said, outcome) in told(move |_| Reply::Json(200, text.to_owned())).await {
            assert!(said.contains("without an MCP message"), "{text:?}: {said}");
            assert_eq!(outcome, Outcome::Error);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_service_is_passed_on_as_it_is() {
    let refuse = |seen: &Seen| Reply::Json(200, error(seen, -32099, "Its own words"));
    for (said, outcome) in told(refuse).await {
        assert_eq!(said, "Its own words");
        assert_eq!(outcome, Outcome::Error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_is_opened_again_once_and_the_request_repeated() {
    let rig = Rig::start();
    let upstream = Upstream::legacy(|_| None).await;
    rig.add_http("up", &upstream).await;
    let client = rig.modern();
    let answer = client.call("up__echo", "{}").await;
    assert!(answer["result"].is_object(), "{answer}");
    let opened = upstream.seen("initialize").len();
    upstream.forget_sessions();
    let answer = client.call("up__echo", "{}").await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(upstream.seen("initialize").len(), opened + 1);
    assert_eq!(upstream.seen("tools/call").len(), 3);
    assert_eq!(rig.record().await.outcome, Outcome::Ok);
    assert_eq!(rig.record().await.outcome, Outcome::Ok);
    assert!(upstream.seen("notifications/cancelled").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_every_session_is_asked_twice_and_no_more() {
    let rig = Rig::start();
    let amnesia = calls(|seen| Reply::Json(404, error(seen, -32001, "Session not found")));
    let upstream = Upstream::legacy(amnesia).await;
    rig.add_http("up", &upstream).await;
    let answer = rig.modern().call("up__echo", "{}").await;
    assert!(blamed(&answer).contains("Session not found"), "{answer}");
    assert_eq!(upstream.seen("tools/call").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_find_the_session_forgotten_together_open_one() {
    let rig = Rig::start();
    let upstream = Upstream::legacy(|_| None).await;
    rig.add_http("up", &upstream).await;
    let client = rig.modern();
    client.call("up__echo", "{}").await;
    let opened = upstream.seen("initialize").len();
    upstream.forget_sessions();
    let mut together = JoinSet::new();
    for _ in 0..20 {
        let client = client.clone();
        together.spawn(async move { client.call("up__echo", "{}").await });
    }
    while let Some(answer) = together.join_next().await {
        let answer = answer.unwrap();
        assert!(answer["result"].is_object(), "{answer}");
    }
    assert_eq!(upstream.seen("initialize").len(), opened + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_share_a_session_with_themselves_only() {
    let rig = Rig::start();
    let upstream = Upstream::legacy(|_| None).await;
    rig.add_http("up", &upstream).await;
    let one = rig.modern();
    let other = one
        .clone()
        .with("authorization", &format!("Bearer {}", rig.keys[1]));
    for client in [&one, &other, &one] {
        client.call("up__echo", "{}").await;
    }
    let calls = upstream.seen("tools/call");
    let sessions: Vec<_> = calls
        .iter()
        .map(|seen| seen.header("mcp-session-id"))
        .collect();
    assert_eq!(sessions[0], sessions[2]);
    assert_ne!(sessions[0], sessions[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_that_hangs_keeps_nobody_from_another() {
    let rig = Rig::start();
    let hangs = Upstream::modern(calls(|_| Reply::Never)).await;
    let well = Upstream::legacy(|_| None).await;
    rig.add_http("hangs", &hangs).await;
    rig.add_http("well", &well).await;
    let client = rig.modern();
    let mut stuck = JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        stuck.spawn(async move { client.call("hangs__echo", "{}").await });
    }
    wait_for("all to hang", || {
        (hangs.seen("tools/call").len() == 50).then_some(())
    })
    .await;
    let answer = client.call("well__echo", "{}").await;
    assert!(answer["result"].is_object(), "{answer}");
    assert_eq!(client.tools().await.len(), 4);
    assert_eq!(stuck.try_join_next().map(Result::unwrap), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_at_its_limit_is_busy_at_once_and_free_again_later() {
    let rig = Rig::start();
    let hanging = Arc::new(AtomicBool::new(true));
    let still = Arc::clone(&hanging);
    let script = move |seen: &Seen| {
        (seen.method() == "tools/call" && still.load(Ordering::Relaxed)).then_some(Reply::Never)
    };
    let upstream = Upstream::modern(script).await;
    let mut terms = Terms::default();
    terms.limits.concurrency = Some(2);
    let served = rig.add_http_on("up", &upstream, terms).await;
    let client = rig.modern();
    let mut stuck = JoinSet::new();
    for _ in 0..2 {
        let client = client.clone();
        stuck.spawn(async move { client.call("up__echo", "{}").await });
    }
    wait_for("both to hang", || {
        (upstream.seen("tools/call").len() == 2).then_some(())
    })
    .await;
    let refused = client.say(&Message::call("up__echo", "{}")).await;
    assert_eq!(refused.code(), 1429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(rig.record().await.outcome, Outcome::Denied);
    assert_eq!(rig.gateway.load(served.id).in_flight, 2);
    stuck.abort_all();
    rig.idle(&served).await;
    hanging.store(false, Ordering::Relaxed);
    let answer = client.call("up__echo", "{}").await;
    assert!(answer["result"].is_object(), "{answer}");
}

/// More notifications than any buffer between the upstream and a client holds.
fn torrent(seen: &Seen) -> Reply {
    let note = json!({"jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": 1, "progress": 1, "message": "x".repeat(50_000)}});
    let mut events = vec![note.to_string(); 400];
    events.push(seen.say("end"));
    Reply::Events(events)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_its_place_until_the_deadline_only() {
    let rig = Rig::start();
    let upstream = Upstream::modern(calls(torrent)).await;
    let served = rig.add_http_on("up", &upstream, soon()).await;
    for client in [rig.modern(), rig.legacy().await] {
        let message = Message::call("up__echo", "{}").token("1");
        let unread: Stream = client.open(&message).await;
        assert_eq!(unread.status, 200);
        rig.idle(&served).await;
        assert_eq!(rig.record().await.outcome, Outcome::Cancelled);
        drop(unread);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_on_its_stream_is_refused_and_still_answers() {
    let ask = r#"{"jsonrpc":"2.0","id":"q","method":"sampling/createMessage","params":{}}"#;
    let script = calls(move |seen| Reply::Events(vec![ask.to_owned(), seen.say("done")]));
    let upstream = Upstream::legacy(script).await;
    let rig = Rig::start();
    rig.add_http("up", &upstream).await;
    let answer = rig.modern().call("up__echo", "{}").await;
    assert_eq!(answer["result"]["content"][0]["text"], "done");
    let refused = wait_for("the refusal", || {
        upstream
            .seen("")
            .into_iter()
            .find(|seen| seen.json["id"] == "q")
    })
    .await;
    assert_eq!(refused.json["error"]["code"], -32601);
    assert!(refused.header("mcp-session-id").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_says_why_it_is_not_added() {
    let rig = Rig::start();
    let no = |status: u16| move |_: &Seen| Some(Reply::Json(status, String::new()));
    for (status, part) in [(401, "credentials"), (404, "404"), (500, "500")] {
        let upstream = Upstream::modern(no(status)).await;
        let refused = rig
            .try_url("up", upstream.url())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(refused.contains(part), "{status}: {refused}");
    }
    let gone: url::Url = "http://127.0.0.1:1/mcp".parse().unwrap();
    let refused = rig.try_url("up", gone).await.err().unwrap().to_string();
    assert!(refused.contains("cannot connect"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_does_not_answer_is_asked_again_after_a_pause() {
    let rig = Rig::start();
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let script = calls(move |seen| {
        if well.load(Ordering::Relaxed) {
            Reply::Json(200, seen.say("well"))
        } else {
            Reply::Never
        }
    });
    let upstream = Upstream::modern(script).await;
    let served = rig.add_http_on("up", &upstream, soon()).await;
    let mut tunables = Tunables::new(WebRules::new(rig.address, &[]).unwrap());
    tunables.breaker = BreakerRules {
        failures: 2,
        pause: Duration::from_mins(10),
    };
    rig.gateway.tune(tunables.clone());
    let client = rig.modern();
    for _ in 0..2 {
        let late = client.call("up__echo", "{}").await;
        assert!(blamed(&late).contains("in time"), "{late}");
    }
    let refused = client.say(&Message::call("up__echo", "{}")).await;
    assert!(
        refused.text.contains("did not answer its last 2 calls"),
        "{}",
        refused.text
    );
    assert!(refused.header("retry-after").is_some());
    assert_eq!(
        upstream.seen("tools/call").len(),
        2,
        "it was not asked a third time"
    );
    // The lists are not concerned, nor is any other service.
    assert_eq!(client.tools().await, ["up__echo", "up__other"]);
    is_well.store(true, Ordering::Relaxed);
    rig.limit("up", &served, Limits::default());
    tunables.breaker.failures = 0;
    rig.gateway.tune(tunables);
    let answer = client.call("up__echo", "{}").await;
    assert_eq!(answer["result"]["content"][0]["text"], "well");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_without_patience_do_not_keep_others_from_a_service() {
    let rig = Rig::start();
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    let script = calls(move |seen| {
        if well.load(Ordering::Relaxed) {
            Reply::Json(200, seen.say("well"))
        } else {
            Reply::Never
        }
    });
    let upstream = Upstream::modern(script).await;
    let served = rig.add_http_on("up", &upstream, soon()).await;
    let (service, ..) = rig.gateway.tool("up__echo").unwrap();
    rig.gateway.judge(service, Some(Duration::from_hours(1)));
    let mut tunables = Tunables::new(WebRules::new(rig.address, &[]).unwrap());
    tunables.breaker = BreakerRules {
        failures: 2,
        pause: Duration::from_mins(10),
    };
    rig.gateway.tune(tunables);
    let call = |patience: Duration| {
        rig.gateway.call(ToolCall {
            principal: Principal::system(),
            service,
            tool: "echo".to_owned(),
            arguments: "{}".into(),
            timeout: Some(patience),
        })
    };
    for _ in 0..5 {
        let late = call(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(late.kind, Kind::UpstreamTimeout, "{late}");
    }
    assert_eq!(rig.gateway.figures(service).calls, 0, "they say nothing");
    // More patience than the service has time is none of its own: that counts.
    let late = call(Duration::from_mins(1)).await.unwrap_err();
    assert_eq!(late.kind, Kind::UpstreamTimeout, "{late}");
    is_well.store(true, Ordering::Relaxed);
    rig.limit("up", &served, Limits::default());
    let answer = rig.modern().call("up__echo", "{}").await;
    assert_eq!(answer["result"]["content"][0]["text"], "well");
    rig.limit("up", &served, soon().limits);
    let figures = rig.gateway.figures(service);
    assert_eq!((figures.calls, figures.errors), (2, 1));
    is_well.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        let late = call(Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(late.kind, Kind::UpstreamTimeout, "{late}");
    }
    let refused = call(Duration::from_mins(1)).await.unwrap_err();
    assert!(refused.detail.contains("last 2 calls"), "{refused}");
}
