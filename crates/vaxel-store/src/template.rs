//! Templates. A deleted one keeps its row: its versions go on counting when it is made again.

use std::collections::BTreeMap;

use serde_json::Map;
use vaxel_core::{
    audit::AuditLine,
    failure::Issue,
    service::stored,
    template::{Template, TemplateName},
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    left_out::Every,
    outbox,
    service::{from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// A template as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRow {
    /// What it says; nothing but its name, when that cannot be read.
    pub template: Template,
    /// Why it cannot be read.
    pub issues: Vec<Issue>,
    /// Counts every write; `If-Match` compares it.
    pub version: u64,
    /// Name of the principal that wrote it last.
    pub author: String,
    /// First made.
    pub created_at: Timestamp,
    /// Last written.
    pub updated_at: Timestamp,
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT template, version, author, created_at, updated_at, name FROM templates ",
            $rest
        )
    };
}

static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1 AND deleted_at IS NULL"));
static ALL: Stmt = Stmt::new(columns!("WHERE deleted_at IS NULL ORDER BY name"));
static VERSIONS: Stmt = Stmt::new("SELECT name, version FROM templates WHERE deleted_at IS NULL");
static INSERT: Stmt = Stmt::new(
    "INSERT INTO templates (name, version, template, author, created_at, updated_at, deleted_at) \
     VALUES ($1, 1, $2, $3, $4, $4, NULL)",
);
static REVIVE: Stmt = Stmt::new(
    "UPDATE templates SET version = version + 1, template = $2, author = $3, created_at = $4, \
     updated_at = $4, deleted_at = NULL WHERE name = $1 AND deleted_at IS NOT NULL",
);
static UPDATE: Stmt = Stmt::new(
    "UPDATE templates SET version = version + 1, template = $2, author = $3, updated_at = $4 \
     WHERE name = $1 AND version = $5 AND deleted_at IS NULL",
);
static DELETE: Stmt = Stmt::new(
    "UPDATE templates SET version = version + 1, author = $2, deleted_at = $3 \
     WHERE name = $1 AND version = $4 AND deleted_at IS NULL",
);
static EVERY: Every<TemplateRow> = Every {
    name: "templates",
    what: "template",
    stmt: &ALL,
    label: 5,
    read,
};

impl Store {
    /// Adds a template.
    ///
    /// # Errors
    /// [`Error::Taken`] when there is one of this name.
    pub async fn create_template(
        &self,
        template: &Template,
        audit: AuditLine,
    ) -> Result<TemplateRow, Error> {
        let template = template.clone();
        self.write("create_template", move |tx| {
            let (name, text) = (template.name.as_str(), text_of(&template)?);
            let author = audit.actor.as_str();
            let revived = values![name, text.as_str(), author, audit.at];
            if tx.execute(&REVIVE, &revived)? == 0 {
                tx.execute(&INSERT, &revived)?;
            }
            finish(tx, &template.name, &audit)
        })
        .await
    }

    /// Replaces a template, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another one, or is gone.
    pub async fn update_template(
        &self,
        template: &Template,
        expected: u64,
        audit: AuditLine,
    ) -> Result<TemplateRow, Error> {
        let template = template.clone();
        self.write("update_template", move |tx| {
            let text = text_of(&template)?;
            let name = template.name.as_str();
            let values = values![name, text, audit.actor.as_str(), audit.at, expected];
            if tx.execute(&UPDATE, &values)? == 0 {
                return Err(Error::Changed);
            }
            finish(tx, &template.name, &audit)
        })
        .await
    }

    /// Deletes a template, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another one, or is gone.
    pub async fn delete_template(
        &self,
        name: &TemplateName,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let name = name.to_string();
        self.write("delete_template", move |tx| {
            let values = values![name.as_str(), audit.actor.as_str(), audit.at, expected];
            if tx.execute(&DELETE, &values)? == 0 {
                return Err(Error::Changed);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// The template of this name.
    pub async fn template(&self, name: &TemplateName) -> Result<Option<TemplateRow>, Error> {
        let name = name.to_string();
        self.read("template", move |tx| {
            tx.find(&BY_NAME, &values![name], read)
        })
        .await
    }

    /// Every template, by name. One that cannot be read has an issue instead; one without a name is left out.
    pub async fn templates(&self) -> Result<Vec<TemplateRow>, Error> {
        self.read_every(&EVERY).await
    }

    /// Name and version of every template.
    pub async fn template_versions(&self) -> Result<Vec<(String, u64)>, Error> {
        self.read("template_versions", |tx| {
            tx.query(&VERSIONS, &[], |row| Ok((row.text(0)?, row.count(1)?)))
        })
        .await
    }
}

fn finish(tx: &mut Tx<'_>, name: &TemplateName, audit: &AuditLine) -> Result<TemplateRow, Error> {
    audit::append(tx, audit)?;
    outbox::append(tx, audit)?;
    let written = tx.find(&BY_NAME, &values![name.as_str()], read)?;
    written.ok_or(Error::Missing)
}

/// What is stored of a template: its spec says its format, as those of services do.
fn text_of(template: &Template) -> Result<String, Error> {
    let mut template = template.clone();
    stored::mark(&mut template.spec);
    to_json(&template)
}

fn template_of(text: &str) -> Result<Template, Issue> {
    let read: Result<Template, Error> = from_json("template", text);
    let mut template = read.map_err(|error| Issue::new("", error.with_reason()))?;
    stored::upgrade_marked(&mut template.spec)?;
    Ok(template)
}

/// What stands for a template that cannot be read.
fn unread(name: TemplateName) -> Template {
    Template {
        name,
        description: None,
        parameters: BTreeMap::new(),
        extends: None,
        spec: Map::new(),
        approved: false,
    }
}

fn read(row: &Row<'_>) -> Result<TemplateRow, Error> {
    let name: String = row.text(5)?;
    let name: TemplateName = name
        .parse()
        .map_err(|error| Error::unreadable("template name", error))?;
    let (template, issues) = match template_of(&row.text(0)?) {
        Ok(template) => (template, Vec::new()),
        Err(issue) => (unread(name), vec![issue]),
    };
    Ok(TemplateRow {
        template,
        issues,
        version: row.count(1)?,
        author: row.text(2)?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &BY_NAME, &ALL, &VERSIONS, &INSERT, &REVIVE, &UPDATE, &DELETE,
];
