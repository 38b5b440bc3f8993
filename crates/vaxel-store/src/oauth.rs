//! Clients that log in for users, and what users let them do.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, User},
    principal::{Permission, Permissions},
    time::Timestamp,
};

use crate::{
    audit,
    error::Error,
    sign_in::{self, Delegation},
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

/// A client that registered itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthClientRow {
    /// Never changes.
    pub id: String,
    /// What it says about itself, as JSON.
    pub metadata: String,
    /// SHA-256 of its secret, when it has one.
    pub secret: Option<[u8; 32]>,
    /// When it registered.
    pub created_at: Timestamp,
    /// When it last got a token.
    pub used_at: Option<Timestamp>,
}

static INSERT: Stmt = Stmt::new(
    "INSERT INTO oauth_clients (id, metadata, secret, created_at, used_at) VALUES ($1, $2, $3, $4, $5)",
);
static COUNT: Stmt = Stmt::new("SELECT COUNT(*) FROM oauth_clients");
static BY_ID: Stmt =
    Stmt::new("SELECT id, metadata, secret, created_at, used_at FROM oauth_clients WHERE id = $1");
static ALL: Stmt = Stmt::new(
    "SELECT id, metadata, secret, created_at, used_at FROM oauth_clients ORDER BY created_at DESC, id",
);
static REMOVE: Stmt = Stmt::new("DELETE FROM oauth_clients WHERE id = $1");
static REMOVE_CONSENTS: Stmt = Stmt::new("DELETE FROM oauth_consents WHERE client = $1");
static FORGET_WITH: Stmt = Stmt::new(
    "DELETE FROM oauth_consents WHERE client IN (SELECT id FROM oauth_clients \
     WHERE (used_at IS NULL AND created_at < $1) OR used_at < $2)",
);
static USED: Stmt = Stmt::new("UPDATE oauth_clients SET used_at = $2 WHERE id = $1");
static FORGET: Stmt = Stmt::new(
    "DELETE FROM oauth_clients WHERE (used_at IS NULL AND created_at < $1) OR used_at < $2",
);
static CONSENT: Stmt = Stmt::new(
    "SELECT permissions FROM oauth_consents WHERE user_id = $1 AND client = $2 AND endpoint = $3",
);
static ANY_CONSENT: Stmt =
    Stmt::new("SELECT COUNT(*) FROM oauth_consents WHERE user_id = $1 AND client = $2");
static PUT_CONSENT: Stmt = Stmt::new(
    "INSERT INTO oauth_consents (user_id, client, endpoint, permissions, given_at) \
     VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_id, client, endpoint) \
     DO UPDATE SET permissions = $4, given_at = $5",
);
static FORGET_CONSENT: Stmt =
    Stmt::new("DELETE FROM oauth_consents WHERE user_id = $1 AND client = $2 AND endpoint = $3");
static FORGET_CONSENTS: Stmt = Stmt::new("DELETE FROM oauth_consents WHERE user_id = $1");

impl Store {
    /// Adds a client; `false` when there are `most` already. Those that are over before one of these times make
    /// room: the first is for who never got a token, the second for who got none since.
    pub async fn add_oauth_client(
        &self,
        row: OauthClientRow,
        (most, over): (u64, (Timestamp, Timestamp)),
    ) -> Result<bool, Error> {
        self.write("add_oauth_client", move |tx| {
            tx.execute(&FORGET_WITH, &values![over.0, over.1])?;
            tx.execute(&FORGET, &values![over.0, over.1])?;
            if tx.find(&COUNT, &[], |row| row.count(0))?.unwrap_or(0) >= most {
                return Ok(false);
            }
            let values = values![
                row.id.as_str(),
                row.metadata.as_str(),
                row.secret.as_ref().map(|secret| &secret[..]),
                row.created_at,
                row.used_at,
            ];
            tx.execute(&INSERT, &values)?;
            Ok(true)
        })
        .await
    }

    /// A client that registered itself.
    pub async fn oauth_client(&self, id: &str) -> Result<Option<OauthClientRow>, Error> {
        let id = id.to_owned();
        self.read("oauth_client", move |tx| {
            tx.find(&BY_ID, &values![id.as_str()], read)
        })
        .await
    }

    /// The clients that registered themselves, newest first.
    pub async fn oauth_clients(&self) -> Result<Vec<OauthClientRow>, Error> {
        self.read("oauth_clients", move |tx| tx.query(&ALL, &[], read))
            .await
    }

