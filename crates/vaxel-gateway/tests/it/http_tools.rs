//! Services that speak HTTP and no MCP: their tools, their answers, and calls shared over instances.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::{Value, json, value::to_raw_value};
use tokio::task::JoinSet;
use vaxel_core::{
    balance::Balance,
    call::Outcome,
    failure::{Failure, Kind},
    id::Id,
    secret::Secret,
    service::{EraChoice, Limits, ToolFilter, Validate},
    time::Clock,
};
use vaxel_gateway::{Config, ConnectTarget, Link, ServiceEntry, Transport};

use crate::harness::{
    PATIENCE, Plan, Reply, Rig, Seen, Served, Terms, Upstream, about, client::Message, wait_for,
};

/// A service behind `/api` whose tools say what they were told, or answer as their name says.
fn shop(seen: &Seen) -> Reply {
    match seen.path.as_str() {
        "/health" => Reply::Json(200, "{}".to_owned()),
        "/api/tools/sum" => Reply::Plain(200, "application/json", b"{\"sum\":1.0}"),
        "/api/tools/say" => Reply::Plain(200, "text/plain", b"hello"),
        "/api/tools/paint" => Reply::Plain(200, "image/png", b"\x89P"),
        "/api/tools/refuse" => {
            let said = r#"{"detail":[{"loc":["body","to"],"msg":"Field required"}]}"#;
            Reply::Json(422, said.to_owned())
        }
        "/api/tools/fail" => Reply::Plain(500, "text/html", b"<h1>secret stack</h1>"),
        "/api/tools/move" => Reply::Plain(307, "text/plain", b""),
        "/api/tools/lie" => Reply::Plain(200, "application/json", b"<p>"),
        "/api/tools/hang" => Reply::Never,
        "/api/tools/big" => Reply::Json(200, format!("\"{}\"", "x".repeat(9_000))),
        "/api/tools/mcp" => {
            let own = json!({"content": [{"type": "text", "text": "mine"}], "isError": true});
            Reply::Json(200, own.to_string())
        }
        _ => Reply::Json(404, r#"{"detail":"Not Found"}"#.to_owned()),
    }
}

const TOOLS: [&str; 10] = [
    "sum", "say", "paint", "refuse", "fail", "move", "lie", "hang", "big", "mcp",
];

fn transport(upstream: &Upstream, tools: &[Value]) -> Transport {
    let at = |path: &str| upstream.url().join(path).unwrap();
    let headers = [(
        "Authorization".to_owned(),
        Secret::new("Bearer k".to_owned()),
    )];
    Transport::Tools {
        base: at("/api"),
        health: Some(at("/health")),
        headers: headers.into(),
        tools: tools
            .iter()
            .map(|tool| to_raw_value(tool).unwrap())
            .collect(),
    }
}

fn open_tools() -> Vec<Value> {
    let open = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
    TOOLS.iter().map(open).collect()
}

async fn served(rig: &Rig, upstream: &Upstream) -> Served {
    let transport = transport(upstream, &open_tools());
    let added = rig.add("shop", transport, Terms::default()).await;
    added.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_called_with_the_arguments_as_they_came() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    served(&rig, &upstream).await;
    let arguments = r#"{"a": 1.0,"b":"\u00e9", "c":[ ]}"#;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let meta = format!(r#""traceparent":"{trace}","baggage":"a=b","tracestate":7"#);
    for client in [rig.modern(), rig.legacy().await] {
        let message = Message::call("shop__sum", arguments).meta(&meta);
        let answer = client.say(&message).await;
        let result = &answer.json()["result"];
        assert_eq!(
            result["structuredContent"],
            json!({"sum": 1.0}),
            "{}",
            answer.text
        );
        assert_eq!(result["content"][0]["text"], r#"{"sum":1.0}"#);
        assert_eq!(result.get("resultType").is_some(), client.modern);
        assert!(answer.text.contains(r#""structuredContent":{"sum":1.0}"#));
        let record = rig.record().await;
        assert_eq!((record.outcome, &*record.target), (Outcome::Ok, "sum"));
        let seen = upstream.seen("").pop().unwrap();
        assert_eq!(
            (seen.verb.as_str(), &*seen.path),
            ("POST", "/api/tools/sum")
        );
        assert_eq!(seen.text, arguments);
        assert_eq!(seen.header("authorization"), Some("Bearer k"));
        assert_eq!(seen.header("content-type"), Some("application/json"));
        assert_eq!(seen.header("x-request-id"), Some(&*record.id.to_string()));
    }
    let without = rig
        .modern()
        .say(&Message::new("tools/call", r#""name":"shop__sum""#))
        .await;
    assert!(without.json()["result"].is_object(), "{}", without.text);
    assert_eq!(upstream.seen("").pop().unwrap().text, "{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_call_goes_with_it() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    served(&rig, &upstream).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let meta = format!(r#""traceparent":"{trace}","tracestate":"v=1","baggage":"a=b""#);
    let message = Message::call("shop__say", "{}").meta(&meta);
    rig.modern().say(&message).await;
    let seen = upstream.seen("").pop().unwrap();
    let headers = ["traceparent", "tracestate", "baggage"].map(|name| seen.header(name));
    assert_eq!(headers, [Some(trace), Some("v=1"), Some("a=b")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_service_is_one_of_its_tool() {
    let rig = Rig::start_with(&Plan {
        config: Config {
            response_max: 4_096,
            ..Plan::default().config
        },
        ..Plan::default()
    });
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    served(&rig, &upstream).await;
    let client = rig.modern();
    assert_eq!(client.tools().await.len(), TOOLS.len());
    let call = async |tool: &str| client.call(&format!("shop__{tool}"), "{}").await;
    assert_eq!(call("say").await["result"]["content"][0]["text"], "hello");
    let painted = call("paint").await;
    assert_eq!(
        painted["result"]["content"],
        json!([{"type": "image", "data": "iVA=", "mimeType": "image/png"}])
    );
    let own = call("mcp").await;
    assert_eq!(own["result"]["content"][0]["text"], "mine");
    assert_eq!(own["result"]["isError"], true);
    let refused = call("refuse").await;
    assert_eq!(refused["result"]["isError"], true);
    assert_eq!(
        refused["result"]["content"][0]["text"],
        "`shop` refuses the call (422 Unprocessable Entity): body.to: Field required"
    );
    for (tool, part) in [
        (
            "fail",
            "`shop` could not answer (500 Internal Server Error)",
        ),
        ("move", "check its `base_path`"),
        ("lie", "it says that it is JSON, and is not"),
        ("big", "larger than 4096 bytes"),
    ] {
        let answer = call(tool).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "{answer}");
        assert!(!message.contains("stack"), "{answer}");
    }
    let outcomes: Vec<Outcome> = rig.records().iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes[4], Outcome::Unavailable, "{outcomes:?}");
    assert_eq!(outcomes[3], Outcome::ToolError, "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_schema_is_what_calls_are_checked_against() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    let tool = json!({"name": "sum", "title": "Sum", "inputSchema": {"type": "object",
        "required": ["to"], "properties": {"to": {"type": "integer"}}},
        "outputSchema": {"type": "object", "properties": {"sum": {"type": "string"}}}});
    let terms = |validate| Terms {
        validate,
        ..Terms::default()
    };
    let transport = || transport(&upstream, std::slice::from_ref(&tool));
    rig.add("shop", transport(), terms(Validate::Arguments))
        .await
        .unwrap();
    rig.add("strict", transport(), terms(Validate::All))
        .await
        .unwrap();
    let client = rig.modern();
    let wrong = client.call("shop__sum", r#"{"to":"x"}"#).await;
    let said = wrong["result"]["content"][0]["text"].as_str().unwrap();
    assert!(said.contains("/to must be a whole number"), "{said}");
    assert!(
        upstream
            .seen("")
            .iter()
            .all(|seen| seen.path != "/api/tools/sum")
    );
    let right = client.call("shop__sum", r#"{"to":1}"#).await;
    assert!(right["result"]["structuredContent"].is_object(), "{right}");
    let broken = client.call("strict__sum", r#"{"to":1}"#).await;
    assert!(
        broken["error"]["message"]
            .as_str()
            .unwrap()
            .contains("output schema"),
        "{broken}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_tools_has_an_empty_list() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    let added = rig
        .add("bare", transport(&upstream, &[]), Terms::default())
        .await;
    let served = added.unwrap();
    assert!(served.catalog.tools.is_empty());
    assert_eq!(rig.modern().tools().await, Vec::<String>::new());
    assert_eq!(
        rig.legacy().await.at("/mcp/bare").tools().await,
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_the_call() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    served(&rig, &upstream).await;
    let client = rig.modern();
    let mut calls = JoinSet::new();
    calls.spawn(async move { client.say(&Message::call("shop__hang", "{}")).await });
    wait_for("the call to arrive", || {
        let seen = upstream.seen("");
        let is_there = seen.iter().any(|seen| seen.path == "/api/tools/hang");
        is_there.then_some(())
    })
    .await;
    calls.shutdown().await;
    wait_for("the service to be left", || {
        (upstream.left() == 1).then_some(())
    })
    .await;
    assert_eq!(rig.record().await.outcome, Outcome::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_is_given_up_at_the_deadline() {
    let rig = Rig::start_with(&Plan {
        call_timeout: Duration::from_millis(200),
        ..Plan::default()
    });
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    served(&rig, &upstream).await;
    let answer = rig.modern().call("shop__hang", "{}").await;
    assert!(answer["error"].is_object(), "{answer}");
    assert_eq!(rig.record().await.outcome, Outcome::Timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_says_it_does_not_work_is_not_reached() {
    let rig = Rig::start();
    let sick = Upstream::modern(|seen| {
        (seen.path == "/health").then(|| Reply::Json(503, "{}".to_owned()))
    })
    .await;
    let added = rig
        .add("sick", transport(&sick, &[]), Terms::default())
        .await;
    let failure: Failure = added.err().unwrap();
    assert_eq!(failure.kind, Kind::UpstreamUnavailable);
    assert!(
        failure
            .detail
            .contains("says at /health that it does not work"),
        "{failure}"
    );
    // Without a path to ask, taking a connection is enough.
    let Transport::Tools {
        base,
        headers,
        tools,
        ..
    } = transport(&sick, &[])
    else {
        unreachable!()
    };
    let bare = Transport::Tools {
        base,
        health: None,
        headers,
        tools,
    };
    let served = rig.add("bare", bare, Terms::default()).await.unwrap();
    served.link.ping(PATIENCE).await.unwrap();
}

/// Instances of one service, by what they call themselves.
struct Many {
    upstreams: Vec<Upstream>,
    served: Served,
    links: Vec<Link>,
}

/// Instances of these weights, which say which one they are.
async fn many(rig: &Rig, weights: &[u16], balance: Balance) -> Many {
    let id = Id::new(Clock::system().now());
    let (mut upstreams, mut links) = (Vec::new(), Vec::new());
    for (index, weight) in weights.iter().enumerate() {
        let name = ["\"a\"", "\"b\"", "\"c\""][index];
        let upstream = Upstream::modern(move |seen| match seen.path.as_str() {
            "/api/tools/say" => Some(Reply::Json(200, name.to_owned())),
            _ => Some(shop(seen)),
        })
        .await;
        let target = ConnectTarget {
            introduced: None,
            service: id,
            name: "shop".parse().unwrap(),
            era: EraChoice::default(),
            transport: transport(&upstream, &open_tools()),
        };
        let link = rig.gateway.connect(target).await.unwrap();
        links.push(link.placed(*weight, index as u64));
        upstreams.push(upstream);
    }
    let catalog = Arc::new(links[0].catalog().await.unwrap());
    let served = Served {
        id,
        link: links[0].clone(),
        catalog,
    };
    let many = Many {
        upstreams,
        served,
        links,
    };
    many.publish(rig, balance);
    many
}

impl Many {
    fn publish(&self, rig: &Rig, balance: Balance) {
        rig.gateway.publish(ServiceEntry {
            id: self.served.id,
            name: "shop".parse().unwrap(),
            limits: Limits::default(),
            tools: ToolFilter::default(),
            validate: Validate::None,
            catalog: Some(Arc::clone(&self.served.catalog)),
            links: self.links.clone(),
            balance,
            about: about(),
            unavailable: None,
        });
    }
}

/// Calls until none is lost on a kept connection: that its other end is closed is known a moment after. Who
/// finds that out is lost, since the request may have arrived.
async fn closing_felt(rig: &Rig) {
    let client = rig.modern();
    let mut in_a_row = 0;
    // Twice each instance.
    while in_a_row < 4 {
        let answer = client.call("shop__say", "{}").await;
        let is_lost = answer["error"]["data"]["problem"] == "upstream-lost";
        in_a_row = if is_lost { 0 } else { in_a_row + 1 };
    }
    rig.records();
}

/// Which instances answered so many calls, one after the other.
async fn answers(rig: &Rig, calls: usize) -> HashMap<String, usize> {
    let client = rig.modern();
    let mut answers = HashMap::new();
    for _ in 0..calls {
        let answer = client.call("shop__say", "{}").await;
        let text = answer["result"]["content"][0]["text"].as_str();
        let text = text.unwrap_or_else(|| panic!("{answer}"));
        *answers.entry(text.to_owned()).or_default() += 1;
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_shared_as_the_service_says() {
    let rig = Rig::start();
    let many = many(&rig, &[1, 3], Balance::RoundRobin).await;
    let of = |a: usize, b: usize| HashMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
    assert_eq!(answers(&rig, 8).await, of(4, 4));
    many.publish(&rig, Balance::Weighted);
    let shares = answers(&rig, 40).await;
    // The one that came a moment earlier has a little more of its share.
    assert!((8..=14).contains(&shares["a"]), "{shares:?}");
    many.publish(&rig, Balance::ConsistentHash);
    assert_eq!(answers(&rig, 8).await.len(), 1);
    many.publish(&rig, Balance::PeakEwma);
    answers(&rig, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_instance_gets_less() {
    let rig = Rig::start();
    let many = many(&rig, &[1, 1], Balance::LeastConnections).await;
    let client = rig.modern();
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let client = client.clone();
        waiting.spawn(async move { client.call("shop__hang", "{}").await });
    }
    wait_for("each instance to hang with a call", || {
        let busy = many.links.iter().all(|link| link.in_flight() == 1);
        busy.then_some(())
    })
    .await;
    assert_eq!(answers(&rig, 6).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_when_an_instance_dies_and_say_so_when_all_have() {
    let rig = Rig::start();
    for balance in [Balance::RoundRobin, Balance::PeakEwma] {
        let mut many = many(&rig, &[1, 1], balance).await;
        let gone = many.links[0].clone();
        let mut told = JoinSet::new();
        told.spawn(async move { gone.closed().await });
        answers(&rig, 4).await;
        many.upstreams[0].die().await;
        closing_felt(&rig).await;
        let left = answers(&rig, 10).await;
        assert_eq!(left, HashMap::from([("b".to_owned(), 10)]));
        // It is tried again when its last figures are old enough, and only then found to be gone.
        let mut outcomes: Vec<Outcome> = Vec::new();
        let noticing = async {
            loop {
                // There may be many until then: they are not to fill the queue of records.
                outcomes.extend(rig.records().iter().map(|record| record.outcome));
                if let Some(told) = told.try_join_next() {
                    return told.unwrap();
                }
                assert!(answers(&rig, 1).await.contains_key("b"));
            }
        };
        let reason = tokio::time::timeout(PATIENCE, noticing).await.unwrap();
        assert!(reason.contains("cannot connect to"), "{reason}");
        many.upstreams[1].die().await;
        closing_felt(&rig).await;
        let answer = rig.modern().say(&Message::call("shop__say", "{}")).await;
        assert!(
            answer.text.contains("check that it runs and listens there"),
            "{}",
            answer.text
        );
        assert_eq!(answer.header("retry-after"), Some("5"));
        many.upstreams[0].come_back().await;
        assert_eq!(answers(&rig, 2).await.len(), 1);
        outcomes.extend(rig.records().iter().map(|record| record.outcome));
        outcomes.retain(|one| *one != Outcome::Ok);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_may_have_arrived_is_not_repeated() {
    let rig = Rig::start();
    let many = many(&rig, &[1, 1], Balance::RoundRobin).await;
    let failed = rig.modern().call("shop__fail", "{}").await;
    assert!(failed["error"].is_object(), "{failed}");
    let asked = many.upstreams.iter().map(|one| {
        let seen = one.seen("");
        seen.iter()
            .filter(|seen| seen.path == "/api/tools/fail")
            .count()
    });
    assert_eq!(asked.sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_again_and_again_is_left_alone_for_a_while() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|seen| Some(shop(seen))).await;
    served(&rig, &upstream).await;
    let client = rig.modern();
    for _ in 0..10 {
        client.call("shop__fail", "{}").await;
    }
    let answer = client.call("shop__say", "{}").await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("did not answer its last 10 calls"),
        "{message}"
    );
}
