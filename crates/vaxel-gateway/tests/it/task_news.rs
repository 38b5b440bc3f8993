//! Clients that listen for news of tasks (SEP-2663): the instance that works on one is asked once, and who
//! watches it hears what its server says.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{Request, Response},
    },
};
use vaxel_core::{
    balance::Balance,
    principal::{Permission, Permissions, Principal, Proof},
    rights::Rights,
    service::{Limits, ToolFilter, Validate},
    toolset::ToolsetDraft,
};
use vaxel_gateway::{Link, ServiceEntry};

use crate::harness::{
    Client, Plan, Reply, Rig, Script, Seen, Served, Upstream, about,
    client::{Message, Stream},
    socket::{self, Socket},
    wait_for,
};

const TASKS: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";

fn task(kind: &str, id: &Value, status: &str) -> Value {
    json!({"resultType": kind, "taskId": id, "status": status, "ttlMs": null,
        "createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:00Z"})
}

fn introduction(capabilities: &Value) -> Value {
    json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
        "capabilities": capabilities, "ttlMs": 0, "cacheScope": "private"})
}

/// A server over HTTP that begins the task that a call names, and tells what it is told to.
#[derive(Default)]
struct Teller {
    /// It says that its lists change, too.
    has_news: bool,
    /// Of this task it does not tell.
    silent_on: Mutex<String>,
    /// It refuses to be listened to for this task.
    refuses: Mutex<String>,
    /// What it was listened to for, and where that is told.
    streams: Mutex<Vec<(Value, mpsc::Sender<String>)>>,
}

impl Teller {
    async fn start(self) -> (Arc<Self>, Upstream) {
        let teller = Arc::new(self);
        let hears = Arc::clone(&teller);
        let upstream = Upstream::modern(move |seen| hears.hear(seen)).await;
        (teller, upstream)
    }

    fn hear(&self, seen: &Seen) -> Option<Reply> {
        let params = &seen.json["params"];
        let result = match seen.method() {
            "server/discover" if self.has_news => introduction(
                &json!({"tools": {"listChanged": true}, "resources": {"subscribe": true},
                "extensions": {"io.modelcontextprotocol/tasks": {}}}),
            ),
            "server/discover" => introduction(
                &json!({"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}),
            ),
            "tools/call" => task("task", &params["arguments"]["id"], "working"),
            "resources/list" => {
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "resources": [{"uri": "note://one", "name": "one"}]})
            }
            "resources/templates/list" => json!({"resultType": "complete", "ttlMs": 0,
                "cacheScope": "private", "resourceTemplates": []}),
            "subscriptions/listen" => return Some(self.open(seen, &params["notifications"])),
            _ => return None,
        };
        Some(Reply::Json(200, seen.result(&result)))
    }

    fn open(&self, seen: &Seen, wanted: &Value) -> Reply {
        let refused = self.refuses.lock().clone();
        let silent = self.silent_on.lock().clone();
        let mut agreed = wanted.clone();
        if let Some(ids) = agreed["taskIds"].as_array_mut() {
            if ids.iter().any(|id| *id == *refused) {
                let error = json!({"code": -32602, "message": "Task not found"});
                let error = json!({"jsonrpc": "2.0", "id": seen.json["id"], "error": error});
                return Reply::Json(200, error.to_string());
            }
            ids.retain(|id| *id != *silent);
        }
        let (sender, receiver) = mpsc::channel(4_096);
        let note = json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
            "params": {"notifications": agreed, "_meta": {SUBSCRIPTION: seen.json["id"]}}});
        sender.try_send(note.to_string()).unwrap();
        self.streams.lock().push((wanted.clone(), sender));
        Reply::Live(receiver)
    }

    /// Says how a task stands to whoever listens for it; to how many.
    fn say(&self, id: &str, status: &str) -> usize {
        let note = json!({"jsonrpc": "2.0", "method": "notifications/tasks",
            "params": {"taskId": id, "status": status, "_meta": {SUBSCRIPTION: 1}}});
        self.write(id, &note.to_string())
    }

    fn write(&self, id: &str, event: &str) -> usize {
        let streams = self.streams.lock();
        let listening = streams.iter().filter(|(wanted, _)| names(wanted, id));
        listening
            .filter(|(_, stream)| stream.try_send(event.to_owned()).is_ok())
            .count()
    }

    /// Waits until it is listened to for these tasks and on no other stream.
    async fn listens_for(&self, ids: &[&str]) {
        let wanted = json!(ids);
        wait_for("one stream for these tasks", || {
            let mut streams = self.streams.lock();
            streams.retain(|(_, stream)| !stream.is_closed());
            let mut asked = streams.iter().map(|(asked, _)| &asked["taskIds"]);
            (asked.next() == Some(&wanted) && asked.next().is_none()).then_some(())
        })
        .await;
    }

    /// Ends all streams, as a server that starts anew does.
    fn hang_up(&self) {
        self.streams.lock().clear();
    }
}

