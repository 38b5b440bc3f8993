//! What others try with clients, codes and tokens. Each test is named for it.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::json;
use tokio::net::TcpListener;
use vaxel_gateway::Peer;

use crate::{
    home::{As, request},
    logging_in::{
        Browser, CALLBACK, HERE, VERIFIER, client, exchange, let_in, parameter, query, refresh,
        token, told,
    },
    sign_ins::{GOOD, with_anna},
};

#[tokio::test(flavor = "multi_thread")]
async fn replayed_code() {
    let home = with_anna().await;
    let (id, query) = client(&home).await;
    let to = Browser::default().allow(&home, &query).await;
    let code = parameter(&to, "code").unwrap();
    let tokens = exchange(&home, &id, &code).await.json();
    let access = tokens["access_token"].as_str().unwrap();
    assert!(home.control.bearer(access).is_ok());
    let again = exchange(&home, &id, &code).await;
    assert_eq!(
        (again.status, again.json()["error"].clone()),
        (StatusCode::BAD_REQUEST, json!("invalid_grant"))
    );
    assert!(
        home.control.bearer(access).is_err(),
        "what the first one gave has ended"
    );
    let next = refresh(&home, &id, tokens["refresh_token"].as_str().unwrap()).await;
    assert_eq!(next.json()["error"], "invalid_grant");
    // The audit has it as an attempt that was refused.
    let path = "/api/v1/audit?action=oauth.code_reused";
    let audit = home.ask(As::admin(), "GET", path).await.json();
    let line = &audit["items"][0];
    assert_eq!(line["credential"], "code", "{audit}");
    assert_ne!(line["outcome"], "done", "{audit}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_refresh_token() {
    let home = with_anna().await;
    let (id, first) = let_in(&home).await;
    let second = refresh(&home, &id, first["refresh_token"].as_str().unwrap())
        .await
        .json();
    let again = refresh(&home, &id, first["refresh_token"].as_str().unwrap()).await;
    assert_eq!(again.json()["error"], "invalid_grant");
    assert!(
        home.control
            .bearer(second["access_token"].as_str().unwrap())
            .is_err()
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_another_client_or_of_none() {
    let home = with_anna().await;
    let (id, query) = client(&home).await;
    let (other, _) = client(&home).await;
    let mut browser = Browser::default();
    let to = browser.allow(&home, &query).await;
    let stolen = exchange(&home, &other, &parameter(&to, "code").unwrap()).await;
    assert_eq!(stolen.json()["error"], "invalid_grant");
    let to = browser.allow(&home, &query).await;
    let tokens = exchange(&home, &id, &parameter(&to, "code").unwrap())
        .await
        .json();
    let text = tokens["refresh_token"].as_str().unwrap();
    assert_eq!(
        refresh(&home, &other, text).await.json()["error"],
        "invalid_grant"
    );
    // At the door of people it would let everything through.
    let body = json!({ "refresh_token": text });
    let widened = home
        .ask_with(As::Nobody, ("POST", "/api/v1/auth/refresh"), &body)
        .await;
    assert_eq!(widened.status, StatusCode::UNAUTHORIZED);
    let login = json!({ "username": "anna", "password": GOOD });
    let own = home
        .ask_with(As::Nobody, ("POST", "/api/v1/auth/login"), &login)
        .await
        .json();
    let narrowed = refresh(&home, &id, own["refresh_token"].as_str().unwrap()).await;
    assert_eq!(narrowed.json()["error"], "invalid_grant");
    // Nor does another client end it.
    let form = [("client_id", other.as_str()), ("token", text)];
    Browser::default()
        .post_from(&home, ("/oauth/revoke", None), &form)
        .await;
    assert_eq!(refresh(&home, &id, text).await.status, StatusCode::OK);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pkce_downgrade() {
    let home = with_anna().await;
    let (id, usual) = client(&home).await;
    for other in [
        &[("code_challenge", ""), ("code_challenge_method", "")][..],
        &[("code_challenge_method", "plain")],
        &[("code_challenge_method", "")],
        &[
            ("code_challenge", VERIFIER),
            ("code_challenge_method", "s256"),
        ],
    ] {
        let error = told(&home, &query(&id, other)).await;
        assert_eq!(error.as_deref(), Some("invalid_request"), "{other:?}");
    }
    let mut browser = Browser::default();
    let to = browser.allow(&home, &usual).await;
    let code = parameter(&to, "code").unwrap();
    let without = [
        ("grant_type", "authorization_code"),
        ("client_id", id.as_str()),
        ("code", &code),
    ];
    assert_eq!(
        token(&home, &without).await.json()["error"],
        "invalid_request"
    );
    let wrong = "x".repeat(43);
    let mut with_another = without.to_vec();
    with_another.push(("code_verifier", &wrong));
    assert_eq!(
        token(&home, &with_another).await.json()["error"],
        "invalid_grant"
    );
    // Who guesses has one try.
    assert_eq!(
        exchange(&home, &id, &code).await.json()["error"],
        "invalid_grant"
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_for_another_audience() {
    let home = with_anna().await;
    let (id, usual) = client(&home).await;
    for other in [
        "https://other.example/mcp",
        "http://127.0.0.1:3010/api/v1",
        "http://127.0.0.1:3011/mcp",
    ] {
        let error = told(&home, &query(&id, &[("resource", other)])).await;
        assert_eq!(error.as_deref(), Some("invalid_target"), "{other}");
    }
    let mut browser = Browser::default();
    let to = browser.allow(&home, &usual).await;
    let code = parameter(&to, "code").unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", id.as_str()),
        ("code", &code),
        ("code_verifier", VERIFIER),
        ("resource", "http://127.0.0.1:3010/mcp/files"),
    ];
    assert_eq!(token(&home, &form).await.json()["error"], "invalid_target");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_scopes_than_the_user_was_asked_about() {
    let home = with_anna().await;
    let (id, _) = client(&home).await;
    let asked = query(&id, &[("scope", "mcp:read")]);
    let to = Browser::default().allow(&home, &asked).await;
    let tokens = exchange(&home, &id, &parameter(&to, "code").unwrap())
        .await
        .json();
    assert_eq!(tokens["scope"], "mcp:read");
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", id.as_str()),
        ("scope", "mcp:read users:manage"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    assert_eq!(token(&home, &form).await.json()["error"], "invalid_scope");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_documents_at_private_addresses() {
    let home = with_anna().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_, usual) = client(&home).await;
    let mut browser = Browser::default();
    let addresses = [
        format!("https://127.0.0.1:{port}/client.json"),
        format!("https://localhost:{port}/client.json"),
        format!("https://[::ffff:7f00:1]:{port}/client.json"),
        "https://169.254.169.254/latest/meta-data".to_owned(),
    ];
    // Nobody's request leads anywhere, also where no page is shown.
    for address in &addresses {
        for grant in ["authorization_code", "refresh_token"] {
            let form = [
                ("grant_type", grant),
                ("client_id", address.as_str()),
                ("code", "x"),
                ("code_verifier", VERIFIER),
                ("refresh_token", "x"),
            ];
            let refused = token(&home, &form).await;
            assert_eq!(refused.json()["error"], "invalid_grant", "{address}");
        }
    }
    for address in &addresses {
        let page = browser.authorize(&home, &query(address, &[])).await;
        assert!(page.text().contains("Sign in to Vaxel"), "{}", page.text());
    }
    browser.sign_in(&home, &usual, GOOD).await;
    for address in &addresses {
        let page = browser.authorize(&home, &query(address, &[])).await;
        assert_eq!(
            (page.status, page.header("location")),
            (StatusCode::BAD_REQUEST, ""),
            "{address}"
        );
        assert!(
            page.text()
                .contains("cannot be had from the public internet"),
            "{}",
            page.text()
        );
    }
    let came = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(came.is_err(), "somebody connected");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_without_end() {
    let home = with_anna().await;
    let body = json!({ "redirect_uris": [CALLBACK] }).to_string();
    let mut last = StatusCode::CREATED;
    for _ in 0..61 {
        let mut asked = request("POST", "/oauth/register")
            .header(header::HOST, "127.0.0.1:3010")
            .body(Body::from(body.clone()))
            .unwrap();
        asked
            .extensions_mut()
            .insert(Peer(SocketAddr::from(([203, 0, 113, 7], 4_000))));
        last = home.send(As::Nobody, asked).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_and_cookies_that_are_guessed() {
    let home = with_anna().await;
    let (id, usual) = client(&home).await;
    for code in ["", "x", &"A".repeat(43)] {
        let answer = exchange(&home, &id, code).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{code}");
    }
    for cookie in ["", "x", &"A".repeat(40), "../../etc/passwd"] {
        let mut browser = Browser {
            cookie: Some(cookie.to_owned()),
        };
        let page = browser.authorize(&home, &usual).await;
        assert!(page.text().contains("Sign in to Vaxel"), "{}", page.text());
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_long() {
    let home = with_anna().await;
    let huge = "x".repeat(70_000);
    let answer = token(&home, &[("grant_type", &huge)]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let body = json!({ "redirect_uris": [CALLBACK], "x": huge }).to_string();
    let asked = request("POST", "/oauth/register").header(header::HOST, "127.0.0.1:3010");
    let answer = home
        .send(As::Nobody, asked.body(Body::from(body)).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csrf_on_the_management_api() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::default();
    browser.sign_in(&home, &query, GOOD).await;
    assert!(browser.cookie.is_some());
    // The cookie of the pages is no credential anywhere else, wherever the request says that it comes from.
    for path in [
        "/api/v1/services",
        "/api/v1/auth/whoami",
        "/api/v1/keys",
        "/api/mcp",
        "/validate",
        "/metrics",
    ] {
        let answer = browser.get(&home, path).await;
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "{path}: {}",
            answer.text()
        );
    }
    for origin in [None, Some(HERE), Some("https://evil.example")] {
        for path in [
            "/api/v1/services",
            "/api/v1/keys",
            "/api/v1/shutdown",
            "/api/mcp",
        ] {
            let answer = browser
                .post_from(&home, (path, origin), &[("name", "x")])
                .await;
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{path} {origin:?}: {}",
                answer.text()
            );
        }
    }
    home.control.stop().await;
}
