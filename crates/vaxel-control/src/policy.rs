//! Changes and queries of policies.

use serde_json::{Value, json};
use vaxel_core::{
    access::require,
    audit::AuditLine,
    failure::{Failure, Issue, Kind},
    id::Id,
    policy::{Effect, PolicyDraft, PolicyResource},
    principal::{Permission, Permissions, Principal},
    role::{BuiltIn, Reach},
};
use vaxel_store::Error as StoreError;

use crate::{
    access::AccessEntry,
    change::Outcome,
    control::{Control, compare_version, conflict},
    rights::{may_give, unknown_role, unknown_user},
};

/// One change of policies. `access:manage`; and nobody allows what they lack.
#[derive(Debug, Clone)]
pub enum PolicyChange {
    /// A new one.
    Create(Box<PolicyDraft>),
    /// Another state for one.
    Update {
        /// Name or id.
        policy: String,
        /// The whole new state.
        draft: Box<PolicyDraft>,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
    /// It is gone.
    Delete {
        /// Name or id.
        policy: String,
        /// Refuse when the current version is another one.
        expected: Option<u64>,
    },
}

impl Control {
    pub(crate) async fn change_policy(
        &self,
        caller: &Principal,
        change: PolicyChange,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::AccessManage)?;
        let _turn = self.inner.access.lock().await;
        let policy = match change {
            PolicyChange::Create(draft) => self.create_policy(caller, *draft).await?,
            PolicyChange::Update {
                policy,
                draft,
                expected,
            } => {
                self.update_policy(caller, &policy, (*draft, expected))
                    .await?
            }
            PolicyChange::Delete { policy, expected } => {
                self.delete_policy(caller, &policy, expected).await?;
                return Ok(Outcome::Done);
            }
        };
        Ok(Outcome::Access(Box::new(AccessEntry::Policy(policy))))
    }

    /// Every policy, by name. `access:read`.
    pub async fn policies(&self, caller: &Principal) -> Result<Vec<PolicyResource>, Failure> {
        require(caller, Permission::AccessRead)?;
        Ok(self.store().policies().await?)
    }

    /// One policy, by name or id. `access:read`.
    pub async fn policy(
        &self,
        caller: &Principal,
        policy: &str,
    ) -> Result<PolicyResource, Failure> {
        require(caller, Permission::AccessRead)?;
        self.find_policy(policy).await
    }

    async fn create_policy(
        &self,
        caller: &Principal,
        draft: PolicyDraft,
    ) -> Result<PolicyResource, Failure> {
        self.check_policy(&draft).await?;
        may_allow(caller, given_by(&draft))?;
        let now = self.now();
        let policy = PolicyResource {
            id: Id::new(now),
            version: 1,
            draft,
            created_at: now,
            updated_at: now,
            issues: Vec::new(),
        };
        let audit = self.policy_audit(caller, "policy.create", &policy);
        let audit = audit.changing(Value::Null, json!(policy.draft));
        let created = self.store().create_policy(&policy, audit).await;
        created.map_err(|error| match error {
            StoreError::Taken => in_use(&policy),
            other => other.into(),
        })?;
        self.access_done("policy", "policy.create").await?;
        Ok(policy)
    }

    async fn update_policy(
        &self,
        caller: &Principal,
        policy: &str,
        (draft, expected): (PolicyDraft, Option<u64>),
    ) -> Result<PolicyResource, Failure> {
        let old = self.find_policy(policy).await?;
        let name = ("policy", old.draft.name.as_str());
        compare_version(name, old.version, expected)?;
        self.check_policy(&draft).await?;
        let given = given_by(&draft).union(kept_back_by(&old.draft));
        may_allow(caller, given)?;
        let next = PolicyResource {
            version: old.version + 1,
            draft,
            updated_at: self.now(),
            issues: Vec::new(),
            ..old.clone()
        };
        let mut audit = self.policy_audit(caller, "policy.update", &next);
        audit.detail["before"] = json!(old.draft);
        let audit = audit.changing(json!(old.draft), json!(next.draft));
        match self.store().update_policy(&next, old.version, audit).await {
            Ok(()) => self.access_done("policy", "policy.update").await?,
            Err(StoreError::Changed) => return Err(self.policy_changed(&old).await?),
            Err(StoreError::Taken) => return Err(in_use(&next)),
            Err(error) => return Err(error.into()),
        }
        Ok(next)
    }

