//! Records of calls: pages, filters, figures and retention.

use std::time::Duration;

use bytes::Bytes;
use vaxel_core::{
    call::{CallRecord, Door, Outcome},
    id::{Id, Service},
    time::Timestamp,
};

use super::contract::contract;
use crate::{
    call::{CallQuery, CallRow, CallStats},
    error::Error,
    store::Store,
    tests::NOW,
};

contract!(
    a_record_is_read_as_it_was_written,
    pages_go_back_in_time_and_hold_every_call_once,
    filters_of_calls_hold_together,
    the_calls_of_some_services_are_read_in_pages,
    figures_outlive_their_records,
    retention_deletes_the_oldest_in_small_steps,
);

fn record(service: Id<Service>, second: u64) -> CallRecord {
    let at = NOW.plus(Duration::from_secs(second));
    CallRecord {
        id: Id::new(at),
        at,
        duration: Duration::from_micros(1_500),
        service,
        service_name: "files".parse().expect("a name"),
        method: "tools/call",
        target: "read".into(),
        principal: None,
        principal_name: "ci".into(),
        outcome: Outcome::Ok,
        error: None,
        request_bytes: 10,
        response_bytes: 20,
        client_revision: "2026-07-28",
        upstream_revision: "2025-06-18",
        door: Door::Mcp,
        trace_id: None,
        request: None,
        response: None,
    }
}

async fn seconds(store: &Store, query: CallQuery) -> Vec<u64> {
    let (rows, _) = store.calls(query, 1_000, None).await.unwrap();
    rows.iter().map(|row| row.at.since(NOW).as_secs()).collect()
}

async fn a_record_is_read_as_it_was_written(store: &Store) {
    let mut full = record(Id::new(NOW), 1);
    full.principal = Some(Id::new(NOW));
    full.error = Some("it broke".into());
    full.trace_id = Some("0af7".into());
    full.request = Some(Bytes::from_static(b"{\"a\":\0}"));
    full.response = Some(Bytes::new());
    full.door = Door::Rest;
    store.record_calls(vec![full.clone()]).await.unwrap();
    let (rows, next) = store.calls(CallQuery::default(), 10, None).await.unwrap();
    let [row] = &rows[..] else {
        panic!("{rows:?}");
    };
    assert_eq!(next, None);
    assert_eq!(
        (row.id, row.at, row.service),
        (full.id, full.at, full.service)
    );
    assert_eq!(
        (row.duration_us, row.request_bytes, row.response_bytes),
        (1_500, 10, 20)
    );
    assert_eq!(
        (&*row.service_name, &*row.method, &*row.target),
        ("files", "tools/call", "read")
    );
    assert_eq!(
        (row.principal, &*row.principal_name),
        (full.principal, "ci")
    );
    assert_eq!(
        (&*row.outcome, row.error.as_deref()),
        ("ok", Some("it broke"))
    );
    assert_eq!(
        (&*row.client_revision, &*row.upstream_revision),
        ("2026-07-28", "2025-06-18")
    );
    assert_eq!(
        (&*row.door, row.trace_id.as_deref()),
        ("rest", Some("0af7"))
    );
    assert_eq!(row.request.as_deref(), Some(&b"{\"a\":\0}"[..]));
    assert_eq!(row.response.as_deref(), Some(&b""[..]));
}

async fn pages_go_back_in_time_and_hold_every_call_once(store: &Store) {
    let service = Id::new(NOW);
    let batch = (0..57).map(|second| record(service, second)).collect();
    store.record_calls(batch).await.unwrap();
    for of_service in [None, Some(service)] {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let query = CallQuery {
                service: of_service,
                ..CallQuery::default()
            };
            let (page, next) = store.calls(query, 10, cursor).await.unwrap();
            seen.extend(page.iter().map(|row| row.at.since(NOW).as_secs()));
            // What comes meanwhile is newer than every page that is still to come.
            let newer = record(service, 1_000);
            store.record_calls(vec![newer]).await.unwrap();
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        seen.retain(|second| *second < 1_000);
        assert_eq!(seen, (0..57).rev().collect::<Vec<_>>());
    }
    let refused = store
        .calls(CallQuery::default(), 10, Some("x".to_owned()))
        .await;
    assert!(matches!(refused, Err(Error::Cursor(_))), "{refused:?}");
}

