//! All tools through four: found, described and called, by every door.

use serde_json::{Value, json};
use vaxel_core::toolset::{Selected, View};
use vaxel_gateway::ServedSet;

use crate::{
    harness::{
        Reply, Rig, Seen, Upstream,
        client::Message,
        socket::{Socket, modern},
    },
    oldest_clients::Oldest,
};

/// A server whose tools say what they were called with.
async fn server(prefix: &'static str) -> Upstream {
    Upstream::modern(move |seen: &Seen| {
        let params = &seen.json["params"];
        let tool = |name: &str, about: &str| {
            json!({"name": name, "description": about, "inputSchema": {"type": "object",
                "properties": {"query": {"type": "string"}}}})
        };
        let result = match seen.method() {
            "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "tools": [tool("semantic_search", "Finds documents by meaning"),
                          tool("delete", "Removes a document")]}),
            "tools/call" => json!({"resultType": "complete", "content": [{"type": "text",
                "text": format!("{prefix} {} {}", params["name"], params["arguments"])}]}),
            _ => return None,
        };
        Some(Reply::Json(200, seen.result(&result)))
    })
    .await
}

async fn world(rig: &Rig) -> [Upstream; 2] {
    let upstreams = [server("docs").await, server("mail").await];
    rig.add_http("context7-mcp", &upstreams[0]).await;
    rig.add_http("mail", &upstreams[1]).await;
    upstreams
}

