//! Policies.

use vaxel_core::{
    audit::AuditLine,
    failure::Issue,
    id::{Id, Policy},
    name::PolicyName,
    policy::{PolicyDraft, PolicyResource},
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
            "SELECT id, version, policy, created_at, updated_at, name FROM policies ",
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

/// The name of a policy whose own cannot be read.
const UNREADABLE: &str = "unreadable";

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

    /// Every policy, by name. One that cannot be read denies everything ([`PolicyDraft::unreadable`]),
    /// since without a policy that denies more would be allowed.
    pub async fn policies(&self) -> Result<Vec<PolicyResource>, Error> {
        self.read("policies", |tx| tx.query(&ALL, &[], read)).await
    }
}

fn read(row: &Row<'_>) -> Result<PolicyResource, Error> {
    let stored: Result<PolicyDraft, Error> =
        row.text(2).and_then(|text| from_json("policy", &text));
    let (id, mut issues) = match row.id(0) {
        Ok(id) => (id, Vec::new()),
        Err(error) => (Id::NIL, vec![Issue::new("id", error.with_reason())]),
    };
    let draft = stored.or_else(|error| {
        issues.push(Issue::new("", error.with_reason()));
        let name = row.text(5)?.parse().or_else(|_| UNREADABLE.parse());
        let name = name.map_err(|error| Error::unreadable("policy name", error))?;
        Ok::<_, Error>(PolicyDraft::unreadable(name))
    })?;
    Ok(PolicyResource {
        id,
        version: row.count(1)?,
        draft,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
        issues,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&BY_ID, &BY_NAME, &ALL, &INSERT, &UPDATE, &DELETE];
