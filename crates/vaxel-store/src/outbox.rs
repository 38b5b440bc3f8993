//! Change events, in the transaction of the change and numbered in the order of commits: a reader
//! resumes from a number and misses nothing.

use vaxel_core::{audit::AuditLine, time::Timestamp};

use crate::{
    error::Error,
    sqlite::Tx,
    stmt::{Stmt, values},
    store::Store,
};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In the order of commits.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub action: String,
    /// `service`, `key`, …
    pub target_kind: String,
    /// Id of the target.
    pub target_id: String,
}

static APPEND: Stmt =
    Stmt::new("INSERT INTO outbox (at, action, target_kind, target_id) VALUES ($1, $2, $3, $4)");
static AFTER: Stmt = Stmt::new(
    "SELECT seq, at, action, target_kind, target_id FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2",
);
static LAST: Stmt = Stmt::new("SELECT max(seq) FROM outbox");
// The newest one stays, whatever its age: the next number is made from it.
static TRIM: Stmt = Stmt::new(
    "DELETE FROM outbox WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM outbox ORDER BY seq \
     LIMIT $2) oldest WHERE at < $1) AND seq < (SELECT max(seq) FROM outbox)",
);

pub(crate) fn append(tx: &mut Tx<'_>, line: &AuditLine) -> Result<(), Error> {
    let values = values![
        line.at,
        line.action,
        line.target_kind,
        line.target_id.as_str()
    ];
    tx.execute(&APPEND, &values).map(drop)
}

impl Store {
    /// The number of the newest change; 0 when there was none.
    pub async fn last_change(&self) -> Result<u64, Error> {
        let last = self
            .read("last_change", |tx| {
                tx.find(&LAST, &[], |row| row.maybe_count(0))
            })
            .await?;
        Ok(last.flatten().unwrap_or(0))
    }

    /// Deletes up to `step` changes from before `before`, the oldest first; returns how many. Call
    /// it until it returns 0. A reader that asks for the changes after a deleted one has to start
    /// anew.
    pub async fn trim_changes(&self, before: Timestamp, step: u32) -> Result<usize, Error> {
        self.write("trim_changes", move |tx| {
            tx.execute(&TRIM, &values![before, i64::from(step)])
        })
        .await
    }

    /// The changes after number `seq`, oldest first.
    pub async fn changes_after(&self, seq: u64, limit: u32) -> Result<Vec<Event>, Error> {
        self.read("changes_after", move |tx| {
            tx.query(&AFTER, &values![seq, i64::from(limit)], |row| {
                Ok(Event {
                    seq: row.count(0)?,
                    at: row.time(1)?,
                    action: row.text(2)?,
                    target_kind: row.text(3)?,
                    target_id: row.text(4)?,
                })
            })
        })
        .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&APPEND, &AFTER, &LAST, &TRIM];
