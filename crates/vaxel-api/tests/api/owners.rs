//! Lists for who may not see everything: owners see the calls and the usage of what is their own, and sets with
//! something in them that they may use.

use serde_json::{Value, json};

use crate::home::{As, Home, open};

async fn items(home: &Home, who: As, path: &str) -> Vec<Value> {
    let answer = home.ask(who, "GET", path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()["items"].as_array().unwrap().clone()
}

/// Two users with a service each, which was called by its owner and by the other one.
async fn world() -> Home {
    let home = open().await;
    let admin = As::User("admin");
    for (user, service) in [("anna", "hers"), ("bob", "his")] {
        let draft = json!({"name": user, "roles": ["user"], "limits": {}});
        home.ask_with(admin, ("POST", "/api/v1/users"), &draft)
            .await;
        let draft = json!({"name": service, "spec": {"source": {"builtin": "demo"}}});
        let owner = if user == "anna" {
            As::User("anna")
        } else {
            As::User("bob")
        };
        let made = home
            .ask_with(owner, ("POST", "/api/v1/services"), &draft)
            .await;
        assert_eq!(made.status, 201, "{}", made.text());
        let health = format!("/api/v1/services/{service}/health?wait=20s");
        assert_eq!(home.ask(admin, "GET", &health).await.json()["ready"], true);
        let call = format!("/api/v1/services/{service}/tools/echo/call");
        for who in [owner, admin] {
            let asked = json!({"arguments": {"message": "x"}});
            let called = home.ask_with(who, ("POST", &call), &asked).await;
            assert_eq!(called.status, 200, "{}", called.text());
        }
    }
    for (set, services) in [
        ("both", json!([{"service": "hers"}, {"service": "his"}])),
        ("only-his", json!([{"service": "his"}])),
        ("empty", json!([{"service": "nobodys"}])),
    ] {
        let draft = json!({"name": set, "services": services});
        let made = home
            .ask_with(admin, ("POST", "/api/v1/toolsets"), &draft)
            .await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let waiting = async {
        while items(&home, admin, "/api/v1/calls").await.len() < 4 {
            tokio::task::yield_now().await;
        }
        while home.ask(admin, "GET", "/api/v1/usage").await.json()["total"]["calls"] != 4 {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_mins(1), waiting).await;
    waited.expect("the calls were not recorded");
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_sees_the_calls_and_the_usage_of_what_is_its_own() {
    let home = world().await;
    let anna = As::User("anna");
    let calls = items(&home, anna, "/api/v1/calls").await;
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(
        calls.iter().all(|call| call["service"] == "hers"),
        "{calls:?}"
    );
    let first = home.ask(anna, "GET", "/api/v1/calls?limit=1").await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = items(
        &home,
        anna,
        &format!("/api/v1/calls?limit=1&cursor={cursor}"),
    )
    .await;
    assert_eq!((&first["items"][0], &next[0]), (&calls[0], &calls[1]));
    let by = items(&home, anna, "/api/v1/calls?principal=admin").await;
    assert_eq!(by.len(), 1, "{by:?}");
    let his = home.ask(anna, "GET", "/api/v1/calls?service=his").await;
    assert_eq!(his.status, 404, "{}", his.text());
    let usage = home.ask(anna, "GET", "/api/v1/usage").await.json();
    assert_eq!(
        (&usage["total"]["calls"], &usage["total"]["callers"]),
        (&json!(2), &json!(2)),
        "{usage}"
    );
    let services = usage["services"].as_array().unwrap();
    assert_eq!(services.len(), 1, "{usage}");
    assert_eq!(services[0]["name"], "hers");
    assert_eq!(usage["series"][0]["calls"], 2, "{usage}");
    let own = home
        .ask(anna, "GET", "/api/v1/services/hers/usage")
        .await
        .json();
    assert_eq!(usage["total"], own["total"]);
    // What is in the archive was its own, too.
    home.ask(anna, "DELETE", "/api/v1/services/hers").await;
    assert_eq!(items(&home, anna, "/api/v1/calls").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_the_sets_that_it_may_use_and_nothing_else_in_them() {
    let home = world().await;
    let anna = As::User("anna");
    let sets = items(&home, anna, "/api/v1/toolsets").await;
    assert_eq!(sets.len(), 1, "{sets:?}");
    assert_eq!(sets[0]["name"], "both");
    assert!(!sets[0].to_string().contains("his"), "{}", sets[0]);
    for (set, status) in [
        ("both", 200),
        ("only-his", 404),
        ("empty", 404),
        ("gone", 404),
    ] {
        let answer = home
            .ask(anna, "GET", &format!("/api/v1/toolsets/{set}"))
            .await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    assert_eq!(
        items(&home, As::User("admin"), "/api/v1/toolsets")
            .await
            .len(),
        3
    );
    let export = home.ask(anna, "GET", "/api/v1/export").await;
    assert_eq!(export.status, 200, "{}", export.text());
    let export = export.json();
    assert_eq!(
        export["services"].as_array().map(Vec::len),
        Some(1),
        "{export}"
    );
    assert!(!export.to_string().contains("his"), "{export}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_one_service_reads_of_that_one_alone_and_hands_nothing_on() {
    let home = world().await;
    let only = As::Only("admin", "hers");
    let calls = items(&home, only, "/api/v1/calls").await;
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(
        calls.iter().all(|call| call["service"] == "hers"),
        "{calls:?}"
    );
    let usage = home.ask(only, "GET", "/api/v1/usage").await.json();
    assert_eq!(usage["total"]["calls"], 2, "{usage}");
    let sets = items(&home, only, "/api/v1/toolsets").await;
    assert_eq!(sets.len(), 1, "{sets:?}");
    assert!(!sets[0].to_string().contains("his"), "{}", sets[0]);
    // A key that it makes is good for that one, too, whatever is asked for.
    for (name, services) in [("plain", None), ("wider", Some(json!(["*"])))] {
        let draft = json!({"name": name, "services": services});
        let answer = home.ask_with(only, ("POST", "/api/v1/keys"), &draft).await;
        if answer.status.is_success() {
            assert_eq!(
                answer.json()["services"],
                json!(["hers"]),
                "{}",
                answer.text()
            );
        }
    }
    for (list, draft) in [
        ("grants", json!({"service": "his", "to": "role:client"})),
        ("users", json!({"name": "eve", "roles": ["admin"]})),
        (
            "roles",
            json!({"name": "all", "permissions": ["mcp:manage"]}),
        ),
    ] {
        let path = format!("/api/v1/{list}");
        let answer = home.ask_with(only, ("POST", &path), &draft).await;
        assert!(
            !answer.status.is_success(),
            "{list} {draft}: {}",
            answer.text()
        );
    }
}
