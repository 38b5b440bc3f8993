//! Passwords, sign-ins and the keys that sign tokens.

use std::time::Duration;

use vaxel_core::{
    audit::AuditLine,
    id::{Id, User},
    lockout,
    principal::Principal,
    time::Timestamp,
};

use super::contract::{contract, traces};
use crate::{
    error::Error, password::PasswordRow, sign_in::SignInRow, signing_key::SigningKeyRow,
    store::Store, tests::NOW,
};

contract!(
    a_password_is_read_as_it_was_written,
    a_password_is_kept_anew_unless_it_was_changed_meanwhile,
    wrong_passwords_lock_for_longer_and_longer,
    a_right_password_is_not_taken_while_it_is_locked,
    a_failure_of_nobody_leaves_a_line,
    a_sign_in_is_renewed_with_its_token_once,
    a_sign_in_ends_once_and_is_known_to_have_ended,
    all_sign_ins_of_a_user_end_but_one,
    what_is_over_is_forgotten,
    the_keys_are_those_that_were_put_last,
);

const HOUR: Duration = Duration::from_hours(1);

fn line(at: Timestamp) -> AuditLine {
    let target = ("user", String::new(), "anna".to_owned());
    AuditLine::new(at, &Principal::system(), "user", target)
}

async fn password(store: &Store) -> PasswordRow {
    let row = PasswordRow {
        user: Id::new(NOW),
        kept: "$argon2id$1".to_owned(),
        must_change: true,
        changed_at: NOW,
        failures: 0,
        locked_until: None,
    };
    store.put_password(&row, line(NOW)).await.unwrap();
    row
}

fn sign_in(user: Id<User>) -> SignInRow {
    SignInRow {
        id: Id::new(NOW),
        user,
        created_at: NOW,
        last_used_at: NOW,
        expires_at: NOW.plus(HOUR),
        ended_at: None,
        address: "203.0.113.7".to_owned(),
        agent: "curl/8".to_owned(),
        family: [1; 32],
        refresh: [2; 32],
        delegation: None,
    }
}

async fn begin(store: &Store, user: Id<User>) -> SignInRow {
    let row = sign_in(user);
    store.begin_sign_in(&row, line(NOW)).await.unwrap();
    row
}

async fn a_password_is_read_as_it_was_written(store: &Store) {
    assert_eq!(store.password(Id::new(NOW)).await.unwrap(), None);
    let mut row = password(store).await;
    assert_eq!(store.password(row.user).await.unwrap(), Some(row.clone()));
    row.kept = "$argon2id$2".to_owned();
    row.must_change = false;
    row.locked_until = Some(NOW);
    store.put_password(&row, line(NOW)).await.unwrap();
    assert_eq!(store.password(row.user).await.unwrap(), Some(row));
    assert_eq!(traces(store).await, (2, 2));
}

async fn a_password_is_kept_anew_unless_it_was_changed_meanwhile(store: &Store) {
    let row = password(store).await;
    let anew = |before: &str, after: &str| (before.to_owned(), after.to_owned());
    store
        .keep_password_anew(row.user, anew("other", "x"))
        .await
        .unwrap();
    let kept = store.password(row.user).await.unwrap().unwrap().kept;
    assert_eq!(kept, row.kept);
    store
        .keep_password_anew(row.user, anew(&row.kept, "y"))
        .await
        .unwrap();
    assert_eq!(store.password(row.user).await.unwrap().unwrap().kept, "y");
}

async fn wrong_passwords_lock_for_longer_and_longer(store: &Store) {
    let user = password(store).await.user;
    for failures in 1..=lockout::FREE + 3 {
        store
            .note_failed_sign_in(Some(user), line(NOW))
            .await
            .unwrap();
        let row = store.password(user).await.unwrap().unwrap();
        let wait = lockout::wait(failures, lockout::FREE);
        assert_eq!(row.failures, failures);
        assert_eq!(row.locked_until, wait.map(|wait| NOW.plus(wait)));
    }
}

async fn a_right_password_is_not_taken_while_it_is_locked(store: &Store) {
    let user = password(store).await.user;
    for _ in 0..lockout::FREE {
        store
            .note_failed_sign_in(Some(user), line(NOW))
            .await
            .unwrap();
    }
    let mut row = sign_in(user);
    let refused = store.begin_sign_in(&row, line(NOW)).await;
    assert!(matches!(refused, Err(Error::Changed)), "{refused:?}");
    assert_eq!(store.sign_in(row.id).await.unwrap(), None);
    row.created_at = NOW.plus(HOUR);
    store.begin_sign_in(&row, line(NOW)).await.unwrap();
    let after = store.password(user).await.unwrap().unwrap();
    assert_eq!((after.failures, after.locked_until), (0, None));
    let nobody = store.begin_sign_in(&sign_in(Id::new(NOW)), line(NOW)).await;
    assert!(matches!(nobody, Err(Error::Changed)), "{nobody:?}");
}

