//! Records of calls: written in batches off the way of the calls, in a file of their own.
//!
//! The cost of one row is paid by every call, so ids are stored as their bytes, and beside the row's
//! own number, which grows with time, there is one index only.

use std::collections::HashMap;

use vaxel_core::{
    call::{CallRecord, Outcome},
    id::{Call, Id, Key, Service},
    time::Timestamp,
};

use crate::{
    error::Error,
    stmt::{Row, Stmt, Value, values},
    store::Store,
    tx::Prepared,
    tx::Tx,
};

/// A record as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRow {
    /// Position in the order of writing; cursors are made of it.
    pub seq: u64,
    /// The call.
    pub id: Id<Call>,
    /// Arrival.
    pub at: Timestamp,
    /// Until the end of the answer, microseconds.
    pub duration_us: u64,
    /// The service.
    pub service: Id<Service>,
    /// Its name at that time.
    pub service_name: String,
    /// MCP method.
    pub method: String,
    /// Tool, prompt or resource.
    pub target: String,
    /// The key.
    pub principal: Option<Id<Key>>,
    /// Its name.
    pub principal_name: String,
    /// How it ended, by name.
    pub outcome: String,
    /// What went wrong.
    pub error: Option<String>,
    /// Size of the request.
    pub request_bytes: u64,
    /// Size of the answer.
    pub response_bytes: u64,
    /// Revision that the client spoke.
    pub client_revision: String,
    /// Revision that the service spoke.
    pub upstream_revision: String,
    /// `mcp`, `rest` or `health`.
    pub door: String,
    /// W3C trace id.
    pub trace_id: Option<String>,
    /// Parameters, when they were kept.
    pub request: Option<Vec<u8>>,
    /// Result, when it was kept.
    pub response: Option<Vec<u8>>,
}

/// Which calls. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallQuery {
    /// Of this service.
    pub service: Option<Id<Service>>,
    /// Of one of these. What it costs grows with their number.
    pub among: Option<Vec<Id<Service>>>,
    /// Of this tool, prompt or resource.
    pub target: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// By the key of this name.
    pub principal: Option<String>,
    /// Arrived then or later.
    pub since: Option<Timestamp>,
    /// Arrived earlier.
    pub until: Option<Timestamp>,
}

/// Figures of a service's calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallStats {
    /// All calls on record since the service was made.
    pub calls: u64,
    /// Those that did not end well.
    pub errors: u64,
    /// Their time together, microseconds.
    pub total_us: u64,
    /// Arrival of the last one.
    pub last_at: Option<Timestamp>,
}

static INSERT: Stmt = Stmt::new(
    "INSERT INTO calls (id, at, duration_us, service, service_name, method, target, principal, \
     principal_name, outcome, error, request_bytes, response_bytes, client_revision, \
     upstream_revision, door, trace_id, request, response) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
);
static COUNT: Stmt = Stmt::new(
    "INSERT INTO call_stats (service, calls, errors, total_us, last_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (service) DO UPDATE SET \
     calls = call_stats.calls + excluded.calls, errors = call_stats.errors + excluded.errors, \
     total_us = call_stats.total_us + excluded.total_us, last_at = CASE \
     WHEN excluded.last_at > call_stats.last_at THEN excluded.last_at ELSE call_stats.last_at END",
);
static STATS: Stmt =
    Stmt::new("SELECT calls, errors, total_us, last_at FROM call_stats WHERE service = $1");
static COUNTS: Stmt = Stmt::new("SELECT service, calls FROM call_stats");

macro_rules! page {
    ($service:literal) => {
        concat!(
            "SELECT seq, id, at, duration_us, service, service_name, method, target, principal, \
             principal_name, outcome, error, request_bytes, response_bytes, client_revision, \
             upstream_revision, door, trace_id, request, response FROM calls WHERE seq < $1 AND ",
            $service,
            " AND ($3 IS NULL OR target = $3) AND ($4 IS NULL OR outcome = $4) \
             AND ($5 IS NULL OR principal_name = $5) AND ($6 IS NULL OR at >= $6) \
             AND ($7 IS NULL OR at < $7) ORDER BY seq DESC LIMIT $8"
        )
    };
}

