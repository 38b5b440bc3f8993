//! What modern clients are told about keeping lists: the least that those allow whose entries they hold.

use serde_json::{Value, json};

use crate::harness::{Plan, Reply, Rig, Seen, Upstream, client::Message};

async fn promises(ttl_ms: u64, scope: &'static str) -> Upstream {
    Upstream::modern(move |seen: &Seen| {
        (seen.method() == "tools/list").then(|| {
            let tools = json!([{"name": "echo", "inputSchema": {"type": "object"}}]);
            let list = json!({"resultType": "complete", "tools": tools, "ttlMs": ttl_ms, "cacheScope": scope});
            Reply::Json(200, seen.result(&list))
        })
    })
    .await
}

/// What is said of the tools at a path, and of the endpoint itself.
async fn hints(rig: &Rig, path: &str) -> [(u64, String); 2] {
    let client = rig.modern().at(path);
    let mut hints = [(0, String::new()), (0, String::new())];
    for (hint, method) in hints.iter_mut().zip(["tools/list", "server/discover"]) {
        let said: Value = client.say(&Message::new(method, "")).await.json();
        let said = &said["result"];
        let scope = said["cacheScope"].as_str().unwrap().to_owned();
        *hint = (said["ttlMs"].as_u64().unwrap(), scope);
    }
    hints
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_may_be_kept_as_long_as_all_its_contributors_allow() {
    for auth in [true, false] {
        let mut plan = Plan::default();
        plan.config.auth = auth;
        let rig = Rig::start_with(&plan);
        let everyone = if auth { "private" } else { "public" };
        rig.add_http("long", &promises(3_600_000, "public").await)
            .await;
        for (ttl, scope) in hints(&rig, "/mcp").await {
            assert_eq!(
                (ttl, &*scope),
                (5_000, everyone),
                "what is offered may change"
            );
        }
        rig.add_http("own", &promises(3_600_000, "private").await)
            .await;
        for (ttl, scope) in hints(&rig, "/mcp").await {
            assert_eq!((ttl, &*scope), (5_000, "private"));
        }
        rig.add_http("short", &promises(2_900, "public").await)
            .await;
        for (ttl, scope) in hints(&rig, "/mcp").await {
            assert!(ttl <= 2_000 && ttl.is_multiple_of(1_000), "{ttl}");
            assert_eq!(scope, "private");
        }
        // A legacy server promises nothing.
        rig.add_http("old", &Upstream::legacy(|_| None).await).await;
        for (ttl, scope) in hints(&rig, "/mcp").await {
            assert_eq!((ttl, &*scope), (0, "private"));
        }
        for (ttl, scope) in hints(&rig, "/mcp/long").await {
            assert_eq!((ttl, &*scope), (5_000, everyone));
        }
    }
}
