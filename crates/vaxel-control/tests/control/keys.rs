//! Keys: who can make them, what they can do, and how they end.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use vaxel_auth::key::{ApiKey, Refused};
use vaxel_control::{Change, KeyDraft, KeyRef, KeyRotation, KeyRow};
use vaxel_core::{
    failure::{Failure, Kind},
    principal::{Permission, Permissions, Principal},
    quantity::Span,
    rights::Limits,
    role::BuiltIn,
    secret::Secret,
    time::{Clock, Timestamp},
};

use crate::home::{Home, folder, open, open_at, open_over, until};

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
    let keys = home.keys_of(&home.admin).await;
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
    let keys = home.keys_of(&home.admin).await;
    let laptop = keys.iter().find(|key| key.name == "laptop").unwrap();
    assert!(laptop.revoked_at.is_some());
    home.control.stop().await;
}

const DAY: Duration = Duration::from_hours(24);

/// A control plane with a time that only moves when the test says so.
async fn timed(dir: &Path) -> (Home, Clock) {
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    (open_at(dir, clock.clone(), |_| {}).await, clock)
}

impl Home {
    async fn make(&self, draft: KeyDraft) -> Result<Secret<String>, Failure> {
        let made = self.control.submit(&self.admin, Change::CreateKey(draft));
        made.await?.into_key().map(|key| key.text)
    }

    async fn rotate(
        &self,
        who: &Principal,
        overlap: Option<Duration>,
    ) -> Result<Secret<String>, Failure> {
        let wanted = KeyRotation {
            overlap: overlap.map(Span),
            expires_in: None,
        };
        let change = Change::RotateKey(KeyRef::Name("ci".to_owned()), wanted);
        let rotated = self.control.submit(who, change).await?;
        rotated.into_key().map(|key| key.text)
    }

    /// What the data plane says to a key.
    fn try_key(&self, text: &Secret<String>) -> Result<(), Refused> {
        let found = self.gateway.keys().find(text.expose(), self.control.now());
        found.map(drop)
    }

    async fn key_named(&self, name: &str) -> KeyRow {
        let keys = self.keys_of(&self.admin).await;
        keys.into_iter().find(|key| key.name == name).unwrap()
    }
}

