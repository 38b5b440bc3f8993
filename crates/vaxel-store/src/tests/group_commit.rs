//! Many writers, one transaction: what they share and what they do not.

use std::sync::mpsc;

use super::{fresh, put};
use crate::{Error, stmt::Stmt, store::Store};

/// Keeps the writer busy until the returned sender is used or dropped, so that what is written
/// meanwhile is committed together.
async fn hold(store: &Store) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (entered, inside) = tokio::sync::oneshot::channel();
    let entered = parking_lot::Mutex::new(Some(entered));
    let released = parking_lot::Mutex::new(released);
    let held = store.clone();
    let task = tokio::runtime::Handle::current().spawn(async move {
        held.write("hold", move |_| {
            if let Some(entered) = entered.lock().take() {
                entered.send(()).expect("the test waits");
            }
            // Ends with the sender, too.
            let _ = released.lock().recv();
            Ok(())
        })
        .await
    });
    drop(task);
    inside.await.expect("the writer runs");
    release
}

async fn queued(store: &Store, count: u64) {
    while store.stats().queued < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_disk_in_the_middle_of_a_batch_leaves_nothing_half_said() {
    static LIMIT: Stmt = Stmt::new("PRAGMA max_page_count = 1");
    let (_dir, store) = fresh();
    let release = hold(&store).await;
    let write = |name: &'static str, text: usize, limit: bool| {
        store.write("put", move |tx| {
            if limit {
                tx.query(&LIMIT, &[], |_| Ok(()))?;
            }
            put(tx, name, &"x".repeat(text))
        })
    };
    let (before, full, after, ()) = tokio::join!(
        write("before", 1, false),
        write("full", 1 << 20, true),
        write("after", 1, false),
        async {
            queued(&store, 3).await;
            drop(release);
        }
    );
    assert!(matches!(full, Err(Error::Full)), "{full:?}");
    let kept = store.demo_notes().await.unwrap();
    for (name, result) in [("before", before), ("after", after)] {
        let there = kept.iter().any(|kept| kept == name);
        assert_eq!(there, result.is_ok(), "{name}: {result:?}, kept: {kept:?}");
    }
}
