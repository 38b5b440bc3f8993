//! Policies.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Policy},
    name::PolicyName,
    policy::PolicyResource,
};

use crate::{
    audit,
    error::Error,
    outbox,
    service::{from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
};

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, version, policy, created_at, updated_at FROM policies ",
            $rest
        )
    };
}

static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1"));
static ALL: Stmt = Stmt::new(columns!("ORDER BY name"));
static INSERT: Stmt = Stmt::new(
    "INSERT INTO policies (id, name, version, policy, created_at, updated_at) \
     VALUES ($1, $2, $3, $4, $5, $6)",
);
static UPDATE: Stmt = Stmt::new(
    "UPDATE policies SET name = $2, version = $3, policy = $4, updated_at = $5 \
     WHERE id = $1 AND version = $6",
);
static DELETE: Stmt = Stmt::new("DELETE FROM policies WHERE id = $1 AND version = $2");

impl Store {
    /// Adds a policy.
    ///
    /// # Errors
    /// [`Error::Taken`] when another policy has the name.
    pub async fn create_policy(
        &self,
        policy: &PolicyResource,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let policy = policy.clone();
        self.write("create_policy", move |tx| {
            let values = values![
                policy.id,
                policy.draft.name.as_str(),
                policy.version,
                to_json(&policy.draft)?,
                policy.created_at,
                policy.updated_at,
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Replaces a policy, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version or is gone, [`Error::Taken`] when another policy
    /// has the name.
    pub async fn update_policy(
        &self,
        policy: &PolicyResource,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let policy = policy.clone();
        self.write("update_policy", move |tx| {
            let values = values![
                policy.id,
                policy.draft.name.as_str(),
                policy.version,
                to_json(&policy.draft)?,
                policy.updated_at,
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

    /// Removes a policy for good, when it still has the version `expected`.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version or is gone.
    pub async fn delete_policy(
        &self,
        id: Id<Policy>,
        expected: u64,
        audit: AuditLine,
    ) -> Result<(), Error> {
        self.write("delete_policy", move |tx| {
            if tx.execute(&DELETE, &values![id, expected])? == 0 {
                return Err(Error::Changed);
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// The policy of this id.
    pub async fn policy(&self, id: Id<Policy>) -> Result<Option<PolicyResource>, Error> {
        self.read("policy", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }

    /// The policy of this name.
    pub async fn policy_by_name(&self, name: &PolicyName) -> Result<Option<PolicyResource>, Error> {
        let name = name.to_string();
        self.read("policy_by_name", move |tx| {
            tx.find(&BY_NAME, &values![name], read)
        })
        .await
    }

    /// Every policy, by name.
    ///
    /// # Errors
    /// Also when one of them cannot be read: without a policy that denies, more would be allowed.
    pub async fn policies(&self) -> Result<Vec<PolicyResource>, Error> {
        self.read("policies", |tx| tx.query(&ALL, &[], read)).await
    }
}

fn read(row: &Row<'_>) -> Result<PolicyResource, Error> {
    Ok(PolicyResource {
        id: row.id(0)?,
        version: row.count(1)?,
        draft: from_json("policy", &row.text(2)?)?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&BY_ID, &BY_NAME, &ALL, &INSERT, &UPDATE, &DELETE];
