//! The audit on its way out: lines of JSON, with everything that is needed to verify them.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::json;
use vaxel_core::{
    access::require,
    audit::{
        chain::{Gap, Link},
        export::{End, FORM, Head, Missing, SealedKey},
    },
    failure::Failure,
    principal::{Permission, Principal},
    time::Timestamp,
};

use super::PAGE;
use crate::control::Control;

/// The audit on its way out, a piece at a time.
pub struct AuditExport {
    control: Control,
    at: Link,
    until: Option<Timestamp>,
    end: Link,
    ready: VecDeque<String>,
    is_over: bool,
}

impl Control {
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
        // One that ends earlier was said; one that began earlier has grown since.
        if gap.last > self.at.number {
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
