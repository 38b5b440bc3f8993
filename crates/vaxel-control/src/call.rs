//! Queries of call records and their figures.

use std::collections::HashMap;

use vaxel_core::{
    failure::Failure,
    id::{Id, Service},
    principal::{Permission, Principal},
};
use vaxel_store::{CallQuery, CallRow, CallStats};

use crate::{
    change::ServiceRef,
    control::Control,
    query::{CallFilter, List, Page, Stats},
    service::query::Whose,
};

impl Control {
    /// Records of calls, newest first; of one service, or of all that the caller may read. `calls:read`.
    pub async fn calls(
        &self,
        caller: &Principal,
        service: Option<&ServiceRef>,
        (filter, page): (&CallFilter, &Page),
    ) -> Result<List<CallRow>, Failure> {
        let (service, among) = match self.whose_calls(caller, service).await? {
            Whose::All => (None, None),
            Whose::Of(service) => (Some(service), None),
            Whose::Among(own) => (None, Some(own)),
        };
        let CallFilter {
            target,
            outcome,
            principal,
            since,
            until,
        } = filter.clone();
        let query = CallQuery {
            service,
            among,
            target,
            outcome,
            principal,
            since,
            until,
        };
        let (mut items, next_cursor) = self
            .store()
            .calls(query, page.limit, page.cursor.clone())
            .await?;
        for row in &mut items {
            self.inner.bodies.reveal(row);
        }
        Ok(List { items, next_cursor })
    }

    /// Figures of a service's calls. `mcp:read`.
    pub async fn stats(&self, caller: &Principal, service: &ServiceRef) -> Result<Stats, Failure> {
        let resource = self.find_for(caller, Permission::McpRead, service).await?;
        Ok(self.stats_of(resource.id).await)
    }

    /// Figures from the records, and from the data plane what is going on now. Without records there
    /// is what the data plane counted since the start.
    pub(crate) async fn stats_of(&self, service: Id<Service>) -> Stats {
        let mut all = self.stats_of_all(vec![service]).await;
        all.remove(&service).unwrap_or_default()
    }

    /// The same for many services, in one go: how often each was called, how long that takes on
    /// average, and when it was last.
    pub(crate) async fn stats_of_all(
        &self,
        services: Vec<Id<Service>>,
    ) -> HashMap<Id<Service>, Stats> {
        let recorded = self.store().call_stats_of(services.clone()).await;
        let recorded = recorded.unwrap_or_else(|error| {
            tracing::warn!(%error, "the figures of calls could not be read");
            HashMap::new()
        });
        let stats = |id| {
            let load = self.inner.context.gateway.load(id);
            let stats = match recorded.get(&id) {
                Some(CallStats {
                    calls,
                    errors,
                    total_us,
                    last_at,
                }) if *calls > 0 => Stats {
                    calls: *calls,
                    errors: *errors,
                    average_ms: mean_ms(*total_us, *calls),
                    last_used_at: *last_at,
                    in_flight: load.in_flight,
                },
                Some(_) | None => Stats {
                    calls: load.calls,
                    errors: load.errors,
                    in_flight: load.in_flight,
                    ..Stats::default()
                },
            };
            (id, stats)
        };
        services.into_iter().map(stats).collect()
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a mean needs no more than 52 bits"
)]
fn mean_ms(total_us: u64, calls: u64) -> f64 {
    total_us as f64 / calls.max(1) as f64 / 1_000.0
}
