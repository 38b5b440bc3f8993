//! What somebody tries over MCP with what belongs to somebody else, each by its name. Others stand where what is
//! attacked is tested: sessions in `doors` and `oldest_clients`, states of questions in `questions`, tasks in
//! `tasks`, forged words about the caller in `introductions`.

use std::collections::BTreeSet;

use http::Method;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use vaxel_core::{
    call::Outcome,
    principal::{Permission, Permissions},
    rights::Limits,
};

use crate::{
    access::{Rules, someone},
    harness::{
        Client, Plan, Reply, Rig, Script, Upstream,
        client::{LEGACY, Message},
        socket::{Socket, modern},
        wait_for,
    },
    sets::{LISTS, of, serve, world},
};

/// The second of the two callers who are always there, with a session.
async fn stranger(rig: &Rig) -> Client {
    Client::legacy(rig.address, &rig.keys[1]).await
}

fn cancel(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_user_shows_nothing_that_is_not_ones_own() {
    let mut plan = Plan::default();
    plan.config.page_size = 2;
    let rig = Rig::start_with(&plan);
    let _upstreams = world(&rig).await;
    let bob = Rules {
        roles: &["user"],
        ..Rules::default()
    };
    let key = rig.admit(bob.principal("bob"));
    let clients = [
        Client::modern(rig.address, &key),
        Client::legacy(rig.address, &key).await,
    ];
    for (client, owner) in clients.into_iter().zip([rig.modern(), rig.legacy().await]) {
        let own = owner.say(&Message::new("tools/list", "")).await.json();
        let cursor = own["result"]["nextCursor"].as_str().unwrap();
        let message = Message::new("tools/list", &format!(r#""cursor":"{cursor}""#));
        let answer = client.say(&message).await.json();
        assert_eq!(answer["result"]["tools"], json!([]), "{answer}");
        let answer = owner.say(&message).await.json();
        assert_eq!(
            answer["result"]["tools"].as_array().map(Vec::len),
            Some(2),
            "{answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_id_of_another_user_brings_nothing_back() {
    let rig = Rig::start();
    let (server, held) = mpsc::channel(64);
    let held = Mutex::new(Some(held));
    let upstream = Upstream::legacy(move |seen| {
        let is_call = seen.method() == "tools/call";
        is_call.then(|| Reply::Live(held.lock().take().unwrap()))
    })
    .await;
    let served = rig.add_http("old", &upstream).await;
    let owner = rig.legacy().await;
    let note = json!({"jsonrpc": "2.0", "method": "notifications/message",
        "params": {"level": "info", "data": 0}});
    server.send(note.to_string()).await.unwrap();
    let mut stream = owner
        .open(&Message::call("old__echo", "{}").token("5"))
        .await;
    let (_, first) = stream.event_with_id().await;
    let first = first.unwrap();
    // The owner is gone when the answer comes: it is kept.
    drop(stream);
    let call = upstream.seen("tools/call").remove(0);
    server.send(call.say("a secret")).await.unwrap();
    rig.idle(&served).await;
    let take = async |client: Client| {
        let client = client.with("last-event-id", &first);
        let mut stream = client.send(Method::GET, "").await;
        if !stream.is_events() {
            return stream.read().await.text;
        }
        let mut told = String::new();
        while let Some(event) = stream.event().await {
            told += &event.to_string();
        }
        told
    };
    // With a session of one's own, and with the one that it happened in.
    let thief = stranger(&rig).await;
    let named = owner
        .headers
        .iter()
        .find(|(name, _)| name == "mcp-session-id");
    let stolen = thief.clone().with("mcp-session-id", &named.unwrap().1);
    for client in [thief, stolen, rig.legacy().await] {
        let told = take(client).await;
        assert!(!told.contains("a secret"), "{told}");
    }
    assert!(take(owner).await.contains("a secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_not_cancelled_by_another_user_who_knows_its_id() {
    let rig = Rig::start();
    let served = rig.add_stdio("up", &Script::legacy("pass")).await;
    let owner = rig.legacy().await;
    let calling = owner.clone();
    let mut calls = tokio::task::JoinSet::new();
    calls.spawn(async move {
        let message = Message::call("up__echo", "{}").id("\"x\"").token("\"t\"");
        calling.say(&message).await.json()
    });
    wait_for("the call", || {
        let told = rig.told("up");
        told.iter()
            .any(|line| line.contains("tools/call"))
            .then_some(())
    })
    .await;
    // Over a session of one's own, with the owner's, from another session of the owner, over a connection of one's
    // own, by the id upstream and the token.
    let thief = stranger(&rig).await;
    let named = owner
        .headers
        .iter()
        .find(|(name, _)| name == "mcp-session-id");
    let stolen = thief.clone().with("mcp-session-id", &named.unwrap().1);
    let second = rig.legacy().await;
    for id in ["\"x\"", "2", "3", "\"t\""] {
        for client in [&thief, &stolen, &second] {
            client.post(&cancel(id)).await;
        }
    }
    let mut socket = Socket::open(rig.address, "/mcp", &rig.keys[1]).await;
    socket.initialize(LEGACY, &json!({})).await;
    socket
        .send(&serde_json::from_str(&cancel("\"x\"")).unwrap())
        .await;
    let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": "t", "progress": 99}});
    socket.send(&progress).await;
    socket
        .send(&json!({"jsonrpc": "2.0", "id": 9, "method": "ping"}))
        .await;
    socket.answer(&json!(9)).await;
    assert_eq!(rig.gateway.load(served.id).in_flight, 1);
    let told = rig.told("up").concat();
    assert!(
        !told.contains("notifications/cancelled") && !told.contains("99"),
        "{told}"
    );
    owner.post(&cancel("\"x\"")).await;
    let answer = calls.join_next().await.unwrap().unwrap();
    assert!(
        answer["error"]["message"].to_string().contains("cancelled"),
        "{answer}"
    );
    assert_eq!(rig.record().await.outcome, Outcome::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_not_ended_by_another_user_who_knows_its_id() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    let listen = || {
        let wish = json!({"notifications": {"toolsListChanged": true}});
        modern(7, "subscriptions/listen", wish)
    };
    let mut owner = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    owner.send(&listen()).await;
    let told = owner.next().await;
    assert_eq!(
        told["method"], "notifications/subscriptions/acknowledged",
        "{told}"
    );
    let meta = &told["params"]["_meta"];
    let id = meta["io.modelcontextprotocol/subscriptionId"].clone();
    let mut thief = Socket::open(rig.address, "/mcp", &rig.keys[1]).await;
    for id in [json!(7), id] {
        let params = json!({"requestId": id});
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
        thief.send(&cancel).await;
    }
    thief.send(&modern(8, "server/discover", json!({}))).await;
    thief.answer(&json!(8)).await;
    rig.put("up", &served, None, None);
    let news = owner.next().await;
    assert_eq!(news["method"], "notifications/tools/list_changed", "{news}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_environment_finds_nothing_here() {
    let only = |environment: &str| {
        let environments = BTreeSet::from([environment.to_owned()]);
        move |_: &Rig| Rules {
            roles: &["admin"],
            limits: Some(Limits {
                permissions: Permissions::of(&[Permission::McpRead, Permission::McpExecute]),
                services: None,
                environments: Some(environments),
            }),
            ..Rules::default()
        }
    };
    let (_world, clients) = someone(only("prod"), "root").await;
    for client in clients {
        for kind in LISTS {
            assert!(
                crate::sets::list(&client, kind).await.is_empty(),
                "{}",
                kind.0
            );
        }
        for message in [
            Message::call("new__read", "{}"),
            of("prompts/get", "new__greet"),
            of("resources/read", "new://open/1"),
            Message::call("call_tool", r#"{"service":"new","tool":"read"}"#),
        ] {
            let answer = client.say(&message).await.json();
            let told = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(told.starts_with("Unknown "), "{answer}");
        }
        let there = client.clone().at("/mcp/new");
        let answer = there.say(&Message::new("tools/list", "")).await;
        assert_eq!(answer.status, 404, "{}", answer.text);
    }
    let (_world, clients) = someone(only("default"), "root").await;
    for client in clients {
        let answer = client.call("new__read", "{}").await;
        assert!(answer["result"].is_object(), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_about_arguments_is_not_passed_by_writing_them_otherwise() {
    let rules = |_: &Rig| Rules {
        roles: &["client"],
        policies: vec![
            json!({"name": "only-here", "effect": "deny", "services": ["new"], "tools": ["read"],
                "when": "!arguments.path.startsWith('/srv/')"}),
            json!({"name": "small", "effect": "deny", "services": ["old"], "tools": ["read"],
                "when": "arguments.amount > 100"}),
        ],
        ..Rules::default()
    };
    let ((_rig, upstreams), clients) = someone(rules, "bob").await;
    for client in clients {
        let fine = client.call("new__read", r#"{"path":"/srv/a"}"#).await;
        assert!(fine["result"].is_object(), "{fine}");
        let fine = client.call("old__read", r#"{"amount":100}"#).await;
        assert!(fine["result"].is_object(), "{fine}");
        let calls = || upstreams.each_ref().map(|one| one.seen("tools/call").len());
        let before = calls();
        for (tool, arguments) in [
            ("new__read", r#"{"path":"/srv/a","path":"/etc"}"#),
            ("new__read", r#"{"path":"/etc","path":"/srv/a"}"#),
            ("new__read", r#"{"path":"/srv/a","\u0070ath":"/etc"}"#),
            ("new__read", r#"{"path":"/srv/a","PATH":"/etc"}"#),
            ("new__read", r#"{"\u0070ath":"/etc"}"#),
            ("new__read", r#"{"PATH":"/etc"}"#),
            ("new__read", r#"{"path":["/srv/"]}"#),
            ("new__read", r#"{"path":null}"#),
            ("old__read", r#"{"amount":1e3}"#),
            ("old__read", r#"{"amount":1000000000000000000000000000000}"#),
            ("old__read", r#"{"amount":1e400}"#),
            ("old__read", r#"{"amount":"1000"}"#),
            ("old__read", r#"{"amount":100.5}"#),
            ("old__read", r#"{"amount":1,"amount":1000}"#),
        ] {
            let body = client.body(&Message::call(tool, arguments));
            let client = client.clone().with("mcp-method", "tools/call");
            let answer = client.with("mcp-name", tool).post(&body).await;
            assert_eq!(answer.code(), 1403, "{arguments}: {}", answer.text);
        }
        // Not an object, and not there.
        for params in [
            r#""name":"new__read","arguments":["/etc"]"#,
            r#""name":"new__read","arguments":null"#,
            r#""name":"new__read""#,
            r#""name":"new__read","Arguments":{"path":"/srv/a"}"#,
        ] {
            let answer = client.say(&Message::new("tools/call", params)).await.json();
            assert_eq!(answer["error"]["code"], 1403, "{params}: {answer}");
        }
        assert_eq!(calls(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_denied_is_not_called_by_naming_two() {
    let rules = |_: &Rig| Rules {
        roles: &["client"],
        policies: vec![json!({"name": "no-writes", "effect": "deny", "tools": ["write"]})],
        ..Rules::default()
    };
    let ((rig, upstreams), clients) = someone(rules, "bob").await;
    serve(
        &rig,
        &[("some", json!([{"service": "new", "tools": ["read"]}]))],
    );
    for client in clients {
        let bodies = [
            r#""name":"new__read","name":"new__write","arguments":{}"#,
            r#""name":"new__write","name":"new__read","arguments":{}"#,
            r#""name":"new__read","\u006eame":"new__write","arguments":{}"#,
            r#""name":"new__read","arguments":{},"arguments":{"path":"x"}"#,
        ];
        let posts = |client: &Client| {
            let client = client.clone().with("mcp-method", "tools/call");
            client.with("mcp-name", "new__read")
        };
        for params in bodies {
            let body = client.body(&Message::new("tools/call", params));
            let answer = posts(&client).post(&body).await;
            assert!(
                answer.json().get("result").is_none(),
                "{params}: {}",
                answer.text
            );
        }
        // The envelope, too.
        let plain = client.body(&Message::call("new__read", "{}"));
        let other = client.body(&Message::call("new__write", "{}"));
        let (_, params) = other.split_once("\"params\":").unwrap();
        for twice in [
            format!(
                "{},\"params\":{params}",
                plain.trim_end_matches('}').to_owned() + "}}}"
            ),
            plain.replacen('{', "{\"method\":\"tools/list\",", 1),
            plain.replacen('{', "{\"\\u0070arams\":{\"name\":\"new__write\"},", 1),
        ] {
            let answer = posts(&client).post(&twice).await;
            assert!(
                answer.json().get("result").is_none(),
                "{twice}: {}",
                answer.text
            );
        }
        // Names in another form lead nowhere.
        for name in [
            "NEW__WRITE",
            "new__Write",
            "new__write ",
            "new__write\\u0000",
            "new__\\u0077rite",
            "new/write",
        ] {
            let body = client.body(&Message::call(name, "{}"));
            let answer = posts(&client).with("mcp-name", name).post(&body).await;
            assert!(
                answer.json().get("result").is_none(),
                "{name}: {}",
                answer.text
            );
        }
        let hidden = client
            .clone()
            .at("/mcp/sets/some")
            .call("new__write", "{}")
            .await;
        assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    }
    let calls: Vec<_> = upstreams
        .iter()
        .flat_map(|one| one.seen("tools/call"))
        .collect();
    assert!(calls.is_empty(), "{}", calls[0].text);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_name_another_tool_than_the_body_call_neither() {
    let rig = Rig::start();
    let upstreams = world(&rig).await;
    let body = rig.modern().body(&Message::call("new__write", "{}"));
    let client = rig.modern().with("mcp-method", "tools/call");
    let first = |names: [&str; 2]| {
        let mut client = client.clone();
        for name in names {
            client
                .headers
                .push(("mcp-name".to_owned(), name.to_owned()));
        }
        client
    };
    let encoded = "=?base64?bmV3X19yZWFk?=";
    for client in [
        client.clone().with("mcp-name", "new__read"),
        client.clone().with("mcp-name", encoded),
        client
            .clone()
            .with("mcp-name", "new__write")
            .with("mcp-method", "tools/list"),
        first(["new__read", "new__write"]),
        client.clone().with("mcp-name", "new__write,new__read"),
    ] {
        let answer = client.post(&body).await;
        assert_eq!(answer.status, 400, "{:?}: {}", client.headers, answer.text);
    }
    // Of two headers the server behind reads what the body says.
    first(["new__write", "new__read"]).post(&body).await;
    for seen in upstreams[0].seen("tools/call") {
        let names: Vec<_> = seen.headers.get_all("mcp-name").iter().collect();
        assert_eq!(names, ["write"]);
    }
}
