//! Clients of both eras reach upstreams of both eras over both transports.

use serde_json::{Value, json};

use crate::harness::{Client, Reply, Rig, Script, Seen, Upstream, client::Message};

/// Every kind of upstream, as services of one gateway.
async fn every_upstream(rig: &Rig) -> Vec<Upstream> {
    let modern = Upstream::modern(|_| None).await;
    let legacy = Upstream::legacy(|_| None).await;
    rig.add_http("hm", &modern).await;
    rig.add_http("hl", &legacy).await;
    rig.add_stdio("sm", &Script::modern(Script::ECHO)).await;
    rig.add_stdio("sl", &Script::legacy(Script::ECHO)).await;
    vec![modern, legacy]
}

async fn both_clients(rig: &Rig) -> [Client; 2] {
    [rig.modern(), rig.legacy().await]
}

const SERVICES: [&str; 4] = ["hl", "hm", "sl", "sm"];

/// What the upstream was told, raw.
fn heard(answer: &Value) -> String {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text in {answer}"))
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_eras_see_the_tools_of_every_kind_of_upstream() {
    let rig = Rig::start();
    let _upstreams = every_upstream(&rig).await;
    let expected: Vec<String> = SERVICES
        .iter()
        .flat_map(|name| [format!("{name}__echo"), format!("{name}__other")])
        .collect();
    for client in both_clients(&rig).await {
        assert_eq!(client.tools().await, expected);
        for name in SERVICES {
            let single = client.clone().at(&format!("/mcp/{name}"));
            assert_eq!(single.tools().await, ["echo", "other"], "{name}");
        }
        let list = client.say(&Message::new("tools/list", "")).await;
        assert!(
            list.text.contains(r#""vendor":{"kept":1.0}"#),
            "{}",
            list.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_unknown_fields_arrive_as_they_were_written() {
    let rig = Rig::start();
    let _upstreams = every_upstream(&rig).await;
    let arguments = r#"{"a":1.0, "b":1,"c":123456789012345678901234567890,"d":"\u00e9\/","e":1E5}"#;
    for client in both_clients(&rig).await {
        for name in SERVICES {
            let mut message = Message::call(&format!("{name}__echo"), arguments);
            message.params.push_str(r#","vendorField":{"x":2.50}"#);
            let message = message.meta(r#""com.example/trace":[1.0,2]"#);
            let answer = client.say(&message).await.json();
            let heard = heard(&answer);
            assert!(heard.contains(arguments), "{name}: {heard}");
            assert!(
                heard.contains(r#""vendorField":{"x":2.50}"#),
                "{name}: {heard}"
            );
            assert!(
                heard.contains(r#""com.example/trace":[1.0,2]"#),
                "{name}: {heard}"
            );
            assert!(heard.contains(r#""name":"echo""#), "{name}: {heard}");
            assert_eq!(answer["result"]["vendor"]["field"], 12, "{name}");
            assert_eq!(
                answer["result"]["_meta"]["com.example/kept"], "yes",
                "{name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_come_back_as_they_were_sent() {
    let rig = Rig::start();
    let _upstreams = every_upstream(&rig).await;
    for client in both_clients(&rig).await {
        for name in SERVICES {
            for id in [
                "7",
                r#""seven""#,
                r#""7""#,
                "9007199254740993",
                r#""\u00e9 \" x""#,
            ] {
                let message = Message::call(&format!("{name}__echo"), "{}").id(id);
                let answer = client.say(&message).await;
                assert_eq!(answer.id(), id, "{name}: {}", answer.text);
            }
        }
        let list = client
            .say(&Message::new("tools/list", "").id(r#""a-list""#))
            .await;
        assert_eq!(list.id(), r#""a-list""#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_is_spoken_to_in_its_own_era_only() {
    let rig = Rig::start();
    let upstreams = every_upstream(&rig).await;
    for client in both_clients(&rig).await {
        for name in SERVICES {
            client.call(&format!("{name}__echo"), "{}").await;
        }
    }
    for seen in upstreams[0].seen("tools/call") {
        assert_eq!(seen.header("mcp-protocol-version"), Some("2026-07-28"));
        assert_eq!(seen.header("mcp-name"), Some("echo"));
        assert_eq!(seen.header("mcp-method"), Some("tools/call"));
        assert_eq!(seen.header("mcp-session-id"), None);
        let meta = &seen.json["params"]["_meta"];
        assert_eq!(
            meta["io.modelcontextprotocol/protocolVersion"],
            "2026-07-28"
        );
    }
    for seen in upstreams[1].seen("tools/call") {
        assert_eq!(seen.header("mcp-protocol-version"), Some("2025-11-25"));
        assert!(seen.header("mcp-session-id").is_some());
        assert!(
            !seen
                .text
                .contains("io.modelcontextprotocol/protocolVersion"),
            "{}",
            seen.text
        );
    }
    for (name, modern) in [("sm", true), ("sl", false)] {
        let calls = rig
            .told(name)
            .into_iter()
            .filter(|line| line.contains("tools/call"));
        for call in calls {
            assert_eq!(
                call.contains("io.modelcontextprotocol/protocolVersion"),
                modern,
                "{call}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_is_spoken_with_the_service_that_has_it() {
    const DISCOVERED: &str = r#"{"tools":{},"extensions":{"com.example/x":{"deep":1.0},"io.modelcontextprotocol/tasks":{}}}"#;
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen: &Seen| match seen.method() {
        "server/discover" => {
            let offers: Value = serde_json::from_str(DISCOVERED).unwrap();
            let result = json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": offers, "ttlMs": 0, "cacheScope": "private"});
            Some(Reply::Json(200, seen.result(&result)))
        }
        "x/get" => Some(Reply::Json(
            200,
            seen.result(&json!({"resultType": "complete",
            "name": seen.header("mcp-name"), "said": seen.json["params"]["id"]})),
        )),
        _ => None,
    })
    .await;
    rig.add_http("up", &upstream).await;
    let single = rig.modern().at("/mcp/up");
    let extensions = |client: Client| async move {
        let about = client
            .say(&Message::new("server/discover", ""))
            .await
            .json();
        about["result"]["capabilities"]["extensions"].clone()
    };
    let own: Value = serde_json::from_str(DISCOVERED).unwrap();
    assert_eq!(extensions(single.clone()).await, own["extensions"]);
    assert_eq!(extensions(rig.modern()).await, own["extensions"]);
    let able = r#"{"extensions":{"com.example/x":{},"io.modelcontextprotocol/tasks":{}}}"#;
    let declared = |path: &str| rig.modern().able(able).at(path);
    declared("/mcp").call("up__echo", "{}").await;
    declared("/mcp/up").call("echo", "{}").await;
    let told: Vec<Value> = upstream
        .seen("tools/call")
        .iter()
        .map(|seen| {
            let meta = &seen.json["params"]["_meta"];
            meta["io.modelcontextprotocol/clientCapabilities"]["extensions"].clone()
        })
        .collect();
    let all: Value = serde_json::from_str(able).unwrap();
    assert_eq!(told, [all["extensions"].clone(), all["extensions"].clone()]);
    let get = Message::new("x/get", r#""id":"t1""#);
    let answer = single.clone().with("mcp-name", "t1").say(&get).await.json();
    assert_eq!(
        (&answer["result"]["name"], &answer["result"]["said"]),
        (&json!("t1"), &json!("t1"))
    );
    let unknown = single.say(&Message::new("no/such", "")).await;
    assert_eq!((unknown.status, unknown.code()), (404, -32601));
    let federated = rig.modern().say(&get).await;
    assert_eq!((federated.status, federated.code()), (404, -32601));
}
