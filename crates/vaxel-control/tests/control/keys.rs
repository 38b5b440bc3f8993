//! Keys: who can make them, what they can do, and how they end.

use vaxel_control::{Change, KeyDraft, KeyRef};
use vaxel_core::{
    failure::Kind,
    principal::{Permission, Permissions, Principal},
    role::BuiltIn,
};

use crate::home::{Home, folder, open};

fn draft(name: &str, permissions: Permissions) -> Change {
    Change::CreateKey(KeyDraft {
        name: name.to_owned(),
        permissions,
        ..KeyDraft::default()
    })
}

async fn revoke(home: &Home, name: &str) -> Result<(), Kind> {
    let change = Change::RevokeKey(KeyRef::Name(name.to_owned()));
    home.control
        .submit(&home.admin, change)
        .await
        .map(drop)
        .map_err(|failure| failure.kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_makes_the_admin_key_and_keeps_only_its_digest() {
    let folder = folder();
    let home = open(folder.path()).await;
    let text = home.admin_key.clone().unwrap();
    let keys = home.control.keys(&home.admin).await.unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].name, "admin");
    assert_eq!(keys[0].permissions, BuiltIn::Admin.permissions());
    assert!(text.expose().starts_with(&keys[0].prefix));
    home.control.stop().await;
    let kept = crate::home::everything_in(folder.path());
    let secret = text.expose().as_bytes();
    assert!(!kept.windows(secret.len()).any(|window| window == secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_out_more_than_they_have() {
    let folder = folder();
    let home = open(folder.path()).await;
    let permissions = Permissions::of(&[Permission::KeysManage, Permission::McpRead]);
    let keeper = Principal {
        permissions,
        name: "keeper".into(),
        ..Principal::system()
    };
    let more = draft("more", BuiltIn::Client.permissions());
    let refused = home.control.submit(&keeper, more).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    assert!(refused.detail.contains("mcp:execute"), "{refused}");
    let same = draft("same", Permissions::of(&[Permission::McpRead]));
    home.control.submit(&keeper, same).await.unwrap();
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_can_be_revoked_but_not_the_last_one_that_makes_keys() {
    let folder = folder();
    let home = open(folder.path()).await;
    let change = draft("laptop", BuiltIn::Client.permissions());
    home.control.submit(&home.admin, change).await.unwrap();
    let again = draft("laptop", BuiltIn::Client.permissions());
    let taken = home.control.submit(&home.admin, again).await.unwrap_err();
    assert_eq!(taken.kind, Kind::Conflict);

    assert_eq!(revoke(&home, "admin").await, Err(Kind::Conflict));
    assert_eq!(revoke(&home, "laptop").await, Ok(()));
    assert_eq!(revoke(&home, "laptop").await, Err(Kind::NotFound));
    let keys = home.control.keys(&home.admin).await.unwrap();
    let laptop = keys.iter().find(|key| key.name == "laptop").unwrap();
    assert!(laptop.revoked_at.is_some());
    home.control.stop().await;
}
