use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;

fn sealer() -> Sealer {
    Sealer::new(&RootKey::ephemeral(), "test")
}

fn is_unsealable<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unsealable))
}

#[test]
fn a_new_root_key_is_kept_and_only_its_owner_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let made = RootKey::load_or_create(&path).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), 32);
    assert_eq!(*RootKey::load_or_create(&path).unwrap().0, *made.0);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "the draft is gone"
    );
}

#[test]
fn processes_that_start_together_agree_on_one_root_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let keys: Vec<_> = std::thread::scope(|scope| {
        let load = || RootKey::load_or_create(&path).unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(keys.iter().all(|key| *key.0 == *keys[0].0));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_root_key_that_others_can_read_is_refused_with_the_command_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    RootKey::load_or_create(&path).unwrap();
    for mode in [0o640, 0o604, 0o644, 0o602, 0o610] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = RootKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, Error::RootKeyExposed { mode: found, .. } if found == mode));
        assert!(
            error
                .to_string()
                .ends_with(&format!("run `chmod 600 {}`", path.display()))
        );
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    RootKey::load_or_create(&path).unwrap();
}

#[test]
fn a_damaged_root_key_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for length in [0, 31, 33, 4096] {
        let path = folder.path().join(format!("{length}.key"));
        fs::write(&path, vec![7; length]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = RootKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, Error::RootKeyDamaged { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), vec![7; length]);
    }
}

#[test]
fn a_folder_that_does_not_exist_and_a_name_that_leads_nowhere_are_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing").join("root.key");
    let error = RootKey::load_or_create(&path).unwrap_err().to_string();
    assert!(
        error.contains("missing/root.key") && error.contains("created"),
        "{error}"
    );
    let dangling = folder.path().join("dangling.key");
    symlink(folder.path().join("nowhere"), &dangling).unwrap();
    let error = RootKey::load_or_create(&dangling).unwrap_err().to_string();
    assert!(error.contains("dangling.key"), "{error}");
}

#[test]
fn the_same_root_and_purpose_open_what_they_sealed_before() {
    let root = RootKey::ephemeral();
    let sealed = Sealer::new(&root, "environment").seal(b"a", b"value");
    let opened = Sealer::new(&root, "environment")
        .open(b"a", &sealed)
        .unwrap();
    assert_eq!(opened.expose(), b"value");
}

#[test]
fn the_layout_and_the_derivation_of_keys_never_change() {
    // Made by this code in version 1: later versions must still open it.
    let root = RootKey(Zeroizing::new([42; KEY]));
    let opened = Sealer::new(&root, "test")
        .open_text(b"context", SEALED_BY_VERSION_1)
        .unwrap();
    assert_eq!(opened.expose(), b"a value from the past");
}

#[test]
fn another_root_or_purpose_is_told_apart_from_tampering() {
    let root = RootKey::ephemeral();
    let sealed = Sealer::new(&root, "one").seal(b"a", b"value");
    let other_purpose = Sealer::new(&root, "two").open(b"a", &sealed);
    assert!(matches!(other_purpose, Err(Error::OtherKey)));
    let other_root = Sealer::new(&RootKey::ephemeral(), "one").open(b"a", &sealed);
    assert!(matches!(other_root, Err(Error::OtherKey)));
}

#[test]
fn sealing_twice_gives_two_texts() {
    let sealer = sealer();
    assert_ne!(
        sealer.seal_text(b"", b"same"),
        sealer.seal_text(b"", b"same")
    );
}

#[test]
fn neither_debug_shows_a_key() {
    let root = RootKey::ephemeral();
    assert_eq!(
        format!("{root:?} {:?}", Sealer::new(&root, "x")),
        "RootKey Sealer(x)"
    );
}

proptest! {
    #[test]
    fn what_is_sealed_opens_with_its_context_only(plain: Vec<u8>, context: Vec<u8>, other: Vec<u8>) {
        let sealer = sealer();
        let sealed = sealer.seal(&context, &plain);
        prop_assert_eq!(sealed.len(), plain.len() + HEADER + NONCE + TAG);
        let opened = sealer.open(&context, &sealed).unwrap();
        prop_assert_eq!(opened.expose(), &plain);
        let text = sealer.seal_text(&context, &plain);
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let reopened = sealer.open_text(&context, &text).unwrap();
        prop_assert_eq!(reopened.expose(), &plain);
        prop_assume!(other != context);
        prop_assert!(is_unsealable(&sealer.open(&other, &sealed)));
    }

    #[test]
    fn no_changed_or_shortened_value_opens(plain: Vec<u8>, at: prop::sample::Index, bit in 0..8_u32) {
        let sealer = sealer();
        let sealed = sealer.seal(b"context", &plain);
        let mut changed = sealed.clone();
        changed[at.index(sealed.len())] ^= 1 << bit;
        prop_assert!(sealer.open(b"context", &changed).is_err());
        prop_assert!(is_unsealable(&sealer.open(b"context", &sealed[..at.index(sealed.len())])));
        let longer = [&sealed[..], &[0]].concat();
        prop_assert!(is_unsealable(&sealer.open(b"context", &longer)));
    }

    #[test]
    fn arbitrary_bytes_and_texts_are_refused(bytes: Vec<u8>, text: String) {
        let sealer = sealer();
        prop_assert!(sealer.open(b"", &bytes).is_err());
        prop_assert!(sealer.open_text(b"", &text).is_err());
    }
}

const SEALED_BY_VERSION_1: &str =
    "AUDab5cTnITfTQ4pR9y__e06NYoyyNtuN3sPtRJiVg1NTwcvzx9somFB8lt5H4OVXa86olvW";
