//! Tasks (SEP-2663) on the endpoint of all services and on that of one: each caller sees its own.

use serde_json::{Value, json};

use crate::harness::{Client, Reply, Rig, Seen, Upstream, client::Message};

const TASKS: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;

/// Begins a task for each call of a client that knows them, and remembers one by the id `one`.
fn works(seen: &Seen) -> Option<Reply> {
    let declared = &seen.json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    let knows = declared["extensions"]["io.modelcontextprotocol/tasks"].is_object();
    let task = |kind: &str, status: &str| {
        json!({"resultType": kind, "taskId": "one", "status": status, "ttlMs": null,
            "createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:00Z"})
    };
    let result = match seen.method() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}},
            "ttlMs": 0, "cacheScope": "private"}),
        "tools/call" if knows => task("task", "working"),
        "tasks/get" if seen.json["params"]["taskId"] == "one" => {
            let mut done = task("complete", "completed");
            done["result"] = json!({"content": [{"type": "text", "text": "done"}]});
            done
        }
        "tasks/update" | "tasks/cancel" => json!({"resultType": "complete"}),
        _ => return None,
    };
    Some(Reply::Json(200, seen.result(&result)))
}

/// A request about a task, with the header that mirrors its id.
async fn about(client: &Client, method: &str, id: &Value) -> Value {
    let message = Message::new(method, &format!(r#""taskId":{id}"#));
    let client = client.clone().with("mcp-name", id.as_str().unwrap());
    client.say(&message).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_found_again_by_its_owner_wherever_it_was_begun() {
    let rig = Rig::start();
    let [first, second] = [Upstream::modern(works).await, Upstream::modern(works).await];
    rig.add_http("first", &first).await;
    rig.add_http("second", &second).await;
    let able = rig.modern().able(TASKS);
    let offered = able.say(&Message::new("server/discover", "")).await.json();
    let extensions = &offered["result"]["capabilities"]["extensions"];
    assert!(extensions["io.modelcontextprotocol/tasks"].is_object());
    for (path, tool) in [("/mcp", "second__echo"), ("/mcp/second", "echo")] {
        let client = able.clone().at(path);
        let begun = client.call(tool, "{}").await["result"].clone();
        assert_eq!(begun["resultType"], "task", "{begun}");
        let id = &begun["taskId"];
        assert_ne!(*id, "one", "the server's own id says nothing here");
        let got = about(&client, "tasks/get", id).await["result"].clone();
        assert_eq!(got["taskId"], *id, "{got}");
        assert_eq!(got["result"]["content"][0]["text"], "done");
        for method in ["tasks/update", "tasks/cancel"] {
            let done = about(&client, method, id).await;
            assert_eq!(done["result"]["resultType"], "complete", "{done}");
        }
        let asked = second.seen("tasks/cancel").pop().unwrap();
        assert_eq!(asked.json["params"]["taskId"], "one");
        assert_eq!(asked.header("mcp-name"), Some("one"));
        // Nobody else's, nowhere else, and no id of the server's own.
        let other = Client::modern(rig.address, &rig.keys[1])
            .able(TASKS)
            .at(path);
        let elsewhere = able.clone().at("/mcp/first");
        for (client, id) in [(&other, id), (&elsewhere, id), (&client, &json!("one"))] {
            let refused = about(client, "tasks/get", id).await;
            assert_eq!(refused["error"]["code"], -32602, "{refused}");
        }
    }
    assert!(first.seen("tasks/get").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_knows_no_tasks_gets_none() {
    let rig = Rig::start();
    let upstream = Upstream::modern(works).await;
    rig.add_http("up", &upstream).await;
    let plain = rig.modern().call("up__echo", "{}").await;
    assert!(plain["result"]["content"].is_array(), "{plain}");
    let legacy = Client::silent(rig.address, &rig.keys[0]).able(TASKS);
    let legacy = legacy.opened("2025-11-25").await;
    let plain = legacy.call("up__echo", "{}").await;
    assert!(plain["result"]["content"].is_array(), "{plain}");
    let unknown = legacy
        .say(&Message::new("tasks/get", r#""taskId":"one""#))
        .await;
    assert_eq!(unknown.code(), -32601);
    let able = rig.modern().able(TASKS).with("mcp-name", "one");
    let unnamed = able.say(&Message::new("tasks/get", "")).await;
    assert_eq!(unnamed.code(), -32602);
}
