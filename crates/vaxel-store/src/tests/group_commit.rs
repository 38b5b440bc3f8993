//! Many writers, one transaction: what they share and what they do not.

use std::{sync::mpsc, time::Duration};

use tokio::task::JoinSet;

use super::{NOW, contract::contract, fresh, postgres::Schema, put};
use crate::{
    error::Error,
    stmt::Stmt,
    store::{Config, Store},
};

contract!(
    writers_that_wait_share_one_commit,
    a_writer_that_fails_or_panics_rolls_back_alone,
    a_write_whose_caller_went_away_before_it_began_is_not_begun,
    a_reader_that_panics_is_there_for_the_next_one,
);

/// Keeps the writer busy until the returned sender is used or dropped, so that what is written
/// meanwhile is committed together.
async fn hold(store: &Store, tasks: &mut JoinSet<()>) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let entered = parking_lot::Mutex::new(Some(entered));
    let released = parking_lot::Mutex::new(released);
    let store = store.clone();
    tasks.spawn(async move {
        let held = store.write("hold", move |_| {
            if let Some(entered) = entered.lock().take() {
                entered.send(()).expect("the test waits");
            }
            released.lock().recv().expect_err("it is dropped");
            Ok(())
        });
        // Tests of deadlines hold the writer longer than this one waits.
        drop(held.await);
    });
    inside.await.expect("the writer runs");
    release
}

async fn queued(store: &Store, count: u64) {
    while store.stats().queued < count {
        tokio::task::yield_now().await;
    }
}

async fn writers_that_wait_share_one_commit(store: &Store) {
    let mut tasks = JoinSet::new();
    let release = hold(store, &mut tasks).await;
    for number in 0..100 {
        let store = store.clone();
        tasks.spawn(async move {
            let name = format!("note-{number}");
            let written = store.write_demo_note(&name, "text".to_owned(), NOW).await;
            written.expect("it is written");
        });
    }
    queued(store, 100).await;
    drop(release);
    tasks.join_all().await;
    let stats = store.stats();
    assert_eq!((stats.writes, stats.commits), (101, 2));
    assert_eq!(store.demo_notes().await.unwrap().len(), 100);
    let notes = stats.transactions.iter();
    let notes = notes.filter(|stats| stats.name == "write_demo_note");
    assert_eq!(notes.map(|stats| stats.count).sum::<u64>(), 100);
}

async fn a_writer_that_fails_or_panics_rolls_back_alone(store: &Store) {
    let mut tasks = JoinSet::new();
    let release = hold(store, &mut tasks).await;
    let (first, failing, panicking, last, ()) = tokio::join!(
        store.write("first", |tx| put(tx, "first", "")),
        store.write("failing", |tx| {
            put(tx, "of the failing", "")?;
            Err::<(), _>(Error::Changed)
        }),
        store.write("panicking", |tx| -> Result<(), Error> {
            put(tx, "of the panicking", "")?;
            panic!("on purpose")
        }),
        store.write("last", |tx| put(tx, "last", "")),
        async {
            queued(store, 4).await;
            drop(release);
        }
    );
    assert!(first.is_ok() && last.is_ok(), "{first:?} {last:?}");
    assert!(matches!(failing, Err(Error::Changed)), "{failing:?}");
    assert!(matches!(panicking, Err(Error::Panicked)), "{panicking:?}");
    assert_eq!(store.demo_notes().await.unwrap(), ["first", "last"]);
    assert_eq!(store.stats().commits, 2);
    let last_error = store.stats().last_error;
    assert_eq!(
        last_error.as_deref(),
        Some("panicking: a transaction panicked")
    );
}

#[tokio::test]
async fn a_full_disk_in_the_middle_of_a_batch_leaves_nothing_half_said() {
    // Stands for a disk with no room for another page: SQLite then gives up the whole transaction.
    static LIMIT: Stmt = Stmt::new("PRAGMA max_page_count = 1");
    let (_dir, store) = fresh();
    let mut tasks = JoinSet::new();
    let release = hold(&store, &mut tasks).await;
    let write = |name: &'static str, size: usize| {
        store.write("put", move |tx| {
            tx.query(&LIMIT, &[], |_| Ok(()))?;
            put(tx, name, &"x".repeat(size))
        })
    };
    let (before, full, after, ()) = tokio::join!(
        write("before", 1),
        write("full", 1 << 20),
        write("after", 1),
        async {
            queued(&store, 3).await;
            drop(release);
        }
    );
    assert!(matches!(full, Err(Error::Full)), "{full:?}");
    assert!(before.is_ok() && after.is_ok(), "{before:?} {after:?}");
    assert_eq!(store.demo_notes().await.unwrap(), ["after", "before"]);
}

