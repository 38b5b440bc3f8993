//! Changes and queries of grants.

use serde_json::{Value, json};
use vaxel_core::{
    access::{Asked, Target, decide_on, require, require_anywhere, require_on},
    failure::{Failure, Issue, Kind},
    grant::{GrantDraft, GrantResource, Grantee},
    id::{Grant, Id},
    principal::{Permission, Principal},
    role::BuiltIn,
    service::ServiceResource,
};
use vaxel_store::Error as StoreError;

use crate::{
    access::AccessEntry,
    change::{Outcome, ServiceRef},
    control::{Control, conflict},
    rights::{cannot_give, unknown_role, unknown_user},
    service::query::target,
};

/// One change of grants. `access:manage`, or `mcp:manage` on the service; and nobody gives what they lack.
#[derive(Debug, Clone)]
pub enum GrantChange {
    /// A service is shared.
    Create(GrantDraft),
    /// It is not any more.
    Delete {
        /// Which grant.
        id: String,
    },
}

/// A grant with the name of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantEntry {
    /// What is stored.
    pub resource: GrantResource,
    /// The name that its service has now.
    pub service: String,
}

impl Control {
    pub(crate) async fn change_grant(
        &self,
        caller: &Principal,
        change: GrantChange,
    ) -> Result<Outcome, Failure> {
        let _turn = self.inner.access.lock().await;
        match change {
            GrantChange::Create(draft) => {
                let grant = self.create_grant(caller, draft).await?;
                Ok(Outcome::Access(Box::new(AccessEntry::Grant(grant))))
            }
            GrantChange::Delete { id } => {
                self.delete_grant(caller, &id).await?;
                Ok(Outcome::Done)
            }
        }
    }

    /// The grants that the caller may see, oldest first: all of them with `access:read`, otherwise those
    /// of services that it manages and those that it has itself.
    pub async fn grants(&self, caller: &Principal) -> Result<Vec<GrantEntry>, Failure> {
        if !caller.permissions.contains(Permission::AccessRead) && caller.rights.user().is_none() {
            require(caller, Permission::AccessRead)?;
        }
        require_anywhere(caller, Permission::McpRead)
            .or_else(|_| require(caller, Permission::AccessRead))?;
        let mut seen = Vec::new();
        let services = self.store().all_services().await?;
        for resource in self.store().grants().await? {
            let service = services.iter().find(|one| one.id == resource.service);
            if let Some(service) = service
                && self.sees_grant(caller, &resource, service)
            {
                let service = service.name.to_string();
                seen.push(GrantEntry { resource, service });
            }
        }
        Ok(seen)
    }

    /// One grant that the caller may see.
    pub async fn grant(&self, caller: &Principal, id: &str) -> Result<GrantEntry, Failure> {
        let mut all = self.grants(caller).await?;
        let place = all
            .iter()
            .position(|one| one.resource.id.to_string() == id)
            .ok_or_else(unknown)?;
        Ok(all.swap_remove(place))
    }

    async fn create_grant(
        &self,
        caller: &Principal,
        draft: GrantDraft,
    ) -> Result<GrantEntry, Failure> {
        let GrantDraft {
            to,
            service: name,
            permissions,
        } = draft;
        let service = self.store().service_by_name(&name).await?;
        if !caller.permissions.contains(Permission::AccessManage) {
            require_anywhere(caller, Permission::McpManage)?;
            let service = service.as_ref();
            let service = service.ok_or_else(|| ServiceRef::Name(name.clone()).unknown())?;
            require_on(&self.asked(caller, Permission::McpManage, &target(service)))?;
        }
        let mut issues = Vec::new();
        if let Some(message) = self.unknown_grantee(&to).await? {
            issues.push(Issue::new("to", message));
        }
        let Some(service) = service.filter(|_| issues.is_empty()) else {
            if self.store().service_by_name(&name).await?.is_none() {
                let message =
                    format!("there is no service `{name}`; `vaxel ls` shows which there are");
                issues.push(Issue::new("service", message));
            }
            return Err(Failure::invalid("The grant", issues));
        };
        let on = target(&service);
        let lacking = permissions
            .iter()
            .filter(|one| !decide_on(&self.asked(caller, *one, &on)).allowed);
        let lacking: Vec<String> = lacking.map(|one| one.to_string()).collect();
        if !lacking.is_empty() {
            return Err(cannot_give(caller, &lacking));
        }
        let now = self.now();
        let resource = GrantResource {
            id: Id::new(now),
            to,
            service: service.id,
            permissions,
            granted_by: caller.name.to_string(),
            created_at: now,
        };
        let service = service.name.to_string();
        let entry = GrantEntry { resource, service };
        let audit = self.grant_audit(caller, "grant.create", &entry);
        let after = audit.detail.clone();
        let audit = audit.changing(Value::Null, after);
        let created = self.store().create_grant(&entry.resource, audit).await;
        created.map_err(|error| match error {
            StoreError::Taken => conflict(format!(
                "`{}` is shared with `{}` already; end that grant first: `vaxel grant ls` shows it",
                entry.service, entry.resource.to
            )),
            other => other.into(),
        })?;
        self.access_done("grant", "grant.create").await?;
        Ok(entry)
    }

