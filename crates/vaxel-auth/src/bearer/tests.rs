use super::*;
use crate::{
    jwks::OwnKey,
    jwt::{Algorithm, tests::NOW},
};

const SERVER: &str = "https://vaxel.example.com";

fn grant(user: Id<User>, sign_in: Id<SignIn>) -> Grant<'static> {
    Grant {
        server: SERVER,
        user,
        name: "anna",
        sign_in,
        roles: &[],
        delegation: None,
    }
}

fn verifier(key: &OwnKey, ended: &[Id<SignIn>]) -> Verifier {
    let keys = KeySet::of_own([key]);
    Verifier::new(keys, SERVER, ended.iter().copied().collect())
}

#[test]
fn an_access_token_leads_to_its_user_and_sign_in_until_it_expires() {
    let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
    let (user, sign_in) = (Id::new(NOW), Id::new(NOW));
    let token = issue(&key.signer(), &grant(user, sign_in), NOW).unwrap();
    let verifier = verifier(&key, &[]);
    // The second time it is known by its digest.
    for _ in 0..2 {
        let bearer = verifier.check(&token, NOW).unwrap();
        assert_eq!((bearer.user, bearer.sign_in), (user, sign_in));
    }
    let end = NOW.plus(LIFETIME).plus(jwt::LEEWAY);
    assert_eq!(verifier.check(&token, end), Err(Refused::Expired));
}

#[test]
fn a_token_of_an_ended_sign_in_is_refused_also_when_it_was_seen_before() {
    let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
    let (user, sign_in) = (Id::new(NOW), Id::new(NOW));
    let token = issue(&key.signer(), &grant(user, sign_in), NOW).unwrap();
    let verifier = verifier(&key, &[sign_in]);
    for _ in 0..2 {
        assert_eq!(verifier.check(&token, NOW), Err(Refused::Ended));
    }
    let other = issue(&key.signer(), &grant(user, Id::new(NOW)), NOW).unwrap();
    assert!(verifier.check(&other, NOW).is_ok());
}

#[test]
fn who_knows_no_key_knows_no_token() {
    let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
    let token = issue(&key.signer(), &grant(Id::new(NOW), Id::new(NOW)), NOW).unwrap();
    let refused = Verifier::default().check(&token, NOW);
    assert_eq!(refused, Err(Refused::UnknownKey));
}

#[test]
fn what_is_remembered_of_tokens_is_bounded() {
    let mut seen = HashMap::new();
    let bearer = |expires_at| Bearer {
        user: Id::new(NOW),
        sign_in: Id::new(NOW),
        expires_at,
        delegated: None,
    };
    let later = NOW.plus(LIFETIME);
    for number in 0..u64::try_from(SEEN_MAX).unwrap() * 3 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let ends = if number % 2 == 0 { NOW } else { later };
        remember(&mut seen, digest, bearer(ends), NOW);
        assert!(seen.len() <= SEEN_MAX);
    }
}

#[test]
fn what_a_user_left_to_a_client_is_read_from_its_token() {
    let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
    let endpoint = Endpoint::at("/mcp/files").unwrap();
    let permissions = Permissions::of(&scope::USUAL);
    let grant = Grant {
        delegation: Some(("client", &endpoint, permissions)),
        ..grant(Id::new(NOW), Id::new(NOW))
    };
    let token = issue(&key.signer(), &grant, NOW).unwrap();
    let other = issue(&key.signer(), &grant, NOW).unwrap();
    let verifier = verifier(&key, &[]);
    let read = |token: &str| verifier.check(token, NOW).unwrap().delegated.unwrap();
    assert_eq!(*read(&token).endpoint, endpoint);
    assert_eq!(read(&token).limits.permissions, permissions);
    assert!(Arc::ptr_eq(&read(&token).limits, &read(&other).limits));
}

#[test]
fn a_token_for_another_audience_is_refused() {
    let key = OwnKey::generate(Algorithm::EdDsa).unwrap();
    let verifier = verifier(&key, &[]);
    let claims = |audience: &str, client: Option<&str>| {
        let mut claims = json!({ "iss": SERVER, "aud": audience, "sub": Id::<User>::new(NOW), "sid": Id::<SignIn>::new(NOW),
            "exp": NOW.as_millis() / 1_000 + 60, "scope": "mcp:read" });
        claims["client_id"] = client.into();
        claims
    };
    let check = |claims: &Value| {
        let token = key
            .signer()
            .sign(TYPE, claims.as_object().unwrap())
            .unwrap();
        verifier.check(&token, NOW).map(drop)
    };
    assert_eq!(
        check(&claims("https://vaxel.example.com/mcp", Some("c"))),
        Ok(())
    );
    for other in [
        "https://vaxel.example.com.evil.example/mcp",
        "https://other.example/mcp",
        "https://vaxel.example.com/api",
        "",
    ] {
        assert_eq!(
            check(&claims(other, Some("c"))),
            Err(Refused::Audience),
            "{other}"
        );
    }
    // Nobody's token is for one endpoint.
    assert_eq!(
        check(&claims("https://vaxel.example.com/mcp", None)),
        Err(Refused::Audience)
    );
    let mut scopeless = claims("https://vaxel.example.com/mcp", Some("c"));
    scopeless["scope"] = "openid".into();
    assert_eq!(check(&scopeless), Err(Refused::Lacks("scope")));
}
