//! How much callers, services and tools take: what is counted, what is refused, and how that is said, on
//! every door. The clock moves only when it is told to.

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use vaxel_core::{
    failure::Kind,
    id::Id,
    principal::{Principal, Proof},
    rights::{Rights, Sources},
    service::Limits,
    time::Clock,
    user::{UserDraft, UserResource},
};
use vaxel_gateway::ToolCall;

use crate::harness::{
    Client, Plan, Reply, Rig, Script, Seen, Terms, Upstream,
    client::{Answer, Message},
    socket::Socket,
    wait_for,
};

/// A plan whose clock stands still.
fn still() -> Plan {
    Plan {
        clock: Clock::manual(Clock::system().now()),
        ..Plan::default()
    }
}

/// What a user with the role `client` may do, with these limits.
fn rights(name: &str, limits: &Value) -> Rights {
    let draft = json!({"name": name, "roles": ["client"], "limits": limits});
    let draft = UserDraft::from_json(&draft).unwrap();
    let now = Clock::system().now();
    Sources::new([], [], []).rights_of(&UserResource {
        id: Id::new(now),
        name: draft.name,
        kind: draft.kind,
        version: 1,
        title: None,
        roles: draft.roles,
        limits: draft.limits,
        disabled: false,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    })
}

fn principal(rights: &Arc<Rights>) -> Principal {
    let name = rights.user().unwrap().shared().clone();
    let proof = Proof::Key(Id::new(Clock::system().now()));
    Principal::of_user((proof, name), Arc::clone(rights), None)
}

fn someone(name: &str, limits: &Value) -> Principal {
    principal(&Arc::new(rights(name, limits)))
}

fn limits(limits: Value) -> Terms {
    Terms {
        limits: serde_json::from_value(limits).unwrap(),
        ..Terms::default()
    }
}

async fn call(client: &Client) -> Answer {
    client
        .say(&Message::call("files__echo", "{}").id("7"))
        .await
}

/// Whether a call is taken, and else by which limit it is refused.
async fn outcome(client: &Client, tool: &str) -> Option<String> {
    let answer = client.call(tool, "{}").await;
    let limit = answer["error"]["data"]["limit"].as_str();
    assert!(limit.is_some() || answer["result"].is_object(), "{answer}");
    limit.map(str::to_owned)
}

