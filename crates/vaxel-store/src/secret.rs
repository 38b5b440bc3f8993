//! Sealed values of services. What is in here cannot be read without the root key.

use vaxel_core::{
    id::{Id, SecretValue, Service},
    time::Timestamp,
};

use crate::{
    error::Error,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// A sealed value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// What specs refer to.
    pub id: Id<SecretValue>,
    /// The only service that it opens for.
    pub service: Id<Service>,
    /// Sealed bytes.
    pub sealed: Vec<u8>,
    /// When it came.
    pub created_at: Timestamp,
}

static INSERT: Stmt =
    Stmt::new("INSERT INTO secrets (id, service, sealed, created_at) VALUES ($1, $2, $3, $4)");
static AFTER: Stmt = Stmt::new(
    "SELECT id, service, sealed, created_at FROM secrets WHERE id > $1 ORDER BY id LIMIT $2",
);
static COUNT: Stmt = Stmt::new("SELECT COUNT(*) FROM secrets");
static RESEAL: Stmt = Stmt::new("UPDATE secrets SET sealed = $2 WHERE id = $1");
static OF_SERVICE: Stmt =
    Stmt::new("SELECT id, service, sealed, created_at FROM secrets WHERE service = $1 ORDER BY id");

pub(crate) fn insert(tx: &mut Tx<'_>, secret: &SecretRow) -> Result<(), Error> {
    let values = values![
        secret.id,
        secret.service,
        &secret.sealed[..],
        secret.created_at
    ];
    tx.put(&INSERT, &values)
}

impl Store {
    /// Every sealed value of a service, also of its earlier revisions.
    pub async fn secrets(&self, service: Id<Service>) -> Result<Vec<SecretRow>, Error> {
        self.read("secrets", move |tx| {
            tx.query(&OF_SERVICE, &values![service], read)
        })
        .await
    }

    /// The next sealed values in the order of their ids.
    pub async fn secrets_after(
        &self,
        after: Option<Id<SecretValue>>,
        limit: u32,
    ) -> Result<Vec<SecretRow>, Error> {
        self.read("secrets_after", move |tx| {
            let after = after.map_or_else(String::new, |id| id.to_string());
            tx.query(&AFTER, &values![after, i64::from(limit)], read)
        })
        .await
    }

    /// How many sealed values there are.
    pub async fn count_secrets(&self) -> Result<u64, Error> {
        self.read("count_secrets", |tx| {
            let count = tx.find(&COUNT, &[], |row| row.count(0))?;
            Ok(count.unwrap_or(0))
        })
        .await
    }

    /// Replaces the sealed bytes of values, all or none: they were sealed anew.
    pub async fn reseal(&self, secrets: Vec<SecretRow>) -> Result<(), Error> {
        self.write("reseal", move |tx| {
            for secret in &secrets {
                tx.execute(&RESEAL, &values![secret.id, &secret.sealed[..]])?;
            }
            Ok(())
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<SecretRow, Error> {
    Ok(SecretRow {
        id: row.id(0)?,
        service: row.id(1)?,
        sealed: row.blob(2)?,
        created_at: row.time(3)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&INSERT, &AFTER, &COUNT, &RESEAL, &OF_SERVICE];