async fn filters_of_calls_hold_together(store: &Store) {
    let (one, other) = (Id::new(NOW), Id::new(NOW));
    let mut denied = record(one, 1);
    denied.outcome = Outcome::Denied;
    let mut listed = record(other, 2);
    listed.target = "list".into();
    let mut someone = record(one, 3);
    someone.principal_name = "someone".into();
    let batch = vec![record(one, 0), denied, listed, someone];
    store.record_calls(batch).await.unwrap();
    let at = |second| Some(NOW.plus(Duration::from_secs(second)));
    let query = CallQuery::default;
    let cases = [
        (query(), vec![3, 2, 1, 0]),
        (
            CallQuery {
                service: Some(one),
                ..query()
            },
            vec![3, 1, 0],
        ),
        (
            CallQuery {
                target: Some("list".to_owned()),
                ..query()
            },
            vec![2],
        ),
        (
            CallQuery {
                outcome: Some(Outcome::Denied),
                ..query()
            },
            vec![1],
        ),
        (
            CallQuery {
                principal: Some("someone".to_owned()),
                ..query()
            },
            vec![3],
        ),
        (
            CallQuery {
                since: at(1),
                until: at(3),
                ..query()
            },
            vec![2, 1],
        ),
        (
            CallQuery {
                service: Some(one),
                since: at(1),
                until: at(3),
                ..query()
            },
            vec![1],
        ),
        (
            CallQuery {
                service: Some(other),
                outcome: Some(Outcome::Denied),
                ..query()
            },
            vec![],
        ),
    ];
    for (query, expected) in cases {
        assert_eq!(seconds(store, query.clone()).await, expected, "{query:?}");
    }
}

async fn the_calls_of_some_services_are_read_in_pages(store: &Store) {
    let [one, two, other, silent] = [(); 4].map(|()| Id::new(NOW));
    let services = [one, two, other].into_iter().cycle();
    let batch = services
        .zip(0..12)
        .map(|(service, second)| record(service, second));
    store.record_calls(batch.collect()).await.unwrap();
    let query = |among: &[Id<Service>]| CallQuery {
        among: Some(among.to_vec()),
        ..CallQuery::default()
    };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let some = query(&[silent, two, one]);
        let (rows, next) = store.calls(some, 3, cursor).await.unwrap();
        let second = |row: &CallRow| row.at.since(NOW).as_secs();
        seen.extend(rows.iter().map(second));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [10, 9, 7, 6, 4, 3, 1, 0]);
    assert_eq!(seconds(store, query(&[])).await, Vec::<u64>::new());
    for (service, expected) in [(two, vec![10, 7, 4, 1]), (other, Vec::new())] {
        let query = CallQuery {
            service: Some(service),
            ..query(&[one, two])
        };
        assert_eq!(seconds(store, query).await, expected);
    }
}

async fn figures_outlive_their_records(store: &Store) {
    let service = Id::new(NOW);
    assert_eq!(
        store.call_stats(service).await.unwrap(),
        CallStats::default()
    );
    for second in [5, 3] {
        let mut failed = record(service, second);
        failed.outcome = Outcome::Error;
        let batch = vec![record(service, second), failed, record(Id::new(NOW), 9)];
        store.record_calls(batch).await.unwrap();
    }
    let swept = store
        .sweep_calls(Timestamp::from_millis(u64::MAX / 4), 0, 1_000)
        .await;
    assert_eq!(swept.unwrap(), 6);
    let expected = CallStats {
        calls: 4,
        errors: 2,
        total_us: 6_000,
        last_at: Some(NOW.plus(Duration::from_secs(5))),
    };
    assert_eq!(store.call_stats(service).await.unwrap(), expected);
}

async fn retention_deletes_the_oldest_in_small_steps(store: &Store) {
    let service = Id::new(NOW);
    let batch = (0..100).map(|second| record(service, second)).collect();
    store.record_calls(batch).await.unwrap();
    let before = NOW.plus(Duration::from_secs(25));
    let mut steps = Vec::new();
    for _ in 0..5 {
        steps.push(store.sweep_calls(before, 1_000, 10).await.unwrap());
    }
    assert_eq!(steps, [10, 10, 5, 0, 0], "by age");
    while store.sweep_calls(before, 30, 10).await.unwrap() > 0 {}
    let left = seconds(store, CallQuery::default()).await;
    assert_eq!(left, (70..100).rev().collect::<Vec<_>>(), "by number");
}
