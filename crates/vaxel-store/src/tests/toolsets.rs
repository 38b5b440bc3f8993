//! Sets.

use std::time::Duration;

use vaxel_core::{
    audit::AuditLine,
    id::Id,
    principal::Principal,
    toolset::{Selected, ToolsetResource, View},
};

use super::contract::{contract, traces};
use crate::{
    error::Error,
    store::Store,
    tests::{self, NOW, service},
};

contract!(
    a_set_is_read_as_it_was_written,
    the_name_of_a_set_is_taken_once,
    a_set_is_replaced_by_who_knows_its_version,
    a_removed_set_is_gone_and_its_name_free,
    names_of_services_are_those_that_are_in_use,
);

fn set(name: &str) -> ToolsetResource {
    let some = Selected {
        tools: Some(vec!["read_*".to_owned()]),
        prompts: Some(Vec::new()),
        ..Selected::all_of("files".parse().unwrap())
    };
    ToolsetResource {
        id: Id::new(NOW),
        name: name.parse().unwrap(),
        version: 1,
        description: Some("For work".to_owned()),
        services: vec![some, Selected::all_of("time".parse().unwrap())],
        view: View::All,
        created_at: NOW,
        updated_at: NOW,
        issues: Vec::new(),
    }
}

fn line(set: &ToolsetResource) -> AuditLine {
    let target = ("toolset", set.id.to_string(), set.name.to_string());
    AuditLine::new(NOW, &Principal::system(), "toolset", target)
}

async fn create(store: &Store, set: &ToolsetResource) -> Result<(), Error> {
    store.create_toolset(set, line(set)).await
}

async fn a_set_is_read_as_it_was_written(store: &Store) {
    let (work, bare) = (
        set("work"),
        ToolsetResource {
            description: None,
            view: View::Meta,
            ..set("a")
        },
    );
    create(store, &work).await.unwrap();
    create(store, &bare).await.unwrap();
    assert_eq!(store.toolset(work.id).await.unwrap().as_ref(), Some(&work));
    let named = store.toolset_by_name(&work.name).await.unwrap();
    assert_eq!(named.as_ref(), Some(&work));
    assert_eq!(store.all_toolsets().await.unwrap(), [bare, work]);
    assert_eq!(store.toolset(Id::new(NOW)).await.unwrap(), None);
    assert_eq!(traces(store).await, (2, 2));
}

async fn the_name_of_a_set_is_taken_once(store: &Store) {
    let (work, other) = (set("work"), set("other"));
    create(store, &work).await.unwrap();
    let refused = create(store, &set("work")).await;
    assert!(matches!(refused, Err(Error::Taken)), "{refused:?}");
    create(store, &other).await.unwrap();
    let renamed = ToolsetResource {
        name: work.name,
        ..other
    };
    let refused = store.update_toolset(&renamed, 1, line(&renamed)).await;
    assert!(matches!(refused, Err(Error::Taken)), "{refused:?}");
}

async fn a_set_is_replaced_by_who_knows_its_version(store: &Store) {
    let first = set("work");
    create(store, &first).await.unwrap();
    let second = ToolsetResource {
        name: "play".parse().unwrap(),
        version: 2,
        description: None,
        services: vec![Selected::all_of("games".parse().unwrap())],
        updated_at: NOW.plus(Duration::from_secs(1)),
        ..first
    };
    store
        .update_toolset(&second, 1, line(&second))
        .await
        .unwrap();
    assert_eq!(store.all_toolsets().await.unwrap()[0], second);
    let late = store.update_toolset(&second, 1, line(&second)).await;
    assert!(matches!(late, Err(Error::Changed)), "{late:?}");
    let late = store.delete_toolset(second.id, 1, line(&second)).await;
    assert!(matches!(late, Err(Error::Changed)), "{late:?}");
    assert_eq!(traces(store).await, (2, 2), "what was refused left nothing");
}

async fn a_removed_set_is_gone_and_its_name_free(store: &Store) {
    let work = set("work");
    create(store, &work).await.unwrap();
    store.delete_toolset(work.id, 1, line(&work)).await.unwrap();
    assert_eq!(store.all_toolsets().await.unwrap(), []);
    assert_eq!(store.toolset_by_name(&work.name).await.unwrap(), None);
    create(store, &set("work")).await.unwrap();
    assert_eq!(traces(store).await, (3, 3));
}

async fn names_of_services_are_those_that_are_in_use(store: &Store) {
    let (kept, mut gone) = (service("kept"), service("gone"));
    for one in [&kept, &gone] {
        let line = tests::line(one, "service.create");
        store.create_service(one, Vec::new(), line).await.unwrap();
    }
    gone.deleted_at = Some(NOW);
    gone.version = 2;
    let line = tests::line(&gone, "service.delete");
    store
        .update_service(&gone, 1, Vec::new(), line)
        .await
        .unwrap();
    let names = store.names_in_use().await.unwrap();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["kept"]);
}
