//! Clients that watch single resources: the server is asked once, by its own era's means, and everyone
//! who watches hears of a change.

use std::{collections::HashMap, sync::Arc};

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{
    Client, Reply, Rig, Script, Seen, Upstream,
    client::{Message, Stream},
    wait_for,
};

const OFFERS: &str = r#"{"resources": {"subscribe": true, "listChanged": true}}"#;

/// A server over HTTP, and its streams by what they were opened for.
#[derive(Default)]
struct Telling {
    streams: Mutex<HashMap<String, mpsc::Sender<String>>>,
}

impl Telling {
    fn hear(&self, seen: &Seen, modern: bool) -> Option<Reply> {
        let offers: Value = serde_json::from_str(OFFERS).unwrap();
        let reply = |result: &Value| Some(Reply::Json(200, seen.result(result)));
        match seen.method() {
            "" if seen.verb == Method::GET && !modern => Some(self.open(seen, "session")),
            "server/discover" if modern => reply(&json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": offers, "ttlMs": 0, "cacheScope": "private",
            })),
            "initialize" if !modern => Some(Reply::Opened(
                "one".to_owned(),
                seen.result(
                    &json!({"protocolVersion": "2025-11-25", "capabilities": offers,
                    "serverInfo": {"name": "up", "version": "1"}}),
                ),
            )),
            "notifications/initialized" => Some(Reply::Json(202, String::new())),
            "resources/list" => reply(&json!({
                "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "resources": [{"uri": "note://one", "name": "one"}, {"uri": "note://two", "name": "two"}],
            })),
            "resources/templates/list" => reply(&json!({
                "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "resourceTemplates": [],
            })),
            "resources/subscribe" | "resources/unsubscribe" => reply(&json!({})),
            "subscriptions/listen" => {
                let wanted = seen.json["params"]["notifications"].clone();
                let uris = wanted["resourceSubscriptions"].to_string();
                let stream = self.open(seen, &uris);
                let params = json!({"notifications": wanted});
                self.say(&uris, "notifications/subscriptions/acknowledged", &params);
                Some(stream)
            }
            _ => None,
        }
    }

    fn open(&self, _: &Seen, key: &str) -> Reply {
        let (sender, receiver) = mpsc::channel(64);
        self.streams.lock().insert(key.to_owned(), sender);
        Reply::Live(receiver)
    }

    /// Says it on one of the streams, when that is there.
    fn say(&self, key: &str, method: &str, params: &Value) -> bool {
        let note = json!({"jsonrpc": "2.0", "method": method, "params": params});
        let streams = self.streams.lock();
        streams
            .get(key)
            .is_some_and(|stream| stream.try_send(note.to_string()).is_ok())
    }
}

fn about(uri: &str) -> Value {
    json!({"uri": uri})
}

