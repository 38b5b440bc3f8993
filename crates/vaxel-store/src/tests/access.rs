//! Users, roles, grants and policies.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use vaxel_core::{
    audit::AuditLine,
    grant::{GrantDraft, GrantResource},
    id::{Id, Service},
    policy::{PolicyDraft, PolicyResource},
    principal::Principal,
    quota::Quota,
    role::{RoleDraft, RoleResource},
    user::{UserKind, UserResource},
};

use super::{
    NOW,
    contract::{contract, traces},
    line, service,
};
use crate::{error::Error, key::KeyRow, store::Store};

contract!(
    a_user_is_read_as_it_was_written,
    a_user_is_replaced_by_who_knows_its_version,
    the_name_of_a_user_who_is_gone_stays_taken,
    what_a_user_had_goes_with_it_or_to_its_heir,
    a_role_is_read_replaced_and_removed_with_its_grants,
    a_grant_is_made_once_and_ends,
    a_service_in_the_archive_is_shared_with_nobody,
    a_policy_is_read_replaced_and_removed,
);

fn user(name: &str) -> UserResource {
    UserResource {
        id: Id::new(NOW),
        name: name.parse().unwrap(),
        kind: UserKind::Program,
        version: 1,
        title: Some("Anna Lind".to_owned()),
        roles: BTreeSet::from(["user".parse().unwrap(), "analyst".parse().unwrap()]),
        limits: Some(few()),
        disabled: false,
        created_at: NOW,
        updated_at: NOW,
        deleted_at: None,
    }
}

fn few() -> Quota {
    Quota {
        calls: Some("2/1m".parse().unwrap()),
        concurrent: Some(1),
        ..Quota::NONE
    }
}

