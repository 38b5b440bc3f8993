//! How services were: every change of their health, when nobody looked, and which definitions of theirs
//! somebody accepted.

use std::collections::{BTreeMap, HashMap};

use serde_json::json;
use vaxel_core::{
    audit::AuditLine,
    health::availability::Moment,
    id::{Id, Service},
    principal::Principal,
    status::Health,
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    outbox,
    service::{from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// One change of the health of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    /// When.
    pub at: Timestamp,
    /// Of which service.
    pub service: Id<Service>,
    /// What it is called.
    pub name: String,
    /// What it became.
    pub health: Health,
    /// Why.
    pub reason: Option<String>,
}

/// A change of health as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthRow {
    /// In the order of writing.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What the service became, or that nobody looked any more or again.
    pub moment: Moment,
    /// Why.
    pub reason: Option<String>,
}

/// The digests of definitions, by their names.
pub type Digests = BTreeMap<String, String>;

/// The end and the start of Vaxel stand beside the changes of services, under no service.
const OF_VAXEL: &str = "";
const ENDED: &str = "ENDED";
const STARTED: &str = "STARTED";

static INSERT: Stmt =
    Stmt::new("INSERT INTO health (at, service, health, reason) VALUES ($1, $2, $3, $4)");
static LAST: Stmt = Stmt::new(
    "SELECT service, health FROM health WHERE seq IN (SELECT max(seq) FROM health GROUP BY service)",
);
static NEWEST: Stmt = Stmt::new(
    "SELECT seq, at, health, reason FROM health WHERE service = $1 AND at >= $2 \
     ORDER BY seq DESC LIMIT $3",
);
static BEFORE: Stmt = Stmt::new(
    "SELECT seq, at, health, reason FROM health WHERE service = $1 AND at < $2 \
     ORDER BY seq DESC LIMIT 1",
);
// The newest one of each service stays, whatever its age: it says how the service is.
static TRIM: Stmt = Stmt::new(
    "DELETE FROM health WHERE seq IN (SELECT seq FROM health WHERE at < $1 AND seq NOT IN \
     (SELECT max(seq) FROM health GROUP BY service) ORDER BY seq LIMIT $2)",
);
static PURGE: Stmt = Stmt::new("DELETE FROM health WHERE service = $1");
static ACCEPT: Stmt = Stmt::new(
    "INSERT INTO accepted_definitions (service, digests, accepted_at) VALUES ($1, $2, $3) \
     ON CONFLICT (service) DO UPDATE SET digests = excluded.digests, \
     accepted_at = excluded.accepted_at",
);
static ACCEPTED: Stmt = Stmt::new("SELECT digests FROM accepted_definitions WHERE service = $1");
static PURGE_ACCEPTED: Stmt = Stmt::new("DELETE FROM accepted_definitions WHERE service = $1");

impl Store {
    /// Writes changes of health, each with its change event.
    pub async fn record_health(&self, changes: Vec<HealthChange>) -> Result<(), Error> {
        self.write("record_health", move |tx| {
            let system = Principal::system();
            for HealthChange {
                at,
                service,
                name,
                health,
                reason,
            } in &changes
            {
                let values = values![*at, *service, health.as_str(), reason.as_deref()];
                tx.put(&INSERT, &values)?;
                let target = ("service", service.to_string(), name.clone());
                let mut line = AuditLine::new(*at, &system, "service.health", target);
                line.detail = json!({ "to": health, "reason": reason });
                outbox::append(tx, &line)?;
            }
            Ok(())
        })
        .await
    }

    /// Writes down that nobody looked from `ended` to `started`.
    pub async fn record_absence(&self, ended: Timestamp, started: Timestamp) -> Result<(), Error> {
        self.write("record_absence", move |tx| {
            for (at, what) in [(ended, ENDED), (started, STARTED)] {
                tx.execute(&INSERT, &values![at, OF_VAXEL, what, None::<&str>])?;
            }
            Ok(())
        })
        .await
    }

    /// The last health of every service that has one.
    pub async fn last_healths(&self) -> Result<HashMap<Id<Service>, Health>, Error> {
        let rows = self.read("last_healths", |tx| {
            tx.query(&LAST, &[], |row| Ok((row.text(0)?, row.text(1)?)))
        });
        let known = rows.await?.into_iter().filter_map(|(service, health)| {
            let health = from_json("health", &format!("\"{health}\"")).ok()?;
            Some((service.parse().ok()?, health))
        });
        Ok(known.collect())
    }

    /// The changes of one service since `since`, newest first and `limit` at most, and the one before
    /// them; with the times at which nobody looked.
    pub async fn health_changes(
        &self,
        service: Id<Service>,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<HealthRow>, Error> {
        self.read("health_changes", move |tx| {
            let mut rows = Vec::new();
            for whose in [service.to_string(), OF_VAXEL.to_owned()] {
                let whose = whose.as_str();
                let newest = values![whose, since, i64::from(limit)];
                rows.extend(tx.query(&NEWEST, &newest, read)?);
                rows.extend(tx.find(&BEFORE, &values![whose, since], read)?);
            }
            rows.sort_by_key(|row| std::cmp::Reverse((row.at, row.seq)));
            Ok(rows)
        })
        .await
    }

    /// Deletes up to `step` changes from before `before`, the oldest first; returns how many. Call it
    /// until it returns 0. The last change of each service stays.
    pub async fn trim_health(&self, before: Timestamp, step: u32) -> Result<usize, Error> {
        self.write("trim_health", move |tx| {
            tx.execute(&TRIM, &values![before, i64::from(step)])
        })
        .await
    }

    /// Keeps the digests of a service's definitions as those that are accepted, with the audit line of
    /// who did so; without one they are the first that were seen.
    pub async fn accept_definitions(
        &self,
        service: Id<Service>,
        (digests, now): (Digests, Timestamp),
        audit: Option<AuditLine>,
    ) -> Result<(), Error> {
        self.write("accept_definitions", move |tx| {
            tx.execute(&ACCEPT, &values![service, to_json(&digests)?, now])?;
            if let Some(audit) = &audit {
                audit::append(tx, audit)?;
                outbox::append(tx, audit)?;
            }
            Ok(())
        })
        .await
    }

    /// The digests of a service's definitions that are accepted.
    pub async fn accepted_definitions(
        &self,
        service: Id<Service>,
    ) -> Result<Option<Digests>, Error> {
        let text = self.read("accepted_definitions", move |tx| {
            tx.find(&ACCEPTED, &values![service], |row| row.text(0))
        });
        let text = text.await?;
        text.map(|text| from_json("digests", &text)).transpose()
    }
}

/// Removes what is kept of a service that is removed for good.
pub(crate) fn purge(tx: &mut Tx<'_>, service: Id<Service>) -> Result<(), Error> {
    tx.execute(&PURGE, &values![service])?;
    tx.execute(&PURGE_ACCEPTED, &values![service]).map(drop)
}

fn read(row: &Row<'_>) -> Result<HealthRow, Error> {
    let moment = match row.text(2)?.as_str() {
        ENDED => Moment::Ended,
        STARTED => Moment::Started,
        health => Moment::Became(from_json("health", &format!("\"{health}\""))?),
    };
    Ok(HealthRow {
        seq: row.count(0)?,
        at: row.time(1)?,
        moment,
        reason: row.maybe_text(3)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &INSERT,
    &LAST,
    &NEWEST,
    &BEFORE,
    &TRIM,
    &PURGE,
    &ACCEPT,
    &ACCEPTED,
    &PURGE_ACCEPTED,
];
