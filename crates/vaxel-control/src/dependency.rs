//! Which service needs which, as people ask for it: the map, and what breaks when one stops.

use std::collections::HashSet;

use vaxel_core::{
    access::require_anywhere,
    dependencies::{Affected, Dependencies},
    failure::Failure,
    name::ServiceName,
    principal::{Permission, Principal},
    status::Health,
};

use vaxel_store::ServiceQuery;

use crate::{
    change::ServiceRef,
    control::Control,
    service::query::{is_seen, target_of},
};

/// The map of all services, with what is seen of them.
#[derive(Debug, Clone)]
pub struct DependencyMap {
    /// Who needs whom.
    pub map: Dependencies,
    /// Health of each service that there is, in the order in which they start.
    pub health: Vec<(ServiceName, Health)>,
}

impl Control {
    /// Which service needs which. `mcp:read`.
    pub async fn dependencies(&self, caller: &Principal) -> Result<DependencyMap, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let map = self.store().dependencies().await?;
        let seen = self.names_seen(caller).await?;
        let map = map.only(|name| seen.contains(name.as_str()));
        let board = &self.inner.context.board;
        let seen = |name: &ServiceName| {
            let seen = board.find_by_name(name);
            seen.map_or(Health::Unknown, |seen| seen.status.health)
        };
        let health = map
            .order()
            .into_iter()
            .map(|name| (name.clone(), seen(name)))
            .collect();
        Ok(DependencyMap { map, health })
    }

    /// What breaks when a service stops. `mcp:read`.
    pub async fn impact(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Vec<Affected>, Failure> {
        let service = self.find_for(caller, Permission::McpRead, service).await?;
        let map = self.store().dependencies().await?;
        let mut affected = map.affected_by(&service.name);
        let seen = self.names_seen(caller).await?;
        affected.retain(|one| one.path.iter().all(|name| seen.contains(name.as_str())));
        Ok(affected)
    }

    /// Names of the services that a caller may see.
    async fn names_seen(&self, caller: &Principal) -> Result<HashSet<String>, Failure> {
        let all = self
            .store()
            .service_entries(ServiceQuery::default())
            .await?;
        let seen = all
            .into_iter()
            .filter(|one| is_seen(caller, &target_of(one)));
        Ok(seen.map(|one| one.name).collect())
    }
}
