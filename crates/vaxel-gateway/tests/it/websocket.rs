//! Clients over WebSocket: one JSON-RPC message per text frame, in either era.

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::harness::{
    Plan, Reply, Rig, Script, Seen, Terms, Upstream,
    socket::{Socket, modern},
    wait_for,
};

/// Asks for a form and says back what it got; slow tools wait for ever.
const ASKS: &str = r#"
arguments = params.get("arguments", {})
if arguments.get("ask"):
    say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create",
         "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}})
    heard = hear()
    while heard.get("method") is not None:
        heard = hear()
    text(json.dumps(heard.get("result", "refused")))
else:
    token = params.get("_meta", {}).get("progressToken")
    if token is not None:
        say({"jsonrpc": "2.0", "method": "notifications/progress",
             "params": {"progressToken": token, "progress": 1}})
    text("done")
"#;

fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": {"progressToken": "mine"}}})
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_client_does_everything_on_one_connection() {
    let rig = Rig::start();
    rig.add_stdio("old", &Script::legacy(ASKS)).await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut socket = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
        let protocol = socket.handshake.headers().get("sec-websocket-protocol");
        assert_eq!(protocol.unwrap(), "mcp");
        let able = json!({"elicitation": {}});
        let hello = socket.initialize(version, &able).await;
        assert_eq!(hello["result"]["protocolVersion"], version);

        socket.send(&call(1, "old__echo", &json!({}))).await;
        let note = socket.next().await;
        assert_eq!(note["params"]["progressToken"], "mine", "{note}");
        assert_eq!(text(&socket.next().await), "done");

        socket
            .send(&call(2, "old__echo", &json!({"ask": true})))
            .await;
        if version < "2025-06-18" {
            assert_eq!(text(&socket.answer(&json!(2)).await), r#""refused""#);
            continue;
        }
        let question = socket.next().await;
        assert_eq!(question["method"], "elicitation/create");
        socket
            .send(&json!({"jsonrpc": "2.0", "id": question["id"],
                "result": {"action": "accept", "content": {"name": "Ada"}}}))
            .await;
        let answer = socket.answer(&json!(2)).await;
        assert!(text(&answer).contains("Ada"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_says_everything_in_its_messages() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen: &Seen| match seen.method() {
        "tools/list" => Some(Reply::Json(
            200,
            seen.result(
                &json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "tools": [{"name": "echo", "inputSchema": {"type": "object", "properties": {
                    "region": {"type": "string", "x-mcp-header": "Region"}}}}]}),
            ),
        )),
        "tools/call" if seen.json["params"]["arguments"]["wait"] == true => Some(Reply::Never),
        _ => None,
    })
    .await;
    rig.add_http("new", &upstream).await;
    let mut socket = Socket::open(rig.address, "/mcp/new", &rig.keys[0]).await;
    socket.send(&modern(1, "server/discover", json!({}))).await;
    assert_eq!(
        socket.next().await["result"]["supportedVersions"][0],
        "2026-07-28"
    );
    // A frame has no headers that could mirror anything; the server gets them all the same.
    let arguments = json!({"name": "echo", "arguments": {"region": "north"}});
    socket.send(&modern(2, "tools/call", arguments)).await;
    assert_eq!(socket.next().await["result"]["vendor"]["field"], 12);
    let told = upstream.seen("tools/call").pop().unwrap();
    assert_eq!(told.header("mcp-param-region"), Some("north"));
    assert_eq!(told.header("mcp-name"), Some("echo"));

    // There is no connection per request that could be closed: saying so cancels.
    let arguments = json!({"name": "echo", "arguments": {"wait": true, "region": "x"}});
    socket.send(&modern(3, "tools/call", arguments)).await;
    wait_for("the call to arrive", || {
        (upstream.seen("tools/call").len() == 2).then_some(())
    })
    .await;
    socket
        .send(
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": 3}}),
        )
        .await;
    wait_for("the call to be left", || {
        (upstream.left() == 1).then_some(())
    })
    .await;
    socket.send(&modern(4, "tools/list", json!({}))).await;
    assert_eq!(
        socket.next().await["id"],
        4,
        "what was cancelled is not answered"
    );

    socket.send(&modern(5, "nonsense", json!({}))).await;
    assert_eq!(socket.next().await["error"]["code"], -32601);
    let initialize = modern(6, "initialize", json!({}));
    socket.send(&initialize).await;
    assert_eq!(socket.next().await["error"]["code"], -32601);
    let mut unknown = modern(7, "tools/list", json!({}));
    unknown["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2031-01-01".into();
    socket.send(&unknown).await;
    assert_eq!(socket.next().await["error"]["code"], -32022);
    socket
        .send(&json!({"jsonrpc": "2.0", "id": 8, "method": "tools/list"}))
        .await;
    let told = socket.next().await;
    assert_eq!(told["id"], 8, "{told}");
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .contains("session"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_to_clients_of_either_era() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let mut old = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    old.initialize("2025-11-25", &json!({})).await;
    // The stream of the session is there once an answer after it has come.
    old.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
        .await;
    old.answer(&json!(1)).await;
    let mut new = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    new.send(&modern(9, "subscriptions/listen", wanted)).await;
    let acknowledged = new.next().await;
    assert_eq!(
        acknowledged["method"],
        "notifications/subscriptions/acknowledged"
    );

    rig.add_http("late", &upstream).await;
    assert_eq!(
        old.next().await["method"],
        "notifications/tools/list_changed"
    );
    let told = new.next().await;
    assert_eq!(told["method"], "notifications/tools/list_changed");
    let id = &told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
    assert_eq!(*id, json!(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_connect_is_refused_before_it_is_a_websocket() {
    let rig = Rig::start();
    let key = format!("Bearer {}", rig.keys[0]);
    let key = ("authorization", &*key);
    let open = async |path: &str, headers: &[(&'static str, &str)]| {
        let opened = Socket::try_open(rig.address, path, headers).await;
        opened.map(|socket| {
            socket
                .handshake
                .headers()
                .contains_key("sec-websocket-protocol")
        })
    };
    assert_eq!(open("/mcp", &[]).await, Err(401));
    assert_eq!(
        open("/mcp", &[key, ("origin", "https://evil.example")]).await,
        Err(403)
    );
    assert_eq!(open("/mcp/nothing", &[key]).await, Err(404));
    let offers = |offered| [key, ("sec-websocket-protocol", offered)];
    assert_eq!(open("/mcp", &offers("graphql-ws")).await, Err(400));
    assert_eq!(open("/mcp", &offers("graphql-ws, mcp")).await, Ok(true));
    assert_eq!(open("/mcp", &[key]).await, Ok(false));
    assert_eq!(
        open("/mcp", &[key, ("sec-websocket-version", "8")]).await,
        Err(400)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_only_its_own_connection() {
    let mut plan = Plan::default();
    plan.config.body_max = 10_000;
    let rig = Rig::start_with(&plan);
    let open = async || Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    let mut binary = open().await;
    binary.put(Message::binary(vec![1, 2])).await;
    assert_eq!(binary.closed().await, Some(CloseCode::Unsupported));
    let mut large = open().await;
    large.put(Message::text("x".repeat(20_000))).await;
    assert_eq!(large.closed().await, Some(CloseCode::Size));

    let mut odd = open().await;
    odd.put(Message::text("{nonsense")).await;
    assert!(odd.next().await["error"]["code"].is_i64());
    odd.put(Message::Ping(vec![7].into())).await;
    odd.send(&modern(1, "tools/list", json!({}))).await;
    assert_eq!(odd.answer(&json!(1)).await["result"]["tools"], json!([]));

    let mut leaving = open().await;
    leaving.stream.close(None).await.unwrap();
    assert_eq!(leaving.end().await, "closed", "its goodbye is answered");

    // A key that is taken away ends the connections that were opened with it.
    rig.gateway.keys().fill(vaxel_auth::ring::Filling::new(0));
    odd.send(&modern(2, "tools/list", json!({}))).await;
    assert_eq!(odd.closed().await, Some(CloseCode::Policy));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_is_refused_beyond_a_bound_and_stops_nobody_else() {
    let rig = Rig::start();
    let silent =
        Upstream::modern(|seen: &Seen| (seen.method() == "tools/call").then_some(Reply::Never))
            .await;
    let limits = vaxel_core::service::Limits {
        concurrency: Some(10_000),
        ..Default::default()
    };
    let terms = Terms {
        limits,
        ..Terms::default()
    };
    let served = rig.add_http_on("slow", &silent, terms).await;
    let mut flood = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    for id in 0..300 {
        let arguments = json!({"name": "slow__echo", "arguments": {}});
        flood.send(&modern(id, "tools/call", arguments)).await;
    }
    let refused = flood.next().await;
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("256"),
        "{refused}"
    );
    let mut other = Socket::open(rig.address, "/mcp", &rig.keys[1]).await;
    other.send(&modern(1, "tools/list", json!({}))).await;
    assert!(other.next().await["result"]["tools"].is_array());
    // With the client everything goes that nobody waits for any more.
    drop(flood);
    rig.idle(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_connection_and_a_call_in_it_does_not() {
    let rig = Rig::start();
    let script = Script::legacy(ASKS);
    rig.add_stdio("old", &script).await;
    let mut socket = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    socket.initialize("2025-11-25", &json!({})).await;
    socket.send(&call(1, "old__echo", &json!({}))).await;
    drop(socket);
    let record = rig.record().await;
    assert_eq!(record.outcome, vaxel_core::call::Outcome::Ok);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_the_calls_of_a_connection_end_and_says_goodbye() {
    let rig = Rig::start();
    let (release, held) = mpsc::channel(1);
    let held = Mutex::new(Some(held));
    let upstream = Upstream::modern(move |seen: &Seen| {
        let is_call = seen.method() == "tools/call";
        is_call.then(|| Reply::Live(held.lock().take().unwrap()))
    })
    .await;
    rig.add_http("new", &upstream).await;
    let mut socket = Socket::open(rig.address, "/mcp/new", &rig.keys[0]).await;
    let arguments = json!({"name": "echo", "arguments": {}});
    socket.send(&modern(1, "tools/call", arguments)).await;
    let seen = wait_for("the call", || upstream.seen("tools/call").pop()).await;
    rig.stop();
    release.send(seen.say("late, but here")).await.unwrap();
    assert_eq!(text(&socket.next().await), "late, but here");
    assert_eq!(socket.closed().await, Some(CloseCode::Away));
}
