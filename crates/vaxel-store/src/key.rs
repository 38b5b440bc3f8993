//! API keys: what is kept of them, never the keys themselves.

use std::{collections::BTreeSet, time::Duration};

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Key},
    name::UserName,
    principal::{Permission, Permissions},
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
    /// From where, then: the address of the connection.
    pub last_used_from: Option<String>,
    /// When it got another secret.
    pub rotated_at: Option<Timestamp>,
    /// It gets another secret by itself, so long after the one before.
    pub rotate_every: Option<Duration>,
    /// The secret that it had before.
    pub earlier: Option<EarlierSecret>,
}

/// What is kept of the secret that a key had before it was rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierSecret {
    /// The public part of that text.
    pub prefix: String,
    /// SHA-256 of the whole of it.
    pub digest: [u8; 32],
    /// From when on it is refused.
    pub until: Timestamp,
    /// Last seen, since the key was rotated.
    pub used_at: Option<Timestamp>,
}

/// A use of a key, as it is noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUseRow {
    /// Which key.
    pub id: Id<Key>,
    /// When.
    pub at: Timestamp,
    /// From where, as far as that is known.
    pub from: Option<String>,
    /// Whether it came with the secret that the key had before.
    pub is_earlier: bool,
}

/// Some keys. A row that cannot be read is left out and logged: it must not take the others away.
#[derive(Debug)]
pub struct KeyPage {
    /// Those that can be read.
    pub rows: Vec<KeyRow>,
    /// The id of the last one, readable or not; `None`: there is none.
    pub last: Option<String>,
    /// How many there are with those that cannot be read.
    pub length: usize,
}

impl KeyPage {
    fn of(rows: Vec<(String, Result<KeyRow, Error>)>) -> Self {
        let (last, length) = (rows.last().map(|(id, _)| id.clone()), rows.len());
        let readable = rows.into_iter().filter_map(|(id, row)| match row {
            Ok(row) => Some(row),
            Err(error) => {
                tracing::error!(key.id = %id, %error, "a stored key is left out");
                None
            }
        });
        Self {
            rows: readable.collect(),
            last,
            length,
        }
    }
}

impl KeyRow {
    /// Whether it works at this time, as far as that is up to the key.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, prefix, digest, permissions, created_at, expires_at, revoked_at, \
             last_used_at, user_name, services, environments, last_used_from, rotated_at, rotate_every, \
             earlier_prefix, earlier_digest, earlier_until, earlier_used_at FROM keys ",
            $rest
        )
    };
}
static INSERT: Stmt = Stmt::new(
    "INSERT INTO keys (id, name, prefix, digest, permissions, created_at, expires_at, revoked_at, \
     last_used_at, user_name, services, environments, rotate_every) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
);
static ALL: Stmt = Stmt::new(columns!("ORDER BY id"));
static AFTER: Stmt = Stmt::new(columns!("WHERE id > $1 ORDER BY id LIMIT $2"));
static BEFORE: Stmt = Stmt::new(columns!(
    "WHERE id < $1 AND ($2 IS NULL OR user_name = $2) ORDER BY id DESC LIMIT $3"
));
static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1 AND revoked_at IS NULL"));
static BY_PREFIX: Stmt = Stmt::new(columns!("WHERE prefix = $1"));
static OF_USER: Stmt = Stmt::new(columns!("WHERE user_name = $1 ORDER BY id"));
// Permissions are a JSON array: a whole one is found with its quotes.
static THAT_MAY: Stmt = Stmt::new(columns!(
    "WHERE revoked_at IS NULL AND replace(permissions, $1, '') <> permissions ORDER BY id"
));
static DUE: Stmt = Stmt::new(columns!(
    "WHERE rotate_every IS NOT NULL AND revoked_at IS NULL \
     AND (expires_at IS NULL OR expires_at > $1) \
     AND COALESCE(rotated_at, created_at) + rotate_every <= $1 AND id > $2 ORDER BY id LIMIT $3"
));
static ROTATED: Stmt = Stmt::new(columns!("WHERE rotate_every IS NOT NULL ORDER BY id"));
static ANY: Stmt = Stmt::new("SELECT id FROM keys LIMIT 1");
static COUNT: Stmt = Stmt::new("SELECT COUNT(*) FROM keys");
static ROTATE: Stmt = Stmt::new(
    "UPDATE keys SET prefix = $3, digest = $4, rotated_at = $5, expires_at = $6, earlier_prefix = $7, \
     earlier_digest = $2, earlier_until = $8, earlier_used_at = NULL \
     WHERE id = $1 AND digest = $2 AND revoked_at IS NULL",
);
static REVOKE: Stmt =
    Stmt::new("UPDATE keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL");
