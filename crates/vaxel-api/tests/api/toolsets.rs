//! Sets over REST.

use axum::body::Body;
use serde_json::json;

use crate::home::{As, open, request};

const SETS: &str = "/api/v1/toolsets";

#[tokio::test(flavor = "multi_thread")]
async fn a_set_goes_through_its_life_and_says_what_it_comes_to() {
    let home = open().await;
    let admin = As::admin();
    home.with_demo().await;
    let body = json!({"name": "work", "description": "For work", "services": [
        {"service": "demo", "tools": ["note_*"], "prompts": []}, {"service": "later"}]});
    let made = home.ask_with(admin, ("POST", SETS), &body).await;
    assert_eq!((made.status.as_u16(), made.header("etag")), (201, "\"1\""));
    let view = made.json();
    let location = format!("{SETS}/{}", view["id"].as_str().unwrap());
    assert_eq!(made.header("location"), location);
    assert_eq!(view["path"], "/mcp/sets/work");
    let demo = &view["services"][0];
    assert_eq!(
        (&demo["tools"], &demo["prompts"]),
        (&json!(["note_*"]), &json!([]))
    );
    assert!(demo.get("resources").is_none(), "all of them");
    assert_eq!(
        (&demo["exists"], &demo["shown"]["tools"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(demo["shown"]["prompts"], 0);
    assert_eq!(
        view["services"][1],
        json!({"service": "later", "exists": false})
    );
    let taken = home.ask_with(admin, ("POST", SETS), &body).await;
    assert_eq!(taken.status.as_u16(), 409);

    let next = json!({"name": "play", "services": [{"service": "demo"}]});
    let put = |etag: &str| {
        let request = request("PUT", &format!("{SETS}/work")).header("if-match", etag);
        let request = request.header("content-type", "application/json");
        request.body(Body::from(next.to_string())).unwrap()
    };
    let changed = home.send(admin, put("\"1\"")).await;
    assert_eq!(
        (changed.status.as_u16(), changed.header("etag")),
        (200, "\"2\"")
    );
    assert_eq!(
        home.send(admin, put("\"1\"")).await.status.as_u16(),
        404,
        "it is `play` now"
    );
    let list = home.ask(admin, "GET", SETS).await.json();
    assert_eq!(list["items"][0]["name"], "play");
    let late = request("DELETE", &location).header("if-match", "\"1\"");
    let late = home.send(admin, late.body(Body::empty()).unwrap()).await;
    assert_eq!(late.json()["type"], "/errors/version-mismatch");
    let gone = home.ask(admin, "DELETE", &location).await;
    assert_eq!((gone.status.as_u16(), gone.text()), (204, ""));
    for path in [
        &*location,
        "/api/v1/toolsets/play",
        "/api/v1/toolsets/No%20Name",
    ] {
        let gone = home.ask(admin, "GET", path).await;
        assert_eq!(gone.json()["type"], "/errors/unknown-set", "{path}");
    }
    let bad = json!({"name": "a b", "services": [{"tools": "x"}]});
    let bad = home.ask_with(admin, ("POST", SETS), &bad).await;
    let errors = bad.json()["errors"].as_array().unwrap().clone();
    let paths: Vec<&str> = errors
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["name", "services[0].service", "services[0].tools"]);
    home.control.stop().await;
}
