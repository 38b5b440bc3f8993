//! Revisions of services: what was wanted, each time that somebody wanted something else; and the
//! labels that people give them.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Service},
    service::ServiceResource,
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

/// What was wanted, as it was accepted. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// Counts from 1.
    pub revision: u64,
    /// The name of the service.
    pub name: String,
    /// Whether it should run.
    pub enabled: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its environment.
    pub environment: String,
    /// The spec, JSON.
    pub spec: String,
    /// Name of the principal.
    pub author: String,
    /// What was done, as it stands in the audit.
    pub action: String,
    /// Why, when somebody said so.
    pub message: Option<String>,
    /// When.
    pub created_at: Timestamp,
}

/// A name that people gave a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    /// Unique in its service.
    pub label: String,
    /// Which revision.
    pub revision: u64,
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT revision, name, enabled, tags, environment, spec, author, action, message, \
             created_at FROM revisions WHERE service = $1 ",
            $rest
        )
    };
}

static ADD: Stmt = Stmt::new(
    "INSERT INTO revisions (service, revision, name, enabled, tags, environment, spec, author, \
     action, message, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);
static PAGE: Stmt = Stmt::new(columns!(
    "AND revision < $2 ORDER BY revision DESC LIMIT $3"
));
static GET: Stmt = Stmt::new(columns!("AND revision = $2"));
static AUTHOR: Stmt =
    Stmt::new("SELECT author FROM revisions WHERE service = $1 AND revision = $2");
static HAS: Stmt = Stmt::new("SELECT revision FROM revisions WHERE service = $1 AND revision = $2");
static VERSION: Stmt = Stmt::new("SELECT version FROM services WHERE id = $1");
static LABELS: Stmt =
    Stmt::new("SELECT label, revision FROM revision_labels WHERE service = $1 ORDER BY label");
static LABELLED: Stmt =
    Stmt::new("SELECT revision FROM revision_labels WHERE service = $1 AND label = $2");
static PUT_LABEL: Stmt = Stmt::new(
    "INSERT INTO revision_labels (service, label, revision) VALUES ($1, $2, $3) \
     ON CONFLICT (service, label) DO UPDATE SET revision = excluded.revision",
);
static REMOVE_LABEL: Stmt =
    Stmt::new("DELETE FROM revision_labels WHERE service = $1 AND label = $2");
static PURGE: Stmt = Stmt::new("DELETE FROM revisions WHERE service = $1");
static PURGE_LABELS: Stmt = Stmt::new("DELETE FROM revision_labels WHERE service = $1");

/// Keeps what `service` says under its revision number, unless it is kept already.
pub(crate) fn keep(
    tx: &mut Tx<'_>,
    (service, spec): (&ServiceResource, &str),
    audit: &AuditLine,
) -> Result<(), Error> {
    let key = values![service.id, service.revision];
    if tx.find(&HAS, &key, |row| row.int(0))?.is_some() {
        return Ok(());
    }
    let values = values![
        service.id,
        service.revision,
        service.name.as_str(),
        service.enabled,
        to_json(&service.tags)?,
        service.environment.as_str(),
        spec,
        audit.actor.as_str(),
        audit.action,
        audit.message.as_deref(),
        service.updated_at,
    ];
    tx.put(&ADD, &values)
}

/// Who wanted what a revision says, when it is still there.
pub(crate) fn author(
    tx: &mut Tx<'_>,
    service: Id<Service>,
    revision: u64,
) -> Result<Option<String>, Error> {
    tx.find(&AUTHOR, &values![service, revision], |row| row.text(0))
}

/// Forgets every revision of a service.
pub(crate) fn purge(tx: &mut Tx<'_>, service: Id<Service>) -> Result<(), Error> {
    tx.execute(&PURGE, &values![service])?;
    tx.execute(&PURGE_LABELS, &values![service]).map(drop)
}

impl Store {
    /// The revisions of a service, newest first, at most `limit`; of those before number `before`,
    /// when it is given.
    pub async fn revisions(
        &self,
        service: Id<Service>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<RevisionRow>, Error> {
        self.read("revisions", move |tx| {
            let values = values![service, before.unwrap_or(u64::MAX), i64::from(limit)];
            tx.query(&PAGE, &values, read)
        })
        .await
    }

    /// One revision of a service.
    pub async fn revision(
        &self,
        service: Id<Service>,
        revision: u64,
    ) -> Result<Option<RevisionRow>, Error> {
        self.read("revision", move |tx| {
            tx.find(&GET, &values![service, revision], read)
        })
        .await
    }

    /// The labels of a service's revisions, by name.
    pub async fn labels(&self, service: Id<Service>) -> Result<Vec<LabelRow>, Error> {
        self.read("labels", move |tx| {
            tx.query(&LABELS, &values![service], |row| {
                Ok(LabelRow {
                    label: row.text(0)?,
                    revision: row.count(1)?,
                })
            })
        })
        .await
    }

    /// The number of the revision that has a label.
    pub async fn labelled(&self, service: Id<Service>, label: &str) -> Result<Option<u64>, Error> {
        let label = label.to_owned();
        self.read("labelled", move |tx| {
            tx.find(&LABELLED, &values![service, label.as_str()], |row| {
                row.count(0)
            })
        })
        .await
    }

    /// Gives a label to a revision; another revision of the service loses it. `expected` is the
    /// version that the service must have.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version, [`Error::Missing`] when there is no such
    /// revision.
    pub async fn put_label(
        &self,
        (service, expected): (Id<Service>, Option<u64>),
        label: LabelRow,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("put_label", move |tx| {
            compare(tx, service, expected)?;
            let key = values![service, label.revision];
            if tx.find(&HAS, &key, |row| row.int(0))?.is_none() {
                return Err(Error::Missing);
            }
            let values = values![service, label.label.as_str(), label.revision];
            tx.execute(&PUT_LABEL, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Takes a label from its revision.
    ///
    /// # Errors
    /// As [`Store::put_label`]; [`Error::Missing`] when there is no such label.
    pub async fn remove_label(
        &self,
        (service, expected): (Id<Service>, Option<u64>),
        label: String,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("remove_label", move |tx| {
            compare(tx, service, expected)?;
            if tx.execute(&REMOVE_LABEL, &values![service, label.as_str()])? == 0 {
                return Err(Error::Missing);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }
}

fn compare(tx: &mut Tx<'_>, service: Id<Service>, expected: Option<u64>) -> Result<(), Error> {
    let found = tx.find(&VERSION, &values![service], |row| row.count(0))?;
    match (found, expected) {
        (None, _) => Err(Error::Missing),
        (Some(found), Some(expected)) if found != expected => Err(Error::Changed),
        (Some(_), _) => Ok(()),
    }
}

fn read(row: &Row<'_>) -> Result<RevisionRow, Error> {
    Ok(RevisionRow {
        revision: row.count(0)?,
        name: row.text(1)?,
        enabled: row.truth(2)?,
        tags: from_json("tags", &row.text(3)?)?,
        environment: row.text(4)?,
        spec: row.text(5)?,
        author: row.text(6)?,
        action: row.text(7)?,
        message: row.maybe_text(8)?,
        created_at: row.time(9)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &ADD,
    &PAGE,
    &GET,
    &AUTHOR,
    &HAS,
    &VERSION,
    &LABELS,
    &LABELLED,
    &PUT_LABEL,
    &REMOVE_LABEL,
    &PURGE,
    &PURGE_LABELS,
];