fn role(name: &str) -> RoleResource {
    let value = json!({"name": name, "permissions": ["mcp:read", "mcp:write:own"]});
    let RoleDraft {
        name,
        description,
        permissions,
        limits,
    } = RoleDraft::from_json(&value).unwrap();
    RoleResource {
        name,
        version: 1,
        description,
        permissions,
        limits,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn grant(to: &str, service: Id<Service>) -> GrantResource {
    let draft = GrantDraft::from_json(&json!({"to": to, "service": "x"})).unwrap();
    GrantResource {
        id: Id::new(NOW),
        to: draft.to,
        service,
        permissions: draft.permissions,
        granted_by: "admin".to_owned(),
        created_at: NOW,
    }
}

fn policy(name: &str) -> PolicyResource {
    let value = json!({"name": name, "effect": "deny", "roles": ["analyst"], "tools": ["delete_*"],
        "when": "arguments.path.startsWith('/srv/')"});
    PolicyResource {
        id: Id::new(NOW),
        version: 1,
        draft: PolicyDraft::from_json(&value).unwrap(),
        created_at: NOW,
        updated_at: NOW,
        issues: Vec::new(),
    }
}

fn note(action: &'static str) -> AuditLine {
    let target = ("access", "1".to_owned(), "x".to_owned());
    AuditLine::new(NOW, &Principal::system(), action, target)
}

async fn share(store: &Store, to: &str, service: Id<Service>) {
    let grant = grant(to, service);
    let made = store.create_grant(&grant, note("grant.create")).await;
    made.unwrap();
}

async fn a_user_is_read_as_it_was_written(store: &Store) {
    let (anna, bare) = (
        user("anna"),
        UserResource {
            kind: UserKind::Person,
            title: None,
            roles: BTreeSet::new(),
            limits: None,
            disabled: true,
            ..user("a")
        },
    );
    for one in [&anna, &bare] {
        store.create_user(one, note("user.create")).await.unwrap();
    }
    let found = store.user(&anna.name).await.unwrap();
    assert_eq!(found.as_ref(), Some(&anna));
    assert_eq!(store.user_by_id(bare.id).await.unwrap(), Some(bare.clone()));
    assert_eq!(store.users().await.unwrap(), [bare, anna]);
    let nobody = store.user(&"nobody".parse().unwrap()).await.unwrap();
    assert_eq!(nobody, None);
    assert_eq!(traces(store).await, (2, 2));
}

async fn a_user_is_replaced_by_who_knows_its_version(store: &Store) {
    let first = user("anna");
    store
        .create_user(&first, note("user.create"))
        .await
        .unwrap();
    let second = UserResource {
        version: 2,
        title: None,
        roles: BTreeSet::new(),
        limits: None,
        disabled: true,
        updated_at: NOW.plus(Duration::from_secs(1)),
        ..first
    };
    let update = || store.update_user(&second, (1, None), note("user.update"));
    update().await.unwrap();
    assert_eq!(store.users().await.unwrap(), std::slice::from_ref(&second));
    let late = update().await;
    assert!(matches!(late, Err(Error::Changed)), "{late:?}");
    assert_eq!(traces(store).await, (2, 2), "what was refused left nothing");
}

async fn the_name_of_a_user_who_is_gone_stays_taken(store: &Store) {
    let anna = user("anna");
    store.create_user(&anna, note("user.create")).await.unwrap();
    let gone = UserResource {
        version: 2,
        deleted_at: Some(NOW),
        ..anna
    };
    let deleted = store.update_user(&gone, (1, None), note("user.delete"));
    deleted.await.unwrap();
    let again = store.create_user(&user("anna"), note("user.create")).await;
    assert!(matches!(again, Err(Error::Taken)), "{again:?}");
    assert_eq!(store.users().await.unwrap(), [gone]);
}

async fn what_a_user_had_goes_with_it_or_to_its_heir(store: &Store) {
    let (anna, mut mine, theirs) = (user("anna"), service("mine"), service("theirs"));
    mine.owner = "anna".to_owned();
    for one in [&mine, &theirs] {
        let line = line(one, "service.create");
        store.create_service(one, Vec::new(), line).await.unwrap();
    }
    store.create_user(&anna, note("user.create")).await.unwrap();
    for to in ["user:anna", "user:otto", "role:anna"] {
        share(store, to, theirs.id).await;
    }
    for (name, user) in [("laptop", "anna"), ("other", "admin")] {
        let key = KeyRow {
            id: Id::new(NOW),
            name: name.to_owned(),
            prefix: name.to_owned(),
            digest: [0; 32],
            user: user.parse().unwrap(),
            permissions: vaxel_core::principal::Permissions::NONE,
            services: Some(vec!["db-*".to_owned()]),
            environments: Some(BTreeSet::from(["prod".to_owned()])),
            created_at: NOW,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
            last_used_from: None,
            rotated_at: None,
            rotate_every: None,
            earlier: None,
        };
        store.create_key(&key, note("key.create")).await.unwrap();
    }
    let owned = store.owned_services(&anna.name).await.unwrap();
    assert_eq!(owned, [mine.id]);
    let gone = UserResource {
        version: 2,
        deleted_at: Some(NOW),
        ..anna
    };
    let heir = Some("otto".parse().unwrap());
    let deleted = store.update_user(&gone, (1, heir), note("user.delete"));
    deleted.await.unwrap();
    let left = store.grants().await.unwrap();
    let mut left: Vec<String> = left.iter().map(|one| one.to.to_string()).collect();
    left.sort_unstable();
    assert_eq!(left, ["role:anna", "user:otto"]);
    for key in store.keys().await.unwrap() {
        assert_eq!(key.revoked_at.is_some(), key.name == "laptop", "{key:?}");
        assert_eq!(key.services, Some(vec!["db-*".to_owned()]));
    }
    let mine = store.service(mine.id).await.unwrap().unwrap();
    assert_eq!((mine.owner.as_str(), mine.version), ("otto", 2));
    let theirs = store.service(theirs.id).await.unwrap().unwrap();
    assert_eq!((theirs.owner.as_str(), theirs.version), ("admin", 1));
}

async fn a_role_is_read_replaced_and_removed_with_its_grants(store: &Store) {
    let first = role("analyst");
    let create = || store.create_role(&first, note("role.create"));
    create().await.unwrap();
    let taken = create().await;
    assert!(matches!(taken, Err(Error::Taken)), "{taken:?}");
    assert_eq!(store.role(&first.name).await.unwrap(), Some(first.clone()));
    let second = RoleResource {
        version: 2,
        description: Some("Looks at figures".to_owned()),
        permissions: vaxel_core::role::Reach::ALL,
        limits: few(),
        ..first.clone()
    };
    let update = || store.update_role(&second, 1, note("role.update"));
    update().await.unwrap();
    let late = update().await;
    assert!(matches!(late, Err(Error::Changed)), "{late:?}");
    assert_eq!(store.roles().await.unwrap(), std::slice::from_ref(&second));
    for to in ["role:analyst", "user:analyst"] {
        share(store, to, Id::new(NOW)).await;
    }
    let late = store.delete_role(&first.name, 1, note("role.delete")).await;
    assert!(matches!(late, Err(Error::Changed)), "{late:?}");
    let removed = store.delete_role(&first.name, 2, note("role.delete"));
    removed.await.unwrap();
    assert_eq!(store.roles().await.unwrap(), []);
    let left = store.grants().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].to.to_string(), "user:analyst");
    assert_eq!(traces(store).await, (5, 5));
}

