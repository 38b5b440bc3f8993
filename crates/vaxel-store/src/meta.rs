//! Small facts about this data directory, by name: the id of the instance and the like.

use crate::{
    error::Error,
    stmt::{Stmt, values},
    store::Store,
};

static PUT: Stmt = Stmt::new(
    "INSERT INTO meta (name, value) VALUES ($1, $2) \
     ON CONFLICT (name) DO UPDATE SET value = excluded.value",
);
static GET: Stmt = Stmt::new("SELECT value FROM meta WHERE name = $1");

impl Store {
    /// Keeps a fact in the place of the one before.
    pub async fn put_meta(&self, name: &'static str, value: String) -> Result<(), Error> {
        self.write("put_meta", move |tx| {
            tx.execute(&PUT, &values![name, value.as_str()]).map(drop)
        })
        .await
    }

    /// The fact of this name.
    pub async fn meta(&self, name: &'static str) -> Result<Option<String>, Error> {
        self.read("meta", move |tx| {
            tx.find(&GET, &values![name], |row| row.text(0))
        })
        .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &GET];