static PAGE: Stmt = Stmt::new(page!("$2 IS NULL"));
// A text of its own, so that the index is used: a service that is seldom called is found without
// reading the calls of all others.
static PAGE_OF_SERVICE: Stmt = Stmt::new(page!("service = $2"));
static LAST: Stmt = Stmt::new("SELECT max(seq) FROM calls");
// Rows are numbered in the order in which calls ended, nearly that of their arrival: only the oldest
// are looked at, whatever the number of rows.
static SWEEP: Stmt = Stmt::new(
    "DELETE FROM calls WHERE seq IN (SELECT seq FROM (SELECT seq, at FROM calls ORDER BY seq \
     LIMIT $3) oldest WHERE seq <= $1 OR at < $2)",
);

impl Store {
    /// Writes a batch of records in one transaction.
    pub async fn record_calls(&self, records: Vec<CallRecord>) -> Result<(), Error> {
        self.records()
            .write("record_calls", move |tx| {
                let mut sums: HashMap<Id<Service>, CallStats> = HashMap::new();
                let mut row = tx.prepare(&INSERT)?;
                for record in &records {
                    insert(&mut row, record)?;
                    if !record.door.is_usage() {
                        continue;
                    }
                    add(sums.entry(record.service).or_default(), record);
                }
                drop(row);
                for (service, sum) in sums {
                    let key = Value::Blob(service.as_bytes().to_vec().into());
                    let last = sum.last_at.unwrap_or_default();
                    let all = [
                        key,
                        sum.calls.into(),
                        sum.errors.into(),
                        sum.total_us.into(),
                        last.into(),
                    ];
                    tx.put(&COUNT, &all)?;
                }
                Ok(())
            })
            .await
    }

