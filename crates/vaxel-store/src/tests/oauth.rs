//! Clients, consents, and sign-ins of clients.

use std::time::Duration;

use vaxel_core::{
    audit::AuditLine,
    id::Id,
    principal::{Permission, Permissions, Principal},
    time::Timestamp,
};

use super::contract::contract;
use crate::{
    oauth::OauthClientRow,
    sign_in::{Delegation, SignInRow},
    store::Store,
    tests::NOW,
    upstream_token::UpstreamTokenRow,
};

contract!(
    a_client_is_read_as_it_was_added_and_too_many_are_refused,
    a_consent_is_the_last_one_that_was_given,
    a_sign_in_of_a_client_needs_no_password,
    a_consent_ends_with_the_sign_in_of_its_client_and_no_other_does,
    a_client_that_is_removed_takes_its_sign_ins_and_consents_with_it,
    a_token_of_a_service_is_that_of_its_holder_until_it_is_forgotten,
);

const HOUR: Duration = Duration::from_hours(1);

fn line() -> AuditLine {
    let target = ("client", String::new(), String::new());
    AuditLine::new(NOW, &Principal::system(), "client.register", target)
}

fn client(id: &str, created_at: Timestamp) -> OauthClientRow {
    OauthClientRow {
        id: id.to_owned(),
        metadata: "{}".to_owned(),
        secret: Some([7; 32]),
        created_at,
        used_at: None,
    }
}

async fn a_client_is_read_as_it_was_added_and_too_many_are_refused(store: &Store) {
    let add = |row: OauthClientRow, over: Timestamp| store.add_oauth_client(row, (2, (over, over)));
    assert!(add(client("a", NOW), NOW).await.unwrap());
    assert!(add(client("b", NOW), NOW).await.unwrap());
    assert_eq!(
        store.oauth_client("a").await.unwrap(),
        Some(client("a", NOW))
    );
    assert!(!add(client("c", NOW), NOW).await.unwrap());
    store
        .note_oauth_client_use("a", NOW.plus(2 * HOUR))
        .await
        .unwrap();
    // One that nobody used makes room, one that was used stays.
    let later = NOW.plus(HOUR);
    assert!(add(client("c", later), later).await.unwrap());
    assert_eq!(store.oauth_client("b").await.unwrap(), None);
    let used = store.oauth_client("a").await.unwrap().unwrap().used_at;
    assert_eq!(used, Some(NOW.plus(2 * HOUR)));
}

async fn a_consent_is_the_last_one_that_was_given(store: &Store) {
    let user = Id::new(NOW);
    let what = ("client", "/mcp");
    assert_eq!(store.oauth_consent(user, what).await.unwrap(), None);
    for permission in [Permission::McpRead, Permission::McpExecute] {
        let permissions = Permissions::of(&[permission]);
        let given = ("client", "/mcp", permissions);
        store.put_oauth_consent(user, given, line()).await.unwrap();
        assert_eq!(
            store.oauth_consent(user, what).await.unwrap(),
            Some(permissions)
        );
    }
    assert_eq!(
        store.oauth_consent(user, ("client", "")).await.unwrap(),
        None
    );
}

async fn a_sign_in_of_a_client_needs_no_password(store: &Store) {
    let row = sign_in();
    store.begin_sign_in(&row, line()).await.unwrap();
    assert_eq!(store.sign_in(row.id).await.unwrap(), Some(row));
}

async fn a_consent_ends_with_the_sign_in_of_its_client_and_no_other_does(store: &Store) {
    let row = sign_in();
    store.begin_sign_in(&row, line()).await.unwrap();
    let all = [("c", "/mcp"), ("c", ""), ("d", "/mcp"), ("e", "/mcp")];
    let permissions = Permissions::of(&[Permission::McpRead]);
    for (client, endpoint) in all {
        let given = (client, endpoint, permissions);
        store
            .put_oauth_consent(row.user, given, line())
            .await
            .unwrap();
    }
    let left = async || {
        let mut left = Vec::new();
        for what in all {
            if store.oauth_consent(row.user, what).await.unwrap().is_some() {
                left.push(what);
            }
        }
        left
    };
    store.end_sign_in(row.id, line()).await.unwrap();
    assert_eq!(left().await, all[1..]);
    store.end_sign_ins(row.user, None, line()).await.unwrap();
    assert_eq!(left().await, []);
}

