//! Calls of a service that is being started: they wait for it, and no longer than they must.

use std::time::Duration;

use tokio::task::JoinSet;
use vaxel_core::{call::Outcome, principal::Principal};
use vaxel_gateway::{Config, ToolCall, Unavailable};

use crate::harness::{
    Plan, Rig, Served, Upstream,
    client::{Answer, Message},
    wait_for,
};

/// A service that is being started, and calls of both eras that wait for it.
async fn waiting(rig: &Rig, upstream: &Upstream) -> (Served, JoinSet<Answer>) {
    let served = rig.add_http("up", upstream).await;
    let catalog = Some(served.catalog.clone());
    rig.put("up", &served, catalog, Some(Unavailable::Starting));
    let mut calls = JoinSet::new();
    for client in [rig.modern(), rig.legacy().await] {
        calls.spawn(async move { client.say(&Message::call("up__echo", "{}")).await });
    }
    wait_for("both calls to wait", || {
        (rig.gateway.load(served.id).in_flight == 2).then_some(())
    })
    .await;
    (served, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_a_service_that_is_being_started() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let (served, mut calls) = waiting(&rig, &upstream).await;
    // A change of another service is not what they wait for.
    rig.add_http("other", &upstream).await;
    assert_eq!(rig.gateway.load(served.id).in_flight, 2);
    rig.put("up", &served, Some(served.catalog.clone()), None);
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(
            answer.json()["result"]["content"].is_array(),
            "{}",
            answer.text
        );
        assert_eq!(rig.record().await.outcome, Outcome::Ok);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_hears_at_once_that_the_start_failed() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let (served, mut calls) = waiting(&rig, &upstream).await;
    let why = Unavailable::Because("it does not work: no such file".to_owned());
    rig.put("up", &served, Some(served.catalog.clone()), Some(why));
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.text.contains("no such file"), "{}", answer.text);
        assert_eq!(rig.record().await.outcome, Outcome::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_hears_that_the_service_was_taken_away() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let (served, mut calls) = waiting(&rig, &upstream).await;
    rig.gateway.withdraw(served.id);
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.text.contains("not here any more"), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_takes_too_long_is_not_waited_for() {
    let rig = Rig::start_with(&Plan {
        config: Config {
            start_wait: Duration::from_millis(20),
            ..Plan::default().config
        },
        ..Plan::default()
    });
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    let catalog = Some(served.catalog.clone());
    rig.put("up", &served, catalog, Some(Unavailable::Starting));
    let answer = rig.modern().say(&Message::call("up__echo", "{}")).await;
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert!(answer.text.contains("it is starting"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_waits_for_a_start_no_longer_than_it_wants_to() {
    let rig = Rig::start();
    let upstream = Upstream::modern(|_| None).await;
    let served = rig.add_http("up", &upstream).await;
    let catalog = Some(served.catalog.clone());
    rig.put("up", &served, catalog, Some(Unavailable::Starting));
    let late = rig.gateway.call(ToolCall {
        principal: Principal::system(),
        service: served.id,
        tool: "echo".to_owned(),
        arguments: "{}".into(),
        timeout: Some(Duration::from_millis(20)),
    });
    let late = late.await.unwrap_err();
    assert!(
        late.detail.contains("in the time that you gave it"),
        "{late}"
    );
    assert_eq!(rig.record().await.outcome, Outcome::Timeout);
}
