//! Queries of call records and their figures.

use vaxel_core::{
    failure::Failure,
    id::{Id, Service},
    policy::require,
    principal::{Permission, Principal},
};
use vaxel_store::CallRow;

use crate::{
    change::ServiceRef,
    control::Control,
    query::{CallFilter, List, Page, Stats},
};

impl Control {
    /// Records of calls, newest first; of one service, or of all. `calls:read`.
    pub async fn calls(
        &self,
        caller: &Principal,
        service: Option<&ServiceRef>,
        (filter, page): (&CallFilter, &Page),
    ) -> Result<List<CallRow>, Failure> {
        require(caller, Permission::CallsRead)?;
        let service = match service {
            Some(service) => Some(self.find_any(service).await?.id),
            None => None,
        };
        let (items, next_cursor) = self.store().calls(service, filter, page).await?;
        Ok(List { items, next_cursor })
    }

    /// Figures of a service's calls. `mcp:read`.
    pub async fn stats(&self, caller: &Principal, service: &ServiceRef) -> Result<Stats, Failure> {
        require(caller, Permission::McpRead)?;
        let resource = self.find(service).await?;
        Ok(self.stats_of(resource.id).await)
    }

    /// Figures from the records, and from the data plane what is going on now. Without records there
    /// is what the data plane counted since the start.
    pub(crate) async fn stats_of(&self, service: Id<Service>) -> Stats {
        let load = self.inner.context.gateway.load(service);
        let now = Stats {
            calls: load.calls,
            errors: load.errors,
            in_flight: load.in_flight,
            ..Stats::default()
        };
        match self.store().call_stats(service).await {
            Ok(kept) if kept.calls > 0 => Stats {
                calls: kept.calls,
                ..now
            },
            Ok(_) | Err(_) => now,
        }
    }
}