static REVOKE_ALL: Stmt =
    Stmt::new("UPDATE keys SET revoked_at = $2 WHERE user_name = $1 AND revoked_at IS NULL");
static USED: Stmt =
    Stmt::new("UPDATE keys SET last_used_at = $2, last_used_from = $3 WHERE id = $1");
static EARLIER_USED: Stmt = Stmt::new("UPDATE keys SET earlier_used_at = $2 WHERE id = $1");

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
                key.rotate_every.map(millis),
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

    /// The next keys in the order of their ids, also revoked ones: for who goes through all of them. `after` is
    /// [`KeyPage::last`] of the page before.
    pub async fn keys_after(&self, after: Option<String>, limit: u32) -> Result<KeyPage, Error> {
        self.read("keys_after", move |tx| {
            let after = after.unwrap_or_default();
            let mut known = Known::default();
            let rows = tx.query(&AFTER, &values![after, i64::from(limit)], |row| {
                Ok((row.text(0)?, read_with(row, &mut known)))
            })?;
            Ok(KeyPage::of(rows))
        })
        .await
    }

    /// Keys from the newest on, also revoked ones; those that are older than one, those of a user.
    pub async fn keys_before(
        &self,
        before: Option<Id<Key>>,
        user: Option<UserName>,
        limit: u32,
    ) -> Result<KeyPage, Error> {
        self.read("keys_before", move |tx| {
            // Behind every id, which begins with a hexadecimal digit.
            let before = before.map_or_else(|| "g".to_owned(), |id| id.to_string());
            let user = user.as_ref().map(UserName::as_str);
            let values = values![before, user, i64::from(limit)];
            Ok(KeyPage::of(tx.query(&BEFORE, &values, labelled)?))
        })
        .await
    }

    /// The key with this id, also a revoked one.
    pub async fn key(&self, id: Id<Key>) -> Result<Option<KeyRow>, Error> {
        self.read("key", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }

    /// The key of this name that is not revoked.
    pub async fn key_named(&self, name: &str) -> Result<Option<KeyRow>, Error> {
        let name = name.to_owned();
        self.read("key_named", move |tx| {
            tx.find(&BY_NAME, &values![name.as_str()], read)
        })
        .await
    }

    /// The key whose text begins so now, also a revoked one.
    pub async fn key_with_prefix(&self, prefix: &str) -> Result<Option<KeyRow>, Error> {
        let prefix = prefix.to_owned();
        self.read("key_with_prefix", move |tx| {
            tx.find(&BY_PREFIX, &values![prefix.as_str()], read)
        })
        .await
    }

    /// Every key of a user, also revoked ones.
    pub async fn keys_of(&self, user: UserName) -> Result<Vec<KeyRow>, Error> {
        self.read("keys_of", move |tx| {
            tx.query(&OF_USER, &values![user.as_str()], read)
        })
        .await
    }

    /// Keys that are not revoked and have a permission.
    pub async fn keys_that_may(&self, permission: Permission) -> Result<Vec<KeyRow>, Error> {
        self.read("keys_that_may", move |tx| {
            let quoted = format!("\"{permission}\"");
            tx.query(&THAT_MAY, &values![quoted], read)
        })
        .await
    }

    /// The next keys that work and should have another secret by now, in the order of their ids. `after` is
    /// [`KeyPage::last`] of the page before.
    pub async fn keys_due(
        &self,
        now: Timestamp,
        after: Option<String>,
        limit: u32,
    ) -> Result<KeyPage, Error> {
        self.read("keys_due", move |tx| {
            let after = after.unwrap_or_default();
            let values = values![now, after, i64::from(limit)];
            Ok(KeyPage::of(tx.query(&DUE, &values, labelled)?))
        })
        .await
    }

    /// Waits until everything that was to be written before is written, or is known not to be: what is read from then
    /// on tells what came of a write whose answer was lost.
    ///
    /// # Errors
    /// As those of any write: it is not known then.
    pub async fn settle_writes(&self) -> Result<(), Error> {
        // Asked something, so that a connection that broke is one again, and its server done with the one before.
        self.write("settle_writes", |tx| {
            tx.find(&ANY, &[], |row| row.text(0)).map(drop)
        })
        .await
    }

    /// Keys that get another secret by themselves, also revoked ones.
    pub async fn keys_that_rotate(&self) -> Result<Vec<KeyRow>, Error> {
        self.read("keys_that_rotate", |tx| tx.query(&ROTATED, &[], read))
            .await
    }

    /// How many keys there are, with those that are revoked.
    pub async fn count_keys(&self) -> Result<u64, Error> {
        self.read("count_keys", |tx| {
            let count = tx.find(&COUNT, &[], |row| row.count(0))?;
            Ok(count.unwrap_or(0))
        })
        .await
    }

    /// Gives a key another secret: that of `next`, which is the key as it is to be. Its earlier one is the one
    /// that it has.
    ///
    /// # Errors
    /// [`Error::Missing`] when it is revoked, or was rotated meanwhile.
    pub async fn rotate_key(&self, next: &KeyRow, audit: AuditLine) -> Result<(), Error> {
        let next = next.clone();
        self.write("rotate_key", move |tx| {
            let earlier = next.earlier.as_ref().ok_or(Error::Missing)?;
            let values = values![
                next.id,
                &earlier.digest[..],
                next.prefix.as_str(),
                &next.digest[..],
                next.rotated_at,
                next.expires_at,
                earlier.prefix.as_str(),
                earlier.until,
            ];
            if tx.execute(&ROTATE, &values)? == 0 {
                return Err(Error::Missing);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
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
    pub async fn note_key_uses(&self, uses: Vec<KeyUseRow>) -> Result<(), Error> {
        self.write("note_key_uses", move |tx| {
            let mut used = tx.prepare(&USED)?;
            for one in &uses {
                used.put(&values![one.id, one.at, one.from.as_deref()])?;
            }
            drop(used);
            for one in uses.iter().filter(|one| one.is_earlier) {
                tx.put(&EARLIER_USED, &values![one.id, one.at])?;
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn read_digest(bytes: Vec<u8>) -> Result<[u8; 32], Error> {
    let bytes = bytes.try_into();
    bytes.map_err(|_| Error::unreadable("key digest", "it has not 32 bytes"))
}

fn read_earlier(row: &Row<'_>) -> Result<Option<EarlierSecret>, Error> {
    let Some(prefix) = row.maybe_text(15)? else {
        return Ok(None);
    };
    Ok(Some(EarlierSecret {
        prefix,
        digest: read_digest(row.blob(16)?)?,
        until: row.time(17)?,
        used_at: row.maybe_time(18)?,
    }))
}

/// A key with its id, which is there also when the rest cannot be read.
fn labelled(row: &Row<'_>) -> Result<(String, Result<KeyRow, Error>), Error> {
    Ok((row.text(0)?, read(row)))
}

fn read(row: &Row<'_>) -> Result<KeyRow, Error> {
    read_with(row, &mut Known::default())
}

/// Permissions as they stood in the row before: most keys have the same, and reading them costs the most.
#[derive(Default)]
struct Known {
    text: String,
    permissions: Permissions,
}

impl Known {
    fn read(&mut self, text: String) -> Result<Permissions, Error> {
        if self.text != text {
            self.permissions = from_json("permissions", &text)?;
            self.text = text;
        }
        Ok(self.permissions)
    }
}

fn read_with(row: &Row<'_>, known: &mut Known) -> Result<KeyRow, Error> {
    Ok(KeyRow {
        id: row.id(0)?,
        name: row.text(1)?,
        prefix: row.text(2)?,
        digest: read_digest(row.blob(3)?)?,
        permissions: known.read(row.text(4)?)?,
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
        last_used_from: row.maybe_text(12)?,
        rotated_at: row.maybe_time(13)?,
        rotate_every: row.maybe_count(14)?.map(Duration::from_millis),
        earlier: read_earlier(row)?,
    })
}

fn from_optional_json<T: serde::de::DeserializeOwned>(
    text: Option<String>,
) -> Result<Option<T>, Error> {
    text.map(|text| from_json("limits of a key", &text))
        .transpose()
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &INSERT,
    &ALL,
    &AFTER,
    &BEFORE,
    &BY_ID,
    &BY_NAME,
    &BY_PREFIX,
    &OF_USER,
    &THAT_MAY,
    &DUE,
    &ROTATED,
    &ANY,
    &COUNT,
    &ROTATE,
    &REVOKE,
    &REVOKE_ALL,
    &USED,
    &EARLIER_USED,
];
