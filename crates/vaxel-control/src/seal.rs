//! Values that are or may be secret: sealed on their way into the store, opened on their way to the
//! process or connection that needs them, nowhere else.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use vaxel_auth::seal::Sealer;
use vaxel_core::{
    failure::{Failure, Issue},
    id::{Id, SecretValue, Service},
    secret::Secret,
    service::{CLIENT_SECRET, SecretRef, ServiceSpec, Source},
    time::Timestamp,
};
use vaxel_store::{SecretRow, Store};

use crate::upstream_oauth;

/// Seals and opens the values of services.
#[derive(Clone)]
pub(crate) struct Vault {
    store: Store,
    sealer: Arc<Sealer>,
}

impl Vault {
    pub(crate) const fn new(store: Store, sealer: Arc<Sealer>) -> Self {
        Self { store, sealer }
    }

    /// What seals.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Replaces every sensitive value of `spec` by a reference, and answers what has to be stored.
    /// A reference that stands in the spec already is kept when it is one of `own`, and otherwise
    /// refused: it would show the service someone else's secret.
    pub(crate) fn seal(
        &self,
        service: Id<Service>,
        spec: &mut ServiceSpec,
        own: &HashSet<Id<SecretValue>>,
        now: Timestamp,
    ) -> Result<Vec<SecretRow>, Vec<Issue>> {
        let place = place(spec);
        let (mut rows, mut issues) = (Vec::new(), Vec::new());
        let mut seal = |place: &str, name: &str, value: &mut String| match SecretRef::parse(value) {
            Some(SecretRef(id)) if own.contains(&id) => {}
            Some(_) => issues.push(Issue::new(
                match name {
                    CLIENT_SECRET => "spec.source.mcp.auth.oauth.client_secret".to_owned(),
                    name => format!("{place}.{name}"),
                },
                "refers to a secret of another service: send the value itself",
            )),
            None => {
                let id = Id::new(now);
                let sealed = self.sealer.seal(&context(id, service), value.as_bytes());
                rows.push(SecretRow {
                    id,
                    service,
                    sealed,
                    created_at: now,
                });
                *value = SecretRef(id).to_string();
            }
        };
        for (name, value) in spec.sensitive_values() {
            seal(place, name, value);
        }
        for (name, value) in spec.sealed_parameters() {
            seal("extends.with", name, value);
        }
        if issues.is_empty() {
            Ok(rows)
        } else {
            Err(issues)
        }
    }

    /// Seals those of `rows` anew that an earlier root key sealed. One that does not open is left as it is: it
    /// would not open with that key either.
    pub(crate) async fn renew(&self, mut rows: Vec<SecretRow>) -> Result<(), Failure> {
        rows.retain_mut(|row| {
            let context = context(row.id, row.service);
            match self.sealer.renewed(&context, &row.sealed) {
                Ok(Some(renewed)) => row.sealed = renewed,
                Ok(None) => return false,
                Err(error) => {
                    tracing::error!(secret.id = %row.id, %error, "a sealed value is lost");
                    return false;
                }
            }
            true
        });
        if !rows.is_empty() {
            self.store.reseal(rows).await?;
        }
        Ok(())
    }

    /// The same for what remote servers are shown.
    pub(crate) async fn renew_tokens(&self) -> Result<(), Failure> {
        let mut outdated = self.store.all_upstream_tokens().await?;
        outdated.retain_mut(|row| {
            let context = upstream_oauth::context((row.service, &row.holder), &row.issuer);
            // One that does not open is got anew when it is needed.
            let renewed = self.sealer.renewed(&context, &row.sealed).ok().flatten();
            let is_renewed = renewed.is_some();
            row.sealed = renewed.unwrap_or_default();
            is_renewed
        });
        if !outdated.is_empty() {
            self.store.reseal_upstream_tokens(outdated).await?;
        }
        Ok(())
    }

    /// Every sensitive value of a stored `spec`, by its name, opened.
    pub(crate) async fn open(
        &self,
        service: Id<Service>,
        spec: &ServiceSpec,
    ) -> Result<BTreeMap<String, Secret<String>>, Failure> {
        let mut spec = spec.clone();
        let references = spec
            .sensitive_values()
            .filter_map(|(name, value)| Some((name.to_owned(), SecretRef::parse(value)?)))
            .collect();
        self.open_all(service, references).await
    }

    /// The values of the secret parameters of a stored `spec`, by name, opened.
    pub(crate) async fn open_parameters(
        &self,
        service: Id<Service>,
        spec: &ServiceSpec,
    ) -> Result<BTreeMap<String, Secret<String>>, Failure> {
        let mut spec = spec.clone();
        let references = spec
            .sealed_parameters()
            .filter_map(|(name, value)| Some((name.to_owned(), SecretRef::parse(value)?)))
            .collect();
        self.open_all(service, references).await
    }

    async fn open_all(
        &self,
        service: Id<Service>,
        references: Vec<(String, SecretRef)>,
    ) -> Result<BTreeMap<String, Secret<String>>, Failure> {
        if references.is_empty() {
            return Ok(BTreeMap::new());
        }
        let rows = self.store.secrets(service).await?;
        let rows: HashMap<Id<SecretValue>, Vec<u8>> =
            rows.into_iter().map(|row| (row.id, row.sealed)).collect();
        let mut opened = BTreeMap::new();
        for (name, SecretRef(id)) in references {
            let sealed = rows.get(&id).ok_or_else(|| lost(&name))?;
            let plain = self.sealer.open(&context(id, service), sealed)?;
            let text = String::from_utf8(plain.expose().clone()).map_err(|_| lost(&name))?;
            opened.insert(name, Secret::new(text));
        }
        Ok(opened)
    }
}

fn lost(name: &str) -> Failure {
    Failure::new(
        vaxel_core::failure::Kind::Invalid,
        format!("The sealed value of `{name}` is not in the store: set it again"),
    )
}

/// A sealed value opens only under its own id and in its own service.
pub(crate) fn context(secret: Id<SecretValue>, service: Id<Service>) -> [u8; 32] {
    let mut context = [0; 32];
    context[..16].copy_from_slice(secret.as_bytes());
    context[16..].copy_from_slice(service.as_bytes());
    context
}

/// Where the values that are sealed stand.
pub(crate) const fn place(spec: &ServiceSpec) -> &'static str {
    match spec.source {
        Source::Process(_) => "spec.source.process.env",
        Source::Mcp(_) => "spec.source.mcp.headers",
        Source::Http(_) => "spec.source.http.headers",
        Source::Builtin(_) => "spec.source.builtin",
    }
}
