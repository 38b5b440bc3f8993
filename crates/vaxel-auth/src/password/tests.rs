use proptest::prelude::*;

use super::*;

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

#[test]
fn a_password_is_recognised_and_no_other() {
    let kept = Kept::of(&secret("correct horse battery"));
    let right = Check::Right { outdated: false };
    assert_eq!(check(&secret("correct horse battery"), Some(&kept)), right);
    for wrong in ["", "correct horse batterz", "correct horse battery "] {
        assert_eq!(check(&secret(wrong), Some(&kept)), Check::Wrong, "{wrong}");
    }
    assert_ne!(kept, Kept::of(&secret("correct horse battery")));
    assert!(!format!("{kept:?}").contains("argon"));
}

#[test]
fn nobody_has_a_password_that_was_never_set() {
    for text in ["", "\0", "correct horse battery"] {
        assert_eq!(check(&secret(text), None), Check::Wrong, "{text}");
    }
}

/// The reference implementation (`echo -n password | argon2 somesalt -id -t 2 -k 65536 -l 32`, RFC 9106).
#[test]
fn what_others_kept_is_read_and_kept_anew() {
    let kept = Kept::stored(
        "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
         $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
            .to_owned(),
    );
    let outdated = Check::Right { outdated: true };
    assert_eq!(check(&secret("password"), Some(&kept)), outdated);
    assert_eq!(check(&secret("passwore"), Some(&kept)), Check::Wrong);
}

#[test]
fn a_kept_password_that_would_cost_a_machine_is_nobodys() {
    let hash = "c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    for cost in [
        "m=4294967295,t=2,p=1",
        "m=65536,t=4000,p=1",
        "m=65536,t=2,p=400",
    ] {
        let kept = Kept::stored(format!("$argon2id$v=19${cost}${hash}"));
        assert_eq!(check(&secret("password"), Some(&kept)), Check::Wrong);
    }
}

#[test]
fn a_text_that_is_too_long_is_nobodys_password() {
    let long = "x".repeat(BYTES_MAX + 1);
    let kept = Kept::of(&secret(&long[..BYTES_MAX]));
    assert_eq!(check(&secret(&long), Some(&kept)), Check::Wrong);
    let wide = "€".repeat(1_000);
    assert_eq!(check(&secret(&wide), Some(&kept)), Check::Wrong);
}

#[test]
fn a_new_password_is_long_and_neither_the_name_nor_common() {
    for good in [
        "twelve chars",
        "ümlautümlaut",
        &"x".repeat(256),
        "annalind@home",
    ] {
        assert_eq!(problems(good, "anna"), [], "{good}");
    }
    let bad = [
        "",
        "eleven char",
        &"x".repeat(257),
        "Password1234",
        "ANNA@example.com",
    ];
    for bad in bad {
        assert_eq!(problems(bad, "anna@example.com").len(), 1, "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_stored_text_breaks_the_check(text in "(\\$argon2id\\$v=19\\$)?m=[0-9]{1,4},t=[0-9],p=[0-9]\\$[A-Za-z0-9+/]{0,30}\\$.{0,60}") {
        let _ = check(&secret("password"), Some(&Kept::stored(text)));
    }
}
