//! Passwords: checked by few at a time, and set by their users or by who manages users.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use vaxel_auth::password::{self, Check, Kept};
use vaxel_core::{
    access::require,
    audit::{Came, Outcome as End},
    failure::{Failure, Issue, Kind},
    id::{Id, SignIn, User},
    lockout,
    principal::{Permission, Principal},
    secret::Secret,
    time::Timestamp,
    user::{UserKind, UserResource},
};
use vaxel_store::PasswordRow;

use crate::{
    addresses::{Addresses, network},
    change::Outcome,
    control::Control,
    event::Event,
};

/// Passwords that are hashed at the same time, each in 19 MiB.
const AT_ONCE: usize = 2;
/// Requests that may wait for that; more are told to come again.
const WAITING: usize = 32;
/// Wrong passwords from one address that cost nothing: many people may be behind it.
const FREE_PER_ADDRESS: u64 = 30;

/// Another password for a user.
#[derive(Debug, Clone)]
pub struct PasswordChange {
    /// Whose.
    pub user: String,
    /// The new one.
    pub password: Secret<String>,
    /// The one before; needed of one's own.
    pub old: Option<Secret<String>>,
    /// The sign-in that goes on; all others of the user end.
    pub keep: Option<Id<SignIn>>,
}

/// Who waits for hashing, and which addresses gave wrong passwords lately.
pub(crate) struct Guesses {
    /// Passwords that were hashed since the start: for a refused one as many as for another.
    pub(crate) hashed: AtomicU64,
    hashing: Semaphore,
    waiting: Semaphore,
    addresses: Mutex<Addresses>,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            hashed: AtomicU64::new(0),
            hashing: Semaphore::new(AT_ONCE),
            waiting: Semaphore::new(WAITING),
            addresses: Mutex::default(),
        }
    }
}

impl Guesses {
    /// How long an address has to wait. Programs of this machine never do: a proxy here speaks for everyone.
    pub(crate) fn wait(&self, address: IpAddr, now: Timestamp) -> Option<Duration> {
        let (failures, last) = self.addresses.lock().find(network(address)?)?;
        let end = last.plus(lockout::wait(failures, FREE_PER_ADDRESS)?);
        Some(end.since(now)).filter(|wait| !wait.is_zero())
    }

    pub(crate) fn note_failure(&self, address: IpAddr, now: Timestamp) {
        let Some(network) = network(address) else {
            return;
        };
        let mut addresses = self.addresses.lock();
        let (failures, last) = addresses.of(network, (2 * lockout::LONGEST, now));
        *failures += 1;
        *last = now;
    }

    /// Runs what hashes, when it is its turn.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let busy = || {
            let detail = "Too many passwords are being checked; try again in a moment";
            Failure::new(Kind::Busy, detail).retry_after(1)
        };
        let _waiting = self.waiting.try_acquire().map_err(|_| busy())?;
        let _place = self.hashing.acquire().await.map_err(Failure::internal)?;
        self.hashed.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(Failure::internal)
    }
}

impl Control {
    pub(crate) async fn set_password(
        &self,
        caller: &Principal,
        change: PasswordChange,
    ) -> Result<Outcome, Failure> {
        let user = self.user_for_password(caller, &change.user).await?;
        let is_own = caller.rights.user() == Some(&user.name);
        let before = self.store().password(user.id).await?;
        if is_own {
            self.prove_own_password(caller, before.as_ref(), change.old)
                .await?;
        }
        check_new(&user, &change.password, "password")?;
        self.write_password(caller, &user, (change.password, !is_own))
            .await?;
        let keep = change.keep.filter(|_| is_own);
        self.end_all(caller, &user, keep).await?;
        Ok(Outcome::Done)
    }

    /// Writes a password that was found to be good.
    pub(crate) async fn write_password(
        &self,
        caller: &Principal,
        user: &UserResource,
        (password, must_change): (Secret<String>, bool),
    ) -> Result<(), Failure> {
        let kept = self.inner.guesses.run(move || Kept::of(&password)).await?;
        let target = ("user", user.id.to_string(), user.name.to_string());
        let audit = self.line(caller, "user.password", target);
        let row = PasswordRow {
            user: user.id,
            kept: kept.as_str().to_owned(),
            must_change,
            changed_at: self.now(),
            failures: 0,
            locked_until: None,
        };
        self.store().put_password(&row, audit).await?;
        self.announce(Event::Access {
            kind: "user",
            action: "user.password",
        });
        Ok(())
    }

    /// Whether `given` is the password of `row`; the same work when there is none.
    pub(crate) async fn check_password(
        &self,
        row: Option<&PasswordRow>,
        given: Secret<String>,
    ) -> Result<Check, Failure> {
        let kept = row.map(|row| Kept::stored(row.kept.clone()));
        let work = move || password::check(&given, kept.as_ref());
        self.inner.guesses.run(work).await
    }

