//! Lists of services: every filter, every order, and pages that hold each service once.

use serde_json::json;
use vaxel_control::{Change, Page, ServiceFilter};
use vaxel_core::{failure::Kind, lifecycle::Lifecycle, status::Health};

use crate::home::{Home, demo, folder, open, reference};

/// The names of all pages.
async fn names(home: &Home, filter: &ServiceFilter, limit: u32) -> Vec<String> {
    let mut page = Page {
        limit,
        cursor: None,
    };
    let mut names = Vec::new();
    loop {
        let list = home
            .control
            .services(&home.admin, filter, &page)
            .await
            .unwrap();
        let is_full = list.items.len() == limit as usize;
        assert!(
            is_full || list.next_cursor.is_none(),
            "a short page is the last one"
        );
        assert!(
            !list.items.is_empty() || names.is_empty(),
            "no page is empty"
        );
        names.extend(list.items.iter().map(|one| one.resource.name.to_string()));
        page.cursor = list.next_cursor;
        if page.cursor.is_none() {
            return names;
        }
    }
}

fn sorted(order: &str) -> ServiceFilter {
    ServiceFilter {
        sort: order.parse().unwrap(),
        ..ServiceFilter::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_order_holds_every_service_once() {
    let folder = folder();
    let home = open(folder.path()).await;
    let made = ["d", "b", "a", "e", "c"];
    for name in made {
        home.create(demo(name)).await.unwrap();
        home.wait_for(name, Lifecycle::Active).await;
        // So that no two were made in the same millisecond.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for name in ["b", "e"] {
        home.submit(Change::StopService(reference(name)))
            .await
            .unwrap();
        home.wait_for(name, Lifecycle::Inactive).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for (name, count) in [("a", 3), ("c", 1), ("d", 2)] {
        for _ in 0..count {
            home.call(&format!("{name}__echo"), json!({"message": "x"}))
                .await
                .unwrap();
        }
        let recorded = tokio::time::timeout(std::time::Duration::from_mins(1), async {
            while home.get(name).await.stats.last_used_at.is_none()
                || home.get(name).await.stats.calls < count
            {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        recorded.await.expect("the calls are recorded");
    }
    let orders = [
        ("name", ["a", "b", "c", "d", "e"]),
        ("created", ["d", "b", "a", "e", "c"]),
        ("updated", ["d", "a", "c", "b", "e"]),
        ("health", ["b", "e", "d", "a", "c"]),
        ("calls", ["b", "e", "c", "d", "a"]),
    ];
    for (order, mut expected) in orders {
        for sign in ["", "-"] {
            let order = format!("{sign}{order}");
            for limit in [1, 2, 3, 5, 9] {
                let found = names(&home, &sorted(&order), limit).await;
                assert_eq!(found, expected, "{order}, {limit} on a page");
            }
            expected.reverse();
        }
    }
    assert!(
        "size"
            .parse::<vaxel_control::ServiceSort>()
            .unwrap_err()
            .contains("updated")
    );
    let first = Page {
        limit: 2,
        cursor: None,
    };
    let list = home
        .control
        .services(&home.admin, &sorted("name"), &first)
        .await
        .unwrap();
    for (order, cursor) in [
        ("calls", list.next_cursor.unwrap()),
        ("name", "x".to_owned()),
    ] {
        let page = Page {
            limit: 2,
            cursor: Some(cursor),
        };
        let refused = home
            .control
            .services(&home.admin, &sorted(order), &page)
            .await;
        assert_eq!(refused.unwrap_err().kind, Kind::Invalid, "{order}");
    }
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_hold_together_whoever_knows_the_answer() {
    let folder = folder();
    let home = open(folder.path()).await;
    for (name, tags) in [
        ("a", json!(["x", "y"])),
        ("b", json!(["x"])),
        ("c", json!(["y", "x"])),
    ] {
        let mut draft = demo(name);
        draft["tags"] = tags;
        if name == "c" {
            draft["spec"]["tools"] = json!({ "deny": ["note_*"] });
        }
        home.create(draft).await.unwrap();
        home.wait_for(name, Lifecycle::Active).await;
    }
    let mut off = demo("off");
    off["enabled"] = json!(false);
    off["tags"] = json!(["x", "y"]);
    home.create(off).await.unwrap();
    home.wait("off", |status| status.health == Health::Stopped)
        .await;

    let some = |text: &str| Some(text.to_owned());
    let none = ServiceFilter::default;
    let both = || vec!["x".to_owned(), "y".to_owned()];
    let cases = [
        (
            ServiceFilter {
                tags: both(),
                ..none()
            },
            vec!["a", "c", "off"],
        ),
        (
            ServiceFilter {
                tags: both(),
                health: Some(Health::Healthy),
                ..none()
            },
            vec!["a", "c"],
        ),
        (
            ServiceFilter {
                tool: some("note_write"),
                ..none()
            },
            vec!["a", "b"],
        ),
        (
            ServiceFilter {
                tool: some("c__*"),
                ..none()
            },
            vec!["c"],
        ),
        (
            ServiceFilter {
                tool: some("ec*"),
                tags: both(),
                ..none()
            },
            vec!["a", "c"],
        ),
        (
            ServiceFilter {
                owner: some("vaxel"),
                state: Some(Lifecycle::Draft),
                ..none()
            },
            vec!["off"],
        ),
        (
            ServiceFilter {
                owner: some("nobody"),
                ..none()
            },
            vec![],
        ),
    ];
    for (filter, expected) in cases {
        for sort in ["name", "health", "calls"] {
            let filter = ServiceFilter {
                sort: sort.parse().unwrap(),
                ..filter.clone()
            };
            let mut found = names(&home, &filter, 2).await;
            found.sort();
            assert_eq!(found, expected, "{filter:?}");
        }
    }
    home.control.stop().await;
}
