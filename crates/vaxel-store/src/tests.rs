//! What the store promises, tried on real files.

mod contract; // one body for every engine:
mod services;
mod access;
mod keys;
mod oauth;
mod sign_ins;
mod templates;
mod toolsets;
mod calls;
mod small;
mod audit;
mod health;
mod revisions;
mod usage;

mod crash;
mod group_commit;
mod opening;
mod statements;
mod postgres;
mod feed;
mod faults;
mod transfer;
mod figures;

use std::path::Path;

use vaxel_core::{
    audit::AuditLine,
    id::Id,
    principal::Principal,
    service::{Builtin, ServiceDraft, ServiceResource, Source},
    time::Timestamp,
};

use crate::{
    error::Error,
    stmt::{Stmt, values},
    store::{Config, Store},
    tx::Tx,
};

static PUT_NOTE: Stmt = Stmt::new("INSERT INTO notes (name, text, updated_at) VALUES ($1, $2, 0)");

/// When everything in the tests happens.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A store in a folder of its own, which goes away with the first part.
fn fresh() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let store = open(dir.path());
    (dir, store)
}

fn open(dir: &Path) -> Store {
    Store::open(&Config::new(dir)).expect("the store opens")
}

/// Adds a note; fails when there is one of that name.
fn put(tx: &mut Tx<'_>, name: &str, text: &str) -> Result<(), Error> {
    tx.execute(&PUT_NOTE, &values![name, text]).map(drop)
}

fn service(name: &str) -> ServiceResource {
    let draft = ServiceDraft::new(
        name.parse().expect("a name"),
        Source::Builtin(Builtin::Demo),
    );
    ServiceResource {
        id: Id::new(NOW),
        name: draft.name,
        version: 1,
        revision: 1,
        enabled: draft.enabled,
        tags: draft.tags,
        environment: draft.environment,
        owner: "admin".to_owned(),
        spec: draft.spec,
        created_at: NOW,
        updated_at: NOW,
        activated_at: None,
        deleted_at: None,
        defect: None,
    }
}

fn line(service: &ServiceResource, action: &'static str) -> AuditLine {
    let target = ("service", service.id.to_string(), service.name.to_string());
    AuditLine::new(NOW, &Principal::system(), action, target)
}
