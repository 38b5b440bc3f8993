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
