//! Streamed answers whose connection breaks: legacy clients take them up again.

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{
    Client, Plan, Reply, Rig, Seen, Upstream,
    client::{Message, Stream},
    wait_for,
};

/// A server whose one call says what the test sends.
async fn held() -> (mpsc::Sender<String>, Upstream) {
    let (sender, held) = mpsc::channel(64);
    let held = Mutex::new(Some(held));
    let upstream = Upstream::legacy(move |seen: &Seen| {
        let is_call = seen.method() == "tools/call";
        is_call.then(|| Reply::Live(held.lock().take().unwrap()))
    })
    .await;
    (sender, upstream)
}

fn progress(upstream: &Upstream, progress: u32) -> String {
    let call = upstream.seen("tools/call").remove(0);
    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
        "progressToken": call.json["params"]["_meta"]["progressToken"], "progress": progress}})
    .to_string()
}

fn call() -> Message {
    Message::call("old__echo", "{}")
        .token("\"mine\"")
        .id("\"the call\"")
}

/// The stream of a call whose server has told of progress.
async fn begun(client: &Client, server: &mpsc::Sender<String>, upstream: &Upstream) -> Stream {
    let call = call();
    let started = async {
        wait_for("the call", || upstream.seen("tools/call").pop()).await;
        server.send(progress(upstream, 1)).await.unwrap();
    };
    let (stream, ()) = tokio::join!(client.open(&call), started);
    stream
}

/// The stream of the call, after this event.
async fn resume(client: &Client, last_event: &str) -> Stream {
    let client = client.clone().with("last-event-id", last_event);
    client.send(Method::GET, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_takes_up_a_stream_where_it_ended() {
    let rig = Rig::start();
    let (server, upstream) = held().await;
    rig.add_http("old", &upstream).await;
    let client = rig.legacy().await;
    server
        .send(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":0}}"#.to_owned())
        .await
        .unwrap();
    let mut first = client.open(&call()).await;
    let (priming, id) = first.event_with_id().await;
    assert_eq!(priming, Value::Null, "an id to come back with, at once");
    assert!(id.is_some());
    first.event_with_id().await;
    server.send(progress(&upstream, 1)).await.unwrap();
    let (told, last) = first.event_with_id().await;
    assert_eq!(told["params"]["progress"], 1);
    // The client is gone, and its call is not cancelled: what comes now is kept.
    drop(first);
    for one in [2, 3] {
        server.send(progress(&upstream, one)).await.unwrap();
    }
    let mut second = resume(&client, &last.unwrap()).await;
    for one in [2, 3] {
        let (told, _) = second.event_with_id().await;
        assert_eq!(told["params"]["progress"], one, "{told}");
    }
    // A second connection takes the stream over; each message goes onto one of them.
    server.send(progress(&upstream, 4)).await.unwrap();
    let (_, last) = second.event_with_id().await;
    let mut third = resume(&client, &last.unwrap()).await;
    assert!(second.event().await.is_none(), "it was taken over");
    let seen = upstream.seen("tools/call").remove(0);
    server.send(seen.say("done")).await.unwrap();
    let (answer, last) = third.event_with_id().await;
    assert_eq!(answer["id"], "the call");
    assert_eq!(answer["result"]["content"][0]["text"], "done");
    assert!(third.event().await.is_none());
    // Nothing is left to be told.
    assert!(
        resume(&client, &last.unwrap())
            .await
            .event()
            .await
            .is_none()
    );
    assert!(upstream.seen("notifications/cancelled").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_silent_for_long_leaves_something_to_come_back_to() {
    let rig = Rig::start();
    let (server, upstream) = held().await;
    rig.add_http("old", &upstream).await;
    let client = rig.legacy().await;
    let mut first = client.open(&call()).await;
    let (priming, id) = first.event_with_id().await;
    assert_eq!(priming, Value::Null);
    drop(first);
    let mut second = resume(&client, &id.unwrap()).await;
    let seen = upstream.seen("tools/call").remove(0);
    server.send(seen.say("done")).await.unwrap();
    let answer = second.event().await.unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_while_nobody_was_there_is_kept() {
    let rig = Rig::start();
    let (server, upstream) = held().await;
    rig.add_http("old", &upstream).await;
    let client = rig.legacy().await;
    let mut first = begun(&client, &server, &upstream).await;
    let (_, id) = first.event_with_id().await;
    drop(first);
    let seen = upstream.seen("tools/call").remove(0);
    server.send(seen.say("done")).await.unwrap();
    drop(server);
    rig.record().await;
    let answer = resume(&client, &id.unwrap()).await.read().await.messages();
    assert_eq!(answer[0]["params"]["progress"], 1, "{answer:?}");
    assert_eq!(answer[1]["result"]["content"][0]["text"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_known_any_more_leads_to_a_clear_error() {
    let plan = Plan::default();
    let rig = Rig::start_with(&plan);
    let (server, upstream) = held().await;
    rig.add_http("old", &upstream).await;
    let client = rig.legacy().await;
    let mut first = begun(&client, &server, &upstream).await;
    let (_, id) = first.event_with_id().await;
    // Another process takes over, as after a restart.
    let later = Rig::start_with(&plan);
    let moved = client.moved(later.address);
    let answer = resume(&moved, &id.unwrap()).await.read().await.json();
    assert_eq!(answer["id"], "the call");
    let told = answer["error"]["message"].as_str().unwrap();
    assert!(told.contains("Vaxel was restarted"), "{told}");
    // Another caller's stream does not exist, and an id that is none of ours means nothing.
    let other = Client::legacy(rig.address, &rig.keys[1]).await;
    let foreign = resume(&other, "1-1-MQ").await.read().await.json();
    assert!(foreign["error"].is_object());
    let mut plain = resume(&client, "somebody's").await;
    let news = Upstream::modern(|_| None).await;
    rig.add_http("new", &news).await;
    let told = plain.event().await.unwrap();
    assert_eq!(told["method"], "notifications/tools/list_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_older_revisions_get_ids_and_no_empty_event() {
    let rig = Rig::start();
    let (server, upstream) = held().await;
    rig.add_http("old", &upstream).await;
    let client = Client::silent(rig.address, &rig.keys[0])
        .opened("2025-06-18")
        .await;
    let mut first = begun(&client, &server, &upstream).await;
    let (told, id) = first.event_with_id().await;
    assert_eq!(told["params"]["progress"], 1);
    assert!(id.is_some());
}
