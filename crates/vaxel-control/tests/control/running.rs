//! What happens to services that start, end, break and stay silent.

use std::{collections::HashSet, time::Duration};

use serde_json::json;
use vaxel_control::{Change, Page};
use vaxel_core::{
    failure::Kind,
    lifecycle::Lifecycle,
    service::ServiceDraft,
    status::{Health, ServiceStatus},
};

use crate::home::{demo, folder, open, open_with, reference, scripted, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_started_measured_restarted_and_stopped() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(scripted("files", &["ok"])).await.unwrap();
    let status = home.wait_for("files", Lifecycle::Active).await;
    assert_eq!(status.era.as_deref(), Some("legacy"));
    assert_eq!(status.server.as_deref(), Some("scripted 1"));
    let instance = &status.instances[0];
    assert!(instance.pid.is_some() && instance.started_at.is_some());
    let status = home
        .wait("files", |seen| seen.instances[0].memory_bytes > 0)
        .await;
    assert!(status.instances[0].processes >= 1);
    let first = home.call("files__pid", json!({})).await.unwrap();

    home.submit(Change::RestartService(reference("files")))
        .await
        .unwrap();
    let report = home
        .control
        .health(
            &home.admin,
            &reference("files"),
            Some(Duration::from_mins(1)),
        )
        .await
        .unwrap();
    assert!(report.ready, "{report:?}");
    assert_ne!(home.call("files__pid", json!({})).await.unwrap(), first);

    home.submit(Change::StopService(reference("files")))
        .await
        .unwrap();
    let status = home.wait_for("files", Lifecycle::Inactive).await;
    assert_eq!(
        (status.health, status.instances.len()),
        (Health::Stopped, 0)
    );
    let refused = home.call("files__pid", json!({})).await.unwrap_err();
    assert_eq!(refused.kind, Kind::UnknownTool);
    let restart = home
        .submit(Change::RestartService(reference("files")))
        .await;
    assert_eq!(restart.unwrap_err().kind, Kind::Conflict);

    home.submit(Change::StartService(reference("files")))
        .await
        .unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_an_error_at_once_with_its_name() {
    let folder = folder();
    let home = open(folder.path()).await;
    let draft = json!({ "name": "x", "spec": { "source": { "process": {
        "command": "no-such-program-anywhere"
    } } } });
    home.create(draft).await.unwrap();
    let wait = Some(Duration::from_mins(1));
    let report = home
        .control
        .health(&home.admin, &reference("x"), wait)
        .await
        .unwrap();
    assert_eq!(report.status.lifecycle, Lifecycle::Error);
    assert!(!report.ready);
    let reason = report.status.reason.unwrap();
    assert!(reason.contains("no-such-program-anywhere"), "{reason}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_at_every_start_is_a_crash_loop_with_its_last_words() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(scripted("loud", &["shout"])).await.unwrap();
    home.create(demo("well")).await.unwrap();
    let status = home.wait_for("loud", Lifecycle::Error).await;
    let reason = status.reason.unwrap();
    assert!(reason.contains("code 7"), "{reason}");
    assert!(reason.contains("the configuration is missing"), "{reason}");
    // It is tried again all the same, and hurts nobody else.
    let count = status.instances[0].restarts;
    home.wait("loud", |seen| seen.instances[0].restarts > count)
        .await;
    assert_eq!(
        home.call("well__echo", json!({"message": "hi"}))
            .await
            .unwrap(),
        "hi"
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_lost_in_a_call_comes_back() {
    let folder = folder();
    let home = open(folder.path()).await;
    let counter = folder.path().join("deaths").display().to_string();
    home.create(scripted("frail", &["die-after", &counter, "1"]))
        .await
        .unwrap();
    home.wait_for("frail", Lifecycle::Active).await;
    let lost = home.call("frail__greet", json!({})).await.unwrap_err();
    assert_eq!(lost.kind, Kind::UpstreamLost);
    let back = |seen: &ServiceStatus| {
        seen.instances
            .first()
            .is_some_and(|one| one.restarts == 1 && one.health == Health::Healthy)
    };
    home.wait("frail", back).await;
    assert_eq!(home.call("frail__greet", json!({})).await.unwrap(), "hello");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_automatic_restart_what_ended_stays_ended_until_someone_asks() {
    let folder = folder();
    let home = open_with(folder.path(), |config| config.process.auto_restart = false).await;
    let counter = folder.path().join("deaths").display().to_string();
    home.create(scripted("frail", &["die-after", &counter, "1"]))
        .await
        .unwrap();
    home.wait_for("frail", Lifecycle::Active).await;
    home.call("frail__greet", json!({})).await.unwrap_err();
    let status = home.wait_for("frail", Lifecycle::Error).await;
    assert!(status.instances[0].next_start_at.is_none());
    home.submit(Change::RestartService(reference("frail")))
        .await
        .unwrap();
    home.wait_for("frail", Lifecycle::Active).await;
    assert_eq!(home.call("frail__greet", json!({})).await.unwrap(), "hello");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_never_answers_fails_in_time() {
    let folder = folder();
    let short = Duration::from_millis(500);
    let home = open_with(folder.path(), |config| config.process.start_timeout = short).await;
    home.create(scripted("mute", &["silent"])).await.unwrap();
    let status = home.wait_for("mute", Lifecycle::Error).await;
    assert!(status.reason.is_some());
    assert!(
        status
            .instances
            .iter()
            .all(|one| one.health != Health::Healthy)
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_installs_itself_first_has_the_whole_time_of_a_start() {
    let folder = folder();
    let home = open(folder.path()).await;
    // Longer than the data plane waits for an answer in one era.
    home.create(scripted("slow", &["slow", "1"])).await.unwrap();
    let status = home.wait_for("slow", Lifecycle::Active).await;
    assert_eq!(status.instances[0].restarts, 0);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_an_error_and_stops_at_once() {
    let folder = folder();
    let home = open(folder.path()).await;
    let url = "http://127.0.0.1:1/mcp";
    home.create(json!({ "name": "far", "spec": { "source": { "mcp": { "url": url } } } }))
        .await
        .unwrap();
    home.wait_for("far", Lifecycle::Error).await;
    home.submit(Change::StopService(reference("far")))
        .await
        .unwrap();
    home.wait_for("far", Lifecycle::Inactive).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_the_calls_and_a_new_revision_replaces_them() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = scripted("files", &["ok"]);
    draft["spec"]["replicas"] = json!(2);
    home.create(draft.clone()).await.unwrap();
    home.wait("files", |seen| {
        seen.instances.len() == 2
            && seen
                .instances
                .iter()
                .all(|one| one.health == Health::Healthy)
    })
    .await;
    let mut before = HashSet::new();
    for _ in 0..20 {
        before.insert(home.call("files__pid", json!({})).await.unwrap());
    }
    assert_eq!(before.len(), 2, "both replicas answered");

    draft["spec"]["source"]["process"]["env"] = json!({ "COLOUR": "blue" });
    draft["spec"]["replicas"] = json!(1);
    let change = Change::UpdateService {
        service: reference("files"),
        draft: Box::new(ServiceDraft::from_json(&draft).unwrap()),
        expected: None,
    };
    let updated = home.submit(change).await.unwrap();
    assert_eq!(updated.resource.revision, 2);
    // Calls are answered all the while.
    loop {
        let pid = home.call("files__pid", json!({})).await.unwrap();
        if !before.contains(&pid) {
            break;
        }
    }
    home.wait("files", |seen| {
        seen.instances.len() == 1 && seen.lifecycle == Lifecycle::Active
    })
    .await;
    let seen = home
        .call("files__env", json!({ "name": "COLOUR" }))
        .await
        .unwrap();
    assert_eq!(seen, "blue");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_takes_effect_without_a_new_process() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = scripted("files", &["ok"]);
    home.create(draft.clone()).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let pid = home.call("files__pid", json!({})).await.unwrap();
    draft["spec"]["tools"] = json!({ "deny": ["greet"] });
    let change = Change::UpdateService {
        service: reference("files"),
        draft: Box::new(ServiceDraft::from_json(&draft).unwrap()),
        expected: None,
    };
    home.submit(change).await.unwrap();
    home.wait("files", |seen| seen.tools == 2).await;
    let denied = home.call("files__greet", json!({})).await.unwrap_err();
    assert_eq!(denied.kind, Kind::UnknownTool);
    assert_eq!(home.call("files__pid", json!({})).await.unwrap(), pid);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_leave_records_and_figures() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("demo")).await.unwrap();
    home.wait_for("demo", Lifecycle::Active).await;
    for _ in 0..3 {
        home.call("demo__echo", json!({"message": "x"}))
            .await
            .unwrap();
    }
    home.call("demo__note_read", json!({"name": "missing"}))
        .await
        .unwrap();
    let filter = vaxel_control::CallFilter::default();
    let listed = async || {
        let service = Some(reference("demo"));
        let page = &Page::FIRST;
        home.control
            .calls(&home.admin, service.as_ref(), (&filter, page))
            .await
            .unwrap()
            .items
    };
    let calls = until("the records of four calls", async || {
        Some(listed().await).filter(|calls| calls.len() == 4)
    })
    .await;
    assert_eq!(calls[0].target, "note_read");
    assert_eq!(calls[0].outcome, "tool_error");
    assert_eq!(
        (calls[3].outcome.as_str(), calls[3].door.as_str()),
        ("ok", "rest")
    );
    let stats = home
        .control
        .stats(&home.admin, &reference("demo"))
        .await
        .unwrap();
    assert_eq!((stats.calls, stats.errors), (4, 1));
    assert!(stats.last_used_at.is_some());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_at_the_end_are_written() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("demo")).await.unwrap();
    home.wait_for("demo", Lifecycle::Active).await;
    for _ in 0..7 {
        home.call("demo__echo", json!({"message": "x"}))
            .await
            .unwrap();
    }
    home.control.stop().await;
    drop(home);
    let home = open(folder.path()).await;
    let stats = home
        .control
        .stats(&home.admin, &reference("demo"))
        .await
        .unwrap();
    assert_eq!(stats.calls, 7);
    home.control.stop().await;
}
