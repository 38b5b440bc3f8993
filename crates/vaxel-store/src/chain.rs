//! The chain of the audit: its key, its newest link, and what retention leaves where lines were.
//!
//! It begins when [`Store::begin_audit_chain`] is called first; lines that are there by then are chained as they
//! are. From then on nothing is written into the audit without the key.

use std::sync::{Arc, OnceLock};

use vaxel_core::{
    audit::{
        Entry,
        chain::{Gap, Hash, Link, Stamp},
    },
    time::Timestamp,
};

pub(crate) mod removal; // of old lines

use crate::{
    audit,
    error::Error,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::{Engine, Tx},
};

/// What makes hashes, once it is known.
#[derive(Debug, Default)]
pub(crate) struct Chain(OnceLock<AuditSeal>);

/// What makes hashes and seals them, and since when.
#[derive(Debug, Clone)]
pub struct AuditSeal {
    /// It.
    pub stamp: Arc<dyn Stamp>,
    /// The first line that it sealed: of those before only the hashes can be looked at.
    pub since: u64,
}

/// A key of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditKeyRow {
    /// The first line that it sealed.
    pub since: u64,
    /// The key, sealed itself.
    pub sealed: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What is known of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditChain {
    /// Its newest link; `None` before it began, and when it was taken away.
    pub head: Option<Link>,
    /// Number of the last line, or of the last one that is gone.
    pub last: u64,
    /// Whether there is anything that only a chain leaves.
    pub has_begun: bool,
    /// Its keys, oldest first.
    pub keys: Vec<AuditKeyRow>,
}

/// A part of the chain, of one moment.
#[derive(Debug)]
pub struct AuditPage {
    /// Lines, in the order of their numbers.
    pub lines: Vec<Entry>,
    /// What is missing between them, and before the first one.
    pub gaps: Vec<Gap>,
    /// The newest link at that moment, with its seal.
    pub head: Option<(Link, Option<Hash>)>,
    /// Whether there were no more lines.
    pub is_last: bool,
}

/// The newest link.
const NEWEST: i64 = 1;
/// The last of the lines that were there when the chain began.
const BEGINNING: i64 = 2;

static HEAD: Stmt = Stmt::new("SELECT number, hash, seal FROM audit_head WHERE id = $1");
static PUT_HEAD: Stmt = Stmt::new(
    "INSERT INTO audit_head (id, number, hash, seal) VALUES ($4, $1, $2, $3) \
     ON CONFLICT (id) DO UPDATE SET number = excluded.number, hash = excluded.hash, \
     seal = excluded.seal",
);
static KEYS: Stmt = Stmt::new("SELECT since, sealed, created_at FROM audit_keys ORDER BY since");
static PUT_KEY: Stmt = Stmt::new(
    "INSERT INTO audit_keys (since, sealed, created_at) VALUES ($1, $2, $3) \
     ON CONFLICT (since) DO UPDATE SET sealed = excluded.sealed",
);
static REMOVE_LATER_KEYS: Stmt = Stmt::new("DELETE FROM audit_keys WHERE since > $1");
static LAST: Stmt = Stmt::new("SELECT max(seq) FROM audit");
static LAST_GAP: Stmt = Stmt::new("SELECT max(last_line) FROM audit_gaps");
static ANY_KEY: Stmt = Stmt::new("SELECT since FROM audit_keys LIMIT 1");
static ANY_HASH: Stmt = Stmt::new("SELECT seq FROM audit WHERE hash IS NOT NULL LIMIT 1");
static SINCE: Stmt = Stmt::new("SELECT seq FROM audit WHERE at >= $1 ORDER BY seq LIMIT 1");
static STAMP: Stmt = Stmt::new("UPDATE audit SET hash = $2, seal = $3 WHERE seq = $1");
static HASH: Stmt = Stmt::new("SELECT hash, seal FROM audit WHERE seq = $1");
static PUT_GAP: Stmt = Stmt::new(
    "INSERT INTO audit_gaps (first_line, last_line, hash_before, hash_after, seal) \
     VALUES ($1, $2, $3, $4, $5)",
);
static GAP_TO: Stmt = Stmt::new(
    "SELECT first_line, last_line, hash_before, hash_after, seal FROM audit_gaps WHERE last_line = $1",
);
static GAPS: Stmt = Stmt::new(
    "SELECT first_line, last_line, hash_before, hash_after, seal FROM audit_gaps \
     WHERE last_line > $1 AND first_line <= $2 ORDER BY first_line",
);

