use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::json;
use vaxel_core::secret::Secret;

use super::*;
use crate::jwks::{KeySet, OwnKey};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SERVER: &str = "https://vaxel.example.com";

pub(crate) fn rules() -> Rules {
    Rules {
        issuer: SERVER.to_owned(),
        audiences: vec![SERVER.to_owned()],
        below: false,
        types: &["at+jwt"],
    }
}

pub(crate) fn claims(change: &Value) -> Map<String, Value> {
    let now = NOW.as_millis() / 1_000;
    let mut claims =
        json!({ "iss": SERVER, "aud": SERVER, "sub": "anna", "iat": now, "exp": now + 900 });
    let object = claims.as_object_mut().unwrap();
    for (key, value) in change.as_object().unwrap() {
        match value {
            Value::Null => _ = object.remove(key),
            value => _ = object.insert(key.clone(), value.clone()),
        }
    }
    claims.as_object().unwrap().clone()
}

fn own() -> OwnKey {
    OwnKey::generate(Algorithm::EdDsa).unwrap()
}

fn judged(key: &OwnKey, change: &Value) -> Result<Timestamp, Refused> {
    let token = key.signer().sign("at+jwt", &claims(change)).unwrap();
    verify(&token, &KeySet::of_own([key]), &rules(), NOW).map(|good| good.expires_at)
}

/// A token whose header is whatever a thief likes, under the given signature.
fn forged(header: &Value, signature: impl Fn(&str) -> String) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!(
        "{}.{}",
        part(header),
        part(&Value::Object(claims(&json!({}))))
    );
    format!("{message}.{}", signature(&message))
}

#[test]
fn a_token_is_good_for_whom_it_was_made_whatever_key_signed_it() {
    for algorithm in Algorithm::OWN {
        let key = OwnKey::generate(algorithm).unwrap();
        let token = key.signer().sign("at+jwt", &claims(&json!({}))).unwrap();
        let good = verify(&token, &KeySet::of_own([&key]), &rules(), NOW).unwrap();
        assert_eq!(good.claims["sub"], "anna", "{algorithm:?}");
        assert_eq!(good.expires_at, NOW.plus(Duration::from_mins(16)));
        assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
    }
}

#[test]
fn a_token_without_a_signature_is_refused() {
    let key = own();
    for alg in ["none", "None", "NONE", ""] {
        let header = json!({ "alg": alg, "typ": "at+jwt", "kid": key.kid });
        for signature in ["", "e30"] {
            let token = forged(&header, |_| signature.to_owned());
            let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
            assert_eq!(refused, Err(Refused::Malformed), "{alg}");
        }
    }
    let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": key.kid });
    let token = forged(&header, |_| String::new());
    let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
    assert_eq!(refused, Err(Refused::Signature));
}

#[test]
fn a_public_key_that_is_used_as_a_shared_secret_is_refused() {
    for algorithm in Algorithm::OWN {
        let key = OwnKey::generate(algorithm).unwrap();
        let public = key.public();
        let x = public.get("x").or(public.get("n")).unwrap();
        let raw = x.as_str().unwrap();
        let texts = [public.to_string(), raw.to_owned()];
        for secret in texts.iter().map(String::as_bytes) {
            let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
            header.kid = Some(key.kid.clone());
            header.typ = Some("at+jwt".to_owned());
            let secret = EncodingKey::from_secret(secret);
            let token = jsonwebtoken::encode(&header, &claims(&json!({})), &secret).unwrap();
            let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
            assert_eq!(refused, Err(Refused::Algorithm), "{algorithm:?}");
        }
    }
}

#[test]
fn the_token_does_not_choose_among_the_algorithms_of_a_key() {
    let key = OwnKey::generate(Algorithm::Rs256).unwrap();
    let mut signer = key.signer();
    for other in [Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256] {
        signer.algorithm = other;
        let token = signer.sign("at+jwt", &claims(&json!({}))).unwrap();
        let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
        assert_eq!(refused, Err(Refused::Algorithm), "{other:?}");
    }
}