fn headers(answer: &Answer) -> [&str; 2] {
    ["ratelimit-policy", "ratelimit"].map(|name| answer.header(name).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_its_calls_and_then_waits_for_one_after_the_other() {
    for era in ["modern", "legacy"] {
        let plan = still();
        let rig = Rig::start_with(&plan);
        let upstream = Upstream::modern(|_| None).await;
        let served = rig.add_http("files", &upstream).await;
        let anna = someone("anna", &json!({"calls": "20/1m"}));
        let key = rig.admit(anna.clone());
        let client = match era {
            "modern" => Client::modern(rig.address, &key),
            _ => Client::legacy(rig.address, &key).await,
        };
        for left in (0..20).rev() {
            let answer = call(&client).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            let said = format!(r#""calls";r={left};t=3"#);
            assert_eq!(headers(&answer), [r#""calls";q=20;w=60"#, &said]);
        }
        let refused = call(&client).await;
        assert_eq!(refused.status, 429, "{era}");
        assert_eq!(refused.header("retry-after"), Some("3"));
        assert_eq!(
            headers(&refused),
            [r#""calls";q=20;w=60"#, r#""calls";r=0;t=3"#]
        );
        let body = refused.json();
        let data = json!({"problem": "rate-limited", "retryAfter": 3, "limit": "calls"});
        assert_eq!(
            (&body["id"], &body["error"]["code"]),
            (&json!(7), &json!(1429))
        );
        assert_eq!(body["error"]["data"], data);
        let said = "`anna` may make 20 tool calls in 1m; try again in 3 s";
        assert_eq!(body["error"]["message"], said);
        assert_eq!(upstream.seen("tools/call").len(), 20);

        // What is no call of a tool goes on, and over REST the same limit holds.
        let list = client.say(&Message::new("tools/list", "")).await;
        assert_eq!(list.status, 200);
        let over_rest = ToolCall {
            principal: anna,
            service: served.id,
            tool: "echo".to_owned(),
            arguments: "{}".into(),
            timeout: None,
        };
        let failure = rig.gateway.call(over_rest).await.unwrap_err();
        assert_eq!(
            (failure.kind, failure.retry_after),
            (Kind::RateLimited, Some(3))
        );

        plan.clock.advance(Duration::from_secs(3));
        assert_eq!(call(&client).await.status, 200);
        assert_eq!(call(&client).await.status, 429);
        plan.clock.advance(Duration::from_hours(1));
        let said = call(&client).await;
        assert_eq!(headers(&said)[1], r#""calls";r=19;t=3"#);
        let mut counted = String::new();
        prometheus_client::encoding::text::encode(&mut counted, &rig.registry).unwrap();
        let metric = r#"vaxel_limit_refusals_total{limit="calls"} 3"#;
        assert!(counted.contains(metric), "{counted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_do_not_disturb_each_other_and_new_rights_give_nothing_back() {
    let plan = still();
    let rig = Rig::start_with(&plan);
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http("files", &upstream).await;
    let few = || json!({"calls": "2/1m"});
    let before = Arc::new(rights("anna", &few()));
    let all = [
        principal(&before),
        principal(&before),
        someone("bob", &few()),
        Principal::of_user((Proof::Unguarded, "otto".into()), Rights::unlimited(), None),
    ];
    let keys = all.map(|one| rig.admit(one));
    let [one, same, bob, otto] = keys.map(|key| Client::modern(rig.address, &key));
    assert_eq!(call(&one).await.status, 200);
    assert_eq!(call(&same).await.status, 200);
    assert_eq!(call(&one).await.status, 429, "two keys are one user");
    for _ in 0..2 {
        assert_eq!(call(&bob).await.status, 200);
    }
    assert_eq!(call(&bob).await.status, 429);
    for _ in 0..30 {
        let answer = call(&otto).await;
        assert_eq!((answer.status, headers(&answer)), (200, ["", ""]));
    }
    let after = rights("anna", &json!({"calls": "2/1m", "requests": "50/1m"})).after(&before);
    let key = rig.admit(principal(&Arc::new(after)));
    assert_eq!(call(&Client::modern(rig.address, &key)).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_every_kind_are_counted_and_refused_under_their_ids() {
    let plan = still();
    let rig = Rig::start_with(&plan);
    let few = || json!({"requests": "3/1m"});
    let keys = [someone("anna", &few()), someone("bob", &few())].map(|one| rig.admit(one));
    // The session took two: its beginning, and word that it had begun.
    let legacy = Client::legacy(rig.address, &keys[1]).await;
    for (client, left) in [(Client::modern(rig.address, &keys[0]), 3), (legacy, 1)] {
        for left in (0..left).rev() {
            let list = client.say(&Message::new("tools/list", "")).await;
            assert_eq!(list.status, 200, "{}", list.text);
            let said = format!(r#""requests";r={left};t=20"#);
            assert_eq!(headers(&list)[1], said);
        }
        let list = client
            .say(&Message::new("tools/list", "").id(r#""a""#))
            .await;
        assert_eq!((list.status, list.code()), (429, 1429));
        assert_eq!(list.json()["id"], "a");
        assert_eq!(list.json()["error"]["data"]["limit"], "requests");
        assert_eq!(headers(&list)[1], r#""requests";r=0;t=20"#);
        let stream = client.send(Method::GET, "").await.read().await;
        assert_eq!(stream.status, 429);
        let problem = stream.json();
        assert_eq!(problem["type"], "/errors/rate-limited");
        assert_eq!(
            (&problem["limit"], &problem["retry_after"]),
            (&json!("requests"), &json!(20))
        );
        assert_eq!(headers(&stream)[0], r#""requests";q=3;w=60"#);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_on_one_stream_hear_of_a_refusal_on_it() {
    let plan = still();
    let rig = Rig::start_with(&plan);
    let few = || json!({"requests": "3/1m"});
    let keys = [someone("anna", &few()), someone("bob", &few())].map(|one| rig.admit(one));
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2024-11-05", "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"}}});
    let ping = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});

    // The handshake is a request, too; what has no answer is not counted.
    let mut socket = Socket::open(rig.address, "/mcp", &keys[0]).await;
    for message in [&hello, &told, &ping(2), &ping(3)] {
        socket.send(message).await;
    }
    let mut answers = [
        socket.next().await,
        socket.next().await,
        socket.next().await,
    ];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert!(
        answers[..2]
            .iter()
            .all(|answer| answer["result"].is_object()),
        "{answers:?}"
    );
    assert_eq!(
        answers[2]["error"]["data"]["limit"], "requests",
        "{answers:?}"
    );

    let client = Client::silent(rig.address, &keys[1]);
    let mut stream = client.clone().at("/sse").send(Method::GET, "").await;
    let posts = client.at(&stream.data().await.unwrap());
    let mut answers = Vec::new();
    for message in [hello, told, ping(2), ping(3)] {
        assert_eq!(posts.post(&message.to_string()).await.status, 202);
        if message["id"].is_u64() {
            answers.push(stream.event().await.unwrap());
        }
    }
    assert!(
        answers[..2]
            .iter()
            .all(|answer| answer["result"].is_object()),
        "{answers:?}"
    );
    assert_eq!(answers[2]["error"]["data"]["retryAfter"], 20, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_so_many_calls_in_flight_and_gets_their_places_back() {
    let plan = still();
    let rig = Rig::start_with(&plan);
    let upstream = Upstream::modern(|seen: &Seen| {
        let waits = seen.json["params"]["arguments"]["wait"] == true;
        waits.then_some(Reply::Never)
    })
    .await;
    let served = rig.add_http("files", &upstream).await;
    let two = || json!({"concurrent": 2});
    let keys = [someone("anna", &two()), someone("bob", &two())].map(|one| rig.admit(one));
    let [anna, bob] = keys.map(|key| Client::modern(rig.address, &key));
    let waiting = || Message::call("files__echo", r#"{"wait":true}"#);
    let mut hanging = JoinSet::new();
    for _ in 0..2 {
        let (client, waiting) = (anna.clone(), waiting());
        hanging.spawn(async move { client.say(&waiting).await });
    }
    wait_for("two calls", || {
        (upstream.seen("tools/call").len() == 2).then_some(())
    })
    .await;
    let refused = call(&anna).await;
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("1"))
    );
    let policy = r#""concurrent";q=2;qu="concurrent-requests""#;
    assert_eq!(headers(&refused), [policy, r#""concurrent";r=0;t=1"#]);
    let said = "`anna` may make 2 calls at once; try again in 1 s";
    assert_eq!(refused.json()["error"]["message"], said);
    assert_eq!(call(&bob).await.status, 200);

    hanging.abort_all();
    rig.idle(&served).await;
    assert_eq!(call(&anna).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_tools_take_what_their_owner_says() {
    let plan = still();
    let rig = Rig::start_with(&plan);
    let upstream = Upstream::modern(|_| None).await;
    let terms = || {
        json!({"rate": "5/1m", "caller_rate": "3/1m",
            "tools": {"oth*": {"rate": "2/1m", "caller_rate": "1/1m"}}})
    };
    let served = rig.add_http_on("files", &upstream, limits(terms())).await;
    let plenty = || json!({"calls": "100/1m"});
    let keys = [
        someone("anna", &plenty()),
        someone("bob", &plenty()),
        someone("eve", &plenty()),
    ]
    .map(|one| rig.admit(one));
    let [anna, bob, eve] = keys.map(|key| Client::modern(rig.address, &key));
    let said = |limit: &str| Some(limit.to_owned());
    // Of the tool: one of each caller, two of all.
    assert_eq!(outcome(&anna, "files__other").await, None);
    assert_eq!(outcome(&anna, "files__other").await, said("tool-caller"));
    assert_eq!(outcome(&bob, "files__other").await, None);
    assert_eq!(outcome(&eve, "files__other").await, said("tool"));
    // Of the service: three of each caller, five of all. What was refused counts nowhere.
    assert_eq!(outcome(&anna, "files__echo").await, None);
    assert_eq!(outcome(&anna, "files__echo").await, None);
    assert_eq!(outcome(&anna, "files__echo").await, said("service-caller"));
    // Publishing the service anew gives nothing back.
    rig.limit("files", &served, limits(terms()).limits);
    assert_eq!(outcome(&bob, "files__echo").await, None);
    assert_eq!(outcome(&eve, "files__echo").await, said("service"));
    let answer = call(&eve).await;
    let message = "`files` takes 5 calls in 1m; try again in 12 s";
    assert_eq!(answer.json()["error"]["message"], message);
    assert_eq!(
        headers(&answer),
        [r#""service";q=5;w=60"#, r#""service";r=0;t=12"#]
    );
    let left = call(&bob).await;
    assert_eq!(headers(&left)[0], r#""service";q=5;w=60"#);
    plan.clock.advance(Duration::from_mins(1));
    let left = call(&eve).await;
    assert_eq!(
        headers(&left)[1],
        r#""calls";r=99;t=1"#,
        "refusals cost nothing"
    );

    rig.limit("files", &served, Limits::default());
    for _ in 0..10 {
        assert_eq!(outcome(&eve, "files__other").await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_has_so_many_calls_in_flight() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen: &Seen| {
        let waits = seen.json["params"]["arguments"]["wait"] == true;
        waits.then_some(Reply::Never)
    })
    .await;
    let terms = limits(json!({"tools": {"echo": {"concurrent": 1}}}));
    let served = rig.add_http_on("files", &upstream, terms).await;
    let client = rig.modern();
    let mut hanging = JoinSet::new();
    let caller = client.clone();
    hanging.spawn(async move { caller.call("files__echo", r#"{"wait":true}"#).await });
    wait_for("the call", || upstream.seen("tools/call").pop()).await;
    assert_eq!(
        outcome(&client, "files__echo").await.as_deref(),
        Some("tool-concurrent")
    );
    assert_eq!(outcome(&client, "files__other").await, None);
    hanging.abort_all();
    rig.idle(&served).await;
    assert_eq!(outcome(&client, "files__echo").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_counts_once_with_the_call_that_waits_for_it_and_anew_at_a_server_that_asks_anew() {
    const ASKS: &str = r#"
say({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create",
     "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}})
heard = hear()
while heard.get("method") is not None:
    heard = hear()
text("done")
"#;
    let plan = still();
    let rig = Rig::start_with(&plan);
    rig.add_stdio("old", &Script::legacy(ASKS)).await;
    let asking = Upstream::modern(|seen: &Seen| {
        let params = &seen.json["params"];
        let asked = json!({"resultType": "input_required", "requestState": "mine", "inputRequests": {
            "k": {"method": "elicitation/create", "params": {"message": "Who?",
                "requestedSchema": {"type": "object", "properties": {}}}}}});
        let asks = seen.method() == "tools/call" && params["requestState"].is_null();
        asks.then(|| Reply::Json(200, seen.result(&asked)))
    })
    .await;
    rig.add_http("new", &asking).await;
    let callers = ["anna", "bob"].map(|name| someone(name, &json!({"calls": "2/1m"})));
    let keys = callers.map(|one| rig.admit(one));
    for ((service, left), key) in [("old", 1), ("new", 0)].into_iter().zip(keys) {
        let client = Client::modern(rig.address, &key).able(r#"{"elicitation":{"form":{}}}"#);
        let first = Message::call(&format!("{service}__echo"), "{}");
        let asked = client.say(&first).await.json();
        let questions = asked["result"]["inputRequests"].as_object().unwrap();
        let answers: Vec<String> = questions
            .keys()
            .map(|key| format!(r#""{key}":{{"action":"accept","content":{{}}}}"#))
            .collect();
        let params = format!(
            r#"{},"inputResponses":{{{}}},"requestState":{}"#,
            first.params,
            answers.join(","),
            asked["result"]["requestState"]
        );
        let retry = Message::new("tools/call", &params).id("2");
        let done = client.say(&retry).await;
        assert_eq!(done.status, 200, "{}", done.text);
        assert!(done.json()["result"]["content"].is_array(), "{}", done.text);
        let counted = headers(&done)[1].split(";t=").next();
        assert_eq!(counted, Some(&*format!(r#""calls";r={left}"#)), "{service}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_a_batch_counts() {
    let plan = still();
    let rig = Rig::start_with(&plan);
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http("files", &upstream).await;
    let key = rig.admit(someone("anna", &json!({"calls": "2/1m"})));
    let client = Client::silent(rig.address, &key).opened("2025-03-26").await;
    let one = |id: u32| client.body(&Message::call("files__echo", "{}").id(&id.to_string()));
    let batch = format!("[{},{},{}]", one(1), one(2), one(3));
    let answers = client.post(&batch).await.messages();
    let refused = answers
        .iter()
        .filter(|one| one["error"]["data"]["limit"] == "calls");
    assert_eq!((answers.len(), refused.count()), (3, 1), "{answers:?}");
}
