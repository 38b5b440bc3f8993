//! Change events, audit lines, catalogs, notes, sessions and facts.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value, json, value::to_raw_value};
use vaxel_core::{
    catalog::{Catalog, Item},
    id::Id,
    session::SessionState,
    time::Timestamp,
};

use super::contract::contract;
use crate::{
    outbox::{Happening, Step},
    store::Store,
    tests::{NOW, line, service},
};

contract!(
    changes_are_numbered_in_the_order_of_commits,
    the_number_of_a_trimmed_change_is_never_used_again,
    what_stays_of_the_changes_has_no_hole,
    audit_lines_are_paged_from_the_newest,
    what_services_go_through_is_audited_and_ends_after_a_while,
    a_catalog_takes_the_place_of_the_one_before,
    a_note_takes_the_place_of_the_one_before,
    a_session_is_kept_as_it_was_last_and_forgotten_when_it_is_empty,
    a_fact_takes_the_place_of_the_one_before,
);

async fn changes_are_numbered_in_the_order_of_commits(store: &Store) {
    assert_eq!(store.last_change().await.unwrap(), 0);
    for name in ["a", "b", "c"] {
        let service = service(name);
        let line = line(&service, "service.create");
        store
            .create_service(&service, Vec::new(), line)
            .await
            .unwrap();
    }
    let events = store.changes_after(0, 10).await.unwrap();
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(store.last_change().await.unwrap(), 3);
    assert_eq!(store.changes_after(1, 1).await.unwrap(), events[1..2]);
}

async fn the_number_of_a_trimmed_change_is_never_used_again(store: &Store) {
    let create = async |name| {
        let service = service(name);
        let line = line(&service, "service.create");
        store
            .create_service(&service, Vec::new(), line)
            .await
            .unwrap();
    };
    for name in ["a", "b", "c", "d"] {
        create(name).await;
    }
    assert_eq!(
        store.trim_changes(NOW, 100, 10).await.unwrap(),
        0,
        "none is older"
    );
    let later = NOW.plus(Duration::from_secs(1));
    assert_eq!(store.trim_changes(later, 100, 2).await.unwrap(), 2);
    assert_eq!(store.trim_changes(later, 100, 2).await.unwrap(), 1);
    assert_eq!(store.trim_changes(later, 100, 2).await.unwrap(), 0);
    assert_eq!(store.last_change().await.unwrap(), 4);
    create("e").await;
    assert_eq!(store.last_change().await.unwrap(), 5);
}

async fn what_stays_of_the_changes_has_no_hole(store: &Store) {
    // The clock went back between the second and the third one.
    let later = NOW.plus(Duration::from_mins(1));
    let happened = |at| Happening {
        at,
        action: "service.lifecycle",
        service: Id::new(NOW),
        name: "files".to_owned(),
        detail: json!({ "to": "active" }),
        steps: Vec::new(),
    };
    let all = [NOW, later, NOW, later, later].map(happened).to_vec();
    store.append_changes(all).await.unwrap();
    assert_eq!(store.trim_changes(later, 100, 10).await.unwrap(), 1);
    let left = store.changes_after(0, 10).await.unwrap();
    let numbers: Vec<_> = left.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
    assert_eq!(left[0].detail, r#"{"to":"active"}"#);
    assert_eq!(
        store.trim_changes(NOW, 2, 10).await.unwrap(),
        2,
        "more than two"
    );
    let left = store.changes_after(0, 10).await.unwrap();
    let numbers: Vec<_> = left.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [4, 5]);
}

