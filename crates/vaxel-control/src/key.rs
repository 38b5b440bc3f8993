//! Changes and queries of API keys, and the ring that the data plane checks them with.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Value, json};
use vaxel_auth::key::{ApiKey, KeyEntry, StoredKey};
use vaxel_core::{
    access::{anywhere, require},
    failure::{Failure, Issue, Kind},
    id::Id,
    name::UserName,
    principal::{Permission, Principal, Proof},
    rights::{Limits, Rights},
    secret::Secret,
    service::matches,
};
use vaxel_gateway::Caller;
use vaxel_store::KeyRow;

use crate::{
    change::{KeyDraft, KeyRef, Outcome},
    control::{Control, conflict},
    event::Event,
    rights::{Person, cannot_give, has_own, unknown_user},
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
        let draft = self.accepted_key(caller, draft)?;
        let key = self.make_key(caller, draft).await?;
        Ok(Outcome::Key(Box::new(key)))
    }

    /// Makes a key without asking whether the caller may.
    pub(crate) async fn make_key(
        &self,
        caller: &Principal,
        draft: KeyDraft,
    ) -> Result<NewKey, Failure> {
        let _turn = self.inner.access.lock().await;
        let user = self.user_of(caller, draft.user.as_ref())?.user.name;
        let KeyDraft {
            name,
            user: _,
            permissions,
            services,
            environments,
            expires_in,
        } = draft;
        let now = self.now();
        let (text, made) = ApiKey::generate();
        let stored = KeyRow {
            id: Id::new(now),
            name,
            prefix: made.prefix.to_string(),
            digest: made.digest,
            user,
            permissions,
            services,
            environments,
            created_at: now,
            expires_at: expires_in.map(|span| now.plus(span.0)),
            revoked_at: None,
            last_used_at: None,
        };
        let target = ("key", stored.id.to_string(), stored.name.clone());
        let mut audit = self.line(caller, "key.create", target);
        audit.detail = json!({
            "user": stored.user, "permissions": permissions, "services": stored.services,
            "environments": stored.environments, "expires_at": stored.expires_at,
        });
        let after = audit.detail.clone();
        let audit = audit.changing(Value::Null, after);
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
        require_keys(caller)?;
        let found = self.find_key(key).await?;
        let found = found.filter(|row| manages(caller, &row.user));
        let row = found.ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                "There is no such key; `vaxel key ls` lists them",
            )
        })?;
        if row.revoked_at.is_some() {
            return Ok(Outcome::Done);
        }
        let now = self.now();
        let keys = self.store().keys().await?;
        let manages_keys = |one: &&KeyRow| one.is_live(now) && self.manages_keys(one);
        let last = row.permissions.contains(Permission::KeysManage)
            && keys
                .iter()
                .filter(manages_keys)
                .all(|other| other.id == row.id);
        if last && self.manages_keys(&row) {
            return Err(conflict(format!(
                "`{}` is the last key that can manage keys; create another one first",
                row.name
            )));
        }
        let target = ("key", row.id.to_string(), row.name.clone());
        let audit = self.line(caller, "key.revoke", target);
        let audit = audit.changing(json!({ "revoked": false }), json!({ "revoked": true }));
        self.store().revoke_key(row.id, now, audit).await?;
        self.publish_keys().await?;
        self.announce(Event::Key {
            id: row.id,
            action: "key.revoke",
        });
        Ok(Outcome::Done)
    }

    /// Every key that the caller manages, newest first. `keys:manage`, or `keys:manage:own` for one's own.
    pub async fn keys(&self, caller: &Principal) -> Result<Vec<KeyRow>, Failure> {
        require_keys(caller)?;
        let mut keys = self.store().keys().await?;
        keys.retain(|key| manages(caller, &key.user));
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
        self.publish_ring().await
    }

    /// The same, for who has the turn.
    pub(crate) async fn publish_ring(&self) -> Result<(), Failure> {
        let mut known = HashMap::new();
        let mut entries = Vec::new();
        let people = self.inner.people.all();
        for row in self.store().keys().await? {
            let Ok(prefix) = row.prefix.parse() else {
                tracing::error!(key.id = %row.id, "a stored key has no prefix and is left out");
                continue;
            };
            let Some(person) = people.get(&row.user) else {
                tracing::error!(key.id = %row.id, "the user of a stored key is not known: it is left out");
                continue;
            };
            let caller = self.caller_of(&row, &person.rights);
            known.insert(row.id, Arc::clone(&caller));
            let name = || row.user.as_str().into();
            entries.push(KeyEntry {
                key: StoredKey {
                    prefix,
                    digest: row.digest,
                },
                principal: caller,
                expires_at: row.expires_at,
                revoked: row.revoked_at.is_some(),
                disabled: (!person.is_enabled()).then(name),
            });
        }
        self.inner.callers.replace(known);
        self.inner
            .context
            .gateway
            .publish_keys(entries.into_iter().collect());
        self.publish_users();
        Ok(())
    }

    /// By id any key; by name the one that is not revoked.
    pub(crate) async fn find_key(&self, key: &KeyRef) -> Result<Option<KeyRow>, Failure> {
        let keys = self.store().keys().await?.into_iter();
        let is_it = |row: &KeyRow| match key {
            KeyRef::Id(id) => row.id == *id,
            KeyRef::Name(name) => row.name == *name && row.revoked_at.is_none(),
        };
        Ok(keys.into_iter().find(is_it))
    }

    /// Whether everything about keys could be done with this one.
    pub(crate) fn manages_keys(&self, key: &KeyRow) -> bool {
        let person = self.inner.people.find(key.user.as_str());
        key.permissions.contains(Permission::KeysManage)
            && person.is_some_and(|person| {
                let everywhere = person.rights.reach().everywhere;
                person.is_enabled() && everywhere.contains(Permission::KeysManage)
            })
    }

    /// The caller that a key leads to: the same value as before as long as nothing about it changed.
    fn caller_of(&self, row: &KeyRow, rights: &Arc<Rights>) -> Arc<Caller> {
        let before = self.inner.callers.find(row.id);
        let same = before
            .as_ref()
            .filter(|one| Arc::ptr_eq(&one.principal.rights, rights));
        if let Some(same) = same {
            return Arc::clone(same);
        }
        let used = before.map_or(0, |one| one.last_used.load(Ordering::Relaxed));
        let who = (Proof::Key(row.id), row.user.as_str().into());
        let limits = Some(limits(row).into());
        Arc::new(Caller {
            principal: Principal::of_user(who, Arc::clone(rights), limits),
            last_used: AtomicU64::new(used),
        })
    }

    /// The user whose a new key is: the one who is named, or the caller's own, or the first one when the
    /// caller is none.
    fn user_of(&self, caller: &Principal, named: Option<&UserName>) -> Result<Person, Failure> {
        let refused =
            |message: String| Failure::invalid("The key", vec![Issue::new("user", message)]);
        let people = &self.inner.people;
        let person = match named.or(caller.rights.user()) {
            Some(name) => people
                .find(name.as_str())
                .ok_or_else(|| refused(unknown_user(name)))?,
            None => people
                .first_admin()
                .ok_or_else(|| refused("must be named: nobody has the role `admin`".to_owned()))?,
        };
        if person.user.disabled {
            return Err(refused(format!(
                "the user `{}` is disabled",
                person.user.name
            )));
        }
        Ok(person)
    }

    /// Whether the caller may make this key, which is then limited as the caller's own key is.
    fn accepted_key(&self, caller: &Principal, mut draft: KeyDraft) -> Result<KeyDraft, Failure> {
        let everywhere = caller.permissions;
        let is_manager = everywhere.contains(Permission::KeysManage)
            || everywhere.contains(Permission::UsersManage);
        if !is_manager {
            require_keys(caller)?;
            // For another one it takes more; who that may be is nothing to hear here.
            if draft.user.is_some() && draft.user.as_ref() != caller.rights.user() {
                require(caller, Permission::KeysManage)?;
            }
        }
        let user = self.user_of(caller, draft.user.as_ref())?.user;
        let is_own = caller.rights.user() == Some(&user.name);
        if is_own {
            require_keys(caller)?;
        }
        // One's own key can do no more than oneself; another one's can do what that user may.
        let has = if is_own { anywhere(caller) } else { everywhere };
        let lacking = draft.permissions.without(has);
        if !lacking.is_empty() {
            let lacking: Vec<String> = lacking.iter().map(|one| one.to_string()).collect();
            return Err(cannot_give(caller, &lacking));
        }
        if let Some(limits) = caller.limits.as_deref() {
            narrow(&mut draft, limits)?;
        }
        Ok(draft)
    }
}

