//! Services that need each other: the order of their starts, and what one feels of another's end.

use serde_json::{Value, json};
use vaxel_control::Change;
use vaxel_core::{failure::Kind, lifecycle::Lifecycle, name::ServiceName, status::Health};

use crate::home::{demo, folder, open, open_with, reference, scripted};

fn needing(mut draft: Value, needs: &[&str]) -> Value {
    draft["spec"]["depends_on"] = json!(needs);
    draft
}

fn names(all: &[ServiceName]) -> Vec<&str> {
    all.iter().map(ServiceName::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_after_what_it_needs() {
    let folder = folder();
    let home = open(folder.path()).await;
    // `db` takes its time; `web` is asked for first.
    home.create(needing(demo("web"), &["db"])).await.unwrap();
    home.create(scripted("db", &["slow", "1"])).await.unwrap();
    home.wait_for("web", Lifecycle::Active).await;
    let db = home.get("db").await.status;
    assert_eq!(
        (db.lifecycle, db.health),
        (Lifecycle::Active, Health::Healthy)
    );
    let web = home
        .wait("web", |seen| seen.health == Health::Healthy)
        .await;
    assert!(web.instances[0].started_at >= db.instances[0].started_at);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_what_it_needs_a_service_is_degraded_and_goes_on() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("db")).await.unwrap();
    home.create(needing(demo("web"), &["db"])).await.unwrap();
    home.wait("web", |seen| seen.health == Health::Healthy)
        .await;

    home.submit(Change::StopService(reference("db")))
        .await
        .unwrap();
    let web = home
        .wait("web", |seen| seen.health == Health::Degraded)
        .await;
    assert_eq!(web.lifecycle, Lifecycle::Active);
    let reason = web.reason.unwrap();
    assert!(
        reason.contains("`db`") && reason.contains("STOPPED"),
        "{reason}"
    );
    let said = home.call("web__echo", json!({"message": "hi"})).await;
    assert_eq!(said.unwrap(), "hi");

    home.submit(Change::StartService(reference("db")))
        .await
        .unwrap();
    let web = home
        .wait("web", |seen| seen.health == Health::Healthy)
        .await;
    assert_eq!(web.reason, None);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_comes_is_not_waited_for_longer_than_configured() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        config.process.dependency_wait = std::time::Duration::from_millis(50);
    })
    .await;
    home.create(needing(demo("web"), &["nobody"]))
        .await
        .unwrap();
    let web = home.wait_for("web", Lifecycle::Active).await;
    assert_eq!(web.health, Health::Degraded);
    let reason = web.reason.unwrap();
    assert!(
        reason.contains("`nobody`, which it depends on, does not exist"),
        "{reason}"
    );
    // It comes after all.
    home.create(demo("nobody")).await.unwrap();
    home.wait("web", |seen| seen.health == Health::Healthy)
        .await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circle_is_refused_whichever_change_would_close_it() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("db")).await.unwrap();
    home.create(needing(demo("api"), &["db"])).await.unwrap();
    home.create(needing(demo("web"), &["api"])).await.unwrap();
    let draft = needing(demo("db"), &["web"]);
    let draft = vaxel_core::service::ServiceDraft::from_json(&draft).unwrap();
    let closing = Change::UpdateService {
        service: reference("db"),
        draft: Box::new(draft),
        expected: None,
    };
    let refused = home.submit(closing).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.detail.contains("db → web → api → db"), "{refused}");

    // Out of the archive, too.
    home.submit(Change::DeleteService {
        service: reference("api"),
        expected: None,
    })
    .await
    .unwrap();
    let draft = needing(demo("db"), &["web"]);
    let draft = vaxel_core::service::ServiceDraft::from_json(&draft).unwrap();
    home.submit(Change::UpdateService {
        service: reference("db"),
        draft: Box::new(draft),
        expected: None,
    })
    .await
    .unwrap();
    let refused = home.submit(Change::RestoreService(reference("api"))).await;
    assert!(refused.unwrap_err().detail.contains("api → db → web → api"));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_is_told_before_it_does() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("db")).await.unwrap();
    home.create(needing(demo("api"), &["db"])).await.unwrap();
    home.create(needing(demo("web"), &["api", "cdn"]))
        .await
        .unwrap();
    let affected = home
        .control
        .impact(&home.admin, &reference("db"))
        .await
        .unwrap();
    let paths: Vec<Vec<&str>> = affected.iter().map(|one| names(&one.path)).collect();
    assert_eq!(paths, [vec!["api", "db"], vec!["web", "api", "db"]]);
    let map = home.control.dependencies(&home.admin).await.unwrap();
    let order: Vec<&str> = map.health.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(order, ["db", "api", "web"]);
    home.control.stop().await;
}
