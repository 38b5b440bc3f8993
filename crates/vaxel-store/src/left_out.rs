//! Rows that cannot be read: left out of lists, named in the status, and in nobody else's way.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::{
    error::Error,
    stmt::{Row, Stmt},
    store::Store,
};

/// Most sentences that are kept of one kind; of further ones their number is.
const KEPT: usize = 20;

/// How every row of a kind is read.
pub(crate) struct Every<T> {
    /// Name of the transaction.
    pub(crate) name: &'static str,
    /// What a row is, for people: `set`.
    pub(crate) what: &'static str,
    /// Without values.
    pub(crate) stmt: &'static Stmt,
    /// The column that tells people which one it is.
    pub(crate) label: usize,
    pub(crate) read: fn(&Row<'_>) -> Result<T, Error>,
}

/// What was left out when it was last read, by what it is.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    said: Mutex<BTreeMap<&'static str, Vec<String>>>,
}

impl LeftOut {
    fn replace(&self, what: &'static str, rows: Vec<String>) {
        let mut said = self.said.lock();
        let before = said.remove(what).unwrap_or_default();
        for sentence in rows.iter().filter(|one| !before.contains(one)) {
            tracing::error!("{sentence}");
        }
        if !rows.is_empty() {
            said.insert(what, rows);
        }
    }
}

impl Store {
    /// What is stored and cannot be read, one sentence each, as of when it was last read: it is as if it
    /// were not there.
    pub fn left_out(&self) -> Vec<String> {
        let said = self.inner().left_out.said.lock();
        let of_kind = |(what, rows): (&&str, &Vec<String>)| {
            let further = rows.len().saturating_sub(KEPT);
            let more =
                (further > 0).then(|| format!("{further} further rows ({what}) are left out"));
            let kept: Vec<String> = rows.iter().take(KEPT).cloned().chain(more).collect();
            kept
        };
        said.iter().flat_map(of_kind).collect()
    }

    /// Every row that can be read; what is said of the others stands in [`Store::left_out`]: one bad row
    /// must not take the others away.
    pub(crate) async fn read_every<T: Send + 'static>(
        &self,
        every: &'static Every<T>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.read(every.name, |tx| {
            tx.query(every.stmt, &[], |row| {
                let label = row.text(every.label).unwrap_or_default();
                Ok((every.read)(row).map_err(|error| sentence(every.what, &label, &error)))
            })
        });
        let (mut readable, mut left_out) = (Vec::new(), Vec::new());
        for row in rows.await? {
            match row {
                Ok(row) => readable.push(row),
                Err(sentence) => left_out.push(sentence),
            }
        }
        self.inner().left_out.replace(every.what, left_out);
        Ok(readable)
    }
}

fn sentence(what: &str, label: &str, error: &Error) -> String {
    let why = error.with_reason();
    format!(
        "the {what} `{label}` is left out, since {why}; restore it from a backup, or remove its row"
    )
}
