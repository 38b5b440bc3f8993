//! A new generation serves once its functional check has passed, and not before.

use std::path::Path;

use serde_json::{Value, json};
use vaxel_control::{CallFilter, Change, Page};
use vaxel_core::{
    failure::Issue,
    lifecycle::Lifecycle,
    service::ServiceDraft,
    status::{Health, ServiceStatus},
};

use crate::home::{Home, folder, open, open_with, reference, scripted, until};

/// A server whose tool `greet` lies while `mark` is there, expected to say `expected`.
fn greeter(mark: &Path, expected: &str) -> Value {
    let mut draft = scripted("greeter", &["lie", &mark.display().to_string()]);
    draft["spec"]["health"] = expecting(expected);
    draft
}

fn expecting(expected: &str) -> Value {
    json!({ "functional": [
        { "tool": "pid" },
        { "tool": "greet", "expect": { "equals": expected } }
    ] })
}

async fn update(home: &Home, draft: &Value) {
    let change = Change::UpdateService {
        service: reference("greeter"),
        draft: Box::new(ServiceDraft::from_json(draft).unwrap()),
        expected: None,
    };
    home.submit(change).await.unwrap();
}

fn issue(said: &str, expected: &str) -> Issue {
    Issue::new(
        "spec.health.functional[1]",
        format!("`greet` answers `{said}` instead of `{expected}`"),
    )
}

fn is_well(status: &ServiceStatus) -> bool {
    status.lifecycle == Lifecycle::Active && status.health == Health::Healthy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_does_not_do_what_it_should_does_not_take_over() {
    let folder = folder();
    let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
    std::fs::write(&bad, "").unwrap();
    let home = open(folder.path()).await;
    home.create(greeter(&good, "hello")).await.unwrap();
    home.wait("greeter", is_well).await;
    let first = home.call("greeter__pid", json!({})).await.unwrap();

    // It is tried again and again, and never takes a call.
    update(&home, &greeter(&bad, "hello")).await;
    let starts = bad.with_extension("starts");
    let refused = |seen: &ServiceStatus| {
        let starts = std::fs::read(&starts).map_or(0, |bytes| bytes.len());
        seen.lifecycle == Lifecycle::Error && starts > 2
    };
    let status = home.wait("greeter", refused).await;
    assert_eq!(status.issues, [issue("goodbye", "hello")]);
    assert_eq!(
        status
            .reason
            .as_deref()
            .map(|reason| reason.contains("`goodbye` instead of `hello`")),
        Some(true)
    );
    assert_eq!(status.health, Health::Degraded, "the one before serves");
    assert_eq!(home.call("greeter__pid", json!({})).await.unwrap(), first);
    assert_eq!(
        home.call("greeter__greet", json!({})).await.unwrap(),
        "hello"
    );

    home.submit(Change::RollBackService {
        service: reference("greeter"),
        to: "1".into(),
    })
    .await
    .unwrap();
    let status = home.wait("greeter", is_well).await;
    assert_eq!((status.issues, status.reason), (Vec::new(), None));
    assert_ne!(home.call("greeter__pid", json!({})).await.unwrap(), first);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_revision_that_does_not_do_what_it_should_is_in_error_until_it_does() {
    let folder = folder();
    let mark = folder.path().join("mark");
    std::fs::write(&mark, "").unwrap();
    let home = open(folder.path()).await;
    home.create(greeter(&mark, "hello")).await.unwrap();
    let status = home.settled("greeter").await;
    assert_eq!(status.lifecycle, Lifecycle::Error);
    assert_eq!(status.issues, [issue("goodbye", "hello")]);
    home.call("greeter__greet", json!({})).await.unwrap_err();

    // Its calls went the way of calls.
    let filter = CallFilter::default();
    let of_checks = async || {
        let listed = home
            .control
            .calls(&home.admin, None, (&filter, &Page::FIRST));
        let rows = listed.await.unwrap().items;
        let is_one = rows
            .iter()
            .any(|row| row.door == "health" && row.target == "greet");
        is_one.then_some(())
    };
    until("the record of a check", of_checks).await;

    std::fs::remove_file(&mark).unwrap();
    let status = home.wait("greeter", is_well).await;
    assert_eq!(status.issues, []);
    assert_eq!(
        home.call("greeter__greet", json!({})).await.unwrap(),
        "hello"
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_expects_something_else_leads_out_at_once() {
    let folder = folder();
    let mark = folder.path().join("mark");
    // Nothing is tried again by itself.
    let home = open_with(folder.path(), |config| config.process.auto_restart = false).await;
    home.create(greeter(&mark, "good morning")).await.unwrap();
    home.wait_for("greeter", Lifecycle::Error).await;
    update(&home, &greeter(&mark, "hello")).await;
    home.wait("greeter", is_well).await;

    // What serves is not asked to prove itself again: that is health.
    let first = home.call("greeter__pid", json!({})).await.unwrap();
    update(&home, &greeter(&mark, "good morning")).await;
    let noticed = |seen: &ServiceStatus| seen.health == Health::Unhealthy;
    let service = reference("greeter");
    // The first ones may still be by what was expected before.
    until("the fault to be noticed", async || {
        let checked = home.control.check_health(&home.admin, &service).await;
        noticed(&checked.unwrap().status).then_some(())
    })
    .await;
    let status = home.wait("greeter", noticed).await;
    assert_eq!(status.lifecycle, Lifecycle::Active);
    assert_eq!(home.call("greeter__pid", json!({})).await.unwrap(), first);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_only_the_new_revision_has_is_found_at_the_new_one() {
    let folder = folder();
    let (none, mark) = (folder.path().join("none"), folder.path().join("mark"));
    std::fs::write(&mark, "").unwrap();
    let home = open(folder.path()).await;
    let draft = |mark: &Path| scripted("greeter", &["grow", &mark.display().to_string()]);
    // A service that takes one call at a time, and is busy with one: no reason to wait.
    let mut first = draft(&none);
    first["spec"]["limits"] = json!({ "concurrency": 1 });
    home.create(first).await.unwrap();
    home.wait("greeter", is_well).await;
    let mut second = draft(&mark);
    second["spec"]["limits"] = json!({ "concurrency": 1 });
    second["spec"]["health"] = json!({ "functional": [{ "tool": "late" }] });
    update(&home, &second).await;
    home.wait("greeter", |seen| is_well(seen) && seen.tools == 4)
        .await;

    // And one that is gone is missed, though the old one has it.
    let mut third = draft(&none);
    third["spec"]["health"] = second["spec"]["health"].clone();
    update(&home, &third).await;
    let status = home.wait_for("greeter", Lifecycle::Error).await;
    let said = &status.issues[0].message;
    assert!(said.contains("offers no tool `late`"), "{said}");
    assert_eq!(
        home.call("greeter__late", json!({})).await.unwrap(),
        "hello"
    );
    home.control.stop().await;
}
