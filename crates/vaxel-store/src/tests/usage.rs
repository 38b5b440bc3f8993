//! Sums of calls by hour and by day.

use std::time::Duration;

use vaxel_core::{
    call::{CallRecord, Door, Outcome},
    id::{Id, Service},
    time::Timestamp,
};

use tokio::task::JoinSet;

use super::{contract::contract, postgres::Schema};
use crate::{
    store::Store,
    usage::{Grain, UsageBatch},
};

contract!(
    calls_are_summed_up_by_hour_day_tool_and_service,
    what_is_added_later_is_merged_and_what_is_old_is_swept,
    hours_over_days_come_to_the_same_as_hours_one_by_one,
    some_services_together_come_to_what_they_are_without_the_others,
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

async fn some_services_together_come_to_what_they_are_without_the_others(store: &Store) {
    let [files, git, other, silent] = [(); 4].map(|()| Id::new(DAY));
    let next = DAY.plus(HOUR);
    let calls = [
        call(files, DAY, ("read", "ann", 10)),
        call(files, next, ("read", "ann", 1_000)),
        call(git, DAY, ("log", "ann", 5)),
        call(git, DAY, ("log", "bob", 5)),
        call(git, DAY.plus(25 * HOUR), ("log", "bob", 5)),
        call(other, DAY, ("spy", "eve", 5)),
    ];
    add(store, &calls).await;
    for grain in [Grain::Hour, Grain::Day] {
        let time = (grain, DAY, DAY.plus(48 * HOUR));
        let some = vec![files, silent, git];
        let found = store.usage_among(some, time, 10).await.unwrap();
        assert_eq!((found.total.calls, found.total.errors), (5, 1));
        assert_eq!((found.total.callers, found.total.total_us), (2, 1_025_000));
        let services = found.services.iter();
        let services: Vec<_> = services
            .map(|(id, sum)| (*id, sum.calls, sum.callers))
            .collect();
        assert_eq!(services, [(git, 3, 2), (files, 2, 1)]);
        let first = &found.series[0];
        let calls = if grain == Grain::Hour { 3 } else { 4 };
        assert_eq!((first.0, first.1.calls, first.1.callers), (DAY, calls, 2));
        let alone = store.usage_among(vec![files], time, 10).await.unwrap();
        let same = store.usage(Some(files), time, 10).await.unwrap();
        assert_eq!((alone.total, alone.series), (same.total, same.series));
        let one = store.usage_among(vec![files, git], time, 1).await.unwrap();
        assert_eq!(one.services.len(), 1);
        let none = store.usage_among(Vec::new(), time, 10).await.unwrap();
        assert_eq!((none.total.calls, none.series.len()), (0, 0));
    }
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

/// A month of a busy service: every hour some tools, by some callers.
async fn fill(store: &Store, service: Id<Service>, (hours, tools, callers): (u32, u32, u32)) {
    for hour in 0..hours {
        let mut batch = UsageBatch::default();
        for number in 0..tools * callers {
            let (tool, caller) = (number % tools, number / tools);
            let at = DAY.plus(hour * HOUR);
            let (tool, caller) = (
                format!("tool{tool}"),
                format!("caller{}", caller + hour % 3),
            );
            let ms = u64::from((number * 7 + hour) % 90);
            batch.note(&call(service, at, (&tool, &caller, ms)));
        }
        store.add_usage(batch).await.unwrap();
    }
}

async fn hours_over_days_come_to_the_same_as_hours_one_by_one(store: &Store) {
    let (files, other) = (Id::new(DAY), Id::new(DAY));
    fill(store, files, (60, 2, 2)).await;
    add(
        store,
        &[call(other, DAY.plus(30 * HOUR), ("log", "eve", 5))],
    )
    .await;
    for (from, to) in [
        (0, 60),
        (5, 55),
        (24, 48),
        (23, 49),
        (1, 3),
        (30, 31),
        (47, 60),
    ] {
        let one_by_one = |service: Option<Id<Service>>| async move {
            let mut calls = 0;
            for hour in from..to {
                let time = (DAY.plus(hour * HOUR), DAY.plus((hour + 1) * HOUR));
                let found = store
                    .usage(service, (Grain::Hour, time.0, time.1), 10)
                    .await;
                calls += found.unwrap().total.calls;
            }
            calls
        };
        let time = (DAY.plus(from * HOUR), DAY.plus(to * HOUR));
        let found = store
            .usage(Some(files), (Grain::Hour, time.0, time.1), 10)
            .await
            .unwrap();
        assert_eq!(found.series.len(), (to - from) as usize);
        assert_eq!(
            found.total.calls,
            one_by_one(Some(files)).await,
            "{from} to {to}"
        );
        let of_tools: u64 = found.tools.iter().map(|(_, sum)| sum.calls).sum();
        let times: u64 = found.tools.iter().map(|(_, sum)| sum.times.count()).sum();
        assert_eq!((of_tools, times), (found.total.calls, found.total.calls));
        let callers = 2 + u64::from((to - from).min(3) - 1);
        assert_eq!(found.total.callers, callers, "{from} to {to}");
        assert!(found.tools.iter().all(|(_, sum)| sum.callers == callers));
        let all = store
            .usage(None, (Grain::Hour, time.0, time.1), 10)
            .await
            .unwrap();
        let of_services: u64 = all.services.iter().map(|(_, sum)| sum.calls).sum();
        assert_eq!(of_services, one_by_one(None).await, "{from} to {to}");
        assert_eq!(of_services, all.total.calls);
    }
    // Where hours are gone their days say nothing either.
    while store.sweep_usage(DAY.plus(30 * HOUR), DAY).await.unwrap() > 0 {}
    let time = (Grain::Hour, DAY, DAY.plus(60 * HOUR));
    let found = store.usage(Some(files), time, 10).await.unwrap();
    let of_tools: u64 = found.tools.iter().map(|(_, sum)| sum.calls).sum();
    assert_eq!((found.total.calls, of_tools), (30 * 4, 30 * 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_add_at_once_lose_no_call() {
    let Some(schema) = Schema::fresh() else {
        return;
    };
    let service = Id::new(DAY);
    let mut adding = JoinSet::new();
    for node in 0..4_u8 {
        let store = schema.open_another(node.into());
        adding.spawn(async move {
            for ms in 0..25 {
                add(&store, &[call(service, DAY, ("read", "ann", ms))]).await;
            }
            store
        });
    }
    let stores = adding.join_all().await;
    let time = (Grain::Hour, DAY, DAY.plus(HOUR));
    let found = stores[0].usage(Some(service), time, 10).await.unwrap();
    assert_eq!((found.total.calls, found.total.times.count()), (100, 100));
}

/// Nothing is read that is not asked for.
#[tokio::test]
async fn no_question_about_usage_reads_a_whole_table() {
    let (dir, store) = super::fresh();
    store.close().await;
    let database = rusqlite::Connection::open(dir.path().join("records.db")).unwrap();
    for statement in crate::usage::STATEMENTS {
        let text = statement.for_sqlite();
        if !text.starts_with("SELECT") {
            continue;
        }
        let mut plan = database
            .prepare(&format!("EXPLAIN QUERY PLAN {text}"))
            .unwrap();
        let mut steps = plan.raw_query();
        let mut searches = 0;
        while let Some(step) = steps.next().unwrap() {
            let step: String = step.get(3).unwrap();
            assert!(!step.starts_with("SCAN usage"), "{text}: {step}");
            searches += usize::from(step.starts_with("SEARCH usage"));
        }
        assert!(searches > 0, "{text}");
    }
}

/// By hand: how long a month of a busy service takes.
#[tokio::test]
#[ignore = "takes a minute, and asserts nothing"]
async fn a_month_by_hour_is_measured() {
    let (_dir, store) = super::fresh();
    let files = Id::new(DAY);
    fill(&store, files, (720, 10, 20)).await;
    let clock = vaxel_core::time::Clock::system();
    for service in [Some(files), None, Some(files), None] {
        let begun = clock.instant();
        let time = (Grain::Hour, DAY, DAY.plus(720 * HOUR));
        let found = store.usage(service, time, 10).await.unwrap();
        println!("{:?} for {} calls", begun.elapsed(), found.total.calls);
    }
}