/// What a key is limited to.
pub(crate) fn limits(row: &KeyRow) -> Limits {
    Limits {
        permissions: row.permissions,
        services: row.services.clone(),
        environments: row.environments.clone(),
    }
}

/// Whether the caller manages any keys at all.
fn require_keys(caller: &Principal) -> Result<(), Failure> {
    if has_own(caller, Permission::KeysManage) {
        return Ok(());
    }
    require(caller, Permission::KeysManage)
}

/// Whether the caller manages the keys of a user.
fn manages(caller: &Principal, user: &UserName) -> bool {
    caller.permissions.contains(Permission::KeysManage)
        || (has_own(caller, Permission::KeysManage) && caller.rights.user() == Some(user))
}

/// A key that is made with a limited one is limited as that one is, or more.
fn narrow(draft: &mut KeyDraft, limits: &Limits) -> Result<(), Failure> {
    let mut issues = Vec::new();
    if let Some(own) = &limits.services {
        let wanted = draft.services.get_or_insert_with(|| own.clone());
        let is_within = |one: &String| {
            own.contains(one) || (!one.contains('*') && own.iter().any(|known| matches(known, one)))
        };
        for one in wanted.iter().filter(|one| !is_within(one)) {
            let message = format!("`{one}` is not within what your own key is limited to");
            issues.push(Issue::new("services", message));
        }
    }
    if let Some(own) = &limits.environments {
        let wanted = draft.environments.get_or_insert_with(|| own.clone());
        for one in wanted.iter().filter(|one| !own.contains(*one)) {
            let message = format!("`{one}` is not within what your own key is limited to");
            issues.push(Issue::new("environments", message));
        }
    }
    if issues.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid("The key", issues))
}
