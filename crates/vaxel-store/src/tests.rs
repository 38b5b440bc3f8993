//! What the store promises, tried on real files.

mod group_commit;

use std::path::Path;

use crate::{
    Error,
    sqlite::Tx,
    stmt::{Stmt, values},
    store::{Config, Store},
};

pub(crate) static PUT_NOTE: Stmt =
    Stmt::new("INSERT INTO notes (name, text, updated_at) VALUES ($1, $2, 0)");

/// A store in a folder of its own, which goes away with the first part.
pub(crate) fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let store = open(dir.path());
    (dir, store)
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(&Config::new(dir)).expect("the store opens")
}

/// Adds a note; fails when there is one of that name.
pub(crate) fn put(tx: &mut Tx<'_>, name: &str, text: &str) -> Result<(), Error> {
    tx.execute(&PUT_NOTE, &values![name, text]).map(drop)
}
