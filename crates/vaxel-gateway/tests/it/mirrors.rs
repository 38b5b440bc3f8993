//! Arguments that a tool wants mirrored in headers (`x-mcp-header`): checked where they come in,
//! computed where they go out.

use serde_json::json;

use crate::harness::{Reply, Rig, Seen, Upstream, client::Message};

/// Wants its argument `region` in a header; has another tool whose wish makes no sense.
fn mirrors(seen: &Seen) -> Option<Reply> {
    let tool = |name: &str, header: &str, kind: &str| {
        json!({"name": name, "inputSchema": {"type": "object", "properties": {
            "region": {"type": kind, "x-mcp-header": header}}}})
    };
    let tools = [
        tool("echo", "Region", "string"),
        tool("broken", "Re gion", "string"),
        tool("odd", "Region", "number"),
    ];
    (seen.method() == "tools/list").then(|| {
        let list =
            json!({"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "private"});
        Reply::Json(200, seen.result(&list))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_must_say_what_its_argument_says() {
    let rig = Rig::start();
    let modern = Upstream::modern(mirrors).await;
    let legacy = Upstream::legacy(mirrors).await;
    rig.add_http("new", &modern).await;
    rig.add_http("old", &legacy).await;
    let client = rig.modern();
    assert_eq!(client.tools().await, ["new__echo", "old__echo"]);
    for service in ["new", "old"] {
        let call = Message::call(&format!("{service}__echo"), r#"{"region":"north é"}"#);
        let right = client
            .clone()
            .with("mcp-param-region", "=?base64?bm9ydGggw6k=?=");
        let answer = right.say(&call).await;
        assert!(
            answer.json()["result"]["content"].is_array(),
            "{}",
            answer.text
        );
        for wrong in [
            client.clone(),
            client.clone().with("mcp-param-region", "south"),
            client.clone().with("mcp-param-region", "=?base64?bm9!!?="),
        ] {
            let answer = wrong.say(&call).await;
            assert_eq!(
                (answer.status, answer.code()),
                (400, -32020),
                "{}",
                answer.text
            );
        }
        let none = Message::call(&format!("{service}__echo"), "{}");
        assert_eq!(right.say(&none).await.code(), -32020);
        assert_eq!(client.say(&none).await.status, 200);
    }
    for call in legacy.seen("tools/call") {
        assert_eq!(
            call.header("mcp-param-region"),
            None,
            "the legacy era has no such headers"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_such_headers_has_them_made() {
    let rig = Rig::start();
    let modern = Upstream::modern(mirrors).await;
    let served = rig.add_http("new", &modern).await;
    let call = Message::call("new__echo", r#"{"region":"north é"}"#);
    assert_eq!(rig.legacy().await.say(&call).await.status, 200);
    let principal = vaxel_core::principal::Principal::system();
    rig.gateway
        .call(vaxel_gateway::ToolCall {
            principal,
            service: served.id,
            tool: "echo".to_owned(),
            arguments: r#"{"region":"north é"}"#.into(),
            timeout: None,
        })
        .await
        .unwrap();
    let calls = modern.seen("tools/call");
    assert_eq!(calls.len(), 2);
    for call in calls {
        assert_eq!(
            call.header("mcp-param-region"),
            Some("=?base64?bm9ydGggw6k=?=")
        );
    }
}
