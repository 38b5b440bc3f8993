//! Sums of calls by hour and by day.

use std::time::Duration;

use vaxel_core::{
    call::{CallRecord, Door, Outcome},
    id::{Id, Service},
    time::Timestamp,
};

use super::contract::contract;
use crate::{
    store::Store,
    usage::{Grain, UsageBatch},
};

contract!(
    calls_are_summed_up_by_hour_day_tool_and_service,
    what_is_added_later_is_merged_and_what_is_old_is_swept,
);

/// The beginning of a day.
const DAY: Timestamp = Timestamp::from_millis(1_799_971_200_000);
const HOUR: Duration = Duration::from_hours(1);

fn call(service: Id<Service>, at: Timestamp, (tool, caller, ms): (&str, &str, u64)) -> CallRecord {
    CallRecord {
        id: Id::new(at),
        at,
        duration: Duration::from_millis(ms),
        service,
        service_name: "files".parse().unwrap(),
        method: "tools/call",
        target: tool.into(),
        principal: None,
        principal_name: caller.into(),
        outcome: if ms > 500 {
            Outcome::Timeout
        } else {
            Outcome::Ok
        },
        error: None,
        request_bytes: 1,
        response_bytes: 1,
        client_revision: "",
        upstream_revision: "",
        door: Door::Mcp,
        trace_id: None,
        request: None,
        response: None,
    }
}

async fn add(store: &Store, calls: &[CallRecord]) {
    let mut batch = UsageBatch::default();
    for record in calls {
        batch.note(record);
    }
    store.add_usage(batch).await.unwrap();
}

async fn calls_are_summed_up_by_hour_day_tool_and_service(store: &Store) {
    assert_eq!(Grain::Day.begin(DAY), DAY);
    let (files, git) = (Id::new(DAY), Id::new(DAY));
    let next = DAY.plus(HOUR);
    let mut resource = call(files, next, ("file:///a", "ann", 2));
    resource.method = "resources/read";
    let calls = [
        call(files, DAY, ("read", "ann", 10)),
        call(files, DAY, ("read", "bob", 20)),
        call(files, next, ("read", "ann", 1_000)),
        call(files, next, ("write", "ann", 30)),
        resource,
        call(git, next, ("log", "eve", 5)),
        call(git, DAY.plus(25 * HOUR), ("log", "eve", 5)),
    ];
    add(store, &calls).await;

    let by_hour = (Grain::Hour, DAY, DAY.plus(24 * HOUR));
    let found = store.usage(Some(files), by_hour, 10).await.unwrap();
    assert_eq!((found.total.calls, found.total.errors), (5, 1));
    assert_eq!((found.total.callers, found.total.total_us), (2, 1_062_000));
    let hours: Vec<_> = found
        .series
        .iter()
        .map(|(at, sum)| (*at, sum.calls, sum.callers))
        .collect();
    assert_eq!(hours, [(DAY, 2, 2), (next, 3, 1)]);
    let tools: Vec<_> = found
        .tools
        .iter()
        .map(|(tool, sum)| (tool.as_str(), sum.calls, sum.callers))
        .collect();
    assert_eq!(
        tools,
        [("read", 3, 2), ("write", 1, 1)],
        "addresses are no tools"
    );
    let slowest = found.tools[0].1.times.per_mille(990).unwrap();
    assert!(slowest.abs_diff(1_000_000) < 70_000, "{slowest}");

    let by_day = (Grain::Day, DAY, DAY.plus(48 * HOUR));
    let all = store.usage(None, by_day, 10).await.unwrap();
    assert_eq!((all.total.calls, all.total.callers), (7, 3));
    let days: Vec<_> = all
        .series
        .iter()
        .map(|(at, sum)| (*at, sum.calls))
        .collect();
    assert_eq!(days, [(DAY, 6), (DAY.plus(24 * HOUR), 1)]);
    let services: Vec<_> = all
        .services
        .iter()
        .map(|(id, sum)| (*id, sum.calls, sum.callers))
        .collect();
    assert_eq!(services, [(files, 5, 2), (git, 2, 1)]);
    let most = store.usage(None, by_day, 1).await.unwrap();
    assert_eq!(most.services.len(), 1);
    let never = store.usage(Some(Id::new(DAY)), by_day, 10).await.unwrap();
    assert_eq!(never.total.calls, 0);
}

async fn what_is_added_later_is_merged_and_what_is_old_is_swept(store: &Store) {
    let files = Id::new(DAY);
    for ms in [10, 20, 30] {
        add(store, &[call(files, DAY, ("read", "ann", ms))]).await;
    }
    let hours = (Grain::Hour, DAY, DAY.plus(HOUR));
    let found = store.usage(Some(files), hours, 10).await.unwrap();
    assert_eq!((found.total.calls, found.total.callers), (3, 1));
    assert_eq!(found.total.times.count(), 3);
    assert_eq!(
        store.sweep_usage(DAY, DAY).await.unwrap(),
        0,
        "none is older"
    );
    let later = DAY.plus(HOUR);
    assert!(store.sweep_usage(later, DAY).await.unwrap() > 0);
    assert_eq!(store.sweep_usage(later, DAY).await.unwrap(), 0);
    let found = store.usage(Some(files), hours, 10).await.unwrap();
    assert_eq!(found.total.calls, 0);
    let days = (Grain::Day, DAY, DAY.plus(24 * HOUR));
    let found = store.usage(Some(files), days, 10).await.unwrap();
    assert_eq!((found.total.calls, found.tools.len()), (3, 1));
}