/// A session that watches, with its stream of news.
async fn watching(rig: &Rig, uris: &[&str]) -> (Client, Stream) {
    let client = rig.legacy().await;
    let stream = client.send(Method::GET, "").await;
    for uri in uris {
        let message = Message::new("resources/subscribe", &format!(r#""uri":"{uri}""#));
        assert_eq!(client.say(&message).await.json()["result"], json!({}));
    }
    (client, stream)
}

/// A modern stream that watches.
async fn listening(rig: &Rig, uris: &[&str]) -> Stream {
    let wish = json!({"resourceSubscriptions": uris});
    let message = Message::new(
        "subscriptions/listen",
        &format!(r#""notifications":{wish}"#),
    );
    let mut stream = rig.modern().open(&message.id("\"sub\"")).await;
    let first = stream.event().await.unwrap();
    assert_eq!(
        first["params"]["notifications"], wish,
        "what is heard of is acknowledged"
    );
    stream
}

async fn hears(stream: &mut Stream, uri: &str) {
    let heard = stream.event().await.unwrap();
    assert_eq!(heard["method"], "notifications/resources/updated");
    assert_eq!(heard["params"]["uri"], uri);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_server_is_asked_once_for_all_who_watch() {
    let rig = Rig::start();
    let telling = Arc::new(Telling::default());
    let hears_it = Arc::clone(&telling);
    let server = Upstream::legacy(move |seen| hears_it.hear(seen, false)).await;
    rig.add_http("up", &server).await;
    let (first, mut one) = watching(&rig, &["note://one"]).await;
    let (second, mut two) = watching(&rig, &["note://one", "note://two"]).await;
    let mut three = listening(&rig, &["note://one"]).await;
    let subscribed = || {
        let seen = server.seen("resources/subscribe");
        let uris: Vec<Value> = seen
            .iter()
            .map(|one| one.json["params"]["uri"].clone())
            .collect();
        (uris.len() == 2).then_some(uris)
    };
    // The clients were answered when the server knew.
    let uris = subscribed().expect("two subscriptions");
    assert!(uris.contains(&json!("note://one")) && uris.contains(&json!("note://two")));
    wait_for("the server's stream", || {
        telling.streams.lock().contains_key("session").then_some(())
    })
    .await;
    assert!(telling.say(
        "session",
        "notifications/resources/updated",
        &about("note://two")
    ));
    assert!(telling.say(
        "session",
        "notifications/resources/updated",
        &about("note://one")
    ));
    hears(&mut two, "note://two").await;
    for stream in [&mut one, &mut two, &mut three] {
        hears(stream, "note://one").await;
    }
    // Only the last one to leave is told upstream.
    let leave = Message::new("resources/unsubscribe", r#""uri":"note://one""#);
    first.say(&leave).await;
    drop(three);
    let leave = Message::new("resources/unsubscribe", r#""uri":"note://two""#);
    second.say(&leave).await;
    wait_for("one unsubscription", || {
        let seen = server.seen("resources/unsubscribe");
        seen.iter()
            .any(|one| one.json["params"]["uri"] == "note://two")
            .then_some(())
    })
    .await;
    assert_eq!(server.seen("resources/unsubscribe").len(), 1);
    assert_eq!(server.seen("resources/subscribe").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_server_is_listened_to_anew_when_more_is_watched() {
    let rig = Rig::start();
    let telling = Arc::new(Telling::default());
    let hears_it = Arc::clone(&telling);
    let server = Upstream::modern(move |seen| hears_it.hear(seen, true)).await;
    rig.add_http("up", &server).await;
    let (_first, mut one) = watching(&rig, &["note://one"]).await;
    let updated = "notifications/resources/updated";
    // The client was answered when the server knew.
    assert!(telling.say(r#"["note://one"]"#, updated, &about("note://one")));
    hears(&mut one, "note://one").await;
    let mut two = listening(&rig, &["note://two"]).await;
    let both = r#"["note://one","note://two"]"#;
    assert!(telling.say(both, updated, &about("note://two")));
    hears(&mut two, "note://two").await;
    // The old stream was left when the new one was there.
    wait_for("the old stream to be left", || {
        (server.left() >= 2).then_some(())
    })
    .await;
    assert!(telling.say(both, updated, &about("note://one")));
    hears(&mut one, "note://one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_another_service_has_too_is_told_of_under_its_prefix() {
    let rig = Rig::start();
    let mut servers = Vec::new();
    for name in ["first", "second"] {
        let telling = Arc::new(Telling::default());
        let hears_it = Arc::clone(&telling);
        let server = Upstream::modern(move |seen| hears_it.hear(seen, true)).await;
        rig.add_http(name, &server).await;
        servers.push((telling, server));
    }
    let prefixed = "vaxel://second/note://one";
    let (client, mut one) = watching(&rig, &[prefixed, "note://two"]).await;
    let mut two = listening(&rig, &[prefixed]).await;
    let updated = "notifications/resources/updated";
    let said =
        |server: usize, key: &str, uri: &str| servers[server].0.say(key, updated, &about(uri));
    assert!(said(1, r#"["note://one"]"#, "note://one"));
    assert!(said(0, r#"["note://two"]"#, "note://two"));
    hears(&mut two, prefixed).await;
    let mut heard = Vec::new();
    for _ in 0..2 {
        let one = one.event().await.unwrap();
        heard.push(one["params"]["uri"].as_str().unwrap().to_owned());
    }
    heard.sort();
    assert_eq!(heard, ["note://two", prefixed]);
    let leave = Message::new("resources/unsubscribe", &format!(r#""uri":"{prefixed}""#));
    assert_eq!(client.say(&leave).await.status, 200);
}

/// Tells of a change whenever its tool is called.
const CHILD: &str = r#"
note("notifications/resources/updated", uri="note://one")
text("told")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn servers_over_stdio_are_asked_in_their_era() {
    for (script, asked) in [
        (Script::legacy(CHILD), "resources/subscribe"),
        (Script::modern(CHILD), "subscriptions/listen"),
    ] {
        let rig = Rig::start();
        rig.add_stdio("up", &script.offering(OFFERS)).await;
        let (client, mut one) = watching(&rig, &["note://one"]).await;
        let mut two = listening(&rig, &["note://one"]).await;
        // The child reads this call after what it was asked before.
        client.call("up__echo", "{}").await;
        let told = rig.told("up");
        assert!(told.iter().any(|line| line.contains(asked)));
        hears(&mut one, "note://one").await;
        hears(&mut two, "note://one").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_changes_is_no_call_that_a_log_line_could_belong_to() {
    let rig = Rig::start();
    let script = Script::modern("note('notifications/message', level='info', data='x')\ntext('')");
    rig.add_stdio("up", &script.offering(OFFERS)).await;
    wait_for("the child to be listened to", || {
        let told = rig.told("up");
        told.iter()
            .any(|line| line.contains("subscriptions/listen"))
            .then_some(())
    })
    .await;
    let wants_logs = r#""io.modelcontextprotocol/logLevel":"debug""#;
    let message = Message::call("up__echo", "{}").meta(wants_logs);
    let answer = rig.modern().say(&message).await;
    assert_eq!(answer.messages()[0]["method"], "notifications/message");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_heard_of_is_not_promised() {
    let rig = Rig::start();
    let script = Script::legacy("text('x')").offering(r#"{"resources": {}}"#);
    rig.add_stdio("up", &script).await;
    let client = rig.legacy().await;
    let subscribe = |uri: &str| Message::new("resources/subscribe", &format!(r#""uri":"{uri}""#));
    assert_eq!(client.say(&subscribe("note://one")).await.code(), -32601);
    assert_eq!(client.say(&subscribe("nowhere://x")).await.code(), -32002);
    let wish = r#""notifications":{"resourceSubscriptions":["note://one","nowhere://x"]}"#;
    let mut stream = rig
        .modern()
        .open(&Message::new("subscriptions/listen", wish))
        .await;
    let first = stream.event().await.unwrap();
    assert_eq!(first["params"]["notifications"], json!({}));
}
