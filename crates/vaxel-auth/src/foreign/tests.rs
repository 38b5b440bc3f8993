use serde_json::json;

use super::*;
use crate::{
    jwks::OwnKey,
    jwt::{
        Algorithm,
        tests::{NOW, claims},
    },
};

const SERVER: &str = "https://vaxel.example.com";

fn issuer(claims: (&str, Option<&str>)) -> Issuer {
    Issuer::new(
        SERVER,
        vec!["vaxel".to_owned()],
        KeysFrom::Discovery,
        claims,
    )
}

fn stranger(issuer: &Issuer, change: &Value) -> Result<Stranger, Refused> {
    let key = OwnKey::generate(Algorithm::Es256).unwrap();
    let mut said = claims(&json!({ "aud": "vaxel" }));
    said.extend(change.as_object().unwrap().clone());
    let token = key.signer().sign("JWT", &said).unwrap();
    assert_eq!(issuer_of(&token).as_deref(), Some(SERVER));
    issuer.verify(&token, &KeySet::of_own([&key]), NOW)
}

#[test]
fn a_token_of_another_issuer_names_a_user_and_roles() {
    let plain = issuer(("sub", None));
    let found = stranger(&plain, &json!({ "roles": ["admin"] })).unwrap();
    assert_eq!((found.user.as_str(), found.roles.len()), ("anna", 0));
    let nested = issuer(("email", Some("realm_access.roles")));
    let said =
        json!({ "email": "anna@example.com", "realm_access": { "roles": ["user", 7, "ops"] } });
    let found = stranger(&nested, &said).unwrap();
    assert_eq!(found.user, "anna@example.com");
    assert_eq!(found.roles, ["user", "ops"]);
    let dotted = issuer(("sub", Some("https://example.com/roles")));
    let said = json!({ "https://example.com/roles": "user ops" });
    assert_eq!(stranger(&dotted, &said).unwrap().roles, ["user", "ops"]);
}

#[test]
fn a_token_that_names_no_user_is_nobodys() {
    let issuer = issuer(("email", None));
    for email in [
        json!(null),
        json!(""),
        json!(["anna"]),
        json!("x".repeat(201)),
    ] {
        let refused = stranger(&issuer, &json!({ "email": email }));
        assert_eq!(refused, Err(Refused::Lacks("user")), "{email}");
    }
}

#[test]
fn a_token_that_an_issuer_made_for_another_server_is_refused() {
    let refused = stranger(&issuer(("sub", None)), &json!({ "aud": SERVER }));
    assert_eq!(refused, Err(Refused::Audience));
}

#[test]
fn an_issuer_says_where_its_keys_are_and_nobody_else_does() {
    let tenant = Issuer::new(
        "https://login.example.com/tenant",
        vec![],
        KeysFrom::Discovery,
        ("sub", None),
    );
    assert_eq!(
        tenant.discovery(),
        [
            "https://login.example.com/tenant/.well-known/openid-configuration",
            "https://login.example.com/.well-known/oauth-authorization-server/tenant",
        ]
    );
    let said = |issuer: &str| json!({ "issuer": issuer, "jwks_uri": "https://k" }).to_string();
    let good = said("https://login.example.com/tenant");
    assert_eq!(tenant.read_discovery(good.as_bytes()).unwrap(), "https://k");
    for bad in [
        said("https://login.example.com/other"),
        "{}".to_owned(),
        String::new(),
    ] {
        assert!(tenant.read_discovery(bad.as_bytes()).is_err(), "{bad}");
    }
}
