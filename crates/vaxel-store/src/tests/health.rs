//! Changes of health, and accepted definitions.

use std::time::Duration;

use vaxel_core::{health::availability::Moment, id::Id, status::Health, time::Timestamp};

use super::contract::{contract, traces};
use crate::{
    health::HealthChange,
    store::Store,
    tests::{NOW, line, service},
};

contract!(
    a_change_of_health_is_found_with_the_one_before_it_and_leaves_an_event,
    the_last_health_of_each_service_outlives_its_age,
    a_time_in_which_nobody_looked_stands_beside_the_changes,
    accepted_definitions_take_the_place_of_those_before_and_go_with_their_service,
);

fn at(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn change(seconds: u64, service: Id<vaxel_core::id::Service>, health: Health) -> HealthChange {
    let reason = (health != Health::Healthy).then(|| "it is slow".to_owned());
    HealthChange {
        at: at(seconds),
        service,
        name: "a".to_owned(),
        health,
        reason,
    }
}

async fn a_change_of_health_is_found_with_the_one_before_it_and_leaves_an_event(store: &Store) {
    let (one, other) = (Id::new(NOW), Id::new(at(1)));
    let changes = vec![
        change(1, one, Health::Healthy),
        change(2, other, Health::Healthy),
        change(3, one, Health::Unhealthy),
        change(9, one, Health::Degraded),
    ];
    store.record_health(changes).await.unwrap();
    let found = store.health_changes(one, at(2), 10).await.unwrap();
    let moments: Vec<_> = found.iter().map(|row| (row.at, row.moment)).collect();
    assert_eq!(
        moments,
        [
            (at(9), Moment::Became(Health::Degraded)),
            (at(3), Moment::Became(Health::Unhealthy)),
            (at(1), Moment::Became(Health::Healthy)),
        ]
    );
    assert_eq!(found[1].reason.as_deref(), Some("it is slow"));
    let newest = store.health_changes(one, at(0), 1).await.unwrap();
    assert_eq!(newest.len(), 1);
    assert_eq!(traces(store).await, (0, 4), "events, and nothing to audit");
    let events = store.changes_after(0, 10).await.unwrap();
    assert_eq!(events[2].action, "service.health");
    assert_eq!(events[2].target_id, one.to_string());
}

async fn the_last_health_of_each_service_outlives_its_age(store: &Store) {
    let (one, other) = (Id::new(NOW), Id::new(at(1)));
    let changes = vec![
        change(1, one, Health::Healthy),
        change(2, one, Health::Unhealthy),
        change(3, other, Health::Healthy),
        change(4, one, Health::Stopped),
    ];
    store.record_health(changes).await.unwrap();
    assert_eq!(store.trim_health(at(99), 1).await.unwrap(), 1);
    assert_eq!(store.trim_health(at(99), 10).await.unwrap(), 1);
    assert_eq!(store.trim_health(at(99), 10).await.unwrap(), 0);
    let last = store.last_healths().await.unwrap();
    assert_eq!(last.len(), 2);
    assert_eq!(
        (last[&one], last[&other]),
        (Health::Stopped, Health::Healthy)
    );
}

async fn a_time_in_which_nobody_looked_stands_beside_the_changes(store: &Store) {
    let one = Id::new(NOW);
    let changes = vec![change(1, one, Health::Healthy)];
    store.record_health(changes).await.unwrap();
    store.record_absence(at(5), at(8)).await.unwrap();
    let found = store.health_changes(one, at(6), 10).await.unwrap();
    let moments: Vec<_> = found.iter().map(|row| (row.at, row.moment)).collect();
    let expected = [
        (at(8), Moment::Started),
        (at(5), Moment::Ended),
        (at(1), Moment::Became(Health::Healthy)),
    ];
    assert_eq!(moments, expected);
    assert_eq!(store.last_healths().await.unwrap().len(), 1);
    assert_eq!(traces(store).await.1, 1, "an absence is nobody's event");
}

async fn accepted_definitions_take_the_place_of_those_before_and_go_with_their_service(
    store: &Store,
) {
    let mut resource = service("a");
    store
        .create_service(&resource, Vec::new(), line(&resource, "service.create"))
        .await
        .unwrap();
    let digests = |text: &str| [("tool x".to_owned(), text.to_owned())].into();
    assert_eq!(store.accepted_definitions(resource.id).await.unwrap(), None);
    let accept = async |text: &str, audit| {
        let accepted = store.accept_definitions(resource.id, (digests(text), NOW), audit);
        accepted.await.unwrap();
    };
    accept("1", None).await;
    accept("2", Some(line(&resource, "service.accept"))).await;
    let kept = store.accepted_definitions(resource.id).await.unwrap();
    assert_eq!(kept, Some(digests("2")));
    assert_eq!(
        traces(store).await,
        (2, 2),
        "only what somebody did is audited"
    );
    resource.deleted_at = Some(NOW);
    resource.version = 2;
    let deleted = line(&resource, "service.delete");
    store
        .update_service(&resource, 1, Vec::new(), deleted)
        .await
        .unwrap();
    let purged = line(&resource, "service.purge");
    store.purge_service(resource.id, purged).await.unwrap();
    assert_eq!(store.accepted_definitions(resource.id).await.unwrap(), None);
}
