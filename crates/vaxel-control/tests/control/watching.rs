//! What is done about services that answered once: they are asked whether they still do, and what they
//! offer now.

use std::time::Duration;

use serde_json::json;
use vaxel_control::Change;
use vaxel_core::{
    lifecycle::Lifecycle,
    status::{Health, ServiceStatus},
};

use crate::home::{folder, open_with, reference, scripted};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_answers_no_more_health_checks_is_replaced() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        config.process.health_interval = Duration::from_millis(200);
    })
    .await;
    let mark = folder.path().join("frozen").display().to_string();
    let mut draft = scripted("stiff", &["freeze", &mark]);
    // By default an answer may take as long as the interval.
    draft["spec"]["health"] = json!({ "timeout": "1s" });
    home.create(draft).await.unwrap();
    home.wait_for("stiff", Lifecycle::Active).await;
    let first = home.call("stiff__pid", json!({})).await.unwrap();
    let shaky = home
        .wait("stiff", |seen| {
            seen.health == Health::Degraded || restarts(seen) > 0
        })
        .await;
    let reason = shaky.instances[0].last_error.clone().unwrap();
    assert!(reason.contains("health check"), "{reason}");
    home.wait("stiff", |seen| {
        restarts(seen) > 0 && seen.health == Health::Healthy
    })
    .await;
    let second = home.call("stiff__pid", json!({})).await.unwrap();
    assert_ne!(first, second);
    let old = format!("/proc/{first}");
    assert!(!std::path::Path::new(&old).exists(), "{old} is still there");
    home.control.stop().await;
}

fn restarts(status: &ServiceStatus) -> u32 {
    status.instances.first().map_or(0, |one| one.restarts)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_of_a_question_is_asked_once() {
    let folder = folder();
    let home = open_with(folder.path(), |_| {}).await;
    let mark = folder.path().join("starts");
    let starts = || std::fs::read(&mark).unwrap().len();
    let name = mark.display().to_string();
    home.create(scripted("touchy", &["touchy", &name]))
        .await
        .unwrap();
    let seen = home.wait_for("touchy", Lifecycle::Active).await;
    assert_eq!((starts(), restarts(&seen)), (2, 0));
    // What was found out is remembered.
    home.submit(Change::RestartService(reference("touchy")))
        .await
        .unwrap();
    home.wait("touchy", |seen| {
        starts() == 3 && seen.health == Health::Healthy
    })
    .await;
    assert_eq!(
        home.call("touchy__greet", json!({})).await.unwrap(),
        "hello"
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_offers_is_asked_again_though_it_says_nothing() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        config.catalog_ttl = Duration::from_millis(50);
    })
    .await;
    let mark = folder.path().join("grown");
    let name = mark.display().to_string();
    home.create(scripted("quiet", &["grow", &name]))
        .await
        .unwrap();
    home.wait("quiet", |seen| seen.tools == 3).await;
    std::fs::write(&mark, "").unwrap();
    home.wait("quiet", |seen| seen.tools == 4).await;
    assert_eq!(home.call("quiet__late", json!({})).await.unwrap(), "hello");
    home.control.stop().await;
}
