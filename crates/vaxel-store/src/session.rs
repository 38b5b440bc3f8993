//! Sessions of legacy clients: what a restart must not forget. The session id itself is a sealed
//! token that needs no row; a row comes with the first thing that the client set.

use vaxel_core::{session::SessionState, time::Timestamp};

use crate::{
    error::Error,
    service::{from_json, to_json},
    stmt::{Row, Stmt, Value, values},
    store::Store,
};

static PUT: Stmt = Stmt::new(
    "INSERT INTO sessions (id, log_level, watched, ended, changed_at) VALUES ($1, $2, $3, $4, $5) \
     ON CONFLICT (id) DO UPDATE SET log_level = excluded.log_level, watched = excluded.watched, \
     ended = excluded.ended, changed_at = excluded.changed_at",
);
static ALL: Stmt = Stmt::new("SELECT id, log_level, watched, ended FROM sessions ORDER BY id");
static REMOVE: Stmt = Stmt::new("DELETE FROM sessions WHERE id = $1");
static FORGET: Stmt = Stmt::new("DELETE FROM sessions WHERE changed_at < $1");

impl Store {
    /// Keeps these states in the place of what was kept of their sessions; empty ones are forgotten.
    pub async fn put_sessions(
        &self,
        states: Vec<SessionState>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.write("put_sessions", move |tx| {
            for state in &states {
                if state.is_empty() {
                    tx.execute(&REMOVE, &values![state.id])?;
                    continue;
                }
                let values: [Value<'_>; 5] = values![
                    state.id,
                    state.level.as_deref(),
                    to_json(&state.watched)?,
                    state.ended,
                    now,
                ];
                tx.execute(&PUT, &values)?;
            }
            Ok(())
        })
        .await
    }

    /// What is kept of all sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionState>, Error> {
        self.read("sessions", move |tx| tx.query(&ALL, &values![], read))
            .await
    }

    /// Deletes what was last changed before `before`; returns of how many sessions.
    pub async fn forget_sessions(&self, before: Timestamp) -> Result<usize, Error> {
        self.write("forget_sessions", move |tx| {
            tx.execute(&FORGET, &values![before])
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<SessionState, Error> {
    Ok(SessionState {
        id: row.id(0)?,
        level: row.maybe_text(1)?.map(Into::into),
        watched: from_json("watched", &row.text(2)?)?,
        ended: row.truth(3)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &ALL, &REMOVE, &FORGET];
