//! Services, revisions, the archive, and the traces that every change leaves.

use std::time::Duration;

use proptest::{prelude::ProptestConfig, prop_assert_eq, proptest};
use vaxel_core::{
    id::Id,
    service::{ProcessSource, ServiceResource, Source, stored},
};

use super::contract::{contract, traces};
use crate::{
    error::Error,
    secret::SecretRow,
    service::{ServiceOrder, ServicePosition, ServiceQuery},
    store::Store,
    tests::{NOW, fresh, line, service},
};

contract!(
    a_service_is_read_as_it_was_written,
    a_name_belongs_to_one_live_service,
    a_write_on_an_old_version_changes_nothing,
    each_new_spec_is_a_revision_and_each_old_one_stays,
    pages_hold_every_service_once,
    filters_hold_together,
    only_what_is_in_the_archive_is_purged,
);

async fn create(store: &Store, service: &ServiceResource) -> Result<(), Error> {
    let line = line(service, "service.create");
    store.create_service(service, Vec::new(), line).await
}

/// The next version, as `submit` would write it.
fn next(service: &ServiceResource) -> ServiceResource {
    ServiceResource {
        version: service.version + 1,
        updated_at: service.updated_at.plus(Duration::from_secs(1)),
        ..service.clone()
    }
}

fn secret(service: &ServiceResource) -> SecretRow {
    SecretRow {
        id: Id::new(NOW),
        service: service.id,
        sealed: vec![0, 255, 7],
        created_at: NOW,
    }
}

async fn a_service_is_read_as_it_was_written(store: &Store) {
    let mut written = service("files");
    written.tags = vec!["a \"b\"".to_owned(), "ünï".to_owned()];
    written.spec.description = Some("what's \0 this; DROP TABLE services".to_owned());
    let secret = secret(&written);
    let line = line(&written, "service.create");
    let secrets = vec![secret.clone()];
    store.create_service(&written, secrets, line).await.unwrap();

    let by_name = store.service_by_name(&written.name).await.unwrap();
    assert_eq!(by_name.as_ref(), Some(&written));
    assert_eq!(store.service(written.id).await.unwrap(), by_name);
    assert_eq!(store.all_services().await.unwrap(), [written.clone()]);
    assert_eq!(store.service_versions().await.unwrap(), [(written.id, 1)]);
    assert_eq!(store.secrets(written.id).await.unwrap(), [secret]);
    assert_eq!(store.service(Id::new(NOW)).await.unwrap(), None);

    let events = store.changes_after(0, 10).await.unwrap();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].target_id, written.id.to_string());
    let lines = store.audit_lines(10, None).await.unwrap();
    assert_eq!(lines[0].target_id, written.id.to_string());
    assert_eq!(
        (lines[0].actor.as_str(), lines[0].action.as_str()),
        ("vaxel", "service.create")
    );
}

async fn a_name_belongs_to_one_live_service(store: &Store) {
    let first = service("files");
    create(store, &first).await.unwrap();
    let second = service("files");
    let refused = create(store, &second).await;
    assert!(matches!(refused, Err(Error::Taken)), "{refused:?}");
    assert_eq!(traces(store).await, (1, 1), "the refused one left no trace");

    let mut deleted = next(&first);
    deleted.deleted_at = Some(NOW);
    update(store, &deleted, 1).await.unwrap();
    create(store, &second).await.unwrap();
    let archived = store.deleted_service_by_name(&first.name).await.unwrap();
    assert_eq!(archived.as_ref(), Some(&deleted));

    let mut restored = next(&deleted);
    restored.deleted_at = None;
    let refused = update(store, &restored, 2).await;
    assert!(matches!(refused, Err(Error::Taken)), "{refused:?}");
    let live = store.service_by_name(&first.name).await.unwrap();
    assert_eq!(live.map(|live| live.id), Some(second.id));
}

async fn update(store: &Store, service: &ServiceResource, expected: u64) -> Result<(), Error> {
    let line = line(service, "service.update");
    store
        .update_service(service, expected, vec![secret(service)], line)
        .await
}

async fn a_write_on_an_old_version_changes_nothing(store: &Store) {
    let first = service("files");
    create(store, &first).await.unwrap();
    let mut mine = next(&first);
    mine.owner = "me".to_owned();
    let mut theirs = next(&first);
    theirs.owner = "them".to_owned();
    let (mine_written, theirs_written) =
        tokio::join!(update(store, &mine, 1), update(store, &theirs, 1));
    let (winner, loser) = match (mine_written, theirs_written) {
        (Ok(()), Err(loser)) => (mine, loser),
        (Err(loser), Ok(())) => (theirs, loser),
        both => panic!("exactly one wins: {both:?}"),
    };
    assert!(matches!(loser, Error::Changed), "{loser:?}");
    assert_eq!(store.service(first.id).await.unwrap(), Some(winner));
    assert_eq!(store.secrets(first.id).await.unwrap().len(), 1);
    assert_eq!(traces(store).await, (2, 2));
}

async fn each_new_spec_is_a_revision_and_each_old_one_stays(store: &Store) {
    let first = service("files");
    create(store, &first).await.unwrap();
    let mut stopped = next(&first);
    stopped.enabled = false;
    update(store, &stopped, 1).await.unwrap();
    let mut changed = next(&stopped);
    changed.revision = 2;
    changed.spec.replicas = 3;
    update(store, &changed, 2).await.unwrap();
    let revisions = store.revisions(first.id, None, 10).await.unwrap();
    let numbers: Vec<_> = revisions.iter().map(|row| row.revision).collect();
    assert_eq!(numbers, [2, 1]);
    let specs = [&revisions[0].spec, &revisions[1].spec];
    assert_eq!(specs[0], &stored::write(&changed.spec).unwrap());
    assert_eq!(specs[1], &stored::write(&first.spec).unwrap());
}

