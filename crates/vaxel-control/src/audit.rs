//! The audit: its chain from the start on, what is asked of it, and what was refused on its way into it.
//!
//! Lines of changes are written with the changes. Everything else is here: the key of the chain, which lies in
//! the database sealed; the newest link, which is also kept in a file, so that who has the database alone cannot
//! take it back to an earlier state unnoticed; search, export and verification.

use std::{
    collections::VecDeque,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use vaxel_auth::{seal::Sealer, stamp::AuditKey};
use vaxel_core::{
    access::require,
    audit::{
        AuditLine, Entry,
        chain::{Checker, Flaw, Gap, Link, Stamp},
        export::{End, FORM, Head, Missing, SealedKey},
    },
    failure::{Failure, Kind},
    principal::{Permission, Principal},
    secret::Secret,
    time::Timestamp,
};
use vaxel_gateway::Incident;
use vaxel_store::{AuditKeyRow, AuditPage, AuditQuery};

use crate::{
    control::Control,
    query::{List, Page},
};

/// What the key of the chain is sealed under, with the sealer of values.
const KEY: &[u8] = b"audit key 1";
/// File of the newest link, in the data directory.
const HEAD_FILE: &str = "audit.head";
/// Lines that one request verifies at most.
const VERIFIED: u64 = 20_000;
/// Lines in one read.
const PAGE: u32 = 1_000;
/// Parts of the audit that one search looks at before it answers with what it found.
const PARTS: usize = 50;
/// After a write the newest link is written into its file so much later, for many writes once.
const GATHER: Duration = Duration::from_secs(1);
/// So often it is looked whether incidents of a minute are to be written.
const LOOK: Duration = Duration::from_secs(1);
/// Line about lines that were there at an earlier start.
const REWIND: &str = "audit.rewind";

/// What is known of the chain since the start.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    key: OnceLock<Key>,
    /// Held while lines are verified.
    verifying: tokio::sync::Mutex<()>,
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

/// The audit on its way out, a piece at a time.
pub struct AuditExport {
    control: Control,
    at: Link,
    until: Option<Timestamp>,
    end: Link,
    ready: VecDeque<String>,
    is_over: bool,
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
            if sealer.has_earlier() {
                let kept = sealer.open_text(KEY, &row.sealed)?;
                let sealed = sealer.seal_text(KEY, kept.expose());
                let row = AuditKeyRow {
                    sealed,
                    ..row.clone()
                };
                store.put_audit_key(row).await?;
            }
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
        let chained = store.begin_audit_chain(stamp, PAGE).await?;
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
        let Some(kept) = read_head(&self.head_file()) else {
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

    /// The lines of some time as JSON, one per line, with everything that is needed to verify them.
    /// `audit:read`; it is audited itself.
    pub async fn export_audit(
        &self,
        caller: &Principal,
        (since, until): (Option<Timestamp>, Option<Timestamp>),
    ) -> Result<AuditExport, Failure> {
        require(caller, Permission::AuditRead)?;
        let target = ("audit", String::new(), String::new());
        let mut line = self.line(caller, "audit.export", target);
        line.detail = json!({ "since": since, "until": until });
        self.store().audit(line).await?;
        let chain = self.store().audit_chain().await?;
        let end = chain.head.unwrap_or_default();
        let first = match since {
            None => 1,
            Some(since) => self
                .store()
                .audit_since(since)
                .await?
                .unwrap_or(end.number + 1),
        };
        let at = if first == 1 {
            Link::default()
        } else {
            self.store().audit_link(first - 1).await?
        };
        let keys = chain.keys.iter();
        let keys = keys.map(|key| SealedKey {
            since: key.since,
            sealed: key.sealed.clone(),
        });
        let head = Head {
            vaxel_audit: FORM,
            version: self.inner.context.config.server.version.clone(),
            at: self.now(),
            after: at,
            keys: keys.collect(),
        };
        Ok(AuditExport {
            control: self.clone(),
            at,
            until,
            end,
            ready: VecDeque::from([text(&head)?]),
            is_over: false,
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
        let kept = read_head(&self.head_file());
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

    fn head_file(&self) -> PathBuf {
        self.inner.context.config.server.data_dir.join(HEAD_FILE)
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
        let what = format!("it is another line than the one that {HEAD_FILE} knows");
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
                "it is missing: {HEAD_FILE} knows of lines up to {}",
                kept.number
            ),
        )),
        _ => Ok(()),
    }
}

impl AuditExport {
    /// The next piece, whole lines; `None` at the end.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        if let Some(ready) = self.ready.pop_front() {
            return Ok(Some(ready));
        }
        if self.is_over {
            return Ok(None);
        }
        let page = self
            .control
            .store()
            .audit_page(self.at.number, PAGE)
            .await?;
        let mut piece = String::new();
        let mut gaps = page.gaps.iter().peekable();
        self.is_over = page.is_last;
        for line in &page.lines {
            let is_later = self.until.is_some_and(|until| line.at >= until);
            if is_later || line.number > self.end.number {
                self.is_over = true;
                break;
            }
            while let Some(gap) = gaps.next_if(|gap| gap.first < line.number) {
                self.gap(&mut piece, gap)?;
            }
            piece.push_str(&text(line)?);
            self.at = Link {
                number: line.number,
                hash: line.hash.unwrap_or_default(),
            };
        }
        if self.is_over {
            let end = End {
                end: self.at,
                is_newest: self.at == self.end,
            };
            self.ready.push_back(text(&end)?);
        }
        if piece.is_empty() {
            return Ok(self.ready.pop_front());
        }
        Ok(Some(piece))
    }

    fn gap(&mut self, piece: &mut String, gap: &Gap) -> Result<(), Failure> {
        // One that began earlier has grown since.
        if gap.first > self.at.number {
            piece.push_str(&text(&Missing { gap: *gap })?);
            self.at = Link {
                number: gap.last,
                hash: gap.after,
            };
        }
        Ok(())
    }
}

