//! Revisions of services: what was wanted, who wanted it and why, and the way back.

use serde_json::{Value, json};
use vaxel_core::{
    difference::{Difference, differences},
    failure::{Failure, Issue, Kind},
    principal::{Permission, Principal},
    service::{SecretRef, ServiceDraft, ServiceResource, stored},
    time::Timestamp,
};
use vaxel_store::{Error as StoreError, LabelRow, RevisionRow};

use crate::{
    change::{Outcome, ServiceRef},
    control::Control,
    query::{List, Page},
    service::Made,
};

/// Longest label.
const LABEL_MAX: usize = 64;

/// A revision of a service.
#[derive(Debug, Clone)]
pub struct Revision {
    /// Counts from 1.
    pub number: u64,
    /// The names that people gave it.
    pub labels: Vec<String>,
    /// Whether it is what is wanted now.
    pub is_current: bool,
    /// Who wanted it.
    pub author: String,
    /// What was done, as it stands in the audit: `service.update`, …
    pub action: String,
    /// Why, when that was said.
    pub message: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// All that was wanted: a draft; sealed values stand as `secret:` references.
    pub draft: Value,
}

/// A revision by number, by label, or the one that is wanted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevisionRef {
    /// By number.
    Number(u64),
    /// By label.
    Label(String),
    /// `current`.
    Current,
}

impl From<&str> for RevisionRef {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(number) => Self::Number(number),
            Err(_) if text == "current" => Self::Current,
            Err(_) => Self::Label(text.to_owned()),
        }
    }
}

/// What differs between two revisions.
#[derive(Debug, Clone)]
pub struct Diff {
    /// Number of the one.
    pub from: u64,
    /// Number of the other.
    pub to: u64,
    /// Place by place.
    pub differences: Vec<Difference>,
}

impl Control {
    /// The revisions of a service, newest first. `mcp:read`.
    pub async fn revisions(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        page: &Page,
    ) -> Result<List<Revision>, Failure> {
        let read = Permission::McpRead;
        let resource = self.find_any_for(caller, read, service).await?;
        let before = match &page.cursor {
            Some(text) => Some(text.parse().map_err(|_| StoreError::Cursor(text.clone()))?),
            None => None,
        };
        let store = self.store();
        let mut rows = store.revisions(resource.id, before, page.limit + 1).await?;
        let labels = store.labels(resource.id).await?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|row| row.revision.to_string());
        let shown = |row| shown(row, &resource, &labels);
        Ok(List {
            items: rows.into_iter().map(shown).collect(),
            next_cursor: next,
        })
    }

    /// One revision. `mcp:read`.
    pub async fn revision(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        revision: &RevisionRef,
    ) -> Result<Revision, Failure> {
        let read = Permission::McpRead;
        let resource = self.find_any_for(caller, read, service).await?;
        let row = self.find_revision(&resource, revision).await?;
        let labels = self.store().labels(resource.id).await?;
        Ok(shown(row, &resource, &labels))
    }

    /// What differs between two revisions; without the second the current one, without the first the
    /// one before the second. `mcp:read`.
    pub async fn diff(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        (from, to): (Option<&RevisionRef>, Option<&RevisionRef>),
    ) -> Result<Diff, Failure> {
        let read = Permission::McpRead;
        let resource = self.find_any_for(caller, read, service).await?;
        let new = self
            .find_revision(&resource, to.unwrap_or(&RevisionRef::Current))
            .await?;
        let before = RevisionRef::Number(new.revision.saturating_sub(1).max(1));
        let old = self
            .find_revision(&resource, from.unwrap_or(&before))
            .await?;
        Ok(Diff {
            from: old.revision,
            to: new.revision,
            differences: differences(&draft(&old), &draft(&new)),
        })
    }

    /// A new revision that says what an earlier one said. It is accepted as any other update would be.
    pub(crate) async fn roll_back(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        to: &RevisionRef,
    ) -> Result<Outcome, Failure> {
        let resource = self.find_for(caller, Permission::McpWrite, service).await?;
        let row = self.find_revision(&resource, to).await?;
        let draft = ServiceDraft::from_json(&draft(&row));
        let mut draft = draft.map_err(|issues| {
            Failure::invalid(
                &format!("Revision {} of `{}`", row.revision, row.name),
                issues,
            )
        })?;
        // A value goes where it went when that revision was accepted.
        let reference = |text: &str| SecretRef::parse(text).map(|SecretRef(id)| id);
        let values = draft.spec.sensitive_values();
        let mut references: Vec<_> = values.filter_map(|(_, value)| reference(value)).collect();
        let parameters = draft.spec.sealed_parameters();
        references.extend(parameters.filter_map(|(_, value)| reference(value)));
        let kept = self.store().secrets(resource.id).await?;
        let own = kept
            .into_iter()
            .map(|row| row.id)
            .filter(|id| references.contains(id));
        let own = own.collect();
        self.replace_draft(
            caller,
            (resource, draft),
            (own, Some(row.revision)),
            Made::Manually,
        )
        .await
    }

    /// Gives a revision a label; another revision of the service loses it.
    pub(crate) async fn label_revision(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        (label, revision): (String, &RevisionRef),
    ) -> Result<Outcome, Failure> {
        check_label(&label)?;
        let write = Permission::McpWrite;
        let resource = self.find_for(caller, write, service).await?;
        let row = self.find_revision(&resource, revision).await?;
        let mut audit = self.audit(caller, "service.label", &resource);
        audit.detail = json!({ "label": label, "revision": row.revision });
        let label = LabelRow {
            label,
            revision: row.revision,
        };
        let terms = (resource.id, self.terms.expected);
        let written = self.store().put_label(terms, label, audit).await;
        self.labelled(resource, written).await
    }

    /// Takes a label from its revision.
    pub(crate) async fn unlabel_revision(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        label: String,
    ) -> Result<Outcome, Failure> {
        let resource = self.find_for(caller, Permission::McpWrite, service).await?;
        let mut audit = self.audit(caller, "service.unlabel", &resource);
        audit.detail = json!({ "label": label });
        let unknown = unknown(&resource, &RevisionRef::Label(label.clone()));
        let terms = (resource.id, self.terms.expected);
        let written = self.store().remove_label(terms, label, audit).await;
        if matches!(written, Err(StoreError::Missing)) {
            return Err(unknown);
        }
        self.labelled(resource, written).await
    }

    async fn labelled(
        &self,
        resource: ServiceResource,
        written: Result<(), StoreError>,
    ) -> Result<Outcome, Failure> {
        match written {
            Ok(()) => Ok(Outcome::Service(Box::new(self.observe(resource).await))),
            Err(StoreError::Changed) => Err(self.changed_meanwhile(&resource).await?),
            Err(error) => Err(error.into()),
        }
    }

    async fn find_revision(
        &self,
        resource: &ServiceResource,
        revision: &RevisionRef,
    ) -> Result<RevisionRow, Failure> {
        let number = match revision {
            RevisionRef::Number(number) => Some(*number),
            RevisionRef::Current => Some(resource.revision),
            RevisionRef::Label(label) => self.store().labelled(resource.id, label).await?,
        };
        let row = match number {
            Some(number) => self.store().revision(resource.id, number).await?,
            None => None,
        };
        row.ok_or_else(|| unknown(resource, revision))
    }

    /// The sentence for a write on a version that is not the current one.
    pub(crate) async fn changed_meanwhile(
        &self,
        old: &ServiceResource,
    ) -> Result<Failure, Failure> {
        let current = self.store().service(old.id).await?;
        let expected = self.terms.expected.unwrap_or(old.version);
        Ok(crate::service::changed(
            current.as_ref().unwrap_or(old),
            expected,
        ))
    }
}