async fn a_failure_of_nobody_leaves_a_line(store: &Store) {
    store.note_failed_sign_in(None, line(NOW)).await.unwrap();
    store
        .note_failed_sign_in(Some(Id::new(NOW)), line(NOW))
        .await
        .unwrap();
    assert_eq!(traces(store).await, (2, 0));
}

async fn a_sign_in_is_renewed_with_its_token_once(store: &Store) {
    let user = password(store).await.user;
    let row = begin(store, user).await;
    assert_eq!(store.sign_in(row.id).await.unwrap(), Some(row.clone()));
    let times = (NOW.plus(HOUR), NOW.plus(2 * HOUR));
    store
        .renew_sign_in(row.id, ([2; 32], [3; 32]), times)
        .await
        .unwrap();
    let renewed = store.sign_in(row.id).await.unwrap().unwrap();
    assert_eq!(renewed.refresh, [3; 32]);
    assert_eq!((renewed.last_used_at, renewed.expires_at), times);
    let again = store.renew_sign_in(row.id, ([2; 32], [4; 32]), times).await;
    assert!(matches!(again, Err(Error::Changed)), "{again:?}");
    store.end_sign_in(row.id, line(NOW)).await.unwrap();
    let ended = store.renew_sign_in(row.id, ([3; 32], [4; 32]), times).await;
    assert!(matches!(ended, Err(Error::Changed)), "{ended:?}");
}

async fn a_sign_in_ends_once_and_is_known_to_have_ended(store: &Store) {
    let user = password(store).await.user;
    let row = begin(store, user).await;
    assert_eq!(store.sign_ins(user, NOW).await.unwrap().len(), 1);
    assert_eq!(store.sign_ins(user, row.expires_at).await.unwrap(), []);
    store.end_sign_in(row.id, line(NOW)).await.unwrap();
    let again = store.end_sign_in(row.id, line(NOW)).await;
    assert!(matches!(again, Err(Error::Missing)), "{again:?}");
    assert_eq!(store.sign_ins(user, NOW).await.unwrap(), []);
    let before = Timestamp::from_millis(NOW.as_millis() - 1);
    assert_eq!(store.ended_sign_ins(before).await.unwrap(), [row.id]);
    assert_eq!(store.ended_sign_ins(NOW).await.unwrap(), []);
}

async fn all_sign_ins_of_a_user_end_but_one(store: &Store) {
    let user = password(store).await.user;
    let (kept, _) = (begin(store, user).await, begin(store, user).await);
    assert_eq!(
        store
            .end_sign_ins(user, Some(kept.id), line(NOW))
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.sign_ins(user, NOW).await.unwrap()[0].id, kept.id);
    assert_eq!(store.end_sign_ins(user, None, line(NOW)).await.unwrap(), 1);
    assert_eq!(store.sign_ins(user, NOW).await.unwrap(), []);
}

async fn what_is_over_is_forgotten(store: &Store) {
    let user = password(store).await.user;
    let (ended, kept) = (begin(store, user).await, begin(store, user).await);
    store.end_sign_in(ended.id, line(NOW)).await.unwrap();
    let later = NOW.plus(Duration::from_secs(1));
    assert_eq!(store.forget_sign_ins(later).await.unwrap(), 1);
    assert_eq!(store.sign_in(ended.id).await.unwrap(), None);
    assert!(store.sign_in(kept.id).await.unwrap().is_some());
    assert_eq!(store.forget_sign_ins(NOW.plus(2 * HOUR)).await.unwrap(), 1);
}

async fn the_keys_are_those_that_were_put_last(store: &Store) {
    let key = |kid: &str, stage: &str| SigningKeyRow {
        kid: kid.to_owned(),
        algorithm: "EdDSA".to_owned(),
        stage: stage.to_owned(),
        since: NOW,
        sealed: vec![7; 60],
    };
    let first = vec![key("a", "current"), key("b", "next")];
    store
        .put_signing_keys(first.clone(), line(NOW))
        .await
        .unwrap();
    assert_eq!(store.signing_keys().await.unwrap(), first);
    let second = vec![key("a", "previous"), key("b", "current"), key("c", "next")];
    store
        .put_signing_keys(second.clone(), line(NOW))
        .await
        .unwrap();
    assert_eq!(store.signing_keys().await.unwrap(), second);
}
