//! The audit: its chain from the start on, what is asked of it, and what was refused on its way into it.
//!
//! Lines of changes are written with the changes. Everything else is here: the key of the chain, which lies in
//! the database sealed; the newest link, which is also kept in a file, so that who has the database alone cannot
//! take it back to an earlier state unnoticed; search, export and verification.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::Value;
use vaxel_auth::stamp::AuditKey;
use vaxel_core::{
    access::require,
    audit::{
        Entry,
        chain::{Checker, Flaw, Link, RESTORE},
    },
    failure::{Failure, Kind},
    principal::{Permission, Principal},
};
use vaxel_store::{AuditPage, AuditQuery};

use crate::{
    control::Control,
    query::{List, Page},
};

mod begin;
mod export;
mod head;
mod incidents;
mod retention;

pub use begin::open_audit_key;
pub use export::AuditExport;
pub use head::expect_another_audit;
pub(crate) use head::keep as keep_head;
pub(crate) use incidents::write as write_incidents;
pub(crate) use retention::remove_old;

/// Lines that one request verifies at most.
const VERIFIED: u64 = 20_000;
/// Lines in one read.
const PAGE: u32 = 1_000;
/// Parts of the audit that one search looks at before it answers with what it found.
const PARTS: usize = 50;

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

impl Control {
    /// Says what does not hold: in the log each time, and with the status from the first time on.
    pub(crate) fn flawed(&self, what: String) {
        tracing::error!("the audit does not hold: {what}; `vaxel audit verify` says more");
        self.inner.audit.problem.lock().get_or_insert(what);
    }

    /// What was found not to hold since the start.
    pub(crate) fn problem_of_the_audit(&self) -> Option<String> {
        self.inner.audit.problem.lock().clone()
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
        let kept = kept.map(|kept| kept.map(|kept| kept.link));
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
            let restores = page.lines.iter().filter(|line| line.action == RESTORE);
            verdict.notes.extend(restores.map(restored));
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

fn restored(line: &Entry) -> String {
    let detail: Value = line
        .detail
        .as_ref()
        .and_then(|detail| serde_json::from_str(detail.get()).ok())
        .unwrap_or_default();
    format!(
        "line {}: when Vaxel started at {}, a backup had been restored: lines up to {} were known before, and those \
         up to {} were in it",
        line.number, line.at, detail["expected"]["number"], detail["found"]["number"],
    )
}

/// Checks a page; the last one also against what the data directory knows.
fn check(
    checker: &mut Checker<'_>,
    page: &AuditPage,
    kept: Result<&Option<Link>, &io::Error>,
) -> Result<(), Flaw> {
    checker.page(&page.lines, &page.gaps)?;
    let known = kept.ok().and_then(Option::as_ref);
    let same = |line: &&Entry| known.is_some_and(|kept| kept.number == line.number);
    if let (Some(line), Some(kept)) = (page.lines.iter().find(same), known)
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
    if let Err(error) = kept {
        let what = format!(
            "whether it is the newest one cannot be known: {} is damaged ({error})",
            head::NAME
        );
        return Err(Flaw::new(head.number, what));
    }
    match known {
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
