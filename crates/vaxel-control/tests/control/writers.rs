//! Two hundred writers at once: what was acknowledged is there, and nothing is lost on the way.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::json;
use vaxel_control::{Change, FeedQuery, Terms};
use vaxel_core::{failure::Kind, service::ServiceDraft};

use crate::home::{Home, demo, folder, open, reference};

const WRITERS: usize = 200;
/// How often each of them writes.
const ROUNDS: usize = 12;

fn draft(name: &str, description: &str) -> ServiceDraft {
    let mut draft = demo(name);
    draft["enabled"] = json!(false);
    draft["spec"]["description"] = json!(description);
    ServiceDraft::from_json(&draft).unwrap()
}

/// One writer: reads a service, writes it on that version, and remembers what was acknowledged.
async fn write(
    home: &Home,
    (writer, services): (usize, usize),
    lost: &AtomicU64,
) -> Vec<(String, u64, String)> {
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("s{}", (writer + round) % services);
        let version = home.get(&name).await.resource.version;
        let text = format!("{writer}-{round}");
        let change = Change::UpdateService {
            service: reference(&name),
            draft: Box::new(draft(&name, &text)),
            expected: Some(version),
        };
        let terms = Terms {
            expected: None,
            message: Some(text.clone()),
        };
        match home.control.on(terms).submit(&home.admin, change).await {
            Ok(outcome) => {
                let made = outcome.into_service().unwrap().resource;
                assert_eq!(made.version, version + 1);
                written.push((name, made.revision, text));
            }
            Err(failure) => {
                assert_eq!(failure.kind, Kind::VersionMismatch, "{failure}");
                let said = format!("not {version}:");
                assert!(failure.detail.contains(&said), "{failure}");
                let current = failure.detail.split("has version ").nth(1).unwrap();
                let current: u64 = current.split(',').next().unwrap().parse().unwrap();
                assert!(current > version, "{failure}");
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    written
}

async fn every_acknowledged_write_is_there(services: usize) {
    let folder = folder();
    let home = open(folder.path()).await;
    for index in 0..services {
        let draft = draft(&format!("s{index}"), "first");
        home.submit(Change::CreateService(Box::new(draft)))
            .await
            .unwrap();
    }
    let begin = home
        .control
        .changes(&home.admin, &FeedQuery::default(), 1)
        .await
        .unwrap()
        .newest;
    let lost = AtomicU64::new(0);
    let writing = (0..WRITERS).map(|writer| write(&home, (writer, services), &lost));
    let written = futures_util::future::join_all(writing).await.concat();
    let lost = lost.load(Ordering::Relaxed);
    let made = written.len();
    assert!(
        made > services && lost > 0,
        "{made} writes, {lost} lost the race"
    );

    for index in 0..services {
        let name = format!("s{index}");
        let mine: Vec<_> = written.iter().filter(|(of, ..)| *of == name).collect();
        let resource = home.get(&name).await.resource;
        // Every acknowledged write raised the version by one, and nothing else did.
        assert_eq!(resource.version, 1 + mine.len() as u64, "{name}");
        let numbers: BTreeSet<u64> = mine.iter().map(|(_, revision, _)| *revision).collect();
        assert_eq!(
            numbers.len(),
            mine.len(),
            "{name}: no revision was given twice"
        );
        for (_, revision, text) in mine {
            let at = vaxel_control::RevisionRef::Number(*revision);
            let kept = home
                .control
                .revision(&home.admin, &reference(&name), &at)
                .await
                .unwrap();
            assert_eq!(kept.message.as_deref(), Some(text.as_str()), "{name}");
            assert_eq!(kept.draft["spec"]["description"], text.as_str(), "{name}");
        }
    }
    let mut after = begin;
    let mut told = 0;
    loop {
        let query = FeedQuery {
            after: Some(after),
            types: vec!["service.update".to_owned()],
        };
        let page = home
            .control
            .changes(&home.admin, &query, 500)
            .await
            .unwrap();
        assert!(!page.reset);
        told += page.items.len();
        after = page.next_after;
        if page.items.is_empty() {
            break;
        }
    }
    assert_eq!(told, written.len(), "the feed has every write once");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_writers_lose_nothing_on_few_services() {
    every_acknowledged_write_is_there(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_writers_lose_nothing_on_many_services() {
    every_acknowledged_write_is_there(150).await;
}
