//! Waiting for changes, and that nobody misses one.

use std::{collections::BTreeSet, time::Duration};

use tokio::task::JoinSet;

use super::{contract::contract, line, postgres::Schema, service};
use crate::{error::Error, store::Store};

contract!(
    who_waits_is_woken_by_a_change,
    a_change_that_is_there_is_not_waited_for,
    numbers_of_changes_that_failed_are_used_for_others,
);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

async fn create(store: &Store, name: &str) -> Result<(), Error> {
    let service = service(name);
    let line = line(&service, "service.create");
    store.create_service(&service, Vec::new(), line).await
}

async fn who_waits_is_woken_by_a_change(store: &Store) {
    let (woken, created) = tokio::join!(
        tokio::time::timeout(PATIENCE, store.wait_for_events(0)),
        create(store, "a")
    );
    created.unwrap();
    assert_eq!(woken.expect("it is woken").unwrap(), 1);
}

async fn a_change_that_is_there_is_not_waited_for(store: &Store) {
    create(store, "a").await.unwrap();
    create(store, "b").await.unwrap();
    assert_eq!(store.wait_for_events(0).await.unwrap(), 2);
    assert_eq!(store.wait_for_events(1).await.unwrap(), 2);
}

async fn numbers_of_changes_that_failed_are_used_for_others(store: &Store) {
    create(store, "a").await.unwrap();
    let taken = create(store, "a").await;
    assert!(matches!(taken, Err(Error::Taken)), "{taken:?}");
    // Also in a transaction with others.
    let (b, taken, c) = tokio::join!(create(store, "b"), create(store, "a"), create(store, "c"));
    assert!(
        b.is_ok() && taken.is_err() && c.is_ok(),
        "{b:?} {taken:?} {c:?}"
    );
    let events = store.changes_after(0, 10).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

/// Reads on from the last number until it has seen `all`; every number must follow the one before.
async fn follow(store: &Store, all: u64) -> BTreeSet<String> {
    let mut last = 0;
    let mut seen = BTreeSet::new();
    while last < all {
        let events = store.changes_after(last, 7).await.unwrap();
        for event in &events {
            assert_eq!(event.seq, last + 1, "a hole");
            last = event.seq;
            seen.insert(event.target_id.clone());
        }
        if events.is_empty() {
            let waiting = tokio::time::timeout(PATIENCE, store.wait_for_events(last));
            waiting.await.expect("it is woken").unwrap();
        }
    }
    seen
}

/// `nodes` write `each` services, many at once, while one that only reads follows.
async fn nobody_misses_a_change(nodes: Vec<Store>, reader: Store, each: u64) {
    let all = nodes.len() as u64 * each;
    let mut writing = JoinSet::new();
    for (node, store) in nodes.into_iter().enumerate() {
        for number in 0..each {
            let store = store.clone();
            writing.spawn(async move {
                create(&store, &format!("s{node}-{number}"))
                    .await
                    .expect("it is created");
            });
        }
    }
    let seen = tokio::time::timeout(PATIENCE, follow(&reader, all));
    let (seen, _) = tokio::join!(seen, writing.join_all());
    assert_eq!(seen.expect("all are seen").len() as u64, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_are_no_holes_under_concurrent_writers() {
    let (_dir, store) = super::fresh();
    nobody_misses_a_change(vec![store.clone()], store, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn there_are_no_holes_under_concurrent_writers_of_several_nodes() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let nodes: Vec<_> = (0..4).map(|node| schema.open_another(node)).collect();
    nobody_misses_a_change(nodes, schema.open_another(9), 100).await;
}

/// The next change of another node is known long before anybody would look by itself.
#[tokio::test]
async fn a_change_of_another_node_is_heard() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let (here, there) = (schema.open_another(0), schema.open_another(1));
    // The ear is open when it has counted up once.
    let mut ticks = here.inner().ticks.subscribe();
    let waiting = here.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { waiting.wait_for_events(0).await });
    ticks.changed().await.unwrap();
    ticks.mark_unchanged();
    create(&there, "a").await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, ticks.changed()).await;
    heard.expect("it is heard").unwrap();
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), 1);
}
