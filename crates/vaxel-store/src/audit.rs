//! Who did what: a line per change, in the transaction of the change.

use vaxel_core::{audit::AuditLine, time::Timestamp};

use crate::{
    error::Error,
    service::to_json,
    stmt::{Stmt, values},
    store::Store,
    tx::Tx,
};

/// A line as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// In the order of commits.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Name of the principal.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// `service`, `key`, …
    pub target_kind: String,
    /// Id of the target.
    pub target_id: String,
    /// Name of the target.
    pub target_name: String,
    /// What changed, JSON.
    pub detail: String,
    /// Why, when somebody said so.
    pub message: Option<String>,
}

static APPEND: Stmt = Stmt::new(
    "INSERT INTO audit (at, actor, actor_key, action, target_kind, target_id, target_name, detail, \
     message) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
);
static NEWEST: Stmt = Stmt::new(
    "SELECT seq, at, actor, action, target_kind, target_id, target_name, detail, message \
     FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
);

// An index holds these lines alone: see the step of the schema.
static TRIM: Stmt = Stmt::new(
    "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit \
     WHERE action = 'service.lifecycle' AND at < $1 ORDER BY at LIMIT $2)",
);

pub(crate) fn append(tx: &mut Tx<'_>, line: &AuditLine) -> Result<(), Error> {
    let values = values![
        line.at,
        line.actor.as_str(),
        line.actor_key.as_deref(),
        line.action,
        line.target_kind,
        line.target_id.as_str(),
        line.target_name.as_str(),
        to_json(&line.detail)?,
        line.message.as_deref(),
    ];
    tx.put(&APPEND, &values)
}

impl Store {
    /// Writes a line about something that changes no resource.
    pub async fn audit(&self, line: AuditLine) -> Result<(), Error> {
        self.write("audit", move |tx| append(tx, &line)).await
    }

    /// Deletes up to `step` of the lines from before `before` about what services went through by
    /// themselves; returns how many. What people did stays. Call it until it returns 0.
    pub async fn trim_transitions(&self, before: Timestamp, step: u32) -> Result<usize, Error> {
        self.write("trim_transitions", move |tx| {
            tx.execute(&TRIM, &values![before, i64::from(step)])
        })
        .await
    }

    /// The newest lines, newest first; of those before number `before`, when it is given.
    pub async fn audit_lines(
        &self,
        limit: u32,
        before: Option<u64>,
    ) -> Result<Vec<AuditRow>, Error> {
        self.read("audit_lines", move |tx| {
            tx.query(
                &NEWEST,
                &values![before.unwrap_or(u64::MAX), i64::from(limit)],
                |row| {
                    Ok(AuditRow {
                        seq: row.count(0)?,
                        at: row.time(1)?,
                        actor: row.text(2)?,
                        action: row.text(3)?,
                        target_kind: row.text(4)?,
                        target_id: row.text(5)?,
                        target_name: row.text(6)?,
                        detail: row.text(7)?,
                        message: row.maybe_text(8)?,
                    })
                },
            )
        })
        .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&APPEND, &NEWEST, &TRIM];
