//! Changes and queries of sets, and what the data plane serves of them.

use std::collections::HashSet;

use serde_json::{Value, json};
use vaxel_core::{
    access::{require, require_anywhere},
    audit::AuditLine,
    failure::{Failure, Kind},
    id::Id,
    principal::{Permission, Principal},
    toolset::{Selected, ToolsetDraft, ToolsetResource},
};
use vaxel_gateway::{ServedSet, ShownOf};
use vaxel_store::{Error as StoreError, ServiceQuery};

use crate::{
    change::{Outcome, ToolsetRef},
    control::{Control, conflict},
    event::Event,
    service::query::{is_seen, reads_all, target_of},
};

/// A set with what is seen of its services.
#[derive(Debug, Clone)]
pub struct ObservedToolset {
    /// What was asked for.
    pub resource: ToolsetResource,
    /// In the order of `resource.services`: whether there is such a service, and how much of it is
    /// shown; `None` as long as it is not served.
    pub services: Vec<(bool, Option<ShownOf>)>,
}

impl Control {
    pub(crate) async fn create_toolset(
        &self,
        caller: &Principal,
        draft: ToolsetDraft,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::McpManage)?;
        let now = self.now();
        let ToolsetDraft {
            name,
            description,
            view,
            services,
        } = draft;
        let resource = ToolsetResource {
            id: Id::new(now),
            name,
            version: 1,
            description,
            view,
            services,
            created_at: now,
            updated_at: now,
            issues: Vec::new(),
        };
        let audit = self.toolset_audit(caller, "toolset.create", &resource);
        let audit = audit.changing(Value::Null, wanted(&resource));
        let created = self.store().create_toolset(&resource, audit).await;
        created.map_err(|error| match error {
            StoreError::Taken => in_use(&resource),
            other => other.into(),
        })?;
        self.toolset_done(resource, "toolset.create").await
    }

    pub(crate) async fn update_toolset(
        &self,
        caller: &Principal,
        toolset: &ToolsetRef,
        (draft, expected): (ToolsetDraft, Option<u64>),
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::McpManage)?;
        let old = self.find_toolset(toolset).await?;
        compare(&old, expected)?;
        let before = wanted(&old);
        let ToolsetDraft {
            name,
            description,
            view,
            services,
        } = draft;
        let next = ToolsetResource {
            name,
            version: old.version + 1,
            description,
            view,
            services,
            updated_at: self.now(),
            issues: Vec::new(),
            ..old
        };
        let audit = self.toolset_audit(caller, "toolset.update", &next);
        let audit = audit.changing(before, wanted(&next));
        match self.store().update_toolset(&next, old.version, audit).await {
            Ok(()) => self.toolset_done(next, "toolset.update").await,
            Err(StoreError::Changed) => Err(self.toolset_changed(&next, old.version).await?),
            Err(StoreError::Taken) => Err(in_use(&next)),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn delete_toolset(
        &self,
        caller: &Principal,
        toolset: &ToolsetRef,
        expected: Option<u64>,
    ) -> Result<Outcome, Failure> {
        require(caller, Permission::McpManage)?;
        let old = self.find_toolset(toolset).await?;
        compare(&old, expected)?;
        let audit = self.toolset_audit(caller, "toolset.delete", &old);
        let audit = audit.changing(wanted(&old), Value::Null);
        match self
            .store()
            .delete_toolset(old.id, old.version, audit)
            .await
        {
            Ok(()) => self.toolset_done(old, "toolset.delete").await,
            Err(StoreError::Changed) => Err(self.toolset_changed(&old, old.version).await?),
            Err(error) => Err(error.into()),
        }
    }

    /// Every set that selects of a service which the caller may see, by name, with those services. `mcp:read`.
    pub async fn toolsets(&self, caller: &Principal) -> Result<Vec<ObservedToolset>, Failure> {
        let seen = self.seen_in_sets(caller).await?;
        let known = self.store().names_in_use().await?;
        let all = self.store().all_toolsets().await?.into_iter();
        let shown = all.filter_map(|one| narrowed(one, seen.as_ref()));
        Ok(shown.map(|one| self.observe_toolset(one, &known)).collect())
    }

    /// One set. `mcp:read`.
    pub async fn toolset(
        &self,
        caller: &Principal,
        toolset: &ToolsetRef,
    ) -> Result<ObservedToolset, Failure> {
        let seen = self.seen_in_sets(caller).await?;
        let resource = self.find_toolset(toolset).await?;
        let resource = narrowed(resource, seen.as_ref());
        let resource = resource.ok_or_else(|| toolset.unknown().hiding())?;
        let known = self.store().names_in_use().await?;
        Ok(self.observe_toolset(resource, &known))
    }

    /// Names of the services that a caller may see; `None`: of all.
    async fn seen_in_sets(&self, caller: &Principal) -> Result<Option<HashSet<String>>, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        if reads_all(caller, Permission::McpRead) {
            return Ok(None);
        }
        let entries = self
            .store()
            .service_entries(ServiceQuery::default())
            .await?;
        let seen = entries
            .into_iter()
            .filter(|entry| is_seen(caller, &target_of(entry)));
        Ok(Some(seen.map(|entry| entry.name).collect()))
    }

    /// Gives the data plane the sets as they are stored now. One at a time: the last one to read is the
    /// last one to publish.
    pub(crate) async fn publish_toolsets(&self) -> Result<(), Failure> {
        let _turn = self.inner.toolsets.lock().await;
        let all = self.store().all_toolsets().await?.into_iter();
        let sets: Vec<ServedSet> = all.map(Into::into).collect();
        self.inner.context.gateway.publish_sets(sets);
        Ok(())
    }

    async fn find_toolset(&self, toolset: &ToolsetRef) -> Result<ToolsetResource, Failure> {
        let found = match toolset {
            ToolsetRef::Id(id) => self.store().toolset(*id).await?,
            ToolsetRef::Name(name) => self.store().toolset_by_name(name).await?,
        };
        found.ok_or_else(|| toolset.unknown())
    }

    fn observe_toolset(
        &self,
        resource: ToolsetResource,
        known: &HashSet<String>,
    ) -> ObservedToolset {
        let shown = self.inner.context.gateway.shown_in_set(&resource.name);
        let seen = |selected: &Selected| {
            let name = &selected.service;
            let shown = shown.iter().find(|one| one.service == *name);
            (known.contains(name.as_str()), shown.cloned())
        };
        ObservedToolset {
            services: resource.services.iter().map(seen).collect(),
            resource,
        }
    }

    fn toolset_audit(
        &self,
        caller: &Principal,
        action: &'static str,
        toolset: &ToolsetResource,
    ) -> AuditLine {
        let target = ("toolset", toolset.id.to_string(), toolset.name.to_string());
        let mut audit = self.line(caller, action, target);
        let services = toolset.services.iter().map(|one| one.service.as_str());
        audit.detail = json!({ "services": services.collect::<Vec<_>>() });
        audit
    }

    /// Somebody else wrote first: which version there is now, or that there is none.
    async fn toolset_changed(
        &self,
        toolset: &ToolsetResource,
        expected: u64,
    ) -> Result<Failure, Failure> {
        let current = self.store().toolset(toolset.id).await?;
        Ok(match current {
            Some(current) => changed(&current, expected),
            None => ToolsetRef::Name(toolset.name.clone()).unknown(),
        })
    }

    /// The change is on disk: everyone who acts on it is told.
    async fn toolset_done(
        &self,
        resource: ToolsetResource,
        action: &'static str,
    ) -> Result<Outcome, Failure> {
        self.publish_toolsets().await?;
        let id = resource.id;
        self.announce(Event::Toolset { id, action });
        let known = self.store().names_in_use().await?;
        let observed = self.observe_toolset(resource, &known);
        Ok(Outcome::Toolset(Box::new(observed)))
    }
}