#[test]
fn a_token_is_not_believed_what_key_it_was_signed_with() {
    let (key, thief) = (own(), own());
    let mut signer = thief.signer();
    let keys = KeySet::of_own([&key]);
    let token = signer.sign("at+jwt", &claims(&json!({}))).unwrap();
    assert_eq!(
        verify(&token, &keys, &rules(), NOW),
        Err(Refused::UnknownKey)
    );
    signer.kid.clone_from(&key.kid);
    let token = signer.sign("at+jwt", &claims(&json!({}))).unwrap();
    assert_eq!(
        verify(&token, &keys, &rules(), NOW),
        Err(Refused::Signature)
    );
    // A key, or where one is, in the header.
    let mut header = Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.typ = Some("at+jwt".to_owned());
    header.jku = Some("https://thief.example.com/keys".to_owned());
    header.jwk = serde_json::from_value(thief.public().clone()).unwrap();
    for kid in [
        None,
        Some("../../dev/null".to_owned()),
        Some("' OR 1=1 --".to_owned()),
    ] {
        header.kid = kid;
        let token =
            jsonwebtoken::encode(&header, &claims(&json!({})), &thief.signer().key).unwrap();
        let refused = verify(&token, &keys, &rules(), NOW).unwrap_err();
        let expected = [Refused::UnknownKey, Refused::Signature];
        assert!(expected.contains(&refused), "{refused:?}");
    }
}

#[test]
fn a_token_for_another_server_or_of_another_issuer_is_refused() {
    let key = own();
    let others = [
        json!("https://other.example.com"),
        json!([]),
        json!(["a", 1]),
        json!(7),
        json!(null),
    ];
    for aud in others {
        let refused = judged(&key, &json!({ "aud": aud }));
        assert_eq!(refused, Err(Refused::Audience), "{aud}");
    }
    assert!(
        judged(
            &key,
            &json!({ "aud": ["https://other.example.com", SERVER] })
        )
        .is_ok()
    );
    for iss in [
        json!("https://vaxel.example.com/"),
        json!([SERVER]),
        json!(null),
    ] {
        let refused = judged(&key, &json!({ "iss": iss }));
        assert_eq!(refused, Err(Refused::Issuer), "{iss}");
    }
}

#[test]
fn a_token_is_good_between_its_times_and_a_minute_around_them() {
    let (key, now) = (own(), NOW.as_millis() / 1_000);
    for exp in [now - 60, now - 3_600, 0] {
        assert_eq!(
            judged(&key, &json!({ "exp": exp })),
            Err(Refused::Expired),
            "{exp}"
        );
    }
    assert!(judged(&key, &json!({ "exp": now - 59 })).is_ok());
    #[expect(clippy::cast_precision_loss, reason = "it is far below 2^52")]
    let fraction = now as f64 + 0.5;
    assert!(judged(&key, &json!({ "exp": fraction })).is_ok());
    for late in [json!({ "nbf": now + 61 }), json!({ "iat": now + 61 })] {
        assert_eq!(judged(&key, &late), Err(Refused::NotYet));
    }
    assert!(judged(&key, &json!({ "nbf": now + 60 })).is_ok());
    for exp in [
        json!(null),
        json!("soon"),
        json!(-1),
        json!(1e300),
        json!(false),
    ] {
        let refused = judged(&key, &json!({ "exp": exp }));
        assert_eq!(refused, Err(Refused::Lacks("exp")), "{exp}");
    }
    assert!(judged(&key, &json!({ "nbf": {} })).is_err());
    assert!(judged(&key, &json!({ "exp": [now] })).is_err());
}

