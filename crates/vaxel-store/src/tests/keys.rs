//! API keys.

use std::time::Duration;

use vaxel_core::{audit::AuditLine, id::Id, principal::Principal, role::BuiltIn};

use super::contract::{contract, traces};
use crate::{error::Error, key::KeyRow, store::Store, tests::NOW};

contract!(
    a_key_is_read_as_it_was_written,
    a_key_name_is_free_again_after_its_key_was_revoked,
    a_key_is_revoked_once,
    the_last_use_is_noted,
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
    let uses = vec![(used.id, NOW), (Id::new(NOW), NOW)];
    store.note_key_uses(uses).await.unwrap();
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