fn unknown(resource: &ServiceResource, revision: &RevisionRef) -> Failure {
    let name = &resource.name;
    let what = match revision {
        RevisionRef::Number(number) => format!("no revision {number}"),
        RevisionRef::Current => "no current revision".to_owned(),
        RevisionRef::Label(label) => {
            let label: String = label.chars().take(LABEL_MAX).collect();
            format!("no revision labelled `{label}`")
        }
    };
    let detail =
        format!("`{name}` has {what}; `vaxel service history {name}` shows which there are");
    Failure::new(Kind::NotFound, detail)
}

/// Labels are words that cannot be taken for numbers.
fn check_label(label: &str) -> Result<(), Failure> {
    let fits = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let inside = |letter: char| fits(letter) || matches!(letter, '-' | '_' | '.');
    let is_word = label.starts_with(|letter: char| letter.is_ascii_lowercase())
        && label.chars().all(inside)
        && label.len() <= LABEL_MAX
        && label != "current";
    if is_word {
        return Ok(());
    }
    let message = "must begin with a letter, hold a-z, 0-9, `-`, `_` and `.`, have at most 64 \
                   characters, and not be `current`";
    Err(Failure::invalid(
        "The label",
        vec![Issue::new("label", message)],
    ))
}

fn shown(row: RevisionRow, resource: &ServiceResource, labels: &[LabelRow]) -> Revision {
    let draft = draft(&row);
    let own = labels.iter().filter(|label| label.revision == row.revision);
    Revision {
        number: row.revision,
        labels: own.map(|label| label.label.clone()).collect(),
        is_current: row.revision == resource.revision,
        author: row.author,
        action: row.action,
        message: row.message,
        created_at: row.created_at,
        draft,
    }
}

/// What was wanted, as someone would send it.
fn draft(row: &RevisionRow) -> Value {
    // What cannot be read is shown as it stands, and accepted by nobody.
    let spec = stored::value(&row.spec).unwrap_or_else(|_| row.spec.as_str().into());
    json!({
        "name": row.name, "enabled": row.enabled, "tags": row.tags,
        "environment": row.environment, "spec": spec,
    })
}
