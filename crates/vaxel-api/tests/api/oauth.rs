//! Clients log in for a user: what they find, what she sees, and what comes of it.

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::json;

use crate::{
    home::{As, open, request},
    logging_in::{
        Browser, CALLBACK, HERE, VERIFIER, ask_device, begin_device, claims, client, client_at,
        encoded, exchange, exchange_at, hidden, let_in, parameter, query, refresh, register, token,
    },
    sign_ins::{GOOD, with_anna},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_let_in_by_its_user_and_goes_on_with_the_next_tokens() {
    let home = with_anna().await;
    let (id, query) = client(&home).await;
    let to = Browser::default().allow(&home, &query).await;
    assert!(to.starts_with(CALLBACK), "{to}");
    assert_eq!(parameter(&to, "state").as_deref(), Some("a state"));
    assert_eq!(parameter(&to, "iss").as_deref(), Some(HERE));
    let answer = exchange(&home, &id, &parameter(&to, "code").unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let tokens = answer.json();
    assert_eq!(tokens["scope"], "mcp:read mcp:execute");
    let said = claims(&tokens["access_token"]);
    assert_eq!(said["aud"], "http://127.0.0.1:3010/mcp");
    assert_eq!(said["client_id"], json!(id));
    let next = refresh(&home, &id, tokens["refresh_token"].as_str().unwrap()).await;
    assert_eq!(next.status, StatusCode::OK, "{}", next.text());
    assert_eq!(claims(&next.json()["access_token"])["sid"], said["sid"]);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_says_no_and_the_client_is_told() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::of_anna(&home, &query).await;
    let page = browser.authorize(&home, &query).await;
    for seen in [
        "Test",
        "anna",
        "nobody has proven it",
        "your own machine",
        "call tools",
    ] {
        assert!(page.text().contains(seen), "{seen}: {}", page.text());
    }
    let answer = browser.say(&home, &query, "deny").await;
    let to = answer.header("location");
    assert_eq!(parameter(to, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(to, "code"), None);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_for_a_site_is_asked_once_and_for_a_program_each_time() {
    let home = with_anna().await;
    let site = "https://client.example/cb";
    let id = client_at(&home, "Test", &[site, CALLBACK]).await;
    let mut browser = Browser::default();
    let at_site = query(&id, &[("redirect_uri", site)]);
    let first = browser.allow(&home, &at_site).await;
    assert!(first.starts_with(site), "{first}");
    let again = browser.authorize(&home, &at_site).await;
    assert_eq!(again.status, StatusCode::SEE_OTHER);
    assert!(again.header("location").starts_with(site));
    // More than before is asked again, and so is another endpoint, and a program on her machine.
    for other in [
        query(
            &id,
            &[("redirect_uri", site), ("scope", "mcp:read mcp:write")],
        ),
        query(
            &id,
            &[
                ("redirect_uri", site),
                ("resource", "http://127.0.0.1:3010/mcp/files"),
            ],
        ),
        query(&id, &[]),
    ] {
        let page = browser.authorize(&home, &other).await;
        assert_eq!(page.status, StatusCode::OK, "{other}");
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_signs_in_and_a_password_of_others_is_replaced_on_the_page() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::of_anna(&home, &query).await;
    let page = browser.authorize(&home, &query).await;
    let word = hidden(&page, "word");
    let out = browser
        .post(
            &home,
            "/oauth/sign-out",
            &[("query", &query), ("word", &word)],
        )
        .await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    let page = browser.authorize(&home, &query).await;
    assert!(page.text().contains("Sign in to Vaxel"), "{}", page.text());
    home.set_password("anna", "given by the admin").await;
    let asked = browser.sign_in(&home, &query, "given by the admin").await;
    assert!(asked.text().contains("New password"), "{}", asked.text());
    let word = hidden(&asked, "word");
    let form = [
        ("username", "anna"),
        ("password", "given by the admin"),
        ("new_password", "one of her own"),
        ("query", &query),
        ("to", "/oauth/authorize"),
        ("word", &word),
    ];
    let done = browser.post(&home, "/oauth/sign-in", &form).await;
    assert!(done.text().contains("You are signed in"), "{}", done.text());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_seen_among_the_sessions_of_its_user_and_ends_with_its_token() {
    let home = with_anna().await;
    let (id, tokens) = let_in(&home).await;
    let access = tokens["access_token"].as_str().unwrap();
    let listed = home
        .ask(As::admin(), "GET", "/api/v1/auth/sessions?user=anna")
        .await
        .json();
    let mine = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["client"] == "Test");
    assert_eq!(mine.clone().count(), 1, "{listed}");
    assert_eq!(mine.clone().next().unwrap()["endpoint"], "/mcp");
    assert!(home.control.bearer(access).is_ok());
    let form = [
        ("client_id", id.as_str()),
        ("token", tokens["refresh_token"].as_str().unwrap()),
    ];
    let revoked = Browser::default()
        .post_from(&home, ("/oauth/revoke", None), &form)
        .await;
    assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.text());
    assert!(home.control.bearer(access).is_err());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_secret_shows_it_in_the_head_or_in_the_form() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let home = with_anna().await;
    let metadata =
        json!({ "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "client_secret_basic" });
    let registered = register(&home, &metadata).await;
    let (id, secret) = (
        registered["client_id"].as_str().unwrap(),
        registered["client_secret"].as_str().unwrap(),
    );
    let to = Browser::default().allow(&home, &query(id, &[])).await;
    let code = parameter(&to, "code").unwrap();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("code_verifier", VERIFIER),
    ];
    let send = |secret: String| {
        let head = request("POST", "/oauth/token")
            .header(header::HOST, "127.0.0.1:3010")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))),
            );
        home.send(As::Nobody, head.body(Body::from(encoded(&form))).unwrap())
    };
    let wrong = send("vxs_wrong".to_owned()).await;
    assert_eq!(
        (wrong.status, wrong.json()["error"].clone()),
        (StatusCode::UNAUTHORIZED, json!("invalid_client"))
    );
    assert!(
        exchange(&home, id, &code).await.status == StatusCode::UNAUTHORIZED,
        "without any"
    );
    // Who could not show who it is has not used the code up.
    let tokens = send(secret.to_owned()).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text());
    let next = [
        ("grant_type", "refresh_token"),
        ("client_id", id),
        ("client_secret", secret),
        (
            "refresh_token",
            tokens.json()["refresh_token"].as_str().unwrap(),
        ),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let next: Vec<(&str, &str)> = next
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    assert_eq!(token(&home, &next).await.status, StatusCode::OK);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_without_a_browser_is_let_in_by_the_code_that_it_shows() {
    let home = with_anna().await;
    let (device, code) = begin_device(&home, "vaxel-cli").await;
    let ask = || ask_device(&home, "vaxel-cli", &device);
    assert_eq!(ask().await.json()["error"], "authorization_pending");
    assert_eq!(ask().await.json()["error"], "slow_down");
    let code = code.to_lowercase();
    let mut browser = Browser::default();
    let page = browser.get(&home, "/oauth/device").await;
    let word = hidden(&page, "word");
    let sign_in = [
        ("username", "anna"),
        ("password", GOOD),
        ("query", ""),
        ("to", "/oauth/device"),
        ("word", &word),
    ];
    browser.post(&home, "/oauth/sign-in", &sign_in).await;
    let wrong = browser.device(&home, "BCDF-GHJK").await;
    assert!(
        wrong.text().contains("No program shows this code"),
        "{}",
        wrong.text()
    );
    let page = browser.device(&home, &code).await;
    assert!(
        page.text().contains("the command line of Vaxel"),
        "{}",
        page.text()
    );
    let done = browser.say_of_device(&home, &code, "allow").await;
    assert!(done.text().contains("is let in"), "{}", done.text());
    let tokens = ask().await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text());
    assert_eq!(claims(&tokens.json()["access_token"])["aud"], HERE);
    assert_eq!(ask().await.json()["error"], "invalid_grant");
    let path = "/api/v1/audit?action=oauth.sign_in";
    let audit = home.ask(As::admin(), "GET", path).await.json();
    assert_eq!(audit["items"][0]["credential"], "device", "{audit}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_says_where_its_tokens_come_from_and_the_server_what_it_can() {
    let home = open().await;
    let mut browser = Browser::default();
    for (path, resource) in [
        ("", HERE),
        ("/mcp", "http://127.0.0.1:3010/mcp"),
        ("/mcp/files", "http://127.0.0.1:3010/mcp/files"),
        ("/mcp/sets/daily", "http://127.0.0.1:3010/mcp/sets/daily"),
        ("/sse", "http://127.0.0.1:3010/sse"),
    ] {
        let answer = browser
            .get(
                &home,
                &format!("/.well-known/oauth-protected-resource{path}"),
            )
            .await;
        assert_eq!(answer.json()["resource"], resource);
        assert_eq!(answer.json()["authorization_servers"], json!([HERE]));
    }
    let other = browser
        .get(&home, "/.well-known/oauth-protected-resource/api/v1")
        .await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let server = browser
        .get(&home, "/.well-known/oauth-authorization-server")
        .await
        .json();
    assert_eq!(server["issuer"], HERE);
    let openid = browser
        .get(&home, "/.well-known/openid-configuration")
        .await
        .json();
    assert_eq!(openid["token_endpoint"], server["token_endpoint"]);
    // There is none for other issuers than itself.
    let below = browser
        .get(&home, "/.well-known/oauth-authorization-server/mcp")
        .await;
    assert_eq!(below.status, StatusCode::NOT_FOUND);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_ends_with_what_it_let_in() {
    let home = with_anna().await;
    let site = "https://client.example/cb";
    let id = client_at(&home, "Test", &[site]).await;
    let at_site = query(&id, &[("redirect_uri", site)]);
    let ends = [
        "revoked",
        "ended by her",
        "used twice",
        "another password",
        "disabled",
    ];
    for end in ends {
        let mut browser = Browser::default();
        let to = browser.allow(&home, &at_site).await;
        let tokens = exchange_at(&home, &id, &to).await.json();
        let text = tokens["refresh_token"].as_str().unwrap();
        let asked = browser.authorize(&home, &at_site).await;
        assert_eq!(asked.status, StatusCode::SEE_OTHER, "before: {end}");
        let sid = claims(&tokens["access_token"])["sid"]
            .as_str()
            .unwrap()
            .to_owned();
        match end {
            "revoked" => {
                let form = [("client_id", id.as_str()), ("token", text)];
                browser
                    .clone()
                    .post_from(&home, ("/oauth/revoke", None), &form)
                    .await;
            }
            "ended by her" => {
                let path = format!("/api/v1/auth/sessions/{sid}");
                let ended = home.ask(As::admin(), "DELETE", &path).await;
                assert_eq!(ended.status, StatusCode::NO_CONTENT, "{}", ended.text());
            }
            "used twice" => {
                refresh(&home, &id, text).await;
                refresh(&home, &id, text).await;
            }
            "another password" => {
                home.set_password("anna", "given by somebody").await;
                let login = json!({ "username": "anna", "password": "given by somebody", "new_password": GOOD });
                let login = home
                    .ask_with(As::Nobody, ("POST", "/api/v1/auth/login"), &login)
                    .await;
                assert_eq!(login.status, StatusCode::OK, "{}", login.text());
            }
            _ => {
                for disabled in [true, false] {
                    let draft = json!({ "name": "anna", "roles": ["user"], "disabled": disabled });
                    let set = home
                        .ask_with(As::admin(), ("PUT", "/api/v1/users/anna"), &draft)
                        .await;
                    assert_eq!(set.status, StatusCode::OK, "{}", set.text());
                }
            }
        }
        let mut browser = Browser::of_anna(&home, &at_site).await;
        let asked = browser.authorize(&home, &at_site).await;
        assert_eq!(asked.status, StatusCode::OK, "after: {end}");
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_for_less_than_it_was_let_and_gets_that_until_it_asks_for_all() {
    let home = with_anna().await;
    let (id, tokens) = let_in(&home).await;
    let next = |scope: &'static str, text: String| {
        let (home, id) = (&home, id.clone());
        async move {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", id.as_str()),
                ("refresh_token", &text),
                ("scope", scope),
            ];
            token(home, &form).await.json()
        }
    };
    let text = |tokens: &serde_json::Value| tokens["refresh_token"].as_str().unwrap().to_owned();
    let less = next("mcp:read", text(&tokens)).await;
    assert_eq!(less["scope"], "mcp:read");
    assert_eq!(claims(&less["access_token"])["scope"], "mcp:read");
    let all = next("", text(&less)).await;
    assert_eq!(
        claims(&all["access_token"])["scope"],
        "mcp:read mcp:execute"
    );
    assert_eq!(all["scope"], "mcp:read mcp:execute");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_secret_may_show_an_empty_one_in_the_head() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let home = with_anna().await;
    let (id, tokens) = let_in(&home).await;
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", tokens["refresh_token"].as_str().unwrap()),
    ];
    let head = request("POST", "/oauth/token")
        .header(header::HOST, "127.0.0.1:3010")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(
            header::AUTHORIZATION,
            format!("Basic {}", STANDARD.encode(format!("{id}:"))),
        );
    let answer = home
        .send(As::Nobody, head.body(Body::from(encoded(&form))).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_sees_registered_clients_and_removes_one() {
    let home = with_anna().await;
    let (id, tokens) = let_in(&home).await;
    let (_, other) = let_in(&home).await;
    let list = || async {
        let all = home.ask(As::admin(), "GET", "/api/v1/oauth/clients").await;
        all.json()["items"].as_array().unwrap().clone()
    };
    let all = list().await;
    assert_eq!(all.len(), 2, "{all:?}");
    let its = all.iter().find(|one| one["id"] == id.as_str()).unwrap();
    assert_eq!(its["redirect_uris"], json!([CALLBACK]));
    assert!(its["used_at"].is_string(), "{its}");
    // A renewal is a use, too.
    let next = refresh(&home, &id, tokens["refresh_token"].as_str().unwrap()).await;
    assert_eq!(next.status, StatusCode::OK, "{}", next.text());
    let renewed = list().await;
    let after = renewed.iter().find(|one| one["id"] == id.as_str()).unwrap();
    assert_ne!(after["used_at"], its["used_at"]);
    let path = format!("/api/v1/oauth/clients/{id}");
    let removed = home.ask(As::admin(), "DELETE", &path).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT, "{}", removed.text());
    assert_eq!(list().await.len(), 1);
    let bearer = |tokens: &serde_json::Value| {
        let access = tokens["access_token"].as_str().unwrap().to_owned();
        home.control.bearer(&access).is_ok()
    };
    assert!(!bearer(&tokens) && bearer(&other), "its own tokens end");
    let next = refresh(&home, &id, next.json()["refresh_token"].as_str().unwrap()).await;
    assert_eq!(next.json()["error"], "invalid_client");
    let audit = "/api/v1/audit?action=oauth.client_remove";
    let audit = home.ask(As::admin(), "GET", audit).await.json();
    assert_eq!(audit["items"][0]["detail"]["sign_ins"], 1, "{audit}");
    let again = home.ask(As::admin(), "DELETE", &path).await;
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    home.control.stop().await;
}
