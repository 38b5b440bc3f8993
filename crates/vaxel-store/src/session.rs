//! Sessions of legacy clients: what a restart must not forget. The session id itself is a sealed
//! token that needs no row; a row comes with the first thing that the client set.

use vaxel_core::{
    id::{Id, Key, Session},
    time::Timestamp,
};

use crate::{
    error::Error,
    service::{from_json, to_json},
    stmt::{Row, Stmt, Value, values},
    store::Store,
};

/// What is kept of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Never changes.
    pub id: Id<Session>,
    /// Whose it is; none when authentication is off.
    pub principal: Option<Id<Key>>,
    /// MCP logging level, when the client set one.
    pub log_level: Option<String>,
    /// URIs of the resources whose updates it wants.
    pub subscriptions: Vec<String>,
    /// When the client ended it. An ended session stays ended.
    pub ended_at: Option<Timestamp>,
    /// Last used, to within some seconds.
    pub seen_at: Timestamp,
}

static PUT: Stmt = Stmt::new(
    "INSERT INTO sessions (id, principal, log_level, subscriptions, ended_at, seen_at) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO UPDATE SET \
     log_level = excluded.log_level, subscriptions = excluded.subscriptions, \
     ended_at = coalesce(sessions.ended_at, excluded.ended_at), seen_at = excluded.seen_at",
);
static GET: Stmt = Stmt::new(
    "SELECT id, principal, log_level, subscriptions, ended_at, seen_at FROM sessions WHERE id = $1",
);
static FORGET: Stmt = Stmt::new("DELETE FROM sessions WHERE seen_at < $1");

impl Store {
    /// Keeps a session in the place of what was kept of it before.
    pub async fn put_session(&self, session: &SessionRow) -> Result<(), Error> {
        let session = session.clone();
        self.write("put_session", move |tx| {
            let values: [Value<'_>; 6] = values![
                session.id,
                session.principal,
                session.log_level.as_deref(),
                to_json(&session.subscriptions)?,
                session.ended_at,
                session.seen_at,
            ];
            tx.execute(&PUT, &values).map(drop)
        })
        .await
    }

    /// What is kept of a session.
    pub async fn session(&self, id: Id<Session>) -> Result<Option<SessionRow>, Error> {
        self.read("session", move |tx| tx.find(&GET, &values![id], read))
            .await
    }

    /// Deletes what is kept of sessions last used before `before`; returns of how many.
    pub async fn forget_sessions(&self, before: Timestamp) -> Result<usize, Error> {
        self.write("forget_sessions", move |tx| {
            tx.execute(&FORGET, &values![before])
        })
        .await
    }
}

fn read(row: &Row<'_>) -> Result<SessionRow, Error> {
    Ok(SessionRow {
        id: row.id(0)?,
        principal: row.maybe_id(1)?,
        log_level: row.maybe_text(2)?,
        subscriptions: from_json("subscriptions", &row.text(3)?)?,
        ended_at: row.maybe_time(4)?,
        seen_at: row.time(5)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &GET, &FORGET];
