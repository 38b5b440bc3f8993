use proptest::prelude::*;

use super::*;

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

proptest! {
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