    /// Removes a client, with its sign-ins and what users let it do; returns how many sign-ins ended.
    ///
    /// # Errors
    /// [`Error::Missing`] when there is none.
    pub async fn remove_oauth_client(&self, id: &str, audit: AuditLine) -> Result<usize, Error> {
        let id = id.to_owned();
        self.write("remove_oauth_client", move |tx| {
            if tx.execute(&REMOVE, &values![id.as_str()])? == 0 {
                return Err(Error::Missing);
            }
            tx.execute(&REMOVE_CONSENTS, &values![id.as_str()])?;
            let ended = sign_in::end_of_client(tx, &id, audit.at)?;
            let mut audit = audit.clone();
            audit.detail["sign_ins"] = ended.into();
            audit::append(tx, &audit)?;
            Ok(ended)
        })
        .await
    }

    /// Notes that a client got a token.
    pub async fn note_oauth_client_use(&self, id: &str, at: Timestamp) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("note_oauth_client_use", move |tx| {
            tx.put(&USED, &values![id.as_str(), at])
        })
        .await
    }

    /// What a user let a client do at an endpoint.
    pub async fn oauth_consent(
        &self,
        user: Id<User>,
        (client, endpoint): (&str, &str),
    ) -> Result<Option<Permissions>, Error> {
        let (client, endpoint) = (client.to_owned(), endpoint.to_owned());
        self.read("oauth_consent", move |tx| {
            let values = values![user, client.as_str(), endpoint.as_str()];
            let found = tx.find(&CONSENT, &values, |row| row.text(0))?;
            let read = |text: String| serde_json::from_str(&text);
            let found = found.map(read).transpose();
            found.map_err(|error| Error::unreadable("consent", error))
        })
        .await
    }

    /// Whether a user lets a client do anything anywhere.
    pub async fn has_oauth_consent(&self, user: Id<User>, client: &str) -> Result<bool, Error> {
        let client = client.to_owned();
        self.read("has_oauth_consent", move |tx| {
            let found = tx.find(&ANY_CONSENT, &values![user, client.as_str()], |row| {
                row.count(0)
            })?;
            Ok(found.is_some_and(|count| count > 0))
        })
        .await
    }

    /// Remembers what a user lets a client do at an endpoint.
    pub async fn put_oauth_consent(
        &self,
        user: Id<User>,
        (client, endpoint, permissions): (&str, &str, Permissions),
        audit: AuditLine,
    ) -> Result<(), Error> {
        let (client, endpoint) = (client.to_owned(), endpoint.to_owned());
        let names: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
        let permissions = serde_json::to_string(&names);
        let permissions = permissions.map_err(|error| Error::unreadable("consent", error))?;
        self.write("put_oauth_consent", move |tx| {
            let values = values![
                user,
                client.as_str(),
                endpoint.as_str(),
                permissions.as_str(),
                audit.at,
            ];
            tx.execute(&PUT_CONSENT, &values)?;
            audit::append(tx, &audit)
        })
        .await
    }
}

/// What was given to a client is over: it is asked about again.
pub(crate) fn forget_consent(
    tx: &mut Tx<'_>,
    user: Id<User>,
    given: &Delegation,
) -> Result<(), Error> {
    let values = values![user, given.client.as_str(), given.endpoint.as_str()];
    tx.put(&FORGET_CONSENT, &values)
}

/// A user is asked again about every client.
pub(crate) fn forget_consents(tx: &mut Tx<'_>, user: Id<User>) -> Result<(), Error> {
    tx.put(&FORGET_CONSENTS, &values![user])
}

fn read(row: &Row<'_>) -> Result<OauthClientRow, Error> {
    let secret = row.maybe_blob(2)?.map(TryInto::try_into).transpose();
    Ok(OauthClientRow {
        id: row.text(0)?,
        metadata: row.text(1)?,
        secret: secret
            .map_err(|_| Error::unreadable("secret of a client", "it has not 32 bytes"))?,
        created_at: row.time(3)?,
        used_at: row.maybe_time(4)?,
    })
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &INSERT,
    &COUNT,
    &BY_ID,
    &ALL,
    &REMOVE,
    &REMOVE_CONSENTS,
    &FORGET_WITH,
    &USED,
    &FORGET,
    &CONSENT,
    &ANY_CONSENT,
    &PUT_CONSENT,
    &FORGET_CONSENT,
    &FORGET_CONSENTS,
];