fn ci() -> KeyDraft {
    KeyDraft {
        name: "ci".to_owned(),
        permissions: BuiltIn::Client.permissions(),
        ..KeyDraft::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_of_a_rotated_key_work_until_the_overlap_is_over() {
    let folder = folder();
    let (home, clock) = timed(folder.path()).await;
    let old = home.make(ci()).await.unwrap();
    let before = home.key_named("ci").await;
    let new = home.rotate(&home.admin, Some(DAY)).await.unwrap();
    let after = home.key_named("ci").await;
    assert_eq!(
        (after.id, &after.permissions),
        (before.id, &before.permissions)
    );
    assert!(new.expose().starts_with(&after.prefix));
    let earlier = after.earlier.unwrap();
    assert_eq!(
        (earlier.prefix, earlier.until),
        (before.prefix, home.control.now().plus(DAY))
    );
    clock.advance(DAY.saturating_sub(Duration::from_millis(1)));
    assert_eq!((home.try_key(&old), home.try_key(&new)), (Ok(()), Ok(())));
    clock.advance(Duration::from_millis(1));
    assert_eq!(home.try_key(&old), Err(Refused::Replaced));
    assert_eq!(home.try_key(&new), Ok(()));
    home.control.stop().await;
    drop(home);

    let home = open_at(folder.path(), clock, |_| {}).await;
    assert_eq!(home.try_key(&old), Err(Refused::Replaced));
    assert_eq!(home.try_key(&new), Ok(()));
    assert_eq!(revoke(&home, "ci").await, Ok(()));
    assert_eq!(home.try_key(&new), Err(Refused::Revoked));
    home.control.stop().await;
    for secret in [old, new] {
        let (kept, secret) = (crate::home::everything_in(folder.path()), secret.expose());
        assert!(
            !kept
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_rotated_again_while_both_secrets_work_unless_both_are_to_end() {
    let folder = folder();
    let (home, _) = timed(folder.path()).await;
    let first = home.make(ci()).await.unwrap();
    let second = home.rotate(&home.admin, None).await.unwrap();
    let refused = home.rotate(&home.admin, None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict, "{refused}");
    let third = home
        .rotate(&home.admin, Some(Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(home.try_key(&first), Err(Refused::Unknown));
    assert_eq!(home.try_key(&second), Err(Refused::Replaced));
    assert_eq!(home.try_key(&third), Ok(()));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overlap_ends_no_later_than_the_key_and_a_dead_key_is_not_rotated() {
    let folder = folder();
    let (home, clock) = timed(folder.path()).await;
    let expires_in = Some(Span(Duration::from_mins(5)));
    let old = home.make(KeyDraft { expires_in, ..ci() }).await.unwrap();
    home.rotate(&home.admin, None).await.unwrap();
    let key = home.key_named("ci").await;
    assert_eq!(Some(key.earlier.unwrap().until), key.expires_at);
    clock.advance(Duration::from_mins(5));
    assert_eq!(home.try_key(&old), Err(Refused::Replaced));
    let expired = home.rotate(&home.admin, None).await.unwrap_err();
    assert_eq!(expired.kind, Kind::Conflict, "{expired}");
    assert_eq!(revoke(&home, "ci").await, Ok(()));
    let revoked = Change::RotateKey(KeyRef::Id(key.id), KeyRotation::default());
    let revoked = home.control.submit(&home.admin, revoked).await.unwrap_err();
    assert_eq!(revoked.kind, Kind::Conflict, "{revoked}");
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_rotates_a_key_that_may_more_than_they_could_give() {
    let folder = folder();
    let (home, _) = timed(folder.path()).await;
    home.make(ci()).await.unwrap();
    let weak = Principal {
        permissions: Permissions::of(&[Permission::KeysManage, Permission::McpRead]),
        name: "keeper".into(),
        ..Principal::system()
    };
    let narrow = Principal {
        limits: Some(
            Limits {
                permissions: Permissions::ALL,
                services: None,
                environments: Some(["test".to_owned()].into()),
            }
            .into(),
        ),
        ..Principal::system()
    };
    for who in [weak, narrow] {
        let refused = home.rotate(&who, None).await.unwrap_err();
        assert_eq!(refused.kind, Kind::NotPermitted, "{refused}");
    }
    assert!(home.key_named("ci").await.rotated_at.is_none());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_rotates_by_itself_has_its_secret_in_a_file() {
    let folder = folder();
    let (home, clock) = timed(folder.path()).await;
    let rotate_every = Some(Span(Duration::from_hours(10)));
    let first = home
        .make(KeyDraft {
            rotate_every,
            ..ci()
        })
        .await
        .unwrap();
    let file = folder.path().join("data/keys/ci.key");
    let kept = || Secret::new(fs::read_to_string(&file).unwrap().trim().to_owned());
    assert_eq!(kept(), first);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    home.control.stop().await;
    drop(home);

    clock.advance(Duration::from_hours(10));
    let home = open_at(folder.path(), clock.clone(), |_| {}).await;
    let second = kept();
    assert_ne!(second, first);
    assert_eq!(
        (home.try_key(&first), home.try_key(&second)),
        (Ok(()), Ok(()))
    );
    clock.advance(Duration::from_hours(5));
    assert_eq!(home.try_key(&first), Err(Refused::Replaced));
    let long = home
        .rotate(&home.admin, Some(Duration::from_hours(11)))
        .await;
    assert_eq!(long.unwrap_err().issues[0].path, "overlap");
    // By hand, too.
    let third = home.rotate(&home.admin, None).await.unwrap();
    assert_eq!((kept(), mode(&file)), (third, 0o600));
    assert_eq!(revoke(&home, "ci").await, Ok(()));
    assert!(!file.exists());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_lies_beside_its_file_after_a_crash_takes_its_place_or_goes_away() {
    let folder = folder();
    let (home, clock) = timed(folder.path()).await;
    let rotate_every = Some(Span(DAY));
    let first = home
        .make(KeyDraft {
            rotate_every,
            ..ci()
        })
        .await
        .unwrap();
    home.control.stop().await;
    drop(home);
    let file = folder.path().join("data/keys/ci.key");
    let draft = folder.path().join("data/keys/ci.key.new");
    // Killed before the store knew of it: it never was. Killed right after: it is the one that counts.
    let never = ApiKey::generate().0;
    fs::write(&draft, never.expose()).unwrap();
    let home = open_at(folder.path(), clock.clone(), |_| {}).await;
    assert!(!draft.exists());
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), first.expose());
    home.control.stop().await;
    drop(home);
    fs::rename(&file, &draft).unwrap();
    let home = open_at(folder.path(), clock, |_| {}).await;
    assert!(!draft.exists());
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), first.expose());
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_the_admin_key_follows_its_key() {
    let folder = folder();
    let (home, _) = timed(folder.path()).await;
    let file = folder.path().join("data/admin.key");
    let first = home.admin_key.clone().unwrap();
    fs::write(&file, format!("{}\n", first.expose())).unwrap();
    home.make(ci()).await.unwrap();
    home.rotate(&home.admin, None).await.unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), first.expose());
    let change = Change::RotateKey(KeyRef::Name("admin".to_owned()), KeyRotation::default());
    let rotated = home.control.submit(&home.admin, change).await.unwrap();
    let second = rotated.into_key().unwrap().text;
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), second.expose());
    assert_eq!(
        (home.try_key(&first), home.try_key(&second)),
        (Ok(()), Ok(()))
    );
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_listed_in_pages_and_by_user() {
    let folder = folder();
    let (home, clock) = timed(folder.path()).await;
    for number in 0..5 {
        clock.advance(Duration::from_millis(1));
        let name = format!("key {number}");
        home.make(KeyDraft { name, ..ci() }).await.unwrap();
    }
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let page = vaxel_control::Page { limit: 2, cursor };
        let user = "admin".parse().unwrap();
        let list = home
            .control
            .keys(&home.admin, (Some(&user), &page))
            .await
            .unwrap();
        names.extend(list.items.into_iter().map(|key| key.name));
        cursor = list.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(
        names,
        ["key 4", "key 3", "key 2", "key 1", "key 0", "admin"]
    );
    let nobody = "anna".parse().unwrap();
    let page = vaxel_control::Page::FIRST;
    let list = home
        .control
        .keys(&home.admin, (Some(&nobody), &page))
        .await
        .unwrap();
    assert_eq!(list.items, []);
    home.control.stop().await;
}

/// Keeps the store from writing, as a process that will not let go of it does, until it is dropped.
struct Held(Child);

impl Held {
    fn store(dir: &Path) -> Self {
        let script = "import sqlite3, sys\n\
                      store = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n\
                      store.execute('BEGIN IMMEDIATE')\nprint('held', flush=True)\nsys.stdin.read()";
        let mut holds = Command::new("python3")
            .args(["-c", script])
            .arg(dir.join("data/vaxel.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0; 4];
        let out = holds.stdout.as_mut().unwrap();
        out.read_exact(&mut told).unwrap();
        Self(holds)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rotated_by_itself() -> KeyDraft {
    KeyDraft {
        rotate_every: Some(Span(30 * DAY)),
        ..ci()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_whose_answer_is_lost_loses_no_secret_and_is_told_as_unknown() {
    let folder = folder();
    let slow = vaxel_store::Config {
        write_timeout: Duration::from_millis(500),
        ..vaxel_store::Config::new(folder.path().join("data"))
    };
    let home = open_over(slow, Clock::system(), |_| {}).await;
    let old = home.make(rotated_by_itself()).await.unwrap();
    let file = folder.path().join("data/keys/ci.key");
    let held = Held::store(folder.path());
    let unknown = home.rotate(&home.admin, Some(Duration::ZERO)).await;
    let unknown = unknown.unwrap_err();
    assert_eq!(unknown.kind, Kind::StoreUnavailable);
    assert!(unknown.detail.contains("not known"), "{unknown}");
    assert_eq!(home.try_key(&old), Ok(()), "as was said");
    drop(held);
    let new = until("the new text to be in its place", async || {
        let text = fs::read_to_string(&file).ok()?;
        let text = text.trim().to_owned();
        (text != *old.expose()).then(|| Secret::new(text))
    })
    .await;
    until("the data plane to know it", async || {
        home.try_key(&new).ok()
    })
    .await;
    assert!(home.try_key(&old).is_err());
    assert!(new.expose().starts_with(&home.key_named("ci").await.prefix));
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_somebody_has_ends_also_when_the_file_of_the_next_one_cannot_be_replaced() {
    let folder = folder();
    let home = open(folder.path()).await;
    let old = home.make(rotated_by_itself()).await.unwrap();
    let file = folder.path().join("data/keys/ci.key");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let new = home
        .rotate(&home.admin, Some(Duration::ZERO))
        .await
        .unwrap();
    assert!(home.try_key(&old).is_err());
    assert_eq!(home.try_key(&new), Ok(()));
    fs::remove_dir(&file).unwrap();
    until("the file to be there", async || {
        let text = fs::read_to_string(&file).ok()?;
        (text.trim() == new.expose()).then_some(())
    })
    .await;
    home.control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_rotated_any_more_hold_up_none_that_is_due() {
    let folder = folder();
    let (home, clock) = timed(folder.path()).await;
    for number in 0..105 {
        let draft = KeyDraft {
            name: format!("ended-{number}"),
            expires_in: Some(Span(40 * DAY)),
            ..rotated_by_itself()
        };
        home.make(draft).await.unwrap();
    }
    // Its id comes after theirs.
    clock.advance(Duration::from_millis(1));
    let old = home.make(rotated_by_itself()).await.unwrap();
    home.control.stop().await;
    drop(home);
    clock.advance(50 * DAY);
    let home = open_at(folder.path(), clock.clone(), |_| {}).await;
    let key = home.key_named("ci").await;
    assert!(!old.expose().starts_with(&key.prefix), "{key:?}");
    home.control.stop().await;
}