/// The next line of the chain, with its hash and its seal; `None` while the chain has not begun.
///
/// # Errors
/// [`Error::Unsealed`] when it has, and the key is not here.
pub(crate) fn next(
    tx: &mut Tx<'_>,
    entry: impl FnOnce(u64) -> Result<Entry, Error>,
) -> Result<Option<Entry>, Error> {
    if let Engine::Postgres(session) = &tx.engine
        && let Some(head) = session.link
    {
        return follow(tx, &head, entry).map(Some);
    }
    let found = head(tx)?;
    if found.is_none() && stamp(tx).is_err() {
        return Ok(None);
    }
    let stamp = stamp(tx)?;
    let sealed = found.filter(|(head, seal)| {
        let right = stamp.seal(&head.digest(&*stamp));
        right.is_some() && *seal == right
    });
    let head = match sealed {
        Some((head, _)) => head,
        // What is built upon it does not hold, for ever, so that it shows; and work goes on.
        None => unsound(tx, found.map(|(head, _)| head))?,
    };
    follow(tx, &head, entry).map(Some)
}

/// Upon which the chain goes on when its newest link was changed, or taken away.
fn unsound(tx: &mut Tx<'_>, found: Option<Link>) -> Result<Link, Error> {
    let head = match found {
        Some(head) => head,
        None => last_link(tx)?,
    };
    tracing::error!(
        line = head.number,
        "the end of the audit was changed past Vaxel; `vaxel audit verify` says more"
    );
    let hash = stamp(tx)?.digest(&[b"not sealed".as_slice(), &head.hash.0].concat());
    Ok(Link { hash, ..head })
}

/// Number of the last line, or of the last one that is gone.
fn last(tx: &mut Tx<'_>) -> Result<u64, Error> {
    let mut last = 0;
    for stmt in [&LAST, &LAST_GAP] {
        let found = tx.find(stmt, &[], |row| row.maybe_count(0))?.flatten();
        last = last.max(found.unwrap_or(0));
    }
    Ok(last)
}

fn last_link(tx: &mut Tx<'_>) -> Result<Link, Error> {
    let number = last(tx)?;
    let hash = hash_before(tx, number + 1)?;
    Ok(Link { number, hash })
}

/// Whether there is anything that only a chain leaves.
fn has_begun(tx: &mut Tx<'_>) -> Result<bool, Error> {
    for stmt in [&ANY_KEY, &LAST_GAP, &ANY_HASH] {
        let found = tx.find(stmt, &[], |row| row.maybe_count(0))?;
        if found.flatten().is_some() {
            return Ok(true);
        }
    }
    Ok(kept_link(tx, BEGINNING)?.is_some())
}

/// The line behind `head`, which is the newest one then.
fn follow(
    tx: &mut Tx<'_>,
    head: &Link,
    entry: impl FnOnce(u64) -> Result<Entry, Error>,
) -> Result<Entry, Error> {
    let stamp = stamp(tx)?;
    let mut entry = entry(head.number + 1)?;
    let link = head.then(&*stamp, &entry);
    (entry.hash, entry.seal) = (Some(link.hash), stamp.seal(&link.hash));
    put_head(tx, &*stamp, &link)?;
    if let Engine::Postgres(session) = &mut tx.engine {
        session.link = Some(link);
    }
    Ok(entry)
}

fn stamp(tx: &Tx<'_>) -> Result<Arc<dyn Stamp>, Error> {
    Ok(sealing(tx)?.stamp)
}

fn sealing(tx: &Tx<'_>) -> Result<AuditSeal, Error> {
    let seal = tx.chain.and_then(|chain| chain.0.get());
    seal.cloned().ok_or(Error::Unsealed)
}

fn seal(stamp: &dyn Stamp, hash: &Hash) -> Result<String, Error> {
    let sealed = stamp.seal(hash).ok_or(Error::Unsealed)?;
    Ok(sealed.to_string())
}

fn head(tx: &mut Tx<'_>) -> Result<Option<(Link, Option<Hash>)>, Error> {
    kept_link(tx, NEWEST)
}

fn kept_link(tx: &mut Tx<'_>, which: i64) -> Result<Option<(Link, Option<Hash>)>, Error> {
    tx.find(&HEAD, &values![which], |row| {
        let link = Link {
            number: row.count(0)?,
            hash: hash(row, 1)?,
        };
        Ok((link, row.text(2)?.parse().ok()))
    })
}

fn put_head(tx: &mut Tx<'_>, stamp: &dyn Stamp, link: &Link) -> Result<(), Error> {
    keep_link(tx, stamp, (NEWEST, link))
}

