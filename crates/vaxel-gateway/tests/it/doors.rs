//! What is refused at the door, and how: status, headers, codes.

use http::Method;
use serde_json::json;

use crate::harness::{
    Client, Plan, Rig, Upstream,
    client::{LEGACY, MODERN, Message},
};

const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_key_is_challenged() {
    let rig = Rig::start();
    let wrong = "Bearer vx_0123456789abcdef0123456789abcdef0123456789abcdef";
    for client in [
        rig.modern().without("authorization"),
        rig.modern().with("authorization", wrong),
        rig.modern().with("authorization", "Basic YTpi"),
        rig.modern().with("authorization", ""),
    ] {
        for verb in [Method::POST, Method::GET, Method::DELETE, Method::PUT] {
            let answer = client.send(verb, LIST).await.read().await;
            assert_eq!(answer.status, 401, "{}", answer.text);
            let challenge = answer.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer"), "{challenge}");
        }
    }
    let key = rig.keys[0].clone();
    let other = rig
        .modern()
        .without("authorization")
        .with("x-api-key", &key);
    assert_eq!(other.say(&Message::new("tools/list", "")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_or_origin_is_forbidden_even_with_the_key() {
    let rig = Rig::start();
    for (header, value) in [
        ("host", "evil.example"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let answer = rig
            .modern()
            .with(header, value)
            .say(&Message::new("tools/list", ""))
            .await;
        assert_eq!(answer.status, 403, "{header}: {value}: {}", answer.text);
    }
    let own = format!("http://{}", rig.address);
    let answer = rig
        .modern()
        .with("origin", &own)
        .say(&Message::new("tools/list", ""))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_request_is_refused_with_the_reason() {
    let rig = Rig::start();
    let mut clients = [rig.modern(), rig.legacy().await];
    for client in &mut clients {
        for body in [
            "",
            "{",
            "nonsense",
            "42",
            "\"text\"",
            "{}",
            r#"{"jsonrpc":"2.0","id":1}"#,
            "\u{0}",
        ] {
            let answer = client.post(body).await;
            assert_eq!(answer.status, 400, "{body:?}: {}", answer.text);
            let code = answer.code();
            assert!(
                code == -32700 || code == -32600,
                "{body:?}: {}",
                answer.text
            );
        }
        let deep = format!(
            "{LIST_OPEN}{}{}{LIST_CLOSE}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let answer = client.post(&deep).await;
        assert!(
            answer.status == 400 || answer.status == 200,
            "{}",
            answer.text
        );
        // Neither of their revisions has batches.
        let batch = client.post(&format!("[{LIST},{LIST}]")).await;
        assert_eq!(batch.status, 400);
        let said = batch.json()["error"]["message"].to_string();
        assert!(said.contains("batch"), "{said}");
        let typed = client
            .clone()
            .with("content-type", "text/plain")
            .post(LIST)
            .await;
        assert!(
            typed.status == 400 || typed.status == 415,
            "{}",
            typed.status
        );
        assert!(typed.text.contains("application/json"), "{}", typed.text);
    }
}

const LIST_OPEN: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"x":"#;
const LIST_CLOSE: &str = "}}";

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_the_limit_is_refused_whether_it_is_announced_or_not() {
    let mut plan = Plan::default();
    plan.config.body_max = 10_000;
    let rig = Rig::start_with(&plan);
    let answer = rig.modern().post(&"x".repeat(10_001)).await;
    assert_eq!(answer.status, 413, "{}", answer.text);
    assert!(answer.text.contains("10000"), "{}", answer.text);
    let pieces = vec!["x".repeat(4_000).into(); 3];
    let unannounced = rig.modern().post_unannounced(pieces).await;
    assert_eq!(unannounced.status, 413, "{}", unannounced.text);
    let large = format!(r#""x":"{}""#, "y".repeat(9_000));
    let fits = rig.modern().say(&Message::new("tools/list", &large)).await;
    assert_eq!(fits.status, 200, "{}", fits.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_of_http_that_mean_nothing_here_are_named_with_those_that_do() {
    let rig = Rig::start();
    for verb in [Method::PUT, Method::PATCH, Method::OPTIONS] {
        let answer = rig.modern().send(verb, "").await.read().await;
        assert_eq!(answer.status, 405);
        let allow = answer.header("allow").unwrap();
        assert!(allow.contains("POST") && allow.contains("GET") && allow.contains("DELETE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_services_tools_and_methods_are_told_apart() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http("up", &upstream).await;
    let before = upstream.seen("").len();
    for client in [rig.modern(), rig.legacy().await] {
        let nowhere = client
            .clone()
            .at("/mcp/nowhere")
            .say(&Message::new("tools/list", ""))
            .await;
        assert_eq!(nowhere.status, 404);
        assert!(nowhere.text.contains("nowhere"), "{}", nowhere.text);
        for tool in ["up__none", "none__echo", "echo", "", "up__"] {
            let answer = client.say(&Message::call(tool, "{}")).await;
            assert_eq!(answer.code(), -32602, "{tool}");
        }
        let single = client.clone().at("/mcp/up");
        assert_eq!(
            single.say(&Message::call("up__echo", "{}")).await.code(),
            -32602
        );
        assert_eq!(
            client
                .say(&Message::new("tools/call", r#""arguments":{}"#))
                .await
                .code(),
            -32602
        );
        assert_eq!(
            client.say(&Message::new("no/such", "")).await.code(),
            -32601
        );
    }
    assert_eq!(
        upstream.seen("").len(),
        before,
        "nothing of this concerns the upstream"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_request_whose_headers_and_body_differ_is_refused() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http("up", &upstream).await;
    let client = rig.modern();
    let call = client.body(&Message::call("up__echo", "{}"));
    let honest = || {
        client
            .clone()
            .with("mcp-method", "tools/call")
            .with("mcp-name", "up__echo")
    };
    assert_eq!(honest().post(&call).await.status, 200);
    let encoded = honest().with("mcp-name", "=?base64?dXBfX2VjaG8=?=");
    assert_eq!(
        encoded.post(&call).await.status,
        200,
        "the name may be encoded"
    );
    for liar in [
        honest().with("mcp-method", "tools/list"),
        honest().with("mcp-name", "up__other"),
        honest().without("mcp-method"),
        honest().without("mcp-name"),
        honest().without("mcp-protocol-version"),
    ] {
        let answer = liar.post(&call).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, -32020),
            "{}",
            answer.text
        );
    }
    let other = call.replace(MODERN, "2099-01-01");
    let unsupported = honest()
        .with("mcp-protocol-version", "2099-01-01")
        .post(&other)
        .await;
    assert_eq!((unsupported.status, unsupported.code()), (400, -32022));
    let error = unsupported.json()["error"]["data"].clone();
    assert_eq!(error["requested"], "2099-01-01", "{error}");
    assert!(
        error["supported"]
            .as_array()
            .unwrap()
            .contains(&json!(MODERN)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_one_era_has_is_unknown_in_the_other() {
    let rig = Rig::start();
    for method in [
        "ping",
        "logging/setLevel",
        "initialize",
        "resources/subscribe",
    ] {
        let answer = rig.modern().say(&Message::new(method, "")).await;
        assert_eq!((answer.status, answer.code()), (404, -32601), "{method}");
    }
    let legacy = rig.legacy().await;
    let listen = legacy.say(&Message::new("subscriptions/listen", "")).await;
    assert_eq!(listen.code(), -32601);
    let discovered = rig
        .modern()
        .say(&Message::new("server/discover", ""))
        .await
        .json();
    let versions = discovered["result"]["supportedVersions"].to_string();
    assert!(versions.contains(MODERN), "{discovered}");
    assert_eq!(discovered["result"]["resultType"], "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn initialize_agrees_on_what_both_speak() {
    let rig = Rig::start();
    let client = Client::silent(rig.address, &rig.keys[0]);
    for version in ["2025-03-26", "2025-06-18", LEGACY] {
        let answer = client.initialize(version).await.json();
        assert_eq!(answer["result"]["protocolVersion"], version);
    }
    for version in ["2024-01-01", "2099-01-01", "nonsense"] {
        let answer = client.initialize(version).await.json();
        assert_eq!(answer["result"]["protocolVersion"], LEGACY, "{version}");
    }
    let nothing = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    assert_eq!(client.post(nothing).await.code(), -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_its_openers_until_it_is_ended() {
    let rig = Rig::start();
    let client = rig.legacy().await;
    let missing = client.clone().without("mcp-session-id").post(LIST).await;
    assert_eq!(missing.status, 400, "{}", missing.text);
    let unknown = client
        .clone()
        .with("mcp-session-id", "made-up")
        .post(LIST)
        .await;
    assert_eq!(unknown.status, 404);
    let other = format!("Bearer {}", rig.keys[1]);
    let stolen = client.clone().with("authorization", &other);
    assert_eq!(stolen.post(LIST).await.status, 404);
    assert_eq!(stolen.send(Method::DELETE, "").await.status, 404);
    assert_eq!(stolen.send(Method::GET, "").await.status, 404);
    assert_eq!(
        client.post(LIST).await.status,
        200,
        "a stranger's DELETE ends nothing"
    );
    let ended = client.send(Method::DELETE, "").await;
    assert!(ended.status.is_success());
    assert_eq!(client.post(LIST).await.status, 404);
    assert_eq!(client.send(Method::GET, "").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_gateway_that_opened_it() {
    let plan = Plan::default();
    let first = Rig::start_with(&plan);
    let client = first.legacy().await;
    drop(first);
    let second = Rig::start_with(&plan);
    let moved = client.moved(second.address);
    assert_eq!(moved.post(LIST).await.status, 200);
    let stranger = Rig::start_with(&Plan {
        callers: plan.callers.clone(),
        ..Plan::default()
    });
    let elsewhere = client.moved(stranger.address);
    assert_eq!(
        elsewhere.post(LIST).await.status,
        404,
        "another root key opens nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_and_logging_levels_are_answered_in_a_session() {
    let rig = Rig::start();
    let client = rig.legacy().await;
    let pong = client.say(&Message::new("ping", "").id(r#""p""#)).await;
    assert_eq!(
        pong.json(),
        json!({"jsonrpc": "2.0", "id": "p", "result": {}})
    );
    for level in ["debug", "emergency"] {
        let set = client
            .say(&Message::new(
                "logging/setLevel",
                &format!(r#""level":"{level}""#),
            ))
            .await;
        assert_eq!(set.json()["result"], json!({}));
    }
    let wrong = client
        .say(&Message::new("logging/setLevel", r#""level":"loud""#))
        .await;
    assert_eq!(wrong.code(), -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_and_answers_of_a_client_are_accepted_without_a_body() {
    let rig = Rig::start();
    let told = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let answered = r#"{"jsonrpc":"2.0","id":5,"result":{}}"#;
    for client in [rig.modern(), rig.legacy().await] {
        for body in [told, answered] {
            let answer = client.post(body).await;
            assert_eq!((answer.status, answer.text.as_str()), (202, ""), "{body}");
        }
    }
}
