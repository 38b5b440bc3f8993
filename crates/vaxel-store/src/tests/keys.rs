//! API keys.

use std::time::Duration;

use vaxel_core::{
    audit::AuditLine,
    id::Id,
    principal::{Permission, Principal},
    role::BuiltIn,
};

use super::contract::{contract, traces};
use crate::{
    error::Error,
    key::{EarlierSecret, KeyRow, KeyUseRow},
    store::Store,
    tests::NOW,
};

contract!(
    a_key_is_read_as_it_was_written,
    a_key_name_is_free_again_after_its_key_was_revoked,
    a_key_is_revoked_once,
    the_last_use_is_noted,
    a_rotated_key_keeps_the_secret_before_and_is_rotated_from_the_one_it_has,
    keys_are_found_by_what_is_asked_for,
);

fn key(name: &str, prefix: &str) -> KeyRow {
    KeyRow {
        id: Id::new(NOW),
        name: name.to_owned(),
        prefix: prefix.to_owned(),
        digest: [0xA5; 32],
        user: "admin".parse().expect("a name"),
        permissions: BuiltIn::Client.permissions(),
        services: None,
        environments: None,
        created_at: NOW,
        expires_at: Some(NOW.plus(Duration::from_mins(1))),
        revoked_at: None,
        last_used_at: None,
        last_used_from: None,
        rotated_at: None,
        rotate_every: None,
        earlier: None,
    }
}

fn line(key: &KeyRow) -> AuditLine {
    let target = ("key", key.id.to_string(), key.name.clone());
    AuditLine::new(NOW, &Principal::system(), "key", target)
}

async fn create(store: &Store, key: &KeyRow) -> Result<(), Error> {
    store.create_key(key, line(key)).await
}

async fn a_key_is_read_as_it_was_written(store: &Store) {
    let written = key("ci", "vxl_abc");
    create(store, &written).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [written]);
}

async fn a_key_name_is_free_again_after_its_key_was_revoked(store: &Store) {
    let first = key("ci", "vxl_abc");
    create(store, &first).await.unwrap();
    for taken in [key("ci", "vxl_def"), key("other", "vxl_abc")] {
        let refused = create(store, &taken).await;
        assert!(matches!(refused, Err(Error::Taken)), "{refused:?}");
    }
    store.revoke_key(first.id, NOW, line(&first)).await.unwrap();
    create(store, &key("ci", "vxl_def")).await.unwrap();
    assert_eq!(traces(store).await, (3, 3));
}

async fn a_key_is_revoked_once(store: &Store) {
    let key = key("ci", "vxl_abc");
    create(store, &key).await.unwrap();
    store.revoke_key(key.id, NOW, line(&key)).await.unwrap();
    let later = NOW.plus(Duration::from_secs(5));
    let again = store.revoke_key(key.id, later, line(&key)).await;
    assert!(matches!(again, Err(Error::Missing)), "{again:?}");
    assert_eq!(store.keys().await.unwrap()[0].revoked_at, Some(NOW));
}

async fn the_last_use_is_noted(store: &Store) {
    let (used, unused) = (key("used", "vxl_a"), key("unused", "vxl_b"));
    create(store, &used).await.unwrap();
    create(store, &unused).await.unwrap();
    let note = |id| KeyUseRow {
        id,
        at: NOW,
        from: Some("192.0.2.7".to_owned()),
        is_earlier: false,
    };
    let uses = vec![note(used.id), note(Id::new(NOW))];
    store.note_key_uses(uses).await.unwrap();
    let read = store.key(used.id).await.unwrap().unwrap();
    assert_eq!(read.last_used_from.as_deref(), Some("192.0.2.7"));
    let last: Vec<_> = store.keys().await.unwrap();
    let last: Vec<_> = last
        .iter()
        .map(|key| (key.name.as_str(), key.last_used_at))
        .collect();
    assert!(
        last.contains(&("used", Some(NOW))) && last.contains(&("unused", None)),
        "{last:?}"
    );
}

fn rotated(key: &KeyRow, digest: u8) -> KeyRow {
    KeyRow {
        prefix: format!("vxl_{digest}"),
        digest: [digest; 32],
        rotated_at: Some(NOW.plus(Duration::from_secs(1))),
        earlier: Some(EarlierSecret {
            prefix: key.prefix.clone(),
            digest: key.digest,
            until: NOW.plus(Duration::from_mins(2)),
            used_at: None,
        }),
        ..key.clone()
    }
}