fn keep_link(tx: &mut Tx<'_>, stamp: &dyn Stamp, (which, link): (i64, &Link)) -> Result<(), Error> {
    let sealed = seal(stamp, &link.digest(stamp))?;
    let values = values![link.number, link.hash.to_string(), sealed, which];
    tx.put(&PUT_HEAD, &values)
}

/// A text that is no hash is none that fits.
fn hash(row: &Row<'_>, at: usize) -> Result<Hash, Error> {
    Ok(row.text(at)?.parse().unwrap_or_default())
}

fn read_gap(row: &Row<'_>) -> Result<Gap, Error> {
    Ok(Gap {
        first: row.count(0)?,
        last: row.count(1)?,
        before: hash(row, 2)?,
        after: hash(row, 3)?,
        seal: row.text(4)?.parse().ok(),
    })
}

fn put_gap(tx: &mut Tx<'_>, stamp: &dyn Stamp, gap: &Gap) -> Result<(), Error> {
    let sealed = seal(stamp, &gap.digest(stamp))?;
    let (before, after) = (gap.before.to_string(), gap.after.to_string());
    tx.put(
        &PUT_GAP,
        &values![gap.first, gap.last, before, after, sealed],
    )
}

/// The hash and the seal of a line, when it is there and has a hash.
fn marks(tx: &mut Tx<'_>, number: u64) -> Result<Option<(Hash, Option<Hash>)>, Error> {
    let found = tx.find(&HASH, &values![number], |row| {
        let mark = |at| Ok::<_, Error>(row.maybe_text(at)?.and_then(|text| text.parse().ok()));
        Ok((mark(0)?, mark(1)?))
    })?;
    Ok(found.and_then(|(hash, seal)| Some((hash?, seal))))
}

/// The hash that a line builds upon, as it stands there: that of the line before it, or of the end of the gap
/// before it.
fn hash_before(tx: &mut Tx<'_>, number: u64) -> Result<Hash, Error> {
    if number <= 1 {
        return Ok(Hash::default());
    }
    if let Some((hash, _)) = marks(tx, number - 1)? {
        return Ok(hash);
    }
    let gap = tx.find(&GAP_TO, &values![number - 1], read_gap)?;
    Ok(gap.map(|gap| gap.after).unwrap_or_default())
}

impl Store {
    /// The keys of the chain, and its newest link.
    pub async fn audit_chain(&self) -> Result<AuditChain, Error> {
        self.read("audit_chain", |tx| {
            let keys = tx.query(&KEYS, &[], |row| {
                Ok(AuditKeyRow {
                    since: row.count(0)?,
                    sealed: row.text(1)?,
                    created_at: row.time(2)?,
                })
            })?;
            let head = head(tx)?.map(|(link, _)| link);
            let (last, has_begun) = match head {
                Some(head) => (head.number, true),
                None => (last(tx)?, has_begun(tx)?),
            };
            Ok(AuditChain {
                head,
                last,
                has_begun,
                keys,
            })
        })
        .await
    }

    /// Keeps a key, in the place of what was kept of the same one.
    pub async fn put_audit_key(&self, key: AuditKeyRow) -> Result<(), Error> {
        self.write("put_audit_key", move |tx| put_key(tx, &key))
            .await
    }

    /// From now on the audit is chained with this key, which is stored when it is `new`; returns how many lines were
    /// there before there was any chain, which are chained as they are, in steps of `step`. A chain whose newest link
    /// was taken away goes on behind its last line.
    ///
    /// # Errors
    /// Those of the engine. A call that failed halfway is repeated.
    pub async fn begin_audit_chain(
        &self,
        seal: AuditSeal,
        new: Option<AuditKeyRow>,
        step: u32,
    ) -> Result<u64, Error> {
        // A second key would seal what the first one began.
        let _ = self.inner().chain.0.set(seal);
        self.write("open_audit_chain", move |tx| open(tx, new.as_ref()))
            .await?;
        let mut chained = 0;
        loop {
            let (lines, is_done) = self
                .write("begin_audit_chain", move |tx| chain_more(tx, step))
                .await?;
            chained += lines;
            if is_done {
                return Ok(chained);
            }
        }
    }

    /// The link of the chain at this number, also when its line is gone.
    pub async fn audit_link(&self, number: u64) -> Result<Link, Error> {
        self.read("audit_link", move |tx| {
            let hash = hash_before(tx, number.saturating_add(1))?;
            Ok(Link { number, hash })
        })
        .await
    }

