//! Sign-ins: each begins with a password, is renewed with a token that is good once, and ends.

use serde::{Deserialize, Serialize};
use vaxel_core::{
    audit::AuditLine,
    id::{Id, SignIn, User},
    principal::Permissions,
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    oauth, password,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// A sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInRow {
    /// Never changes.
    pub id: Id<SignIn>,
    /// Who signed in.
    pub user: Id<User>,
    /// When.
    pub created_at: Timestamp,
    /// When it was last renewed.
    pub last_used_at: Timestamp,
    /// Ends then, if it is not renewed before.
    pub expires_at: Timestamp,
    /// Since when it is over.
    pub ended_at: Option<Timestamp>,
    /// Where the user came from.
    pub address: String,
    /// What the user's program said it is.
    pub agent: String,
    /// SHA-256 of the part that all tokens for renewal of this sign-in share.
    pub family: [u8; 32],
    /// SHA-256 of the one token that renews it now.
    pub refresh: [u8; 32],
    /// What the user left to a client, when it is a client's.
    pub delegation: Option<Delegation>,
}

/// What a user left to a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Which client.
    pub client: String,
    /// What it called itself then.
    pub name: String,
    /// Path of the MCP endpoint; empty for the whole server.
    pub endpoint: String,
    /// What it may do there, at most.
    pub permissions: Permissions,
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, user_id, created_at, last_used_at, expires_at, ended_at, address, agent, \
             family, refresh, delegation FROM sign_ins ",
            $rest
        )
    };
}

