//! The feed of changes over HTTP.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};
use vaxel_core::principal::{Permission, Permissions};

use crate::home::{As, Home, Stream, open, request};

async fn create(home: &Home, name: &str) {
    let draft = json!({
        "name": name, "enabled": false, "spec": { "source": { "builtin": "demo" } }
    });
    let path = "/api/v1/services?message=for%20the%20feed";
    let made = home.ask_with(As::admin(), ("POST", path), &draft).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
}

/// The stream, and where it begins.
async fn follow(home: &Home, path: &str, last: Option<u64>) -> (Stream, u64) {
    let mut request = request("GET", path).header(header::ACCEPT, "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut stream = home
        .stream(As::admin(), request.body(Body::empty()).unwrap())
        .await;
    let first = stream.next().await;
    let id = first
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .unwrap_or_else(|| panic!("{first}"));
    (stream, id.parse().unwrap())
}

/// Id, type and data of the next event.
async fn event(stream: &mut Stream) -> (String, String, Value) {
    let text = stream.next().await;
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().to_owned()
    };
    let data = serde_json::from_str(&field("data")).unwrap_or_else(|_| panic!("{text}"));
    (field("id"), field("event"), data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_with_every_change_and_is_taken_up_by_its_number() {
    let home = open().await;
    let (mut live, begin) = follow(&home, "/api/v1/events?types=service.create", None).await;
    for name in ["one", "two"] {
        create(&home, name).await;
    }
    let (id, kind, data) = event(&mut live).await;
    assert_eq!(
        (id, kind.as_str()),
        ((begin + 1).to_string(), "service.create")
    );
    assert_eq!(
        (&data["number"], &data["type"]),
        (&json!(begin + 1), &json!("service.create"))
    );
    assert_eq!(
        (&data["name"], &data["by"]),
        (&json!("one"), &json!("someone"))
    );
    assert_eq!(
        (&data["message"], &data["detail"]["version"]),
        (&json!("for the feed"), &json!(1))
    );
    assert_eq!(event(&mut live).await.2["name"], "two");

    let by_header = follow(
        &home,
        "/api/v1/events?after=0&types=*.create",
        Some(begin + 1),
    )
    .await;
    let by_query = follow(
        &home,
        &format!("/api/v1/events?after={}&types=*.create", begin + 1),
        None,
    )
    .await;
    let filtered = follow(
        &home,
        "/api/v1/events?after=0&types=key.*,service.c*",
        Some(begin + 1),
    )
    .await;
    for (mut stream, _) in [by_header, by_query, filtered] {
        assert_eq!(event(&mut stream).await.2["name"], "two");
    }
    let (mut lost, _) = follow(&home, "/api/v1/events", Some(9_999)).await;
    let (id, kind, data) = event(&mut lost).await;
    assert_eq!((id, kind.as_str()), (data["newest"].to_string(), "reset"));
    assert!(data["newest"].as_u64() >= Some(begin + 2), "{data}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_a_sentence_when_the_server_does() {
    let home = open().await;
    let (mut stream, _) = follow(&home, "/api/v1/events", None).await;
    let ((_, kind, data), ()) = tokio::join!(event(&mut stream), home.control.stop());
    assert_eq!(kind, "end");
    assert_eq!(data["reason"], "The server is ending");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_lead_from_any_number_to_the_newest_change() {
    let home = open().await;
    for name in ["a", "b", "c"] {
        create(&home, name).await;
    }
    let page = async |query: &str| {
        let answer = home
            .ask(As::admin(), "GET", &format!("/api/v1/events{query}"))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    };
    let newest = page("?types=service.create&limit=2").await;
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&newest), ["b", "c"]);
    assert_eq!(newest["next_after"], newest["newest"]);
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let one = page(&format!("?after={after}&limit=2&types=*.create")).await;
        assert_eq!(one["reset"], false);
        after = one["next_after"].as_u64().unwrap();
        if one["items"] == json!([]) {
            break;
        }
        all.extend(names(&one));
    }
    // The first user and its key, then what was created here.
    assert_eq!(all, ["admin", "admin", "a", "b", "c"]);
    assert_eq!(page("?after=77").await["reset"], true);

    let reader = As::With(Permissions::of(&[Permission::McpRead]));
    let seen = home
        .ask(reader, "GET", "/api/v1/events?after=0&types=*.create")
        .await
        .json();
    assert_eq!(names(&seen), ["a", "b", "c"], "keys are not for everyone");
    for query in ["?limit=0", "?after=x", "?typ=x"] {
        let refused = home
            .ask(As::admin(), "GET", &format!("/api/v1/events{query}"))
            .await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    let odd = request("GET", "/api/v1/events").header("last-event-id", "x");
    let refused = home
        .send(As::admin(), odd.body(Body::empty()).unwrap())
        .await;
    assert_eq!(refused.json()["errors"][0]["path"], "Last-Event-ID");
    home.control.stop().await;
}