async fn a_write_whose_caller_went_away_before_it_began_is_not_begun(store: &Store) {
    let mut tasks = JoinSet::new();
    let release = hold(store, &mut tasks).await;
    let mut leaving = JoinSet::new();
    let writer = store.clone();
    leaving.spawn(async move { writer.write("put", |tx| put(tx, "abandoned", "")).await });
    queued(store, 1).await;
    leaving.shutdown().await;
    drop(release);
    tasks.join_all().await;
    store.write("put", |tx| put(tx, "kept", "")).await.unwrap();
    assert_eq!(store.demo_notes().await.unwrap(), ["kept"]);
}

#[tokio::test]
async fn a_full_queue_refuses_after_the_deadline_and_an_unanswered_write_is_called_late() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&Config {
        queue: 1,
        // Also the writer that is held has to begin in this time.
        write_timeout: Duration::from_secs(2),
        ..Config::new(dir.path())
    })
    .unwrap();
    let mut tasks = JoinSet::new();
    let release = hold(&store, &mut tasks).await;
    let (late, busy) = tokio::join!(
        store.write("late", |tx| put(tx, "late", "")),
        store.write("busy", |tx| put(tx, "busy", "")),
    );
    assert!(matches!(late, Err(Error::Late)), "{late:?}");
    assert!(matches!(busy, Err(Error::Busy)), "{busy:?}");
    drop(release);
    tasks.join_all().await;
    // With a deadline that is not in the way.
    drop(store);
    let store = super::open(dir.path());
    assert!(store.demo_notes().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_and_readers_never_see_half_a_write() {
    let (_dir, store) = fresh();
    nobody_sees_half_a_write(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_and_readers_never_see_half_a_write_on_postgresql() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    nobody_sees_half_a_write(schema.open()).await;
}

async fn nobody_sees_half_a_write(store: Store) {
    let mut tasks = JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0..50 {
                let pair = store.write("pair", move |tx| {
                    put(tx, &format!("{writer}-{number}-a"), "")?;
                    put(tx, &format!("{writer}-{number}-b"), "")
                });
                pair.await.expect("the pair is written");
            }
        });
    }
    for _ in 0..4 {
        let store = store.clone();
        tasks.spawn(async move {
            while store.demo_notes().await.expect("it is read").len() < 800 {
                let twice = store.read("twice", |tx| {
                    static COUNT: Stmt = Stmt::new("SELECT count(*) FROM notes");
                    let mut count = || tx.find(&COUNT, &[], |row| row.int(0));
                    Ok((count()?, count()?))
                });
                let (first, second) = twice.await.expect("it is read");
                assert_eq!(first, second, "one moment");
                assert_eq!(first.unwrap_or(1) % 2, 0, "whole pairs");
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

async fn a_reader_that_panics_is_there_for_the_next_one(store: &Store) {
    for _ in 0..10 {
        let read = store.read("panic", |_| -> Result<(), Error> { panic!("on purpose") });
        assert!(matches!(read.await, Err(Error::Panicked)));
    }
    assert!(store.demo_notes().await.unwrap().is_empty());
}

#[tokio::test]
async fn after_close_everything_is_in_the_file_and_nothing_is_taken() {
    let (dir, store) = fresh();
    store.write("put", |tx| put(tx, "kept", "")).await.unwrap();
    store.close().await;
    let late = store.write("put", |tx| put(tx, "late", "")).await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    let late = store.demo_notes().await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    let log = dir.path().join("vaxel.db-wal");
    assert!(!log.exists(), "the log was moved into the file");
    drop(store);
    assert_eq!(
        super::open(dir.path()).demo_notes().await.unwrap(),
        ["kept"]
    );
}
