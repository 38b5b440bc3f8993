//! How a service comes, changes, fails and goes, without costing a caller a call.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use vaxel_control::{Change, Observed};
use vaxel_core::{
    failure::Failure,
    lifecycle::Lifecycle,
    service::ServiceDraft,
    status::{Health, ServiceStatus},
};

use crate::home::{Home, demo, folder, open, reference, scripted};

async fn update(home: &Home, draft: Value) -> Result<Observed, Failure> {
    let draft = ServiceDraft::from_json(&draft).expect("the test's draft is valid");
    let service = reference(draft.name.as_str());
    home.submit(Change::UpdateService {
        service,
        draft: Box::new(draft),
        expected: None,
    })
    .await
}

fn pids(status: &ServiceStatus) -> BTreeSet<u32> {
    status.instances.iter().filter_map(|one| one.pid).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_was_switched_on_is_a_draft_and_what_was_is_inactive() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = demo("later");
    draft["enabled"] = json!(false);
    let created = home.create(draft).await.unwrap();
    assert_eq!(created.status.lifecycle, Lifecycle::Draft);
    home.control.stop().await;
    drop(home);

    let home = open(folder.path()).await;
    let status = home.wait_for("later", Lifecycle::Draft).await;
    assert_eq!(status.health, Health::Stopped);
    home.submit(Change::StartService(reference("later")))
        .await
        .unwrap();
    home.wait_for("later", Lifecycle::Active).await;
    home.submit(Change::StopService(reference("later")))
        .await
        .unwrap();
    home.wait_for("later", Lifecycle::Inactive).await;
    home.control.stop().await;
    drop(home);

    let home = open(folder.path()).await;
    home.wait_for("later", Lifecycle::Inactive).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_missing_is_said_at_once_and_noticed_when_it_comes() {
    let folder = folder();
    let home = open(folder.path()).await;
    let (program, dir) = (folder.path().join("server"), folder.path().join("work"));
    home.create(json!({ "name": "files", "spec": { "source": { "process": {
        "command": program, "args": ["ok"], "cwd": dir
    } } } }))
    .await
    .unwrap();
    let status = home.wait_for("files", Lifecycle::Error).await;
    let reason = status.reason.unwrap();
    for missing in [&program, &dir] {
        assert!(reason.contains(missing.to_str().unwrap()), "{reason}");
    }
    assert_eq!((status.health, status.instances.len()), (Health::Error, 0));

    std::fs::create_dir(&dir).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bin/server.py");
    let text = format!("#!/bin/sh\nexec python3 {script} \"$@\"\n");
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_does_not_start_leaves_the_one_before_serving() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(scripted("files", &["ok"])).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let first = home.call("files__pid", json!({})).await.unwrap();

    // One that cannot be started, and one that ends at every start.
    let mut missing = scripted("files", &["ok"]);
    missing["spec"]["source"]["process"]["command"] = json!("no-such-program-anywhere");
    for (broken, because) in [
        (missing, "no-such-program-anywhere"),
        (scripted("files", &["shout"]), "code 7"),
    ] {
        update(&home, broken).await.unwrap();
        let status = home.settled("files").await;
        assert_eq!(status.lifecycle, Lifecycle::Error);
        let reason = status.reason.unwrap();
        assert!(reason.contains(because), "{reason}");
        assert_eq!(home.call("files__pid", json!({})).await.unwrap(), first);
    }

    update(&home, scripted("files", &["ok", "again"]))
        .await
        .unwrap();
    assert_eq!(home.settled("files").await.lifecycle, Lifecycle::Active);
    assert_ne!(home.call("files__pid", json!({})).await.unwrap(), first);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_under_load_cost_no_call() {
    const CALLERS: usize = 8;
    const UPDATES: usize = 5;
    let folder = folder();
    let home = Arc::new(open(folder.path()).await);
    home.create(scripted("files", &["ok"])).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU32::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (home, done) = (Arc::clone(&home), Arc::clone(&done));
        let answered = Arc::clone(&answered);
        callers.spawn(async move {
            while !done.load(Ordering::Relaxed) {
                home.call("files__pid", json!({})).await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        });
    }
    let mut before = pids(&home.get("files").await.status);
    for number in 0..UPDATES {
        let mut draft = scripted("files", &["ok", &number.to_string()]);
        draft["spec"]["replicas"] = json!(1 + number % 2);
        update(&home, draft).await.unwrap();
        let after = home.settled("files").await;
        let after = pids(&after);
        assert!(
            after.is_disjoint(&before),
            "{after:?} took over from {before:?}"
        );
        before = after;
    }
    done.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap().expect("no call is lost");
    }
    assert!(answered.load(Ordering::Relaxed) > 0);
    home.control.stop().await;
}