fn text(line: &impl Serialize) -> Result<String, Failure> {
    let mut text = serde_json::to_string(line).map_err(Failure::internal)?;
    text.push('\n');
    Ok(text)
}

/// Writes what was refused into the audit, until `stop` and then what is left.
pub(crate) async fn write_incidents(control: Control, stop: CancellationToken) {
    let gateway = &control.inner.context.gateway;
    let (mut waits, mut last) = (false, false);
    while !last {
        tokio::select! {
            () = stop.cancelled() => last = true,
            () = gateway.refused() => {}
            () = tokio::time::sleep(LOOK), if waits => {}
        }
        let (taken, more) = gateway.take_incidents(control.now(), last);
        waits = more;
        if taken.is_empty() {
            continue;
        }
        let lines = taken.iter().map(line_of).collect();
        if let Err(error) = control.store().audit_all(lines).await {
            tracing::warn!(%error, "what was refused could not be written into the audit; it is tried again");
            gateway.incidents_not_written(taken);
            waits = true;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

fn line_of(incident: &Incident) -> AuditLine {
    let mut line = incident.line.clone();
    if line.detail.is_null() {
        line.detail = json!({});
    }
    line.detail["count"] = incident.count.into();
    if incident.count > 1 {
        line.detail["until"] = json!(incident.until);
    }
    line
}

/// Keeps the newest link in its file, until `stop` and then once more.
pub(crate) async fn keep_head(control: Control, stop: CancellationToken) {
    let path = control.head_file();
    let mut writes = control.store().writes();
    let mut kept = None;
    let mut last = false;
    while !last {
        tokio::select! {
            () = stop.cancelled() => last = true,
            // An error would mean that the store is gone, and this handle holds it.
            _ = writes.changed() => tokio::select! {
                () = stop.cancelled() => last = true,
                () = tokio::time::sleep(GATHER) => {}
            },
        }
        writes.mark_unchanged();
        let Ok(chain) = control.store().audit_chain().await else {
            // Who reads it next finds an older one, which is right, too.
            continue;
        };
        if chain.head == kept {
            continue;
        }
        let (path, head) = (path.clone(), chain.head.unwrap_or_default());
        let written = tokio::task::spawn_blocking(move || write_head(&path, head)).await;
        match written {
            Ok(Ok(())) => kept = chain.head,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the end of the audit could not be written to {HEAD_FILE}")
            }
            Err(error) => tracing::error!(%error, "the end of the audit was not written"),
        }
    }
}

fn read_head(path: &Path) -> Option<Link> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// A crash may leave an older one, which is right, too; never half of one.
fn write_head(path: &Path, head: Link) -> std::io::Result<()> {
    let fresh = path.with_extension("head.new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&fresh)?;
    file.write_all(&serde_json::to_vec(&head)?)?;
    fs::rename(&fresh, path)
}
