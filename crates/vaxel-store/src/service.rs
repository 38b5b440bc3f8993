//! Services and their revisions.

use std::collections::{HashMap, HashSet};

use vaxel_core::{
    audit::AuditLine,
    failure::Issue,
    id::{Id, Service},
    name::{ServiceName, UserName},
    service::{
        ServiceResource, ServiceSpec,
        stored::{self, Defect},
    },
    time::Timestamp,
};

use crate::{
    audit, dependency,
    error::Error,
    grant, health,
    left_out::Every,
    outbox, revision,
    secret::{self, SecretRow},
    stmt::{Row, Stmt, Value, values},
    store::Store,
    tx::Tx,
    upstream_token,
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
    /// Name of the principal that created it.
    pub owner: Option<String>,
    /// The archive instead of what is in use.
    pub deleted: bool,
}

/// What a list of services is sorted by. Those that are equal in it are sorted by their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceOrder {
    /// Name.
    Name,
    /// When they were made.
    Created,
    /// When they were written last.
    Updated,
}

/// A place in a list of services: right behind this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePosition {
    /// Its name, or the time that the list is sorted by, in milliseconds.
    pub key: String,
    /// Its id.
    pub id: String,
}

/// What a list needs to know of every service, to choose the few that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEntry {
    /// The service.
    pub id: Id<Service>,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Where it belongs.
    pub environment: String,
    /// Whose it is.
    pub owner: String,
}

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, version, revision, enabled, tags, environment, owner, spec, \
             created_at, updated_at, deleted_at, activated_at, source FROM services ",
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
macro_rules! matching {
    () => {
        "(CASE WHEN deleted_at IS NULL THEN 0 ELSE 1 END) = $1 AND ($2 IS NULL OR search LIKE $2 ESCAPE '\\') \
         AND ($3 IS NULL OR replace(tags, $3, '') <> tags) AND ($4 IS NULL OR environment = $4) \
         AND ($5 IS NULL OR source = $5) AND ($6 IS NULL OR owner = $6)"
    };
}
macro_rules! page {
    ($by:literal, $beyond:literal, $direction:literal) => {
        concat!(
            columns!("WHERE "),
            matching!(),
            " AND (",
            $by,
            ", id) ",
            $beyond,
            " ($7, $8) ORDER BY ",
            $by,
            $direction,
            ", id",
            $direction,
            " LIMIT $9"
        )
    };
}
static BY_NAME_UP: Stmt = Stmt::new(page!("name", ">", ""));
static BY_NAME_DOWN: Stmt = Stmt::new(page!("name", "<", " DESC"));
static CREATED_UP: Stmt = Stmt::new(page!("created_at", ">", ""));
static CREATED_DOWN: Stmt = Stmt::new(page!("created_at", "<", " DESC"));
static UPDATED_UP: Stmt = Stmt::new(page!("updated_at", ">", ""));
static UPDATED_DOWN: Stmt = Stmt::new(page!("updated_at", "<", " DESC"));
static ENTRIES: Stmt = Stmt::new(concat!(
    "SELECT id, name, tags, environment, owner FROM services WHERE ",
    matching!()
));
static OF_OTHER_FORMATS: Stmt =
    Stmt::new("SELECT id, spec FROM services WHERE spec NOT LIKE $1 ORDER BY id");
static RENEW: Stmt = Stmt::new("UPDATE services SET spec = $3 WHERE id = $1 AND spec = $2");
static NAME: Stmt = Stmt::new("SELECT name FROM services WHERE id = $1");
static DELETED_BEFORE: Stmt =
    Stmt::new("SELECT id, name FROM services WHERE deleted_at < $1 ORDER BY deleted_at LIMIT $2");
