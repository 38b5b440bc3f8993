//! Change events, in the transaction of the change and numbered in the order of commits: a reader
//! resumes from a number and misses nothing.

use serde_json::Value;
use vaxel_core::{
    audit::AuditLine,
    id::{Id, Service},
    principal::Principal,
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    revision,
    service::to_json,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In the order of commits, without holes.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub action: String,
    /// `service`, `key`, …
    pub target_kind: String,
    /// Id of the target.
    pub target_id: String,
    /// Name of the target at that time.
    pub target_name: String,
    /// Name of the principal; `vaxel` for what happened by itself.
    pub actor: String,
    /// Why, when somebody said so.
    pub message: Option<String>,
    /// What changed, JSON; never a secret value.
    pub detail: String,
}

/// Something that a service went through by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// What.
    pub action: &'static str,
    /// The service.
    pub service: Id<Service>,
    /// Its name.
    pub name: String,
    /// More about it; never a secret value.
    pub detail: Value,
    /// What it consists of, each with its line in the audit.
    pub steps: Vec<Step>,
}

/// A part of a [`Happening`].
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// What was wanted of the service at that time.
    pub revision: u64,
    /// An object with more about it; never a secret value. It gets the revision and, as far as it is known,
    /// its author.
    pub detail: Value,
}

// The number is made here, not by the engine: a transaction that fails would leave a hole.
static APPEND: Stmt = Stmt::new(
    "INSERT INTO outbox (seq, at, action, target_kind, target_id, target_name, actor, message, \
     detail) \
     VALUES ((SELECT COALESCE(max(seq), 0) + 1 FROM outbox), $1, $2, $3, $4, $5, $6, $7, $8)",
);
static AFTER: Stmt = Stmt::new(
    "SELECT seq, at, action, target_kind, target_id, target_name, actor, message, detail \
     FROM outbox WHERE seq > $1 ORDER BY seq LIMIT $2",
);
static BEFORE: Stmt = Stmt::new(
    "SELECT seq, at, action, target_kind, target_id, target_name, actor, message, detail \
     FROM outbox WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
);
static LAST: Stmt = Stmt::new("SELECT max(seq) FROM outbox");
// Only what is older than everything that stays goes, so that there is no hole among what stays. The
// newest one stays, whatever its age: the next number is made from it.
static TRIM: Stmt = Stmt::new(
    "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox ORDER BY seq LIMIT $3) \
     AND seq < (SELECT max(seq) FROM outbox) AND (seq <= $2 \
     OR seq < COALESCE((SELECT seq FROM outbox WHERE at >= $1 ORDER BY seq LIMIT 1), \
     (SELECT max(seq) FROM outbox)))",
);

pub(crate) fn append(tx: &mut Tx<'_>, line: &AuditLine) -> Result<(), Error> {
    let values = values![
        line.at,
        line.action,
        line.target_kind,
        line.target_id.as_str(),
        line.target_name.as_str(),
        line.actor.as_str(),
        line.message.as_deref(),
        to_json(&line.detail)?,
    ];
    tx.put(&APPEND, &values)
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

    /// Writes what happened by itself into the feed, and each step of it into the audit, all in one
    /// transaction. Vaxel itself did it; whose revision led to it stands in the detail of the steps.
    pub async fn append_changes(&self, happened: Vec<Happening>) -> Result<(), Error> {
        self.write("append_changes", move |tx| {
            let system = Principal::system();
            for one in &happened {
                let target = ("service", one.service.to_string(), one.name.clone());
                let mut line = AuditLine::new(one.at, &system, one.action, target);
                line.detail = one.detail.clone();
                append(tx, &line)?;
                let mut known = None;
                for step in &one.steps {
                    let author = match known.take() {
                        Some((revision, author)) if revision == step.revision => author,
                        _ => revision::author(tx, one.service, step.revision)?,
                    };
                    (line.at, line.detail) = (step.at, step.detail.clone());
                    line.on_behalf = None;
                    line.detail["revision"] = step.revision.into();
                    if let Some(author) = &author {
                        line.detail["author"] = author.as_str().into();
                        line.on_behalf = Some(author.clone());
                    }
                    audit::append(tx, &line)?;
                    known = Some((step.revision, author));
                }
            }
            Ok(())
        })
        .await
    }

    /// Deletes up to `step` of the oldest changes: those from before `before`, and those that are
    /// more than the newest `max_rows`; returns how many. Call it until it returns 0. A reader that
    /// asks for the changes after a deleted one has to start anew.
    pub async fn trim_changes(
        &self,
        before: Timestamp,
        max_rows: u64,
        step: u32,
    ) -> Result<usize, Error> {
        self.write("trim_changes", move |tx| {
            let last = tx.find(&LAST, &[], |row| row.maybe_count(0))?.flatten();
            let surplus = last.unwrap_or(0).saturating_sub(max_rows);
            tx.execute(&TRIM, &values![before, surplus, i64::from(step)])
        })
        .await
    }

    /// The changes after number `seq`, oldest first. When the first one has not the next number, the
    /// ones between were deleted.
    pub async fn changes_after(&self, seq: u64, limit: u32) -> Result<Vec<Event>, Error> {
        self.read("changes_after", move |tx| {
            tx.query(&AFTER, &values![seq, i64::from(limit)], read)
        })
        .await
    }

    /// The changes before number `seq`, newest first.
    pub async fn changes_before(&self, seq: u64, limit: u32) -> Result<Vec<Event>, Error> {
        self.read("changes_before", move |tx| {
            tx.query(&BEFORE, &values![seq, i64::from(limit)], read)
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<Event, Error> {
    Ok(Event {
        seq: row.count(0)?,
        at: row.time(1)?,
        action: row.text(2)?,
        target_kind: row.text(3)?,
        target_id: row.text(4)?,
        target_name: row.text(5)?,
        actor: row.text(6)?,
        message: row.maybe_text(7)?,
        detail: row.text(8)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&APPEND, &AFTER, &BEFORE, &LAST, &TRIM];
