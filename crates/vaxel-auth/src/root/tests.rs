use std::fs;

use super::*;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn in_file(dir: &Path) -> RootKeys {
    RootKeys::load_or_create(dir).unwrap()
}

fn given(dir: &Path, key: &RootKey) -> Result<RootKeys, Error> {
    RootKeys::from_given(dir, Given::Environment, key)
}

fn opens(keys: &RootKeys, sealed: &[u8]) -> bool {
    keys.sealer("x").open(b"c", sealed).is_ok()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_key_is_read_as_hexadecimal_digits_or_base64() {
    let expected = RootKey::from_text(HEX).unwrap().id();
    for text in [
        format!(" {}\n", HEX.to_uppercase()),
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n".to_owned(),
    ] {
        assert_eq!(RootKey::from_text(&text).unwrap().id(), expected);
    }
    for text in [
        "",
        "abc",
        &HEX[1..],
        &format!("{HEX}00"),
        &HEX.replace('f', "g"),
        "ÄÄ".repeat(16).as_str(),
    ] {
        assert!(
            matches!(RootKey::from_text(text), Err(Error::RootKeyText)),
            "{text}"
        );
    }
}

#[test]
fn a_replaced_key_opens_until_it_is_forgotten_and_sealers_follow() {
    let folder = folder();
    let keys = in_file(folder.path());
    let sealer = keys.sealer("x");
    let old = sealer.seal(b"c", b"plain");
    assert!(!sealer.is_outdated(&old));
    let before = keys.facts();
    keys.replace(None).unwrap();
    assert!(matches!(keys.replace(None), Err(Error::RootKeyReplacing)));
    let after = keys.facts();
    assert_ne!(after.id, before.id);
    assert_eq!(after.earlier, [before.id]);
    assert!(sealer.is_outdated(&old) && sealer.open(b"c", &old).is_ok());
    let renewed = sealer.renewed(b"c", &old).unwrap().unwrap();
    assert!(!sealer.is_outdated(&renewed) && sealer.open(b"c", &renewed).is_ok());
    assert!(sealer.renewed(b"c", &renewed).unwrap().is_none());
    assert!(sealer.renewed(b"d", &old).is_err());
    let new = sealer.seal(b"c", b"plain");
    assert!(!sealer.is_outdated(&new) && sealer.open(b"c", &new).is_ok());
    assert_eq!(names(folder.path()), [FILE, OLD]);
    // A start in the middle of it has both.
    let again = in_file(folder.path());
    assert!(again.has_earlier() && opens(&again, &old) && opens(&again, &new));

    keys.forget_earlier().unwrap();
    assert_eq!(names(folder.path()), [FILE]);
    let again = in_file(folder.path());
    assert!(!again.has_earlier() && !opens(&again, &old) && opens(&again, &new));
    keys.replace(None).unwrap();
    assert!(opens(&in_file(folder.path()), &new));
}

#[test]
fn a_crash_between_the_two_files_leaves_the_key_as_it_was() {
    let folder = folder();
    let sealed = in_file(folder.path()).sealer("x").seal(b"c", b"plain");
    fs::copy(folder.path().join(FILE), folder.path().join(OLD)).unwrap();
    let keys = in_file(folder.path());
    assert!(!keys.has_earlier() && opens(&keys, &sealed));
    keys.replace(None).unwrap();
    assert!(opens(&in_file(folder.path()), &sealed));
}

#[test]
fn a_given_key_is_kept_nowhere_and_another_one_is_refused() {
    let (folder, key) = (folder(), RootKey::ephemeral());
    let sealed = given(folder.path(), &key)
        .unwrap()
        .sealer("x")
        .seal(b"c", b"plain");
    assert_eq!(names(folder.path()), [NOTE]);
    let kept = fs::read(folder.path().join(NOTE)).unwrap();
    assert!(
        !kept
            .windows(8)
            .any(|window| key.bytes().starts_with(window))
    );
    assert!(opens(&given(folder.path(), &key).unwrap(), &sealed));
    let other = given(folder.path(), &RootKey::ephemeral()).unwrap_err();
    assert!(matches!(other, Error::RootKeyOther { .. }), "{other}");
    // Without it, no new one is made.
    let missing = RootKeys::load_or_create(folder.path()).unwrap_err();
    assert!(
        matches!(missing, Error::RootKeyElsewhere { .. }),
        "{missing}"
    );
    assert_eq!(names(folder.path()), [NOTE]);
    // Nor is another one taken that lies there.
    private::replace(&folder.path().join(FILE), RootKey::ephemeral().bytes()).unwrap();
    let other = RootKeys::load_or_create(folder.path()).unwrap_err();
    assert!(matches!(other, Error::RootKeyElsewhere { .. }), "{other}");
}

#[test]
fn either_of_two_given_keys_leads_to_both_while_one_replaces_the_other() {
    let (folder, old, new) = (folder(), RootKey::ephemeral(), RootKey::ephemeral());
    let keys = given(folder.path(), &old).unwrap();
    let sealed = keys.sealer("x").seal(b"c", b"plain");
    for wrong in [None, Some(old.clone())] {
        assert!(matches!(keys.replace(wrong), Err(Error::RootKeyWanted(_))));
    }
    keys.replace(Some(new.clone())).unwrap();
    assert!(keys.facts().is_stale);
    for one in [&old, &new] {
        let keys = given(folder.path(), one).unwrap();
        assert_eq!(keys.facts().id, new.id());
        assert_eq!(keys.facts().earlier, [old.id()]);
        assert_eq!(keys.facts().is_stale, one.id() == old.id());
        assert!(opens(&keys, &sealed));
    }
    // As long as the old one is given it leads to the new one; from then on it does not.
    given(folder.path(), &old)
        .unwrap()
        .forget_earlier()
        .unwrap();
    let stale = given(folder.path(), &old).unwrap();
    assert_eq!(stale.facts().id, new.id());
    given(folder.path(), &new)
        .unwrap()
        .forget_earlier()
        .unwrap();
    let refused = given(folder.path(), &old).unwrap_err();
    assert!(matches!(refused, Error::RootKeyOther { .. }), "{refused}");
    assert!(!given(folder.path(), &new).unwrap().has_earlier());
}

#[test]
fn a_key_moves_from_its_file_to_the_environment_and_back() {
    let (folder, key) = (folder(), RootKey::ephemeral());
    let sealed = in_file(folder.path()).sealer("x").seal(b"c", b"plain");
    let keys = given(folder.path(), &key).unwrap();
    assert!(opens(&keys, &sealed));
    let again = keys.sealer("x").seal(b"c", b"plain");
    keys.forget_earlier().unwrap();
    assert_eq!(names(folder.path()), [NOTE]);
    private::replace(&folder.path().join(FILE), key.bytes()).unwrap();
    let keys = in_file(folder.path());
    assert!(opens(&keys, &again) && !keys.has_earlier());
    keys.forget_earlier().unwrap();
    assert_eq!(names(folder.path()), [FILE]);
}

/// A data directory whose key was given once, and has been in a file since.
fn moved_to_file() -> (tempfile::TempDir, RootKey) {
    let (folder, key) = (folder(), RootKey::ephemeral());
    given(folder.path(), &key)
        .unwrap()
        .forget_earlier()
        .unwrap();
    private::replace(&folder.path().join(FILE), key.bytes()).unwrap();
    (folder, key)
}

#[test]
fn a_kill_between_any_two_steps_of_another_key_leaves_what_a_start_needs() {
    // In a file from the beginning, in a file since it was given, and given.
    for origin in 0..3 {
        for done in 0.. {
            let (folder, key) = match origin {
                0 => {
                    let folder = folder();
                    in_file(folder.path());
                    let key = RootKey::load(&folder.path().join(FILE)).unwrap().unwrap();
                    (folder, key)
                }
                1 => moved_to_file(),
                _ => {
                    let (folder, key) = (folder(), RootKey::ephemeral());
                    given(folder.path(), &key).unwrap();
                    (folder, key)
                }
            };
            let (dir, next) = (folder.path(), RootKey::ephemeral());
            let source = (origin == 2).then_some(Given::Environment);
            let start = || match source {
                None => RootKeys::load_or_create(dir),
                Some(_) => given(dir, &key),
            };
            let sealed = start().unwrap().sealer("x").seal(b"c", b"plain");
            let all = steps(source, &key, &next);
            if done > all.len() {
                break;
            }
            for step in &all[..done] {
                step.take(dir).unwrap();
            }
            // It was killed here.
            let keys = start().unwrap_or_else(|error| panic!("{origin}, {done} done: {error}"));
            assert!(opens(&keys, &sealed), "{origin}, {done} done");
            if done == all.len() {
                assert_eq!(keys.facts().id, next.id(), "{origin}");
            }
            // What it goes on with can be killed as well.
            keys.forget_earlier().unwrap();
            assert!(start().is_ok(), "{origin}, {done} done");
        }
    }
}
