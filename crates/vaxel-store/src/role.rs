//! Roles that somebody made; those that are built in are not stored.

use vaxel_core::{audit::AuditLine, name::RoleName, quota::Quota, role::RoleResource};

use crate::{
    audit,
    error::Error,
    grant,
    left_out::Every,
    outbox,
    service::{from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
};

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT name, version, description, permissions, created_at, updated_at, limits FROM roles ",
            $rest
        )
    };
}

static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1"));
static ALL: Stmt = Stmt::new(columns!("ORDER BY name"));
static INSERT: Stmt = Stmt::new(
    "INSERT INTO roles (name, version, description, permissions, created_at, updated_at, limits) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)",
);
static UPDATE: Stmt = Stmt::new(
    "UPDATE roles SET version = $2, description = $3, permissions = $4, updated_at = $5, limits = $6 \
     WHERE name = $1 AND version = $7",
);
static DELETE: Stmt = Stmt::new("DELETE FROM roles WHERE name = $1 AND version = $2");
static EVERY: Every<RoleResource> = Every {
    name: "roles",
    what: "role",
    stmt: &ALL,
    label: 0,
    read,
};

impl Store {
    /// Adds a role.
    ///
    /// # Errors
    /// [`Error::Taken`] when another role has the name.
    pub async fn create_role(&self, role: &RoleResource, audit: AuditLine) -> Result<(), Error> {
        let role = role.clone();
        self.write("create_role", move |tx| {
            let values = values![
                role.name.as_str(),
                role.version,
                role.description.as_deref(),
                to_json(&role.permissions)?,
                role.created_at,
                role.updated_at,
                to_json(&role.limits)?,
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Replaces a role, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version or is gone.
    pub async fn update_role(
        &self,
        role: &RoleResource,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let role = role.clone();
        self.write("update_role", move |tx| {
            let values = values![
                role.name.as_str(),
                role.version,
                role.description.as_deref(),
                to_json(&role.permissions)?,
                role.updated_at,
                to_json(&role.limits)?,
                expected,
            ];
            if tx.execute(&UPDATE, &values)? == 0 {
                return Err(Error::Changed);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Removes a role for good, with what is shared with it, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version or is gone.
    pub async fn delete_role(
        &self,
        name: &RoleName,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let name = name.to_string();
        self.write("delete_role", move |tx| {
            if tx.execute(&DELETE, &values![name.as_str(), expected])? == 0 {
                return Err(Error::Changed);
            }
            grant::forget_grantee(tx, &format!("role:{name}"))?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// The role of this name that somebody made.
    pub async fn role(&self, name: &RoleName) -> Result<Option<RoleResource>, Error> {
        let name = name.to_string();
        self.read("role", move |tx| tx.find(&BY_NAME, &values![name], read))
            .await
    }

    /// Every role that somebody made, by name. A row that cannot be read is left out.
    pub async fn roles(&self) -> Result<Vec<RoleResource>, Error> {
        self.read_every(&EVERY).await
    }
}

fn read(row: &Row<'_>) -> Result<RoleResource, Error> {
    Ok(RoleResource {
        name: row
            .text(0)?
            .parse()
            .map_err(|error| Error::unreadable("role name", error))?,
        version: row.count(1)?,
        description: row.maybe_text(2)?,
        permissions: from_json("permissions of a role", &row.text(3)?)?,
        created_at: row.time(4)?,
        updated_at: row.time(5)?,
        limits: match row.maybe_text(6)? {
            Some(text) => from_json("limits of a role", &text)?,
            None => Quota::NONE,
        },
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&BY_NAME, &ALL, &INSERT, &UPDATE, &DELETE];