/// A set with what is seen of it; `None` where that is nothing.
fn narrowed(mut set: ToolsetResource, seen: Option<&HashSet<String>>) -> Option<ToolsetResource> {
    let Some(seen) = seen else { return Some(set) };
    set.services
        .retain(|one| seen.contains(one.service.as_str()));
    (!set.services.is_empty()).then_some(set)
}

fn compare(toolset: &ToolsetResource, expected: Option<u64>) -> Result<(), Failure> {
    match expected {
        Some(version) if version != toolset.version => Err(changed(toolset, version)),
        Some(_) | None => Ok(()),
    }
}

fn changed(toolset: &ToolsetResource, expected: u64) -> Failure {
    let (name, version) = (&toolset.name, toolset.version);
    Failure::new(
        Kind::VersionMismatch,
        format!(
            "The set `{name}` has version {version}, not {expected}: read it again and repeat the \
             change"
        ),
    )
    .at_version(version)
}

/// What a set is, for the audit.
fn wanted(set: &ToolsetResource) -> Value {
    json!({
        "name": set.name, "description": set.description, "tools": set.view,
        "services": set.services,
    })
}

fn in_use(toolset: &ToolsetResource) -> Failure {
    conflict(format!(
        "`{}` is taken: another set has this name",
        toolset.name
    ))
}
