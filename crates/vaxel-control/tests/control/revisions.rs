//! Revisions: what was wanted, by whom and why, and the way back.

use serde_json::{Value, json};
use vaxel_control::{Change, Outcome, Page, Revision, RevisionRef, ServiceFilter, Terms};
use vaxel_core::{
    failure::{Failure, Kind},
    principal::{Permission, Permissions, Principal},
    service::ServiceDraft,
};

use crate::home::{Home, demo, everything_in, folder, open, reference};

fn remote(url: &str, token: &str) -> Value {
    json!({
        "name": "remote", "enabled": false,
        "spec": { "source": { "mcp": { "url": url, "headers": { "Authorization": token } } } }
    })
}

fn update(name: &str, draft: &Value) -> Change {
    Change::UpdateService {
        service: reference(name),
        draft: Box::new(ServiceDraft::from_json(draft).unwrap()),
        expected: None,
    }
}

fn back(name: &str, to: &str) -> Change {
    Change::RollBackService {
        service: reference(name),
        to: to.into(),
    }
}

async fn history(home: &Home, name: &str) -> Vec<Revision> {
    let page = home
        .control
        .revisions(&home.admin, &reference(name), &Page::FIRST)
        .await;
    page.unwrap().items
}

async fn because(home: &Home, message: &str, change: Change) -> Result<Outcome, Failure> {
    let terms = Terms {
        expected: None,
        message: Some(message.to_owned()),
    };
    home.control.on(terms).submit(&home.admin, change).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_says_who_wanted_what_and_why() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = demo("demo");
    draft["enabled"] = json!(false);
    let create = Change::CreateService(Box::new(ServiceDraft::from_json(&draft).unwrap()));
    because(&home, "to try it", create).await.unwrap();
    draft["tags"] = json!(["web"]);
    draft["environment"] = json!("prod");
    because(&home, "it is live now", update("demo", &draft))
        .await
        .unwrap();
    home.submit(update("demo", &draft)).await.unwrap();
    home.submit(Change::StartService(reference("demo")))
        .await
        .unwrap();

    let all = history(&home, "demo").await;
    let told: Vec<_> = all
        .iter()
        .map(|one| {
            (
                one.number,
                one.action.as_str(),
                one.message.as_deref(),
                one.is_current,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (3, "service.start", None, true),
            (2, "service.update", Some("it is live now"), false),
            (1, "service.create", Some("to try it"), false),
        ],
        "what changes nothing is no revision"
    );
    assert!(all.iter().all(|one| one.author == "vaxel"));
    assert_eq!(all[1].draft["tags"], json!(["web"]));
    assert_eq!(all[2].draft["environment"], "default");

    let (demo, second) = (reference("demo"), RevisionRef::Number(2));
    let diff = home
        .control
        .diff(&home.admin, &demo, (None, Some(&second)))
        .await
        .unwrap();
    assert_eq!((diff.from, diff.to), (1, 2));
    let mut paths: Vec<&str> = diff
        .differences
        .iter()
        .map(|one| one.path.as_str())
        .collect();
    paths.sort_unstable();
    assert_eq!(paths, ["environment", "tags[0]"]);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_with_an_old_revision_also_its_sealed_values() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut first = remote("https://a.example/mcp", "Bearer first-token");
    first["tags"] = json!(["old"]);
    home.create(first).await.unwrap();
    let mut second = remote("https://b.example/mcp", "Bearer second-token");
    second["name"] = json!("renamed");
    home.submit(update("remote", &second)).await.unwrap();

    let diff = home
        .control
        .diff(&home.admin, &reference("renamed"), (None, None))
        .await
        .unwrap();
    let header = diff
        .differences
        .iter()
        .find(|one| one.path.ends_with("headers.Authorization"))
        .unwrap_or_else(|| panic!("{diff:?}"));
    for value in [&header.old, &header.new] {
        let text = value.as_ref().unwrap().as_str().unwrap();
        assert!(text.starts_with("secret:"), "{text}");
    }

    let restored = home.submit(back("renamed", "1")).await.unwrap().resource;
    assert_eq!(
        (restored.name.as_str(), restored.tags.as_slice()),
        ("remote", &["old".to_owned()][..])
    );
    assert_eq!((restored.version, restored.revision), (3, 3));
    let all = history(&home, "remote").await;
    assert_eq!(all[0].action, "service.rollback");
    assert_eq!(all[0].draft, all[2].draft);
    let bytes = everything_in(folder.path());
    assert!(!bytes.windows(11).any(|window| window == b"first-token"));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_is_an_update_like_any_other() {
    let folder = folder();
    let home = open(folder.path()).await;
    let program = json!({
        "name": "one", "enabled": false,
        "spec": { "source": { "process": { "command": "python3" } } }
    });
    home.create(program).await.unwrap();
    let mut next = demo("two");
    next["enabled"] = json!(false);
    home.submit(update("one", &next)).await.unwrap();
    let who = |permissions: &[Permission]| Principal {
        permissions: Permissions::of(permissions),
        name: "someone".into(),
        ..Principal::system()
    };
    let writer = who(&[Permission::McpRead, Permission::McpWrite]);
    let refused = home
        .control
        .submit(&writer, back("two", "1"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted, "host:execute");
    let reader = who(&[Permission::McpRead]);
    let refused = home
        .control
        .submit(&reader, back("two", "1"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted, "mcp:write");

    home.create(demo("one")).await.unwrap();
    let taken = home.submit(back("two", "1")).await.unwrap_err();
    assert_eq!(taken.kind, Kind::Conflict, "{taken}");
    let unknown = home.submit(back("two", "9")).await.unwrap_err();
    assert!(
        unknown.kind == Kind::NotFound && unknown.detail.contains("no revision 9"),
        "{unknown}"
    );
    let stale = home.control.on(Terms {
        expected: Some(1),
        message: None,
    });
    let stale = stale
        .submit(&home.admin, back("two", "2"))
        .await
        .unwrap_err();
    assert_eq!(stale.kind, Kind::VersionMismatch);
    assert!(stale.detail.contains("version 2"), "{stale}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_leads_back_to_its_revision() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut draft = demo("demo");
    draft["enabled"] = json!(false);
    home.create(draft.clone()).await.unwrap();
    draft["spec"]["description"] = json!("worse");
    home.submit(update("demo", &draft)).await.unwrap();
    let label = |label: &str, revision: &str| Change::LabelRevision {
        service: reference("demo"),
        label: label.to_owned(),
        revision: revision.into(),
    };
    home.submit(label("known-good", "current")).await.unwrap();
    home.submit(label("known-good", "1")).await.unwrap();
    home.submit(label("also", "known-good")).await.unwrap();
    let all = history(&home, "demo").await;
    assert_eq!(
        all[0].labels,
        Vec::<String>::new(),
        "it belongs to one revision"
    );
    assert_eq!(all[1].labels, ["also", "known-good"]);
    for bad in ["7", "Good", "", "-x", "current", &"a".repeat(65)] {
        let refused = home.submit(label(bad, "1")).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Invalid, "{bad}");
    }
    let restored = home.submit(back("demo", "known-good")).await.unwrap();
    assert_eq!(restored.resource.spec.description, None);
    let unlabel = || Change::UnlabelRevision {
        service: reference("demo"),
        label: "also".to_owned(),
    };
    home.submit(unlabel()).await.unwrap();
    assert_eq!(
        home.submit(unlabel()).await.unwrap_err().kind,
        Kind::NotFound
    );
    let gone = RevisionRef::from("also");
    let gone = home
        .control
        .revision(&home.admin, &reference("demo"), &gone)
        .await
        .unwrap_err();
    assert_eq!(gone.kind, Kind::NotFound);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_refused_on_an_old_version_and_takes_a_message() {
    let folder = folder();
    let home = open(folder.path()).await;
    let service = || reference("demo");
    home.create(demo("demo")).await.unwrap();
    let stale = home.control.on(Terms {
        expected: Some(7),
        message: None,
    });
    let changes = [
        Change::StartService(service()),
        Change::StopService(service()),
        Change::RestartService(service()),
        back("demo", "1"),
        Change::LabelRevision {
            service: service(),
            label: "a".to_owned(),
            revision: RevisionRef::Current,
        },
        Change::DeleteService {
            service: service(),
            expected: Some(7),
        },
    ];
    for change in changes {
        let said = format!("{change:?}");
        let refused = stale.submit(&home.admin, change).await.unwrap_err();
        assert_eq!(refused.kind, Kind::VersionMismatch, "{said}");
        assert!(refused.detail.contains("version 1"), "{said}: {refused}");
    }
    let long = because(&home, &"x".repeat(501), Change::StopService(service())).await;
    assert_eq!(long.unwrap_err().kind, Kind::Invalid);
    let delete = Change::DeleteService {
        service: service(),
        expected: None,
    };
    because(&home, "nobody needs it", delete).await.unwrap();
    for change in [
        Change::RestoreService(service()),
        Change::PurgeService(service()),
    ] {
        let refused = stale.submit(&home.admin, change).await.unwrap_err();
        assert_eq!(refused.kind, Kind::VersionMismatch, "{refused}");
    }
    let query = vaxel_control::FeedQuery {
        after: None,
        types: vec!["service.delete".to_owned()],
    };
    let page = home.control.changes(&home.admin, &query, 10).await.unwrap();
    assert_eq!(page.items[0].message.as_deref(), Some("nobody needs it"));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_is_gone_and_what_is_in_use_is_not_purged() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("demo")).await.unwrap();
    let purge = || Change::PurgeService(reference("demo"));
    assert_eq!(
        home.submit(purge()).await.unwrap_err().kind,
        Kind::UnknownService
    );
    let delete = Change::DeleteService {
        service: reference("demo"),
        expected: None,
    };
    home.submit(delete).await.unwrap();
    let writer = Principal {
        permissions: Permissions::of(&[Permission::McpWrite]),
        ..Principal::system()
    };
    let refused = home.control.submit(&writer, purge()).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted, "mcp:manage");
    home.control.submit(&home.admin, purge()).await.unwrap();
    let archive = ServiceFilter {
        deleted: true,
        ..ServiceFilter::default()
    };
    let left = home
        .control
        .services(&home.admin, &archive, &Page::FIRST)
        .await
        .unwrap();
    assert!(left.items.is_empty());
    assert_eq!(
        home.submit(purge()).await.unwrap_err().kind,
        Kind::UnknownService
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archive_is_emptied_when_the_configuration_says_so() {
    let folder = folder();
    let home = open(folder.path()).await;
    home.create(demo("old")).await.unwrap();
    let delete = Change::DeleteService {
        service: reference("old"),
        expected: None,
    };
    home.submit(delete).await.unwrap();
    home.create(demo("live")).await.unwrap();
    home.control.stop().await;
    drop(home);
    let home = crate::home::open_with(folder.path(), |config| {
        config.archive = Some(std::time::Duration::ZERO);
    })
    .await;
    let (mut feed, _) = home
        .control
        .follow(
            &home.admin,
            vaxel_control::FeedQuery {
                after: Some(0),
                types: vec!["service.purge".to_owned()],
            },
        )
        .await
        .unwrap();
    let told = tokio::time::timeout(std::time::Duration::from_mins(1), async {
        loop {
            let items = feed.next().await.unwrap();
            if let Some(vaxel_control::FeedItem::Change(event)) = items.into_iter().next() {
                return event;
            }
        }
    });
    assert_eq!(told.await.unwrap().name, "old");
    home.get("live").await;
    home.control.stop().await;
}
