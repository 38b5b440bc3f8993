//! Who did what: a line per change, in the transaction of the change.

use serde_json::value::{RawValue, to_raw_value};
use vaxel_core::{
    audit::{AuditLine, Entry, chain::Hash},
    time::Timestamp,
};

use crate::{
    chain,
    error::Error,
    stmt::{Row, Stmt, Value, values},
    store::Store,
    tx::Tx,
};

/// Lines that are looked at in one read of a search.
const WINDOW: u64 = 20_000;

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

/// Which lines. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// By the user of this name.
    pub actor: Option<String>,
    /// With an action that fits this pattern, in which `*` stands for any run of characters.
    pub action: Option<String>,
    /// About something of this kind.
    pub kind: Option<String>,
    /// About what has this id or name.
    pub resource: Option<String>,
    /// With an outcome that begins so.
    pub outcome: Option<String>,
    /// Written then or later.
    pub since: Option<Timestamp>,
    /// Written earlier.
    pub until: Option<Timestamp>,
    /// With this text in any of their fields.
    pub text: Option<String>,
}

macro_rules! columns {
    () => {
        "seq, at, actor, credential, actor_key, on_behalf, action, target_kind, target_id, target_name, \
         detail, was, became, message, address, door, request, outcome, hash, seal"
    };
}

// While nothing is chained the engine numbers the lines.
static APPEND: Stmt = Stmt::new(
    "INSERT INTO audit (at, actor, credential, actor_key, on_behalf, action, target_kind, target_id, \
     target_name, detail, was, became, message, address, door, request, outcome) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
);
static CHAIN: Stmt = Stmt::new(
    "INSERT INTO audit (at, actor, credential, actor_key, on_behalf, action, target_kind, target_id, \
     target_name, detail, was, became, message, address, door, request, outcome, seq, hash, seal) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
);
static NEWEST: Stmt = Stmt::new(
    "SELECT seq, at, actor, action, target_kind, target_id, target_name, detail, message \
     FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2",
);
static ONE: Stmt = Stmt::new(concat!("SELECT ", columns!(), " FROM audit WHERE seq = $1"));
pub(crate) static AFTER: Stmt = Stmt::new(concat!(
    "SELECT ",
    columns!(),
    " FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2"
));
pub(crate) static BETWEEN: Stmt = Stmt::new(concat!(
    "SELECT ",
    columns!(),
    " FROM audit WHERE seq >= $1 AND seq <= $2 ORDER BY seq"
));
static LAST_BEFORE: Stmt = Stmt::new("SELECT max(seq) FROM audit WHERE seq < $1");
static SEARCH: Stmt = Stmt::new(concat!(
    "SELECT ",
    columns!(),
    " FROM audit WHERE seq < $1 AND seq >= $2 AND ($3 IS NULL OR actor = $3) \
     AND ($4 IS NULL OR action LIKE $4 ESCAPE '!') AND ($5 IS NULL OR target_kind = $5) \
     AND ($6 IS NULL OR target_id = $6 OR target_name = $6) \
     AND ($7 IS NULL OR outcome LIKE $7 ESCAPE '!') \
     AND ($8 IS NULL OR at >= $8) AND ($9 IS NULL OR at < $9) AND ($10 IS NULL OR \
     lower(actor || ' ' || action || ' ' || target_kind || ' ' || target_id || ' ' || target_name || ' ' || \
     detail || ' ' || COALESCE(was, '') || ' ' || COALESCE(became, '') || ' ' || COALESCE(message, '') || ' ' \
     || COALESCE(address, '') || ' ' || COALESCE(request, '') || ' ' || COALESCE(actor_key, '') || ' ' \
     || COALESCE(on_behalf, '') || ' ' || outcome) LIKE $10 ESCAPE '!') ORDER BY seq DESC LIMIT $11"
));

/// Writes a line; chained, once the chain has begun.
pub(crate) fn append(tx: &mut Tx<'_>, line: &AuditLine) -> Result<(), Error> {
    let entry = |number| {
        line.entry(number)
            .map_err(|error| Error::unreadable("value", error))
    };
    let Some(entry) = chain::next(tx, entry)? else {
        return tx.put(&APPEND, &values_of(&entry(0)?));
    };
    let text = |hash: Option<Hash>| hash.map(|hash| hash.to_string());
    let mut values = values_of(&entry);
    values.extend(values![entry.number, text(entry.hash), text(entry.seal)]);
    tx.put(&CHAIN, &values)
}

