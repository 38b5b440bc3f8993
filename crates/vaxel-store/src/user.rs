//! Users. One that is gone keeps its row: its name is never given again.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, User},
    name::UserName,
    user::UserResource,
};

use crate::{
    audit,
    error::Error,
    grant, key,
    left_out::Every,
    oauth, outbox,
    service::{self, from_json, to_json},
    stmt::{Row, Stmt, values},
    store::Store,
    upstream_token,
};

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, kind, version, title, roles, disabled, created_at, updated_at, \
             deleted_at, limits FROM users ",
            $rest
        )
    };
}

static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1"));
static ALL: Stmt = Stmt::new(columns!("ORDER BY name"));
static INSERT: Stmt = Stmt::new(
    "INSERT INTO users (id, name, kind, version, title, roles, disabled, created_at, updated_at, \
     deleted_at, limits) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
);
static UPDATE: Stmt = Stmt::new(
    "UPDATE users SET version = $2, title = $3, roles = $4, disabled = $5, updated_at = $6, \
     deleted_at = $7, limits = $8 WHERE id = $1 AND version = $9",
);
static EVERY: Every<UserResource> = Every {
    name: "users",
    what: "user",
    stmt: &ALL,
    label: 1,
    read,
};

impl Store {
    /// Adds a user.
    ///
    /// # Errors
    /// [`Error::Taken`] when another user has the name, or had it.
    pub async fn create_user(&self, user: &UserResource, audit: AuditLine) -> Result<(), Error> {
        let user = user.clone();
        self.write("create_user", move |tx| {
            let limits = limits(&user)?;
            let values = values![
                user.id,
                user.name.as_str(),
                user.kind.as_str(),
                user.version,
                user.title.as_deref(),
                to_json(&user.roles)?,
                user.disabled,
                user.created_at,
                user.updated_at,
                user.deleted_at,
                limits.as_deref(),
            ];
            tx.execute(&INSERT, &values)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Replaces a user, when it still has the version `expected`; name and kind stay. With
    /// `deleted_at` it is gone from now on: what is shared with it and its keys go with it, and what it
    /// owns becomes `heir`'s. What one who is gone or disabled let clients do is over.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version.
    pub async fn update_user(
        &self,
        user: &UserResource,
        (expected, heir): (u64, Option<UserName>),
        audit: AuditLine,
    ) -> Result<(), Error> {
        let user = user.clone();
        self.write("update_user", move |tx| {
            let limits = limits(&user)?;
            let values = values![
                user.id,
                user.version,
                user.title.as_deref(),
                to_json(&user.roles)?,
                user.disabled,
                user.updated_at,
                user.deleted_at,
                limits.as_deref(),
                expected,
            ];
            if tx.execute(&UPDATE, &values)? == 0 {
                return Err(Error::Changed);
            }
            if user.disabled || user.deleted_at.is_some() {
                oauth::forget_consents(tx, user.id)?;
            }
            if let Some(at) = user.deleted_at {
                let name = user.name.as_str();
                grant::forget_grantee(tx, &format!("user:{name}"))?;
                upstream_token::forget_holder(tx, &format!("user:{name}"))?;
                key::revoke_all(tx, name, at)?;
                if let Some(heir) = &heir {
                    service::hand_over(tx, (name, heir.as_str()), at)?;
                }
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// The user who has this name, or had it.
    pub async fn user(&self, name: &UserName) -> Result<Option<UserResource>, Error> {
        let name = name.to_string();
        self.read("user", move |tx| tx.find(&BY_NAME, &values![name], read))
            .await
    }

    /// Every user, also those who are gone, by name. A row that cannot be read is left out.
    pub async fn users(&self) -> Result<Vec<UserResource>, Error> {
        self.read_every(&EVERY).await
    }

    /// The user of this id.
    pub async fn user_by_id(&self, id: Id<User>) -> Result<Option<UserResource>, Error> {
        self.read("user_by_id", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }
}

fn limits(user: &UserResource) -> Result<Option<String>, Error> {
    user.limits.as_ref().map(to_json).transpose()
}

fn read(row: &Row<'_>) -> Result<UserResource, Error> {
    Ok(UserResource {
        id: row.id(0)?,
        name: row
            .text(1)?
            .parse()
            .map_err(|error| Error::unreadable("user name", error))?,
        kind: row
            .text(2)?
            .parse()
            .map_err(|error| Error::unreadable("kind of user", error))?,
        version: row.count(3)?,
        title: row.maybe_text(4)?,
        roles: from_json("roles of a user", &row.text(5)?)?,
        disabled: row.truth(6)?,
        created_at: row.time(7)?,
        updated_at: row.time(8)?,
        deleted_at: row.maybe_time(9)?,
        limits: match row.maybe_text(10)? {
            Some(text) => Some(from_json("limits of a user", &text)?),
            None => None,
        },
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&BY_NAME, &ALL, &INSERT, &UPDATE, &BY_ID];
