//! What a user may do, gathered from roles, grants and policies: made when one of those changes, and shared
//! by everyone who comes as that user. [`crate::access`] decides with it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use crate::{
    grant::{GrantResource, Grantee},
    id::{Id, Service},
    name::{RoleName, UserName},
    policy::PolicyDraft,
    principal::Permissions,
    quota::{Quota, RoleQuotas, Used},
    role::{BuiltIn, Reach, RoleResource},
    user::{UserKind, UserResource},
};

/// What a user may do.
#[derive(Debug)]
pub struct Rights {
    /// Whose they are; `None`: Vaxel's own.
    user: Option<UserName>,
    kind: Option<UserKind>,
    roles: Vec<(RoleName, Reach)>,
    reach: Reach,
    granted: HashMap<Id<Service>, Permissions>,
    policies: Vec<Arc<PolicyDraft>>,
    quota: Quota,
    used: Arc<Used>,
}

/// What a credential is limited to, whatever its user may do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Nothing but these.
    pub permissions: Permissions,
    /// Of services with such a name (patterns); absent: all.
    pub services: Option<Vec<String>>,
    /// Of services in these environments; absent: all.
    pub environments: Option<BTreeSet<String>>,
}

/// Everything that rights are gathered from.
#[derive(Debug, Default)]
pub struct Sources {
    roles: HashMap<RoleName, (Reach, Quota)>,
    to_users: HashMap<UserName, HashMap<Id<Service>, Permissions>>,
    to_roles: HashMap<RoleName, HashMap<Id<Service>, Permissions>>,
    policies: Vec<Arc<PolicyDraft>>,
}

impl Limits {
    /// Whether it is good for some services and not for others.
    pub const fn narrows(&self) -> bool {
        self.services.is_some() || self.environments.is_some()
    }
}

impl Rights {
    /// Those of Vaxel itself, and of everyone where authentication is switched off.
    pub fn unlimited() -> Arc<Self> {
        static UNLIMITED: LazyLock<Arc<Rights>> = LazyLock::new(|| {
            Arc::new(Rights {
                user: None,
                kind: None,
                roles: Vec::new(),
                reach: Reach::ALL,
                granted: HashMap::new(),
                policies: Vec::new(),
                quota: Quota::NONE,
                used: Arc::default(),
            })
        });
        Arc::clone(&UNLIMITED)
    }

    /// The user's name; `None`: these are Vaxel's own.
    pub const fn user(&self) -> Option<&UserName> {
        self.user.as_ref()
    }

    /// A person or a program; `None`: these are Vaxel's own.
    pub const fn kind(&self) -> Option<UserKind> {
        self.kind
    }

    /// The roles that the user has, as far as there are such roles.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|(name, _)| name.as_str())
    }

    /// The roles with what each allows.
    pub fn roles(&self) -> &[(RoleName, Reach)] {
        &self.roles
    }

    /// What the roles allow together.
    pub const fn reach(&self) -> Reach {
        self.reach
    }

    /// What is granted of a service.
    pub fn granted(&self, service: Id<Service>) -> Permissions {
        self.granted.get(&service).copied().unwrap_or_default()
    }

    /// What is granted of any service.
    pub fn granted_anywhere(&self) -> Permissions {
        let all = self.granted.values().copied();
        all.fold(Permissions::NONE, Permissions::union)
    }

    /// The policies that concern the user.
    pub fn policies(&self) -> &[Arc<PolicyDraft>] {
        &self.policies
    }

    /// How much the user may take: its own limits, else those of its roles.
    pub const fn quota(&self) -> &Quota {
        &self.quota
    }

    /// What the user has taken of that, whoever comes as that user.
    pub const fn used(&self) -> &Arc<Used> {
        &self.used
    }

    /// The same after a change: what was taken before stays taken.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        Self {
            used: Arc::clone(&before.used),
            ..self
        }
    }
}

/// Whether the same may be done, whatever was taken meanwhile.
impl PartialEq for Rights {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            user,
            kind,
            roles,
            reach,
            granted,
            policies,
            quota,
            used: _,
        } = self;
        (user, roles, reach, granted) == (&other.user, &other.roles, &other.reach, &other.granted)
            && *kind == other.kind
            && (policies, quota) == (&other.policies, &other.quota)
    }
}
impl Eq for Rights {}

impl Sources {
    /// Gathers what is stored.
    pub fn new(
        roles: impl IntoIterator<Item = RoleResource>,
        grants: impl IntoIterator<Item = GrantResource>,
        policies: impl IntoIterator<Item = PolicyDraft>,
    ) -> Self {
        let of_role = |role: RoleResource| (role.name, (role.permissions, role.limits));
        let own = roles.into_iter().map(of_role);
        let quotas = RoleQuotas::default();
        let built_in = BuiltIn::ALL.into_iter().filter_map(|role| {
            let name = role.as_str().parse().ok()?;
            Some((name, (role.reach(), quotas.of(role))))
        });
        let mut sources = Self {
            // What is built in stays as it is.
            roles: own.chain(built_in).collect(),
            policies: policies
                .into_iter()
                .filter(|policy| policy.enabled)
                .map(Arc::new)
                .collect(),
            ..Self::default()
        };
        for grant in grants {
            let shared = match grant.to {
                Grantee::User(name) => sources.to_users.entry(name).or_default(),
                Grantee::Role(name) => sources.to_roles.entry(name).or_default(),
            };
            let granted = shared.entry(grant.service).or_default();
            *granted = granted.union(grant.permissions);
        }
        sources
    }

    /// The same with other limits of the built-in roles.
    #[must_use]
    pub fn with_quotas(mut self, quotas: &RoleQuotas) -> Self {
        for (role, quota) in &quotas.0 {
            if let Some((_, known)) = self.roles.get_mut(role.as_str()) {
                *known = *quota;
            }
        }
        self
    }

    /// What a user may do.
    pub fn rights_of(&self, user: &UserResource) -> Rights {
        let roles = user.roles.iter();
        let roles: Vec<(RoleName, Reach)> = roles
            .filter_map(|name| Some((name.clone(), self.roles.get(name)?.0)))
            .collect();
        let quotas = user.roles.iter().filter_map(|name| self.roles.get(name));
        let quotas = quotas.map(|(_, quota)| *quota).reduce(Quota::most);
        let of_roles = roles.iter().filter_map(|(name, _)| self.to_roles.get(name));
        let mut granted: HashMap<Id<Service>, Permissions> = HashMap::new();
        for (service, permissions) in of_roles.chain(self.to_users.get(&user.name)).flatten() {
            let sum = granted.entry(*service).or_default();
            *sum = sum.union(*permissions);
        }
        let names = || roles.iter().map(|(name, _)| name.as_str());
        let policies = self.policies.iter();
        let policies = policies
            .filter(|policy| policy.concerns(user.name.as_str(), names()))
            .cloned()
            .collect();
        let reach = roles.iter().map(|(_, reach)| *reach);
        let reach = reach.fold(Reach::default(), Reach::union);
        Rights {
            user: Some(user.name.clone()),
            kind: Some(user.kind),
            roles,
            reach,
            granted,
            policies,
            quota: user.limits.or(quotas).unwrap_or_default(),
            used: Arc::default(),
        }
    }
}