static VERSIONS: Stmt = Stmt::new("SELECT id, version FROM services WHERE deleted_at IS NULL");
static NAMES: Stmt = Stmt::new("SELECT name FROM services WHERE deleted_at IS NULL");
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
static OWNED: Stmt = Stmt::new("SELECT id FROM services WHERE owner = $1");
static HAND_OVER: Stmt = Stmt::new(
    "UPDATE services SET owner = $2, version = version + 1, updated_at = $3 WHERE owner = $1",
);
static PURGE: Stmt = Stmt::new("DELETE FROM services WHERE id = $1 AND deleted_at IS NOT NULL");
static PURGE_SECRETS: Stmt = Stmt::new("DELETE FROM secrets WHERE service = $1");
static PURGE_CATALOG: Stmt = Stmt::new("DELETE FROM catalogs WHERE service = $1");
static EVERY: Every<ServiceResource> = Every {
    name: "all_services",
    what: "service",
    stmt: &ALL,
    label: 1,
    read,
};

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
            let spec = spec_text(&service)?;
            tx.execute(&INSERT, &row_values(&service, &spec)?)?;
            revision::keep(tx, (&service, &spec), &audit)?;
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
    /// the spec as a new revision. What goes into the archive is shared with nobody any more.
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
            let spec = spec_text(&service)?;
            let mut all = row_values(&service, &spec)?.to_vec();
            all.push(expected.into());
            if tx.execute(&UPDATE, &all)? == 0 {
                return Err(Error::Changed);
            }
            revision::keep(tx, (&service, &spec), &audit)?;
            dependency::put(tx, &service)?;
            if service.deleted_at.is_some() {
                grant::forget(tx, service.id)?;
            }
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
            revision::purge(tx, id)?;
            for rest in [&PURGE_SECRETS, &PURGE_CATALOG] {
                tx.execute(rest, &values![id])?;
            }
            dependency::forget(tx, id)?;
            health::purge(tx, id)?;
            upstream_token::purge(tx, id)?;
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

    /// Rewrites specs of earlier formats in the newest one, all in one transaction; returns how many. Those
    /// that cannot be read stay as they are. See [`stored`].
    pub async fn renew_specs(&self) -> Result<usize, Error> {
        let like = format!("{}%", stored::beginning());
        let old = self.read("specs_of_other_formats", move |tx| {
            tx.query(&OF_OTHER_FORMATS, &values![like], |row| {
                Ok((row.text(0)?, row.text(1)?))
            })
        });
        let renewed = old.await?.into_iter().filter_map(|(id, text)| {
            let new = stored::renewed(&text)?;
            Some((id, text, new))
        });
        let renewed: Vec<_> = renewed.collect();
        if renewed.is_empty() {
            return Ok(0);
        }
        self.write("renew_specs", move |tx| {
            let mut renew = tx.prepare(&RENEW)?;
            let mut count = 0;
            for (id, old, new) in &renewed {
                count += renew.execute(&values![id.as_str(), old.as_str(), new.as_str()])?;
            }
            Ok(count)
        })
        .await
    }

    /// Every service that is not deleted, by name. A row without an id, a version or a time is left out and
    /// logged, since nothing can be said of it; whatever else cannot be read of one is its defect: one bad
    /// service must not keep the others from starting.
    pub async fn all_services(&self) -> Result<Vec<ServiceResource>, Error> {
        self.read_every(&EVERY).await
    }

    /// Id and version of every service that is not deleted.
    pub async fn service_versions(&self) -> Result<Vec<(Id<Service>, u64)>, Error> {
        self.read("service_versions", |tx| {
            tx.query_readable(&VERSIONS, &[], |row| Ok((row.id(0)?, row.count(1)?)))
        })
        .await
    }

    /// Every service of an owner, also those in the archive.
    pub async fn owned_services(&self, owner: &UserName) -> Result<Vec<Id<Service>>, Error> {
        let owner = owner.to_string();
        self.read("owned_services", move |tx| {
            tx.query_readable(&OWNED, &values![owner], |row| row.id(0))
        })
        .await
    }

    /// The name of every service that is not deleted.
    pub async fn names_in_use(&self) -> Result<HashSet<String>, Error> {
        let names = self.read("names_in_use", |tx| {
            tx.query(&NAMES, &[], |row| row.text(0))
        });
        Ok(names.await?.into_iter().collect())
    }

    /// Up to `limit` services in an order (`true`: backwards), those behind `after` when it is given.
    ///
    /// # Errors
    /// [`Error::Cursor`] when the position is none of this order.
    pub async fn services(
        &self,
        query: ServiceQuery,
        (order, backwards): (ServiceOrder, bool),
        (after, limit): (Option<ServicePosition>, u32),
    ) -> Result<Vec<ServiceResource>, Error> {
        self.read("services", move |tx| {
            let page = match (order, backwards) {
                (ServiceOrder::Name, false) => &BY_NAME_UP,
                (ServiceOrder::Name, true) => &BY_NAME_DOWN,
                (ServiceOrder::Created, false) => &CREATED_UP,
                (ServiceOrder::Created, true) => &CREATED_DOWN,
                (ServiceOrder::Updated, false) => &UPDATED_UP,
                (ServiceOrder::Updated, true) => &UPDATED_DOWN,
            };
            let (matching, limit) = (matching(query)?, limit as usize);
            let (mut found, mut after) = (Vec::new(), after);
            // More than once where there are rows that cannot be read: a page is short only at the end.
            loop {
                let missing = limit - found.len();
                let mut values = matching.clone();
                values.extend(beyond(order, backwards, after)?);
                values.push((missing as u64).into());
                let rows = tx.query(page, &values, |row| Ok((place(row, order), read(row))))?;
                let is_end = rows.len() < missing;
                after = rows.last().and_then(|(place, _)| place.clone());
                found.extend(rows.into_iter().filter_map(|(_, row)| row.ok()));
                if is_end || after.is_none() || found.len() == limit {
                    return Ok(found);
                }
            }
        })
        .await
    }

    /// Every service that a query finds, in no order, with no more than what lists choose by.
    pub async fn service_entries(&self, query: ServiceQuery) -> Result<Vec<ServiceEntry>, Error> {
        self.read("service_entries", move |tx| {
            tx.query_readable(&ENTRIES, &matching(query)?, |row| {
                Ok(ServiceEntry {
                    id: row.id(0)?,
                    name: row.text(1)?,
                    tags: from_json("tags", &row.text(2)?).unwrap_or_default(),
                    environment: row.text(3)?,
                    owner: row.text(4)?,
                })
            })
        })
        .await
    }

    /// These services, in this order, deleted or not; those that are gone are left out.
    pub async fn services_by_id(
        &self,
        ids: Vec<Id<Service>>,
    ) -> Result<Vec<ServiceResource>, Error> {
        self.read("services_by_id", move |tx| {
            let mut all = Vec::with_capacity(ids.len());
            for id in ids {
                all.extend(tx.find(&BY_ID, &values![id], read)?);
            }
            Ok(all)
        })
        .await
    }

    /// The names of these services, deleted or not; those that are gone are left out.
    pub async fn service_names(
        &self,
        ids: Vec<Id<Service>>,
    ) -> Result<HashMap<Id<Service>, String>, Error> {
        self.read("service_names", move |tx| {
            let mut all = HashMap::with_capacity(ids.len());
            for id in ids {
                let found = tx.find(&NAME, &values![id], |row| row.text(0))?;
                all.extend(found.map(|name| (id, name)));
            }
            Ok(all)
        })
        .await
    }

    /// Up to `limit` services that went into the archive before a time, the oldest first.
    pub async fn deleted_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<(Id<Service>, String)>, Error> {
        self.read("deleted_before", move |tx| {
            let values = values![before, i64::from(limit)];
            tx.query_readable(&DELETED_BEFORE, &values, |row| {
                Ok((row.id(0)?, row.text(1)?))
            })
        })
        .await
    }
}

