//! Servers over WebSocket, in both eras.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{Request, Response},
    },
};

use crate::harness::{Rig, Served, client::Message, wait_for};

/// A server whose text says which of its connections a call came on.
#[derive(Default)]
struct Server {
    modern: bool,
    /// Ends the connection when it is asked what it does not know.
    is_touchy: bool,
    connections: AtomicUsize,
    told: Mutex<Vec<Value>>,
    authorization: Mutex<Vec<String>>,
}

impl Server {
    async fn start(self) -> (Arc<Self>, url::Url, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
        let server = Arc::new(self);
        let serves = Arc::clone(&server);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                clients.spawn(Arc::clone(&serves).serve(stream));
            }
        });
        (server, url.parse().unwrap(), tasks)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        #[expect(
            clippy::result_large_err,
            reason = "the callback's type is the library's"
        )]
        let shake = |request: &Request, mut response: Response| {
            let header = |name| request.headers().get(name).cloned();
            let key = header("authorization").map(|key| key.to_str().unwrap().to_owned());
            self.authorization.lock().extend(key);
            let offered = header("sec-websocket-protocol").unwrap();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", offered);
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, shake).await.unwrap();
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        while let Some(Ok(Frame::Text(text))) = socket.next().await {
            let told: Value = serde_json::from_str(&text).unwrap();
            self.told.lock().push(told.clone());
            let Some(answers) = self.hear(&told, connection) else {
                return;
            };
            for answer in answers {
                socket.send(Frame::text(answer.to_string())).await.unwrap();
            }
        }
    }

    fn hear(&self, told: &Value, connection: usize) -> Option<Vec<Value>> {
        let id = &told["id"];
        let result =
            |result: Value| Some(vec![json!({"jsonrpc": "2.0", "id": id, "result": result})]);
        let text = |text: &str| {
            result(json!({"content": [{"type": "text", "text": text}], "resultType": "complete"}))
        };
        let progress = |token: &Value| {
            json!({"jsonrpc": "2.0", "method": "notifications/progress",
                "params": {"progressToken": token, "progress": 1}})
        };
        match told["method"].as_str() {
            Some("initialize") if !self.modern => result(json!({"protocolVersion": "2025-11-25",
                "capabilities": {"tools": {"listChanged": true}}, "serverInfo": {"name": "ws", "version": "1"}})),
            Some("server/discover") if self.modern => result(json!({
                "resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {"listChanged": true}}, "ttlMs": 0, "cacheScope": "private"})),
            Some("tools/list") => result(json!({"resultType": "complete", "ttlMs": 0,
                "cacheScope": "private", "tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})),
            Some("tools/call") => match told["params"]["arguments"]["do"].as_str() {
                Some("break") => None,
                Some("ask") => Some(vec![
                    json!({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create",
                    "params": {"message": id.to_string(), "requestedSchema": {"type": "object", "properties": {}}}}),
                ]),
                Some("change") => {
                    let changed =
                        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
                    Some([vec![changed], text("changed")?].concat())
                }
                _ => match &told["params"]["_meta"]["progressToken"] {
                    Value::Null => text(&connection.to_string()),
                    token => Some([vec![progress(token)], text("noted")?].concat()),
                },
            },
            Some(
                "subscriptions/listen" | "notifications/initialized" | "notifications/cancelled",
            ) => Some(Vec::new()),
            None => Some(vec![self.answer_of_asker(told)]),
            _ if self.is_touchy => None,
            _ => Some(vec![
                json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}),
            ]),
        }
    }

    /// What the call that asked gets when its question is answered.
    fn answer_of_asker(&self, told: &Value) -> Value {
        let calls = self.told.lock();
        let call = calls.iter().rfind(|told| told["method"] == "tools/call");
        json!({"jsonrpc": "2.0", "id": call.unwrap()["id"], "result": {"content":
            [{"type": "text", "text": told["result"].to_string()}], "resultType": "complete"}})
    }
}

async fn serve(rig: &Rig, server: Server) -> (Arc<Server>, Served, JoinSet<()>) {
    let (server, url, tasks) = server.start().await;
    let served = rig.try_url("ws", url).await.unwrap();
    (server, served, tasks)
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_server_gets_one_connection_for_all_callers() {
    let rig = Rig::start();
    let (server, _, _tasks) = serve(
        &rig,
        Server {
            modern: true,
            ..Server::default()
        },
    )
    .await;
    let other = crate::harness::Client::modern(rig.address, &rig.keys[1]);
    for client in [rig.modern(), other, rig.legacy().await] {
        assert_eq!(text(&client.call("ws__echo", "{}").await), "0");
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let call = Message::call("ws__echo", "{}").token("\"mine\"");
    let messages = rig.modern().say(&call).await.messages();
    assert_eq!(messages[0]["params"]["progressToken"], "mine");
    assert_eq!(text(&messages[1]), "noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_server_gets_one_connection_per_caller_and_asks_on_it() {
    for is_touchy in [false, true] {
        let rig = Rig::start();
        let server = Server {
            is_touchy,
            ..Server::default()
        };
        let (server, _, _tasks) = serve(&rig, server).await;
        let first = text(&rig.modern().call("ws__echo", "{}").await).to_owned();
        let other = crate::harness::Client::modern(rig.address, &rig.keys[1]);
        assert_ne!(text(&other.call("ws__echo", "{}").await), first);
        assert_eq!(text(&rig.modern().call("ws__echo", "{}").await), first);

        let able = rig.modern().able(r#"{"elicitation":{"form":{}}}"#);
        let asked = able.call("ws__echo", r#"{"do":"ask"}"#).await;
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
        let key = asked["result"]["inputRequests"].as_object().unwrap();
        let key = key.keys().next().unwrap();
        let retry = format!(
            r#""name":"ws__echo","arguments":{{"do":"ask"}},"inputResponses":{{"{key}":{{"action":"accept","content":{{"who":"Ada"}}}}}},"requestState":{}"#,
            asked["result"]["requestState"]
        );
        let answer = able.say(&Message::new("tools/call", &retry)).await.json();
        assert!(text(&answer).contains("Ada"), "{answer}");
        let connections = server.connections.load(Ordering::Relaxed);
        assert_eq!(connections, if is_touchy { 5 } else { 4 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_ends_its_calls_and_is_opened_again() {
    let rig = Rig::start();
    for modern in [true, false] {
        let (_server, served, _tasks) = serve(
            &rig,
            Server {
                modern,
                ..Server::default()
            },
        )
        .await;
        let client = rig.modern();
        let broken = client.call("ws__echo", r#"{"do":"break"}"#).await;
        let told = broken["error"]["message"].as_str().unwrap();
        assert!(told.contains("`ws` cannot answer"), "{broken}");
        let text = text(&client.call("ws__echo", "{}").await).to_owned();
        assert_ne!(text, "0");
        served.link.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_its_lists_are_heard_and_its_end_is_polite() {
    let rig = Rig::start();
    let (server, served, mut tasks) = serve(&rig, Server::default()).await;
    rig.modern().call("ws__echo", r#"{"do":"change"}"#).await;
    let changed = served.link.catalog_changed();
    tokio::time::timeout(crate::harness::PATIENCE, changed)
        .await
        .expect("nothing was heard");
    served.link.close().await;
    wait_for("the connections to be closed", || {
        (Arc::strong_count(&server) == 2).then_some(())
    })
    .await;
    tasks.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_websocket_is_said() {
    let rig = Rig::start();
    let upstream = crate::harness::Upstream::modern(|_| None).await;
    let mut url = upstream.url();
    url.set_scheme("ws").unwrap();
    let refused = rig.try_url("ws", url).await.err().unwrap();
    assert!(
        refused.detail.contains("no WebSocket at the URL of `ws`"),
        "{}",
        refused.detail
    );
    let gone: url::Url = "ws://127.0.0.1:1/mcp".parse().unwrap();
    assert!(rig.try_url("ws", gone).await.is_err());
}
