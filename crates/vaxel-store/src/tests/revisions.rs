//! Revisions and their labels.

use vaxel_core::service::ServiceResource;

use super::contract::{contract, traces};
use crate::{
    error::Error,
    revision::LabelRow,
    store::Store,
    tests::{line, service},
};

contract!(
    a_revision_holds_everything_that_was_wanted_and_why,
    a_label_belongs_to_one_revision_of_a_service,
);

async fn create(store: &Store, service: &ServiceResource) {
    let mut line = line(service, "service.create");
    line.message = Some("because".to_owned());
    store
        .create_service(service, Vec::new(), line)
        .await
        .unwrap();
}

async fn a_revision_holds_everything_that_was_wanted_and_why(store: &Store) {
    let mut first = service("files");
    first.tags = vec!["a".to_owned()];
    first.environment = "prod".to_owned();
    create(store, &first).await;
    for number in 2..=5 {
        let next = ServiceResource {
            version: number,
            revision: number,
            enabled: false,
            ..first.clone()
        };
        let line = line(&next, "service.stop");
        store
            .update_service(&next, number - 1, Vec::new(), line)
            .await
            .unwrap();
    }
    let row = store.revision(first.id, 1).await.unwrap().unwrap();
    assert_eq!((row.name.as_str(), row.enabled), ("files", true));
    assert_eq!(
        (&row.tags, &row.environment),
        (&first.tags, &first.environment)
    );
    assert_eq!(
        (row.author.as_str(), row.action.as_str()),
        ("vaxel", "service.create")
    );
    assert_eq!(row.message.as_deref(), Some("because"));
    assert_eq!(store.revision(first.id, 6).await.unwrap(), None);

    let page = store.revisions(first.id, None, 2).await.unwrap();
    let numbers: Vec<_> = page.iter().map(|row| row.revision).collect();
    assert_eq!(numbers, [5, 4]);
    let page = store.revisions(first.id, Some(4), 10).await.unwrap();
    let numbers: Vec<_> = page.iter().map(|row| row.revision).collect();
    assert_eq!(numbers, [3, 2, 1]);

    let events = store.changes_after(0, 1).await.unwrap();
    assert_eq!(events[0].message.as_deref(), Some("because"));
    assert_eq!(events[0].target_name, "files");
    let lines = store.audit_lines(10, None).await.unwrap();
    assert_eq!(lines[4].message.as_deref(), Some("because"));
}

async fn a_label_belongs_to_one_revision_of_a_service(store: &Store) {
    let (one, other) = (service("one"), service("other"));
    create(store, &one).await;
    create(store, &other).await;
    let next = ServiceResource {
        version: 2,
        revision: 2,
        ..one.clone()
    };
    let update = line(&next, "service.update");
    store
        .update_service(&next, 1, Vec::new(), update)
        .await
        .unwrap();
    let label = |revision| LabelRow {
        label: "known-good".to_owned(),
        revision,
    };
    let put = async |id, expected, revision| {
        let line = line(&one, "service.label");
        store.put_label((id, expected), label(revision), line).await
    };
    put(one.id, None, 1).await.unwrap();
    put(one.id, Some(2), 2).await.unwrap();
    put(other.id, None, 1).await.unwrap();
    assert_eq!(store.labels(one.id).await.unwrap(), [label(2)]);
    assert_eq!(
        store.labelled(other.id, "known-good").await.unwrap(),
        Some(1)
    );
    let before = traces(store).await;
    let late = put(one.id, Some(1), 1).await;
    assert!(matches!(late, Err(Error::Changed)), "{late:?}");
    let unknown = put(one.id, None, 3).await;
    assert!(matches!(unknown, Err(Error::Missing)), "{unknown:?}");
    assert_eq!(
        traces(store).await,
        before,
        "what was refused left no trace"
    );

    let remove = async || {
        let line = line(&one, "service.unlabel");
        store
            .remove_label((one.id, None), "known-good".to_owned(), line)
            .await
    };
    remove().await.unwrap();
    assert_eq!(store.labelled(one.id, "known-good").await.unwrap(), None);
    assert_eq!(
        store.labelled(other.id, "known-good").await.unwrap(),
        Some(1)
    );
    let again = remove().await;
    assert!(matches!(again, Err(Error::Missing)), "{again:?}");
}
