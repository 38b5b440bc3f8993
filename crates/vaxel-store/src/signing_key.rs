//! Keys that sign tokens, sealed.

use vaxel_core::{audit::AuditLine, time::Timestamp};

use crate::{
    audit,
    error::Error,
    stmt::{Row, Stmt, values},
    store::Store,
};

/// A key that signs tokens, or did, or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Names it in tokens.
    pub kid: String,
    /// How it signs: `EdDSA`, …
    pub algorithm: String,
    /// `next`, `current` or `previous`.
    pub stage: String,
    /// Since when it is that.
    pub since: Timestamp,
    /// The private half, sealed.
    pub sealed: Vec<u8>,
}

static ALL: Stmt =
    Stmt::new("SELECT kid, algorithm, stage, since, sealed FROM signing_keys ORDER BY kid");
static CLEAR: Stmt = Stmt::new("DELETE FROM signing_keys");
static INSERT: Stmt = Stmt::new(
    "INSERT INTO signing_keys (kid, algorithm, stage, since, sealed) VALUES ($1, $2, $3, $4, $5)",
);

impl Store {
    /// Every key that signs tokens.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKeyRow>, Error> {
        self.read("signing_keys", |tx| tx.query(&ALL, &[], read))
            .await
    }

    /// Keeps these keys, and no others.
    pub async fn put_signing_keys(
        &self,
        keys: Vec<SigningKeyRow>,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("put_signing_keys", move |tx| {
            tx.put(&CLEAR, &[])?;
            for key in &keys {
                let values = values![
                    key.kid.as_str(),
                    key.algorithm.as_str(),
                    key.stage.as_str(),
                    key.since,
                    &key.sealed[..],
                ];
                tx.put(&INSERT, &values)?;
            }
            audit::append(tx, &audit)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<SigningKeyRow, Error> {
    Ok(SigningKeyRow {
        kid: row.text(0)?,
        algorithm: row.text(1)?,
        stage: row.text(2)?,
        since: row.time(3)?,
        sealed: row.blob(4)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&ALL, &CLEAR, &INSERT];