static INSERT: Stmt = Stmt::new(
    "INSERT INTO sign_ins (id, user_id, created_at, last_used_at, expires_at, ended_at, address, \
     agent, family, refresh, delegation) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);
static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static OF_USER: Stmt = Stmt::new(columns!(
    "WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2 ORDER BY id DESC"
));
static ENDED: Stmt = Stmt::new("SELECT id FROM sign_ins WHERE ended_at > $1");
static OF_CLIENTS: Stmt = Stmt::new(columns!("WHERE ended_at IS NULL AND delegation LIKE $1"));
static RENEW: Stmt = Stmt::new(
    "UPDATE sign_ins SET refresh = $3, last_used_at = $4, expires_at = $5 \
     WHERE id = $1 AND refresh = $2 AND ended_at IS NULL",
);
static END: Stmt =
    Stmt::new("UPDATE sign_ins SET ended_at = $2 WHERE id = $1 AND ended_at IS NULL");
static END_ALL: Stmt = Stmt::new(
    "UPDATE sign_ins SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL AND id <> $3",
);
static FORGET: Stmt = Stmt::new("DELETE FROM sign_ins WHERE expires_at < $1 OR ended_at < $1");

impl Store {
    /// Begins a sign-in. One that a password began forgets what was wrong before; one of a client, which gave
    /// no password, does not.
    ///
    /// # Errors
    /// [`Error::Changed`] when the password was locked meanwhile, or is gone.
    pub async fn begin_sign_in(&self, row: &SignInRow, audit: AuditLine) -> Result<(), Error> {
        let row = row.clone();
        self.write("begin_sign_in", move |tx| {
            if row.delegation.is_none() && !password::forgive(tx, row.user, row.created_at)? {
                return Err(Error::Changed);
            }
            let delegation = row.delegation.as_ref().map(serde_json::to_string);
            let delegation = delegation.transpose();
            let delegation = delegation.map_err(|error| Error::unreadable("delegation", error))?;
            let values = values![
                row.id,
                row.user,
                row.created_at,
                row.last_used_at,
                row.expires_at,
                row.ended_at,
                row.address.as_str(),
                row.agent.as_str(),
                &row.family[..],
                &row.refresh[..],
                delegation,
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)
        })
        .await
    }

    /// A sign-in, also one that ended.
    pub async fn sign_in(&self, id: Id<SignIn>) -> Result<Option<SignInRow>, Error> {
        self.read("sign_in", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }

    /// The sign-ins of a user that hold at `now`, newest first.
    pub async fn sign_ins(&self, user: Id<User>, now: Timestamp) -> Result<Vec<SignInRow>, Error> {
        self.read("sign_ins", move |tx| {
            tx.query(&OF_USER, &values![user, now], read)
        })
        .await
    }

    /// Those that ended after `since`.
    pub async fn ended_sign_ins(&self, since: Timestamp) -> Result<Vec<Id<SignIn>>, Error> {
        self.read("ended_sign_ins", move |tx| {
            tx.query(&ENDED, &values![since], |row| row.id(0))
        })
        .await
    }

    /// Puts another token in the place of the one that renews a sign-in.
    ///
    /// # Errors
    /// [`Error::Changed`] when it was renewed with that token already, or has ended.
    pub async fn renew_sign_in(
        &self,
        id: Id<SignIn>,
        (before, after): ([u8; 32], [u8; 32]),
        (now, expires_at): (Timestamp, Timestamp),
    ) -> Result<(), Error> {
        self.write("renew_sign_in", move |tx| {
            let values = values![id, &before[..], &after[..], now, expires_at];
            match tx.execute(&RENEW, &values)? {
                0 => Err(Error::Changed),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Ends a sign-in. When it is a client's, its user is asked again before there is another one.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none that has not ended.
    pub async fn end_sign_in(&self, id: Id<SignIn>, audit: AuditLine) -> Result<(), Error> {
        self.write("end_sign_in", move |tx| {
            if tx.execute(&END, &values![id, audit.at])? == 0 {
                return Err(Error::Missing);
            }
            let row = tx.find(&BY_ID, &values![id], read)?;
            if let Some((user, given)) = row.and_then(|row| Some((row.user, row.delegation?))) {
                oauth::forget_consent(tx, user, &given)?;
            }
            audit::append(tx, &audit)
        })
        .await
    }

    /// Ends all sign-ins of a user but one, and what the user let clients do; returns how many sign-ins that were.
    pub async fn end_sign_ins(
        &self,
        user: Id<User>,
        but: Option<Id<SignIn>>,
        audit: AuditLine,
    ) -> Result<usize, Error> {
        self.write("end_sign_ins", move |tx| {
            // No sign-in has a user's id.
            let but = but.map_or_else(|| user.to_string(), |id| id.to_string());
            let ended = tx.execute(&END_ALL, &values![user, audit.at, but])?;
            oauth::forget_consents(tx, user)?;
            audit::append(tx, &audit)?;
            Ok(ended)
        })
        .await
    }

    /// Deletes what ended or expired before `before`; returns how many sign-ins that were.
    pub async fn forget_sign_ins(&self, before: Timestamp) -> Result<usize, Error> {
        self.write("forget_sign_ins", move |tx| {
            tx.execute(&FORGET, &values![before])
        })
        .await
    }
}

/// Ends every sign-in of a client; returns how many that were.
pub(crate) fn end_of_client(tx: &mut Tx<'_>, client: &str, at: Timestamp) -> Result<usize, Error> {
    // Letters of an id may stand for others in a pattern: what is found is looked at again.
    let rows = tx.query(&OF_CLIENTS, &values![format!("%{client}%")], read)?;
    let is_its = |row: &&SignInRow| {
        row.delegation
            .as_ref()
            .is_some_and(|one| one.client == client)
    };
    let mut ended = 0;
    for row in rows.iter().filter(is_its) {
        ended += tx.execute(&END, &values![row.id, at])?;
    }
    Ok(ended)
}

fn read(row: &Row<'_>) -> Result<SignInRow, Error> {
    let digest = |at| -> Result<[u8; 32], Error> {
        let bytes = row.blob(at)?;
        bytes
            .try_into()
            .map_err(|_| Error::unreadable("digest of a sign-in", "it has not 32 bytes"))
    };
    Ok(SignInRow {
        id: row.id(0)?,
        user: row.id(1)?,
        created_at: row.time(2)?,
        last_used_at: row.time(3)?,
        expires_at: row.time(4)?,
        ended_at: row.maybe_time(5)?,
        address: row.text(6)?,
        agent: row.text(7)?,
        family: digest(8)?,
        refresh: digest(9)?,
        delegation: match row.maybe_text(10)? {
            None => None,
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| Error::unreadable("delegation of a sign-in", error))?,
        },
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &INSERT,
    &BY_ID,
    &OF_USER,
    &OF_CLIENTS,
    &ENDED,
    &RENEW,
    &END,
    &END_ALL,
    &FORGET,
];