async fn a_rotated_key_keeps_the_secret_before_and_is_rotated_from_the_one_it_has(store: &Store) {
    let first = key("ci", "vxl_abc");
    create(store, &first).await.unwrap();
    let second = rotated(&first, 2);
    store.rotate_key(&second, line(&first)).await.unwrap();
    assert_eq!(store.key(first.id).await.unwrap().unwrap(), second);
    // Who read it before it was rotated does not rotate it.
    let stale = store.rotate_key(&rotated(&first, 3), line(&first)).await;
    assert!(matches!(stale, Err(Error::Missing)), "{stale:?}");
    let used = KeyUseRow {
        id: first.id,
        at: NOW.plus(Duration::from_secs(9)),
        from: None,
        is_earlier: true,
    };
    store.note_key_uses(vec![used.clone()]).await.unwrap();
    let read = store.key(first.id).await.unwrap().unwrap();
    assert_eq!(read.earlier.unwrap().used_at, Some(used.at));
    store.revoke_key(first.id, NOW, line(&first)).await.unwrap();
    let revoked = store.rotate_key(&rotated(&second, 4), line(&first)).await;
    assert!(matches!(revoked, Err(Error::Missing)), "{revoked:?}");
}

async fn keys_are_found_by_what_is_asked_for(store: &Store) {
    let mut keys = Vec::new();
    for number in 0..5_u64 {
        let id = Id::new(NOW.plus(Duration::from_secs(number)));
        let row = KeyRow {
            id,
            digest: [u8::try_from(number).unwrap(); 32],
            rotate_every: (number == 3).then(|| Duration::from_mins(1)),
            expires_at: Some(NOW.plus(Duration::from_mins(2))),
            user: if number == 4 { "anna" } else { "admin" }.parse().unwrap(),
            permissions: if number == 2 {
                BuiltIn::Admin
            } else {
                BuiltIn::Client
            }
            .permissions(),
            ..key(&format!("key {number}"), &format!("vxl_{number}"))
        };
        create(store, &row).await.unwrap();
        keys.push(row);
    }
    assert_eq!(store.count_keys().await.unwrap(), 5);
    let names = |rows: Vec<KeyRow>| -> Vec<char> {
        let last = |row: KeyRow| row.name.chars().last().unwrap();
        rows.into_iter().map(last).collect()
    };
    let after = Some(keys[1].id.to_string());
    let after = store.keys_after(after, 2).await.unwrap();
    assert_eq!(
        (names(after.rows), after.last),
        (vec!['2', '3'], Some(keys[3].id.to_string()))
    );
    assert_eq!(store.keys_after(None, 9).await.unwrap().length, 5);
    let newest = store.keys_before(None, None, 2).await.unwrap();
    assert_eq!((names(newest.rows), newest.length), (vec!['4', '3'], 2));
    let admin = Some("admin".parse().unwrap());
    let older = store.keys_before(Some(keys[3].id), admin, 2).await.unwrap();
    assert_eq!(names(older.rows), ['2', '1']);
    let anna = "anna".parse().unwrap();
    assert_eq!(names(store.keys_of(anna).await.unwrap()), ['4']);
    let named = store.key_named("key 1").await.unwrap();
    assert_eq!(named.as_ref(), Some(&keys[1]));
    let managers = store.keys_that_may(Permission::KeysManage).await.unwrap();
    assert_eq!(names(managers), ['2']);
    assert_eq!(names(store.keys_that_rotate().await.unwrap()), ['3']);
    let due = async |minutes: u64, after: Option<String>| -> String {
        let at = NOW.plus(Duration::from_mins(minutes));
        let page = store.keys_due(at, after, 9).await.unwrap();
        names(page.rows).into_iter().collect()
    };
    assert_eq!(due(0, None).await, "");
    assert_eq!(due(1, None).await, "3");
    assert_eq!(due(1, Some(keys[2].id.to_string())).await, "3");
    assert_eq!(due(1, Some(keys[3].id.to_string())).await, "");
    assert_eq!(due(2, None).await, "", "it has expired");
    store.settle_writes().await.unwrap();
}
