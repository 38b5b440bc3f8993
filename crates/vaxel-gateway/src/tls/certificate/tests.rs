use std::time::Duration;

use super::*;
use crate::tls::{VALID, self_signed};

const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_000);

fn made(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = self_signed::make(&names, NOW).unwrap();
    (made.certificate, made.key.to_string())
}

fn problems(chain: &str, key: &str, now: Timestamp) -> Vec<String> {
    Certificate::read(Some(chain.as_bytes()), Some(key.as_bytes()), now).unwrap_err()
}

#[test]
fn a_certificate_of_our_own_says_whom_it_is_for_and_how_long() {
    let (chain, key) = made(&["localhost", "127.0.0.1", "::1", "vaxel.example.com"]);
    let read = Certificate::read(Some(chain.as_bytes()), Some(key.as_bytes()), NOW).unwrap();
    let facts = read.facts();
    assert_eq!(
        facts.names,
        ["localhost", "127.0.0.1", "::1", "vaxel.example.com"]
    );
    assert!(facts.from < NOW && facts.until.plus(Duration::from_hours(49)) > NOW.plus(VALID));
    assert_eq!(facts.fingerprint.len(), 64);
    let shown = format!("{read:?}");
    assert!(
        !shown.contains("PRIVATE") && shown.contains(&facts.fingerprint),
        "{shown}"
    );
}

#[test]
fn two_of_our_own_are_never_the_same() {
    let (one, _) = made(&["localhost"]);
    let (other, _) = made(&["localhost"]);
    assert_ne!(one, other);
}

#[test]
fn the_key_of_another_certificate_is_refused_and_so_is_a_chain_in_the_wrong_order() {
    let (chain, key) = made(&["a.example"]);
    let (other, _) = made(&["b.example"]);
    assert_eq!(
        problems(&other, &key, NOW),
        ["the key does not belong to the certificate"]
    );
    assert_eq!(
        problems(&format!("{other}{chain}"), &key, NOW),
        ["the key belongs to certificate 2 of the chain: the server's own must be the first"]
    );
    assert!(
        Certificate::read(
            Some(format!("{chain}{other}").as_bytes()),
            Some(key.as_bytes()),
            NOW
        )
        .is_ok()
    );
}

#[test]
fn certificates_that_are_over_or_have_not_begun_are_refused() {
    let (chain, key) = made(&["a.example"]);
    let over = problems(&chain, &key, NOW.plus(VALID));
    assert!(
        over[0].starts_with("the certificate is good no more: it expired at 20"),
        "{over:?}"
    );
    let early = Timestamp::from_millis(NOW.as_millis() - 3 * 86_400_000);
    let early = problems(&chain, &key, early);
    assert!(
        early[0].starts_with("the certificate is not good yet"),
        "{early:?}"
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let (chain, _) = made(&["a.example"]);
    let (_, other) = made(&["a.example"]);
    let told = problems(&chain, &other, NOW.plus(VALID));
    assert_eq!(told.len(), 2, "{told:?}");
    let told = problems("nothing", "nothing", NOW);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("BEGIN CERTIFICATE") && told[1].contains("BEGIN PRIVATE KEY"));
}

#[test]
fn an_encrypted_key_is_called_that() {
    let (chain, key) = made(&["a.example"]);
    for encrypted in [
        key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n".to_owned(),
    ] {
        let told = problems(&chain, &encrypted, NOW);
        assert!(told.len() == 1 && told[0].contains("the key is encrypted"), "{told:?}");
    }
}

#[test]
fn what_could_not_be_read_hides_no_problem_of_the_other_one() {
    let (chain, key) = made(&["a.example"]);
    let told = Certificate::read(Some(chain.as_bytes()), None, NOW.plus(VALID)).unwrap_err();
    assert!(told.len() == 1 && told[0].contains("expired"), "{told:?}");
    let told = Certificate::read(None, Some(key.as_bytes()), NOW).unwrap_err();
    assert_eq!(told, Vec::<String>::new());
}

#[test]
fn damaged_texts_are_problems_and_nothing_worse() {
    let (chain, key) = made(&["a.example"]);
    for end in (0..chain.len()).step_by(7) {
        let told = problems(&chain[..end], &key[..end.min(key.len() - 10)], NOW);
        assert!(!told.is_empty());
    }
    let garbled = chain.replace("MII", "AAA");
    assert!(!problems(&garbled, &key, NOW).is_empty());
    // A certificate in the place of the key, and the other way round.
    assert_eq!(problems(&key, &chain, NOW).len(), 2);
}
