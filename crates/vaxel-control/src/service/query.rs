//! Queries of services: what is stored, with what is seen of it.

use std::time::Duration;

use vaxel_core::{
    access::{Asked, Local, Target, require_anywhere, require_on},
    failure::{Failure, Kind},
    id::{Id, Service},
    lifecycle::Lifecycle,
    principal::{Permission, Principal},
    rights::Limits,
    service::ServiceResource,
    status::{Health, ServiceStatus},
};
use vaxel_store::{ServiceEntry, ServiceQuery};

use crate::{
    change::ServiceRef,
    control::{Control, conflict},
    health::HealthReport,
    query::Observed,
    reconcile::{resting, stored_badly},
    template::is_behind,
};

/// What questions of access to a service are about.
pub(crate) fn target(service: &ServiceResource) -> Target<'_> {
    Target {
        id: service.id,
        name: service.name.as_str(),
        owner: &service.owner,
        environment: &service.environment,
        tags: &service.tags,
    }
}

/// The same of one that is in a list.
pub(crate) fn target_of(entry: &ServiceEntry) -> Target<'_> {
    Target {
        id: entry.id,
        name: &entry.name,
        owner: &entry.owner,
        environment: &entry.environment,
        tags: &entry.tags,
    }
}

/// Whether a caller may see a service.
pub(crate) fn is_seen(caller: &Principal, target: &Target<'_>) -> bool {
    Local::of(caller, target).is_possible(caller, Permission::McpRead, None)
}

/// Whether a caller may do this with every service, as far as roles and the credential go.
pub(crate) fn reads_all(caller: &Principal, permission: Permission) -> bool {
    let limits = caller.limits.as_deref();
    caller.permissions.contains(permission) && !limits.is_some_and(Limits::narrows)
}

/// Most services whose calls are looked at together for who may not read those of all.
const SOME_MAX: usize = 500;

/// Of which services calls are asked for.
pub(crate) enum Whose {
    /// All.
    All,
    /// This one.
    Of(Id<Service>),
    /// These.
    Among(Vec<Id<Service>>),
}

/// Longest wait of [`Control::health`].
const HEALTH_WAIT_MAX: Duration = Duration::from_mins(5);

