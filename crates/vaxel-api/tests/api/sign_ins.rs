//! Signing in over REST and at the door of `HappyOS`, and tokens that others can verify.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use axum::{
    body::Body,
    http::{StatusCode, header},
};
use serde_json::{Value, json};
use vaxel_control::{Change, PasswordChange, UserChange};
use vaxel_core::{principal::Principal, secret::Secret, user::UserDraft};

use crate::home::{Answer, As, Home, open, request};

const GIVEN: &str = "set by an admin";
pub(crate) const GOOD: &str = "a good long password";

/// An API with a user `anna`, who replaced the password that she was given.
pub(crate) async fn with_anna() -> Home {
    let home = open().await;
    let draft = json!({ "name": "anna", "roles": ["user"] });
    let change = UserChange::Create(UserDraft::from_json(&draft).unwrap());
    let admin = Principal::system();
    home.control
        .submit(&admin, Change::User(change))
        .await
        .unwrap();
    home.set_password("anna", GIVEN).await;
    let asked = ("POST", "/api/v1/auth/login");
    let body = json!({ "username": "anna", "password": GIVEN });
    let refused = home.ask_with(As::Nobody, asked, &body).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.text());
    let body = json!({ "username": "anna", "password": GIVEN, "new_password": GOOD });
    let changed = home.ask_with(As::Nobody, asked, &body).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text());
    home
}

impl Home {
    /// As an admin: its user has to replace it.
    pub(crate) async fn set_password(&self, user: &str, password: &str) {
        let change = PasswordChange {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
            old: None,
            keep: None,
        };
        let change = Change::SetPassword(change);
        self.control
            .submit(&Principal::system(), change)
            .await
            .unwrap();
    }
}

async fn with_token(home: &Home, (method, path): (&str, &str), token: &str) -> Answer {
    let bearer = format!("Bearer {token}");
    let request = request(method, path).header(header::AUTHORIZATION, bearer);
    home.send(As::Nobody, request.body(Body::empty()).unwrap())
        .await
}

async fn login(home: &Home) -> Value {
    let body = json!({ "username": "anna", "password": GOOD });
    let answer = home
        .ask_with(As::Nobody, ("POST", "/api/v1/auth/login"), &body)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_in_and_goes_on_with_the_next_tokens() {
    let home = with_anna().await;
    let tokens = login(&home).await;
    assert_eq!(
        (&tokens["token_type"], &tokens["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    assert_eq!(
        (&tokens["user"], &tokens["roles"]),
        (&json!("anna"), &json!(["user"]))
    );
    let asked = ("POST", "/api/v1/auth/refresh");
    let body = json!({ "refresh_token": tokens["refresh_token"] });
    let next = home.ask_with(As::Nobody, asked, &body).await;
    assert_eq!(next.status, StatusCode::OK, "{}", next.text());
    assert_eq!(next.json()["session"], tokens["session"]);
    let again = home.ask_with(As::Nobody, asked, &body).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_of_a_sign_in_is_named() {
    let home = open().await;
    let asked = ("POST", "/api/v1/auth/login");
    let answer = home
        .ask_with(As::Nobody, asked, &json!({ "user": "anna" }))
        .await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let errors = answer.json()["errors"].as_array().unwrap().len();
    assert_eq!(errors, 3, "{}", answer.text());
    home.control.stop().await;
}

/// What `HappyOS` has: see its Auth Service.
#[tokio::test(flavor = "multi_thread")]
async fn happyos_programs_authenticate_and_validate_as_they_know_it() {
    let home = with_anna().await;
    let body = json!({ "username": "anna", "password": GOOD });
    let answer = home
        .ask_with(As::Nobody, ("POST", "/authenticate"), &body)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let tokens = answer.json();
    assert_eq!(tokens["token"], tokens["access_token"]);
    assert_eq!(tokens["roles"], json!(["user"]));
    let wrong = json!({ "username": "anna", "password": "not her password" });
    let refused = home
        .ask_with(As::Nobody, ("POST", "/authenticate"), &wrong)
        .await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.json()["detail"].is_string());
    let said = |answer: &Answer| (answer.status.as_u16(), answer.json());
    let bad = with_token(&home, ("GET", "/validate"), "eyJ.eyJ.x").await;
    assert_eq!(said(&bad), (401, json!({ "detail": "Invalid token" })));
    let none = home.ask(As::Nobody, "GET", "/validate").await;
    assert_eq!(said(&none), (401, json!({ "detail": "Not authenticated" })));
    // The gateway has found out who it is.
    let good = home.ask(As::admin(), "GET", "/validate").await;
    let expected = json!({ "valid": true, "user": "someone", "roles": [] });
    assert_eq!(said(&good), (200, expected));
    let lacking = home.ask(As::admin(), "GET", "/validate?role=user").await;
    assert_eq!(
        said(&lacking),
        (403, json!({ "detail": "Insufficient permissions" }))
    );
    home.control.stop().await;
}

/// `PyJWT` is the library that the seed verifies tokens with; `cryptography` does the curve.
const VERIFY: &str = "
import json, sys, jwt
said = json.load(sys.stdin)
kid = jwt.get_unverified_header(said['token'])['kid']
key = [jwt.PyJWK(key) for key in said['keys']['keys'] if key['kid'] == kid][0]
claims = jwt.decode(said['token'], key.key, algorithms=['EdDSA'], audience=said['server'], issuer=said['server'])
print(json.dumps(claims))
";

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_knows_nothing_of_vaxel_verifies_its_tokens_by_the_key_set() {
    let home = with_anna().await;
    let tokens = login(&home).await;
    let keys = home.ask(As::Nobody, "GET", "/.well-known/jwks.json").await;
    assert_eq!(keys.status, StatusCode::OK);
    assert!(keys.header("cache-control").starts_with("public"));
    let said = json!({ "token": tokens["access_token"], "keys": keys.json(), "server": "http://127.0.0.1:3010" });
    let Some(tools) = std::env::var_os("VAXEL_TEST_TOOLS") else {
        println!("SKIPPED: VAXEL_TEST_TOOLS is not set; `./dev test` sets it");
        return;
    };
    let mut python = Command::new(std::path::Path::new(&tools).join("py/bin/python"))
        .args(["-c", VERIFY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(said.to_string().as_bytes())
        .unwrap();
    let done = python.wait_with_output().unwrap();
    home.control.stop().await;
    assert!(done.status.success());
    let claims: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&claims["username"], &claims["roles"]),
        (&json!("anna"), &json!(["user"]))
    );
    assert_eq!(claims["sid"], tokens["session"]);
}
