//! What Vaxel keeps at servers on behalf of its callers, and how long what it found out about a server
//! is believed.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use vaxel_core::service::SessionScope;

use crate::harness::{
    Client, PATIENCE, Plan, Reply, Rig, Seen, Terms, Upstream, client::Message, upstream, wait_for,
};

fn ended(upstream: &Upstream) -> Vec<String> {
    let all = upstream.seen("");
    let deletes = all.iter().filter(|seen| seen.verb == Method::DELETE);
    deletes
        .map(|seen| seen.header("mcp-session-id").unwrap().to_owned())
        .collect()
}

fn sessions(upstream: &Upstream) -> Vec<String> {
    let calls = upstream.seen("tools/call");
    calls
        .iter()
        .map(|seen| seen.header("mcp-session-id").unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_uses_is_ended_and_one_in_use_is_not() {
    let mut plan = Plan::default();
    plan.config.sweep_every = Duration::from_millis(10);
    plan.config.upstream_idle = Duration::from_millis(30);
    let rig = Rig::start_with(&plan);
    let (release, held) = mpsc::channel(1);
    let held = Mutex::new(Some(held));
    let upstream = Upstream::legacy(move |seen: &Seen| {
        let waits = seen.json["params"]["arguments"]["wait"] == true;
        waits.then(|| Reply::Live(held.lock().take().unwrap()))
    })
    .await;
    rig.add_http("old", &upstream).await;
    let waiting = rig.modern();
    let call = Message::call("old__echo", r#"{"wait":true}"#).token("1");
    let mut open = JoinSet::new();
    open.spawn(async move { waiting.say(&call).await });
    wait_for("the call", || upstream.seen("tools/call").pop()).await;
    let other = crate::harness::Client::modern(rig.address, &rig.keys[1]);
    other.call("old__echo", "{}").await;
    wait_for("the idle session to end", || ended(&upstream).pop()).await;
    let used = sessions(&upstream);
    assert_eq!(
        ended(&upstream),
        [used[1].clone()],
        "not the one in use, not Vaxel's own"
    );
    let seen = upstream.seen("tools/call").remove(0);
    release.send(seen.say("done")).await.unwrap();
    let answer = open.join_next().await.unwrap().unwrap().json();
    assert_eq!(answer["result"]["content"][0]["text"], "done");
    wait_for("the other one to end", || ended(&upstream).get(1).cloned()).await;
    // Who comes back gets a new one.
    assert!(other.call("old__echo", "{}").await["result"].is_object());
    assert!(!used.contains(sessions(&upstream).last().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_a_session_is_the_operators_choice() {
    for (scope, distinct) in [
        (SessionScope::Shared, 1),
        (SessionScope::PerPrincipal, 2),
        (SessionScope::PerClient, 3),
    ] {
        let rig = Rig::start();
        let upstream = Upstream::legacy(|_| None).await;
        let terms = Terms {
            session: scope,
            ..Terms::default()
        };
        rig.add_http_on("old", &upstream, terms).await;
        let other = Client::legacy(rig.address, &rig.keys[1]).await;
        for client in [rig.legacy().await, rig.legacy().await, other] {
            for _ in 0..2 {
                client.call("old__echo", "{}").await;
            }
        }
        let used: HashSet<String> = sessions(&upstream).into_iter().collect();
        assert_eq!(used.len(), distinct, "{scope:?}");
    }
}

/// A server that changes its era when it is told to.
async fn fickle(starts_modern: bool) -> (Arc<AtomicBool>, Upstream) {
    let is_modern = Arc::new(AtomicBool::new(starts_modern));
    let now = Arc::clone(&is_modern);
    let as_modern = move |seen: &Seen| {
        if seen.header("mcp-protocol-version") != Some("2026-07-28") {
            return Reply::Json(400, upstream::error(seen, -32022, "speak 2026-07-28"));
        }
        let result = match seen.method() {
            "server/discover" => {
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
            }
            "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            _ => return Reply::Json(200, seen.say("modern")),
        };
        Reply::Json(200, seen.result(&result))
    };
    let unread = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"Bad Request: Server not initialized"}}"#;
    let script = move |seen: &Seen| match now.load(Ordering::Relaxed) {
        true => Some(as_modern(seen)),
        false if seen.header("mcp-session-id").is_none() && seen.method() != "initialize" => {
            Some(Reply::Json(400, unread.to_owned()))
        }
        false => None,
    };
    (is_modern, Upstream::legacy(script).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_changed_its_era_is_found_out_by_what_it_says() {
    for was_modern in [true, false] {
        let rig = Rig::start();
        let (is_modern, upstream) = fickle(was_modern).await;
        let served = rig.add_http("fickle", &upstream).await;
        assert!(rig.modern().call("fickle__echo", "{}").await["result"].is_object());
        is_modern.store(!was_modern, Ordering::Relaxed);
        upstream.forget_sessions();
        // The call that finds out fails; whoever keeps the link connects anew.
        let failed = rig.modern().call("fickle__echo", "{}").await;
        assert!(failed["error"].is_object(), "{failed}");
        let told = tokio::time::timeout(PATIENCE, served.link.closed()).await;
        assert!(told.expect("nobody noticed").contains("2026-07-28"));
        let again = rig.add_http("again", &upstream).await;
        assert_ne!(again.link.era(), served.link.era());
        let answer = rig.modern().call("again__echo", "{}").await;
        assert!(answer["result"].is_object(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_verdict_is_doubted_from_time_to_time() {
    let mut plan = Plan::default();
    plan.config.era_recheck = Duration::from_millis(20);
    let rig = Rig::start_with(&plan);
    let (is_modern, upstream) = fickle(false).await;
    let served = rig.add_http("fickle", &upstream).await;
    let asked = upstream.seen("server/discover").len();
    let changing = async {
        wait_for("it to be asked again", || {
            (upstream.seen("server/discover").len() > asked).then_some(())
        })
        .await;
        is_modern.store(true, Ordering::Relaxed);
    };
    let closed = tokio::time::timeout(PATIENCE, served.link.closed());
    let (told, ()) = tokio::join!(closed, changing);
    assert!(told.expect("nobody noticed").contains("now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_its_server_ends_is_taken_up_where_it_ended() {
    for gives_up in [false, true] {
        let rig = Rig::start();
        let call = Mutex::new(None);
        let upstream = Upstream::legacy(move |seen: &Seen| {
            if seen.method() == "tools/call" {
                *call.lock() = Some(seen.clone());
                let first = "event: message\nid: one\nretry: 30\ndata:".to_owned();
                return Some(Reply::Events(vec![first]));
            }
            let place = seen.header("last-event-id")?;
            let call = call.lock();
            let call = call.as_ref().unwrap();
            Some(match place {
                "one" if gives_up => Reply::Json(404, String::new()),
                "one" => Reply::Events(vec![format!(
                    "event: message\nid: two\ndata: {}",
                    json!({"jsonrpc": "2.0", "method": "notifications/progress", "params":
                        {"progressToken": call.json["params"]["_meta"]["progressToken"], "progress": 1}})
                )]),
                "two" => Reply::Events(vec![format!("event: message\ndata: {}", call.say("done"))]),
                other => panic!("there is no event {other}"),
            })
        })
        .await;
        rig.add_http("old", &upstream).await;
        let call = Message::call("old__echo", "{}").token("\"mine\"");
        let messages = rig.modern().say(&call).await.messages();
        if gives_up {
            let told = messages[0]["error"]["message"].as_str().unwrap();
            assert!(told.contains("does not go on with it (404"), "{told}");
            continue;
        }
        assert_eq!(messages[0]["params"]["progressToken"], "mine");
        assert_eq!(messages[1]["result"]["content"][0]["text"], "done");
        let sessions = upstream.seen("");
        let sessions = sessions
            .iter()
            .filter(|seen| seen.header("last-event-id").is_some());
        assert!(
            sessions
                .map(|seen| seen.header("mcp-session-id"))
                .all(|id| id.is_some())
        );
    }
}
