//! Sets: who may change them, what is refused, and what the data plane serves of them.

use serde_json::{Value, json};
use vaxel_control::{Change, ObservedToolset, ToolsetRef};
use vaxel_core::{
    failure::{Failure, Kind},
    lifecycle::Lifecycle,
    principal::{Permission, Permissions, Principal},
    toolset::ToolsetDraft,
};

use crate::home::{Home, demo, folder, open};

fn draft(name: &str, services: &Value) -> ToolsetDraft {
    ToolsetDraft::from_json(&json!({"name": name, "services": services})).unwrap()
}

fn named(name: &str) -> ToolsetRef {
    name.parse().unwrap()
}

fn update(name: &str, draft: ToolsetDraft, expected: Option<u64>) -> Change {
    Change::UpdateToolset {
        toolset: named(name),
        draft,
        expected,
    }
}

fn delete(name: &str, expected: Option<u64>) -> Change {
    Change::DeleteToolset {
        toolset: named(name),
        expected,
    }
}

async fn submit(home: &Home, change: Change) -> Result<ObservedToolset, Failure> {
    home.control
        .submit(&home.admin, change)
        .await?
        .into_toolset()
}

/// How many tools of each service are shown; `None` for one that is not there.
fn tools(observed: &ObservedToolset) -> Vec<Option<usize>> {
    let services = observed.services.iter();
    services
        .map(|(exists, shown)| {
            assert_eq!(*exists, shown.is_some());
            shown.as_ref().map(|shown| shown.tools)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_made_changed_removed_and_found_again_by_the_next_start() {
    let folder = folder();
    let home = open(folder.path()).await;
    let some = json!([{"service": "demo", "tools": ["note_*"]}, {"service": "later"}]);
    let made = submit(&home, Change::CreateToolset(draft("work", &some)))
        .await
        .unwrap();
    assert_eq!(made.resource.version, 1);
    assert_eq!(tools(&made), [None, None], "neither is there yet");
    home.create(demo("demo")).await.unwrap();
    home.wait_for("demo", Lifecycle::Active).await;
    let seen = home
        .control
        .toolset(&home.admin, &named("work"))
        .await
        .unwrap();
    assert_eq!(tools(&seen), [Some(3), None]);
    assert_eq!(seen.resource, made.resource);

    let one = json!([{"service": "demo", "tools": ["echo"]}]);
    let next = update("work", draft("play", &one), Some(1));
    let changed = submit(&home, next).await.unwrap();
    assert_eq!(
        (changed.resource.version, changed.resource.id),
        (2, made.resource.id)
    );
    assert_eq!(tools(&changed), [Some(1)]);
    home.control.stop().await;
    drop(home);

    let home = open(folder.path()).await;
    home.wait_for("demo", Lifecycle::Active).await;
    let all = home.control.toolsets(&home.admin).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(tools(&all[0]), [Some(1)]);
    let by_id = ToolsetRef::Id(made.resource.id);
    let found = home.control.toolset(&home.admin, &by_id).await.unwrap();
    assert_eq!(found.resource, changed.resource);
    submit(&home, delete("play", Some(2))).await.unwrap();
    let gone = home.control.toolset(&home.admin, &by_id).await.unwrap_err();
    assert_eq!(gone.kind, Kind::UnknownToolset);
    assert!(
        home.gateway
            .shown_in_set(&"play".parse().unwrap())
            .is_empty()
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wrote_later_is_told_what_there_is_now() {
    let folder = folder();
    let home = open(folder.path()).await;
    let all = json!([{"service": "demo"}]);
    for name in ["work", "play"] {
        submit(&home, Change::CreateToolset(draft(name, &all)))
            .await
            .unwrap();
    }
    let again = Change::CreateToolset(draft("work", &all));
    let renamed = update("play", draft("work", &all), None);
    for taken in [again, renamed] {
        let refused = submit(&home, taken).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
        assert!(refused.detail.contains("`work` is taken"), "{refused}");
    }
    submit(&home, update("work", draft("work", &all), Some(1)))
        .await
        .unwrap();
    for late in [
        update("work", draft("work", &all), Some(1)),
        delete("work", Some(1)),
    ] {
        let refused = submit(&home, late).await.unwrap_err();
        assert_eq!(refused.kind, Kind::VersionMismatch);
        assert!(refused.detail.contains("has version 2, not 1"), "{refused}");
    }
    submit(&home, delete("work", None)).await.unwrap();
    let refused = submit(&home, delete("work", None)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::UnknownToolset);
    assert!(refused.detail.contains("no set called `work`"), "{refused}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sets_are_changed_by_who_may_manage_and_seen_by_who_may_read() {
    let folder = folder();
    let home = open(folder.path()).await;
    let all = draft("work", &json!([{"service": "demo"}]));
    submit(&home, Change::CreateToolset(all.clone()))
        .await
        .unwrap();
    let reader = Principal {
        permissions: Permissions::of(&[Permission::McpRead, Permission::McpWrite]),
        name: "reader".into(),
        ..Principal::system()
    };
    let create = Change::CreateToolset(all.clone());
    for change in [create, update("work", all, None), delete("work", None)] {
        let refused = home.control.submit(&reader, change).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotPermitted);
        assert!(refused.detail.contains("mcp:manage"), "{refused}");
    }
    assert_eq!(home.control.toolsets(&reader).await.unwrap().len(), 1);
    let nobody = Principal {
        permissions: Permissions::NONE,
        ..reader
    };
    let refused = home.control.toolset(&nobody, &named("work")).await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted);
    home.control.stop().await;
}
