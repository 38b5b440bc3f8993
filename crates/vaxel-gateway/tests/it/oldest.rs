//! Servers of 2024-11-05: everything they say comes on one stream, everything they are told is posted.

use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::harness::{Client, Reply, Rig, Seen, Upstream, client::Message};

/// The streams of a server, in the order in which they were opened; `None` when one was cut.
#[derive(Default)]
struct Oldest {
    streams: Mutex<Vec<Option<mpsc::Sender<String>>>>,
    /// Where callers are told to post.
    elsewhere: Option<&'static str>,
}

impl Oldest {
    fn hear(&self, seen: &Seen) -> Reply {
        if seen.verb == Method::GET {
            return self.open();
        }
        let stream = seen.path.strip_prefix("/messages?stream=");
        let Some(stream) = stream.and_then(|text| text.parse::<usize>().ok()) else {
            return Reply::Json(404, String::new());
        };
        let result = match seen.method() {
            "initialize" => json!({"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
                "serverInfo": {"name": "up", "version": "1"}}),
            "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            "tools/call" => match seen.json["params"]["arguments"]["do"].as_str() {
                Some("cut") => {
                    self.streams.lock()[stream] = None;
                    return Reply::Json(202, String::new());
                }
                Some("refuse") => return Reply::Json(500, String::new()),
                _ => json!({"content": [{"type": "text", "text": stream.to_string()}]}),
            },
            _ => json!({}),
        };
        if seen.json.get("id").is_some() {
            let streams = self.streams.lock();
            let sender = streams[stream].as_ref().unwrap();
            sender.try_send(seen.result(&result)).unwrap();
        }
        Reply::Json(202, String::new())
    }

    fn open(&self) -> Reply {
        let (sender, receiver) = mpsc::channel(64);
        let mut streams = self.streams.lock();
        let endpoint = self.elsewhere.map_or_else(
            || format!("/messages?stream={}", streams.len()),
            str::to_owned,
        );
        sender
            .try_send(format!("event: endpoint\ndata: {endpoint}"))
            .unwrap();
        streams.push(Some(sender));
        Reply::Live(receiver)
    }
}

async fn start(oldest: Oldest) -> (Arc<Oldest>, Upstream) {
    let oldest = Arc::new(oldest);
    let hears = Arc::clone(&oldest);
    let upstream = Upstream::legacy(move |seen| {
        // Neither era's own way of asking is known here.
        let is_post = seen.verb == Method::POST && seen.path == "/mcp";
        Some(if is_post {
            Reply::Json(404, String::new())
        } else {
            hears.hear(seen)
        })
    })
    .await;
    (oldest, upstream)
}

fn said(answer: &Value) -> &str {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_has_a_connection_of_its_own() {
    let rig = Rig::start();
    let (oldest, upstream) = start(Oldest::default()).await;
    let served = rig.add_http("up", &upstream).await;
    assert_eq!(served.link.revision().as_str(), "2024-11-05");
    let mut streams = Vec::new();
    for client in [
        rig.modern(),
        rig.legacy().await,
        Client::modern(rig.address, &rig.keys[1]),
    ] {
        for _ in 0..2 {
            let answer = client.call("up__echo", "{}").await;
            streams.push(said(&answer).to_owned());
        }
    }
    assert_eq!(
        streams,
        ["1", "1", "1", "1", "2", "2"],
        "the first is Vaxel's own"
    );
    assert_eq!(oldest.streams.lock().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_ends_its_calls_at_once_and_is_opened_again() {
    let rig = Rig::start();
    let (_oldest, upstream) = start(Oldest::default()).await;
    rig.add_http("up", &upstream).await;
    let client = rig.modern();
    let cut = client.call("up__echo", r#"{"do":"cut"}"#).await;
    let blamed = cut["error"]["message"].as_str().unwrap();
    assert!(blamed.contains("its stream ended"), "{cut}");
    assert_eq!(said(&client.call("up__echo", "{}").await), "2");
    let refused = client.call("up__echo", r#"{"do":"refuse"}"#).await;
    let blamed = refused["error"]["message"].as_str().unwrap();
    assert!(blamed.contains("500"), "{refused}");
    assert_eq!(
        said(&client.call("up__echo", "{}").await),
        "2",
        "that harmed nobody else"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sends_its_callers_elsewhere_is_not_followed() {
    let rig = Rig::start();
    for elsewhere in [
        "http://evil.example/messages",
        "//evil.example/x",
        "file:///etc",
    ] {
        let (_oldest, upstream) = start(Oldest {
            elsewhere: Some(elsewhere),
            ..Oldest::default()
        })
        .await;
        let refused = rig
            .try_url("up", upstream.url())
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            refused.contains("address of its own"),
            "{elsewhere}: {refused}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_such_a_server_is_served_like_any_other() {
    let rig = Rig::start();
    let (_oldest, upstream) = start(Oldest::default()).await;
    rig.add_http("up", &upstream).await;
    assert_eq!(rig.modern().tools().await, ["up__echo"]);
    let single = rig.legacy().await.at("/mcp/up");
    assert_eq!(
        said(&single.say(&Message::call("echo", "{}")).await.json()),
        "1"
    );
}
