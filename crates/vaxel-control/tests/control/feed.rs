//! The feed of changes: in order, without holes, for whoever may see them.

use std::time::Duration;

use serde_json::{Value, json};
use vaxel_control::{
    Change, FeedConfig, FeedEvent, FeedItem, FeedQuery, FeedReader, KeyDraft, KeyRef,
};
use vaxel_core::{
    failure::Kind,
    lifecycle::Lifecycle,
    principal::{Permission, Permissions, Principal, Proof},
    role::BuiltIn,
    service::ServiceDraft,
    template::Template,
};
use vaxel_store::Store;

use crate::home::{Home, demo, folder, open, open_with, reference};

const PATIENCE: Duration = Duration::from_mins(1);

fn stopped(name: &str) -> Value {
    let mut draft = demo(name);
    draft["enabled"] = json!(false);
    draft
}

fn after(number: u64) -> FeedQuery {
    FeedQuery {
        after: Some(number),
        types: Vec::new(),
    }
}

/// Changes that nothing follows by itself.
fn templates(after: Option<u64>) -> FeedQuery {
    FeedQuery {
        after,
        types: vec!["template.create".to_owned()],
    }
}

async fn follow(home: &Home, query: FeedQuery) -> FeedReader {
    let (reader, reset) = home.control.follow(&home.admin, query).await.unwrap();
    assert!(reset.is_none(), "{reset:?}");
    reader
}

