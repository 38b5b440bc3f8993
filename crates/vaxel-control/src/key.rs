//! Changes and queries of API keys.

mod file; // where the texts of some stand
pub(crate) mod ring; // what the data plane checks them with
pub(crate) mod rotation; // another secret for a key
pub(crate) mod uses; // when and from where they were used

use file::KeyFile;
pub(crate) use file::can_be_named;
pub use file::place_of;
use serde_json::{Value, json};
use vaxel_auth::key::ApiKey;
use vaxel_core::{
    access::{anywhere, require},
    failure::{Failure, Issue, Kind},
    id::{Id, Key},
    name::UserName,
    principal::{Permission, Principal},
    rights::Limits,
    secret::Secret,
    service::matches,
};
use vaxel_store::KeyRow;

use crate::{
    change::{KeyDraft, KeyRef, Outcome},
    control::{Control, conflict},
    event::Event,
    query::{List, Page},
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
            rotate_every,
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
            last_used_from: None,
            rotated_at: None,
            rotate_every: rotate_every.map(|span| span.0),
            earlier: None,
        };
        let target = ("key", stored.id.to_string(), stored.name.clone());
        let mut audit = self.line(caller, "key.create", target);
        audit.detail = json!({
            "user": stored.user, "permissions": permissions, "services": stored.services,
            "environments": stored.environments, "expires_at": stored.expires_at,
        });
        let after = audit.detail.clone();
        let audit = audit.changing(Value::Null, after);
        let mut files = Vec::new();
        if stored.rotate_every.is_some() {
            files.push(self.prepare_key_file(&stored.name, &text).await?);
        }
        files.iter_mut().for_each(KeyFile::entrust);
        if let Err(error) = self.store().create_key(&stored, audit).await {
            let is_taken = matches!(error, vaxel_store::Error::Taken);
            let failure = self.not_stored(&stored, files, error);
            if is_taken {
                return Err(conflict(format!(
                    "There is a key called `{}` already",
                    stored.name
                )));
            }
            return Err(failure);
        }
        self.publish_new(&stored, files).await;
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
        // Two at once could each take the other's key for the one that is left.
        let _turn = self.inner.access.lock().await;
        let row = self.managed_key(caller, key).await?;
        if row.revoked_at.is_some() {
            // Asked for again, it may be because the data plane did not hear of it.
            self.publish_key(row.id).await?;
            self.remove_key_file(&row).await;
            return Ok(Outcome::Done);
        }
        let now = self.now();
        let managers = self.store().keys_that_may(Permission::KeysManage).await?;
        let mut others = managers.iter().filter(|other| other.id != row.id);
        let is_left = |one: &KeyRow| one.is_live(now) && self.manages_keys(one);
        if self.manages_keys(&row) && !others.any(is_left) {
            return Err(conflict(format!(
                "`{}` is the last key that can manage keys; create another one first",
                row.name
            )));
        }
        let target = ("key", row.id.to_string(), row.name.clone());
        let audit = self.line(caller, "key.revoke", target);
        let audit = audit.changing(json!({ "revoked": false }), json!({ "revoked": true }));
        self.store().revoke_key(row.id, now, audit).await?;
        self.publish_key(row.id).await?;
        self.remove_key_file(&row).await;
        self.announce(Event::Key {
            id: row.id,
            action: "key.revoke",
        });
        Ok(Outcome::Done)
    }

    /// A page of the keys that the caller manages, newest first; those of one user when one is named.
    /// `keys:manage`, or `keys:manage:own` for one's own.
    pub async fn keys(
        &self,
        caller: &Principal,
        (user, page): (Option<&UserName>, &Page),
    ) -> Result<List<KeyRow>, Failure> {
        require_keys(caller)?;
        let before: Option<Id<Key>> = match &page.cursor {
            Some(text) => Some(text.parse().map_err(|_| {
                let issue = Issue::new("cursor", "is not one that a list of keys gave");
                Failure::invalid("The query", vec![issue])
            })?),
            None => None,
        };
        let is_manager = caller.permissions.contains(Permission::KeysManage);
        let whose = if is_manager {
            user
        } else {
            caller.rights.user()
        };
        if !is_manager && user.is_some_and(|user| Some(user) != whose) {
            return Ok(List {
                items: Vec::new(),
                next_cursor: None,
            });
        }
        let (whose, limit) = (whose.cloned(), page.limit);
        let page = self.store().keys_before(before, whose, limit).await?;
        let is_full = page.length == limit as usize;
        let mut items = page.rows;
        self.inner.key_uses.add_to(&mut items);
        Ok(List {
            items,
            next_cursor: page.last.filter(|_| is_full),
        })
    }

    /// By id any key; by name the one that is not revoked.
    pub(crate) async fn find_key(&self, key: &KeyRef) -> Result<Option<KeyRow>, Failure> {
        Ok(match key {
            KeyRef::Id(id) => self.store().key(*id).await?,
            KeyRef::Name(name) => self.store().key_named(name).await?,
        })
    }

    /// A key that the caller manages.
    async fn managed_key(&self, caller: &Principal, key: &KeyRef) -> Result<KeyRow, Failure> {
        require_keys(caller)?;
        let found = self.find_key(key).await?;
        let found = found.filter(|row| manages(caller, &row.user));
        found.ok_or_else(|| {
            Failure::new(
                Kind::NotFound,
                "There is no such key; `vaxel key ls` lists them",
            )
        })
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
