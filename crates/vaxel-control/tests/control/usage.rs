//! Usage, from real calls to the sums that are asked for.

use std::time::Duration;

use serde_json::json;
use vaxel_control::{Grain, UsageQuery};
use vaxel_core::{
    failure::Kind,
    lifecycle::Lifecycle,
    principal::{Permission, Permissions, Principal},
    time::Timestamp,
};

use crate::home::{demo, folder, open, reference};

const LATELY: UsageQuery = UsageQuery {
    from: None,
    to: None,
    grain: Grain::Hour,
};

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_in_the_usage_of_their_tool_their_service_and_all() {
    let folder = folder();
    let home = open(folder.path()).await;
    for name in ["one", "two"] {
        home.create(demo(name)).await.unwrap();
        home.wait_for(name, Lifecycle::Active).await;
    }
    for _ in 0..3 {
        home.call("one__echo", json!({"message": "x"}))
            .await
            .unwrap();
    }
    home.call("one__note_list", json!({})).await.unwrap();
    home.call("two__echo", json!({"message": "x"}))
        .await
        .unwrap();
    let all = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let all = home.control.usage(&home.admin, None, LATELY).await.unwrap();
            if all.total.calls == 5 {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let all = all.await.expect("the calls are summed up");
    let services: Vec<_> = all
        .services
        .iter()
        .map(|(name, sum)| (name.as_str(), sum.calls))
        .collect();
    assert_eq!(services, [("one", 4), ("two", 1)]);
    assert_eq!((all.total.errors, all.total.callers), (0, 1));
    assert!(all.total.times.per_mille(990) >= all.total.times.per_mille(500));

    let service = reference("one");
    let one = home
        .control
        .usage(&home.admin, Some(&service), LATELY)
        .await
        .unwrap();
    let tools: Vec<_> = one
        .tools
        .iter()
        .map(|(name, sum)| (name.as_str(), sum.calls))
        .collect();
    assert_eq!(tools, [("echo", 3), ("note_list", 1)]);
    let in_series: u64 = one.series.iter().map(|(_, sum)| sum.calls).sum();
    assert_eq!(in_series, 4);
    assert!(
        one.series
            .iter()
            .all(|(at, _)| *at >= one.from && *at < one.to)
    );
    let days = UsageQuery {
        grain: Grain::Day,
        ..LATELY
    };
    let days = home
        .control
        .usage(&home.admin, Some(&service), days)
        .await
        .unwrap();
    assert_eq!(days.total.calls, 4);
    assert_eq!(days.to.since(days.from), Duration::from_hours(30 * 24));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_for_those_who_may_read_calls_and_of_times_that_make_sense() {
    let folder = folder();
    let home = open(folder.path()).await;
    let reader = Principal {
        permissions: Permissions::of(&[Permission::McpRead]),
        ..Principal::system()
    };
    let refused = home.control.usage(&reader, None, LATELY).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    let at = |hours: u64| {
        Some(Timestamp::from_millis(
            1_700_000_000_000 + hours * 3_600_000,
        ))
    };
    for (from, to) in [(at(5), at(3)), (at(0), at(2_001))] {
        let query = UsageQuery {
            from,
            to,
            grain: Grain::Hour,
        };
        let refused = home
            .control
            .usage(&home.admin, None, query)
            .await
            .unwrap_err();
        assert_eq!(
            (refused.kind, refused.issues.len()),
            (Kind::Invalid, 1),
            "{refused}"
        );
    }
    home.control.stop().await;
}