async fn audit_lines_are_paged_from_the_newest(store: &Store) {
    for name in ["a", "b", "c"] {
        let mut line = line(&service(name), "service.start");
        line.detail = json!({ "why": name });
        store.audit(line).await.unwrap();
    }
    let newest = store.audit_lines(2, None).await.unwrap();
    let names: Vec<_> = newest.iter().map(|row| row.target_name.as_str()).collect();
    assert_eq!(names, ["c", "b"]);
    assert_eq!(newest[0].detail, r#"{"why":"c"}"#);
    let older = store.audit_lines(2, Some(newest[1].seq)).await.unwrap();
    assert_eq!(older.len(), 1);
    assert_eq!(older[0].target_name, "a");
    assert_eq!(store.last_change().await.unwrap(), 0, "a line is no change");
}

async fn what_services_go_through_is_audited_and_ends_after_a_while(store: &Store) {
    let files = service("files");
    let created = line(&files, "service.create");
    let by = created.actor.clone();
    store
        .create_service(&files, Vec::new(), created)
        .await
        .unwrap();
    let later = NOW.plus(Duration::from_mins(1));
    let step = |at, revision, to| Step {
        at,
        revision,
        detail: json!({ "to": to }),
    };
    let happened = Happening {
        at: later,
        action: "service.lifecycle",
        service: files.id,
        name: "files".to_owned(),
        detail: json!({ "via": ["validating", "deploying"], "to": "active" }),
        steps: vec![
            step(NOW, 1, "validating"),
            step(NOW, 7, "deploying"),
            step(later, 1, "active"),
        ],
    };
    store.append_changes(vec![happened.clone()]).await.unwrap();
    let events = store.changes_after(1, 10).await.unwrap();
    assert_eq!(events.len(), 1, "one event");
    assert_eq!(events[0].detail, happened.detail.to_string());
    let lines = store.audit_lines(10, None).await.unwrap();
    for line in &lines[..3] {
        assert_eq!(
            (&*line.actor, &*line.action),
            ("vaxel", "service.lifecycle")
        );
        assert_eq!(line.target_id, files.id.to_string());
    }
    let seen: Vec<(Timestamp, Value)> = lines[..3]
        .iter()
        .map(|line| (line.at, serde_json::from_str(&line.detail).unwrap()))
        .collect();
    let active = json!({ "to": "active", "revision": 1, "author": by });
    let unknown = json!({ "to": "deploying", "revision": 7 });
    let first = json!({ "to": "validating", "revision": 1, "author": by });
    assert_eq!(seen, [(later, active), (NOW, unknown), (NOW, first)]);

    let trim = async || store.trim_transitions(later, 1).await.unwrap();
    assert_eq!((trim().await, trim().await, trim().await), (1, 1, 0));
    let left = store.audit_lines(10, None).await.unwrap();
    let left: Vec<_> = left.iter().map(|line| &*line.action).collect();
    assert_eq!(left, ["service.lifecycle", "service.create"]);
}

fn catalog(tool: &str) -> Catalog {
    let raw = |value| to_raw_value(&value).expect("it is JSON");
    Catalog {
        fetched_at: NOW,
        revision: "2026-07-28".to_owned(),
        capabilities: raw(json!({})),
        server_info: raw(json!({ "name": "x" })),
        instructions: None,
        cache: vaxel_core::catalog::CacheHint::default(),
        tools: vec![Item {
            key: tool.into(),
            definition: raw(json!({ "name": tool, "kept": [1.0, null] })).into(),
        }],
        prompts: Vec::new(),
        resources: Vec::new(),
        templates: Vec::new(),
    }
}

async fn a_catalog_takes_the_place_of_the_one_before(store: &Store) {
    let (one, other) = (Id::new(NOW), Id::new(NOW));
    assert!(store.catalog(one).await.unwrap().is_none());
    store.put_catalog(one, &catalog("old")).await.unwrap();
    store.put_catalog(one, &catalog("new")).await.unwrap();
    store.put_catalog(other, &catalog("other")).await.unwrap();
    let found = store.catalog(one).await.unwrap().unwrap();
    let definition = found.tool("new").unwrap().definition.get();
    assert_eq!(definition, r#"{"kept":[1.0,null],"name":"new"}"#);
    let all: HashMap<_, _> = store.all_catalogs().await.unwrap();
    assert_eq!(all.len(), 2);
    assert!(all[&other].tool("other").is_some());
}

async fn a_note_takes_the_place_of_the_one_before(store: &Store) {
    for text in ["old", "new ü"] {
        store
            .write_demo_note("a", text.to_owned(), NOW)
            .await
            .unwrap();
    }
    let text = store.demo_note("a").await.unwrap();
    assert_eq!(text.as_deref(), Some("new ü"));
    assert_eq!(store.demo_note("b").await.unwrap(), None);
    assert_eq!(store.demo_notes().await.unwrap(), ["a"]);
}

async fn a_session_is_kept_as_it_was_last_and_forgotten_when_it_is_empty(store: &Store) {
    let mut session = SessionState {
        level: Some("debug".into()),
        watched: vec![(
            Id::new(NOW),
            "file:///a".into(),
            "vaxel://b/file:///a".into(),
        )],
        ..SessionState::new(Id::new(NOW))
    };
    let next = NOW.plus(Duration::from_millis(1));
    let ended = SessionState {
        ended: true,
        ..SessionState::new(Id::new(next))
    };
    let both = vec![session.clone(), ended.clone()];
    store.put_sessions(both.clone(), NOW).await.unwrap();
    assert_eq!(store.sessions().await.unwrap(), both);
    session.level = None;
    let later = NOW.plus(Duration::from_secs(1));
    store
        .put_sessions(vec![session.clone()], later)
        .await
        .unwrap();
    assert_eq!(store.sessions().await.unwrap(), [session.clone(), ended]);
    assert_eq!(store.forget_sessions(NOW).await.unwrap(), 0);
    assert_eq!(store.forget_sessions(later).await.unwrap(), 1);
    assert_eq!(store.sessions().await.unwrap(), [session.clone()]);
    let empty = SessionState::new(session.id);
    store.put_sessions(vec![empty], later).await.unwrap();
    assert!(store.sessions().await.unwrap().is_empty());
}

async fn a_fact_takes_the_place_of_the_one_before(store: &Store) {
    assert_eq!(store.meta("instance").await.unwrap(), None);
    store.put_meta("instance", "one".to_owned()).await.unwrap();
    store.put_meta("instance", "two".to_owned()).await.unwrap();
    let kept = store.meta("instance").await.unwrap();
    assert_eq!(kept.as_deref(), Some("two"));
}
