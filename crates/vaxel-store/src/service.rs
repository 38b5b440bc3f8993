//! Services and their revisions.

use vaxel_core::{
    audit::AuditLine,
    id::{Id, Service},
    name::ServiceName,
    service::ServiceResource,
    time::Timestamp,
};

use crate::{
    audit, dependency,
    error::Error,
    health, outbox,
    secret::{self, SecretRow},
    sqlite::Tx,
    stmt::{Row, Stmt, Value, values},
    store::Store,
};

/// Which services. Everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceQuery {
    /// Part of name, description, command or URL; case does not matter.
    pub text: Option<String>,
    /// One of its tags.
    pub tag: Option<String>,
    /// Its environment.
    pub environment: Option<String>,
    /// `process`, `mcp` or `builtin`.
    pub source: Option<String>,
    /// The archive instead of what is in use.
    pub deleted: bool,
}

/// An immutable spec, as it was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// Counts from 1.
    pub revision: u64,
    /// The spec, JSON.
    pub spec: String,
    /// Name of the principal.
    pub author: String,
    /// When.
    pub created_at: Timestamp,
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, version, revision, enabled, tags, environment, owner, spec, \
             created_at, updated_at, deleted_at, activated_at FROM services ",
            $rest
        )
    };
}

static BY_ID: Stmt = Stmt::new(columns!("WHERE id = $1"));
static BY_NAME: Stmt = Stmt::new(columns!("WHERE name = $1 AND deleted_at IS NULL"));
static DELETED_BY_NAME: Stmt = Stmt::new(columns!(
    "WHERE name = $1 AND deleted_at IS NOT NULL ORDER BY deleted_at DESC LIMIT 1"
));
static ALL: Stmt = Stmt::new(columns!("WHERE deleted_at IS NULL ORDER BY name"));
// Tags are a JSON array: a whole tag, quotes included, is found as it stands, in its own case (which
// LIKE would not mind here, but would on another engine).
static PAGE: Stmt = Stmt::new(columns!(
    "WHERE (deleted_at IS NOT NULL) = $1 AND (name > $2 OR (name = $2 AND id > $3)) \
     AND ($4 IS NULL OR search LIKE $4 ESCAPE '\\') AND ($5 IS NULL OR replace(tags, $5, '') <> tags) \
     AND ($6 IS NULL OR environment = $6) AND ($7 IS NULL OR source = $7) \
     ORDER BY name, id LIMIT $8"
));
static VERSIONS: Stmt = Stmt::new("SELECT id, version FROM services WHERE deleted_at IS NULL");
static INSERT: Stmt = Stmt::new(
    "INSERT INTO services (id, name, version, revision, enabled, tags, environment, owner, source, \
     spec, search, created_at, updated_at, deleted_at, activated_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
);
static UPDATE: Stmt = Stmt::new(
    "UPDATE services SET name = $2, version = $3, revision = $4, enabled = $5, tags = $6, \
     environment = $7, owner = $8, source = $9, spec = $10, search = $11, created_at = $12, \
     updated_at = $13, deleted_at = $14, activated_at = $15 WHERE id = $1 AND version = $16",
);
static ADD_REVISION: Stmt = Stmt::new(
    "INSERT INTO revisions (service, revision, spec, author, created_at) \
     VALUES ($1, $2, $3, $4, $5)",
);
static REVISIONS: Stmt = Stmt::new(
    "SELECT revision, spec, author, created_at FROM revisions WHERE service = $1 \
     ORDER BY revision DESC",
);
static HAS_REVISION: Stmt =
    Stmt::new("SELECT revision FROM revisions WHERE service = $1 AND revision = $2");
static PURGE: Stmt = Stmt::new("DELETE FROM services WHERE id = $1 AND deleted_at IS NOT NULL");
static PURGE_REVISIONS: Stmt = Stmt::new("DELETE FROM revisions WHERE service = $1");
static PURGE_SECRETS: Stmt = Stmt::new("DELETE FROM secrets WHERE service = $1");
static PURGE_CATALOG: Stmt = Stmt::new("DELETE FROM catalogs WHERE service = $1");

