//! Moves between the engines, both ways.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use vaxel_core::{
    call::{CallRecord, Door, Outcome},
    id::Id,
    role::BuiltIn,
};

use super::{NOW, fresh, line, postgres::Schema, service};
use crate::{
    call::CallQuery,
    error::Error,
    key::KeyRow,
    secret::SecretRow,
    store::{Config, Store},
    transfer::{Moved, transfer},
};

/// Something in most tables, more than one batch of calls, and everything that is hard to carry.
async fn fill(store: &Store) {
    for number in 0..3 {
        let mut one = service(&format!("s{number}"));
        one.spec.description = Some("what's \0 this ünï; --".to_owned());
        let secret = SecretRow {
            id: Id::new(NOW),
            service: one.id,
            sealed: vec![0, 255, 7, 0],
            created_at: NOW,
        };
        let line = line(&one, "service.create");
        store
            .create_service(&one, vec![secret], line)
            .await
            .unwrap();
    }
    let key = KeyRow {
        id: Id::new(NOW),
        name: "ci".to_owned(),
        prefix: "vxl_abc".to_owned(),
        digest: [0xA5; 32],
        user: "admin".parse().expect("a name"),
        permissions: BuiltIn::Client.permissions(),
        services: None,
        environments: None,
        created_at: NOW,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
        last_used_from: None,
        rotated_at: None,
        rotate_every: None,
        earlier: None,
    };
    let target = ("key", key.id.to_string(), key.name.clone());
    let principal = vaxel_core::principal::Principal::system();
    let made = vaxel_core::audit::AuditLine::new(NOW, &principal, "key.create", target);
    store.create_key(&key, made).await.unwrap();
    store.put_meta("instance", "one".to_owned()).await.unwrap();
    let records = (0..1_234).map(|number| CallRecord {
        id: Id::new(NOW),
        at: NOW.plus(Duration::from_secs(number)),
        duration: Duration::from_micros(number),
        service: Id::new(NOW),
        service_name: "s0".parse().expect("a name"),
        method: "tools/call",
        target: "read".into(),
        principal: None,
        principal_name: "ci".into(),
        outcome: Outcome::Ok,
        error: (number % 2 == 0).then(|| "it broke".into()),
        request_bytes: number,
        response_bytes: 20,
        client_revision: "2026-07-28",
        upstream_revision: "2025-06-18",
        door: Door::Mcp,
        trace_id: None,
        request: Some(bytes::Bytes::from_static(b"{\"a\":\0}")),
        response: None,
    });
    store.record_calls(records.collect()).await.unwrap();
}

/// What a person would look at, as text.
async fn seen(store: &Store) -> String {
    let services = store.all_services().await.unwrap();
    let keys = store.keys().await.unwrap();
    let secrets = store.secrets_after(None, 100).await.unwrap();
    let lines = store.audit_lines(100, None).await.unwrap();
    let events = store.changes_after(0, 100).await.unwrap();
    let calls = store
        .calls(CallQuery::default(), 2_000, None)
        .await
        .unwrap();
    let meta = store.meta("instance").await.unwrap();
    format!("{services:?}\n{keys:?}\n{secrets:?}\n{lines:?}\n{events:?}\n{calls:?}\n{meta:?}")
}

#[tokio::test]
async fn everything_is_moved_to_a_server_and_back() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (dir, store) = fresh();
    fill(&store).await;
    let before = seen(&store).await;
    store.close().await;
    drop(store);
    let files = Config::new(dir.path());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let told = Arc::clone(&told);
        move |moved: &Moved| told.lock().push(moved.clone())
    };
    let moved = transfer(&files, &schema.config(), tell).await.unwrap();
    assert_eq!(*told.lock(), moved);
    let rows = |name: &str| {
        moved
            .iter()
            .find(|moved| moved.table == name)
            .map(|moved| moved.rows)
    };
    assert_eq!(
        (rows("services"), rows("calls"), rows("outbox")),
        (Some(3), Some(1_234), Some(4))
    );
    // The source is as it was, and the target the same.
    assert_eq!(seen(&super::open(dir.path())).await, before);
    let server = schema.open();
    assert_eq!(seen(&server).await, before);
    // Numbers go on.
    let one = service("later");
    let made = line(&one, "service.create");
    server.create_service(&one, Vec::new(), made).await.unwrap();
    assert_eq!(server.last_change().await.unwrap(), 5);
    let newest = server.audit_lines(1, None).await.unwrap();
    assert_eq!(
        (newest[0].seq, newest[0].target_name.as_str()),
        (5, "later")
    );
    let after = seen(&server).await;
    server.close().await;
    drop(server);

    let home = tempfile::tempdir().unwrap();
    let back = Config::new(home.path().join("new"));
    transfer(&schema.config(), &back, |_| {}).await.unwrap();
    assert_eq!(seen(&Store::open(&back).unwrap()).await, after);
}

#[tokio::test]
async fn a_place_that_holds_something_is_not_moved_to() {
    let (dir, store) = fresh();
    store.put_meta("a", "b".to_owned()).await.unwrap();
    drop(store);
    let from = Config::new(dir.path());
    let other = tempfile::tempdir().unwrap();
    let to = Config::new(other.path());
    let target = Store::open(&to).unwrap();
    target.put_meta("c", "d".to_owned()).await.unwrap();
    drop(target);
    let refused = transfer(&from, &to, |_| {}).await.unwrap_err();
    assert!(
        matches!(refused, Error::NotEmpty { rows: 1, .. }),
        "{refused:?}"
    );
    let said = refused.to_string();
    assert!(
        said.contains("meta") && said.contains("nothing was moved"),
        "{said}"
    );
    let kept = Store::open(&to).unwrap();
    assert_eq!(kept.meta("a").await.unwrap(), None);
    assert_eq!(kept.meta("c").await.unwrap().as_deref(), Some("d"));
}

#[tokio::test]
async fn a_store_that_is_in_use_is_not_moved() {
    let (dir, store) = fresh();
    let other = tempfile::tempdir().unwrap();
    let to = Config::new(other.path());
    let refused = transfer(&Config::new(dir.path()), &to, |_| {}).await;
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    drop(store);
    transfer(&Config::new(dir.path()), &to, |_| {})
        .await
        .unwrap();
}

#[tokio::test]
async fn a_move_that_fails_half_way_leaves_the_target_empty() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (dir, store) = fresh();
    fill(&store).await;
    drop(store);
    drop(schema.open());
    let from = Config::new(dir.path());
    // In the first transaction, and in the second one.
    for (table, check) in [
        ("services", "name <> 's2'"),
        ("calls", "request_bytes < 1200"),
    ] {
        schema.run(&format!(
            "ALTER TABLE {table} ADD CONSTRAINT never CHECK ({check});"
        ));
        let failed = transfer(&from, &schema.config(), |_| {}).await;
        assert!(matches!(failed, Err(Error::Engine(_))), "{failed:?}");
        schema.run(&format!("ALTER TABLE {table} DROP CONSTRAINT never;"));
    }
    transfer(&from, &schema.config(), |_| {}).await.unwrap();
}
