//! Many services in one document, over REST.

use serde_json::{Value, json};

use crate::home::{As, open};

const APPLY: &str = "/api/v1/apply";
const SERVICES: &str = "/api/v1/services";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_applied_as_it_stands_in_either_form() {
    let home = open().await;
    let admin = As::admin();
    let web = json!({"name": "web", "enabled": false, "tags": ["x"], "environment": "prod", "spec": {
        "title": "The Web", "tools": {"allow": []}, "balance": "least_connections", "lease": "1h",
        "source": {"mcp": {"url": "http://127.0.0.1:9/mcp", "headers": {"x-key": "hidden"}}}}});
    let shop = json!({"name": "shop", "enabled": false, "spec": {
        "source": {"http": {"instances": [{"host": "127.0.0.1", "port": 9}]}}}});
    let demo = json!({"name": "demo", "spec": {"source": {"builtin": "demo"}}});
    let document = json!({"vaxel": 1, "services": [web, shop, demo]});
    let planned = home
        .ask_with(admin, ("POST", "/api/v1/apply?dry_run=true"), &document)
        .await;
    assert_eq!(planned.json()["dry_run"], true);
    assert!(!planned.text().contains("hidden"), "{}", planned.text());
    let none = home.ask(admin, "GET", SERVICES).await.json();
    assert_eq!(none["items"], json!([]));
    let applied = home.ask_with(admin, ("POST", APPLY), &document).await;
    assert_eq!(applied.status.as_u16(), 200, "{}", applied.text());
    assert_eq!(applied.json()["steps"].as_array().unwrap().len(), 3);

    let whole = home.ask(admin, "GET", "/api/v1/export").await;
    assert!(!whole.text().contains("hidden"), "{}", whole.text());
    let whole = whole.json();
    let names: Vec<&Value> = whole["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["demo", "shop", "web"]);
    assert_eq!(
        (&whole["toolsets"], &whole["templates"]),
        (&json!([]), &json!([]))
    );
    let older = home
        .ask(admin, "GET", "/api/v1/export?form=stage6")
        .await
        .json();
    for body in [&whole, &older] {
        let again = home.ask_with(admin, ("POST", APPLY), body).await.json();
        for step in again["steps"].as_array().unwrap() {
            assert_eq!(step["action"], "unchanged", "{step}\n{body}");
        }
    }
    // What is read in that form can be sent back at the service's own path, too.
    let path = format!("{SERVICES}/web");
    let shown = home
        .ask(admin, "GET", &format!("{path}?form=stage6"))
        .await
        .json();
    assert_eq!(
        (&shown["name"], &shown["service_name"]),
        (&json!("The Web"), &json!("web"))
    );
    let put = home.ask_with(admin, ("PUT", &path), &shown).await;
    assert_eq!(put.status.as_u16(), 200, "{}", put.text());
    assert_eq!(put.json()["service_name"], "web");
    let kept = home.ask(admin, "GET", &path).await.json();
    assert_eq!(
        kept["spec"]["tools"]["allow"],
        json!([]),
        "none, and not all"
    );
    assert_eq!(kept["revision"], 1, "nothing differs");

    let some = home
        .ask(admin, "GET", "/api/v1/export?services=web,demo,web")
        .await
        .json();
    assert_eq!(some["services"].as_array().unwrap().len(), 2);
    assert!(some.get("toolsets").is_none());
    home.ask(admin, "DELETE", &path).await;
    let archive = home
        .ask(admin, "GET", "/api/v1/export?deleted=true&form=stage6")
        .await
        .json();
    assert_eq!(archive["services"][0]["service_name"], "web");
    let both = home
        .ask(admin, "GET", "/api/v1/export?deleted=true&services=web")
        .await;
    assert_eq!(both.json()["errors"][0]["path"], "deleted");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_is_named_at_its_place_and_nothing_is_written() {
    let home = open().await;
    let admin = As::admin();
    let document = json!({"vaxel": 1, "services": [
        {"name": "fine", "spec": {"source": {"builtin": "demo"}}},
        {"name": "old", "type": "function", "hosting_mode": "stdio", "config": {"runtime": {"replicas": 0}}},
        {"name": "fine", "spec": {"source": {"builtin": "dmo"}}},
    ], "toolsets": [{"name": "set"}]});
    let refused = home.ask_with(admin, ("POST", APPLY), &document).await;
    assert_eq!(refused.status.as_u16(), 422);
    let errors = refused.json()["errors"].as_array().unwrap().clone();
    let mut paths: Vec<&str> = errors
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    paths.sort_unstable();
    paths.dedup();
    for path in [
        "services[1].config.runtime.replicas",
        "services[1].type",
        "services[2].spec.source.builtin",
        "toolsets[0].services",
    ] {
        assert!(paths.contains(&path), "{path}: {paths:?}");
    }
    let none = home.ask(admin, "GET", SERVICES).await.json();
    assert_eq!(none["items"], json!([]));
    let noted = json!({"mcpServers": {"vaxel": {"command": "vaxel", "args": ["stdio"]}}});
    let noted = home.ask_with(admin, ("POST", APPLY), &noted).await.json();
    assert!(
        noted["notes"][0].as_str().unwrap().contains("Vaxel itself"),
        "{noted}"
    );
    let bad = home
        .ask_with(
            admin,
            ("POST", "/api/v1/apply?prune=&dry_run=maybe"),
            &document,
        )
        .await;
    assert_eq!(bad.json()["errors"].as_array().unwrap().len(), 2);
    home.control.stop().await;
}