async fn a_client_that_is_removed_takes_its_sign_ins_and_consents_with_it(store: &Store) {
    let over = (10, (NOW, NOW));
    for id in ["c", "d"] {
        store.add_oauth_client(client(id, NOW), over).await.unwrap();
    }
    let (its, mut other) = (sign_in(), sign_in());
    other.delegation.as_mut().unwrap().client = "d".to_owned();
    let permissions = Permissions::of(&[Permission::McpRead]);
    for row in [&its, &other] {
        store.begin_sign_in(row, line()).await.unwrap();
        let client = row.delegation.as_ref().unwrap().client.clone();
        let given = (client.as_str(), "/mcp", permissions);
        store
            .put_oauth_consent(row.user, given, line())
            .await
            .unwrap();
    }
    assert_eq!(store.remove_oauth_client("c", line()).await.unwrap(), 1);
    assert!(store.remove_oauth_client("c", line()).await.is_err());
    let left: Vec<String> = store
        .oauth_clients()
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(left, ["d"]);
    for (row, client, is_left) in [(its, "c", false), (other, "d", true)] {
        let found = store.sign_in(row.id).await.unwrap().unwrap();
        assert_eq!(found.ended_at.is_none(), is_left, "{client}");
        let consent = store
            .oauth_consent(row.user, (client, "/mcp"))
            .await
            .unwrap();
        assert_eq!(consent.is_some(), is_left, "{client}");
    }
}

fn sign_in() -> SignInRow {
    SignInRow {
        id: Id::new(NOW),
        user: Id::new(NOW),
        created_at: NOW,
        last_used_at: NOW,
        expires_at: NOW.plus(HOUR),
        ended_at: None,
        address: "203.0.113.7".to_owned(),
        agent: "curl/8".to_owned(),
        family: [1; 32],
        refresh: [2; 32],
        delegation: Some(Delegation {
            client: "c".to_owned(),
            name: "C".to_owned(),
            endpoint: "/mcp".to_owned(),
            permissions: Permissions::of(&[Permission::McpRead]),
        }),
    }
}

async fn a_token_of_a_service_is_that_of_its_holder_until_it_is_forgotten(store: &Store) {
    let row = |holder: &str, byte: u8, updated_at: Timestamp| UpstreamTokenRow {
        service: Id::new(NOW),
        holder: holder.to_owned(),
        issuer: "https://b.example".to_owned(),
        sealed: vec![byte],
        updated_at,
    };
    let first = row("user:anna", 1, NOW);
    let service = first.service;
    let other = UpstreamTokenRow {
        service,
        ..row("user:bob", 2, NOW.plus(HOUR))
    };
    for row in [&first, &other] {
        store.put_upstream_token(row.clone(), None).await.unwrap();
    }
    let next = UpstreamTokenRow {
        sealed: vec![3],
        ..first.clone()
    };
    let put = store.put_upstream_token(next.clone(), Some(line()));
    put.await.unwrap();
    let anna = || "user:anna".to_owned();
    let found = store.upstream_token(service, anna()).await.unwrap();
    assert_eq!(found.as_ref(), Some(&next));
    let all = store.upstream_tokens(service).await.unwrap();
    assert_eq!(all, [other.clone(), next.clone()], "the newest first");
    let anew = UpstreamTokenRow {
        sealed: vec![4],
        ..next
    };
    store
        .reseal_upstream_tokens(vec![anew.clone()])
        .await
        .unwrap();
    assert_eq!(store.all_upstream_tokens().await.unwrap(), [anew, other]);
    for there in [true, false] {
        let forgotten = store.forget_upstream_token((service, anna()), None);
        assert_eq!(forgotten.await.unwrap(), there);
    }
    assert_eq!(store.upstream_token(service, anna()).await.unwrap(), None);
}
