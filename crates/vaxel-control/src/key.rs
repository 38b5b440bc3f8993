//! Changes and queries of API keys, and the ring that the data plane checks them with.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
};

use serde_json::json;
use vaxel_auth::key::{ApiKey, KeyEntry, StoredKey};
use vaxel_core::{
    access::require,
    failure::{Failure, Kind},
    id::Id,
    principal::{Permission, Principal, Proof},
    rights::{Limits, Rights},
    secret::Secret,
};
use vaxel_gateway::Caller;
use vaxel_store::KeyRow;

use crate::{
    change::{KeyDraft, KeyRef, Outcome},
    control::{Control, conflict},
    event::Event,
};

/// A key that was made just now.
#[derive(Debug)]
pub struct NewKey {
    /// What is kept of it.
    pub stored: KeyRow,
    /// The key itself, to be shown once.
    pub text: Secret<String>,
}

impl Control {
    pub(crate) async fn create_key(
        &self,
        caller: &Principal,
        draft: KeyDraft,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::KeysManage)?;
        if !caller.permissions.covers(draft.permissions) {
            let missing: Vec<&str> = draft
                .permissions
                .iter()
                .filter(|one| !caller.permissions.contains(*one))
                .map(Permission::as_str)
                .collect();
            return Err(Failure::new(
                Kind::NotPermitted,
                format!(
                    "`{}` cannot hand out what it does not have: {}",
                    caller.name,
                    missing.join(", ")
                ),
            ));
        }
        let key = self.make_key(caller, draft).await?;
        Ok(Outcome::Key(Box::new(key)))
    }

    /// Makes a key without asking whether the caller may.
    pub(crate) async fn make_key(
        &self,
        caller: &Principal,
        draft: KeyDraft,
    ) -> Result<NewKey, Failure> {
        let KeyDraft {
            name,
            permissions,
            expires_in,
        } = draft;
        let now = self.now();
        let (text, made) = ApiKey::generate();
        let stored = KeyRow {
            id: Id::new(now),
            name,
            prefix: made.prefix.to_string(),
            digest: made.digest,
            permissions,
            created_at: now,
            expires_at: expires_in.map(|span| now.plus(span.0)),
            revoked_at: None,
            last_used_at: None,
        };
        let target = ("key", stored.id.to_string(), stored.name.clone());
        let mut audit = self.line(caller, "key.create", target);
        audit.detail = json!({ "permissions": permissions, "expires_at": stored.expires_at });
        let created = self.store().create_key(&stored, audit).await;
        created.map_err(|error| match error {
            vaxel_store::Error::Taken => {
                conflict(format!("There is a key called `{}` already", stored.name))
            }
            other => other.into(),
        })?;
        self.publish_keys().await?;
        self.announce(Event::Key {
            id: stored.id,
            action: "key.create",
        });
        Ok(NewKey { stored, text })
    }

    pub(crate) async fn revoke_key(
        &self,
        caller: &Principal,
        key: &KeyRef,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::KeysManage)?;
        let keys = self.store().keys().await?;
        let now = self.now();
        let live =
            |row: &&KeyRow| row.revoked_at.is_none() && row.expires_at.is_none_or(|end| end > now);
        let found = match key {
            KeyRef::Id(id) => keys.iter().find(|row| row.id == *id),
            KeyRef::Name(name) => {
                let named = |row: &&KeyRow| row.name == *name && row.revoked_at.is_none();
                keys.iter().find(named)
            }
        };
        let row = found.ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                "There is no such key; `vaxel key ls` lists them",
            )
        })?;
        if row.revoked_at.is_some() {
            return Ok(Outcome::Done);
        }
        let manages = |row: &&KeyRow| row.permissions.contains(Permission::KeysManage);
        let last = row.permissions.contains(Permission::KeysManage)
            && keys
                .iter()
                .filter(live)
                .filter(manages)
                .all(|other| other.id == row.id);
        if last {
            return Err(conflict(format!(
                "`{}` is the last key that can manage keys; create another one first",
                row.name
            )));
        }
        let target = ("key", row.id.to_string(), row.name.clone());
        let audit = self.line(caller, "key.revoke", target);
        self.store().revoke_key(row.id, now, audit).await?;
        self.publish_keys().await?;
        self.announce(Event::Key {
            id: row.id,
            action: "key.revoke",
        });
        Ok(Outcome::Done)
    }

    /// Every key, newest first. `keys:manage`.
    pub async fn keys(&self, caller: &Principal) -> Result<Vec<KeyRow>, Failure> {
        require(caller, Permission::KeysManage)?;
        let mut keys = self.store().keys().await?;
        for key in &mut keys {
            let noted = self
                .inner
                .callers
                .find(key.id)
                .and_then(|one| crate::recorder::used(&one));
            key.last_used_at = key.last_used_at.max(noted);
        }
        keys.sort_by_key(|key| std::cmp::Reverse(key.id));
        Ok(keys)
    }

    /// Gives the data plane the keys as they are stored now. One at a time: the last one to read is
    /// the last one to publish.
    pub(crate) async fn publish_keys(&self) -> Result<(), Failure> {
        let _turn = self.inner.key_ring.lock().await;
        let mut known = HashMap::new();
        let mut entries = Vec::new();
        for row in self.store().keys().await? {
            let caller = self.inner.callers.find(row.id).unwrap_or_else(|| {
                let limits = Limits {
                    permissions: row.permissions,
                    services: None,
                    environments: None,
                };
                let who = (Proof::Key(row.id), row.name.as_str().into());
                let principal = Principal::of_user(who, Rights::unlimited(), Some(limits.into()));
                Arc::new(Caller {
                    principal,
                    last_used: AtomicU64::new(0),
                })
            });
            let Ok(prefix) = row.prefix.parse() else {
                tracing::error!(key.id = %row.id, "a stored key has no prefix and is left out");
                continue;
            };
            known.insert(row.id, Arc::clone(&caller));
            entries.push(KeyEntry {
                key: StoredKey {
                    prefix,
                    digest: row.digest,
                },
                principal: caller,
                expires_at: row.expires_at,
                revoked: row.revoked_at.is_some(),
            });
        }
        self.inner.callers.replace(known);
        self.inner
            .context
            .gateway
            .publish_keys(entries.into_iter().collect());
        Ok(())
    }
}
