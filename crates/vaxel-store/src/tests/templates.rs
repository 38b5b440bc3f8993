//! Templates, and that their versions never come twice.

use vaxel_core::{audit::AuditLine, principal::Principal, template::Template};

use super::contract::{contract, traces};
use crate::{error::Error, store::Store, tests::NOW};

contract!(
    a_template_is_read_as_it_was_written,
    a_template_on_an_old_version_is_not_written,
    a_template_that_is_made_again_counts_on,
);

fn template(name: &str) -> Template {
    Template {
        name: name.parse().unwrap(),
        description: Some("what's \" this".to_owned()),
        parameters: std::collections::BTreeMap::new(),
        extends: None,
        spec: serde_json::Map::new(),
        approved: true,
    }
}

fn audit(template: &Template) -> AuditLine {
    let target = (
        "template",
        template.name.to_string(),
        template.name.to_string(),
    );
    AuditLine::new(NOW, &Principal::system(), "template.test", target)
}

async fn a_template_is_read_as_it_was_written(store: &Store) {
    let one = template("one");
    let made = store.create_template(&one, audit(&one)).await.unwrap();
    assert_eq!((&made.template, made.version), (&one, 1));
    assert_eq!(made.author, "vaxel");
    assert_eq!(store.template(&one.name).await.unwrap(), Some(made.clone()));
    assert_eq!(store.templates().await.unwrap(), [made]);
    assert_eq!(
        store.template_versions().await.unwrap(),
        [("one".to_owned(), 1)]
    );
    let refused = store.create_template(&one, audit(&one)).await;
    assert!(matches!(refused, Err(Error::Taken)), "{refused:?}");
    assert_eq!(traces(store).await, (1, 1));
}

async fn a_template_on_an_old_version_is_not_written(store: &Store) {
    let mut one = template("one");
    store.create_template(&one, audit(&one)).await.unwrap();
    one.approved = false;
    let made = store.update_template(&one, 1, audit(&one)).await.unwrap();
    assert_eq!((made.template.approved, made.version), (false, 2));
    let refused = store.update_template(&one, 1, audit(&one)).await;
    assert!(matches!(refused, Err(Error::Changed)), "{refused:?}");
    let refused = store.delete_template(&one.name, 1, audit(&one)).await;
    assert!(matches!(refused, Err(Error::Changed)), "{refused:?}");
    assert_eq!(traces(store).await, (2, 2));
}

async fn a_template_that_is_made_again_counts_on(store: &Store) {
    let one = template("one");
    store.create_template(&one, audit(&one)).await.unwrap();
    store
        .delete_template(&one.name, 1, audit(&one))
        .await
        .unwrap();
    assert_eq!(store.template(&one.name).await.unwrap(), None);
    assert_eq!(store.templates().await.unwrap(), []);
    let refused = store.update_template(&one, 2, audit(&one)).await;
    assert!(matches!(refused, Err(Error::Changed)), "{refused:?}");
    let again = store.create_template(&one, audit(&one)).await.unwrap();
    assert_eq!(again.version, 3);
}
