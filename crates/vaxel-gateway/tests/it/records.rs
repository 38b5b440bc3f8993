//! What every call leaves behind, and which calls are possible at all.

use std::time::Duration;

use serde_json::json;
use vaxel_core::{
    call::{Door, Outcome},
    principal::Principal,
    quantity::Span,
    role::BuiltIn,
    service::{Limits, ToolFilter},
};
use vaxel_gateway::{Keep, ToolCall, Tunables, Unavailable};

use crate::harness::{Plan, Reply, Rig, Seen, Terms, Upstream, client::Message, upstream::error};

/// Ends a call as its argument `end` says.
fn ends(seen: &Seen) -> Option<Reply> {
    let end = seen.json["params"]["arguments"]["end"].as_str()?;
    Some(match end {
        "tool_error" => Reply::Json(
            200,
            seen.result(&json!({
                "content": [{"type": "text", "text": "disk full"}],
                "isError": true, "resultType": "complete",
            })),
        ),
        "error" => Reply::Json(200, error(seen, -32603, "it broke")),
        "timeout" => Reply::Never,
        "unavailable" => Reply::Json(503, String::new()),
        _ => Reply::Json(200, seen.say("fine")),
    })
}

/// The limits of a service, whose deadline is short where a call is to miss it.
fn limits(end: &str) -> Limits {
    Limits {
        timeout: (end == "timeout").then_some(Span(Duration::from_secs(1))),
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_leaves_one_record_of_who_called_what_and_how_it_ended() {
    let rig = Rig::start();
    let modern = Upstream::modern(ends).await;
    let legacy = Upstream::legacy(ends).await;
    let served = [
        rig.add_http("m", &modern).await,
        rig.add_http("l", &legacy).await,
    ];
    let names = [
        (&rig.modern(), "2026-07-28"),
        (&rig.legacy().await, "2025-11-25"),
    ];
    for (client, client_revision) in names {
        for (tool, upstream_revision) in [("m__echo", "2026-07-28"), ("l__echo", "2025-11-25")] {
            for (end, outcome, words) in [
                ("ok", Outcome::Ok, None),
                ("tool_error", Outcome::ToolError, Some("disk full")),
                ("error", Outcome::Error, Some("it broke")),
                ("timeout", Outcome::Timeout, Some("in time")),
                ("unavailable", Outcome::Unavailable, Some("overloaded")),
            ] {
                for (name, one) in ["m", "l"].into_iter().zip(&served) {
                    rig.limit(name, one, limits(end));
                }
                let message = Message::call(tool, &format!(r#"{{"end":"{end}"}}"#));
                let size = client.body(&message).len();
                client.say(&message).await;
                let record = rig.record().await;
                assert_eq!(record.outcome, outcome, "{end}");
                assert_eq!((record.method, &*record.target), ("tools/call", "echo"));
                assert_eq!(record.service_name.as_str(), &tool[..1]);
                assert_eq!(record.client_revision, client_revision);
                assert_eq!(record.upstream_revision, upstream_revision);
                assert_eq!(
                    (record.door, &*record.principal_name),
                    (Door::Mcp, "someone")
                );
                assert!(record.principal.is_some());
                assert_eq!(record.request_bytes, size as u64);
                assert_eq!(
                    record.response_bytes > 0,
                    matches!(end, "ok" | "tool_error" | "error")
                );
                assert_eq!((record.request, record.response), (None, None));
                let error = record.error.as_deref();
                assert_eq!(error.is_some(), words.is_some(), "{end}: {error:?}");
                assert!(
                    error
                        .unwrap_or_default()
                        .contains(words.unwrap_or_default()),
                    "{error:?}"
                );
            }
        }
    }
    assert_eq!(rig.records().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_calls_that_reach_no_service_leave_no_record() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    rig.add_http("up", &upstream).await;
    let client = rig.modern();
    client.tools().await;
    client.call("up__none", "{}").await;
    client.say(&Message::new("server/discover", "")).await;
    client.call("up__echo", "{}").await;
    assert_eq!(rig.record().await.outcome, Outcome::Ok);
    assert_eq!(rig.records().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_nobody_takes_are_counted_and_hold_nothing_up() {
    let plan = Plan {
        records: 2,
        ..Plan::default()
    };
    let rig = Rig::start_with(&plan);
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    for _ in 0..5 {
        let answer = rig.modern().call("up__echo", "{}").await;
        assert!(answer["result"].is_object(), "{answer}");
    }
    assert_eq!(rig.gateway.records_lost(), 3);
    assert_eq!(rig.records().len(), 2);
    assert_eq!(rig.gateway.load(served.id).calls, 5);
    rig.modern().call("up__echo", "{}").await;
    assert_eq!(rig.records().len(), 1, "there is room again");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_keep_what_the_configuration_says_and_no_more() {
    let rig = Rig::start();
    let upstream = Upstream::modern(ends).await;
    rig.add_http("up", &upstream).await;
    let web = vaxel_auth::web::WebRules::new(rig.address, &[]).unwrap();
    let call = || async {
        rig.modern()
            .call("up__echo", r#"{"end":"ok","secret":"äöü"}"#)
            .await;
        rig.record().await
    };
    let mut tunables = Tunables::new(web);
    tunables.keep = Keep::All;
    rig.gateway.tune(tunables.clone());
    let record = call().await;
    assert_eq!(
        record.request.as_deref(),
        Some(r#"{"end":"ok","secret":"äöü"}"#.as_bytes())
    );
    assert!(record.response.is_some());
    tunables.keep = Keep::Parameters;
    tunables.keep_max = 23;
    rig.gateway.tune(tunables.clone());
    let record = call().await;
    assert_eq!(
        record.request.as_deref(),
        Some(r#"{"end":"ok","secret":""#.as_bytes())
    );
    assert_eq!(record.response, None);
    tunables.records = false;
    rig.gateway.tune(tunables);
    rig.modern().call("up__echo", "{}").await;
    assert_eq!(rig.records().len(), 0);
    assert_eq!(rig.gateway.records_lost(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_hides_tools_and_refuses_them() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let filter = |allow: Option<&[&str]>, deny: &[&str]| Terms {
        tools: ToolFilter {
            allow: allow.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
            deny: deny.iter().map(|&name| name.to_owned()).collect(),
        },
        ..Terms::default()
    };
    rig.add_http_on("allow", &upstream, filter(Some(&["ec*"]), &[]))
        .await;
    rig.add_http_on("deny", &upstream, filter(None, &["other"]))
        .await;
    let none = rig
        .add_http_on("none", &upstream, filter(Some(&["*"]), &["*"]))
        .await;
    for client in [rig.modern(), rig.legacy().await] {
        assert_eq!(client.tools().await, ["allow__echo", "deny__echo"]);
        assert_eq!(client.clone().at("/mcp/deny").tools().await, ["echo"]);
        for hidden in ["allow__other", "deny__other", "none__echo"] {
            let answer = client.say(&Message::call(hidden, "{}")).await;
            assert_eq!(answer.code(), -32602, "{hidden}");
        }
        let single = client.clone().at("/mcp/deny");
        assert_eq!(
            single.say(&Message::call("other", "{}")).await.code(),
            -32602
        );
        let seen = client.call("deny__echo", "{}").await;
        assert!(seen["result"].is_object(), "{seen}");
    }
    let rest = rig.gateway.call(ToolCall {
        principal: Principal::system(),
        service: none.id,
        tool: "echo".to_owned(),
        arguments: "{}".into(),
        timeout: None,
    });
    assert!(
        rest.await
            .unwrap_err()
            .to_string()
            .contains("no tool `echo`")
    );
    assert_eq!(upstream.seen("tools/call").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_through_the_other_door_is_recorded_as_such() {
    let rig = Rig::start();
    let upstream = Upstream::legacy(ends).await;
    let served = rig.add_http("up", &upstream).await;
    let call = |arguments: &'static str| {
        rig.gateway.call(ToolCall {
            principal: Principal {
                permissions: BuiltIn::Admin.permissions(),
                ..Principal::system()
            },
            service: served.id,
            tool: "echo".to_owned(),
            arguments: arguments.into(),
            timeout: None,
        })
    };
    let reply = call(r#"{"end":"tool_error"}"#).await.unwrap();
    assert!(reply.is_error);
    let record = rig.record().await;
    assert_eq!(
        (record.id, record.outcome),
        (reply.call_id, Outcome::ToolError)
    );
    assert_eq!((record.door, record.client_revision), (Door::Rest, ""));
    rig.limit("up", &served, limits("timeout"));
    let failure = call(r#"{"end":"timeout"}"#).await.unwrap_err();
    assert!(failure.to_string().contains("in time"), "{failure}");
    assert_eq!(rig.record().await.outcome, Outcome::Timeout);
    let refused = call("[1]").await.unwrap_err();
    assert!(
        refused.to_string().contains("must be a JSON object"),
        "{refused}"
    );
    assert_eq!(rig.records().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_there_is_listed_and_says_why_it_takes_no_calls() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    let why = Unavailable::Because("it is being restarted".to_owned());
    let catalog = Some(served.catalog.clone());
    rig.put("up", &served, catalog, Some(why.clone()));
    let client = rig.modern();
    assert_eq!(client.tools().await, ["up__echo", "up__other"]);
    let answer = client.say(&Message::call("up__echo", "{}")).await;
    assert!(
        answer.text.contains("it is being restarted"),
        "{}",
        answer.text
    );
    assert_eq!(answer.header("retry-after"), Some("5"));
    let record = rig.record().await;
    assert_eq!(
        (record.outcome, record.upstream_revision),
        (Outcome::Unavailable, "")
    );
    rig.put("up", &served, None, Some(why));
    assert_eq!(client.tools().await, Vec::<String>::new());
    let single = client
        .clone()
        .at("/mcp/up")
        .say(&Message::call("echo", "{}"))
        .await;
    assert!(
        single.text.contains("it is being restarted"),
        "{}",
        single.text
    );
    rig.gateway.withdraw(served.id);
    assert_eq!(
        client
            .at("/mcp/up")
            .say(&Message::call("echo", "{}"))
            .await
            .status,
        404
    );
}
