//! Which service needs which, as rows: so that a circle is found in the transaction that would close it.

use std::collections::HashMap;

use vaxel_core::{
    dependencies::Dependencies,
    id::{Id, Service},
    name::ServiceName,
    service::ServiceResource,
};

use crate::{
    error::Error,
    stmt::{Row, Stmt, values},
    store::Store,
    tx::Tx,
};

static FORGET: Stmt = Stmt::new("DELETE FROM dependencies WHERE service = $1");
static ADD: Stmt = Stmt::new("INSERT INTO dependencies (service, needs) VALUES ($1, $2)");
static OF: Stmt = Stmt::new(
    "SELECT needs FROM dependencies JOIN services ON services.id = dependencies.service \
     WHERE services.name = $1 AND services.deleted_at IS NULL ORDER BY needs",
);
static ALL: Stmt = Stmt::new(
    "SELECT services.name, dependencies.needs FROM services \
     LEFT JOIN dependencies ON dependencies.service = services.id \
     WHERE services.deleted_at IS NULL",
);

impl Store {
    /// Every service that is not deleted, with what it needs.
    pub async fn dependencies(&self) -> Result<Dependencies, Error> {
        self.read("dependencies", |tx| {
            let rows = tx.query(&ALL, &[], |row| Ok((name(row, 0)?, row.maybe_text(1)?)))?;
            let mut needs: HashMap<ServiceName, Vec<ServiceName>> = HashMap::new();
            for (service, need) in rows {
                let all = needs.entry(service).or_default();
                all.extend(need.map(|need| parse(&need)).transpose()?);
            }
            Ok(needs.into_iter().collect())
        })
        .await
    }
}

/// Writes down what `service` needs.
///
/// # Errors
/// [`Error::Circle`] when one of them needs it in turn.
pub(crate) fn put(tx: &mut Tx<'_>, service: &ServiceResource) -> Result<(), Error> {
    forget(tx, service.id)?;
    if service.spec.depends_on.is_empty() {
        return Ok(());
    }
    if service.deleted_at.is_none() {
        refuse_circle(tx, service)?;
    }
    for need in &service.spec.depends_on {
        tx.put(&ADD, &values![service.id, need.as_str()])?;
    }
    Ok(())
}

pub(crate) fn forget(tx: &mut Tx<'_>, service: Id<Service>) -> Result<(), Error> {
    tx.put(&FORGET, &values![service])
}

/// Reads as much of the map as can be reached from `service`, and looks for a way back.
fn refuse_circle(tx: &mut Tx<'_>, service: &ServiceResource) -> Result<(), Error> {
    let needs = &service.spec.depends_on;
    let mut known: HashMap<ServiceName, Vec<ServiceName>> = HashMap::new();
    let mut ahead = needs.clone();
    while let Some(next) = ahead.pop() {
        if next == service.name || known.contains_key(&next) {
            continue;
        }
        let found = tx.query(&OF, &values![next.as_str()], |row| name(row, 0))?;
        ahead.extend(found.iter().cloned());
        known.insert(next, found);
    }
    let known: Dependencies = known.into_iter().collect();
    match known.cycle(&service.name, needs) {
        None => Ok(()),
        Some(circle) => Err(Error::Circle(circle)),
    }
}

fn name(row: &Row<'_>, at: usize) -> Result<ServiceName, Error> {
    parse(&row.text(at)?)
}

fn parse(text: &str) -> Result<ServiceName, Error> {
    text.parse()
        .map_err(|error| Error::unreadable("service name", error))
}

#[cfg(test)]
pub(crate) static STATEMENTS: &[&Stmt] = &[&FORGET, &ADD, &OF, &ALL];
