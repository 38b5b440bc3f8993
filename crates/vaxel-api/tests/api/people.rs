//! Users, roles, grants and policies.

use axum::{body::Body, http::StatusCode};
use serde_json::{Value, json};

use crate::home::{As, Home, open, request};

impl Home {
    async fn made(&self, path: &str, draft: Value) -> (Value, String) {
        let answer = self.ask_with(As::admin(), ("POST", path), &draft).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
        let place = answer.header("location").to_owned();
        let found = self.ask(As::admin(), "GET", &place).await;
        assert_eq!(found.json(), answer.json(), "{place}");
        assert_eq!(found.header("etag"), answer.header("etag"), "{place}");
        let listed = self.ask(As::admin(), "GET", path).await.json();
        let items = listed["items"].as_array().unwrap();
        assert!(items.contains(&answer.json()), "{listed}");
        (answer.json(), place)
    }

    async fn replaced(&self, place: &str, version: &str, draft: &Value) -> (StatusCode, Value) {
        let request = request("PUT", place)
            .header("content-type", "application/json")
            .header("if-match", version)
            .body(Body::from(draft.to_string()))
            .unwrap();
        let answer = self.send(As::admin(), request).await;
        (answer.status, answer.json())
    }

    async fn deleted(&self, place: &str) -> StatusCode {
        let answer = self.ask(As::admin(), "DELETE", place).await;
        if answer.status == StatusCode::NO_CONTENT {
            let bare = place.split('?').next().unwrap();
            let gone = self.ask(As::admin(), "GET", bare).await;
            assert_eq!(gone.status, StatusCode::NOT_FOUND, "{place}");
        }
        answer.status
    }

    async fn explained(&self, query: Value) -> Value {
        let asked = ("POST", "/api/v1/auth/explain");
        let answer = self.ask_with(As::admin(), asked, &query).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        answer.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_is_found_replaced_by_who_knows_its_version_and_removed() {
    let home = open().await;
    home.with_demo().await;
    let analyst = json!({"name": "analyst", "permissions": ["calls:read", "mcp:write:own"]});
    let anna = json!({"name": "anna@example.com", "title": "Anna", "roles": ["analyst"]});
    let quiet = json!({"name": "quiet", "effect": "deny", "tools": ["note_*"]});
    let (role, role_at) = home.made("/api/v1/roles", analyst.clone()).await;
    assert_eq!(
        (&role["built_in"], &role["version"]),
        (&json!(false), &json!(1))
    );
    let (user, user_at) = home.made("/api/v1/users", anna.clone()).await;
    assert_eq!(user["kind"], "person");
    let (_, policy_at) = home.made("/api/v1/policies", quiet.clone()).await;
    let share = json!({"to": "user:anna@example.com", "service": "demo"});
    let (grant, grant_at) = home.made("/api/v1/grants", share).await;
    assert_eq!(grant["permissions"], json!(["mcp:read", "mcp:execute"]));

    for (place, draft) in [
        (&role_at, &analyst),
        (&user_at, &anna),
        (&policy_at, &quiet),
    ] {
        let (status, _) = home.replaced(place, "\"1\"", draft).await;
        assert_eq!(status, StatusCode::OK, "{place}");
        let (status, problem) = home.replaced(place, "\"1\"", draft).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{problem}");
    }
    let execute = |tool: &str| {
        json!({"user": "anna@example.com", "permission": "mcp:execute",
            "service": "demo", "tool": tool})
    };
    assert_eq!(
        home.explained(execute("echo")).await,
        json!({"allowed": true, "because": "it was granted", "by": {"kind": "grant"}})
    );
    assert_eq!(
        home.explained(execute("note_write")).await,
        json!({"allowed": false, "because": "the policy `quiet` denies it",
            "by": {"kind": "policy", "name": "quiet"}})
    );
    assert_eq!(home.deleted(&role_at).await, StatusCode::CONFLICT);
    for place in [&user_at, &role_at, &policy_at] {
        assert_eq!(home.deleted(place).await, StatusCode::NO_CONTENT, "{place}");
    }
    let gone = home.ask(As::admin(), "GET", &grant_at).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "it went with the user");
    let heir = format!("{user_at}?transfer_to=Nobody&x=1");
    let wrong = home.ask(As::admin(), "DELETE", &heir).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(wrong.json()["errors"].as_array().unwrap().len(), 2);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_says_whose_it_is_and_what_it_is_limited_to() {
    let home = open().await;
    let draft = json!({"name": "ci", "user": "admin", "services": ["db-*"],
        "environments": ["test"]});
    let made = home
        .ask_with(As::admin(), ("POST", "/api/v1/keys"), &draft)
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let made = made.json();
    for field in ["user", "services", "environments"] {
        assert_eq!(made[field], draft[field], "{made}");
    }
    let wrong = json!({"name": "x", "user": "No One", "services": [], "environments": [""]});
    let wrong = home
        .ask_with(As::admin(), ("POST", "/api/v1/keys"), &wrong)
        .await;
    assert_eq!(wrong.json()["errors"].as_array().unwrap().len(), 3);
    let who = home.ask(As::admin(), "GET", "/api/v1/auth/whoami").await;
    assert_eq!(who.json()["name"], "someone", "{}", who.text());
    home.control.stop().await;
}
