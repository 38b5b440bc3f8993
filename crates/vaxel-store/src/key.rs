//! API keys: what is kept of them, never the keys themselves.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Key},
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
    /// What it may do.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Since when it is refused.
    pub revoked_at: Option<Timestamp>,
    /// Last seen, to within some seconds.
    pub last_used_at: Option<Timestamp>,
}

static INSERT: Stmt = Stmt::new(
    "INSERT INTO keys (id, name, prefix, digest, permissions, created_at, expires_at, revoked_at, \
     last_used_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
);
static ALL: Stmt = Stmt::new(
    "SELECT id, name, prefix, digest, permissions, created_at, expires_at, revoked_at, last_used_at \
     FROM keys ORDER BY id",
);
static REVOKE: Stmt =
    Stmt::new("UPDATE keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL");
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
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&INSERT, &ALL, &REVOKE, &USED];
