//! Passwords and sign-ins: who gets tokens, how they are renewed, and how they end.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use vaxel_auth::jwt::{Algorithm, Refused};
use vaxel_control::{
    Change, Credentials, Origin, PasswordChange, SignedIn, TokensConfig, UserChange,
};
use vaxel_core::{
    failure::{Failure, Kind},
    lockout,
    principal::{Permission, Permissions, Principal},
    rights::Limits,
    secret::Secret,
    time::{Clock, Timestamp},
    user::UserDraft,
};

use vaxel_store::Store;

use crate::home::{Home, everything_in, folder, open_at};

const GOOD: &str = "a good long password";
const OTHER: &str = "another good password";
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A control plane with a user `anna`, whose own password is [`GOOD`], and its time.
async fn with_anna(dir: &Path) -> (Home, Clock) {
    let clock = Clock::manual(START);
    let home = open_at(dir, clock.clone(), |_| {}).await;
    home.add("anna", "person").await;
    home.set(&home.admin, "anna", "set by the admin", None)
        .await
        .unwrap();
    home.replace("anna", ("set by the admin", GOOD))
        .await
        .unwrap();
    (home, clock)
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

fn from(address: &str) -> Origin {
    Origin {
        request: None,
        address: address.parse().unwrap(),
        agent: "test".to_owned(),
    }
}

impl Home {
    async fn add(&self, name: &str, kind: &str) {
        let draft = json!({ "name": name, "kind": kind, "roles": ["user"] });
        let draft = UserDraft::from_json(&draft).unwrap();
        let change = Change::User(UserChange::Create(draft));
        self.control.submit(&self.admin, change).await.unwrap();
    }

    async fn disable(&self, name: &str, disabled: bool) {
        let draft = json!({ "name": name, "roles": ["user"], "disabled": disabled });
        let change = UserChange::Update {
            name: name.to_owned(),
            draft: UserDraft::from_json(&draft).unwrap(),
            expected: None,
        };
        let change = Change::User(change);
        self.control.submit(&self.admin, change).await.unwrap();
    }

    async fn set(
        &self,
        by: &Principal,
        user: &str,
        password: &str,
        old: Option<&str>,
    ) -> Result<(), Failure> {
        let change = PasswordChange {
            user: user.to_owned(),
            password: secret(password),
            old: old.map(secret),
            keep: None,
        };
        let set = self.control.submit(by, Change::SetPassword(change)).await;
        set.map(drop)
    }

    async fn replace(
        &self,
        name: &str,
        (password, new): (&str, &str),
    ) -> Result<SignedIn, Failure> {
        let credentials = Credentials {
            name: name.to_owned(),
            password: secret(password),
            new_password: Some(secret(new)),
        };
        self.control.sign_in(credentials, from("127.0.0.1")).await
    }

    async fn enter(&self, name: &str, password: &str) -> Result<SignedIn, Failure> {
        self.enter_from(name, password, "127.0.0.1").await
    }

    async fn enter_from(
        &self,
        name: &str,
        password: &str,
        address: &str,
    ) -> Result<SignedIn, Failure> {
        let credentials = Credentials {
            name: name.to_owned(),
            password: secret(password),
            new_password: None,
        };
        self.control.sign_in(credentials, from(address)).await
    }

    async fn renewed(&self, token: &Secret<String>) -> Result<SignedIn, Failure> {
        self.control.renew(token.expose(), from("127.0.0.1")).await
    }

    fn is_good(&self, signed_in: &SignedIn) -> Result<(), Refused> {
        self.control.bearer(signed_in.access.expose()).map(drop)
    }
}

/// What the audit says of sign-ins and passwords, oldest first; nothing runs over the folder any more.
async fn audit(dir: &Path) -> Vec<(String, String, Value)> {
    let store = Store::open(&vaxel_store::Config::new(dir.join("data"))).unwrap();
    let mut lines = store.audit_lines(1_000, None).await.unwrap();
    lines.reverse();
    let lines = lines.into_iter().filter(|line| {
        let action = line.action.as_str();
        action.starts_with("user.sign") || ["user.password", "user.token_reused"].contains(&action)
    });
    let lines = lines.map(|line| {
        let detail = serde_json::from_str(&line.detail).unwrap();
        (line.actor, line.action, detail)
    });
    lines.collect()
}

/// What somebody hears who cannot sign in.
fn refusal(failed: Result<SignedIn, Failure>) -> (Kind, String) {
    let failure = failed.unwrap_err();
    (failure.kind, failure.detail.into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_password_become_tokens_that_say_who_it_is_and_no_secret_is_kept() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let signed_in = home.enter("anna", GOOD).await.unwrap();
    let bearer = home.control.bearer(signed_in.access.expose()).unwrap();
    assert_eq!(
        (bearer.user, bearer.sign_in),
        (signed_in.user.id, signed_in.id)
    );
    assert_eq!(signed_in.expires_in, Duration::from_mins(15));
    clock.advance(Duration::from_mins(16));
    assert_eq!(home.is_good(&signed_in), Err(Refused::Expired));
    home.control.stop().await;
    drop(home);
    let kept = everything_in(folder.path());
    for secret in [GOOD, signed_in.refresh.expose(), signed_in.access.expose()] {
        let secret = secret.as_bytes();
        assert!(!kept.windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_from_a_refusal_whether_there_is_such_a_user() {
    let folder = folder();
    let (home, _) = with_anna(folder.path()).await;
    for (name, kind) in [
        ("disabled", "person"),
        ("robot", "program"),
        ("without", "person"),
    ] {
        home.add(name, kind).await;
    }
    home.set(&home.admin, "disabled", GOOD, None).await.unwrap();
    home.disable("disabled", true).await;
    let expected = refusal(home.enter("anna", "not her password").await);
    assert_eq!(expected.0, Kind::Unauthenticated);
    for name in [
        "nobody",
        "disabled",
        "robot",
        "without",
        "",
        "Not A Name",
        "vaxel",
    ] {
        assert_eq!(refusal(home.enter(name, GOOD).await), expected, "{name}");
    }
    for _ in 0..lockout::FREE {
        assert_eq!(refusal(home.enter("anna", "still not it").await), expected);
    }
    assert_eq!(refusal(home.enter("anna", GOOD).await), expected);
    home.control.stop().await;
    drop(home);
    let failed = audit(folder.path()).await.into_iter();
    let failed: Vec<_> = failed
        .filter(|(_, action, _)| action == "user.sign_in_failed")
        .collect();
    let mut why: Vec<&str> = failed
        .iter()
        .map(|(_, _, detail)| detail["why"].as_str().unwrap())
        .collect();
    why.sort_unstable();
    why.dedup();
    assert_eq!(why, ["disabled", "locked", "program", "unknown", "wrong"]);
    // A person who types the password in the place of the name does not find it in the audit.
    assert!(failed.iter().all(|(actor, ..)| actor != "Not A Name"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_waits_and_the_right_password_counts_again_afterwards() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    for _ in 0..lockout::FREE {
        home.enter("anna", "not her password").await.unwrap_err();
    }
    home.enter("anna", GOOD).await.unwrap_err();
    let wait = lockout::wait(lockout::FREE, lockout::FREE).unwrap();
    clock.advance(wait);
    home.enter("anna", GOOD).await.unwrap();
    home.enter("anna", "not her password").await.unwrap_err();
    home.enter("anna", GOOD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_at_many_users_is_told_to_wait() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let mut last = Kind::Unauthenticated;
    for number in 0..60 {
        let failed = home
            .enter_from(&format!("user{number}"), GOOD, "203.0.113.7")
            .await;
        last = failed.unwrap_err().kind;
        if last == Kind::Busy {
            break;
        }
    }
    assert_eq!(last, Kind::Busy);
    let refused = home
        .enter_from("anna", GOOD, "203.0.113.7")
        .await
        .unwrap_err();
    assert!(refused.retry_after.is_some());
    home.enter_from("anna", GOOD, "203.0.113.8").await.unwrap();
    clock.advance(lockout::LONGEST);
    home.enter_from("anna", GOOD, "203.0.113.7").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once_and_a_second_use_ends_the_sign_in() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let first = home.enter("anna", GOOD).await.unwrap();
    let other = home.enter("anna", GOOD).await.unwrap();
    clock.advance(Duration::from_hours(24 * 20));
    let second = home.renewed(&first.refresh).await.unwrap();
    assert_eq!((second.id, home.is_good(&second)), (first.id, Ok(())));
    let third = home.renewed(&second.refresh).await.unwrap();
    // Also one that is older than the one before.
    let refused = refusal(home.renewed(&first.refresh).await);
    assert_eq!(refused.0, Kind::Unauthenticated);
    assert_eq!(home.is_good(&third), Err(Refused::Ended));
    assert_eq!(refusal(home.renewed(&third.refresh).await), refused);
    assert!(home.renewed(&other.refresh).await.is_ok());
    home.control.stop().await;
    drop(home);
    let reused = audit(folder.path()).await.into_iter();
    assert_eq!(
        reused
            .filter(|(_, action, _)| action == "user.token_reused")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_with_one_refresh_token_at_most_one_gets_the_next() {
    let folder = folder();
    let (home, _) = with_anna(folder.path()).await;
    let first = home.enter("anna", GOOD).await.unwrap();
    let (one, two, three) = tokio::join!(
        home.renewed(&first.refresh),
        home.renewed(&first.refresh),
        home.renewed(&first.refresh),
    );
    let good = [one, two, three].into_iter().filter_map(Result::ok);
    let good: Vec<SignedIn> = good.collect();
    assert!(good.len() <= 1, "{good:?}");
    for signed_in in good {
        assert_eq!(home.is_good(&signed_in), Err(Refused::Ended));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_tokens_that_were_never_given_out_or_are_too_old_are_refused() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let good = home.enter("anna", GOOD).await.unwrap();
    let text = good.refresh.expose();
    let made_up = format!("vxr_01890a5d-ac96-774b-bcce-b302099a8057{}", &text[40..]);
    let other_family = format!("{}{}_{}", &text[..41], "A".repeat(32), "A".repeat(32));
    for bad in [
        "",
        "vxr_",
        GOOD,
        &made_up,
        &other_family,
        &text[..80],
        good.access.expose(),
    ] {
        let refused = home.control.renew(bad, from("127.0.0.1")).await;
        assert_eq!(refusal(refused).0, Kind::Unauthenticated, "{bad}");
    }
    assert_eq!(home.is_good(&good), Ok(()));
    clock.advance(TokensConfig::default().sign_in);
    assert_eq!(
        refusal(home.renewed(&good.refresh).await).0,
        Kind::Unauthenticated
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_are_seen_and_ended_by_their_user_and_by_who_manages_users() {
    let folder = folder();
    let (home, _) = with_anna(folder.path()).await;
    home.add("eve", "person").await;
    let first = home.enter("anna", GOOD).await.unwrap();
    let second = home.enter("anna", GOOD).await.unwrap();
    let (anna, eve) = (
        home.control.as_user("anna").unwrap(),
        home.control.as_user("eve").unwrap(),
    );
    // The third one replaced the password that the admin had set.
    assert_eq!(home.control.sign_ins(&anna, None).await.unwrap().len(), 3);
    assert_eq!(home.control.sign_ins(&eve, None).await.unwrap(), []);
    let refused = home.control.sign_ins(&eve, Some("anna")).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    let refused = home
        .control
        .submit(&eve, Change::EndSignIn(first.id))
        .await
        .unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.control
        .submit(&anna, Change::EndSignIn(first.id))
        .await
        .unwrap();
    assert_eq!(home.is_good(&first), Err(Refused::Ended));
    assert_eq!(home.is_good(&second), Ok(()));
    home.control
        .submit(&home.admin, Change::EndSignIn(second.id))
        .await
        .unwrap();
    assert_eq!(home.is_good(&second), Err(Refused::Ended));
    let again = home
        .control
        .submit(&home.admin, Change::EndSignIn(second.id))
        .await;
    assert_eq!(again.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_disabled_or_gone_gets_no_further_token() {
    let folder = folder();
    let (home, _) = with_anna(folder.path()).await;
    let signed_in = home.enter("anna", GOOD).await.unwrap();
    home.disable("anna", true).await;
    assert_eq!(
        refusal(home.renewed(&signed_in.refresh).await).0,
        Kind::Unauthenticated
    );
    home.disable("anna", false).await;
    assert!(home.renewed(&signed_in.refresh).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_somebody_else_set_is_good_for_nothing_but_to_set_another() {
    let folder = folder();
    let home = open_at(folder.path(), Clock::manual(START), |_| {}).await;
    home.add("anna", "person").await;
    home.set(&home.admin, "anna", GOOD, None).await.unwrap();
    let refused = home.enter("anna", GOOD).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    for bad in ["short", "anna", GOOD, "password1234"] {
        let refused = home.replace("anna", (GOOD, bad)).await.unwrap_err();
        assert_eq!(
            (refused.kind, &*refused.issues[0].path),
            (Kind::Invalid, "new_password"),
            "{bad}"
        );
    }
    home.replace("anna", (GOOD, OTHER)).await.unwrap();
    home.enter("anna", OTHER).await.unwrap();
    home.enter("anna", GOOD).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_password_is_changed_by_who_knows_the_one_before_and_ends_other_sign_ins() {
    let folder = folder();
    let (home, _) = with_anna(folder.path()).await;
    let (here, elsewhere) = (
        home.enter("anna", GOOD).await.unwrap(),
        home.enter("anna", GOOD).await.unwrap(),
    );
    let anna = home.control.as_user("anna").unwrap();
    for old in [None, Some("not her password")] {
        let refused = home.set(&anna, "anna", OTHER, old).await.unwrap_err();
        assert_eq!(
            (refused.kind, &*refused.issues[0].path),
            (Kind::Invalid, "old")
        );
    }
    let change = PasswordChange {
        user: "anna".to_owned(),
        password: secret(OTHER),
        old: Some(secret(GOOD)),
        keep: Some(here.id),
    };
    home.control
        .submit(&anna, Change::SetPassword(change))
        .await
        .unwrap();
    assert_eq!(home.is_good(&here), Ok(()));
    assert_eq!(home.is_good(&elsewhere), Err(Refused::Ended));
    home.enter("anna", OTHER).await.unwrap();
    home.enter("anna", GOOD).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sets_the_password_of_who_may_do_more() {
    let folder = folder();
    let (home, _) = with_anna(folder.path()).await;
    let anna = home.control.as_user("anna").unwrap();
    let refused = home.set(&anna, "admin", GOOD, None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    // One who manages users, and nothing else.
    let keeper = Principal {
        permissions: Permissions::of(&[Permission::UsersManage]),
        ..anna.clone()
    };
    let refused = home.set(&keeper, "admin", GOOD, None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.add("robot", "program").await;
    let refused = home
        .set(&home.admin, "robot", GOOD, None)
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind, &*refused.issues[0].path),
        (Kind::Invalid, "user")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_key_does_not_become_its_user_by_a_first_password() {
    let folder = folder();
    let home = open_at(folder.path(), Clock::manual(START), |_| {}).await;
    let admin = home.control.as_user("admin").unwrap();
    let limits = Limits {
        permissions: Permissions::of(&[Permission::McpRead]),
        services: None,
        environments: None,
    };
    let who = (admin.proof, admin.name.clone());
    let limited = Principal::of_user(who, admin.rights.clone(), Some(limits.into()));
    let refused = home.set(&limited, "admin", GOOD, None).await.unwrap_err();
    assert_eq!(refused.kind, Kind::NotPermitted);
    home.set(&admin, "admin", GOOD, None).await.unwrap();
    home.enter("admin", GOOD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_their_ends_outlive_a_restart() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let (kept, ended) = (
        home.enter("anna", GOOD).await.unwrap(),
        home.enter("anna", GOOD).await.unwrap(),
    );
    home.control
        .submit(&home.admin, Change::EndSignIn(ended.id))
        .await
        .unwrap();
    let keys = home.control.key_set();
    home.control.stop().await;
    drop(home);
    let home = open_at(folder.path(), clock, |_| {}).await;
    assert_eq!(home.control.key_set(), keys);
    assert_eq!(home.is_good(&kept), Ok(()));
    assert_eq!(home.is_good(&ended), Err(Refused::Ended));
    home.renewed(&kept.refresh).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_follow_each_other_and_tokens_of_the_one_before_stay_good() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let old = home.enter("anna", GOOD).await.unwrap();
    let kids = |home: &Home| -> Vec<String> {
        let keys = home.control.key_set();
        let keys = keys["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = kids(&home);
    assert_eq!(before.len(), 2);
    home.control.stop().await;
    drop(home);
    clock.advance(Duration::from_mins(10));
    let config = |config: &mut vaxel_control::Config| {
        config.tokens.rotation = Duration::from_mins(5);
        config.tokens.algorithm = Algorithm::Es256;
    };
    let home = open_at(folder.path(), clock.clone(), config).await;
    let after = kids(&home);
    // The next one was of another algorithm: it never signed, and two new ones were made.
    assert_eq!(after.len(), 3);
    assert!(after.contains(&home_signer(&before)));
    assert_eq!(home.is_good(&old), Ok(()));
    let new = home.enter("anna", GOOD).await.unwrap();
    assert_eq!(home.is_good(&new), Ok(()));
    home.control.stop().await;
    drop(home);
    let backup = folder.path().join("data/root.key");
    std::fs::write(&backup, [7; 32]).unwrap();
    // Without the root key nothing opens: there are new keys, and old tokens are worth nothing.
    let home = open_at(folder.path(), clock, |_| {}).await;
    assert_eq!(home.is_good(&new), Err(Refused::UnknownKey));
    home.enter("anna", GOOD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_key_signs_at_once_when_somebody_asks_and_old_tokens_stay_good() {
    let folder = folder();
    let (home, clock) = with_anna(folder.path()).await;
    let old = home.enter("anna", GOOD).await.unwrap();
    let keys = || home.control.signing_keys(&home.admin).unwrap();
    let stages = || -> Vec<(&str, String)> {
        let keys = keys().into_iter();
        keys.map(|key| (key.stage.as_str(), key.kid)).collect()
    };
    let before = stages();
    let change = || home.control.submit(&home.admin, Change::RotateSigningKeys);
    change().await.unwrap();
    let after = stages();
    let place = |stages: &[(&str, String)], wanted: &str| {
        let mut found = stages.iter().filter(|(stage, _)| *stage == wanted);
        found.next().map(|(_, kid)| kid.clone())
    };
    assert_eq!(place(&after, "current"), place(&before, "next"));
    assert_eq!(place(&after, "previous"), place(&before, "current"));
    assert!(place(&after, "next").is_some());
    let new = home.enter("anna", GOOD).await.unwrap();
    assert_eq!((home.is_good(&old), home.is_good(&new)), (Ok(()), Ok(())));
    // Again, while tokens of two keys are good: all three verify.
    change().await.unwrap();
    assert_eq!((home.is_good(&old), home.is_good(&new)), (Ok(()), Ok(())));
    assert_eq!(
        keys()
            .iter()
            .filter(|key| key.stage.as_str() == "previous")
            .count(),
        2
    );
    clock.advance(Duration::from_hours(1));
    let over = keys()
        .into_iter()
        .filter(|key| key.until.is_some_and(|until| until <= clock.now()));
    assert_eq!(over.count(), 2);
    let nobody = Principal {
        permissions: Permissions::NONE,
        ..Principal::system()
    };
    assert!(home.control.signing_keys(&nobody).is_err());
    let refused = home
        .control
        .submit(&nobody, Change::RotateSigningKeys)
        .await;
    assert_eq!(refused.unwrap_err().kind, Kind::NotPermitted);
    home.control.stop().await;
}

/// The key that signed: they are told in the order next, current, previous.
fn home_signer(kids: &[String]) -> String {
    kids[1].clone()
}