    async fn delete_policy(
        &self,
        caller: &Principal,
        policy: &str,
        expected: Option<u64>,
    ) -> Result<(), Failure> {
        let old = self.find_policy(policy).await?;
        let name = ("policy", old.draft.name.as_str());
        compare_version(name, old.version, expected)?;
        may_allow(caller, kept_back_by(&old.draft))?;
        let audit = self.policy_audit(caller, "policy.delete", &old);
        let audit = audit.changing(json!(old.draft), Value::Null);
        match self.store().delete_policy(old.id, old.version, audit).await {
            Ok(()) => self.access_done("policy", "policy.delete").await,
            Err(StoreError::Changed) => Err(self.policy_changed(&old).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Every user and role that it names is there. Services are named by patterns, also for later ones.
    async fn check_policy(&self, draft: &PolicyDraft) -> Result<(), Failure> {
        let mut issues = Vec::new();
        for name in draft.users.iter().flatten() {
            if self.inner.people.find(name.as_str()).is_none() {
                issues.push(Issue::new("users", unknown_user(name)));
            }
        }
        let stored = self.store().roles().await?;
        for name in draft.roles.iter().flatten() {
            let is_there = BuiltIn::named(name.as_str()).is_some()
                || stored.iter().any(|role| role.name == *name);
            if !is_there {
                issues.push(Issue::new("roles", unknown_role(name)));
            }
        }
        if issues.is_empty() {
            return Ok(());
        }
        Err(Failure::invalid("The policy", issues))
    }

    async fn find_policy(&self, policy: &str) -> Result<PolicyResource, Failure> {
        // Ids are longer than names can be.
        let found = match (policy.parse(), policy.parse()) {
            (_, Ok(name)) => self.store().policy_by_name(&name).await?,
            (Ok(id), Err(_)) => self.store().policy(id).await?,
            (Err(_), Err(_)) => None,
        };
        found.ok_or_else(|| unknown(policy))
    }

    async fn policy_changed(&self, old: &PolicyResource) -> Result<Failure, Failure> {
        let name = old.draft.name.as_str();
        let current = self.store().policy(old.id).await?;
        let current = current.ok_or_else(|| unknown(name))?.version;
        let refused = compare_version(("policy", name), current, Some(old.version));
        Ok(refused.err().unwrap_or_else(|| unknown(name)))
    }

    fn policy_audit(
        &self,
        caller: &Principal,
        action: &'static str,
        policy: &PolicyResource,
    ) -> AuditLine {
        let name = policy.draft.name.to_string();
        let mut audit = self.line(caller, action, ("policy", policy.id.to_string(), name));
        audit.detail = json!({ "policy": policy.draft });
        audit
    }
}

/// What a policy lets somebody do.
fn given_by(draft: &PolicyDraft) -> Permissions {
    match draft.effect {
        Effect::Allow => draft.permissions,
        Effect::Deny => Permissions::NONE,
    }
}

/// What somebody may do once a policy is gone.
fn kept_back_by(draft: &PolicyDraft) -> Permissions {
    match draft.effect {
        Effect::Allow => Permissions::NONE,
        Effect::Deny => draft.permissions,
    }
}

fn may_allow(caller: &Principal, everywhere: Permissions) -> Result<(), Failure> {
    let reach = Reach {
        everywhere,
        ..Reach::default()
    };
    may_give(caller, reach)
}

fn in_use(policy: &PolicyResource) -> Failure {
    conflict(format!(
        "`{}` is taken: another policy has this name",
        policy.draft.name
    ))
}

fn unknown(policy: &str) -> Failure {
    let policy: String = policy.chars().take(100).collect();
    Failure::new(
        Kind::NotFound,
        format!("There is no policy called `{policy}`; `vaxel policy ls` shows which there are"),
    )
}
