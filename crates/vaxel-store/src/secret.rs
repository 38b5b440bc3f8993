//! Sealed values of services. What is in here cannot be read without the root key.

use vaxel_core::{
    id::{Id, SecretValue, Service},
    time::Timestamp,
};

use crate::{
    error::Error,
    sqlite::Tx,
    stmt::{Stmt, values},
    store::Store,
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
static OF_SERVICE: Stmt =
    Stmt::new("SELECT id, service, sealed, created_at FROM secrets WHERE service = $1 ORDER BY id");

pub(crate) fn insert(tx: &mut Tx<'_>, secret: &SecretRow) -> Result<(), Error> {
    let values = values![
        secret.id,
        secret.service,
        &secret.sealed[..],
        secret.created_at
    ];
    tx.execute(&INSERT, &values).map(drop)
}

impl Store {
    /// Every sealed value of a service, also of its earlier revisions.
    pub async fn secrets(&self, service: Id<Service>) -> Result<Vec<SecretRow>, Error> {
        self.read("secrets", move |tx| {
            tx.query(&OF_SERVICE, &values![service], |row| {
                Ok(SecretRow {
                    id: row.id(0)?,
                    service: row.id(1)?,
                    sealed: row.blob(2)?,
                    created_at: row.time(3)?,
                })
            })
        })
        .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&INSERT, &OF_SERVICE];