#[test]
fn a_token_of_another_type_or_with_critical_extensions_is_refused() {
    let key = own();
    for typ in ["JWT", "refresh+jwt", "", "application/jwt"] {
        let token = key.signer().sign(typ, &claims(&json!({}))).unwrap();
        let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
        assert_eq!(refused, Err(Refused::Type), "{typ}");
    }
    for typ in ["AT+JWT", "application/at+jwt"] {
        let token = key.signer().sign(typ, &claims(&json!({}))).unwrap();
        assert!(verify(&token, &KeySet::of_own([&key]), &rules(), NOW).is_ok());
    }
    let mut header = Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(key.kid.clone());
    header.crit = Some(vec!["b64".to_owned()]);
    let token = jsonwebtoken::encode(&header, &claims(&json!({})), &key.signer().key).unwrap();
    let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
    assert_eq!(refused, Err(Refused::Malformed));
}

#[test]
fn a_token_that_was_cut_or_changed_anywhere_is_refused() {
    let key = own();
    let token = key.signer().sign("at+jwt", &claims(&json!({}))).unwrap();
    let keys = KeySet::of_own([&key]);
    for end in 0..token.len() {
        assert!(
            verify(&token[..end], &keys, &rules(), NOW).is_err(),
            "{end}"
        );
    }
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(verify(&changed, &keys, &rules(), NOW).is_err(), "{at}");
    }
    for more in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.e30"),
        format!("{token}="),
    ] {
        assert!(verify(&more, &keys, &rules(), NOW).is_err());
    }
}

#[test]
fn a_token_that_is_huge_or_deep_is_refused() {
    let key = own();
    let huge = json!({ "padding": "x".repeat(LONGEST) });
    assert_eq!(judged(&key, &huge), Err(Refused::Malformed));
    let nested = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
    let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": key.kid }).to_string();
    let deep_header = header.replace('}', &format!(r#","x":{nested}}}"#));
    let deep_claims = format!(r#"{{"sub":{nested}}}"#);
    for (header, claims) in [(&deep_header, "{}"), (&header, deep_claims.as_str())] {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", part(header), part(claims));
        let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(key.signer().key.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(pair.unwrap().sign(message.as_bytes()));
        let token = format!("{message}.{signature}");
        let refused = verify(&token, &KeySet::of_own([&key]), &rules(), NOW);
        assert_eq!(refused, Err(Refused::Malformed));
    }
}

#[test]
fn a_shared_secret_is_good_only_where_one_was_configured() {
    let secret = Secret::new("a long secret that both of them know".to_owned());
    let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
    header.typ = Some("at+jwt".to_owned());
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    let token = jsonwebtoken::encode(&header, &claims(&json!({})), &key).unwrap();
    assert!(verify(&token, &KeySet::of_secret(&secret).unwrap(), &rules(), NOW).is_ok());
    let other = Secret::new("another secret that is as long as that".to_owned());
    let refused = verify(&token, &KeySet::of_secret(&other).unwrap(), &rules(), NOW);
    assert_eq!(refused, Err(Refused::Signature));
    let refused = verify(&token, &KeySet::of_own([&own()]), &rules(), NOW);
    assert_eq!(refused, Err(Refused::Algorithm));
}

#[test]
fn a_secret_that_anybody_could_know_is_none() {
    let key = own().public().to_string();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}", "A".repeat(60));
    let der = "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    let secrets = ["", "short", &"x".repeat(31), &key, &pem, der];
    for secret in secrets {
        let secret = Secret::new(secret.to_owned());
        let refused = KeySet::of_secret(&secret).unwrap_err();
        assert!(matches!(refused, Error::WeakSecret), "{refused}");
    }
    assert!(KeySet::of_secret(&Secret::new("x".repeat(32))).is_ok());
}

#[test]
fn an_api_key_does_not_look_like_a_token() {
    let (key, _) = crate::key::ApiKey::generate();
    assert!(!looks_like(key.expose()));
    let token = own().signer().sign("at+jwt", &claims(&json!({}))).unwrap();
    assert!(looks_like(&token));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_text_breaks_the_check_or_passes_it(text in ".{0,300}", parts in prop::array::uniform3("[A-Za-z0-9_-]{0,80}")) {
        let keys = KeySet::of_own([&own()]);
        prop_assert!(verify(&text, &keys, &rules(), NOW).is_err());
        prop_assert!(verify(&parts.join("."), &keys, &rules(), NOW).is_err());
    }
}