async fn pages_hold_every_service_once(store: &Store) {
    let names: Vec<String> = (0..23).map(|number| format!("s{number:02}")).collect();
    for name in names.iter().rev() {
        create(store, &service(name)).await.unwrap();
    }
    for (order, backwards) in [
        (ServiceOrder::Name, false),
        (ServiceOrder::Name, true),
        (ServiceOrder::Created, false),
        (ServiceOrder::Updated, true),
    ] {
        let mut seen: Vec<ServiceResource> = Vec::new();
        loop {
            let after = seen.last().map(|last| ServicePosition {
                key: match order {
                    ServiceOrder::Name => last.name.to_string(),
                    ServiceOrder::Created => last.created_at.as_millis().to_string(),
                    ServiceOrder::Updated => last.updated_at.as_millis().to_string(),
                },
                id: last.id.to_string(),
            });
            let page = store.services(ServiceQuery::default(), (order, backwards), (after, 5));
            let page = page.await.unwrap();
            assert!(page.len() <= 5);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        let mut found: Vec<String> = seen.iter().map(|one| one.name.to_string()).collect();
        if order == ServiceOrder::Name && backwards {
            found.reverse();
        } else if order != ServiceOrder::Name {
            found.sort();
        }
        assert_eq!(found, names, "{order:?} {backwards}");
    }
    let nonsense = ServicePosition {
        key: "nonsense".to_owned(),
        id: String::new(),
    };
    let order = (ServiceOrder::Created, false);
    let refused = store
        .services(ServiceQuery::default(), order, (Some(nonsense), 5))
        .await;
    assert!(matches!(refused, Err(Error::Cursor(_))), "{refused:?}");
}

async fn filters_hold_together(store: &Store) {
    let mut git = service("git");
    git.tags = vec!["Prod".to_owned(), "code".to_owned()];
    git.environment = "prod".to_owned();
    git.spec.source = Source::Process(ProcessSource {
        command: "mcp-server-git".to_owned(),
        ..ProcessSource::default()
    });
    git.spec.description = Some("Reads Repositories".to_owned());
    let plain = service("plain");
    let mut gone = service("gone");
    gone.deleted_at = Some(NOW);
    for service in [&git, &plain, &gone] {
        create(store, service).await.unwrap();
    }
    let check = async |query: ServiceQuery, names: &[&str]| {
        let order = (ServiceOrder::Name, false);
        let page = store
            .services(query.clone(), order, (None, 10))
            .await
            .unwrap();
        let entries = store.service_entries(query.clone()).await.unwrap();
        assert_eq!(entries.len(), page.len(), "{query:?}");
        let found: Vec<_> = page.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(found, names, "{query:?}");
    };
    let query = ServiceQuery::default;
    let some = |text: &str| Some(text.to_owned());
    check(query(), &["git", "plain"]).await;
    check(
        ServiceQuery {
            deleted: true,
            ..query()
        },
        &["gone"],
    )
    .await;
    for text in ["GIT", "repositories", "mcp-server"] {
        check(
            ServiceQuery {
                text: some(text),
                ..query()
            },
            &["git"],
        )
        .await;
    }
    check(
        ServiceQuery {
            tag: some("Prod"),
            ..query()
        },
        &["git"],
    )
    .await;
    for tag in ["prod", "Pro", "Prod\",\"code", "%", ""] {
        check(
            ServiceQuery {
                tag: some(tag),
                ..query()
            },
            &[],
        )
        .await;
    }
    check(
        ServiceQuery {
            source: some("process"),
            ..query()
        },
        &["git"],
    )
    .await;
    check(
        ServiceQuery {
            owner: some("admin"),
            ..query()
        },
        &["git", "plain"],
    )
    .await;
    let both = ServiceQuery {
        source: some("builtin"),
        environment: some("prod"),
        ..query()
    };
    check(both, &[]).await;
}

async fn only_what_is_in_the_archive_is_purged(store: &Store) {
    let live = service("live");
    create(store, &live).await.unwrap();
    let purge =
        |service: &ServiceResource| store.purge_service(service.id, line(service, "service.purge"));
    let refused = purge(&live).await;
    assert!(matches!(refused, Err(Error::Missing)), "{refused:?}");
    let mut deleted = next(&live);
    deleted.deleted_at = Some(NOW);
    update(store, &deleted, 1).await.unwrap();
    purge(&deleted).await.unwrap();
    assert_eq!(store.service(live.id).await.unwrap(), None);
    assert_eq!(store.secrets(live.id).await.unwrap(), []);
    assert_eq!(store.revisions(live.id, None, 10).await.unwrap(), []);
    assert_eq!(traces(store).await, (3, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_finds_what_contains_it(description in ".{0,20}", text in "[a-c%_\\\\'\"\\[ ]{1,3}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_dir, store) = fresh();
            let mut one = service("one");
            one.spec.description = Some(description.clone());
            create(&store, &one).await.unwrap();
            let query = ServiceQuery { text: Some(text.clone()), ..ServiceQuery::default() };
            let order = (ServiceOrder::Name, false);
            let found = store.services(query, order, (None, 10)).await.unwrap();
            let all = format!("one {description} {}", one.spec.source).to_lowercase().replace('\0', " ");
            prop_assert_eq!(found.len() == 1, all.contains(&text.to_lowercase()));
            Ok(())
        })?;
    }
}