impl Control {
    /// One service. `mcp:read`.
    pub async fn service(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Observed, Failure> {
        let resource = self.find_for(caller, Permission::McpRead, service).await?;
        Ok(self.observe(resource).await)
    }

    /// How a service is; with `wait` (at most five minutes) as soon as it is active, stopped or in
    /// error. `mcp:read`.
    pub async fn health(
        &self,
        caller: &Principal,
        service: &ServiceRef,
        wait: Option<Duration>,
    ) -> Result<HealthReport, Failure> {
        let resource = self.find_for(caller, Permission::McpRead, service).await?;
        let mut changes = self.inner.context.board.watch();
        let settled =
            async { while !self.is_settled(&resource) && changes.changed().await.is_ok() {} };
        // Nobody waits: the answer is what is seen now.
        let _ = tokio::time::timeout(wait.unwrap_or_default().min(HEALTH_WAIT_MAX), settled).await;
        Ok(self.report(&resource))
    }

    /// Whether nothing more is about to happen to the version that is stored.
    fn is_settled(&self, resource: &ServiceResource) -> bool {
        let Some(seen) = self.inner.context.board.find(resource.id) else {
            return false;
        };
        let current = seen.version >= resource.version;
        let state = seen.status.lifecycle;
        current
            && matches!(
                state,
                Lifecycle::Active | Lifecycle::Error | Lifecycle::Inactive | Lifecycle::Draft
            )
    }

    /// The service, for a caller who may do this with it.
    ///
    /// # Errors
    /// `NotPermitted`; `UnknownService`, also for one that the caller may not see.
    pub(crate) async fn find_for(
        &self,
        caller: &Principal,
        permission: Permission,
        service: &ServiceRef,
    ) -> Result<ServiceResource, Failure> {
        require_anywhere(caller, permission)?;
        let found = self.find(service).await?;
        self.allowed(caller, permission, (service, found))
    }

    /// The same for one in the archive.
    pub(crate) async fn find_deleted_for(
        &self,
        caller: &Principal,
        permission: Permission,
        service: &ServiceRef,
    ) -> Result<ServiceResource, Failure> {
        require_anywhere(caller, permission)?;
        let found = self.find_deleted(service).await?;
        self.allowed(caller, permission, (service, found))
    }

    /// The same for one that may be deleted.
    pub(crate) async fn find_any_for(
        &self,
        caller: &Principal,
        permission: Permission,
        service: &ServiceRef,
    ) -> Result<ServiceResource, Failure> {
        require_anywhere(caller, permission)?;
        let found = match self.find(service).await {
            Ok(found) => found,
            Err(unknown) => self.find_deleted(service).await.map_err(|_| unknown)?,
        };
        self.allowed(caller, permission, (service, found))
    }

    /// The services whose calls are asked for, for a caller who may read them: without a name all, of which the
    /// caller may.
    pub(crate) async fn whose_calls(
        &self,
        caller: &Principal,
        service: Option<&ServiceRef>,
    ) -> Result<Whose, Failure> {
        if let Some(service) = service {
            let found = self.find_any_for(caller, Permission::CallsRead, service);
            return Ok(Whose::Of(found.await?.id));
        }
        require_anywhere(caller, Permission::CallsRead)?;
        if reads_all(caller, Permission::CallsRead) {
            return Ok(Whose::All);
        }
        let mut own = Vec::new();
        for deleted in [false, true] {
            let query = ServiceQuery {
                deleted,
                ..ServiceQuery::default()
            };
            let entries = self.store().service_entries(query).await?;
            let readable = entries.iter().filter(|entry| {
                let local = Local::of(caller, &target_of(entry));
                local.is_possible(caller, Permission::CallsRead, None)
            });
            own.extend(readable.map(|entry| entry.id));
        }
        if own.len() > SOME_MAX {
            let detail = format!(
                "You may read the calls of {} services, more than the {SOME_MAX} that are looked at \
                 together: name one with `service`",
                own.len()
            );
            return Err(Failure::new(Kind::Invalid, detail));
        }
        Ok(Whose::Among(own))
    }

    fn allowed(
        &self,
        caller: &Principal,
        permission: Permission,
        (asked, found): (&ServiceRef, ServiceResource),
    ) -> Result<ServiceResource, Failure> {
        match self.may(caller, permission, &found) {
            Ok(()) => Ok(found),
            Err(failure) if failure.kind == Kind::UnknownService => Err(asked.unknown().hiding()),
            Err(failure) => Err(failure),
        }
    }

    /// Whether a caller may do this with a service.
    ///
    /// # Errors
    /// `NotPermitted`; `UnknownService` when the caller may not see it.
    pub(crate) fn may(
        &self,
        caller: &Principal,
        permission: Permission,
        service: &ServiceResource,
    ) -> Result<(), Failure> {
        require_on(&Asked {
            who: caller,
            permission,
            on: &target(service),
            tool: None,
            arguments: None,
            now: self.now(),
        })
    }

    /// The service, unless it is deleted.
    pub(crate) async fn find(&self, service: &ServiceRef) -> Result<ServiceResource, Failure> {
        let found = match service {
            ServiceRef::Id(id) => self.store().service(*id).await?,
            ServiceRef::Name(name) => self.store().service_by_name(name).await?,
        };
        found
            .filter(|one| one.deleted_at.is_none())
            .ok_or_else(|| service.unknown())
    }

    /// The service in the archive; by name the one that was deleted last.
    pub(crate) async fn find_deleted(
        &self,
        service: &ServiceRef,
    ) -> Result<ServiceResource, Failure> {
        let found = match service {
            ServiceRef::Id(id) => self.store().service(*id).await?,
            ServiceRef::Name(name) => self.store().deleted_service_by_name(name).await?,
        };
        match found {
            Some(one) if one.deleted_at.is_some() => Ok(one),
            Some(one) => Err(conflict(format!("`{}` is not deleted", one.name))),
            None => Err(service.unknown()),
        }
    }

    pub(crate) async fn observe(&self, resource: ServiceResource) -> Observed {
        let status = self.status_of(&resource);
        let stats = self.stats_of(resource.id).await;
        let templates = self.versions_for([&resource.spec].into_iter()).await;
        let behind = is_behind(&resource.spec, &templates);
        Observed {
            resource,
            status,
            stats,
            behind,
        }
    }

    /// The same for many, in their order.
    pub(crate) async fn observe_all(&self, resources: Vec<ServiceResource>) -> Vec<Observed> {
        let ids = resources.iter().map(|one| one.id).collect();
        let mut stats = self.stats_of_all(ids).await;
        let templates = self
            .versions_for(resources.iter().map(|one| &one.spec))
            .await;
        let observed = resources.into_iter().map(|resource| Observed {
            status: self.status_of(&resource),
            stats: stats.remove(&resource.id).unwrap_or_default(),
            behind: is_behind(&resource.spec, &templates),
            resource,
        });
        observed.collect()
    }

    /// What is seen of a service; of one that nothing was done for yet, what will be done.
    pub(crate) fn status_of(&self, resource: &ServiceResource) -> ServiceStatus {
        let seen = self
            .inner
            .context
            .board
            .find(resource.id)
            .map(|seen| seen.measured());
        seen.unwrap_or_else(|| {
            let asleep = resource.deleted_at.is_some() || !resource.enabled;
            let state = if asleep {
                resting(resource)
            } else {
                Lifecycle::Draft
            };
            let mut status = ServiceStatus::new(state, resource.updated_at);
            status.health = if asleep {
                Health::Stopped
            } else {
                Health::Starting
            };
            if let Some(defect) = &resource.defect {
                status.reason = stored_badly(resource, &defect.issues);
                status.issues.clone_from(&defect.issues);
            }
            status
        })
    }
}
