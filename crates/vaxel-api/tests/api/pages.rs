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