    /// Records, newest first, at most `limit`; `cursor` is what the page before returned.
    pub async fn calls(
        &self,
        query: CallQuery,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<(Vec<CallRow>, Option<String>), Error> {
        self.records()
            .read("calls", move |tx| {
                let before = match cursor {
                    Some(text) => text.parse().map_err(|_| Error::Cursor(text))?,
                    None => i64::MAX,
                };
                let mut found = match (&query.among, query.service) {
                    (None, service) => page(tx, (&query, service), (before, limit))?,
                    (Some(among), None) => page_among(tx, (&query, among), (before, limit))?,
                    (Some(among), Some(service)) if among.contains(&service) => {
                        page(tx, (&query, Some(service)), (before, limit))?
                    }
                    (Some(_), Some(_)) => Vec::new(),
                };
                let more = found.len() > limit as usize;
                found.truncate(limit as usize);
                let next = found.last().filter(|_| more).map(|row| row.seq.to_string());
                Ok((found, next))
            })
            .await
    }

    /// Figures of one service's calls.
    pub async fn call_stats(&self, service: Id<Service>) -> Result<CallStats, Error> {
        let mut all = self.call_stats_of(vec![service]).await?;
        Ok(all.remove(&service).unwrap_or_default())
    }

    /// Figures of these services' calls; one that was never called is left out.
    pub async fn call_stats_of(
        &self,
        services: Vec<Id<Service>>,
    ) -> Result<HashMap<Id<Service>, CallStats>, Error> {
        self.records()
            .read("call_stats", move |tx| {
                let mut all = HashMap::with_capacity(services.len());
                for service in services {
                    let key = Value::Blob(service.as_bytes().to_vec().into());
                    let found = tx.find(&STATS, &[key], |row| {
                        Ok(CallStats {
                            calls: row.count(0)?,
                            errors: row.count(1)?,
                            total_us: row.count(2)?,
                            last_at: row.maybe_time(3)?,
                        })
                    })?;
                    all.extend(found.map(|stats| (service, stats)));
                }
                Ok(all)
            })
            .await
    }

    /// How often each service was called; one that never was is left out.
    pub async fn call_counts(&self) -> Result<HashMap<Id<Service>, u64>, Error> {
        let rows = self.records().read("call_counts", |tx| {
            tx.query(&COUNTS, &[], |row| Ok((bytes_id(row, 0)?, row.count(1)?)))
        });
        Ok(rows.await?.into_iter().collect())
    }

    /// Deletes up to `step` records that arrived before `before` or are more than the newest
    /// `max_rows`; returns how many. Call it until it returns 0.
    pub async fn sweep_calls(
        &self,
        before: Timestamp,
        max_rows: u64,
        step: u32,
    ) -> Result<usize, Error> {
        self.records()
            .write("sweep_calls", move |tx| {
                let last = tx.find(&LAST, &[], |row| row.maybe_count(0))?.flatten();
                let surplus = last.unwrap_or(0).saturating_sub(max_rows);
                tx.execute(&SWEEP, &values![surplus, before, i64::from(step)])
            })
            .await
    }
}

/// The newest calls before a number, and one more than `limit`; of a service, or of all.
fn page(
    tx: &mut Tx<'_>,
    (query, service): (&CallQuery, Option<Id<Service>>),
    (before, limit): (i64, u32),
) -> Result<Vec<CallRow>, Error> {
    let page = match service {
        Some(_) => &PAGE_OF_SERVICE,
        None => &PAGE,
    };
    let service = service.map(|id| id.as_bytes().to_vec());
    let values = values![
        before,
        service.as_deref(),
        query.target.as_deref(),
        query.outcome.map(Outcome::as_str),
        query.principal.as_deref(),
        query.since,
        query.until,
        i64::from(limit) + 1,
    ];
    tx.query(page, &values, read)
}

/// The same of some services: each has its own page, of which the newest stay.
fn page_among(
    tx: &mut Tx<'_>,
    (query, among): (&CallQuery, &[Id<Service>]),
    (before, limit): (i64, u32),
) -> Result<Vec<CallRow>, Error> {
    let mut found: Vec<CallRow> = Vec::new();
    for service in among {
        found.extend(page(tx, (query, Some(*service)), (before, limit))?);
        found.sort_unstable_by_key(|row| std::cmp::Reverse(row.seq));
        found.truncate(limit as usize + 1);
    }
    Ok(found)
}

fn insert(row: &mut Prepared<'_>, record: &CallRecord) -> Result<(), Error> {
    let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
    let principal = record.principal.as_ref();
    let values = values![
        &record.id.as_bytes()[..],
        record.at,
        micros,
        &record.service.as_bytes()[..],
        record.service_name.as_str(),
        record.method,
        &*record.target,
        principal.map(|id| &id.as_bytes()[..]),
        &*record.principal_name,
        record.outcome.as_str(),
        record.error.as_deref(),
        record.request_bytes,
        record.response_bytes,
        record.client_revision,
        record.upstream_revision,
        record.door.as_str(),
        record.trace_id.as_deref(),
        record.request.as_deref(),
        record.response.as_deref(),
    ];
    row.put(&values)
}

fn add(sum: &mut CallStats, record: &CallRecord) {
    sum.calls += 1;
    sum.errors += u64::from(record.outcome != Outcome::Ok);
    sum.total_us += u64::try_from(record.duration.as_micros()).unwrap_or(0);
    sum.last_at = sum.last_at.max(Some(record.at));
}

fn read(row: &Row<'_>) -> Result<CallRow, Error> {
    Ok(CallRow {
        seq: row.count(0)?,
        id: bytes_id(row, 1)?,
        at: row.time(2)?,
        duration_us: row.count(3)?,
        service: bytes_id(row, 4)?,
        service_name: row.text(5)?,
        method: row.text(6)?,
        target: row.text(7)?,
        principal: match row.maybe_blob(8)? {
            Some(bytes) => Some(id_of(&bytes)?),
            None => None,
        },
        principal_name: row.text(9)?,
        outcome: row.text(10)?,
        error: row.maybe_text(11)?,
        request_bytes: row.count(12)?,
        response_bytes: row.count(13)?,
        client_revision: row.text(14)?,
        upstream_revision: row.text(15)?,
        door: row.text(16)?,
        trace_id: row.maybe_text(17)?,
        request: row.maybe_blob(18)?,
        response: row.maybe_blob(19)?,
    })
}

fn bytes_id<T>(row: &Row<'_>, at: usize) -> Result<Id<T>, Error> {
    id_of(&row.blob(at)?)
}

fn id_of<T>(bytes: &[u8]) -> Result<Id<T>, Error> {
    Id::from_slice(bytes).ok_or_else(|| Error::unreadable("id", "it has not 16 bytes"))
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &INSERT,
    &COUNT,
    &STATS,
    &COUNTS,
    &PAGE,
    &LAST,
    &SWEEP,
    &PAGE_OF_SERVICE,
];
