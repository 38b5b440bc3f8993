//! Sets.

use vaxel_core::{
    audit::AuditLine,
    failure::Issue,
    id::{Id, Toolset},
    name::ToolsetName,
    toolset::{ToolsetResource, View},
};

use crate::{
    audit,
    error::Error,
    left_out::Every,
    outbox,
    service::{from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
};

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, version, description, services, created_at, updated_at, shown \
             FROM toolsets ",
            $rest
        )
    };
}

static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1"));
static ALL: Stmt = Stmt::new(columns!("ORDER BY name"));
static INSERT: Stmt = Stmt::new(
    "INSERT INTO toolsets (id, name, version, description, services, created_at, updated_at, shown) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
);
static UPDATE: Stmt = Stmt::new(
    "UPDATE toolsets SET name = $2, version = $3, description = $4, services = $5, \
     updated_at = $6, shown = $8 WHERE id = $1 AND version = $7",
);
static DELETE: Stmt = Stmt::new("DELETE FROM toolsets WHERE id = $1 AND version = $2");
static EVERY: Every<ToolsetResource> = Every {
    name: "all_toolsets",
    what: "set",
    stmt: &ALL,
    label: 1,
    read,
};

impl Store {
    /// Adds a set.
    ///
    /// # Errors
    /// [`Error::Taken`] when another set has the name.
    pub async fn create_toolset(
        &self,
        toolset: &ToolsetResource,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let toolset = toolset.clone();
        self.write("create_toolset", move |tx| {
            let values = values![
                toolset.id,
                toolset.name.as_str(),
                toolset.version,
                toolset.description.as_deref(),
                to_json(&toolset.services)?,
                toolset.created_at,
                toolset.updated_at,
                toolset.view.as_str(),
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Replaces a set, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version or is gone, [`Error::Taken`] when another set
    /// has the name.
    pub async fn update_toolset(
        &self,
        toolset: &ToolsetResource,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let toolset = toolset.clone();
        self.write("update_toolset", move |tx| {
            let values = values![
                toolset.id,
                toolset.name.as_str(),
                toolset.version,
                toolset.description.as_deref(),
                to_json(&toolset.services)?,
                toolset.updated_at,
                expected,
                toolset.view.as_str(),
            ];
            if tx.execute(&UPDATE, &values)? == 0 {
                return Err(Error::Changed);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Removes a set for good, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version or is gone.
    pub async fn delete_toolset(
        &self,
        id: Id<Toolset>,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("delete_toolset", move |tx| {
            if tx.execute(&DELETE, &values![id, expected])? == 0 {
                return Err(Error::Changed);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// The set of this id.
    pub async fn toolset(&self, id: Id<Toolset>) -> Result<Option<ToolsetResource>, Error> {
        self.read("toolset", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }

    /// The set of this name.
    pub async fn toolset_by_name(
        &self,
        name: &ToolsetName,
    ) -> Result<Option<ToolsetResource>, Error> {
        let name = name.to_string();
        self.read("toolset_by_name", move |tx| {
            tx.find(&BY_NAME, &values![name], read)
        })
        .await
    }

    /// Every set, by name. One whose services cannot be read has an issue instead; one without a name
    /// or an id is left out: one bad set must not take the others away.
    pub async fn all_toolsets(&self) -> Result<Vec<ToolsetResource>, Error> {
        self.read_every(&EVERY).await
    }
}

fn read(row: &Row<'_>) -> Result<ToolsetResource, Error> {
    let mut issues = Vec::new();
    let services = from_json("services of a set", &row.text(4)?).unwrap_or_else(|error| {
        issues.push(Issue::new("services", error.to_string()));
        Vec::new()
    });
    let view = row.text(7)?.parse().unwrap_or_else(|error: &str| {
        issues.push(Issue::new("view", error));
        View::default()
    });
    Ok(ToolsetResource {
        id: row.id(0)?,
        name: row
            .text(1)?
            .parse()
            .map_err(|error| Error::unreadable("set name", error))?,
        version: row.count(2)?,
        description: row.maybe_text(3)?,
        services,
        created_at: row.time(5)?,
        updated_at: row.time(6)?,
        view,
        issues,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&BY_ID, &BY_NAME, &ALL, &INSERT, &UPDATE, &DELETE];