async fn a_grant_is_made_once_and_ends(store: &Store) {
    let service = Id::new(NOW);
    let first = grant("user:anna", service);
    let create = async |grant| store.create_grant(&grant, note("grant.create")).await;
    create(first.clone()).await.unwrap();
    let again = create(grant("user:anna", service)).await;
    assert!(matches!(again, Err(Error::Taken)), "{again:?}");
    let other = grant("user:anna", Id::new(NOW));
    create(other.clone()).await.unwrap();
    assert_eq!(store.grant(first.id).await.unwrap(), Some(first.clone()));
    let end = async || store.delete_grant(first.id, note("grant.delete")).await;
    end().await.unwrap();
    let late = end().await;
    assert!(matches!(late, Err(Error::Missing)), "{late:?}");
    assert_eq!(store.grants().await.unwrap(), [other]);
    assert_eq!(traces(store).await, (3, 3));
}

async fn a_service_in_the_archive_is_shared_with_nobody(store: &Store) {
    let (mut files, other) = (service("files"), service("other"));
    for one in [&files, &other] {
        let made = line(one, "service.create");
        store.create_service(one, Vec::new(), made).await.unwrap();
        share(store, "user:anna", one.id).await;
    }
    files.version = 2;
    let write = line(&files, "service.update");
    let written = store.update_service(&files, 1, Vec::new(), write).await;
    written.unwrap();
    assert_eq!(store.grants().await.unwrap().len(), 2);
    files.version = 3;
    files.deleted_at = Some(NOW);
    let write = line(&files, "service.delete");
    let written = store.update_service(&files, 2, Vec::new(), write).await;
    written.unwrap();
    let left = store.grants().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].service, other.id);
}

async fn a_policy_is_read_replaced_and_removed(store: &Store) {
    let (first, other) = (policy("no-deletes"), policy("a"));
    for one in [&first, &other] {
        let made = store.create_policy(one, note("policy.create"));
        made.await.unwrap();
    }
    let twin = policy("a");
    let again = store.create_policy(&twin, note("policy.create")).await;
    assert!(matches!(again, Err(Error::Taken)), "{again:?}");
    assert_eq!(store.policy(first.id).await.unwrap(), Some(first.clone()));
    let named = store.policy_by_name(&other.draft.name).await.unwrap();
    assert_eq!(named, Some(other.clone()));
    assert_eq!(
        store.policies().await.unwrap(),
        [other.clone(), first.clone()]
    );
    let second = PolicyResource {
        version: 2,
        draft: PolicyDraft {
            enabled: false,
            when: None,
            ..policy("other").draft
        },
        ..first.clone()
    };
    let update = || store.update_policy(&second, 1, note("policy.update"));
    update().await.unwrap();
    assert!(matches!(update().await, Err(Error::Changed)));
    assert_eq!(store.policies().await.unwrap(), [other.clone(), second]);
    let renamed = PolicyResource {
        version: 3,
        draft: other.draft.clone(),
        ..first.clone()
    };
    let taken = store.update_policy(&renamed, 2, note("policy.update"));
    assert!(matches!(taken.await, Err(Error::Taken)));
    let late = store.delete_policy(first.id, 1, note("policy.delete"));
    assert!(matches!(late.await, Err(Error::Changed)));
    let removed = store.delete_policy(first.id, 2, note("policy.delete"));
    removed.await.unwrap();
    assert_eq!(store.policies().await.unwrap(), [other]);
}
