//! Grants: which services are shared with whom.

use vaxel_core::{
    audit::AuditLine,
    grant::GrantResource,
    id::{Grant, Id, Service},
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

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, grantee, service, permissions, granted_by, created_at FROM grants ",
            $rest
        )
    };
}

static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static ALL: Stmt = Stmt::new(columns!("ORDER BY id"));
static INSERT: Stmt = Stmt::new(
    "INSERT INTO grants (id, grantee, service, permissions, granted_by, created_at) \
     VALUES ($1, $2, $3, $4, $5, $6)",
);
static DELETE: Stmt = Stmt::new("DELETE FROM grants WHERE id = $1");
static FORGET: Stmt = Stmt::new("DELETE FROM grants WHERE service = $1");
static FORGET_GRANTEE: Stmt = Stmt::new("DELETE FROM grants WHERE grantee = $1");
static EVERY: Every<GrantResource> = Every {
    name: "grants",
    what: "grant",
    stmt: &ALL,
    label: 0,
    read,
};

impl Store {
    /// Shares a service.
    ///
    /// # Errors
    /// [`Error::Taken`] when it is shared with them already.
    pub async fn create_grant(&self, grant: &GrantResource, audit: AuditLine) -> Result<(), Error> {
        let grant = grant.clone();
        self.write("create_grant", move |tx| {
            let values = values![
                grant.id,
                grant.to.to_string(),
                grant.service,
                to_json(&grant.permissions)?,
                grant.granted_by.as_str(),
                grant.created_at,
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Ends a grant.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is no such grant.
    pub async fn delete_grant(&self, id: Id<Grant>, audit: AuditLine) -> Result<(), Error> {
        self.write("delete_grant", move |tx| {
            if tx.execute(&DELETE, &values![id])? == 0 {
                return Err(Error::Missing);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// The grant of this id.
    pub async fn grant(&self, id: Id<Grant>) -> Result<Option<GrantResource>, Error> {
        self.read("grant", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }

    /// Every grant, oldest first. A row that cannot be read is left out.
    pub async fn grants(&self) -> Result<Vec<GrantResource>, Error> {
        self.read_every(&EVERY).await
    }
}

/// A service is shared with nobody any more.
pub(crate) fn forget(tx: &mut Tx<'_>, service: Id<Service>) -> Result<(), Error> {
    tx.put(&FORGET, &values![service])
}

/// Nothing is shared any more with `grantee`, `user:NAME` or `role:NAME`.
pub(crate) fn forget_grantee(tx: &mut Tx<'_>, grantee: &str) -> Result<(), Error> {
    tx.put(&FORGET_GRANTEE, &values![grantee])
}

fn read(row: &Row<'_>) -> Result<GrantResource, Error> {
    Ok(GrantResource {
        id: row.id(0)?,
        to: row
            .text(1)?
            .parse()
            .map_err(|error| Error::unreadable("grantee", error))?,
        service: row.id(2)?,
        permissions: from_json("permissions of a grant", &row.text(3)?)?,
        granted_by: row.text(4)?,
        created_at: row.time(5)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] =
    &[&BY_ID, &ALL, &INSERT, &DELETE, &FORGET, &FORGET_GRANTEE];
