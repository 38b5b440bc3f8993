//! What every user may do, as it is now: gathered when something changes, and given to the data plane
//! with the keys. And what one may hand out to others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use vaxel_core::{
    failure::{Failure, Issue, Kind},
    id::{Id, Service, User},
    name::{RoleName, UserName},
    principal::{Permission, Principal, Proof},
    quota::Quota,
    rights::{Rights, Sources},
    role::{BuiltIn, Reach},
    user::UserResource,
};

use vaxel_gateway::Lent;

use crate::{control::Control, event::Event};

/// Every user with what it may do: an immutable value that is swapped whole.
#[derive(Debug, Default)]
pub(crate) struct People {
    known: Mutex<Arc<HashMap<UserName, Person>>>,
    /// What their rights were gathered from.
    sources: Mutex<Arc<Sources>>,
}

/// A user, also one who is disabled or gone.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) user: UserResource,
    pub(crate) rights: Arc<Rights>,
}

impl Person {
    /// Whether its credentials count.
    pub(crate) const fn is_enabled(&self) -> bool {
        !self.user.disabled && self.user.deleted_at.is_none()
    }
}

impl People {
    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Arc<HashMap<UserName, Person>> {
        Arc::clone(&self.known.lock())
    }

    /// What says what they may do with roles besides their own, as everything is now.
    pub(crate) fn lent(&self) -> Lent {
        let (all, sources) = (self.all(), Arc::clone(&self.sources.lock()));
        Lent::new(move |user, roles| {
            let mut user = all.get(user)?.user.clone();
            user.roles.extend(roles.iter().cloned());
            Some(sources.rights_of(&user))
        })
    }

    /// One whose credentials count.
    pub(crate) fn with_id(&self, id: Id<User>) -> Option<Person> {
        let all = self.all();
        let found = all.values().find(|one| one.user.id == id);
        found.filter(|one| one.is_enabled()).cloned()
    }

    /// One who is not gone.
    pub(crate) fn find(&self, name: &str) -> Option<Person> {
        let all = self.all();
        let found = all.get(name).filter(|one| one.user.deleted_at.is_none());
        found.cloned()
    }
}

impl People {
    /// Whether a service is shared with anybody.
    pub(crate) fn has_grants_of(&self, service: Id<Service>) -> bool {
        let all = self.all();
        let mut granted = all.values().map(|one| one.rights.granted(service));
        granted.any(|permissions| !permissions.is_empty())
    }

    /// The user `admin`, or another one with that role.
    pub(crate) fn first_admin(&self) -> Option<Person> {
        let all = self.all();
        let is_admin =
            |one: &&Person| one.is_enabled() && one.user.roles.contains(BuiltIn::Admin.as_str());
        let named = all.get(BuiltIn::Admin.as_str()).filter(is_admin);
        let other = || all.values().filter(is_admin).min_by_key(|one| one.user.id);
        named.or_else(other).cloned()
    }
}

impl Control {
    /// A change of users, roles, grants or policies is on disk: everyone who acts on it is told.
    pub(crate) async fn access_done(
        &self,
        kind: &'static str,
        action: &'static str,
    ) -> Result<(), Failure> {
        self.publish_access().await?;
        self.announce(Event::Access { kind, action });
        Ok(())
    }

    /// Gathers what every user may do, and gives it to the data plane. Rights that came out as they were
    /// stay the same value, so that nothing that was made of them has to be made anew.
    pub(crate) async fn publish_access(&self) -> Result<(), Failure> {
        let _turn = self.inner.key_ring.lock().await;
        let store = self.store();
        let policies = store.policies().await?.into_iter();
        let sources = Sources::new(
            store.roles().await?,
            store.grants().await?,
            policies.map(|policy| policy.draft),
        );
        let sources = sources.with_quotas(&self.inner.context.config.callers);
        let before = self.inner.people.all();
        let person = |user: UserResource| {
            let rights = sources.rights_of(&user);
            let same = before.get(&user.name).map(|one| &one.rights);
            let rights = match same {
                Some(before) => rights.after(before),
                None => rights,
            };
            let same = same.filter(|one| ***one == rights).map(Arc::clone);
            let rights = same.unwrap_or_else(|| Arc::new(rights));
            (user.name.clone(), Person { user, rights })
        };
        let users = store.users().await?.into_iter();
        *self.inner.people.known.lock() = Arc::new(users.map(person).collect());
        *self.inner.people.sources.lock() = Arc::new(sources);
        self.publish_standings();
        Ok(())
    }

