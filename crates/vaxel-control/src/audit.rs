//! The audit: its chain from the start on, what is asked of it, and what was refused on its way into it.
//!
//! Lines of changes are written with the changes. Everything else is here: the key of the chain, which lies in
//! the database sealed; the newest link, which is also kept in a file, so that who has the database alone cannot
//! take it back to an earlier state unnoticed; search, export and verification.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use vaxel_auth::{seal::Sealer, stamp::AuditKey};
use vaxel_core::{
    access::require,
    audit::{
        AuditLine, Entry,
        chain::{Checker, Flaw, Link, Stamp},
    },
    failure::{Failure, Kind},
    principal::{Permission, Principal},
    secret::Secret,
};
use vaxel_store::{AuditKeyRow, AuditPage, AuditQuery, AuditSeal};

use crate::{
    control::Control,
    query::{List, Page},
};

mod export;
mod head;
mod incidents;
mod retention;

pub use export::AuditExport;
pub(crate) use head::keep as keep_head;
pub(crate) use incidents::write as write_incidents;
pub(crate) use retention::remove_old;

/// What the key of the chain is sealed under, with the sealer of values.
const KEY: &[u8] = b"audit key 1";
/// Lines that one request verifies at most.
const VERIFIED: u64 = 20_000;
/// Lines in one read.
const PAGE: u32 = 1_000;
/// Parts of the audit that one search looks at before it answers with what it found.
const PARTS: usize = 50;
/// Line about lines that were there at an earlier start.
const REWIND: &str = "audit.rewind";

/// What is known of the chain since the start.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    key: OnceLock<Key>,
    /// Held while lines are verified.
    verifying: tokio::sync::Mutex<()>,
    /// The first thing that was found not to hold, for whoever looks after this Vaxel.
    problem: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Key {
    stamp: Arc<AuditKey>,
    since: u64,
}

/// What verifying a part of the audit came to.
#[derive(Debug, Clone, Serialize)]
pub struct AuditVerdict {
    /// Lines whose hash was looked at.
    pub lines: u64,
    /// Of these, those whose seal could be looked at, too.
    pub sealed: u64,
    /// Number of the last one.
    pub to: u64,
    /// Number of the newest line.
    pub newest: u64,
    /// The first line that does not fit; nothing behind it was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flaw: Option<Flaw>,
    /// Send it as `after` to go on; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// What cannot be known, and what else is to be said, one sentence each.
    pub notes: Vec<String>,
}

/// Opens the key of an export with what sealed it.
///
/// # Errors
/// When it was sealed by another installation.
pub fn open_audit_key(sealer: &Sealer, sealed: &str) -> Result<AuditKey, vaxel_auth::Error> {
    let kept: Secret<Vec<u8>> = sealer.open_text(KEY, sealed)?;
    AuditKey::read(&kept)
}

impl Control {
    /// Another root key seals from now on: the keys of the chain are sealed anew. One that does not open is left as
    /// it is.
    pub(crate) async fn reseal_audit_keys(&self) -> Result<(), Failure> {
        let sealer = self.inner.context.vault.sealer();
        for row in self.store().audit_chain().await?.keys {
            let Ok(Some(sealed)) = sealer.renewed_text(KEY, &row.sealed) else {
                continue;
            };
            self.store()
                .put_audit_key(AuditKeyRow { sealed, ..row })
                .await?;
        }
        Ok(())
    }