fn names(wanted: &Value, id: &str) -> bool {
    let ids = wanted["taskIds"].as_array();
    ids.is_some_and(|ids| ids.iter().any(|one| one == id))
}

/// The tasks that a server was asked to tell of, request by request.
fn listened(upstream: &Upstream) -> Vec<Value> {
    let seen = upstream.seen("subscriptions/listen");
    let wanted = |one: &Seen| one.json["params"]["notifications"]["taskIds"].clone();
    seen.iter().map(wanted).collect()
}

async fn begin(client: &Client, tool: &str, id: &str) -> String {
    let begun = client.call(tool, &json!({"id": id}).to_string()).await;
    let id = begun["result"]["taskId"].as_str();
    id.unwrap_or_else(|| panic!("{begun}")).to_owned()
}

fn wish(ids: &[&str]) -> Message {
    let wanted = json!({"taskIds": ids});
    Message::new(
        "subscriptions/listen",
        &format!(r#""notifications":{wanted}"#),
    )
}

/// A stream, and the tasks that it will tell of.
async fn listen(client: &Client, ids: &[&str]) -> (Stream, Vec<String>) {
    let mut stream = client.open(&wish(ids).id("\"sub\"")).await;
    let first = stream.event().await.unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let agreed = first["params"]["notifications"]["taskIds"].as_array();
    let agreed = agreed.map(|ids| {
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    });
    (stream, agreed.unwrap_or_default())
}

/// The next word about a task: its id and how it stands.
async fn hears(stream: &mut Stream) -> [Value; 2] {
    let heard = stream.event().await.unwrap();
    assert_eq!(heard["method"], "notifications/tasks", "{heard}");
    assert_eq!(heard["params"]["_meta"][SUBSCRIPTION], "sub");
    ["taskId", "status"].map(|member| heard["params"][member].clone())
}

/// The stream ends as the protocol says that one ends, without a word more.
async fn ends(mut stream: Stream) {
    let end = stream.event().await.unwrap();
    assert_eq!(end["id"], "sub", "{end}");
    assert_eq!(end["result"]["resultType"], "complete");
    assert_eq!(end["result"]["_meta"][SUBSCRIPTION], "sub");
    assert_eq!(stream.event().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_clients_watch_a_task_its_server_is_asked_once() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let [one, two] = [
        begin(&client, "up__echo", "one").await,
        begin(&client, "up__echo", "two").await,
    ];
    assert!(
        listened(&server).is_empty(),
        "who watches nothing costs nothing"
    );
    let (mut first, agreed) = listen(&client, &[&one, &one]).await;
    assert_eq!(agreed, [one.as_str()]);
    let (mut second, agreed) = listen(&client.clone().at("/mcp/up"), &[&one]).await;
    assert_eq!(agreed, [one.as_str()]);
    assert_eq!(listened(&server), [json!(["one"])]);
    let asked = server.seen("subscriptions/listen").pop().unwrap();
    let declared = &asked.json["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(*declared, serde_json::from_str::<Value>(TASKS).unwrap());
    let (mut third, agreed) = listen(&client, &[&two, &one]).await;
    assert_eq!(agreed, [two.as_str(), one.as_str()]);
    assert_eq!(listened(&server), [json!(["one"]), json!(["one", "two"])]);
    // The old stream was left when the new one was there.
    teller.listens_for(&["one", "two"]).await;
    assert_eq!(teller.say("two", "working"), 1);
    assert_eq!(teller.say("one", "input_required"), 1);
    assert_eq!(hears(&mut third).await, [&*two, "working"]);
    for stream in [&mut first, &mut second, &mut third] {
        assert_eq!(hears(stream).await, [&*one, "input_required"]);
    }
    // What has ended is watched by nobody.
    assert_eq!(teller.say("one", "completed"), 1);
    for stream in [&mut first, &mut second, &mut third] {
        assert_eq!(hears(stream).await, [&*one, "completed"]);
    }
    wait_for("the task that goes on", || {
        (listened(&server).last() == Some(&json!(["two"]))).then_some(())
    })
    .await;
    drop(third);
    wait_for("the last stream to be left", || {
        (server.left() == 3).then_some(())
    })
    .await;
    assert_eq!(listened(&server).len(), 3);
}

/// What is told is the server's own words, with the ids that the client knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_words_of_the_server_pass_as_they_are() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let id = begin(&client, "up__echo", "one").await;
    let (mut stream, _) = listen(&client, &[&id]).await;
    let result =
        r#""result":{"content":[], "structuredContent":{"n":1.0,"big":12345678901234567890}}"#;
    let note = |id: &str, about: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/tasks","params":{{ "taskId" : "{id}","status":"completed",{result},"_meta":{{{about}"vendor/x":1.0}}}}}}"#
        )
    };
    let theirs = note("one", &format!(r#""{SUBSCRIPTION}":1,"#));
    assert_eq!(teller.write("one", &theirs), 1);
    let heard = stream.data().await.unwrap();
    let ours = note(&id, "").replace(
        r#""vendor/x":1.0"#,
        &format!(r#""vendor/x":1.0,"{SUBSCRIPTION}":"sub""#),
    );
    assert_eq!(heard, ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_see_a_task_and_where_it_is_seen_hears_of_it() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    let (_, other) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    rig.add_http("other", &other).await;
    serve_sets(&rig, "echo");
    let client = rig.modern().able(TASKS);
    let id = begin(&client, "up__echo", "one").await;
    let stranger = Client::modern(rig.address, &rig.keys[1]).able(TASKS);
    for (who, path, ids) in [
        (&stranger, "/mcp", [&*id]),
        (&stranger, "/mcp/up", [&*id]),
        (&client, "/mcp/other", [&*id]),
        (&client, "/mcp/sets/less", [&*id]),
        (&client, "/mcp", ["one"]),
        (&client, "/mcp", [""]),
        (&client, "/mcp", [&id[1..]]),
    ] {
        let (_, agreed) = listen(&who.clone().at(path), &ids).await;
        assert!(agreed.is_empty(), "{path} {ids:?}");
    }
    assert!(listened(&server).is_empty() && listened(&other).is_empty());
    // What leaves a set while it is watched ends the stream.
    let in_set = client.clone().at("/mcp/sets/more");
    let (stream, agreed) = listen(&in_set, &[&id]).await;
    assert_eq!(agreed, [&*id]);
    serve_sets(&rig, "other");
    assert_eq!(teller.say("one", "working"), 1);
    ends(stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_call_any_more_hears_nothing_of_what_calls_came_to() {
    let plan = Plan::default();
    let rig = Rig::start_with(&plan);
    let (_, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let who = (Proof::Key(plan.callers[0].1), "ada".into());
    let who = Principal::of_user(who, Rights::unlimited(), None);
    let as_one = |who: &Principal| {
        let key = rig.admit(who.clone());
        Client::modern(rig.address, &key).able(TASKS)
    };
    let client = as_one(&who);
    let id = begin(&client, "up__echo", "one").await;
    let reads = Principal {
        permissions: Permissions::of(&[Permission::McpRead]),
        ..who.clone()
    };
    let (_, agreed) = listen(&as_one(&reads), &[&id]).await;
    assert!(agreed.is_empty() && listened(&server).is_empty());
    let (_, agreed) = listen(&as_one(&who), &[&id]).await;
    assert_eq!(agreed, [id]);
}

/// The set `more` shows this tool of `up`, and `less` the tool `other`.
fn serve_sets(rig: &Rig, more: &str) {
    let set = |name: &str, tool: &str| {
        let services = json!([{"service": "up", "tools": [tool]}]);
        let draft = json!({"name": name, "services": services});
        let draft = ToolsetDraft::from_json(&draft).unwrap();
        (draft.name, draft.services)
    };
    rig.gateway
        .publish_sets(vec![set("more", more), set("less", "other")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_know_tasks_is_told_what_it_lacks() {
    let rig = Rig::start();
    let (_, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let id = begin(&rig.modern().able(TASKS), "up__echo", "one").await;
    let lacks = |error: &Value| {
        assert_eq!(error["code"], -32021, "{error}");
        let required: Value = serde_json::from_str(TASKS).unwrap();
        assert_eq!(error["data"]["requiredCapabilities"], required);
    };
    for capabilities in ["{}", r#"{"extensions":{}}"#, r#"{"tasks":{}}"#] {
        let refused = rig.modern().able(capabilities).say(&wish(&[&id])).await;
        assert_eq!(refused.status, 400);
        lacks(&refused.json()["error"]);
    }
    let mut socket = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
    let params = json!({"notifications": {"taskIds": [id]}});
    let message = socket::modern(7, "subscriptions/listen", params);
    socket.send(&message).await;
    lacks(&socket.answer(&json!(7)).await["error"]);
    // Who asks for no task needs to know none.
    let (_, agreed) = listen(&rig.modern(), &[]).await;
    assert!(agreed.is_empty() && listened(&server).is_empty());
    // The rest of what can be wrong.
    let able = rig.modern().able(TASKS);
    let many: Vec<String> = (0..1_001).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = able.say(&wish(&many)).await;
    assert!(
        refused.text.contains("More than 1000 tasks"),
        "{}",
        refused.text
    );
    let wrong = Message::new("subscriptions/listen", r#""notifications":{"taskIds":[1]}"#);
    assert_eq!(able.say(&wrong).await.code(), -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_not_tell_of_is_not_promised() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let [one, two] = [
        begin(&client, "up__echo", "one").await,
        begin(&client, "up__echo", "two").await,
    ];
    *teller.silent_on.lock() = "two".to_owned();
    let (mut first, agreed) = listen(&client, &[&one, &two]).await;
    assert_eq!(agreed, [&*one]);
    teller.listens_for(&["one"]).await;
    teller.say("one", "working");
    assert_eq!(hears(&mut first).await, [&*one, "working"]);
    // A task that was forgotten meanwhile, when the server is asked for others.
    *teller.silent_on.lock() = "one".to_owned();
    let (_second, agreed) = listen(&client, &[&two]).await;
    assert_eq!(agreed, [&*two]);
    ends(first).await;
    // One that does not know the extension, but gives a task.
    let plain = Upstream::modern(|seen| {
        let begun = task("task", &json!("one"), "working");
        (seen.method() == "tools/call").then(|| Reply::Json(200, seen.result(&begun)))
    })
    .await;
    rig.add_http("plain", &plain).await;
    let id = begin(&client, "plain__echo", "one").await;
    let (_, agreed) = listen(&client, &[&id]).await;
    assert!(agreed.is_empty() && listened(&plain).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_for_whose_sake_a_server_refuses_costs_others_nothing() {
    let rig = Rig::start();
    let teller = Teller {
        has_news: true,
        ..Teller::default()
    };
    let (teller, server) = teller.start().await;
    rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let [one, gone] = [
        begin(&client, "up__echo", "one").await,
        begin(&client, "up__echo", "gone").await,
    ];
    *teller.refuses.lock() = "gone".to_owned();
    let (mut first, agreed) = listen(&client, &[&one]).await;
    assert_eq!(agreed, [&*one]);
    let (_second, agreed) = listen(&client, &[&gone]).await;
    assert!(agreed.is_empty());
    let wanted = json!({"resourceSubscriptions": ["note://one"]});
    let message = format!(r#""notifications":{wanted}"#);
    let mut third = client
        .open(&Message::new("subscriptions/listen", &message))
        .await;
    let agreed = third.event().await.unwrap();
    assert_eq!(agreed["params"]["notifications"], wanted);
    teller.say("one", "working");
    assert_eq!(hears(&mut first).await, [&*one, "working"]);
    let updated = json!({"jsonrpc": "2.0", "method": "notifications/resources/updated",
        "params": {"uri": "note://one"}});
    wait_for("the resource to be told of", || {
        (teller.write("one", &updated.to_string()) == 1).then_some(())
    })
    .await;
    assert_eq!(third.event().await.unwrap()["params"]["uri"], "note://one");
}

fn publish(rig: &Rig, name: &str, served: &Served, links: Vec<Link>) {
    rig.gateway.publish(ServiceEntry {
        id: served.id,
        name: name.parse().unwrap(),
        limits: Limits::default(),
        tools: ToolFilter::default(),
        validate: Validate::None,
        catalog: Some(Arc::clone(&served.catalog)),
        links,
        balance: Balance::default(),
        about: about(),
        unavailable: None,
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_listened_for_at_its_instance_and_as_long_as_that_is_there() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    let (_, other) = Teller::default().start().await;
    let served = rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let id = begin(&client, "up__echo", "one").await;
    // Two instances of one service.
    let second = rig.connect_to("up", served.id, &other).await;
    publish(
        &rig,
        "up",
        &served,
        vec![second.clone(), served.link.clone()],
    );
    let (mut stream, agreed) = listen(&client, &[&id]).await;
    assert_eq!(agreed, [&*id]);
    teller.say("one", "working");
    assert_eq!(hears(&mut stream).await, [&*id, "working"]);
    assert_eq!(listened(&server), [json!(["one"])]);
    // The instance goes away; the other one has no such task.
    publish(&rig, "up", &served, vec![second]);
    drop(served);
    ends(stream).await;
    let (_, agreed) = listen(&client, &[&id]).await;
    assert!(agreed.is_empty());
    assert!(listened(&other).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_may_have_missed_a_word_ends() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let id = begin(&client, "up__echo", "one").await;
    let (stream, _) = listen(&client, &[&id]).await;
    let (mut other, _) = listen(&client, &[]).await;
    teller.hang_up();
    ends(stream).await;
    // Who watches no task goes on, and who comes again is heard when the server is.
    let (stream, agreed) = listen(&client, &[&id]).await;
    assert_eq!(agreed, [&*id]);
    // A server whose streams do not last is left alone for a while: nothing is promised.
    teller.hang_up();
    ends(stream).await;
    let (_, agreed) = listen(&client, &[&id]).await;
    assert!(agreed.is_empty());
    drop(rig);
    assert!(
        other
            .event()
            .await
            .is_none_or(|end| end["result"].is_object())
    );
}

#[tokio::test]
async fn a_stream_that_lags_behind_ends() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let id = begin(&client, "up__echo", "one").await;
    let (stream, _) = listen(&client, &[&id]).await;
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tasks","params":{"taskId":"one","status":"working"}}"#;
    let flood = format!("event: message\ndata: {note}\n\n").repeat(4_000);
    assert_eq!(teller.write("one", &flood), 1);
    ends(stream).await;
    // Its client comes again.
    let (mut stream, agreed) = listen(&client, &[&id]).await;
    assert_eq!(agreed, [&*id]);
    wait_for("the server's stream", || {
        (teller.say("one", "completed") > 0).then_some(())
    })
    .await;
    while hears(&mut stream).await[1] != "completed" {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_told_to_have_ended_holds_no_instance() {
    let rig = Rig::start();
    let (teller, server) = Teller::default().start().await;
    let served = rig.add_http("up", &server).await;
    let client = rig.modern().able(TASKS);
    let id = begin(&client, "up__echo", "one").await;
    let links = [served.link.clone()];
    let (mut stream, _) = listen(&client, &[&id]).await;
    rig.idle(&served).await;
    assert!(rig.gateway.is_watched(served.id));
    teller.say("one", "working");
    assert_eq!(hears(&mut stream).await[1], "working");
    assert!(!rig.gateway.retire(&links));
    teller.say("one", "failed");
    assert_eq!(hears(&mut stream).await[1], "failed");
    assert!(rig.gateway.retire(&links));
    wait_for("nobody to watch", || {
        (!rig.gateway.is_watched(served.id)).then_some(())
    })
    .await;
}

/// Begins the task that a call names, or says what it holds.
const CHILD: &str = r#"
told = params["arguments"]
if "say" in told:
    note("notifications/tasks", **told["say"])
    text("said")
else:
    answer({"resultType": "task", "taskId": told["id"], "status": "working", "ttlMs": None,
            "createdAt": "2026-07-28T00:00:00Z", "lastUpdatedAt": "2026-07-28T00:00:00Z"})
"#;

/// The same over WebSocket.
async fn over_websocket() -> (url::Url, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            clients.spawn(talk(listener.accept().await.unwrap().0));
        }
    });
    (url.parse().unwrap(), tasks)
}

async fn talk(stream: TcpStream) {
    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is the library's"
    )]
    let shake = |request: &Request, mut response: Response| {
        let offered = request.headers().get("sec-websocket-protocol").cloned();
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", offered.unwrap());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, shake).await.unwrap();
    while let Some(Ok(Frame::Text(text))) = socket.next().await {
        let told: Value = serde_json::from_str(&text).unwrap();
        let params = &told["params"];
        let note = |method: &str, params: Value| json!({"jsonrpc": "2.0", "method": method, "params": params});
        let result = match told["method"].as_str().unwrap() {
            "server/discover" => introduction(
                &json!({"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}),
            ),
            "tools/list" => json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
            "tools/call" if params["arguments"]["say"].is_object() => {
                let said = note("notifications/tasks", params["arguments"]["say"].clone());
                socket.send(Frame::text(said.to_string())).await.unwrap();
                json!({"resultType": "complete", "content": []})
            }
            "tools/call" => task("task", &params["arguments"]["id"], "working"),
            "subscriptions/listen" => {
                let agreed = json!({"notifications": params["notifications"], "_meta": {SUBSCRIPTION: told["id"]}});
                let agreed = note("notifications/subscriptions/acknowledged", agreed);
                socket.send(Frame::text(agreed.to_string())).await.unwrap();
                continue;
            }
            _ => continue,
        };
        let answer = json!({"jsonrpc": "2.0", "id": told["id"], "result": result});
        socket.send(Frame::text(answer.to_string())).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_on_one_connection_are_heard_by_clients_of_every_transport() {
    let rig = Rig::start();
    rig.add_stdio("pipe", &Script::modern(CHILD).offering(TASKS))
        .await;
    let (url, _server) = over_websocket().await;
    rig.try_url("ws", url).await.unwrap();
    let client = rig.modern().able(TASKS);
    for name in ["pipe", "ws"] {
        let tool = format!("{name}__echo");
        let [one, two] = [
            begin(&client, &tool, "one").await,
            begin(&client, &tool, "two").await,
        ];
        let (mut stream, agreed) = listen(&client, &[&one]).await;
        assert_eq!(agreed, [&*one], "{name}");
        let mut socket = Socket::open(rig.address, "/mcp", &rig.keys[0]).await;
        let params = json!({"notifications": {"taskIds": [one, two]}});
        let mut message = socket::modern(7, "subscriptions/listen", params.clone());
        message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] =
            serde_json::from_str(TASKS).unwrap();
        socket.send(&message).await;
        let agreed = socket.next().await;
        assert_eq!(
            agreed["params"]["notifications"], params["notifications"],
            "{name}"
        );
        for status in ["working", "cancelled"] {
            let say = json!({"say": {"taskId": "one", "status": status}});
            client.call(&tool, &say.to_string()).await;
            assert_eq!(hears(&mut stream).await, [&*one, status], "{name}");
            let heard = socket.next().await["params"].clone();
            assert_eq!(heard["taskId"], *one);
            assert_eq!(
                [&heard["status"], &heard["_meta"][SUBSCRIPTION]],
                [&json!(status), &json!(7)]
            );
        }
    }
}