fn told(answer: &Value) -> Value {
    let text = answer["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

fn named(told: &Value) -> Vec<&str> {
    let tools = told["tools"].as_array().unwrap();
    tools
        .iter()
        .map(|tool| tool["name"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_meta_view_lists_four_tools_and_the_others_are_found_through_them() {
    let rig = Rig::start();
    let _upstreams = world(&rig).await;
    for client in [rig.modern(), rig.legacy().await] {
        let meta = client.clone().at("/mcp?view=meta");
        let four = [
            "list_available_tools",
            "search_tools",
            "describe_tool",
            "call_tool",
        ];
        assert_eq!(meta.tools().await, four);
        assert_eq!(
            client.tools().await.len(),
            4,
            "two of each service are listed elsewhere"
        );
        assert!(client.tools().await.iter().all(|name| name.contains("__")));

        let all = told(&meta.call("list_available_tools", "{}").await);
        assert_eq!(named(&all).len(), 4);
        let first = &all["tools"][0];
        assert_eq!(
            (&first["service"], &first["tool"]),
            (&json!("context7-mcp"), &json!("semantic_search"))
        );
        assert_eq!(first["input_schema"]["type"], "object");
        let some = told(
            &meta
                .call("list_available_tools", r#"{"service":"mail"}"#)
                .await,
        );
        assert_eq!(named(&some), ["mail__semantic_search", "mail__delete"]);
        let found = told(
            &meta
                .call("search_tools", r#"{"query":"find by MEANING","limit":1}"#)
                .await,
        );
        assert_eq!(named(&found), ["context7-mcp__semantic_search"]);
        let one = told(
            &meta
                .call("describe_tool", r#"{"name":"mail__delete"}"#)
                .await,
        );
        assert_eq!(
            (&one["name"], &one["description"]),
            (&json!("mail__delete"), &json!("Removes a document"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn call_tool_takes_each_of_its_forms_everywhere_and_calls_as_any_other_call() {
    let rig = Rig::start();
    let upstreams = world(&rig).await;
    let expected = r#"docs "semantic_search" {"query":"FastAPI patterns"}"#;
    let forms = [
        r#"{"service":"context7-mcp","tool":"semantic_search","query":"FastAPI patterns"}"#,
        r#"{"service":"context7-mcp","tool":"semantic_search","arguments":{"query":"FastAPI patterns"}}"#,
        r#"{"name":"context7-mcp__semantic_search","args":{"query":"FastAPI patterns"}}"#,
    ];
    for client in [
        rig.modern(),
        rig.legacy().await,
        rig.modern().at("/mcp?view=meta"),
    ] {
        for form in forms {
            let answer = client.call("call_tool", form).await;
            assert_eq!(
                answer["result"]["content"][0]["text"], expected,
                "{form}: {answer}"
            );
        }
    }
    let named = r#"{"service":"mail","tool":"delete","name":"old"}"#;
    let answer = rig.modern().call("call_tool", named).await;
    let text = &answer["result"]["content"][0]["text"];
    assert_eq!(text, r#"mail "delete" {"name":"old"}"#, "{answer}");
    assert!(!upstreams[0].seen("tools/call").is_empty());
    let mut socket = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    let arguments: Value = serde_json::from_str(forms[0]).unwrap();
    let call = modern(
        7,
        "tools/call",
        json!({"name": "call_tool", "arguments": arguments}),
    );
    socket.send(&call).await;
    let answer = socket.answer(&json!(7)).await;
    assert_eq!(answer["result"]["content"][0]["text"], expected, "{answer}");
}

const FOUR: [&str; 4] = [
    "list_available_tools",
    "search_tools",
    "describe_tool",
    "call_tool",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_view_is_there_for_clients_of_sse_and_websocket_too() {
    let rig = Rig::start();
    let _upstreams = world(&rig).await;
    let listed = |answer: &Value| -> Vec<String> {
        let tools = answer["result"]["tools"].as_array();
        let tools = tools.unwrap_or_else(|| panic!("{answer}")).iter();
        tools
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect()
    };
    for (address, seen) in [("/mcp?view=meta", true), ("/mcp", false)] {
        let mut socket = Socket::open(rig.address, address, &rig.keys[0]).await;
        socket.send(&modern(1, "tools/list", json!({}))).await;
        let answer = socket.answer(&json!(1)).await;
        assert_eq!(listed(&answer) == FOUR, seen, "{address}: {answer}");
    }
    for (address, seen) in [("/sse?view=meta", true), ("/sse", false)] {
        let mut client = Oldest::connect(&rig, address, "{}").await;
        let answer = client.say(&Message::new("tools/list", "")).await;
        assert_eq!(listed(&answer) == FOUR, seen, "{address}: {answer}");
        let call = r#"{"service":"mail","tool":"delete","arguments":{"query":"x"}}"#;
        let answer = client.say(&Message::call("call_tool", call)).await;
        let text = &answer["result"]["content"][0]["text"];
        assert_eq!(
            text, r#"mail "delete" {"query":"x"}"#,
            "{address}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_can_be_one_whose_clients_see_only_the_four() {
    let rig = Rig::start();
    let _upstreams = world(&rig).await;
    let serve = |view: View| {
        let services = vec![Selected::all_of("mail".parse().unwrap())];
        let name = "work".parse().unwrap();
        rig.gateway.publish_sets(vec![ServedSet {
            name,
            view,
            services,
        }]);
    };
    serve(View::Meta);
    for client in [rig.modern(), rig.legacy().await] {
        let set = client.at("/mcp/sets/work");
        assert_eq!(set.tools().await, FOUR);
        let all = told(&set.call("list_available_tools", "{}").await);
        assert_eq!(named(&all), ["mail__semantic_search", "mail__delete"]);
        let other = r#"{"name":"context7-mcp__delete"}"#;
        let answer = set.call("call_tool", other).await;
        assert!(
            answer.get("error").is_some(),
            "it is not in the set: {answer}"
        );
    }
    serve(View::All);
    let set = rig.modern().at("/mcp/sets/work");
    assert_eq!(set.tools().await, ["mail__semantic_search", "mail__delete"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_named_is_told() {
    let rig = Rig::start();
    let _upstreams = world(&rig).await;
    let client = rig.modern();
    for (tool, arguments, part) in [
        (
            "call_tool",
            r#"{"service":"mail","tool":"send"}"#,
            "no tool `send` of `mail`",
        ),
        (
            "call_tool",
            r#"{"tool":"delete"}"#,
            "needs `service` and `tool`",
        ),
        ("call_tool", r#"{"name":"nothing__here"}"#, "nothing__here"),
        (
            "describe_tool",
            r#"{"name":"nothing__here"}"#,
            "nothing__here",
        ),
        ("search_tools", "{}", "query"),
    ] {
        let answer = client.call(tool, arguments).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "{tool} {arguments}: {answer}");
    }
    // One service's own endpoint has its own tools only.
    let one = client.at("/mcp/mail?view=meta");
    assert_eq!(one.tools().await, ["semantic_search", "delete"]);
    let answer = one.call("call_tool", r#"{"name":"mail__delete"}"#).await;
    assert!(answer.get("error").is_some(), "{answer}");
}
