//! The services of a backup, one by one.

use std::collections::HashMap;

use vaxel_auth::{root::RootKeys, seal::Sealer};
use vaxel_core::{
    id::{Id, SecretValue, Service},
    service::{SecretRef, ServiceDraft, stored},
};
use vaxel_store::TableHead;

use super::file::DataFile;

/// What [`vaxel_auth::seal`] is asked to seal the values of services for.
pub const VALUES: &str = "service values";

/// A service of a backup.
#[derive(Debug, Clone)]
pub struct KeptService {
    /// As it was wanted, with its values in clear where the backup has them. What came of a template stands
    /// in it as it came; the template is not named.
    pub draft: ServiceDraft,
    /// Names of values of its environment or headers that were secret and are not in the backup. They
    /// are not in the draft.
    pub missing: Vec<String>,
}

/// What the rows of a backup say of its services.
#[derive(Default)]
pub(super) struct Gathered {
    services: Vec<(Id<Service>, ServiceDraft)>,
    sealed: HashMap<Id<SecretValue>, Vec<u8>>,
}

impl Gathered {
    /// Looks at a row.
    pub(super) fn take(&mut self, table: &TableHead, row: &[u8]) {
        match table.table.as_str() {
            "services" if table.number(row, "deleted_at").is_none() => {
                // One that could not be read when the backup was made is as broken in it.
                self.services.extend(service(table, row));
            }
            "secrets" => {
                let id = table.text(row, "id").and_then(|id| id.parse().ok());
                if let (Some(id), Some(sealed)) = (id, table.bytes(row, "sealed")) {
                    self.sealed.insert(id, sealed);
                }
            }
            _ => {}
        }
    }

    /// The services, with the values that the root key among `files` opens.
    pub(super) fn services(self, files: &[DataFile]) -> Vec<KeptService> {
        let Self { services, sealed } = self;
        let sealer = sealer(files);
        let open = |service: Id<Service>, id: Id<SecretValue>| -> Option<String> {
            let context = crate::seal::context(id, service);
            let plain = sealer.as_ref()?.open(&context, sealed.get(&id)?).ok()?;
            String::from_utf8(plain.expose().clone()).ok()
        };
        let kept = services.into_iter().map(|(id, mut draft)| {
            let mut missing = Vec::new();
            for (name, value) in draft.spec.sensitive_values() {
                let Some(SecretRef(secret)) = SecretRef::parse(value) else {
                    continue;
                };
                match open(id, secret) {
                    Some(plain) => *value = plain,
                    None => missing.push(name.to_owned()),
                }
            }
            draft.spec.forget(&missing);
            for (name, value) in draft.spec.sealed_parameters() {
                if SecretRef::parse(value)
                    .is_some_and(|SecretRef(secret)| open(id, secret).is_none())
                {
                    missing.push(format!("{name} (of its template)"));
                }
            }
            draft.spec.extends = None;
            KeptService { draft, missing }
        });
        kept.collect()
    }
}

fn sealer(files: &[DataFile]) -> Option<Sealer> {
    let file = |wanted: &str| {
        let found = files.iter().find(|(name, _)| name == wanted);
        found.map(|(_, bytes)| &bytes.expose()[..])
    };
    let keys = RootKeys::from_bytes(file("root.key")?, file("root.key.old")).ok()?;
    Some(keys.sealer(VALUES))
}

fn service(table: &TableHead, row: &[u8]) -> Option<(Id<Service>, ServiceDraft)> {
    let text = |column: &str| table.text(row, column);
    let spec = stored::read(&text("spec")?).ok()?;
    let draft = ServiceDraft {
        name: text("name")?.parse().ok()?,
        enabled: table.number(row, "enabled")? != 0,
        tags: serde_json::from_str(&text("tags")?).ok()?,
        environment: text("environment")?,
        spec,
    };
    Some((text("id")?.parse().ok()?, draft))
}
