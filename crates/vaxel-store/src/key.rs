//! API keys: what is kept of them, never the keys themselves.

use std::collections::BTreeSet;

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Key},
    name::UserName,
    principal::Permissions,
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    outbox,
    service::{from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// What is kept of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Never changes.
    pub id: Id<Key>,
    /// Unique among keys that are not revoked.
    pub name: String,
    /// The public part, by which people recognise the key.
    pub prefix: String,
    /// SHA-256 of the whole key.
    pub digest: [u8; 32],
    /// Whose it is: what that user may do, the key may, within its limits.
    pub user: UserName,
    /// Nothing but these.
    pub permissions: Permissions,
    /// Of services with such a name (patterns); absent: all.
    pub services: Option<Vec<String>>,
    /// Of services in these environments; absent: all.
    pub environments: Option<BTreeSet<String>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    pub revoked_at: Option<Timestamp>,
    /// Last seen, to within some seconds.
    pub last_used_at: Option<Timestamp>,
}

impl KeyRow {
    /// Whether it works at this time, as far as that is up to the key.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

static INSERT: Stmt = Stmt::new(
    "INSERT INTO keys (id, name, prefix, digest, permissions, created_at, expires_at, revoked_at, \
     last_used_at, user_name, services, environments) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
);
static ALL: Stmt = Stmt::new(
    "SELECT id, name, prefix, digest, permissions, created_at, expires_at, revoked_at, last_used_at, \
     user_name, services, environments FROM keys ORDER BY id",
);
static REVOKE: Stmt =
    Stmt::new("UPDATE keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL");
static REVOKE_ALL: Stmt =
    Stmt::new("UPDATE keys SET revoked_at = $2 WHERE user_name = $1 AND revoked_at IS NULL");
static USED: Stmt = Stmt::new("UPDATE keys SET last_used_at = $2 WHERE id = $1");

impl Store {
    /// Adds a key.
    ///
    /// # Errors
    /// [`Error::Taken`] when a key that is not revoked has the name.
    pub async fn create_key(&self, key: &KeyRow, audit: AuditLine) -> Result<(), Error> {
        let key = key.clone();
        self.write("create_key", move |tx| {
            let values = values![
                key.id,
                key.name.as_str(),
                key.prefix.as_str(),
                &key.digest[..],
                to_json(&key.permissions)?,
                key.created_at,
                key.expires_at,
                key.revoked_at,
                key.last_used_at,
                key.user.as_str(),
                key.services.as_ref().map(to_json).transpose()?,
                key.environments.as_ref().map(to_json).transpose()?,
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Every key, also revoked ones, oldest first.
    pub async fn keys(&self) -> Result<Vec<KeyRow>, Error> {
        self.read("keys", |tx| tx.query(&ALL, &[], read)).await
    }

    /// Revokes a key; one that is revoked already stays as it is.
    pub async fn revoke_key(
        &self,
        id: Id<Key>,
        at: Timestamp,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("revoke_key", move |tx| {
            if tx.execute(&REVOKE, &values![id, at])? == 0 {
                return Err(Error::Missing);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Notes when keys were last used.
    pub async fn note_key_uses(&self, uses: Vec<(Id<Key>, Timestamp)>) -> Result<(), Error> {
        self.write("note_key_uses", move |tx| {
            let mut used = tx.prepare(&USED)?;
            for (id, at) in &uses {
                used.put(&values![*id, *at])?;
            }
            Ok(())
        })
        .await
    }
}

/// Every key of a user who is gone is worthless from now on, and its name is free.
pub(crate) fn revoke_all(tx: &mut Tx<'_>, user: &str, at: Timestamp) -> Result<(), Error> {
    tx.put(&REVOKE_ALL, &values![user, at])
}

fn read(row: &Row<'_>) -> Result<KeyRow, Error> {
    let digest = row.blob(3)?;
    Ok(KeyRow {
        id: row.id(0)?,
        name: row.text(1)?,
        prefix: row.text(2)?,
        digest: digest
            .try_into()
            .map_err(|_| Error::unreadable("key digest", "it has not 32 bytes"))?,
        permissions: from_json("permissions", &row.text(4)?)?,
        created_at: row.time(5)?,
        expires_at: row.maybe_time(6)?,
        revoked_at: row.maybe_time(7)?,
        last_used_at: row.maybe_time(8)?,
        user: row
            .text(9)?
            .parse()
            .map_err(|error| Error::unreadable("user name", error))?,
        services: from_optional_json(row.maybe_text(10)?)?,
        environments: from_optional_json(row.maybe_text(11)?)?,
    })
}

fn from_optional_json<T: serde::de::DeserializeOwned>(
    text: Option<String>,
) -> Result<Option<T>, Error> {
    text.map(|text| from_json("limits of a key", &text))
        .transpose()
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&INSERT, &ALL, &REVOKE, &REVOKE_ALL, &USED];
