//! Sealed values of services. What is in here cannot be read without the root key.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, SecretValue, Service},
    time::Timestamp,
};

use crate::{
    audit,
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
static ALL: Stmt = Stmt::new("SELECT id, service, sealed, created_at FROM secrets ORDER BY id");
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

    /// Every sealed value there is.
    pub async fn all_secrets(&self) -> Result<Vec<SecretRow>, Error> {
        self.read("all_secrets", move |tx| tx.query(&ALL, &values![], read))
            .await
    }

    /// Replaces the sealed bytes of values, all or none: they were sealed anew.
    pub async fn reseal(&self, secrets: Vec<SecretRow>, audit: AuditLine) -> Result<(), Error> {
        self.write("reseal", move |tx| {
            for secret in &secrets {
                tx.execute(&RESEAL, &values![secret.id, &secret.sealed[..]])?;
            }
            audit::append(tx, &audit)
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
pub(crate) static STATEMENTS: &[&Stmt] = &[&INSERT, &ALL, &RESEAL, &OF_SERVICE];
