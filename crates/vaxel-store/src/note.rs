//! The notes of the demo server.

use vaxel_core::time::Timestamp;

use crate::{
    error::Error,
    stmt::{Stmt, values},
    store::Store,
};

static PUT: Stmt = Stmt::new(
    "INSERT INTO notes (name, text, updated_at) VALUES ($1, $2, $3) \
     ON CONFLICT (name) DO UPDATE SET text = excluded.text, updated_at = excluded.updated_at",
);
static GET: Stmt = Stmt::new("SELECT text FROM notes WHERE name = $1");
static NAMES: Stmt = Stmt::new("SELECT name FROM notes ORDER BY name");

impl Store {
    /// Writes a note in the place of the one before.
    pub async fn write_demo_note(
        &self,
        name: &str,
        text: String,
        at: Timestamp,
    ) -> Result<(), Error> {
        let name = name.to_owned();
        self.write("write_demo_note", move |tx| {
            tx.execute(&PUT, &values![name.as_str(), text.as_str(), at])
                .map(drop)
        })
        .await
    }

    /// The text of a note.
    pub async fn demo_note(&self, name: &str) -> Result<Option<String>, Error> {
        let name = name.to_owned();
        self.read("demo_note", move |tx| {
            tx.find(&GET, &values![name], |row| row.text(0))
        })
        .await
    }

    /// The names of all notes, sorted.
    pub async fn demo_notes(&self) -> Result<Vec<String>, Error> {
        self.read("demo_notes", |tx| tx.query(&NAMES, &[], |row| row.text(0)))
            .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &GET, &NAMES];
