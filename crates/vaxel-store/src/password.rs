//! What is kept of passwords, and how often one was wrong lately.

use vaxel_core::{
    audit::{AuditLine, Outcome},
    id::{Id, User},
    lockout,
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    outbox,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// What is kept of a user's password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordRow {
    /// Whose it is.
    pub user: Id<User>,
    /// Its hash, with how it was made (PHC string format).
    pub kept: String,
    /// It was set by somebody else, and is good for nothing but to set another.
    pub must_change: bool,
    /// When it was set.
    pub changed_at: Timestamp,
    /// How often another one was given since it was last right.
    pub failures: u64,
    /// Until when it is not taken, however right.
    pub locked_until: Option<Timestamp>,
}

static PUT: Stmt = Stmt::new(
    "INSERT INTO passwords (user_id, phc, must_change, changed_at, failures, locked_until) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_id) DO UPDATE SET phc = excluded.phc, \
     must_change = excluded.must_change, changed_at = excluded.changed_at, \
     failures = excluded.failures, locked_until = excluded.locked_until",
);
static GET: Stmt = Stmt::new(
    "SELECT user_id, phc, must_change, changed_at, failures, locked_until FROM passwords \
     WHERE user_id = $1",
);
static KEEP_ANEW: Stmt = Stmt::new("UPDATE passwords SET phc = $2 WHERE user_id = $1 AND phc = $3");
static FAILURES: Stmt =
    Stmt::new("UPDATE passwords SET failures = failures + 1 WHERE user_id = $1 RETURNING failures");
static LOCK: Stmt = Stmt::new("UPDATE passwords SET locked_until = $2 WHERE user_id = $1");
static FORGIVE: Stmt = Stmt::new(
    "UPDATE passwords SET failures = 0, locked_until = NULL WHERE user_id = $1 \
     AND (locked_until IS NULL OR locked_until <= $2)",
);

impl Store {
    /// What is kept of a user's password, when it has one.
    pub async fn password(&self, user: Id<User>) -> Result<Option<PasswordRow>, Error> {
        self.read("password", move |tx| tx.find(&GET, &values![user], read))
            .await
    }

    /// Sets a user's password, in the place of the one before.
    pub async fn put_password(&self, row: &PasswordRow, audit: AuditLine) -> Result<(), Error> {
        let row = row.clone();
        self.write("put_password", move |tx| {
            let values = values![
                row.user,
                row.kept.as_str(),
                row.must_change,
                row.changed_at,
                row.failures,
                row.locked_until,
            ];
            tx.execute(&PUT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Keeps the same password in another way, unless it was changed meanwhile.
    pub async fn keep_password_anew(
        &self,
        user: Id<User>,
        (before, after): (String, String),
    ) -> Result<(), Error> {
        self.write("keep_password_anew", move |tx| {
            tx.put(&KEEP_ANEW, &values![user, after.as_str(), before.as_str()])
        })
        .await
    }

    /// Notes that a sign-in failed. Of a `user` who has a password, it was wrong: after some in a row no
    /// password is taken for a while. Costs the same when there is no such user.
    pub async fn note_failed_sign_in(
        &self,
        user: Option<Id<User>>,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("note_failed_sign_in", move |tx| {
            if let Some(user) = user {
                let until = count(tx, user, audit.at)?;
                audit::append(tx, &audit)?;
                return until.map_or(Ok(()), |until| audit::append(tx, &locked(&audit, until)));
            }
            audit::append(tx, &audit)
        })
        .await
    }
}

/// The line that says that no password is taken for a while.
fn locked(failed: &AuditLine, until: Timestamp) -> AuditLine {
    AuditLine {
        action: "user.lock",
        detail: serde_json::json!({ "until": until }),
        outcome: Outcome::Done,
        ..failed.clone()
    }
}

/// Counts a failure; until when no password is taken, when it is one too many.
fn count(tx: &mut Tx<'_>, user: Id<User>, at: Timestamp) -> Result<Option<Timestamp>, Error> {
    let failures = tx.find(&FAILURES, &values![user], |row| row.count(0))?;
    match failures.and_then(|failures| lockout::wait(failures, lockout::FREE)) {
        Some(wait) => {
            let until = at.plus(wait);
            tx.put(&LOCK, &values![user, until])?;
            Ok(Some(until))
        }
        None => Ok(None),
    }
}

/// The password was right: what was wrong before is forgotten. `false` when it was locked meanwhile.
pub(crate) fn forgive(tx: &mut Tx<'_>, user: Id<User>, at: Timestamp) -> Result<bool, Error> {
    Ok(tx.execute(&FORGIVE, &values![user, at])? > 0)
}

fn read(row: &Row<'_>) -> Result<PasswordRow, Error> {
    Ok(PasswordRow {
        user: row.id(0)?,
        kept: row.text(1)?,
        must_change: row.truth(2)?,
        changed_at: row.time(3)?,
        failures: row.count(4)?,
        locked_until: row.maybe_time(5)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &GET, &KEEP_ANEW, &FAILURES, &LOCK, &FORGIVE];
