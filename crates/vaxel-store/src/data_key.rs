//! Random keys that seal what there is too much of to seal it anew when the root key is replaced. They are sealed
//! themselves.

use vaxel_core::time::Timestamp;

use crate::{
    error::Error,
    stmt::{Stmt, values},
    store::Store,
};

static PUT: Stmt = Stmt::new(
    "INSERT INTO data_keys (purpose, sealed, created_at) VALUES ($1, $2, $3) \
     ON CONFLICT (purpose) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at",
);
static RESEAL: Stmt = Stmt::new("UPDATE data_keys SET sealed = $2 WHERE purpose = $1");
static GET: Stmt = Stmt::new("SELECT sealed FROM data_keys WHERE purpose = $1");

impl Store {
    /// The key of a purpose, sealed.
    pub async fn data_key(&self, purpose: &'static str) -> Result<Option<Vec<u8>>, Error> {
        self.read("data_key", move |tx| {
            tx.find(&GET, &values![purpose], |row| row.blob(0))
        })
        .await
    }

    /// Keeps a key in the place of the one before.
    pub async fn put_data_key(
        &self,
        purpose: &'static str,
        sealed: Vec<u8>,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.write("put_data_key", move |tx| {
            tx.put(&PUT, &values![purpose, &sealed[..], at])
        })
        .await
    }

    /// Replaces the sealed bytes of a key, which is the same one.
    pub async fn reseal_data_key(
        &self,
        purpose: &'static str,
        sealed: Vec<u8>,
    ) -> Result<(), Error> {
        self.write("reseal_data_key", move |tx| {
            tx.put(&RESEAL, &values![purpose, &sealed[..]])
        })
        .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &RESEAL, &GET];
