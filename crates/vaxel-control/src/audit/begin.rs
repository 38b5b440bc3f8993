//! The chain at the start: its key is opened or made, and what lies in the database is held against what the data
//! directory knows of it.
//!
//! Who has the database alone can take the key and the newest link away, or spoil them. That is no beginning: where the
//! data directory says that the key should open, or there are lines of a chain, a line ([`BROKEN`]) tells of it, which
//! whoever verifies meets.

use std::sync::Arc;

use serde_json::{Value, json};
use vaxel_auth::{seal::Sealer, stamp::AuditKey};
use vaxel_core::{
    audit::{
        AuditLine,
        chain::{BROKEN, RESTORE, REWIND, Stamp},
    },
    failure::Failure,
    principal::Principal,
    secret::Secret,
};
use vaxel_store::{AuditChain, AuditKeyRow, AuditSeal};

use super::{
    Key, PAGE,
    head::{self, Kept},
};
use crate::control::Control;

/// What keys of the chain are sealed under, with the sealer of values; the first line that one sealed follows, so that
/// nobody says of lines that they are older than it.
const KEY: &[u8] = b"audit key 2\0";

/// Opens the key of an export with what sealed it; `since` is the first line that it sealed.
///
/// # Errors
/// When it was sealed by another installation, or for another line.
pub fn open_audit_key(
    sealer: &Sealer,
    (since, sealed): (u64, &str),
) -> Result<AuditKey, vaxel_auth::Error> {
    let kept: Secret<Vec<u8>> = sealer.open_text(&context(since), sealed)?;
    AuditKey::read(&kept)
}

fn context(since: u64) -> Vec<u8> {
    [KEY, &since.to_be_bytes()].concat()
}

impl Control {
    /// Another root key seals from now on: the keys of the chain are sealed anew. One that does not open is left as
    /// it is.
    pub(crate) async fn reseal_audit_keys(&self) -> Result<(), Failure> {
        let sealer = self.inner.context.vault.sealer();
        for row in self.store().audit_chain().await?.keys {
            let Ok(Some(sealed)) = sealer.renewed_text(&context(row.since), &row.sealed) else {
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
        let kept = head::read(&self.head_file());
        let mut doubts = Vec::new();
        let (key, new) = match self.known_key(&chain) {
            Some(key) => (key, None),
            None => self.another_key(&chain),
        };
        let known = kept.as_ref().ok().and_then(Option::as_ref);
        if new.is_some() && known.is_some_and(|kept| self.should_open(kept)) {
            doubts.push("the key of the lines before was taken away or spoiled in the database");
        }
        if chain.head.is_none() && chain.has_begun {
            doubts.push("what says which line is the newest was taken away from the database");
        }
        if kept.is_err() {
            doubts
                .push("`audit.head` is damaged: whether the database was put back cannot be known");
        }
        let (since, is_new) = (key.since, new.is_some());
        let stamp: Arc<dyn Stamp> = Arc::<AuditKey>::clone(&key.stamp);
        let chained = store.begin_audit_chain(AuditSeal { stamp, since }, new, PAGE);
        let chained = chained.await?;
        // There is one start.
        let _ = self.inner.audit.key.set(key);
        if is_new || chained > 0 {
            let why = if chain.has_begun {
                "the key of the lines before is not here"
            } else {
                "the audit is chained from here on; lines before were as they are when this was written"
            };
            self.audit_itself("audit.begin", json!({ "lines": chained, "why": why }))
                .await?;
        }
        if !doubts.is_empty() {
            let why = doubts.join("; ");
            self.flawed(why.clone());
            self.audit_itself(BROKEN, json!({ "why": why })).await?;
        }
        if let Some(kept) = known {
            self.compare(kept).await?;
        }
        // What was said is known from now on.
        self.keep_newest(None).await;
        Ok(())
    }

    /// Lines that were known of, and that are not there or others now, leave a line that stays.
    pub(super) async fn compare(&self, kept: &Kept) -> Result<(), Failure> {
        let known = kept.link;
        let head = self.store().audit_chain().await?.head.unwrap_or_default();
        if self.store().audit_has(known).await? && head.number >= known.number {
            return Ok(());
        }
        let detail = json!({ "expected": known, "found": head });
        if kept.restored {
            return self.audit_itself(RESTORE, detail).await;
        }
        self.flawed(format!(
            "lines up to {} were known, and those up to {} are there or others: the database was put back to an \
             earlier state",
            known.number, head.number
        ));
        self.audit_itself(REWIND, detail).await
    }

    fn known_key(&self, chain: &AuditChain) -> Option<Key> {
        let row = chain.keys.last()?;
        let sealer = self.inner.context.vault.sealer();
        let stamp = open_audit_key(sealer, (row.since, &row.sealed)).ok()?;
        Some(Key {
            stamp: Arc::new(stamp),
            since: row.since,
        })
    }

    /// In the place of one that does not open, or is not there: it seals what comes.
    fn another_key(&self, chain: &AuditChain) -> (Key, Option<AuditKeyRow>) {
        let (stamp, kept) = AuditKey::invent();
        let since = if chain.has_begun { chain.last + 1 } else { 1 };
        let sealer = self.inner.context.vault.sealer();
        let row = AuditKeyRow {
            since,
            sealed: sealer.seal_text(&context(since), kept.expose()),
            created_at: self.now(),
        };
        let stamp = Arc::new(stamp);
        (Key { stamp, since }, Some(row))
    }

    /// Whether the root key is the one that sealed the key of the chain when the file was written, so that there is no
    /// reason why that should not open.
    fn should_open(&self, kept: &Kept) -> bool {
        let facts = self.inner.roots.keys.facts();
        let mut roots = facts.earlier.into_iter().chain([facts.id]);
        !kept.restored && roots.any(|root| kept.root.as_ref() == Some(&root))
    }

    async fn audit_itself(&self, action: &'static str, detail: Value) -> Result<(), Failure> {
        let target = ("audit", String::new(), String::new());
        let mut line = AuditLine::new(self.now(), &Principal::system(), action, target);
        line.detail = detail;
        Ok(self.store().audit(line).await?)
    }
}