/// What was one's is another's from now on.
pub(crate) fn hand_over(
    tx: &mut Tx<'_>,
    (from, to): (&str, &str),
    at: Timestamp,
) -> Result<(), Error> {
    tx.put(&HAND_OVER, &values![from, to, at])
}

fn matching(query: ServiceQuery) -> Result<Vec<Value<'static>>, Error> {
    let ServiceQuery {
        text,
        tag,
        environment,
        source,
        owner,
        deleted,
    } = query;
    let tag = tag.as_ref().map(to_json).transpose()?;
    let text = text.map(|text| like(&searchable(&text)));
    Ok(values![deleted, text, tag, environment, source, owner].to_vec())
}

/// Where a row stands in an order.
fn place(row: &Row<'_>, order: ServiceOrder) -> Option<ServicePosition> {
    let key = match order {
        ServiceOrder::Name => row.text(1).ok()?,
        ServiceOrder::Created => row.int(9).ok()?.to_string(),
        ServiceOrder::Updated => row.int(10).ok()?.to_string(),
    };
    let id = row.text(0).ok()?;
    Some(ServicePosition { key, id })
}

/// The values of the place behind which a page begins; without one, before everything.
fn beyond(
    order: ServiceOrder,
    backwards: bool,
    after: Option<ServicePosition>,
) -> Result<[Value<'static>; 2], Error> {
    // Behind every name and every id, and before all of them.
    let edge = if backwards { "\u{7f}" } else { "" };
    let (key, id) = after.map_or((None, edge.to_owned()), |at| (Some(at.key), at.id));
    let key: Value<'static> = match (order, key) {
        (ServiceOrder::Name, key) => key.unwrap_or_else(|| edge.to_owned()).into(),
        (ServiceOrder::Created | ServiceOrder::Updated, None) if backwards => i64::MAX.into(),
        (ServiceOrder::Created | ServiceOrder::Updated, None) => (-1_i64).into(),
        (ServiceOrder::Created | ServiceOrder::Updated, Some(key)) => {
            let millis: Result<i64, _> = key.parse();
            millis.map_err(|_| Error::Cursor(key))?.into()
        }
    };
    Ok([key, id.into()])
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