    async fn delete_grant(&self, caller: &Principal, id: &str) -> Result<(), Failure> {
        let is_manager = caller.permissions.contains(Permission::AccessManage);
        if !is_manager {
            require_anywhere(caller, Permission::McpManage)?;
        }
        let id: Id<Grant> = id.parse().map_err(|_| unknown())?;
        let resource = self.store().grant(id).await?.ok_or_else(unknown)?;
        let service = self.store().service(resource.service).await?;
        if !is_manager {
            let service = service.as_ref().ok_or_else(unknown)?;
            let on = target(service);
            // Who cannot see the service is told that there is no such grant.
            require_on(&self.asked(caller, Permission::McpManage, &on)).map_err(|failure| {
                if failure.kind == Kind::UnknownService {
                    return unknown().hiding();
                }
                failure
            })?;
        }
        let service = service.map_or_else(String::new, |one| one.name.to_string());
        let entry = GrantEntry { resource, service };
        let audit = self.grant_audit(caller, "grant.delete", &entry);
        let before = audit.detail.clone();
        let audit = audit.changing(before, Value::Null);
        match self.store().delete_grant(id, audit).await {
            Ok(()) => self.access_done("grant", "grant.delete").await,
            Err(StoreError::Missing) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    async fn unknown_grantee(&self, to: &Grantee) -> Result<Option<String>, Failure> {
        Ok(match to {
            Grantee::User(name) => {
                let is_there = self.inner.people.find(name.as_str()).is_some();
                (!is_there).then(|| unknown_user(name))
            }
            Grantee::Role(name) => {
                let is_there = BuiltIn::named(name.as_str()).is_some()
                    || self.store().role(name).await?.is_some();
                (!is_there).then(|| unknown_role(name))
            }
        })
    }

    fn sees_grant(
        &self,
        caller: &Principal,
        grant: &GrantResource,
        service: &ServiceResource,
    ) -> bool {
        let is_own = match &grant.to {
            Grantee::User(name) => caller.rights.user() == Some(name),
            Grantee::Role(name) => caller.rights.role_names().any(|role| role == name.as_str()),
        };
        let on = target(service);
        caller.permissions.contains(Permission::AccessRead)
            || is_own
            || decide_on(&self.asked(caller, Permission::McpManage, &on)).allowed
    }

    /// The question whether `who` may do this with a service, now.
    pub(crate) fn asked<'a>(
        &self,
        who: &'a Principal,
        permission: Permission,
        on: &'a Target<'a>,
    ) -> Asked<'a> {
        Asked {
            who,
            permission,
            on,
            tool: None,
            arguments: None,
            now: self.now(),
        }
    }

    fn grant_audit(
        &self,
        caller: &Principal,
        action: &'static str,
        grant: &GrantEntry,
    ) -> vaxel_core::audit::AuditLine {
        let (id, to) = (&grant.resource.id, &grant.resource.to);
        let target = ("grant", id.to_string(), format!("{to} {}", grant.service));
        let mut audit = self.line(caller, action, target);
        audit.detail = json!({
            "to": to, "service": grant.service, "service_id": grant.resource.service,
            "permissions": grant.resource.permissions,
        });
        audit
    }
}

fn unknown() -> Failure {
    let detail = "There is no such grant; `vaxel grant ls` shows which there are";
    Failure::new(Kind::NotFound, detail)
}