/// What a line says, without its place in the chain.
fn values_of(entry: &Entry) -> Vec<Value<'_>> {
    values![
        entry.at,
        entry.actor.as_str(),
        entry.credential.as_deref(),
        entry.credential_id.as_deref(),
        entry.on_behalf.as_deref(),
        entry.action.as_str(),
        entry.resource_kind.as_str(),
        entry.resource_id.as_str(),
        entry.resource_name.as_str(),
        text_of(entry.detail.as_deref()).unwrap_or("null"),
        text_of(entry.before.as_deref()),
        text_of(entry.after.as_deref()),
        entry.message.as_deref(),
        entry.address.as_deref(),
        entry.door.as_deref(),
        entry.request.as_deref(),
        entry.outcome.as_str(),
    ]
    .into()
}

fn text_of(part: Option<&RawValue>) -> Option<&str> {
    part.map(RawValue::get)
}

pub(crate) fn read(row: &Row<'_>) -> Result<Entry, Error> {
    let part = |at: usize| row.maybe_text(at)?.as_deref().map(json).transpose();
    // One that is none, because somebody changed it, is as good as missing.
    let hash = |at: usize| Ok::<_, Error>(row.maybe_text(at)?.and_then(|text| text.parse().ok()));
    Ok(Entry {
        number: row.count(0)?,
        at: row.time(1)?,
        actor: row.text(2)?,
        credential: row.maybe_text(3)?,
        credential_id: row.maybe_text(4)?,
        on_behalf: row.maybe_text(5)?,
        action: row.text(6)?,
        resource_kind: row.text(7)?,
        resource_id: row.text(8)?,
        resource_name: row.text(9)?,
        detail: part(10)?.filter(|detail| detail.get() != "null"),
        before: part(11)?,
        after: part(12)?,
        message: row.maybe_text(13)?,
        address: row.maybe_text(14)?,
        door: row.maybe_text(15)?,
        request: row.maybe_text(16)?,
        outcome: row.text(17)?,
        hash: hash(18)?,
        seal: hash(19)?,
    })
}

/// JSON as it stands there; what is none, because somebody changed it, as a text.
fn json(text: &str) -> Result<Box<RawValue>, Error> {
    RawValue::from_string(text.to_owned())
        .or_else(|_| to_raw_value(text).map_err(|error| Error::unreadable("value", error)))
}

/// A pattern of SQL for a text in which `*` stands for any run of characters.
fn pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    for letter in text.chars() {
        match letter {
            '*' => pattern.push('%'),
            '%' | '_' | '!' => pattern.extend(['!', letter]),
            letter => pattern.push(letter),
        }
    }
    pattern
}

/// The same for a text that is meant as it stands there.
fn literal(text: &str) -> String {
    let escaped = text.split('*').map(pattern);
    escaped.collect::<Vec<_>>().join("*")
}

impl Store {
    /// Writes a line about something that changes no resource.
    pub async fn audit(&self, line: AuditLine) -> Result<(), Error> {
        self.write("audit", move |tx| append(tx, &line)).await
    }

    /// Writes lines that belong together, all or none.
    pub async fn audit_all(&self, lines: Vec<AuditLine>) -> Result<(), Error> {
        self.write("audit", move |tx| {
            lines.iter().try_for_each(|line| append(tx, line))
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

    /// One line.
    pub async fn audit_entry(&self, number: u64) -> Result<Option<Entry>, Error> {
        self.read("audit_entry", move |tx| {
            tx.find(&ONE, &values![number], read)
        })
        .await
    }

    /// Looks for lines before number `before`, newest first, at most `limit`, in a part of the audit; the
    /// number is that before which the next part begins, when there is one.
    pub async fn search_audit(
        &self,
        query: AuditQuery,
        (before, limit): (u64, u32),
    ) -> Result<(Vec<Entry>, Option<u64>), Error> {
        self.read("search_audit", move |tx| {
            let last = tx.find(&LAST_BEFORE, &values![before], |row| row.maybe_count(0))?;
            let Some(last) = last.flatten() else {
                return Ok((Vec::new(), None));
            };
            let from = last.saturating_sub(WINDOW);
            let text = query.text.as_ref();
            let values = values![
                before,
                from,
                query.actor.as_deref(),
                query.action.as_deref().map(pattern),
                query.kind.as_deref(),
                query.resource.as_deref(),
                query
                    .outcome
                    .as_deref()
                    .map(|text| format!("{}%", literal(text))),
                query.since,
                query.until,
                text.map(|text| format!("%{}%", literal(&text.to_ascii_lowercase()))),
                i64::from(limit),
            ];
            let found = tx.query(&SEARCH, &values, read)?;
            let next = if found.len() == limit as usize {
                found.last().map(|entry| entry.number)
            } else {
                Some(from)
            };
            // What is older was written earlier: no line is before the first that is wanted.
            let is_over = |number: &u64| *number > 1;
            Ok((found, next.filter(is_over)))
        })
        .await
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &APPEND,
    &CHAIN,
    &NEWEST,
    &ONE,
    &AFTER,
    &BETWEEN,
    &LAST_BEFORE,
    &SEARCH,
];
