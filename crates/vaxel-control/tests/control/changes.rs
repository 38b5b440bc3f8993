//! What `submit` accepts, refuses and remembers.

use serde_json::json;
use vaxel_control::{Change, Page, ServiceFilter};
use vaxel_core::{
    failure::Kind,
    lifecycle::Lifecycle,
    principal::{Permission, Permissions, Principal},
    role::BuiltIn,
    service::ServiceDraft,
    status::Health,
};

use crate::home::{demo, folder, open, reference, scripted};

fn with(permissions: Permissions) -> Principal {
    Principal {
        permissions,
        name: "someone".into(),
        ..Principal::system()
    }
}

fn create(draft: &serde_json::Value) -> Change {
    Change::CreateService(Box::new(ServiceDraft::from_json(draft).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_made_served_and_found_again_by_the_next_start() {
    let folder = folder();
    let home = open(folder.path()).await;
    let made = home.create(demo("demo")).await.unwrap();
    assert_eq!((made.resource.version, made.resource.revision), (1, 1));
    let status = home.wait_for("demo", Lifecycle::Active).await;
    assert_eq!((status.health, status.tools), (Health::Healthy, 5));
    assert_eq!(
        home.call("demo__echo", json!({"message": "hello"}))
            .await
            .unwrap(),
        "hello"
    );
    home.call("demo__note_write", json!({"name": "a", "text": "kept"}))
        .await
        .unwrap();
    home.control.stop().await;
    drop(home);

    let home = open(folder.path()).await;
    assert!(
        home.admin_key.is_none(),
        "the key of the first start is still there"
    );
    home.wait_for("demo", Lifecycle::Active).await;
    assert_eq!(
        home.call("demo__note_read", json!({"name": "a"}))
            .await
            .unwrap(),
        "kept"
    );
    assert_eq!(home.get("demo").await.resource, made.resource);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_that_is_known_is_served_before_the_service_is_reached_again() {
    let folder = folder();
    let home = open(folder.path()).await;
    let script = folder.path().join("server.py");
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bin/server.py"),
        &script,
    )
    .unwrap();
    let mut draft = scripted("files", &["ok"]);
    draft["spec"]["source"]["process"]["args"][0] = json!(script);
    home.create(draft).await.unwrap();
    home.wait_for("files", Lifecycle::Active).await;
    home.control.stop().await;
    drop(home);

    // It cannot be started in this run: what is listed is what is remembered.
    std::fs::remove_file(&script).unwrap();
    let home = open(folder.path()).await;
    let tools = home.gateway.exposed_tools(&home.admin, None);
    assert!(
        tools.iter().any(|tool| &*tool.name == "files__greet"),
        "{tools:?}"
    );
    let status = home.wait_for("files", Lifecycle::Error).await;
    assert!(status.stale);
    assert_eq!(status.tools, 3);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_can_be_taken_once_and_again_when_it_is_free() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("demo")).await.unwrap();
    let refused = home.create(demo("demo")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    assert!(refused.detail.contains("`demo`"), "{refused}");

    let delete = Change::DeleteService {
        service: reference("demo"),
        expected: None,
    };
    let deleted = home.submit(delete).await.unwrap();
    assert!(deleted.resource.deleted_at.is_some());
    let gone = home
        .control
        .service(&home.admin, &reference("demo"))
        .await
        .unwrap_err();
    assert_eq!(gone.kind, Kind::UnknownService);
    home.create(demo("demo")).await.unwrap();
    let restore = Change::RestoreService(reference("demo"));
    assert_eq!(home.submit(restore).await.unwrap_err().kind, Kind::Conflict);

    let delete = Change::DeleteService {
        service: reference("demo"),
        expected: None,
    };
    home.submit(delete).await.unwrap();
    let restored = home
        .submit(Change::RestoreService(reference("demo")))
        .await
        .unwrap();
    assert!(restored.resource.deleted_at.is_none());
    home.wait_for("demo", Lifecycle::Active).await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_on_an_old_version_is_refused_and_says_the_current_one() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("demo")).await.unwrap();
    let mut draft = demo("demo");
    draft["tags"] = json!(["first"]);
    let update = |expected| Change::UpdateService {
        service: reference("demo"),
        draft: Box::new(ServiceDraft::from_json(&draft).unwrap()),
        expected,
    };
    let first = home.submit(update(Some(1))).await.unwrap();
    assert_eq!(
        (first.resource.version, first.resource.revision),
        (2, 2),
        "tags are part of a revision"
    );
    let late = home.submit(update(Some(1))).await.unwrap_err();
    assert_eq!(late.kind, Kind::VersionMismatch);
    assert!(late.detail.contains("version 2"), "{late}");

    // Many at once on the same version: exactly one of them wins.
    let all = (0..8).map(|_| home.submit(update(Some(2))));
    let results = futures_util::future::join_all(all).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    assert!(
        lost.into_iter()
            .all(|one| one.unwrap_err().kind == Kind::VersionMismatch)
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_needs_its_permission() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("demo")).await.unwrap();
    let refused = async |who: &Principal, change: Change| {
        home.control.submit(who, change).await.unwrap_err().kind == Kind::NotPermitted
    };
    let client = with(BuiltIn::Client.permissions());
    assert!(refused(&client, create(&demo("other"))).await);
    assert!(refused(&client, Change::RestartService(reference("demo"))).await);
    assert!(refused(&client, Change::Shutdown).await);

    let writer = with(Permissions::of(&[
        Permission::McpRead,
        Permission::McpWrite,
    ]));
    assert!(
        refused(&writer, create(&scripted("program", &["ok"]))).await,
        "host:execute"
    );
    home.control
        .submit(&writer, create(&demo("other")))
        .await
        .unwrap();
    let delete = Change::DeleteService {
        service: reference("other"),
        expected: None,
    };
    assert!(refused(&writer, delete).await, "mcp:manage");
    let mut off = demo("other");
    off["enabled"] = json!(false);
    let update = Change::UpdateService {
        service: reference("other"),
        draft: Box::new(ServiceDraft::from_json(&off).unwrap()),
        expected: None,
    };
    assert!(
        refused(&writer, update).await,
        "stopping by an update is stopping"
    );

    let nobody = with(Permissions::NONE);
    let list = home
        .control
        .services(&nobody, &ServiceFilter::default(), &Page::FIRST)
        .await;
    assert_eq!(list.unwrap_err().kind, Kind::NotPermitted);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_by_what_is_stored_and_by_what_is_seen() {
    let folder = folder();
    let home = open(folder.path()).await;
    for name in ["a", "b", "c", "d", "e"] {
        home.create(demo(name)).await.unwrap();
        home.wait_for(name, Lifecycle::Active).await;
    }
    home.submit(Change::StopService(reference("b")))
        .await
        .unwrap();
    home.submit(Change::StopService(reference("d")))
        .await
        .unwrap();
    home.wait_for("b", Lifecycle::Inactive).await;
    home.wait_for("d", Lifecycle::Inactive).await;

    let active = ServiceFilter {
        state: Some(Lifecycle::Active),
        ..ServiceFilter::default()
    };
    let mut page = Page {
        limit: 2,
        cursor: None,
    };
    let mut names = Vec::new();
    loop {
        let list = home
            .control
            .services(&home.admin, &active, &page)
            .await
            .unwrap();
        assert!(list.items.len() <= 2);
        names.extend(list.items.iter().map(|one| one.resource.name.to_string()));
        page.cursor = list.next_cursor;
        if page.cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "c", "e"]);
    home.control.stop().await;
}
