//! What others try at the pages on which people let clients in. Each test is named for it.

use axum::http::StatusCode;

use crate::{
    logging_in::{
        Browser, CALLBACK, HERE, ask_device, begin_device, client, client_at, exchange,
        exchange_at, hidden, parameter, query,
    },
    sign_ins::{GOOD, with_anna},
};

#[tokio::test(flavor = "multi_thread")]
async fn redirect_uri_tricks_and_open_redirect() {
    let home = with_anna().await;
    let (id, usual) = client(&home).await;
    let mut browser = Browser::default();
    // Whoever did not sign in is sent nowhere, whatever the client asks for.
    for other in [
        &[][..],
        &[("scope", "nothing")],
        &[("redirect_uri", "https://evil.example/")],
    ] {
        let page = browser.authorize(&home, &query(&id, other)).await;
        assert_eq!(
            (page.status, page.header("location")),
            (StatusCode::OK, ""),
            "{other:?}"
        );
    }
    browser.sign_in(&home, &usual, GOOD).await;
    for trick in [
        "https://evil.example/",
        "http://127.0.0.1:7000/cb/../evil",
        "http://127.0.0.1:7000/cb?x=1",
        "http://127.0.0.1:7000@evil.example/cb",
        "http://127.0.0.1.evil.example:7000/cb",
        "http://localhost:7000/cb",
        "http://127.0.0.1:7000/cb#x",
        "javascript:alert(1)",
        "//evil.example/cb",
    ] {
        let asked = query(&id, &[("redirect_uri", trick)]);
        let page = browser.authorize(&home, &asked).await;
        assert_eq!(
            (page.status, page.header("location")),
            (StatusCode::BAD_REQUEST, ""),
            "{trick}"
        );
    }
    let twice = format!("{usual}&redirect_uri=https%3A%2F%2Fevil.example");
    let page = browser.authorize(&home, &twice).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    // The page after the sign-in goes on here only.
    let mut other = Browser::default();
    let page = other.authorize(&home, &usual).await;
    let word = hidden(&page, "word");
    for to in [
        "https://evil.example/",
        "//evil.example",
        "/api/v1/services",
    ] {
        let form = [
            ("username", "anna"),
            ("password", GOOD),
            ("query", "\"><a href=//evil.example>"),
            ("to", to),
            ("word", &word),
        ];
        let signed_in = other.clone().post(&home, "/oauth/sign-in", &form).await;
        assert!(
            signed_in
                .text()
                .contains("content=\"0;url=/oauth/authorize?"),
            "{}",
            signed_in.text()
        );
        assert!(
            !signed_in.text().contains("<a href=//"),
            "{}",
            signed_in.text()
        );
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csrf_on_consent_and_sign_in() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::of_anna(&home, &query).await;
    let page = browser.authorize(&home, &query).await;
    let word = hidden(&page, "word");
    // The word of another browser.
    let foreign = hidden(
        &Browser::default()
            .get(&home, &format!("/oauth/authorize?{query}"))
            .await,
        "word",
    );
    assert_ne!(word, foreign);
    for (origin, word) in [
        (Some(HERE), ""),
        (Some(HERE), foreign.as_str()),
        (Some("https://evil.example"), word.as_str()),
        (Some("http://127.0.0.1:8000"), &word),
        (Some("http://localhost:3010"), &word),
        (Some("null"), &word),
        (None, &word),
    ] {
        let form = [
            ("query", query.as_str()),
            ("word", word),
            ("answer", "allow"),
        ];
        for path in [
            "/oauth/consent",
            "/oauth/sign-out",
            "/oauth/device",
            "/oauth/sign-in",
        ] {
            let answer = browser
                .clone()
                .post_from(&home, (path, origin), &form)
                .await;
            assert_eq!(
                (answer.status, answer.header("location")),
                (StatusCode::FORBIDDEN, ""),
                "{path} {origin:?}"
            );
        }
    }
    // Without the cookie the word is nothing.
    let form = [
        ("query", query.as_str()),
        ("word", &word),
        ("answer", "allow"),
    ];
    let answer = Browser::default()
        .post(&home, "/oauth/consent", &form)
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let answer = browser.post(&home, "/oauth/consent", &form).await;
    assert_eq!(
        answer.status,
        StatusCode::SEE_OTHER,
        "the real one: {}",
        answer.text()
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_was_planted_before_the_sign_in() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let planted = "a".repeat(32);
    let mut browser = Browser {
        cookie: Some(planted.clone()),
    };
    browser.sign_in(&home, &query, GOOD).await;
    assert_ne!(browser.cookie.as_ref(), Some(&planted));
    let mut thief = Browser {
        cookie: Some(planted),
    };
    let page = thief.authorize(&home, &query).await;
    assert!(page.text().contains("Sign in to Vaxel"), "{}", page.text());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clickjacking_and_markup_in_the_name_of_a_client() {
    let home = with_anna().await;
    let name = "<script>alert(1)</script>\"><img src=x>";
    let id = client_at(&home, name, &[CALLBACK]).await;
    let asked = query(&id, &[("state", "\"><script>")]);
    let mut browser = Browser::default();
    let before = browser.authorize(&home, &asked).await;
    let signed_in = browser.sign_in(&home, &asked, GOOD).await;
    let consent = browser.authorize(&home, &asked).await;
    let sorry = browser
        .get(&home, "/oauth/authorize?client_id=%3Cscript%3E")
        .await;
    let device = browser
        .get(&home, "/oauth/device?user_code=%22%3E%3Cscript%3E")
        .await;
    for page in [before, signed_in, consent, sorry, device] {
        let policy = page.header("content-security-policy");
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("script-src"), "{policy}");
        assert_eq!(page.header("x-frame-options"), "DENY");
        assert_eq!(page.header("cache-control"), "no-store");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        let text = page.text();
        assert!(
            !text.contains("<script") && !text.contains("<img"),
            "{text}"
        );
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessed_passwords_at_the_page() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::default();
    for _ in 0..5 {
        let page = browser.sign_in(&home, &query, "not her password").await;
        assert!(
            page.text().contains("The name or the password is wrong"),
            "{}",
            page.text()
        );
    }
    let locked = browser.sign_in(&home, &query, GOOD).await;
    assert!(
        locked.text().contains("The name or the password is wrong"),
        "{}",
        locked.text()
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_reaches_a_program_at_another_port() {
    let home = with_anna().await;
    let site = "https://client.example/cb";
    let id = client_at(&home, "Test", &[site, CALLBACK, "http://localhost:1/cb"]).await;
    let at_site = query(&id, &[("redirect_uri", site)]);
    let narrow = |redirect| query(&id, &[("redirect_uri", redirect), ("scope", "mcp:read")]);
    for (asked, said) in [
        (query(&id, &[]), "allow"),
        (query(&id, &[]), "deny"),
        (narrow("http://127.0.0.1:9/cb"), "allow"),
        (narrow("http://localhost:9/cb"), "allow"),
    ] {
        let mut browser = Browser::of_anna(&home, &asked).await;
        let mut thief = browser.clone();
        let answer = browser.say(&home, &asked, said).await;
        let to = answer.header("location").to_owned();
        assert!(to.contains(":7000/cb?") || to.contains(":9/cb?"), "{to}");
        assert!(answer.header("set-cookie").contains("Max-Age=0"));
        assert_eq!(browser.cookie, None);
        // What a program got with the cookie of before lets nobody in.
        for asked in [&asked, &at_site] {
            let page = thief.authorize(&home, asked).await;
            assert!(page.text().contains("Sign in to Vaxel"), "{}", page.text());
        }
        // The code that went with it is good all the same.
        if said == "allow" {
            let tokens = exchange_at(&home, &id, &to).await;
            assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text());
        }
    }
    // A site is at no port of this machine, and who signed in stays so.
    let mut browser = Browser::of_anna(&home, &at_site).await;
    let answer = browser.say(&home, &at_site, "allow").await;
    assert_eq!(answer.header("set-cookie"), "");
    let again = browser.authorize(&home, &at_site).await;
    assert!(again.header("location").starts_with(site));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_a_sign_in_that_has_ended() {
    let home = with_anna().await;
    let (id, query) = client(&home).await;
    let mut browser = Browser::of_anna(&home, &query).await;
    let (device, short) = begin_device(&home, "vaxel-cli").await;
    browser.say_of_device(&home, &short, "allow").await;
    let to = browser.allow(&home, &query).await;
    let code = parameter(&to, "code").unwrap();
    home.set_password("anna", "because somebody else was there")
        .await;
    for refused in [
        exchange(&home, &id, &code).await,
        ask_device(&home, "vaxel-cli", &device).await,
    ] {
        assert_eq!(
            refused.json()["error"],
            "invalid_grant",
            "{}",
            refused.text()
        );
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_claims_to_be_a_site() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::of_anna(&home, &query).await;
    let site = "https://claude.example/client.json";
    let (device, code) = begin_device(&home, site).await;
    let page = browser.device(&home, &code).await;
    let text = page.text();
    assert!(text.contains("nobody has proven"), "{text}");
    assert!(!text.contains("Let <q>claude.example</q>"), "{text}");
    let done = browser.say_of_device(&home, &code, "allow").await;
    assert!(done.text().contains("is let in"), "{}", done.text());
    // Who decides after that is told that it did nothing.
    let word = hidden(&browser.authorize(&home, &query).await, "word");
    let form = [
        ("user_code", code.as_str()),
        ("word", &word),
        ("answer", "deny"),
    ];
    let late = browser.post(&home, "/oauth/device", &form).await;
    assert_eq!(late.status, StatusCode::NOT_FOUND, "{}", late.text());
    let tokens = ask_device(&home, site, &device).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn csrf_on_the_form_of_a_device() {
    let home = with_anna().await;
    let (_, query) = client(&home).await;
    let mut browser = Browser::of_anna(&home, &query).await;
    let (device, code) = begin_device(&home, "vaxel-cli").await;
    let word = hidden(&browser.device(&home, &code).await, "word");
    for (origin, word) in [
        (Some(HERE), ""),
        (Some("https://evil.example"), word.as_str()),
        (Some("null"), &word),
        (None, &word),
    ] {
        let form = [
            ("user_code", code.as_str()),
            ("word", word),
            ("answer", "allow"),
        ];
        let answer = browser
            .post_from(&home, ("/oauth/device", origin), &form)
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
    }
    let waiting = ask_device(&home, "vaxel-cli", &device).await;
    assert_eq!(waiting.json()["error"], "authorization_pending");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn open_redirect_by_a_request_that_is_wrong() {
    let home = with_anna().await;
    let site = "https://evil.example/cb";
    let id = client_at(&home, "Test", &[site]).await;
    let at_site = query(&id, &[("redirect_uri", site)]);
    let wrong = query(&id, &[("redirect_uri", site), ("scope", "nothing")]);
    let mut browser = Browser::of_anna(&home, &at_site).await;
    // Nobody let it in: who follows a link stays here, and sees where a click would lead.
    let page = browser.authorize(&home, &wrong).await;
    let seen = (page.status, page.header("location"));
    assert_eq!(seen, (StatusCode::BAD_REQUEST, ""), "{}", page.text());
    assert!(page.text().contains("evil.example"), "{}", page.text());
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("form-action 'self' https://evil.example;"),
        "{policy}"
    );
    let form = [("query", wrong.as_str()), ("word", &hidden(&page, "word"))];
    let gone = browser.post(&home, "/oauth/consent", &form).await;
    let to = gone.header("location");
    assert!(to.starts_with(site), "{to}");
    assert_eq!(parameter(to, "error").as_deref(), Some("invalid_scope"));
    // Whom she let in is told at once.
    browser.say(&home, &at_site, "allow").await;
    let told = browser.authorize(&home, &wrong).await;
    assert!(told.header("location").starts_with(site), "{}", told.text());
    home.control.stop().await;
}
