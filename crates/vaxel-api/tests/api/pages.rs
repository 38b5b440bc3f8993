//! Pages for people, which load nothing from elsewhere.

use axum::http::StatusCode;

use crate::home::{As, open};

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_open_and_say_what_browsers_may_load() {
    let home = open().await;
    for path in ["/", "/errors", "/docs/", "/docs/swagger-ui.css"] {
        let page = home.ask(As::Nobody, "GET", path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert!(
            page.header("content-security-policy")
                .starts_with("default-src 'none'"),
            "{path}"
        );
    }
    let front = home.ask(As::Nobody, "GET", "/").await;
    assert!(front.text().contains("http://127.0.0.1:3010/mcp"));
    let document = home.ask(As::Nobody, "GET", "/api/v1/openapi.json").await;
    assert_eq!(document.json()["openapi"], "3.1.0");
    let folder = home.ask(As::Nobody, "GET", "/docs").await;
    assert_eq!(folder.header("location"), "/docs/");
    for path in ["/errors/nothing", "/docs/nothing.js"] {
        let page = home.ask(As::Nobody, "GET", path).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            page.header("content-type"),
            "application/problem+json",
            "{path}"
        );
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_type_of_a_problem_is_a_page_here() {
    let home = open().await;
    let problem = home
        .ask(As::admin(), "GET", "/api/v1/services/nothing")
        .await
        .json();
    let page = home
        .ask(As::Nobody, "GET", problem["type"].as_str().unwrap())
        .await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    home.control.stop().await;
}

/// Every path that answers with a page or a document to whoever asks.
const PAGES: &[&str] = &[
    "/",
    "/errors",
    "/errors/not-found",
    "/errors/nothing",
    "/docs",
    "/docs/",
    "/docs/swagger-ui.css",
    "/docs/swagger-ui-bundle.js",
    "/docs/nothing.js",
    "/oauth/authorize",
    "/oauth/device",
    "/oauth/connect?ticket=x",
    "/oauth/callback?state=x",
    "/.well-known/oauth-authorization-server",
    "/.well-known/oauth-protected-resource/mcp",
    "/api/v1/schemas/service",
    "/api/v1/openapi.json",
    "/api/mcp",
    "/api/services",
    "/services",
    "/validate",
    "/nothing",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_and_every_answer_tells_browsers_what_they_may_do_with_it() {
    let home = open().await;
    let document: serde_json::Value = serde_json::from_str(&vaxel_api::Api::openapi()).unwrap();
    let mut asked: Vec<(String, String)> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for verb in ["get", "put", "post", "delete"] {
            // The one that ends the server ends the test, too.
            if operations.get(verb).is_some() && path != "/api/v1/shutdown" {
                asked.push((verb.to_uppercase(), path.replace(['{', '}'], "")));
            }
        }
    }
    asked.extend(
        PAGES
            .iter()
            .map(|path| ("GET".to_owned(), (*path).to_owned())),
    );
    let open = ["/docs", "/errors", "/health/", "/.well-known/"];
    for (verb, path) in &asked {
        for who in [As::Nobody, As::admin()] {
            let answer = home.ask(who, verb, path).await;
            let policy = answer.header("content-security-policy");
            let is_page = answer.header("content-type").starts_with("text/html");
            assert!(
                policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
                "{verb} {path}: {policy}"
            );
            assert!(
                !is_page || !policy.contains("script-src 'unsafe"),
                "{verb} {path}: {policy}"
            );
            assert_eq!(answer.header("x-frame-options"), "DENY", "{verb} {path}");
            assert_eq!(
                answer.header("x-content-type-options"),
                "nosniff",
                "{verb} {path}"
            );
            assert_ne!(answer.header("referrer-policy"), "", "{verb} {path}");
            assert_eq!(
                answer.header("strict-transport-security"),
                "max-age=31536000",
                "{verb} {path}"
            );
            let may_keep = path == "/" || open.iter().any(|open| path.starts_with(open));
            let keeps = answer.header("cache-control");
            assert!(
                may_keep || keeps.contains("no-store") || keeps.contains("no-cache"),
                "{verb} {path}: `{keeps}`"
            );
        }
    }
    assert!(asked.len() > 100, "{}", asked.len());
    home.control.stop().await;
}