    /// Whether the chain went through this link, as far as what is kept says: what is in the middle of a gap may be so.
    pub async fn audit_has(&self, link: Link) -> Result<bool, Error> {
        self.read("audit_has", move |tx| {
            if hash_before(tx, link.number.saturating_add(1))? == link.hash {
                return Ok(true);
            }
            let around = tx.query(&GAPS, &values![link.number, link.number], read_gap)?;
            Ok(!around.is_empty())
        })
        .await
    }

    /// Number of the first line that was written at this time or later.
    pub async fn audit_since(&self, at: Timestamp) -> Result<Option<u64>, Error> {
        self.read("audit_since", move |tx| {
            tx.find(&SINCE, &values![at], |row| row.count(0))
        })
        .await
    }

    /// Lines behind number `after`, at most `limit`, with what is missing between them.
    pub async fn audit_page(&self, after: u64, limit: u32) -> Result<AuditPage, Error> {
        self.read("audit_page", move |tx| {
            let lines = tx.query(
                &audit::AFTER,
                &values![after, i64::from(limit)],
                audit::read,
            )?;
            let is_last = lines.len() < limit as usize;
            let last = lines.last().filter(|_| !is_last);
            let until = last.map_or(u64::MAX, |line| line.number);
            Ok(AuditPage {
                gaps: tx.query(&GAPS, &values![after, until], read_gap)?,
                head: head(tx)?,
                lines,
                is_last,
            })
        })
        .await
    }
}

fn put_key(tx: &mut Tx<'_>, key: &AuditKeyRow) -> Result<(), Error> {
    let values = values![key.since, key.sealed.as_str(), key.created_at];
    tx.put(&PUT_KEY, &values)
}

/// The key and the newest link, all or nothing: one without the other is no beginning.
fn open(tx: &mut Tx<'_>, new: Option<&AuditKeyRow>) -> Result<(), Error> {
    let stamp = stamp(tx)?;
    let (found, has_begun) = (head(tx)?, has_begun(tx)?);
    if let Some(key) = new {
        put_key(tx, key)?;
        // No key of Vaxel's seals from a line on that is yet to come.
        tx.put(&REMOVE_LATER_KEYS, &values![key.since])?;
    }
    match found {
        Some((head, _)) if new.is_some() => put_head(tx, &*stamp, &head),
        Some(_) => Ok(()),
        None if has_begun => {
            let last = last_link(tx)?;
            put_head(tx, &*stamp, &last)
        }
        None => {
            let number = last(tx)?;
            let hash = Hash::default();
            keep_link(tx, &*stamp, (BEGINNING, &Link { number, hash }))?;
            put_head(tx, &*stamp, &Link::default())
        }
    }
}

/// Chains the next of the lines that were there before the chain; whether it reached the last one.
fn chain_more(tx: &mut Tx<'_>, step: u32) -> Result<(u64, bool), Error> {
    let stamp = stamp(tx)?;
    let Some((mut at, _)) = head(tx)? else {
        return Ok((0, true));
    };
    // What came into the table in another way later on is not to be chained as if it had been there.
    let until = kept_link(tx, BEGINNING)?;
    let is_ours = |(until, sealed): &(Link, Option<Hash>)| {
        *sealed == stamp.seal(&until.digest(&*stamp)) && sealed.is_some()
    };
    let until = until.filter(is_ours).map_or(0, |(until, _)| until.number);
    let mut lines = tx.query(
        &audit::AFTER,
        &values![at.number, i64::from(step)],
        audit::read,
    )?;
    lines.retain(|line| line.number <= until);
    for line in &lines {
        if line.number > at.number + 1 {
            // What services went through was taken away before there was a chain.
            let gap = Gap {
                first: at.number + 1,
                last: line.number - 1,
                before: at.hash,
                after: at.hash,
                seal: None,
            };
            put_gap(tx, &*stamp, &gap)?;
        }
        at = at.then(&*stamp, line);
        let sealed = seal(&*stamp, &at.hash)?;
        tx.put(&STAMP, &values![line.number, at.hash.to_string(), sealed])?;
    }
    if !lines.is_empty() {
        put_head(tx, &*stamp, &at)?;
    }
    Ok((lines.len() as u64, lines.is_empty() || at.number >= until))
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &HEAD,
    &PUT_HEAD,
    &KEYS,
    &PUT_KEY,
    &REMOVE_LATER_KEYS,
    &LAST,
    &LAST_GAP,
    &ANY_KEY,
    &ANY_HASH,
    &SINCE,
    &STAMP,
    &HASH,
    &PUT_GAP,
    &GAP_TO,
    &GAPS,
];
