use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn entry(key: StoredKey, principal: &'static str) -> KeyEntry<&'static str> {
    KeyEntry {
        key,
        principal,
        expires_at: None,
        revoked: false,
        disabled: None,
    }
}

#[test]
fn a_generated_key_survives_shells_and_double_clicks() {
    let (text, stored) = ApiKey::generate();
    let text = text.expose();
    assert_eq!(text.len(), 47);
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    );
    assert!(text.starts_with(stored.prefix.as_str()));
    assert_eq!(StoredKey::of(text), Some(stored));
    assert_eq!(stored.prefix.to_string().parse(), Ok(stored.prefix));
    assert_eq!("vxl_short".parse::<Prefix>(), Err(InvalidPrefix));
}

#[test]
fn two_generated_keys_share_nothing() {
    let ((one, one_stored), (two, two_stored)) = (ApiKey::generate(), ApiKey::generate());
    assert_ne!(one.expose(), two.expose());
    assert_ne!(one_stored.prefix, two_stored.prefix);
    assert_ne!(one_stored.digest, two_stored.digest);
}

#[test]
fn the_digest_is_sha_256_of_the_whole_text() {
    let text = "vxl_0123456789_abcdefghijklmnopqrstuvwxyzABCDEF";
    let expected: [u8; 32] = digest::digest(&digest::SHA256, text.as_bytes())
        .as_ref()
        .try_into()
        .unwrap();
    assert_eq!(StoredKey::of(text).unwrap().digest, expected);
}

#[test]
fn a_ring_finds_the_holder_of_each_key() {
    let keys: Vec<_> = (0..50).map(|_| ApiKey::generate()).collect();
    let names: Vec<&'static str> = (0..50)
        .map(|index| &*Box::leak(format!("holder {index}").into_boxed_str()))
        .collect();
    let ring: KeyRing<_> = keys
        .iter()
        .zip(&names)
        .map(|((_, stored), name)| entry(*stored, name))
        .collect();
    assert_eq!(ring.len(), 50);
    for ((text, _), name) in keys.iter().zip(&names) {
        assert_eq!(ring.find(text.expose(), NOW), Ok(name));
    }
    assert_eq!(
        ring.find(ApiKey::generate().0.expose(), NOW),
        Err(Refused::Unknown)
    );
}

#[test]
fn a_known_prefix_with_a_wrong_secret_is_unknown_even_when_expired_or_revoked() {
    let (text, stored) = ApiKey::generate();
    let mut revoked = entry(stored, "me");
    revoked.revoked = true;
    revoked.expires_at = Some(Timestamp::default());
    let ring = KeyRing::from_iter([revoked]);
    assert_eq!(ring.find(text.expose(), NOW), Err(Refused::Revoked));
    let wrong = format!("{}_{}", stored.prefix, random::token(32));
    assert_eq!(ring.find(&wrong, NOW), Err(Refused::Unknown));
}

#[test]
fn a_key_works_until_the_moment_it_expires() {
    let (text, stored) = ApiKey::generate();
    let mut expiring = entry(stored, "me");
    expiring.expires_at = Some(NOW);
    let ring = KeyRing::from_iter([expiring]);
    assert_eq!(
        ring.find(text.expose(), Timestamp::from_millis(999)),
        Ok(&"me")
    );
    assert_eq!(ring.find(text.expose(), NOW), Err(Refused::Expired));
}

#[test]
fn an_unknown_prefix_does_not_match_the_placeholder_of_the_comparison() {
    let mut zero = entry(ApiKey::generate().1, "me");
    zero.key.digest = [0; 32];
    let text = format!("{}_{}", zero.key.prefix, random::token(32));
    let ring = KeyRing::from_iter([zero]);
    assert_eq!(ring.find(&text, NOW), Err(Refused::Unknown));
    assert_eq!(
        KeyRing::<()>::default().find(&text, NOW),
        Err(Refused::Unknown)
    );
}

proptest! {
    #[test]
    fn any_change_of_a_key_makes_it_unknown(at in 0_usize..47, to: char) {
        let (text, stored) = ApiKey::generate();
        let ring = KeyRing::from_iter([entry(stored, "me")]);
        let mut letters: Vec<char> = text.expose().chars().collect();
        prop_assume!(letters[at] != to);
        letters[at] = to;
        let changed: String = letters.into_iter().collect();
        prop_assert_eq!(ring.find(&changed, NOW), Err(Refused::Unknown));
        let longer = format!("{}{to}", text.expose());
        prop_assert_eq!(ring.find(&longer, NOW), Err(Refused::Unknown));
    }

    #[test]
    fn no_text_is_taken_for_a_key_unless_it_has_the_form_of_one(text in "(vxl_)?[a-zA-Z0-9_é ]{0,90}") {
        let formed = StoredKey::of(&text).is_some();
        let parts: Vec<&str> = text.split('_').collect();
        let expected = matches!(parts[..], ["vxl", public, secret] if public.len() == 10
            && (32..=64).contains(&secret.len())
            && [public, secret].iter().all(|part| part.bytes().all(|b| b.is_ascii_alphanumeric())));
        prop_assert_eq!(formed, expected);
    }
}