/// The text of its spec, to be stored: as it was, where it cannot be read.
fn spec_text(service: &ServiceResource) -> Result<String, Error> {
    let unread = service.defect.as_deref();
    match unread.and_then(|defect| defect.text.clone()) {
        Some(text) => Ok(text),
        None => stored::write(&service.spec).map_err(|error| Error::unreadable("value", error)),
    }
}

fn read(row: &Row<'_>) -> Result<ServiceResource, Error> {
    let id: Id<Service> = row.id(0)?;
    let mut defect = Defect::default();
    let name = row.text(1)?.parse();
    let name = match name {
        Ok(name) => name,
        Err(error) => {
            defect.issues.push(Issue::new("name", format!("{error}")));
            stand_in(id)?
        }
    };
    let tags = from_json("tags", &row.text(5)?).unwrap_or_else(|error| {
        defect.issues.push(Issue::new("tags", error.to_string()));
        Vec::new()
    });
    let text = row.text(8)?;
    let spec = match stored::read(&text) {
        Ok(spec) => spec,
        Err(issue) => {
            defect.issues.push(issue);
            defect.text = Some(text);
            ServiceSpec::unread(&row.text(13)?)
        }
    };
    let is_sound = defect.issues.is_empty();
    Ok(ServiceResource {
        id,
        name,
        version: row.count(2)?,
        revision: row.count(3)?,
        enabled: row.truth(4)?,
        tags,
        environment: row.text(6)?,
        owner: row.text(7)?,
        spec,
        created_at: row.time(9)?,
        updated_at: row.time(10)?,
        deleted_at: row.maybe_time(11)?,
        activated_at: row.maybe_time(12)?,
        defect: (!is_sound).then(|| Box::new(defect)),
    })
}

/// A name for a service whose own is none.
fn stand_in(id: Id<Service>) -> Result<ServiceName, Error> {
    let id = id.to_string();
    let end = &id[id.len().saturating_sub(12)..];
    let name = format!("unreadable-{end}").parse();
    name.map_err(|error| Error::unreadable("service name", error))
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
    &BY_NAME_UP,
    &BY_NAME_DOWN,
    &CREATED_UP,
    &CREATED_DOWN,
    &UPDATED_UP,
    &UPDATED_DOWN,
    &ENTRIES,
    &OF_OTHER_FORMATS,
    &RENEW,
    &NAME,
    &OWNED,
    &HAND_OVER,
    &DELETED_BEFORE,
    &VERSIONS,
    &NAMES,
    &INSERT,
    &UPDATE,
    &PURGE,
    &PURGE_SECRETS,
    &PURGE_CATALOG,
];
