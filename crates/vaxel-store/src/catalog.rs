//! The last known catalog of each service, so that lists can be served before it is reached again.

use std::collections::HashMap;

use vaxel_core::{
    catalog::Catalog,
    id::{Id, Service},
};

use crate::{
    error::Error,
    service::{from_json, to_json},
    stmt::{Stmt, values},
    store::Store,
};

static PUT: Stmt = Stmt::new(
    "INSERT INTO catalogs (service, catalog, fetched_at) VALUES ($1, $2, $3) \
     ON CONFLICT (service) DO UPDATE SET catalog = excluded.catalog, \
     fetched_at = excluded.fetched_at",
);
static GET: Stmt = Stmt::new("SELECT catalog FROM catalogs WHERE service = $1");
static ALL: Stmt = Stmt::new("SELECT service, catalog FROM catalogs");

impl Store {
    /// Keeps a catalog in the place of the one before.
    pub async fn put_catalog(&self, service: Id<Service>, catalog: &Catalog) -> Result<(), Error> {
        let text = to_json(catalog)?;
        let at = catalog.fetched_at;
        self.write("put_catalog", move |tx| {
            tx.execute(&PUT, &values![service, text.as_str(), at])
                .map(drop)
        })
        .await
    }

    /// The last known catalog of a service.
    pub async fn catalog(&self, service: Id<Service>) -> Result<Option<Catalog>, Error> {
        let text = self
            .read("catalog", move |tx| {
                tx.find(&GET, &values![service], |row| row.text(0))
            })
            .await?;
        text.map(|text| from_json("catalog", &text)).transpose()
    }

    /// The last known catalogs of all services. One that cannot be read is left out: it is read from
    /// its server again anyway.
    pub async fn all_catalogs(&self) -> Result<HashMap<Id<Service>, Catalog>, Error> {
        let rows = self
            .read("all_catalogs", |tx| {
                tx.query(&ALL, &[], |row| Ok((row.id(0)?, row.text(1)?)))
            })
            .await?;
        let readable = rows.into_iter().filter_map(|(service, text)| {
            let catalog = from_json("catalog", &text);
            catalog.ok().map(|catalog| (service, catalog))
        });
        Ok(readable.collect())
    }
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&PUT, &GET, &ALL];
