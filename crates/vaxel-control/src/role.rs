//! Changes and queries of roles.

use serde_json::{Value, json};
use vaxel_core::{
    access::require,
    audit::AuditLine,
    failure::{Failure, Issue, Kind},
    name::RoleName,
    principal::{Permission, Principal},
    quota::{Quota, RoleQuotas},
    role::{BuiltIn, Reach, RoleDraft, RoleResource},
    time::Timestamp,
};
use vaxel_store::Error as StoreError;

use crate::{
    access::AccessEntry,
    change::Outcome,
    control::{Control, compare_version, conflict},
    rights::{may_give, may_lift},
};

/// One change of roles. `access:manage`; and nobody gives what they lack.
#[derive(Debug, Clone)]
pub enum RoleChange {
    /// A new one.
    Create(RoleDraft),
    /// Another state for one; its name stays.
    Update {
        /// Which.
        name: String,
        /// The whole new state.
        draft: RoleDraft,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// It is gone, with what is shared with it; no user may have it any more.
    Delete {
        /// Which.
        name: String,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
}

/// A role, built in or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleEntry {
    /// Unique.
    pub name: String,
    /// One sentence for people.
    pub description: Option<String>,
    /// What it allows.
    pub permissions: Reach,
    /// How much of it.
    pub limits: Quota,
    /// Version, when it was made and when it was written last; `None`: it is built in.
    pub stored: Option<(u64, Timestamp, Timestamp)>,
}

impl From<RoleResource> for RoleEntry {
    fn from(role: RoleResource) -> Self {
        let RoleResource {
            name,
            version,
            description,
            permissions,
            limits,
            created_at,
            updated_at,
        } = role;
        Self {
            name: name.to_string(),
            description,
            permissions,
            limits,
            stored: Some((version, created_at, updated_at)),
        }
    }
}

impl RoleEntry {
    fn built_in(role: BuiltIn, quotas: &RoleQuotas) -> Self {
        Self {
            name: role.as_str().to_owned(),
            description: Some(role.description().to_owned()),
            permissions: role.reach(),
            limits: quotas.of(role),
            stored: None,
        }
    }
}

impl Control {
    pub(crate) async fn change_role(
        &self,
        caller: &Principal,
        change: RoleChange,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::AccessManage)?;
        let _turn = self.inner.access.lock().await;
        let role = match change {
            RoleChange::Create(draft) => self.create_role(caller, draft).await?,
            RoleChange::Update {
                name,
                draft,
                expected,
            } => self.update_role(caller, &name, (draft, expected)).await?,
            RoleChange::Delete { name, expected } => {
                self.delete_role(caller, &name, expected).await?;
                return Ok(Outcome::Done);
            }
        };
        Ok(Outcome::Access(Box::new(AccessEntry::Role(role.into()))))
    }

    /// Every role, those that are built in first. `access:read`.
    pub async fn roles(&self, caller: &Principal) -> Result<Vec<RoleEntry>, Failure> {
        require(caller, Permission::AccessRead)?;
        let made = self.store().roles().await?;
        let quotas = &self.inner.context.config.callers;
        let built_in = BuiltIn::ALL.into_iter();
        let built_in = built_in.map(|role| RoleEntry::built_in(role, quotas));
        Ok(built_in.chain(made.into_iter().map(Into::into)).collect())
    }

    /// One role. `access:read`.
    pub async fn role(&self, caller: &Principal, name: &str) -> Result<RoleEntry, Failure> {
        require(caller, Permission::AccessRead)?;
        if let Some(role) = BuiltIn::named(name) {
            let quotas = &self.inner.context.config.callers;
            return Ok(RoleEntry::built_in(role, quotas));
        }
        Ok(self.find_role(name).await?.into())
    }

    async fn create_role(
        &self,
        caller: &Principal,
        draft: RoleDraft,
    ) -> Result<RoleResource, Failure> {
        let RoleDraft {
            name,
            description,
            permissions,
            limits,
        } = draft;
        may_give(caller, permissions)?;
        may_lift(caller, limits)?;
        let now = self.now();
        let role = RoleResource {
            name,
            version: 1,
            description,
            permissions,
            limits,
            created_at: now,
            updated_at: now,
        };
        let audit = self.role_audit(caller, "role.create", &role);
        let audit = audit.changing(Value::Null, wanted(&role));
        let created = self.store().create_role(&role, audit).await;
        created.map_err(|error| match error {
            StoreError::Taken => conflict(format!(
                "`{}` is taken: another role has this name",
                role.name
            )),
            other => other.into(),
        })?;
        self.access_done("role", "role.create").await?;
        Ok(role)
    }