    /// Opens or makes the key of the chain, and begins the chain where there is none. Before anything is
    /// written into the audit.
    pub(crate) async fn begin_audit(&self) -> Result<(), Failure> {
        let store = self.store();
        let chain = store.audit_chain().await?;
        let sealer = self.inner.context.vault.sealer();
        let newest = chain.keys.last();
        let known = newest.and_then(|row| Some((row, open_audit_key(sealer, &row.sealed).ok()?)));
        let mut is_new = None;
        let key = if let Some((row, stamp)) = known {
            Key {
                stamp: Arc::new(stamp),
                since: row.since,
            }
        } else {
            let (stamp, kept) = AuditKey::invent();
            let since = chain.head.map_or(0, |head| head.number) + 1;
            let sealed = sealer.seal_text(KEY, kept.expose());
            let created_at = self.now();
            store
                .put_audit_key(AuditKeyRow {
                    since,
                    sealed,
                    created_at,
                })
                .await?;
            is_new = Some(since);
            Key {
                stamp: Arc::new(stamp),
                since,
            }
        };
        let stamp: Arc<dyn Stamp> = Arc::<AuditKey>::clone(&key.stamp);
        if is_new.is_some() && chain.head.is_some() {
            store.rehead_audit(Arc::clone(&stamp)).await?;
        }
        let since = key.since;
        let chained = store.begin_audit_chain(AuditSeal { stamp, since }, PAGE);
        let chained = chained.await?;
        // There is one start.
        let _ = self.inner.audit.key.set(key);
        if is_new.is_some() || chained > 0 {
            let why = if chain.head.is_some() {
                "the key of the lines before is not here"
            } else {
                "the audit is chained from here on; lines before were as they are when this was written"
            };
            self.audit_itself("audit.begin", json!({ "lines": chained, "why": why }))
                .await?;
        }
        self.compare_with_file().await
    }

    /// Lines that an earlier process knew of, and that are not there or others now, leave a line that stays.
    async fn compare_with_file(&self) -> Result<(), Failure> {
        let Some(kept) = head::read(&self.head_file()) else {
            return Ok(());
        };
        let found = self.store().audit_link(kept.number).await?;
        let head = self.store().audit_chain().await?.head.unwrap_or_default();
        if found == kept && head.number >= kept.number {
            return Ok(());
        }
        tracing::error!(
            expected = kept.number,
            found = head.number,
            "lines of the audit that were there are missing or others: the database was put back to an \
             earlier state"
        );
        let detail = json!({ "expected": kept, "found": head });
        self.audit_itself(REWIND, detail).await
    }

    /// Says what does not hold: in the log each time, and with the status from the first time on.
    pub(crate) fn flawed(&self, what: String) {
        tracing::error!("the audit does not hold: {what}; `vaxel audit verify` says more");
        self.inner.audit.problem.lock().get_or_insert(what);
    }

    /// What was found not to hold since the start.
    pub(crate) fn problem_of_the_audit(&self) -> Option<String> {
        self.inner.audit.problem.lock().clone()
    }

    async fn audit_itself(&self, action: &'static str, detail: Value) -> Result<(), Failure> {
        let target = ("audit", String::new(), String::new());
        let mut line = AuditLine::new(self.now(), &Principal::system(), action, target);
        line.detail = detail;
        Ok(self.store().audit(line).await?)
    }

    /// Lines, newest first. `audit:read`.
    pub async fn audit_lines(
        &self,
        caller: &Principal,
        query: &AuditQuery,
        page: &Page,
    ) -> Result<List<Entry>, Failure> {
        require(caller, Permission::AuditRead)?;
        let mut before = match &page.cursor {
            None => u64::MAX,
            Some(text) => text.parse().map_err(|_| bad_cursor())?,
        };
        let mut items = Vec::new();
        for _ in 0..PARTS {
            let wanted = page.limit - u32::try_from(items.len()).unwrap_or(page.limit);
            let part = self.store().search_audit(query.clone(), (before, wanted));
            let (found, next) = part.await?;
            items.extend(found);
            let is_full = items.len() >= page.limit as usize;
            match next {
                None => {
                    return Ok(List {
                        items,
                        next_cursor: None,
                    });
                }
                Some(next) => before = next,
            }
            if is_full {
                break;
            }
        }
        Ok(List {
            items,
            next_cursor: Some(before.to_string()),
        })
    }

    /// One line. `audit:read`.
    pub async fn audit_line(&self, caller: &Principal, number: u64) -> Result<Entry, Failure> {
        require(caller, Permission::AuditRead)?;
        let found = self.store().audit_entry(number).await?;
        found.ok_or_else(|| {
            let detail = format!(
                "There is no line {number} in the audit; it may be older than what is kept (`audit.retention`)"
            );
            Failure::new(Kind::NotFound, detail)
        })
    }

