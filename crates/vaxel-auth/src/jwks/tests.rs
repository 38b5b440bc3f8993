use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{jwt, seal::RootKey};

const NOW: Timestamp = jwt::tests::NOW;
const ROTATION: Rotation = Rotation {
    algorithm: Algorithm::EdDsa,
    every: Duration::from_hours(24 * 30),
    overlap: Duration::from_hours(24),
};

/// Does what the plan says, with names for keys that count up.
fn follow(keys: &mut Vec<Placed>, rotation: Rotation, now: Timestamp, force: bool) {
    for step in plan(keys, rotation, now, force) {
        match step {
            Step::Forget(kid) => keys.retain(|key| key.kid != kid),
            Step::Move(kid, stage) => {
                let key = keys.iter_mut().find(|key| key.kid == kid).unwrap();
                (key.stage, key.since) = (stage, now);
            }
            Step::Make(stage) => {
                let made = keys.iter().filter_map(|key| key.kid.parse::<u32>().ok());
                let kid = made.max().map_or(1, |last| last + 1).to_string();
                let (algorithm, since) = (rotation.algorithm, now);
                keys.push(Placed {
                    kid,
                    algorithm,
                    stage,
                    since,
                });
            }
        }
    }
}

fn named(keys: &[Placed], stage: Stage) -> Vec<&str> {
    let at = keys.iter().filter(|key| key.stage == stage);
    at.map(|key| key.kid.as_str()).collect()
}

#[test]
fn keys_follow_each_other() {
    let mut keys = Vec::new();
    follow(&mut keys, ROTATION, NOW, false);
    assert_eq!(named(&keys, Stage::Current), ["1"]);
    assert_eq!(named(&keys, Stage::Next), ["2"]);
    assert_eq!(plan(&keys, ROTATION, NOW, false), []);
    let later = NOW.plus(ROTATION.every);
    follow(&mut keys, ROTATION, later, false);
    assert_eq!(named(&keys, Stage::Previous), ["1"]);
    assert_eq!(named(&keys, Stage::Current), ["2"]);
    assert_eq!(named(&keys, Stage::Next), ["3"]);
    follow(&mut keys, ROTATION, later.plus(ROTATION.overlap), false);
    assert_eq!(named(&keys, Stage::Previous), [""; 0]);
    follow(&mut keys, ROTATION, later.plus(ROTATION.overlap), true);
    assert_eq!(named(&keys, Stage::Current), ["3"]);
}

#[test]
fn another_algorithm_is_used_from_the_next_key_on() {
    let mut keys = Vec::new();
    follow(&mut keys, ROTATION, NOW, false);
    let other = Rotation {
        algorithm: Algorithm::Es256,
        ..ROTATION
    };
    follow(&mut keys, other, NOW, false);
    let current = keys.iter().find(|key| key.stage == Stage::Current).unwrap();
    let next = keys.iter().find(|key| key.stage == Stage::Next).unwrap();
    assert_eq!(
        (current.algorithm, next.algorithm),
        (Algorithm::EdDsa, Algorithm::Es256)
    );
}

#[test]
fn a_stored_key_opens_only_under_its_own_name_and_root() {
    for algorithm in Algorithm::OWN {
        let sealer = Sealer::new(&RootKey::ephemeral(), "values");
        let key = OwnKey::generate(algorithm).unwrap();
        let sealed = key.sealed(&sealer);
        let opened = OwnKey::open((&key.kid, algorithm), &sealer, &sealed).unwrap();
        assert_eq!(opened.public(), key.public());
        assert!(OwnKey::open(("other", algorithm), &sealer, &sealed).is_err());
        let stranger = Sealer::new(&RootKey::ephemeral(), "values");
        assert!(OwnKey::open((&key.kid, algorithm), &stranger, &sealed).is_err());
        assert!(!format!("{key:?}").contains("private"));
    }
}

#[test]
fn the_document_holds_public_halves_and_nothing_else() {
    let keys = Algorithm::OWN.map(|algorithm| OwnKey::generate(algorithm).unwrap());
    let document = document(&keys);
    let allowed = ["kty", "crv", "x", "y", "n", "e", "kid", "use", "alg"];
    for key in document["keys"].as_array().unwrap() {
        let fields = key.as_object().unwrap().keys();
        assert!(
            fields
                .into_iter()
                .all(|field| allowed.contains(&field.as_str())),
            "{key}"
        );
    }
    let read = KeySet::read(document.to_string().as_bytes()).unwrap();
    for key in &keys {
        assert!(read.find(Some(&key.kid)).is_some());
    }
    assert!(read.find(None).is_none());
}

#[test]
fn keys_of_others_that_cannot_be_trusted_are_left_out() {
    let good = OwnKey::generate(Algorithm::EdDsa).unwrap();
    let with = |change: Value| {
        let mut key = good.public().clone();
        key["kid"] = json!("bad");
        for (name, value) in change.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    };
    let short = URL_SAFE_NO_PAD.encode([0xFF; 128]);
    let bad = [
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "bad", "alg": "HS256" }),
        json!({ "kty": "RSA", "n": short, "e": "AQAB", "kid": "bad" }),
        with(json!({ "use": "enc" })),
        with(json!({ "alg": "ES256" })),
        with(json!({ "crv": "P-256" })),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "bad" }),
        json!(7),
    ];
    for bad in bad {
        let alone = json!({ "keys": [bad] }).to_string();
        assert!(KeySet::read(alone.as_bytes()).is_err(), "{bad}");
        let beside = json!({ "keys": [bad, good.public()] }).to_string();
        let read = KeySet::read(beside.as_bytes()).unwrap();
        assert!(read.find(Some("bad")).is_none() && read.find(Some(&good.kid)).is_some());
    }
    let huge = format!("{}{}", " ".repeat(DOCUMENT_MAX), document([&good]));
    assert!(KeySet::read(huge.as_bytes()).is_err());
}

proptest! {
    #[test]
    fn there_is_always_one_key_that_signs_and_one_that_will(
        steps in prop::collection::vec((0_u64..3_000, any::<bool>(), 0_usize..3), 1..30),
    ) {
        let (mut keys, mut now) = (Vec::new(), NOW);
        for (hours, force, algorithm) in steps {
            now = now.plus(Duration::from_hours(hours));
            let rotation = Rotation { algorithm: Algorithm::OWN[algorithm], ..ROTATION };
            follow(&mut keys, rotation, now, force);
            prop_assert_eq!(named(&keys, Stage::Current).len(), 1);
            prop_assert_eq!(named(&keys, Stage::Next).len(), 1);
            prop_assert_eq!(plan(&keys, rotation, now, false), []);
        }
    }

    #[test]
    fn no_document_breaks_the_reader(bytes: Vec<u8>) {
        let _ = KeySet::read(&bytes);
    }
}
