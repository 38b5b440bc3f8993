//! What comes before an answer, or without one: progress, cancellation, news of lists, pages.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use vaxel_core::call::Outcome;

use crate::harness::{
    Client, Plan, Reply, Rig, Script, Seen, Served, Upstream,
    client::{Message, names},
    wait_for,
};

/// Reports twice, then answers.
const REPORTS: &str = r#"note("notifications/progress", progressToken=token, progress=1, vendor=1.0)
note("notifications/progress", progressToken=token, progress=2)
text("done")"#;

fn reports(seen: &Seen) -> Option<Reply> {
    if seen.method() != "tools/call" {
        return None;
    }
    let token = &seen.json["params"]["_meta"]["progressToken"];
    let note = |progress: u8| {
        json!({"jsonrpc": "2.0", "method": "notifications/progress",
            "params": {"progressToken": token, "progress": progress}})
        .to_string()
    };
    Some(Reply::Events(vec![note(1), note(2), seen.say("done")]))
}

async fn reporting_upstreams(rig: &Rig) -> [Upstream; 2] {
    let upstreams = [
        Upstream::modern(reports).await,
        Upstream::legacy(reports).await,
    ];
    rig.add_http("hm", &upstreams[0]).await;
    rig.add_http("hl", &upstreams[1]).await;
    rig.add_stdio("sm", &Script::modern(REPORTS)).await;
    rig.add_stdio("sl", &Script::legacy(REPORTS)).await;
    upstreams
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_under_the_token_that_the_client_chose() {
    let rig = Rig::start();
    let _upstreams = reporting_upstreams(&rig).await;
    for client in [rig.modern(), rig.legacy().await] {
        for name in ["hm", "hl", "sm", "sl"] {
            for token in [json!("mine"), json!(77)] {
                let message = Message::call(&format!("{name}__echo"), "{}").id("\"c\"");
                let answer = client.say(&message.token(&token.to_string())).await;
                assert_eq!(
                    answer.header("content-type"),
                    Some("text/event-stream"),
                    "{name}"
                );
                let messages = answer.messages();
                assert_eq!(messages.len(), 3, "{name}: {}", answer.text);
                for (index, note) in messages[..2].iter().enumerate() {
                    assert_eq!(note["params"]["progressToken"], token, "{name}");
                    assert_eq!(note["params"]["progress"], index + 1, "{name}");
                }
                assert_eq!(messages[2]["id"], "c", "{name}");
                assert_eq!(
                    messages[2]["result"]["content"][0]["text"], "done",
                    "{name}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_no_stream_gets_the_answer_alone() {
    let rig = Rig::start();
    let _upstreams = reporting_upstreams(&rig).await;
    for client in [rig.modern(), rig.legacy().await] {
        let plain = client.with("accept", "application/json");
        for name in ["hm", "hl", "sm", "sl"] {
            let message = Message::call(&format!("{name}__echo"), "{}").token("1");
            let answer = plain.say(&message).await;
            assert_eq!(
                answer.header("content-type"),
                Some("application/json"),
                "{name}"
            );
            assert_eq!(
                answer.json()["result"]["content"][0]["text"],
                "done",
                "{name}"
            );
        }
    }
}

/// Makes a call that is not going to be answered; it ends with the set.
fn hanging(client: &Client, message: Message) -> JoinSet<Value> {
    let client = client.clone();
    let mut calls = JoinSet::new();
    calls.spawn(async move { client.say(&message).await.json() });
    calls
}

/// Waits until the child heard of `count` messages with this method.
async fn heard(rig: &Rig, name: &str, method: &str, count: usize) -> Vec<Value> {
    wait_for(method, || {
        let lines = rig.told(name);
        let messages = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = messages
            .filter(|message| message["method"] == method)
            .collect();
        (found.len() >= count).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_that_goes_away_cancels_its_call() {
    let rig = Rig::start();
    let served = rig.add_stdio("up", &Script::modern("pass")).await;
    let client = rig.modern();
    for (round, message) in [
        Message::call("up__echo", "{}"),
        Message::call("up__echo", "{}").token("5"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut calls = hanging(&client, message);
        let asked = heard(&rig, "up", "tools/call", round + 1).await;
        calls.abort_all();
        while calls.join_next().await.is_some() {}
        let told = heard(&rig, "up", "notifications/cancelled", round + 1).await;
        assert_eq!(told[round]["params"]["requestId"], asked[round]["id"]);
        assert_eq!(rig.record().await.outcome, Outcome::Cancelled);
    }
    rig.idle(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_of_a_legacy_client_that_goes_away_is_carried_to_its_end() {
    let rig = Rig::start();
    let script = Script::legacy(
        "held.append(id)\nif len(held) % 2 == 0:\n    text('late', held[-2])\n    text('now')",
    );
    let served = rig.add_stdio("up", &script).await;
    let client = rig.legacy().await;
    for (round, message) in [
        Message::call("up__echo", "{}"),
        Message::call("up__echo", "{}").token("5"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut calls = hanging(&client, message);
        heard(&rig, "up", "tools/call", 2 * round + 1).await;
        calls.abort_all();
        while calls.join_next().await.is_some() {}
        let now = client.call("up__echo", "{}").await;
        assert_eq!(now["result"]["content"][0]["text"], "now");
        for record in [rig.record().await, rig.record().await] {
            assert_eq!(record.outcome, Outcome::Ok);
        }
    }
    rig.idle(&served).await;
    let told = rig.told("up");
    assert!(
        !told
            .iter()
            .any(|line| line.contains("notifications/cancelled"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_client_cancels_its_call_by_saying_so() {
    let rig = Rig::start();
    let served = rig.add_stdio("up", &Script::legacy("pass")).await;
    let client = rig.legacy().await;
    for (round, message) in [
        Message::call("up__echo", "{}").id("\"x\""),
        Message::call("up__echo", "{}").id("\"x\"").token("5"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut calls = hanging(&client, message);
        let asked = heard(&rig, "up", "tools/call", round + 1).await;
        let cancel = |id: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
            )
        };
        assert_eq!(client.post(&cancel("\"other\"")).await.status, 202);
        assert_eq!(client.post(&cancel("\"x\"")).await.status, 202);
        let answer = calls.join_next().await.unwrap().unwrap();
        assert!(
            answer["error"]["message"].to_string().contains("cancelled"),
            "{answer}"
        );
        let told = heard(&rig, "up", "notifications/cancelled", round + 1).await;
        assert_eq!(told[round]["params"]["requestId"], asked[round]["id"]);
        assert_eq!(rig.record().await.outcome, Outcome::Cancelled);
    }
    rig.idle(&served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_leaves_a_modern_http_upstream() {
    let never = |seen: &Seen| (seen.method() == "tools/call").then_some(Reply::Never);
    let upstream = Upstream::modern(never).await;
    let rig = Rig::start();
    rig.add_http("up", &upstream).await;
    let mut calls = hanging(&rig.modern(), Message::call("up__echo", "{}"));
    wait_for("the call", || upstream.seen("tools/call").pop()).await;
    calls.abort_all();
    wait_for("the upstream to be left", || {
        (upstream.left() == 1).then_some(())
    })
    .await;
    assert_eq!(rig.record().await.outcome, Outcome::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_called_off_at_a_legacy_http_upstream() {
    let never = |seen: &Seen| (seen.method() == "tools/call").then_some(Reply::Never);
    let upstream = Upstream::legacy(never).await;
    let rig = Rig::start();
    rig.add_http("up", &upstream).await;
    let mut calls = hanging(&rig.modern(), Message::call("up__echo", "{}"));
    let asked = wait_for("the call", || upstream.seen("tools/call").pop()).await;
    calls.abort_all();
    let told = wait_for("the cancellation", || {
        upstream.seen("notifications/cancelled").pop()
    })
    .await;
    assert_eq!(told.json["params"]["requestId"], asked.json["id"]);
    assert_eq!(
        told.header("mcp-session-id"),
        asked.header("mcp-session-id")
    );
}

/// A session belongs to a key, not to a client: what tells its requests apart is ours to choose
/// (MCP 2025-11-25, base protocol: an id is used once in a session).
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_share_an_upstream_session_share_no_ids_or_tokens() {
    let upstream = Upstream::legacy(reports).await;
    let rig = Rig::start();
    rig.add_http("up", &upstream).await;
    for client in [rig.modern(), rig.modern(), rig.legacy().await] {
        let answer = client
            .say(&Message::call("up__echo", "{}").token("\"t\""))
            .await;
        assert_eq!(answer.messages()[0]["params"]["progressToken"], "t");
    }
    let calls = upstream.seen("tools/call");
    let sessions: Vec<_> = calls
        .iter()
        .map(|seen| seen.header("mcp-session-id"))
        .collect();
    assert!(
        sessions.windows(2).all(|pair| pair[0] == pair[1]),
        "{sessions:?}"
    );
    let mut ids: Vec<String> = calls.iter().map(Seen::id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "{ids:?}");
    let tokens = calls
        .iter()
        .map(|seen| seen.json["params"]["_meta"]["progressToken"].to_string());
    let mut tokens: Vec<String> = tokens.collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 3, "{tokens:?}");
}

/// Publishes `served` again, without its last tool.
fn shrink(rig: &Rig, name: &str, served: &Served) {
    publish(rig, name, served, true);
}

/// Publishes `served` again, with or without its last tool.
fn publish(rig: &Rig, name: &str, served: &Served, without: bool) {
    let mut catalog = (*served.catalog).clone();
    if without {
        catalog.tools.pop();
    }
    rig.put(name, served, Some(Arc::new(catalog)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_eras_hear_of_changed_lists_where_they_listen() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    rig.add_http("quiet", &upstream).await;
    let legacy = rig.legacy().await;
    let mut get = legacy.send(Method::GET, "").await;
    let mut quiet = legacy.clone().at("/mcp/quiet").send(Method::GET, "").await;
    let wish = r#""notifications":{"toolsListChanged":true}"#;
    let listen = Message::new("subscriptions/listen", wish).id("\"sub\"");
    let mut listening = rig.modern().open(&listen).await;
    let key = "io.modelcontextprotocol/subscriptionId";
    let first = listening.event().await.unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(first["params"]["_meta"][key], "sub");
    assert_eq!(
        first["params"]["notifications"],
        json!({"toolsListChanged": true})
    );
    shrink(&rig, "up", &served);
    let heard = get.event().await.unwrap();
    assert_eq!(
        heard,
        json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    );
    let heard = listening.event().await.unwrap();
    assert_eq!(heard["method"], "notifications/tools/list_changed");
    assert_eq!(heard["params"]["_meta"][key], "sub");
    assert_eq!(
        legacy.tools().await,
        ["quiet__echo", "quiet__other", "up__echo"]
    );
    // The stream of the other service heard nothing of it: its first event is its own.
    let catalog = rig
        .gateway
        .exposed_tools(&vaxel_core::principal::Principal::system(), None);
    assert_eq!(catalog.len(), 3);
    drop(rig);
    assert_eq!(
        quiet.event().await,
        None,
        "the stream ends with the gateway, without news"
    );
    let end = listening.event().await;
    assert!(end.is_none_or(|end| end["result"]["resultType"] == "complete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_streams_of_one_session_one_is_told() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    let legacy = rig.legacy().await;
    let mut older = legacy.send(Method::GET, "").await;
    let mut newer = legacy.send(Method::GET, "").await;
    shrink(&rig, "up", &served);
    let heard = newer.event().await.unwrap();
    assert_eq!(heard["method"], "notifications/tools/list_changed");
    // When it goes, the older one is told what comes then; what the other heard may have been on its way.
    drop(newer);
    let changing = async {
        let mut catalog = (*served.catalog).clone();
        catalog.tools.pop();
        loop {
            catalog.prompts.push(catalog.tools[0].clone());
            let changed = Some(Arc::new(catalog.clone()));
            rig.put("up", &served, changed, None);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let hearing = async {
        loop {
            let heard = older.event().await.unwrap();
            if heard["method"] != "notifications/tools/list_changed" {
                return heard;
            }
        }
    };
    let heard = tokio::select! {
        heard = hearing => heard,
        () = changing => unreachable!(),
    };
    assert_eq!(heard["method"], "notifications/prompts/list_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_a_child_reach_whoever_watches_its_link() {
    let rig = Rig::start();
    let script = Script::legacy("note('notifications/tools/list_changed')\ntext('told')");
    let served = rig.add_stdio("up", &script).await;
    rig.modern().call("up__echo", "{}").await;
    let changed = tokio::time::timeout(crate::harness::PATIENCE, served.link.catalog_changed());
    changed.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_all_services_once_and_end_when_the_lists_change() {
    let mut plan = Plan::default();
    plan.config.page_size = 3;
    let rig = Rig::start_with(&plan);
    let upstream = Upstream::modern(|_| None).await;
    let first = rig.add_http("a", &upstream).await;
    for name in ["b", "c", "d"] {
        rig.add_http(name, &upstream).await;
    }
    for client in [rig.modern(), rig.legacy().await] {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let answer = client
                .say(&Message::new("tools/list", &cursor))
                .await
                .json();
            all.extend(names(&answer));
            let Some(next) = answer["result"]["nextCursor"].as_str() else {
                break;
            };
            cursor = format!(r#""cursor":"{next}""#);
        }
        let expected =
            ["a", "b", "c", "d"].map(|name| [format!("{name}__echo"), format!("{name}__other")]);
        assert_eq!(all, expected.concat());
        for wrong in [r#""cursor":"nonsense""#, r#""cursor":5"#, r#""cursor":"""#] {
            assert_eq!(
                client.say(&Message::new("tools/list", wrong)).await.code(),
                -32602,
                "{wrong}"
            );
        }
        let elsewhere = client
            .clone()
            .at("/mcp/a")
            .say(&Message::new("tools/list", &cursor))
            .await;
        assert_eq!(elsewhere.code(), -32602, "a cursor belongs to its endpoint");
    }
    let client = rig.modern();
    let answer = client.say(&Message::new("tools/list", "")).await.json();
    let cursor = format!(r#""cursor":{}"#, answer["result"]["nextCursor"]);
    shrink(&rig, "a", &first);
    let stale = client.say(&Message::new("tools/list", &cursor)).await;
    assert_eq!(stale.code(), -32602);
    assert!(stale.text.contains("list anew"), "{}", stale.text);
}

#[tokio::test]
async fn a_change_right_after_a_subscription_is_heard_of() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    let wish = r#""notifications":{"toolsListChanged":true}"#;
    for round in 0..20 {
        let listen = Message::new("subscriptions/listen", wish);
        let mut listening = rig.modern().open(&listen).await;
        publish(&rig, "up", &served, round % 2 == 0);
        let heard = [listening.event().await, listening.event().await];
        let heard = heard.map(|event| event.unwrap()["method"].as_str().map(str::to_owned));
        let news = Some("notifications/tools/list_changed".to_owned());
        assert_eq!(heard[1], news, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_message_by_message() {
    let rig = Rig::start();
    rig.add_stdio("up", &Script::legacy(Script::ECHO)).await;
    let client = crate::harness::Client::silent(rig.address, &rig.keys[0]);
    let client = client.opened("2025-03-26").await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": "call", "method": "tools/call",
         "params": {"name": "up__echo", "arguments": {}, "_meta": {"progressToken": 1}}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 77}},
        {"jsonrpc": "2.0", "id": "list", "method": "tools/list"},
        {"jsonrpc": "2.0", "id": "wrong", "method": "no/such"},
        {"nonsense": true},
    ]);
    let answer = client.post(&batch.to_string()).await;
    let mut ids: Vec<String> = answer
        .messages()
        .iter()
        .map(|one| one["id"].as_str().unwrap_or("none").to_owned())
        .collect();
    ids.sort();
    assert_eq!(ids, ["call", "list", "none", "wrong"], "{}", answer.text);
    let only_news = json!([{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}]);
    assert_eq!(client.post(&only_news.to_string()).await.status, 202);
    for wrong in ["[]", "[1", &format!("[{}]", vec!["{}"; 101].join(","))] {
        assert_eq!(client.post(wrong).await.status, 400, "{wrong}");
    }
}
