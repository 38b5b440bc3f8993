//! Sets: some of what some services offer, on an endpoint of its own, by every door.

use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use vaxel_core::toolset::ToolsetDraft;

use crate::{
    harness::{
        Client, Plan, Reply, Rig, Script, Seen, Upstream,
        client::{Message, names},
        socket::{Socket, modern},
        wait_for,
    },
    oldest_clients::Oldest,
};

pub(crate) const LISTS: [(&str, &str, &str); 4] = [
    ("tools/list", "tools", "name"),
    ("prompts/list", "prompts", "name"),
    ("resources/list", "resources", "uri"),
    (
        "resources/templates/list",
        "resourceTemplates",
        "uriTemplate",
    ),
];

/// What a server with something of every kind answers; it says whose it is, and what it was asked.
fn offers(whose: &str, seen: &Seen) -> Option<Value> {
    let list = |kind: &str, items: Value| {
        Some(json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", kind: items}))
    };
    let capabilities = json!({"tools": {}, "prompts": {}, "completions": {},
        "resources": {"subscribe": true}, "extensions": {"io.modelcontextprotocol/tasks": {}}});
    let params = &seen.json["params"];
    match seen.method() {
        "server/discover" => Some(json!({"resultType": "complete", "ttlMs": 0,
            "cacheScope": "private", "supportedVersions": ["2026-07-28"],
            "capabilities": capabilities, "instructions": format!("I am {whose}")})),
        "initialize" => Some(
            json!({"protocolVersion": "2025-11-25", "capabilities": capabilities,
            "serverInfo": {"name": "up", "version": "1"}}),
        ),
        "tools/list" => list(
            "tools",
            json!([
            {"name": "read", "inputSchema": {"type": "object"}},
            {"name": "read_all", "inputSchema": {"type": "object"}},
            {"name": "write", "inputSchema": {"type": "object"}}]),
        ),
        "prompts/list" => list("prompts", json!([{"name": "greet"}, {"name": "scold"}])),
        "resources/list" => list(
            "resources",
            json!([
            {"uri": format!("{whose}://open/1"), "name": "1"},
            {"uri": format!("{whose}://closed/1"), "name": "2"}, {"uri": "both://1", "name": "3"}]),
        ),
        "resources/templates/list" => list(
            "resourceTemplates",
            json!([
            {"uriTemplate": format!("{whose}://open/{{id}}"), "name": "t"},
            {"uriTemplate": format!("{whose}://closed/{{id}}"), "name": "u"}]),
        ),
        "tools/call" if declares_tasks(seen) => Some(json!({"resultType": "task", "taskId": "one",
            "status": "working", "ttlMs": null, "createdAt": "2026-07-28T00:00:00Z",
            "lastUpdatedAt": "2026-07-28T00:00:00Z"})),
        "tasks/get" | "tasks/update" | "vendor/thing" => Some(json!({"resultType": "complete"})),
        "tasks/cancel" | "resources/subscribe" | "resources/unsubscribe" => {
            Some(json!({"resultType": "complete"}))
        }
        "tools/call" => Some(json!({"resultType": "complete", "content": [
            {"type": "text", "text": format!("{whose} {}", params["name"].as_str().unwrap())}]})),
        "prompts/get" => Some(
            json!({"resultType": "complete", "messages": [{"role": "user",
            "content": {"type": "text", "text": params["name"]}}]}),
        ),
        "resources/read" => Some(json!({"resultType": "complete", "ttlMs": 0,
            "cacheScope": "private", "contents": [{"uri": params["uri"], "text": whose}]})),
        "completion/complete" => Some(json!({"resultType": "complete",
            "completion": {"values": [whose]}})),
        _ => None,
    }
}

fn declares_tasks(seen: &Seen) -> bool {
    let meta = &seen.json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    meta["extensions"]["io.modelcontextprotocol/tasks"].is_object()
}

async fn new_server(whose: &'static str) -> Upstream {
    let answer = move |seen: &Seen| Some(Reply::Json(200, seen.result(&offers(whose, seen)?)));
    Upstream::modern(answer).await
}

async fn old_server(whose: &'static str) -> Upstream {
    Upstream::legacy(move |seen: &Seen| old(whose, seen)).await
}

fn old(whose: &str, seen: &Seen) -> Option<Reply> {
    match seen.method() {
        "server/discover" => None,
        "initialize" => {
            let answer = seen.result(&offers(whose, seen)?);
            Some(Reply::Opened("one".to_owned(), answer))
        }
        method if method.starts_with("notifications/") => Some(Reply::Json(202, String::new())),
        _ => Some(Reply::Json(200, seen.result(&offers(whose, seen)?))),
    }
}

/// The services `new` and `old`, and what is not in any set, `other`.
pub(crate) async fn world(rig: &Rig) -> [Upstream; 3] {
    let upstreams = [
        new_server("new").await,
        old_server("old").await,
        new_server("other").await,
    ];
    for (name, upstream) in ["new", "old", "other"].iter().zip(&upstreams) {
        rig.add_http(name, upstream).await;
    }
    upstreams
}

/// Serves these sets and no others.
pub(crate) fn serve(rig: &Rig, sets: &[(&str, Value)]) {
    let read = |(name, services): &(&str, Value)| {
        let draft = json!({"name": name, "services": services});
        let draft = ToolsetDraft::from_json(&draft).unwrap();
        (draft.name, draft.services)
    };
    rig.gateway.publish_sets(sets.iter().map(read).collect());
}

/// Reading tools of two services, and one more that is not there.
fn reading() -> Value {
    json!([
        {"service": "old", "tools": ["read*"], "prompts": ["greet"], "resources": ["old://open/*"]},
        {"service": "new", "tools": ["read"], "prompts": [], "resources": ["new://open/*", "both://1"]},
        {"service": "nowhere"},
    ])
}

pub(crate) async fn list(
    client: &Client,
    (method, kind, member): (&str, &str, &str),
) -> Vec<String> {
    let answer = client.say(&Message::new(method, "")).await.json();
    let items = answer["result"][kind].as_array();
    let items = items.unwrap_or_else(|| panic!("{method}: {answer}"));
    items
        .iter()
        .map(|item| item[member].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn of(kind: &str, name: &str) -> Message {
    let member = if kind == "resources/read" {
        "uri"
    } else {
        "name"
    };
    Message::new(kind, &format!(r#""{member}":"{name}""#))
}

pub(crate) fn complete(reference: &Value) -> Message {
    let params = format!(r#""ref":{reference},"argument":{{"name":"id","value":""}}"#);
    Message::new("completion/complete", &params)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_shows_what_it_selects_and_nothing_else() {
    let rig = Rig::start();
    let upstreams = world(&rig).await;
    serve(&rig, &[("work", reading())]);
    for client in [rig.modern(), rig.legacy().await] {
        let everywhere = client.clone();
        assert_eq!(
            list(&everywhere, LISTS[0]).await.len(),
            9,
            "there is more outside"
        );
        let client = client.at("/mcp/sets/work");
        let expected: [&[&str]; 4] = [
            &["new__read", "old__read", "old__read_all"],
            &["old__greet"],
            &["new://open/1", "both://1", "old://open/1"],
            &["new://open/{id}", "old://open/{id}"],
        ];
        for (kind, expected) in LISTS.into_iter().zip(expected) {
            assert_eq!(list(&client, kind).await, expected, "{}", kind.0);
        }
        for (tool, said) in [("new__read", "new read"), ("old__read_all", "old read_all")] {
            let answer = client.call(tool, "{}").await;
            assert_eq!(answer["result"]["content"][0]["text"], said, "{answer}");
        }
        let got = client.say(&of("prompts/get", "old__greet")).await.json();
        assert_eq!(got["result"]["messages"][0]["content"]["text"], "greet");
        for (uri, whose) in [
            ("old://open/1", "old"),
            ("new://open/7", "new"),
            ("both://1", "new"),
        ] {
            let read = client.say(&of("resources/read", uri)).await.json();
            assert_eq!(
                read["result"]["contents"][0]["text"], whose,
                "{uri}: {read}"
            );
        }
        for reference in [
            json!({"type": "ref/prompt", "name": "old__greet"}),
            json!({"type": "ref/resource", "uri": "old://open/{id}"}),
        ] {
            let done = client.say(&complete(&reference)).await.json();
            assert_eq!(
                done["result"]["completion"]["values"],
                json!(["old"]),
                "{done}"
            );
        }
        let asked = |upstream: &Upstream| {
            let kinds = [
                "tools/call",
                "prompts/get",
                "resources/read",
                "completion/complete",
            ];
            kinds.map(|kind| upstream.seen(kind).len())
        };
        let before = upstreams.each_ref().map(asked);
        for refused in [
            Message::call("new__write", "{}"),
            Message::call("other__read", "{}"),
            Message::call("read", "{}"),
            of("prompts/get", "new__greet"),
            of("prompts/get", "old__scold"),
            of("resources/read", "old://closed/1"),
            of("resources/read", "old://closed/7"),
            of("resources/read", "vaxel://old/both://1"),
            of("resources/read", "vaxel://other/other://open/1"),
            complete(&json!({"type": "ref/prompt", "name": "old__scold"})),
            complete(&json!({"type": "ref/resource", "uri": "old://closed/{id}"})),
        ] {
            let answer = client.say(&refused).await;
            let error = &answer.json()["error"];
            // What old revisions have a code of their own for.
            let text = error["message"].as_str().unwrap();
            let is_old = text.starts_with("Unknown resource") && !client.modern;
            let expected = if is_old { -32002 } else { -32602 };
            assert_eq!(error["code"], expected, "{}: {error}", refused.params);
            assert!(text.contains("not in the set `work`"), "{text}");
        }
        assert_eq!(
            before,
            upstreams.each_ref().map(asked),
            "no server heard of it"
        );
    }
    let hello = rig.modern().at("/mcp/sets/work");
    let hello = hello.say(&Message::new("server/discover", "")).await.json();
    // The old one has none; that of what is outside is none of the set's.
    assert_eq!(hello["result"]["instructions"], "I am new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_reached_by_every_door_and_what_is_none_is_named() {
    let rig = Rig::start();
    let _upstreams = world(&rig).await;
    serve(
        &rig,
        &[("work", json!([{"service": "old", "tools": ["read"]}]))],
    );
    let key = &rig.keys[0];
    let mut oldest = Oldest::connect(&rig, "/sse/sets/work", "{}").await;
    assert_eq!(
        names(&oldest.say(&Message::new("tools/list", "")).await),
        ["old__read"]
    );
    let said = oldest.say(&Message::call("old__read", "{}")).await;
    assert_eq!(said["result"]["content"][0]["text"], "old read");
    let refused = oldest.say(&Message::call("old__write", "{}")).await;
    assert_eq!(refused["error"]["code"], -32602);

    let mut socket = Socket::open(rig.address, "/mcp/sets/work", key).await;
    socket.initialize("2025-06-18", &json!({})).await;
    let call = json!({"name": "old__read", "arguments": {}});
    for (id, method, params) in [
        (1, "tools/list", json!({})),
        (2, "tools/call", call.clone()),
    ] {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        socket.send(&request).await;
        let answer = socket.answer(&json!(id)).await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    let mut socket = Socket::open(rig.address, "/mcp/sets/work", key).await;
    socket.send(&modern(1, "tools/list", json!({}))).await;
    assert_eq!(names(&socket.next().await), ["old__read"]);
    socket.send(&modern(2, "tools/call", call)).await;
    assert_eq!(
        socket.next().await["result"]["content"][0]["text"],
        "old read"
    );

    for (path, sentence) in [
        ("sets/wrok", "There is no set `wrok`"),
        ("sets/wrok/more", "There is no set `wrok/more`"),
        ("sets", "The address of a set is `/mcp/sets/` and its name"),
        ("sets/", "The address of a set is `/mcp/sets/` and its name"),
    ] {
        let client = rig.modern().at(&format!("/mcp/{path}"));
        let posted = client.say(&Message::new("tools/list", "")).await;
        let at_sse = rig.modern().at(&format!("/sse/{path}"));
        let opened = at_sse.send(Method::GET, "").await.read().await;
        for answer in [posted, opened] {
            assert_eq!(answer.status, 404, "{path}: {}", answer.text);
            assert_eq!(answer.json()["type"], "/errors/unknown-set");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(
                detail.starts_with(sentence) && detail.contains("vaxel set ls"),
                "{detail}"
            );
        }
        let header = format!("Bearer {key}");
        let headers = [("authorization", &*header)];
        let shaken = Socket::try_open(rig.address, &format!("/mcp/{path}"), &headers).await;
        assert_eq!(shaken.err(), Some(404), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_set_hear_of_its_changes_and_of_no_others() {
    let rig = Rig::start();
    let upstreams = world(&rig).await;
    let tools = |tools: &[&str]| json!([{"service": "new", "tools": tools, "prompts": [], "resources": []}]);
    serve(&rig, &[("work", tools(&["read"]))]);
    let legacy = rig.legacy().await.at("/mcp/sets/work");
    let new = rig.modern().at("/mcp/sets/work");
    let wish = r#""notifications":{"toolsListChanged":true,"promptsListChanged":true}"#;
    let listen = Message::new("subscriptions/listen", wish);
    let mut streams = [legacy.send(Method::GET, "").await, new.open(&listen).await];
    assert!(streams[1].event().await.is_some(), "it is acknowledged");
    let mut oldest = Oldest::connect(&rig, "/sse/sets/work", "{}").await;
    let changed = "notifications/tools/list_changed";
    let prompts = "notifications/prompts/list_changed";
    // What changes outside comes before what changes inside: only the latter is heard of.
    rig.add_http("outside", &upstreams[2]).await;
    let only_prompts = json!([{"service": "new", "tools": ["read"], "resources": []}]);
    serve(
        &rig,
        &[("work", only_prompts), ("beside", tools(&["write"]))],
    );
    for stream in &mut streams {
        assert_eq!(stream.event().await.unwrap()["method"], prompts);
    }
    assert_eq!(oldest.hear().await["method"], prompts);
    let other = json!([{"service": "new", "tools": ["write"], "resources": []}]);
    let gone = [("work", other)];
    for sets in [&gone[..], &[]] {
        serve(&rig, sets);
        for stream in &mut streams {
            assert_eq!(stream.event().await.unwrap()["method"], changed);
        }
        assert_eq!(oldest.hear().await["method"], changed);
        let listed = new.say(&Message::new("tools/list", "")).await;
        if sets.is_empty() {
            assert_eq!(listed.json()["type"], "/errors/unknown-set");
        } else {
            assert_eq!(names(&listed.json()), ["new__write"]);
        }
    }
    for stream in &mut streams {
        assert_eq!(
            stream.event().await.unwrap()["method"],
            prompts,
            "they went as well"
        );
    }
    let answer = legacy.say(&Message::new("tools/list", "")).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    // What comes back under the name is the same endpoint.
    serve(&rig, &[("work", tools(&["read_all"]))]);
    for stream in &mut streams {
        assert_eq!(stream.event().await.unwrap()["method"], changed);
    }
    assert_eq!(list(&legacy, LISTS[0]).await, ["new__read_all"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_belongs_to_its_set() {
    let mut plan = Plan::default();
    plan.config.page_size = 1;
    let rig = Rig::start_with(&plan);
    let _upstreams = world(&rig).await;
    let both = json!([{"service": "new", "tools": ["read*"]}]);
    serve(&rig, &[("one", both.clone()), ("two", both)]);
    for client in [rig.modern(), rig.legacy().await] {
        let at = |path: &str| client.clone().at(path);
        let first = at("/mcp/sets/one")
            .say(&Message::new("tools/list", ""))
            .await
            .json();
        assert_eq!(names(&first), ["new__read"]);
        let next = Message::new(
            "tools/list",
            &format!(r#""cursor":{}"#, first["result"]["nextCursor"]),
        );
        for path in ["/mcp/sets/two", "/mcp", "/mcp/new"] {
            assert_eq!(at(path).say(&next).await.code(), -32602, "{path}");
        }
        let second = at("/mcp/sets/one").say(&next).await.json();
        assert_eq!(names(&second), ["new__read_all"]);
        assert!(second["result"]["nextCursor"].is_null(), "{second}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_resource_is_heard_of_while_it_is_in_the_set() {
    let rig = Rig::start();
    let telling = Arc::<Mutex<Option<mpsc::Sender<String>>>>::default();
    let opened = Arc::clone(&telling);
    let server = Upstream::legacy(move |seen: &Seen| {
        if seen.verb == Method::GET {
            let (sender, stream) = mpsc::channel(8);
            *opened.lock() = Some(sender);
            return Some(Reply::Live(stream));
        }
        old("up", seen)
    })
    .await;
    rig.add_http("up", &server).await;
    let of = |patterns: &[&str]| json!([{"service": "up", "tools": [], "resources": patterns}]);
    serve(&rig, &[("work", of(&["up://*"]))]);
    let client = rig.legacy().await.at("/mcp/sets/work");
    let mut news = client.send(Method::GET, "").await;
    let watch = |uri: &str| Message::new("resources/subscribe", &format!(r#""uri":"{uri}""#));
    for uri in ["up://open/1", "up://closed/1"] {
        assert_eq!(
            client.say(&watch(uri)).await.json()["result"],
            json!({}),
            "{uri}"
        );
    }
    assert_eq!(client.say(&watch("both://1")).await.code(), -32002);
    wait_for("two subscriptions", || {
        (server.seen("resources/subscribe").len() == 2).then_some(())
    })
    .await;
    let tell = async |uri: &str| {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
            "params": {"uri": uri}});
        let sender = wait_for("the server's stream", || telling.lock().clone()).await;
        sender.send(note.to_string()).await.unwrap();
    };
    tell("up://closed/1").await;
    assert_eq!(
        news.event().await.unwrap()["params"]["uri"],
        "up://closed/1"
    );
    serve(&rig, &[("work", of(&["up://open/*"]))]);
    let changed = news.event().await.unwrap();
    assert_eq!(changed["method"], "notifications/resources/list_changed");
    tell("up://closed/1").await;
    tell("up://open/1").await;
    assert_eq!(news.event().await.unwrap()["params"]["uri"], "up://open/1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_known_in_the_sets_that_have_its_tool() {
    let rig = Rig::start();
    let upstreams = world(&rig).await;
    serve(
        &rig,
        &[
            ("work", json!([{"service": "new", "tools": ["read"]}])),
            (
                "beside",
                json!([{"service": "new", "tools": ["write"]}, {"service": "other"}]),
            ),
        ],
    );
    let able = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
    let client = rig.modern().able(able).at("/mcp/sets/work");
    let begun = client.call("new__read", "{}").await["result"].clone();
    assert_eq!(begun["resultType"], "task", "{begun}");
    let id = begun["taskId"].as_str().unwrap();
    let cancel = Message::new("tasks/cancel", &format!(r#""taskId":"{id}""#));
    for (path, known) in [
        ("/mcp/sets/work", true),
        ("/mcp", true),
        ("/mcp/sets/beside", false),
    ] {
        let client = client.clone().at(path).with("mcp-name", id);
        let answer = client.say(&cancel).await.json();
        assert_eq!(answer["result"].is_object(), known, "{path}: {answer}");
    }
    assert_eq!(upstreams[0].seen("tasks/cancel").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_where_its_tool_is_in_the_set() {
    let rig = Rig::start();
    let script = Script::legacy(
        r#"
say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create",
     "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}})
text(json.dumps(hear().get("result", "refused")))
"#,
    );
    rig.add_stdio("up", &script).await;
    let echo = json!([{"service": "up", "tools": ["echo"]}]);
    serve(
        &rig,
        &[
            ("work", echo),
            ("beside", json!([{"service": "up", "tools": ["other"]}])),
        ],
    );
    let client = rig.modern().able(r#"{"elicitation":{"form":{}}}"#);
    let client = client.at("/mcp/sets/work");
    let asked = client.call("up__echo", "{}").await["result"].clone();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let (key, _) = asked["inputRequests"]
        .as_object()
        .unwrap()
        .iter()
        .next()
        .unwrap();
    let answers = json!({key: {"action": "accept", "content": {"name": "Ada"}}});
    let retry = Message::new(
        "tools/call",
        &format!(
            r#""name":"up__echo","arguments":{{}},"inputResponses":{answers},"requestState":{}"#,
            asked["requestState"]
        ),
    );
    assert_eq!(
        client
            .clone()
            .at("/mcp/sets/beside")
            .say(&retry)
            .await
            .code(),
        -32602
    );
    let done = client.say(&retry).await.json();
    let text = done["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Ada"), "{done}");
}
