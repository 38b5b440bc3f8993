//! Services that offer resources under the same addresses: on the endpoint of all services the oldest
//! keeps them, the others have a prefix, and everything can be read.

use serde_json::{Value, json};

use crate::harness::{Reply, Rig, Seen, Upstream, client::Message};

/// A server whose tool shows its resources, and says whose they are when they are read.
async fn notes(whose: &'static str) -> Upstream {
    Upstream::modern(move |seen: &Seen| {
        let page = |kind: &str, items: Value| {
            json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", kind: items})
        };
        let result = match seen.method() {
            "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {}, "resources": {}, "completions": {}},
                "ttlMs": 0, "cacheScope": "private"}),
            "tools/list" => page("tools", json!([{"name": "show", "inputSchema": {"type": "object"},
                "_meta": {"ui": {"resourceUri": "ui://app"}, "kept": 1.0}}])),
            "resources/list" => page("resources", json!([
                {"uri": "note://one", "name": "one"}, {"uri": "ui://app", "name": "app"},
                {"uri": format!("note://{whose}"), "name": "own"}])),
            "resources/templates/list" => page("resourceTemplates",
                json!([{"uriTemplate": "note://{id}", "name": "any"}])),
            "resources/read" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "contents": [{"uri": seen.json["params"]["uri"], "text": whose}]}),
            "completion/complete" => json!({"resultType": "complete",
                "completion": {"values": [whose, seen.json["params"]["ref"]["uri"]]}}),
            "tools/call" => json!({"resultType": "complete", "content": [
                {"type": "resource_link", "uri": "note://one", "name": "one"},
                {"type": "resource", "resource": {"uri": "ui://app", "text": "x"}},
                {"type": "resource_link", "uri": format!("note://{whose}"), "name": "own"},
                {"type": "text", "text": "note://one"}]}),
            _ => return None,
        };
        Some(Reply::Json(200, seen.result(&result)))
    })
    .await
}

fn all<'a>(answer: &'a Value, list: &str, member: &str) -> Vec<&'a str> {
    let entries = answer["result"][list].as_array().unwrap();
    entries
        .iter()
        .map(|one| one[member].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_has_an_address_that_leads_to_it() {
    let rig = Rig::start();
    let upstreams = [notes("first").await, notes("second").await];
    let first = rig.add_http("first", &upstreams[0]).await;
    rig.add_http("second", &upstreams[1]).await;
    for client in [rig.modern(), rig.legacy().await] {
        let list = client.say(&Message::new("resources/list", "")).await.json();
        let expected = [
            "note://one",
            "ui://app",
            "note://first",
            "vaxel://second/note://one",
            "ui://second+app",
            "note://second",
        ];
        assert_eq!(all(&list, "resources", "uri"), expected);
        let list = client
            .say(&Message::new("resources/templates/list", ""))
            .await
            .json();
        let templates = all(&list, "resourceTemplates", "uriTemplate");
        assert_eq!(templates, ["note://{id}", "vaxel://second/note://{id}"]);
        for (uri, whose) in [
            ("note://one", "first"),
            ("note://second", "second"),
            ("vaxel://second/note://one", "second"),
            ("ui://second+app", "second"),
            ("vaxel://first/note://one", "first"),
            ("note://unlisted", "first"),
            ("vaxel://second/note://unlisted", "second"),
        ] {
            let read = Message::new("resources/read", &format!(r#""uri":"{uri}""#));
            let read = client.say(&read).await.json();
            let contents = &read["result"]["contents"][0];
            assert!(contents.is_object(), "{uri}: {read}");
            assert_eq!(
                (&contents["text"], &contents["uri"]),
                (&json!(whose), &json!(uri))
            );
        }
        for (template, whose) in [
            ("note://{id}", "first"),
            ("vaxel://second/note://{id}", "second"),
        ] {
            let params = format!(
                r#""ref":{{"type":"ref/resource","uri":"{template}"}},"argument":{{"name":"id","value":""}}"#
            );
            let completed = client
                .say(&Message::new("completion/complete", &params))
                .await
                .json();
            assert_eq!(
                completed["result"]["completion"]["values"],
                json!([whose, "note://{id}"])
            );
        }
        // What a tool shows, and the app that shows it, can be read under the address that it names.
        let tools = client.say(&Message::new("tools/list", "")).await.json();
        let apps = tools["result"]["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| &tool["_meta"]["ui"]["resourceUri"]);
        assert_eq!(apps.collect::<Vec<_>>(), ["ui://app", "ui://second+app"]);
        let shown = client.call("second__show", "{}").await["result"]["content"].clone();
        assert_eq!(shown[0]["uri"], "vaxel://second/note://one");
        assert_eq!(shown[1]["resource"]["uri"], "ui://second+app");
        assert_eq!(shown[2]["uri"], "note://second");
        assert_eq!(shown[3]["text"], "note://one");
        let shown = client.call("first__show", "{}").await["result"]["content"].clone();
        assert_eq!(shown[0]["uri"], "note://one");
        // On its own endpoint nothing has a prefix.
        let alone = client.clone().at("/mcp/second");
        let list = alone.say(&Message::new("resources/list", "")).await.json();
        assert_eq!(
            all(&list, "resources", "uri"),
            ["note://one", "ui://app", "note://second"]
        );
        assert_eq!(
            alone.call("show", "{}").await["result"]["content"][0]["uri"],
            "note://one"
        );
    }
    rig.gateway.withdraw(first.id);
    let client = rig.modern();
    let list = client.say(&Message::new("resources/list", "")).await.json();
    assert_eq!(
        all(&list, "resources", "uri"),
        ["note://one", "ui://app", "note://second"]
    );
    for uri in ["note://one", "vaxel://second/note://one"] {
        let read = Message::new("resources/read", &format!(r#""uri":"{uri}""#));
        let read = client.say(&read).await.json();
        assert_eq!(
            read["result"]["contents"][0]["text"], "second",
            "who holds an old address keeps it"
        );
    }
    let gone = Message::new("resources/read", r#""uri":"vaxel://first/note://one""#);
    assert_eq!(client.say(&gone).await.code(), -32602);
}