    /// Keeps a right password with the parameters of today.
    pub(crate) async fn keep_anew(
        &self,
        row: &PasswordRow,
        given: Secret<String>,
    ) -> Result<(), Failure> {
        let kept = self.inner.guesses.run(move || Kept::of(&given)).await?;
        let anew = (row.kept.clone(), kept.as_str().to_owned());
        Ok(self.store().keep_password_anew(row.user, anew).await?)
    }

    /// Notes that a wrong password was given; `user`: it counts against that user's.
    pub(crate) async fn note_wrong(
        &self,
        (who, came): (Option<&UserResource>, Option<Arc<Came>>),
        (counts, why): (bool, serde_json::Value),
    ) -> Result<(), Failure> {
        let nobody = Principal {
            name: who.map_or_else(|| "anyone".into(), |user| user.name.shared().clone()),
            came,
            ..Principal::system()
        };
        // What was given in the place of a name may be a password: it is not written down.
        let target = who.map_or_else(
            || ("user", String::new(), String::new()),
            |user| ("user", user.id.to_string(), user.name.to_string()),
        );
        let mut audit = self.line(&nobody, "user.sign_in_failed", target);
        audit.detail = why;
        audit.credential = "password";
        audit.outcome = End::Refused(Kind::Unauthenticated);
        let user: Option<Id<User>> = who.map(|user| user.id).filter(|_| counts);
        Ok(self.store().note_failed_sign_in(user, audit).await?)
    }

    /// Who it is, when the caller may set that password.
    async fn user_for_password(
        &self,
        caller: &Principal,
        name: &str,
    ) -> Result<UserResource, Failure> {
        let is_own = caller.rights.user().is_some_and(|own| own.as_str() == name);
        if !is_own {
            require(caller, Permission::UsersManage)?;
        }
        let user = self.user(&Principal::system(), name).await?;
        if !is_own {
            self.may_change(caller, &user).await?;
        }
        if user.kind == UserKind::Program {
            let message = "is a program, which has API keys and no password";
            let issues = vec![Issue::new("user", message)];
            return Err(Failure::invalid("The password", issues));
        }
        Ok(user)
    }

    /// One's own password is changed by who knows the one before. Without any, a key must be able to do what
    /// its user may: else it would give itself more.
    async fn prove_own_password(
        &self,
        caller: &Principal,
        before: Option<&PasswordRow>,
        old: Option<Secret<String>>,
    ) -> Result<(), Failure> {
        let Some(row) = before else {
            return require(caller, Permission::UsersManage);
        };
        let wrong = |message: &str| {
            let issues = vec![Issue::new("old", message)];
            Failure::invalid("The password", issues)
        };
        let old = old.ok_or_else(|| wrong("must be the password as it is now"))?;
        let is_locked = row.locked_until.is_some_and(|until| until > self.now());
        let check = self.check_password(Some(row), old).await?;
        if is_locked || check == Check::Wrong {
            let user = self.store().user_by_id(row.user).await?;
            let why = serde_json::json!({ "why": if is_locked { "locked" } else { "wrong" } });
            let who = (user.as_ref(), caller.came.clone());
            self.note_wrong(who, (!is_locked, why)).await?;
            return Err(wrong(
                "is not the password, or it was guessed too often and is not taken for a while",
            ));
        }
        Ok(())
    }
}

/// Every reason why it cannot be the new password of a user.
pub(crate) fn check_new(
    user: &UserResource,
    password: &Secret<String>,
    field: &str,
) -> Result<(), Failure> {
    let mut issues = password::problems(password.expose(), user.name.as_str());
    for issue in &mut issues {
        field.clone_into(&mut issue.path);
    }
    if issues.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid("The new password", issues))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn fail(guesses: &Guesses, address: &str, times: u64) {
        for _ in 0..times {
            guesses.note_failure(address.parse().unwrap(), NOW);
        }
    }

    fn waits(guesses: &Guesses, address: &str) -> bool {
        guesses.wait(address.parse().unwrap(), NOW).is_some()
    }

    #[test]
    fn an_address_that_guesses_waits_and_no_other() {
        let guesses = Guesses::default();
        fail(&guesses, "203.0.113.7", FREE_PER_ADDRESS - 1);
        assert!(!waits(&guesses, "203.0.113.7"));
        fail(&guesses, "203.0.113.7", 1);
        assert!(waits(&guesses, "203.0.113.7"));
        assert!(waits(&guesses, "::ffff:203.0.113.7"));
        assert!(!waits(&guesses, "203.0.113.8"));
        let later = NOW.plus(lockout::LONGEST);
        let address = "203.0.113.7".parse().unwrap();
        assert_eq!(guesses.wait(address, later), None);
    }

    #[test]
    fn addresses_of_one_network_are_one_and_this_machine_is_none() {
        let guesses = Guesses::default();
        for last in 0..FREE_PER_ADDRESS {
            fail(&guesses, &format!("2001:db8::{last:x}"), 1);
            fail(&guesses, "127.0.0.1", 5);
        }
        assert!(waits(&guesses, "2001:db8::ffff"));
        assert!(!waits(&guesses, "2001:db8:0:1::1"));
        assert!(!waits(&guesses, "127.0.0.1"));
    }
}
