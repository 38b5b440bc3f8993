use std::sync::Arc;

use serde_json::Value;
use vaxel_core::{
    id::Id,
    principal::{Permission, Permissions},
    rights::{Limits, Sources},
    user::UserResource,
};

use super::*;
use crate::{
    bearer::Verifier,
    jwks::{KeySet, OwnKey},
    jwt::{self, Algorithm, Refused, Rules, tests::NOW},
};

const SERVER: &str = "https://vaxel.example.com";
const TOOLS: &str = "https://tools.example.com/mcp";

fn key() -> OwnKey {
    OwnKey::generate(Algorithm::EdDsa).unwrap()
}

fn rules(audience: &str) -> Rules {
    Rules {
        issuer: SERVER.to_owned(),
        audiences: vec![audience.to_owned()],
        below: false,
        types: &[TYPE],
    }
}

fn anna(kind: UserKind) -> Principal {
    let user = UserResource {
        id: Id::new(NOW),
        name: "anna".parse().unwrap(),
        kind,
        version: 1,
        title: None,
        roles: ["user".parse().unwrap()].into(),
        limits: None,
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
    };
    let rights = Sources::new([], [], []).rights_of(&user);
    let who = (Proof::User(user.id), "anna".into());
    Principal::of_user(who, Arc::new(rights), None)
}

fn claims(caller: &Principal) -> serde_json::Map<String, Value> {
    let key = key();
    let issuer = Issuer::new(key.signer(), SERVER);
    let token = issuer.issue(caller, TOOLS, NOW).unwrap();
    let keys = KeySet::of_own([&key]);
    jwt::verify(&token, &keys, &rules(TOOLS), NOW)
        .unwrap()
        .claims
}

#[test]
fn a_service_reads_who_calls_and_with_which_roles() {
    let person = claims(&anna(UserKind::Person));
    assert_eq!(
        (&person["sub"], &person["kind"]),
        (&"anna".into(), &"person".into())
    );
    assert_eq!(person["roles"], json!(["user"]));
    assert!(!person.contains_key("scope"));
    let lasts = person["exp"].as_u64().unwrap() - person["iat"].as_u64().unwrap();
    assert_eq!(lasts, 60);
    assert_eq!(claims(&anna(UserKind::Program))["kind"], "program");
    let mut narrow = anna(UserKind::Person);
    narrow.limits = Some(Arc::new(Limits {
        permissions: Permissions::of(&[Permission::McpExecute]),
        services: None,
        environments: None,
    }));
    assert_eq!(claims(&narrow)["scope"], "mcp:execute");
}

#[test]
fn who_is_nobody_has_no_role_there() {
    for (caller, name, kind) in [
        (Principal::unguarded(), "anyone", "anonymous"),
        (Principal::system(), "vaxel", "vaxel"),
    ] {
        let claims = claims(&caller);
        assert_eq!(
            (&claims["sub"], &claims["kind"]),
            (&name.into(), &kind.into())
        );
        assert_eq!(claims["roles"], json!([]));
    }
}

#[test]
fn a_token_for_one_service_is_good_at_no_other_and_not_at_vaxel() {
    let key = key();
    let issuer = Issuer::new(key.signer(), SERVER);
    let keys = KeySet::of_own([&key]);
    let caller = anna(UserKind::Person);
    let token = issuer.issue(&caller, TOOLS, NOW).unwrap();
    let elsewhere = jwt::verify(&token, &keys, &rules("files"), NOW);
    assert_eq!(elsewhere, Err(Refused::Audience));
    let late = NOW.plus(LIFETIME).plus(jwt::LEEWAY);
    assert_eq!(
        jwt::verify(&token, &keys, &rules(TOOLS), late),
        Err(Refused::Expired)
    );
    // Even when it were for Vaxel: it is of another type.
    let token = issuer.issue(&caller, SERVER, NOW).unwrap();
    let verifier = Verifier::new(keys, SERVER, std::collections::HashSet::new());
    assert_eq!(verifier.check(&token, NOW), Err(Refused::Type));
}