impl Store {
    /// Adds a service with its first revision and its sealed values.
    ///
    /// # Errors
    /// [`Error::Taken`] when another service has the name, [`Error::Circle`] when what it needs needs it.
    pub async fn create_service(
        &self,
        service: &ServiceResource,
        secrets: Vec<SecretRow>,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let service = service.clone();
        self.write("create_service", move |tx| {
            let spec = to_json(&service.spec)?;
            tx.execute(&INSERT, &row_values(&service, &spec)?)?;
            add_revision(tx, &service, &spec, &audit)?;
            dependency::put(tx, &service)?;
            for secret in &secrets {
                secret::insert(tx, secret)?;
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Replaces a service, when it still has the version `expected`. A new revision number stores
    /// the spec as a new revision.
    ///
    /// # Errors
    /// [`Error::Changed`] when it has another version, [`Error::Taken`] when another service has the
    /// name, [`Error::Circle`] when what it needs needs it.
    pub async fn update_service(
        &self,
        service: &ServiceResource,
        expected: u64,
        secrets: Vec<SecretRow>,
        audit: AuditLine,
    ) -> Result<(), Error> {
        let service = service.clone();
        self.write("update_service", move |tx| {
            let spec = to_json(&service.spec)?;
            let mut all = row_values(&service, &spec)?.to_vec();
            all.push(expected.into());
            if tx.execute(&UPDATE, &all)? == 0 {
                return Err(Error::Changed);
            }
            let key = values![service.id, service.revision];
            if tx.find(&HAS_REVISION, &key, |row| row.int(0))?.is_none() {
                add_revision(tx, &service, &spec, &audit)?;
            }
            dependency::put(tx, &service)?;
            for secret in &secrets {
                secret::insert(tx, secret)?;
            }
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// Removes a deleted service for good, with its revisions, sealed values and catalog. Its audit
    /// lines and records of calls stay.
    ///
    /// # Errors
    /// [`Error::Missing`] when no such service is in the archive.
    pub async fn purge_service(&self, id: Id<Service>, audit: AuditLine) -> Result<(), Error> {
        self.write("purge_service", move |tx| {
            if tx.execute(&PURGE, &values![id])? == 0 {
                return Err(Error::Missing);
            }
            for rest in [&PURGE_REVISIONS, &PURGE_SECRETS, &PURGE_CATALOG] {
                tx.execute(rest, &values![id])?;
            }
            dependency::forget(tx, id)?;
            health::purge(tx, id)?;
            audit::append(tx, &audit)?;
            outbox::append(tx, &audit)
        })
        .await
    }

    /// A service, deleted or not.
    pub async fn service(&self, id: Id<Service>) -> Result<Option<ServiceResource>, Error> {
        self.read("service", move |tx| tx.find(&BY_ID, &values![id], read))
            .await
    }

    /// The service that has this name now.
    pub async fn service_by_name(
        &self,
        name: &ServiceName,
    ) -> Result<Option<ServiceResource>, Error> {
        let name = name.to_string();
        self.read("service_by_name", move |tx| {
            tx.find(&BY_NAME, &values![name], read)
        })
        .await
    }

    /// The service of this name that was deleted last.
    pub async fn deleted_service_by_name(
        &self,
        name: &ServiceName,
    ) -> Result<Option<ServiceResource>, Error> {
        let name = name.to_string();
        self.read("deleted_service_by_name", move |tx| {
            tx.find(&DELETED_BY_NAME, &values![name], read)
        })
        .await
    }

    /// Every service that is not deleted, by name. A row that cannot be read is left out and logged:
    /// one bad service must not keep the others from starting.
    pub async fn all_services(&self) -> Result<Vec<ServiceResource>, Error> {
        let rows = self
            .read("all_services", |tx| {
                tx.query(&ALL, &[], |row| Ok((row.text(1)?, read(row))))
            })
            .await?;
        let readable = rows.into_iter().filter_map(|(name, row)| match row {
            Ok(service) => Some(service),
            Err(error) => {
                tracing::error!(service.name = %name, %error, "a stored service is left out");
                None
            }
        });
        Ok(readable.collect())
    }

    /// Id and version of every service that is not deleted.
    pub async fn service_versions(&self) -> Result<Vec<(Id<Service>, u64)>, Error> {
        self.read("service_versions", |tx| {
            tx.query(&VERSIONS, &[], |row| Ok((row.id(0)?, row.count(1)?)))
        })
        .await
    }

    /// A page of services by name, at most `limit`; `cursor` is what the page before returned.
    pub async fn services(
        &self,
        query: ServiceQuery,
        limit: u32,
        cursor: Option<String>,
    ) -> Result<(Vec<ServiceResource>, Option<String>), Error> {
        self.read("services", move |tx| {
            let (name, id) = match cursor.as_deref() {
                Some(text) => text
                    .split_once('/')
                    .ok_or_else(|| Error::Cursor(text.to_owned()))?,
                None => ("", ""),
            };
            let tag = query.tag.as_ref().map(to_json).transpose()?;
            let values = values![
                query.deleted,
                name,
                id,
                query.text.map(|text| like(&searchable(&text))),
                tag,
                query.environment,
                query.source,
                i64::from(limit) + 1,
            ];
            let mut found = tx.query(&PAGE, &values, read)?;
            let more = found.len() > limit as usize;
            found.truncate(limit as usize);
            let last = found.last().filter(|_| more);
            let next = last.map(|service| format!("{}/{}", service.name, service.id));
            Ok((found, next))
        })
        .await
    }

    /// The revisions of a service, newest first.
    pub async fn revisions(&self, service: Id<Service>) -> Result<Vec<RevisionRow>, Error> {
        self.read("revisions", move |tx| {
            tx.query(&REVISIONS, &values![service], |row| {
                Ok(RevisionRow {
                    revision: row.count(0)?,
                    spec: row.text(1)?,
                    author: row.text(2)?,
                    created_at: row.time(3)?,
                })
            })
        })
        .await
    }
}

fn add_revision(
    tx: &mut Tx<'_>,
    service: &ServiceResource,
    spec: &str,
    audit: &AuditLine,
) -> Result<(), Error> {
    let author = audit.actor.as_str();
    let values = values![
        service.id,
        service.revision,
        spec,
        author,
        service.updated_at
    ];
    tx.execute(&ADD_REVISION, &values).map(drop)
}

fn row_values<'a>(service: &'a ServiceResource, spec: &'a str) -> Result<[Value<'a>; 15], Error> {
    let description = service.spec.description.as_deref().unwrap_or_default();
    let search = format!("{} {description} {}", service.name, service.spec.source);
    let search = searchable(&search);
    Ok(values![
        service.id,
        service.name.as_str(),
        service.version,
        service.revision,
        service.enabled,
        to_json(&service.tags)?,
        service.environment.as_str(),
        service.owner.as_str(),
        service.spec.source.kind(),
        spec,
        search,
        service.created_at,
        service.updated_at,
        service.deleted_at,
        service.activated_at,
    ])
}

fn read(row: &Row<'_>) -> Result<ServiceResource, Error> {
    Ok(ServiceResource {
        id: row.id(0)?,
        name: row
            .text(1)?
            .parse()
            .map_err(|error| Error::unreadable("service name", error))?,
        version: row.count(2)?,
        revision: row.count(3)?,
        enabled: row.truth(4)?,
        tags: from_json("tags", &row.text(5)?)?,
        environment: row.text(6)?,
        owner: row.text(7)?,
        spec: from_json("spec", &row.text(8)?)?,
        created_at: row.time(9)?,
        updated_at: row.time(10)?,
        deleted_at: row.maybe_time(11)?,
        activated_at: row.maybe_time(12)?,
    })
}

/// `text` as it is searched. LIKE reads no further than a NUL, so there is none.
fn searchable(text: &str) -> String {
    text.to_lowercase().replace('\0', " ")
}

/// A pattern that finds `text` anywhere.
fn like(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    format!("%{escaped}%")
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::unreadable("value", error))
}

pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::unreadable(what, error))
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[
    &BY_ID,
    &BY_NAME,
    &DELETED_BY_NAME,
    &ALL,
    &PAGE,
    &VERSIONS,
    &INSERT,
    &UPDATE,
    &ADD_REVISION,
    &REVISIONS,
    &HAS_REVISION,
    &PURGE,
    &PURGE_REVISIONS,
    &PURGE_SECRETS,
    &PURGE_CATALOG,
];
