//! Revisions, lists and usage over HTTP.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};

use crate::home::{Answer, As, Home, open, request};

const SERVICE: &str = "/api/v1/services/demo";

async fn send(home: &Home, (method, path): (&str, &str), body: &Value) -> Answer {
    home.ask_with(As::admin(), (method, path), body).await
}

async fn get(home: &Home, path: &str) -> Value {
    let answer = home.ask(As::admin(), "GET", path).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text());
    answer.json()
}

fn draft(description: &str) -> Value {
    json!({
        "name": "demo", "enabled": false,
        "spec": { "source": { "builtin": "demo" }, "description": description }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_goes_back_to_what_was_labelled() {
    let home = open().await;
    send(
        &home,
        ("POST", "/api/v1/services?message=first"),
        &draft("good"),
    )
    .await;
    let put = send(
        &home,
        ("PUT", &format!("{SERVICE}?message=worse")),
        &draft("bad"),
    )
    .await;
    assert_eq!(put.header("etag"), "\"2\"");
    let label = format!("{SERVICE}/labels/known-good");
    let labelled = send(&home, ("PUT", &label), &json!({ "revision": 1 })).await;
    assert_eq!(
        labelled.status,
        StatusCode::NO_CONTENT,
        "{}",
        labelled.text()
    );

    let list = get(&home, &format!("{SERVICE}/revisions?limit=1")).await;
    assert_eq!(list["items"][0]["message"], "worse");
    assert_eq!(
        (&list["items"][0]["current"], &list["items"][0]["author"]),
        (&json!(true), &json!("someone"))
    );
    let cursor = list["next_cursor"].as_str().unwrap();
    let rest = get(&home, &format!("{SERVICE}/revisions?cursor={cursor}")).await;
    assert_eq!(rest["items"][0]["labels"], json!(["known-good"]));
    assert!(rest["next_cursor"].is_null());

    let diff = get(&home, &format!("{SERVICE}/diff")).await;
    assert_eq!((&diff["from"], &diff["to"]), (&json!(1), &json!(2)));
    let place = json!([{
        "path": "spec.description", "change": "changed", "old": "good", "new": "bad"
    }]);
    assert_eq!(diff["differences"], place);
    let same = get(&home, &format!("{SERVICE}/diff?from=known-good&to=1")).await;
    assert_eq!(same["differences"], json!([]));

    let stale = request("POST", &format!("{SERVICE}/rollback"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::IF_MATCH, "\"1\"")
        .body(Body::from(r#"{"to":1}"#))
        .unwrap();
    let refused = home.send(As::admin(), stale).await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    assert!(
        refused.text().contains("has version 2"),
        "{}",
        refused.text()
    );
    let path = format!("{SERVICE}/rollback?message=back");
    let back = send(&home, ("POST", &path), &json!({ "to": "known-good" })).await;
    assert_eq!(
        (back.status, back.header("etag")),
        (StatusCode::OK, "\"3\"")
    );
    assert_eq!(back.json()["spec"]["description"], "good");
    let current = get(&home, &format!("{SERVICE}/revisions/current")).await;
    assert_eq!(
        (&current["revision"], &current["action"]),
        (&json!(3), &json!("service.rollback"))
    );
    assert_eq!(
        get(&home, &format!("{SERVICE}/revisions/known-good")).await["revision"],
        1
    );
    for body in [json!({}), json!({ "to": [] }), json!({ "to": 1, "too": 2 })] {
        let refused = send(&home, ("POST", &path), &body).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    }
    let gone = home.ask(As::admin(), "DELETE", &label).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let gone = home.ask(As::admin(), "DELETE", &label).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_takes_a_message_and_a_version() {
    let home = open().await;
    send(&home, ("POST", "/api/v1/services"), &draft("x")).await;
    let ask = async |method: &str, path: &str, version: u64| {
        let request = request(method, path).header(header::IF_MATCH, format!("\"{version}\""));
        home.send(As::admin(), request.body(Body::empty()).unwrap())
            .await
    };
    let steps = [
        ("POST", "/start", 1, 202),
        ("POST", "/stop", 1, 412),
        ("POST", "/restart", 2, 202),
        ("POST", "/stop", 3, 202),
        ("DELETE", "", 3, 412),
        ("DELETE", "", 4, 200),
        ("POST", "/restore", 1, 412),
        ("POST", "/restore", 5, 202),
        ("DELETE", "", 6, 200),
        ("POST", "/purge", 6, 412),
        ("POST", "/purge", 7, 204),
    ];
    for (method, rest, version, status) in steps {
        let path = format!("{SERVICE}{rest}?message=step%20{version}");
        let answer = ask(method, &path, version).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {rest} {version}: {}",
            answer.text()
        );
    }
    let events = get(&home, "/api/v1/events?after=0&types=service.*").await;
    let told: Vec<&str> = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["message"].as_str())
        .collect();
    let all = [
        "step 1", "step 2", "step 3", "step 4", "step 5", "step 6", "step 7",
    ];
    assert_eq!(told, all);
    let unknown = home
        .ask(As::admin(), "POST", &format!("{SERVICE}/start?mesage=x"))
        .await;
    assert!(
        unknown.text().contains("did you mean `message`"),
        "{}",
        unknown.text()
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_take_every_filter_and_name_the_ones_that_there_are() {
    let home = open().await;
    home.with_demo().await;
    let mut other = draft("x");
    other["name"] = json!("other");
    other["tags"] = json!(["a", "b"]);
    send(&home, ("POST", "/api/v1/services"), &other).await;
    let names = async |query: &str| -> Vec<String> {
        let list = get(&home, &format!("/api/v1/services?{query}")).await;
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("sort=-name").await, ["other", "demo"]);
    assert_eq!(names("type=builtin&sort=created").await, ["demo", "other"]);
    assert_eq!(names("status=active&tool=ech*").await, ["demo"]);
    assert_eq!(names("tag=a,b&owner=someone").await, ["other"]);
    assert_eq!(names("tag=a,c").await, Vec::<String>::new());
    for (query, said) in [
        ("colour=red", "known are"),
        ("state=active&status=active", "another word for `state`"),
        ("sort=size", "one of name"),
    ] {
        let refused = home
            .ask(As::admin(), "GET", &format!("/api/v1/services?{query}"))
            .await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        assert!(refused.text().contains(said), "{}", refused.text());
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_adds_up_what_was_called() {
    let home = open().await;
    home.with_demo().await;
    let call = json!({ "arguments": { "message": "x" } });
    for _ in 0..2 {
        let called = send(&home, ("POST", "/api/v1/tools/demo__echo/call"), &call).await;
        assert_eq!(called.status, StatusCode::OK, "{}", called.text());
    }
    let counted = tokio::time::timeout(std::time::Duration::from_mins(1), async {
        while get(&home, "/api/v1/usage").await["total"]["calls"] != 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    counted.await.expect("the calls are summed up");
    let all = get(&home, "/api/v1/usage?by=day").await;
    assert_eq!(
        (&all["by"], &all["services"][0]["name"]),
        (&json!("day"), &json!("demo"))
    );
    let one = get(&home, &format!("{SERVICE}/usage")).await;
    assert_eq!(
        (&one["tools"][0]["name"], &one["tools"][0]["calls"]),
        (&json!("echo"), &json!(2))
    );
    assert_eq!(one["total"]["callers"], 1);
    assert!(one["total"]["p99_ms"].as_f64() >= one["total"]["p50_ms"].as_f64());
    for query in [
        "by=week",
        "from=yesterday",
        "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z",
    ] {
        let refused = home
            .ask(As::admin(), "GET", &format!("/api/v1/usage?{query}"))
            .await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    home.control.stop().await;
}