    /// A user who proved who it is by something else than a key; `None`: it is unknown, disabled or gone.
    pub fn as_user(&self, name: &str) -> Option<Principal> {
        let person = self.inner.people.find(name)?;
        let who = (
            Proof::User(person.user.id),
            person.user.name.as_str().into(),
        );
        let is_enabled = person.is_enabled();
        is_enabled.then(|| Principal::of_user(who, person.rights, None))
    }

    /// A caller with what it may do now; `None`: its user is disabled or gone.
    pub(crate) fn as_now(&self, caller: &Principal) -> Option<Principal> {
        let Some(name) = caller.rights.user() else {
            return Some(caller.clone());
        };
        let person = self.inner.people.find(name.as_str())?;
        let who = (caller.proof, Arc::clone(&caller.name));
        let as_now = || Principal::of_user(who, Arc::clone(&person.rights), caller.limits.clone());
        person.is_enabled().then(as_now)
    }

    /// How much a user with these roles may take; those that there are not count for nothing.
    pub(crate) async fn quota_of(
        &self,
        (own, roles): (Option<Quota>, &BTreeSet<RoleName>),
    ) -> Result<Quota, Failure> {
        if let Some(own) = own {
            return Ok(own);
        }
        let stored = self.store().roles().await?;
        let quotas = &self.inner.context.config.callers;
        let found = roles.iter().filter_map(|name| {
            let own = || stored.iter().find(|role| role.name == *name);
            let built_in = BuiltIn::named(name.as_str()).map(|role| quotas.of(role));
            built_in.or_else(|| own().map(|role| role.limits))
        });
        Ok(found.reduce(Quota::most).unwrap_or_default())
    }

    /// What roles allow together; `Err` names each that there is not.
    pub(crate) async fn reach_of(
        &self,
        roles: &BTreeSet<RoleName>,
    ) -> Result<Result<Reach, Vec<Issue>>, Failure> {
        let stored = self.store().roles().await?;
        let mut issues = Vec::new();
        let mut reach = Reach::default();
        for name in roles {
            let own = || stored.iter().find(|role| role.name == *name);
            let found = BuiltIn::named(name.as_str()).map(BuiltIn::reach);
            match found.or_else(|| own().map(|role| role.permissions)) {
                Some(found) => reach = reach.union(found),
                None => issues.push(Issue::new("roles", unknown_role(name))),
            }
        }
        Ok(if issues.is_empty() {
            Ok(reach)
        } else {
            Err(issues)
        })
    }
}

/// What is said of a role that there is not.
pub(crate) fn unknown_role(name: &RoleName) -> String {
    format!("there is no role `{name}`; `vaxel role ls` shows which there are")
}

/// What is said of a user who is not there.
pub(crate) fn unknown_user(name: &UserName) -> String {
    format!("there is no user `{name}`; `vaxel user ls` shows which there are")
}

/// Whether a caller may hand out `wanted`: nobody gives what they lack, and who is limited to some
/// services gives nothing that holds for others.
pub(crate) fn may_give(caller: &Principal, wanted: Reach) -> Result<(), Failure> {
    let limits = caller.limits.as_deref();
    let is_narrow =
        limits.is_some_and(|limits| limits.services.is_some() || limits.environments.is_some());
    if is_narrow && wanted != Reach::default() {
        return Err(Failure::new(
            Kind::NotPermitted,
            format!(
                "`{}` came with a key that is limited to some services, and cannot hand out what holds \
                 for others",
                caller.name
            ),
        ));
    }
    let has = Reach {
        everywhere: caller.permissions,
        own: caller.rights.reach().own.intersection(caller.ceiling()),
    };
    if has.covers(wanted) {
        return Ok(());
    }
    let lacking = Reach {
        everywhere: wanted.everywhere.without(has.everywhere),
        own: wanted.own.without(has.any()),
    };
    Err(cannot_give(caller, &lacking.texts()))
}

/// Whether a caller may let somebody take so much: nobody gives more than they may take.
pub(crate) fn may_lift(caller: &Principal, wanted: Quota) -> Result<(), Failure> {
    if caller.rights.quota().covers(wanted) {
        return Ok(());
    }
    Err(Failure::new(
        Kind::NotPermitted,
        format!(
            "`{}` has limits itself and cannot hand out more than these; `vaxel whoami` shows them",
            caller.name
        ),
    ))
}

/// The failure that says so.
pub(crate) fn cannot_give(caller: &Principal, lacking: &[String]) -> Failure {
    Failure::new(
        Kind::NotPermitted,
        format!(
            "`{}` cannot hand out what it does not have: {}",
            caller.name,
            lacking.join(", ")
        ),
    )
}

/// Whether a caller may do this with what is its own.
pub(crate) fn has_own(caller: &Principal, permission: Permission) -> bool {
    let own = caller.rights.reach().own.intersection(caller.ceiling());
    caller.rights.user().is_some() && own.contains(permission)
}
