//! Which service needs which, as people ask for it: the map, and what breaks when one stops.

use vaxel_core::{
    access::require,
    dependencies::{Affected, Dependencies},
    failure::Failure,
    name::ServiceName,
    principal::{Permission, Principal},
    status::Health,
};

use crate::{change::ServiceRef, control::Control};

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
        require(caller, Permission::McpRead)?;
        let map = self.store().dependencies().await?;
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
        require(caller, Permission::McpRead)?;
        let service = self.find(service).await?;
        Ok(self
            .store()
            .dependencies()
            .await?
            .affected_by(&service.name))
    }
}
