//! Prompts, resources, templates and completion: what a client asks of all services reaches the one
//! that offers it, under the name that this one gave it.

use serde_json::{Value, json};

use crate::harness::{Reply, Rig, Seen, Upstream, client::Message};

/// A server of either era that offers a prompt, a resource and a template, and says back what it was
/// asked.
fn offers(seen: &Seen) -> Option<Reply> {
    let capabilities = json!({"prompts": {}, "resources": {}, "completions": {}});
    let result = match seen.method() {
        "server/discover" if is_modern(seen) => json!({
            "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": capabilities, "ttlMs": 0, "cacheScope": "private",
        }),
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": capabilities,
            "serverInfo": {"name": "up", "version": "1"},
        }),
        "prompts/list" => listed("prompts", &json!([{"name": "greet", "title": "Greeting"}])),
        "resources/list" => listed(
            "resources",
            &json!([{"uri": "note://one", "name": "one", "vendor": 1.0}]),
        ),
        "resources/templates/list" => listed(
            "resourceTemplates",
            &json!([{"uriTemplate": "note://{id}/text", "name": "text"}]),
        ),
        "prompts/get" => json!({
            "resultType": "complete",
            "messages": [{"role": "user", "content": {"type": "text", "text": seen.text}}],
        }),
        "resources/read" => json!({
            "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
            "contents": [{"uri": seen.json["params"]["uri"], "text": seen.text}],
        }),
        "completion/complete" => json!({
            "resultType": "complete", "completion": {"values": [seen.text]},
        }),
        _ => return None,
    };
    Some(Reply::Json(200, seen.result(&result)))
}

fn is_modern(seen: &Seen) -> bool {
    seen.header("mcp-protocol-version") == Some("2026-07-28")
}

fn listed(member: &str, items: &Value) -> Value {
    json!({"resultType": "complete", member: items, "ttlMs": 0, "cacheScope": "private"})
}

/// What the server was asked, as it says it.
fn asked(said: &Value) -> Value {
    serde_json::from_str(said.as_str().unwrap_or_else(|| panic!("{said}"))).unwrap()
}

/// Two gateways' worth of pairs: both eras of clients before both eras of servers.
async fn everyone(rig: &Rig) -> [Upstream; 2] {
    let modern = Upstream::modern(offers).await;
    // It hands out no session ids, so that nobody has to know one.
    let legacy = Upstream::modern(|seen: &Seen| match seen.method() {
        "server/discover" => Some(Reply::Json(400, String::new())),
        _ if seen.json["id"].is_null() => Some(Reply::Json(202, String::new())),
        _ => offers(seen),
    })
    .await;
    rig.add_http("new", &modern).await;
    rig.add_http("old", &legacy).await;
    [modern, legacy]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_listed_under_its_services_name_and_fetched_under_its_own() {
    let rig = Rig::start();
    let _upstreams = everyone(&rig).await;
    for client in [rig.modern(), rig.legacy().await] {
        let list = client.say(&Message::new("prompts/list", "")).await.json();
        let names: Vec<&Value> = list["result"]["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["new__greet", "old__greet"]);
        for exposed in ["new__greet", "old__greet"] {
            let params = format!(r#""name":"{exposed}","arguments":{{"who":"me"}}"#);
            let answer = client
                .say(&Message::new("prompts/get", &params))
                .await
                .json();
            let asked = asked(&answer["result"]["messages"][0]["content"]["text"]);
            assert_eq!(asked["params"]["name"], "greet");
            assert_eq!(asked["params"]["arguments"], json!({"who": "me"}));
        }
        let unknown = Message::new("prompts/get", r#""name":"new__nothing""#);
        assert_eq!(client.say(&unknown).await.code(), -32602);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_read_where_it_is_listed_or_fits_a_template() {
    let rig = Rig::start();
    let upstreams = everyone(&rig).await;
    for client in [rig.modern(), rig.legacy().await] {
        let list = client.say(&Message::new("resources/list", "")).await.json();
        assert_eq!(
            list["result"]["resources"],
            json!([
                {"uri": "note://one", "name": "one", "vendor": 1.0},
                {"uri": "vaxel://old/note://one", "name": "one", "vendor": 1.0},
            ]),
            "one URI has one owner, and everyone's resource an address"
        );
        for uri in ["note://one", "note://7/text"] {
            let message = Message::new("resources/read", &format!(r#""uri":"{uri}""#));
            let answer = client.say(&message).await.json();
            let asked = asked(&answer["result"]["contents"][0]["text"]);
            assert_eq!(asked["params"]["uri"], uri);
        }
        let nowhere = Message::new("resources/read", r#""uri":"note://two""#);
        let code = client.say(&nowhere).await.code();
        assert!([-32602, -32002].contains(&code), "{code}");
        // On a service of its own every URI is its own matter.
        let single = client.clone().at("/mcp/old").say(&nowhere).await.json();
        assert_eq!(single["result"]["contents"][0]["uri"], "note://two");
    }
    assert_eq!(upstreams[0].seen("resources/read").len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_goes_to_whom_its_reference_belongs() {
    let rig = Rig::start();
    let _upstreams = everyone(&rig).await;
    let references = [
        (
            r#"{"type":"ref/prompt","name":"old__greet"}"#,
            "name",
            "greet",
        ),
        (
            r#"{"type":"ref/prompt","name":"new__greet"}"#,
            "name",
            "greet",
        ),
        (
            r#"{"type":"ref/resource","uri":"note://{id}/text"}"#,
            "uri",
            "note://{id}/text",
        ),
    ];
    for client in [rig.modern(), rig.legacy().await] {
        for (reference, member, own) in references {
            let params = format!(r#""ref":{reference},"argument":{{"name":"who","value":"m"}}"#);
            let message = Message::new("completion/complete", &params);
            let answer = client.say(&message).await.json();
            let asked = asked(&answer["result"]["completion"]["values"][0]);
            assert_eq!(asked["params"]["ref"][member], own);
            assert_eq!(asked["params"]["argument"]["value"], "m");
        }
        let wrong = Message::new("completion/complete", r#""ref":{"type":"ref/what"}"#);
        assert_eq!(client.say(&wrong).await.code(), -32602);
    }
}