    async fn update_role(
        &self,
        caller: &Principal,
        name: &str,
        (draft, expected): (RoleDraft, Option<u64>),
    ) -> Result<RoleResource, Failure> {
        let old = self.find_role_to_change(name).await?;
        compare_version(("role", old.name.as_str()), old.version, expected)?;
        let RoleDraft {
            name,
            description,
            permissions,
            limits,
        } = draft;
        if name != old.name {
            let message = format!("never changes: it is `{}`", old.name);
            let issues = vec![Issue::new("name", message)];
            return Err(Failure::invalid("The role", issues));
        }
        may_give(caller, permissions)?;
        if limits != old.limits {
            may_lift(caller, limits)?;
        }
        let next = RoleResource {
            version: old.version + 1,
            description,
            permissions,
            limits,
            updated_at: self.now(),
            ..old.clone()
        };
        let mut audit = self.role_audit(caller, "role.update", &next);
        audit.detail["before"] = json!({ "permissions": old.permissions, "limits": old.limits });
        let audit = audit.changing(wanted(&old), wanted(&next));
        match self.store().update_role(&next, old.version, audit).await {
            Ok(()) => self.access_done("role", "role.update").await?,
            Err(StoreError::Changed) => return Err(self.role_changed(&old).await?),
            Err(error) => return Err(error.into()),
        }
        Ok(next)
    }

    async fn delete_role(
        &self,
        caller: &Principal,
        name: &str,
        expected: Option<u64>,
    ) -> Result<(), Failure> {
        let old = self.find_role_to_change(name).await?;
        compare_version(("role", old.name.as_str()), old.version, expected)?;
        let users = self.store().users().await?;
        let has_it = |roles: &std::collections::BTreeSet<RoleName>| roles.contains(&old.name);
        let users = users
            .iter()
            .filter(|user| user.deleted_at.is_none() && has_it(&user.roles))
            .map(|user| format!("user `{}`", user.name));
        let policies = self.store().policies().await?;
        let policies = policies
            .iter()
            .filter(|policy| policy.draft.roles.as_ref().is_some_and(has_it))
            .map(|policy| format!("policy `{}`", policy.draft.name));
        let used: Vec<String> = users.chain(policies).collect();
        if let Some(first) = used.first() {
            let others = match used.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            return Err(conflict(format!(
                "The role `{}` is in use by the {first}{others}; take it away there first",
                old.name
            )));
        }
        let audit = self.role_audit(caller, "role.delete", &old);
        let audit = audit.changing(wanted(&old), Value::Null);
        match self
            .store()
            .delete_role(&old.name, old.version, audit)
            .await
        {
            Ok(()) => self.access_done("role", "role.delete").await,
            Err(StoreError::Changed) => Err(self.role_changed(&old).await?),
            Err(error) => Err(error.into()),
        }
    }

    async fn find_role_to_change(&self, name: &str) -> Result<RoleResource, Failure> {
        if BuiltIn::named(name).is_some() {
            return Err(conflict(format!(
                "The role `{name}` is built in and stays as it is; make one of your own"
            )));
        }
        self.find_role(name).await
    }

    async fn find_role(&self, name: &str) -> Result<RoleResource, Failure> {
        let found = match name.parse() {
            Ok(name) => self.store().role(&name).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| unknown(name))
    }

    async fn role_changed(&self, old: &RoleResource) -> Result<Failure, Failure> {
        let name = old.name.as_str();
        let current = self.find_role(name).await?.version;
        let refused = compare_version(("role", name), current, Some(old.version));
        Ok(refused.err().unwrap_or_else(|| unknown(name)))
    }

    fn role_audit(
        &self,
        caller: &Principal,
        action: &'static str,
        role: &RoleResource,
    ) -> AuditLine {
        let target = ("role", role.name.to_string(), role.name.to_string());
        let mut audit = self.line(caller, action, target);
        audit.detail = json!({ "permissions": role.permissions, "limits": role.limits });
        audit
    }
}

fn unknown(name: &str) -> Failure {
    let name: String = name.chars().take(100).collect();
    Failure::new(
        Kind::NotFound,
        format!("There is no role called `{name}`; `vaxel role ls` shows which there are"),
    )
}

/// What a role is, for the audit.
fn wanted(role: &RoleResource) -> Value {
    json!({ "description": role.description, "permissions": role.permissions, "limits": role.limits })
}