    /// Verifies the lines behind number `after`, as many as one request may; 0 begins at the beginning.
    /// `audit:read`.
    ///
    /// # Errors
    /// `Busy` while another request verifies.
    pub async fn verify_audit(
        &self,
        caller: &Principal,
        after: u64,
    ) -> Result<AuditVerdict, Failure> {
        require(caller, Permission::AuditRead)?;
        let Ok(_turn) = self.inner.audit.verifying.try_lock() else {
            let detail = "The audit is being verified for somebody else; try again in a moment";
            return Err(Failure::new(Kind::Busy, detail).retry_after(1));
        };
        let key = self.inner.audit.key.get();
        let key = key.ok_or_else(|| Failure::internal("the audit has not begun"))?;
        let begin = if after == 0 {
            Link::default()
        } else {
            self.store().audit_link(after).await?
        };
        let kept = head::read(&self.head_file());
        let mut verdict = AuditVerdict {
            lines: 0,
            sealed: 0,
            to: after,
            newest: 0,
            flaw: None,
            next: None,
            notes: notes(key.since, after),
        };
        let mut checker = Checker::new(&*key.stamp, key.since, begin);
        loop {
            let page = self.store().audit_page(checker.at().number, PAGE).await?;
            let checked = check(&mut checker, &page, kept.as_ref());
            let rewinds = page.lines.iter().filter(|line| line.action == REWIND);
            verdict.notes.extend(rewinds.map(rewound));
            (verdict.lines, verdict.sealed) = (checker.lines, checker.sealed);
            verdict.to = checker.at().number;
            verdict.newest = page.head.map_or(0, |(head, _)| head.number);
            if let Err(flaw) = checked {
                self.flawed(flaw.to_string());
                verdict.flaw = Some(flaw);
                return Ok(verdict);
            }
            if page.is_last {
                return Ok(verdict);
            }
            if checker.lines >= VERIFIED {
                verdict.next = Some(verdict.to);
                return Ok(verdict);
            }
        }
    }
}

fn bad_cursor() -> Failure {
    Failure::new(
        Kind::Invalid,
        "The cursor is not one of this list: begin without it",
    )
}

/// What cannot be known of the lines behind `after`.
fn notes(since: u64, after: u64) -> Vec<String> {
    if after + 1 >= since {
        return Vec::new();
    }
    vec![format!(
        "lines before {since} are sealed with a key that is not here: that they hold together is looked at, \
         that nobody made all of them anew cannot be known"
    )]
}

fn rewound(line: &Entry) -> String {
    let detail: Value = line
        .detail
        .as_ref()
        .and_then(|detail| serde_json::from_str(detail.get()).ok())
        .unwrap_or_default();
    format!(
        "line {}: when Vaxel started at {}, lines up to {} were known and those up to {} were there: the \
         database had been put back to an earlier state",
        line.number, line.at, detail["expected"]["number"], detail["found"]["number"],
    )
}

fn check(checker: &mut Checker<'_>, page: &AuditPage, kept: Option<&Link>) -> Result<(), Flaw> {
    checker.page(&page.lines, &page.gaps)?;
    let known = page
        .lines
        .iter()
        .find(|line| kept.is_some_and(|kept| kept.number == line.number));
    if let (Some(line), Some(kept)) = (known, kept)
        && line.hash != Some(kept.hash)
    {
        let what = format!("it is another line than the one that {} knows", head::NAME);
        return Err(Flaw::new(line.number, what));
    }
    if !page.is_last {
        return Ok(());
    }
    let (head, seal) = page.head.unwrap_or_default();
    checker.end(&head, seal.as_ref())?;
    match kept {
        Some(kept) if kept.number > head.number => Err(Flaw::new(
            head.number + 1,
            format!(
                "it is missing: {} knows of lines up to {}",
                head::NAME,
                kept.number
            ),
        )),
        _ => Ok(()),
    }
}