/// The next changes, until `count` were there.
async fn changes(reader: &mut FeedReader, count: usize) -> Vec<FeedEvent> {
    let mut found = Vec::new();
    let all = tokio::time::timeout(PATIENCE, async {
        while found.len() < count {
            for item in reader.next().await.expect("the feed goes on") {
                match item {
                    FeedItem::Change(event) => found.push((*event).clone()),
                    FeedItem::Alive(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    all.await.expect("the changes come");
    found
}

/// The next changes, until so many of them made a service.
async fn creates_of(reader: &mut FeedReader, count: usize) -> Vec<FeedEvent> {
    let mut found: Vec<FeedEvent> = Vec::new();
    let is_create = |event: &&FeedEvent| event.action == "service.create";
    while found.iter().filter(is_create).count() < count {
        found.extend(changes(reader, 1).await);
    }
    found
}

async fn next(reader: &mut FeedReader) -> FeedItem {
    let items = tokio::time::timeout(PATIENCE, reader.next()).await;
    let items = items.expect("something comes").expect("the feed goes on");
    assert_eq!(items.len(), 1, "{items:?}");
    items.into_iter().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_gets_every_change_once_wherever_it_begins() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        // Most of what is read here is in the ring no more.
        config.feed.ring = 8;
    })
    .await;
    let mut live = follow(&home, FeedQuery::default()).await;
    let begin = live.after();
    let creates = (0..40).map(|index| home.create(stopped(&format!("s{index}"))));
    for made in futures_util::future::join_all(creates).await {
        made.unwrap();
    }
    // What is seen of their health comes between.
    let seen = creates_of(&mut live, 40).await;
    let numbers: Vec<u64> = seen.iter().map(|event| event.number).collect();
    let newest = begin + seen.len() as u64;
    assert_eq!(numbers, (begin + 1..=newest).collect::<Vec<_>>());
    let first = &seen[0];
    assert_eq!(
        (first.action.as_str(), first.kind.as_str()),
        ("service.create", "service")
    );
    assert!(
        first.name.starts_with('s') && first.actor == "vaxel",
        "{first:?}"
    );
    let detail: Value = serde_json::from_str(first.detail.get()).unwrap();
    assert_eq!(
        (&detail["version"], &detail["source"]),
        (&json!(1), &json!("builtin"))
    );

    for start in [begin, begin + 1, newest - 9, newest - 8, newest - 1] {
        let mut reader = follow(&home, after(start)).await;
        let count = usize::try_from(newest - start).unwrap();
        let again = changes(&mut reader, count).await;
        let numbers: Vec<u64> = again.iter().take(count).map(|event| event.number).collect();
        assert_eq!(numbers, (start + 1..=newest).collect::<Vec<_>>());
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_go_through_is_told_with_every_state() {
    let folder = folder();
    let home = open(folder.path()).await;
    let query = FeedQuery {
        after: None,
        types: vec!["service.lifecycle".to_owned()],
    };
    let mut reader = follow(&home, query).await;
    home.create(demo("demo")).await.unwrap();
    home.wait_for("demo", Lifecycle::Active).await;
    home.submit(Change::StopService(reference("demo")))
        .await
        .unwrap();
    home.wait_for("demo", Lifecycle::Inactive).await;
    let mut states = vec!["draft".to_owned()];
    while states.last().unwrap() != "inactive" {
        for event in changes(&mut reader, 1).await {
            assert_eq!(
                (event.name.as_str(), event.actor.as_str()),
                ("demo", "vaxel")
            );
            let detail: Value = serde_json::from_str(event.detail.get()).unwrap();
            assert_eq!(detail["from"], states.last().unwrap().as_str(), "{detail}");
            let via = detail["via"].as_array().unwrap().iter();
            states.extend(
                via.chain([&detail["to"]])
                    .map(|one| one.as_str().unwrap().to_owned()),
            );
        }
    }
    let all = [
        "draft",
        "validating",
        "deploying",
        "active",
        "deactivating",
        "inactive",
    ];
    assert_eq!(states, all);
    let query = FeedQuery {
        after: Some(0),
        types: vec!["service.health".to_owned()],
    };
    let mut health = follow(&home, query).await;
    loop {
        let event = changes(&mut health, 1).await.pop().unwrap();
        let detail: Value = serde_json::from_str(event.detail.get()).unwrap();
        if detail["to"] == "STOPPED" {
            break;
        }
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_services_go_through_is_audited_with_whose_change_led_to_it() {
    let folder = folder();
    let home = open(folder.path()).await;
    let someone = Principal {
        name: "someone".into(),
        ..Principal::system()
    };
    let draft = ServiceDraft::from_json(&demo("demo")).unwrap();
    let create = Change::CreateService(Box::new(draft));
    home.control.submit(&someone, create).await.unwrap();
    home.wait_for("demo", Lifecycle::Active).await;
    let stop = Change::StopService(reference("demo"));
    home.submit(stop).await.unwrap();
    home.wait_for("demo", Lifecycle::Inactive).await;
    home.control.stop().await;
    drop(home);

    let store = Store::open(&vaxel_store::Config::new(folder.path().join("data"))).unwrap();
    let lines = store.audit_lines(100, None).await.unwrap();
    let of_states = lines
        .iter()
        .rev()
        .filter(|line| line.action == "service.lifecycle");
    let mut told = Vec::new();
    for line in of_states {
        assert_eq!((&*line.actor, &*line.target_name), ("vaxel", "demo"));
        let detail: Value = serde_json::from_str(&line.detail).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        told.push((text(&detail["to"]), text(&detail["author"])));
    }
    let told: Vec<_> = told.iter().map(|(to, by)| (&**to, &**by)).collect();
    let all = [
        ("validating", "someone"),
        ("deploying", "someone"),
        ("active", "someone"),
        ("deactivating", "vaxel"),
        ("inactive", "vaxel"),
    ];
    assert_eq!(told, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_of_what_they_may_not_see() {
    let folder = folder();
    let home = open(folder.path()).await;
    let reader = Principal {
        permissions: Permissions::of(&[Permission::McpRead]),
        name: "reader".into(),
        ..Principal::system()
    };
    let (mut feed, _) = home
        .control
        .follow(&reader, FeedQuery::default())
        .await
        .unwrap();
    let draft = KeyDraft {
        name: "secretary".to_owned(),
        permissions: BuiltIn::Client.permissions(),
        ..KeyDraft::default()
    };
    home.control
        .submit(&home.admin, Change::CreateKey(draft))
        .await
        .unwrap();
    home.create(stopped("files")).await.unwrap();
    let seen = changes(&mut feed, 1).await;
    assert_eq!(seen[0].action, "service.create");
    let page = home.control.changes(&reader, &after(0), 100).await.unwrap();
    assert!(
        page.items.iter().all(|event| event.kind == "service"),
        "{page:?}"
    );
    assert_eq!(page.next_after, page.newest);
    let page = home
        .control
        .changes(&home.admin, &after(0), 100)
        .await
        .unwrap();
    assert!(page.items.iter().any(|event| event.action == "key.create"));

    let nobody = Principal {
        permissions: Permissions::NONE,
        ..reader
    };
    let refused = home
        .control
        .follow(&nobody, FeedQuery::default())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_key_is_revoked_is_told_so_and_nothing_more() {
    let folder = folder();
    let home = open(folder.path()).await;
    let draft = KeyDraft {
        name: "leaver".to_owned(),
        permissions: BuiltIn::Admin.permissions(),
        ..KeyDraft::default()
    };
    let made = home
        .control
        .submit(&home.admin, Change::CreateKey(draft))
        .await
        .unwrap();
    let id = made.into_key().unwrap().stored.id;
    let leaver = Principal {
        proof: Proof::Key(id),
        ..Principal::system()
    };
    let (mut feed, _) = home
        .control
        .follow(&leaver, FeedQuery::default())
        .await
        .unwrap();
    home.control
        .submit(&home.admin, Change::RevokeKey(KeyRef::Id(id)))
        .await
        .unwrap();
    let FeedItem::End(reason, _) = next(&mut feed).await else {
        panic!("the feed went on");
    };
    assert!(reason.contains("revoked"), "{reason}");
    assert!(feed.next().await.is_none());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_ends_with_the_key_that_it_was_opened_with() {
    let folder = folder();
    let home = open(folder.path()).await;
    let draft = KeyDraft {
        name: "brief".to_owned(),
        permissions: BuiltIn::Admin.permissions(),
        expires_in: Some(vaxel_core::quantity::Span(Duration::from_millis(1))),
        ..KeyDraft::default()
    };
    let made = home
        .control
        .submit(&home.admin, Change::CreateKey(draft))
        .await
        .unwrap();
    let key = made.into_key().unwrap().stored;
    while vaxel_core::time::Clock::system().now() < key.expires_at.unwrap() {
        tokio::task::yield_now().await;
    }
    let brief = Principal {
        proof: Proof::Key(key.id),
        ..Principal::system()
    };
    let (mut feed, _) = home
        .control
        .follow(&brief, FeedQuery::default())
        .await
        .unwrap();
    let FeedItem::End(reason, _) = next(&mut feed).await else {
        panic!("the feed goes on");
    };
    assert!(reason.contains("expired"), "{reason}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_not_kept_any_more_leads_to_a_new_beginning() {
    let folder = folder();
    let home = open(folder.path()).await;
    for index in 0..10 {
        home.create(stopped(&format!("s{index}"))).await.unwrap();
    }
    let newest = home
        .control
        .changes(&home.admin, &after(0), 1)
        .await
        .unwrap()
        .newest;
    home.control.stop().await;
    drop(home);
    // The sweep of the start keeps three of them.
    let home = open_with(folder.path(), |config| {
        config.feed = FeedConfig {
            max_rows: 3,
            ..FeedConfig::default()
        };
    })
    .await;
    let trimmed = tokio::time::timeout(PATIENCE, async {
        while !home
            .control
            .changes(&home.admin, &after(1), 1)
            .await
            .unwrap()
            .reset
        {
            tokio::task::yield_now().await;
        }
    });
    trimmed.await.expect("the sweep runs");
    let mut old = follow(&home, after(1)).await;
    let FeedItem::Reset(number) = next(&mut old).await else {
        panic!("the old number was taken");
    };
    assert!(number >= newest);
    home.create(stopped("later")).await.unwrap();
    let seen = changes(&mut old, 1).await;
    assert_eq!(
        (seen[0].name.as_str(), seen[0].number),
        ("later", number + 1)
    );
    // Nor is one that is still to come.
    let query = after(number + 1_000);
    let (_, reset) = home
        .control
        .follow(&home.admin, query.clone())
        .await
        .unwrap();
    assert!(matches!(reset, Some(FeedItem::Reset(_))), "{reset:?}");
    let page = home.control.changes(&home.admin, &query, 10).await.unwrap();
    assert!(
        page.reset && page.items.is_empty() && page.next_after == page.newest,
        "{page:?}"
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_bounded_and_one_that_takes_nothing_loses_its_place() {
    let folder = folder();
    let home = open_with(folder.path(), |config| {
        config.feed = FeedConfig {
            readers: 2,
            ring: 4,
            // One that waits in vain for a moment of the processor is not idle.
            patience: Duration::from_secs(2),
            ..FeedConfig::default()
        };
    })
    .await;
    let mut idle = follow(&home, templates(None)).await;
    let mut awake = follow(&home, templates(None)).await;
    let begin = idle.after();
    let third = home.control.follow(&home.admin, templates(None)).await;
    let refused = third.err().expect("there is no third place");
    assert_eq!(refused.kind, Kind::Busy);
    for index in 0..10 {
        let template = json!({ "name": format!("t{index}"),
            "extends": { "template": "filesystem", "with": { "root": "/tmp" } } });
        let template = Template::from_json(&template).unwrap();
        let create = Change::CreateTemplate(Box::new(template));
        home.control.submit(&home.admin, create).await.unwrap();
        changes(&mut awake, 1).await;
    }
    // Its place is free as soon as somebody looks.
    let third = tokio::time::timeout(PATIENCE, async {
        loop {
            match home
                .control
                .follow(&home.admin, templates(Some(begin)))
                .await
            {
                Ok((reader, _)) => return reader,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    let mut third = third.await.expect("the idle one loses its place");
    assert_eq!(changes(&mut third, 10).await.len(), 10);
    let FeedItem::End(reason, number) = next(&mut idle).await else {
        panic!("the idle one goes on");
    };
    assert!(
        reason.contains("after your number") && number == begin,
        "{reason}"
    );
    drop((awake, third));
    let mut again = follow(&home, templates(Some(number))).await;
    assert_eq!(changes(&mut again, 10).await.len(), 10, "nothing is lost");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_are_told_that_the_server_ends() {
    let folder = folder();
    let home = open(folder.path()).await;
    let mut reader = follow(&home, FeedQuery::default()).await;
    let control = home.control.clone();
    let (told, ()) = tokio::join!(next(&mut reader), async { control.stop().await });
    assert!(matches!(told, FeedItem::End(..)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_changes_are_a_page_of_those_that_were_asked_for() {
    let folder = folder();
    let home = open(folder.path()).await;
    for index in 0..6 {
        home.create(stopped(&format!("s{index}"))).await.unwrap();
        let restore = Change::DeleteService {
            service: reference(&format!("s{index}")),
            expected: None,
        };
        home.submit(restore).await.unwrap();
    }
    let query = FeedQuery {
        after: None,
        types: vec!["*.create".to_owned()],
    };
    let page = home.control.changes(&home.admin, &query, 3).await.unwrap();
    let names: Vec<&str> = page.items.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["s3", "s4", "s5"]);
    assert_eq!(page.next_after, page.newest);
    home.control.stop().await;
}
