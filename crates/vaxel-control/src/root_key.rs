//! Another root key in the place of the one there is, without a stop: from one moment on everything is sealed with
//! the new one, what was sealed before is sealed anew in the background, and then the old one is thrown away. It can
//! end at any moment, and goes on at the next start.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vaxel_auth::{
    root::{RootFacts, RootKeys},
    seal::RootKey,
};
use vaxel_core::{
    access::require,
    failure::Failure,
    id::{Id, SecretValue},
    principal::{Permission, Principal},
    secret::Secret,
};
use vaxel_store::SEALED;

use crate::{
    bodies::Bodies,
    change::Outcome,
    control::{Control, conflict},
};

/// Values that are sealed anew in one transaction.
const AT_ONCE: u32 = 200;
/// After something went wrong it is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The root keys, and how far replacing one has come.
pub(crate) struct Roots {
    pub(crate) keys: RootKeys,
    progress: Mutex<Progress>,
    bell: Notify,
}

/// How far values were sealed anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Values that were looked at.
    pub done: u64,
    /// Values that there are.
    pub total: u64,
}

/// What is to be said of the root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKeyReport {
    /// Which one it is, and where it comes from.
    pub facts: RootFacts,
    /// How far replacing it has come; `None`: nothing is sealed with another one.
    pub replacing: Option<Progress>,
}

impl Roots {
    pub(crate) fn new(keys: RootKeys) -> Self {
        Self {
            keys,
            progress: Mutex::default(),
            bell: Notify::new(),
        }
    }

    fn report(&self) -> RootKeyReport {
        let facts = self.keys.facts();
        let replacing = (!facts.earlier.is_empty()).then(|| *self.progress.lock());
        RootKeyReport { facts, replacing }
    }
}

impl Control {
    /// Which root key there is, without anything that helps to find it. `system:read`.
    pub fn root_key(&self, caller: &Principal) -> Result<RootKeyReport, Failure> {
        require(caller, Permission::SystemRead)?;
        Ok(self.inner.roots.report())
    }

    /// Begins to replace the root key. For who holds no turn of [`Control::apply`]: this waits for all changes that
    /// are being made, so that none of them stores what it sealed with the key before.
    pub(crate) async fn replace_root_key(
        &self,
        caller: &Principal,
        new: Option<Secret<String>>,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::SystemManage)?;
        require(caller, Permission::KeysManage)?;
        let new = new.map(|text| RootKey::from_text(text.expose()));
        let new = new.transpose()?;
        // It holds the keys as they were when it began.
        let Ok(_backup) = self.inner.backup.try_lock() else {
            return Err(conflict(
                "A backup is being written; try again when it is done".to_owned(),
            ));
        };
        {
            // In this order: changes take the turn of the signing keys, too.
            let _alone = self.inner.sealing.write().await;
            let _signing = self.inner.signing.turn.lock().await;
            let roots = self.inner.roots.keys.clone();
            let replaced = tokio::task::spawn_blocking(move || roots.replace(new)).await;
            replaced.map_err(Failure::internal)??;
        }
        let facts = self.inner.roots.keys.facts();
        let target = ("root key", facts.id.clone(), String::new());
        let mut audit = self.line(caller, "root_key.replace", target);
        audit.detail = json!({ "before": facts.earlier });
        let written = self.store().audit(audit).await;
        // It is replaced whatever came of the line: what it sealed has to follow.
        *self.inner.roots.progress.lock() = Progress::default();
        self.inner.roots.bell.notify_one();
        written?;
        Ok(Outcome::RootKey(Box::new(self.inner.roots.report())))
    }

    /// Seals everything anew that an earlier key sealed, and then throws that key away.
    async fn reseal(&self) -> Result<(), Failure> {
        let total = self.store().count_secrets().await?;
        *self.inner.roots.progress.lock() = Progress { done: 0, total };
        for table in SEALED {
            match *table {
                "secrets" => self.reseal_values().await?,
                // They are few, and stored anew when one of them is outdated.
                "signing_keys" => self.refresh_signing_keys().await?,
                "audit_keys" => self.reseal_audit_keys().await?,
                "data_keys" => {
                    let values = self.inner.context.vault.sealer();
                    Bodies::renew(self.store(), values).await?;
                }
                "upstream_tokens" => self.inner.context.vault.renew_tokens().await?,
                other => return Err(Failure::internal(format!("nothing seals `{other}` anew"))),
            }
        }
        let roots = self.inner.roots.keys.clone();
        let forgotten = tokio::task::spawn_blocking(move || roots.forget_earlier()).await;
        forgotten.map_err(Failure::internal)??;
        let facts = self.inner.roots.keys.facts();
        let target = ("root key", facts.id, String::new());
        let mut audit = self.line(&Principal::system(), "root_key.replaced", target);
        audit.detail = json!({ "values": total });
        Ok(self.store().audit(audit).await?)
    }
}

impl Control {
    async fn reseal_values(&self) -> Result<(), Failure> {
        let mut after: Option<Id<SecretValue>> = None;
        loop {
            let rows = self.store().secrets_after(after, AT_ONCE).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = Some(last.id);
            let looked_at = rows.len() as u64;
            self.inner.context.vault.renew(rows).await?;
            self.inner.roots.progress.lock().done += looked_at;
        }
    }
}

/// Goes on with what an earlier run began, and with what is begun later, until `stop`.
pub(crate) async fn follow(control: Control, stop: CancellationToken) {
    let roots = &control.inner.roots;
    if roots.keys.facts().is_stale {
        tracing::warn!(
            "the root key that is given was replaced: have the new one given from the next start on"
        );
    }
    loop {
        let mut wait = None;
        if roots.keys.has_earlier() {
            let resealed = tokio::select! {
                () = stop.cancelled() => return,
                resealed = control.reseal() => resealed,
            };
            match resealed {
                Ok(()) => tracing::info!("everything is sealed with the new root key"),
                Err(error) => {
                    tracing::warn!(%error, "what an earlier root key sealed could not be sealed anew yet");
                    wait = Some(AGAIN);
                }
            }
        }
        let again = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => roots.bell.notified().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = again => {}
        }
    }
}
