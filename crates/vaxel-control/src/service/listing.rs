//! Lists of services: the one place where what is stored and what is seen meet.
//!
//! The store knows the desired state, the board what is seen, the data plane what is offered, the
//! records how often services were called. A page is as long as was asked for while there is more, and
//! its cursor names the last service on it, so that nothing comes twice and nothing is missed.

use std::collections::HashSet;

use vaxel_core::{
    access::{Target, require, require_anywhere},
    failure::{Failure, Kind},
    id::{Id, Service},
    lifecycle::Lifecycle,
    principal::{Permission, Principal},
    service::{ServiceResource, matches},
    status::Health,
};
use vaxel_store::{ServiceOrder, ServicePosition, ServiceQuery};

use crate::{
    control::Control,
    query::{List, Observed, Page, ServiceFilter, ServiceSort, SortKey},
    service::query::{is_seen, target, target_of},
};

/// Services that are read at once when not all of them will be shown.
const CHUNK: u32 = 500;

/// What the store cannot tell, found out once for a page.
struct Seen<'a> {
    control: &'a Control,
    caller: &'a Principal,
    filter: &'a ServiceFilter,
    /// Names of the services that offer the tool, when one is asked for.
    offering: Option<HashSet<String>>,
}

impl Control {
    /// Which services there are. `mcp:read`.
    pub async fn services(
        &self,
        caller: &Principal,
        filter: &ServiceFilter,
        page: &Page,
    ) -> Result<List<Observed>, Failure> {
        require_anywhere(caller, Permission::McpRead)?;
        let after = page
            .cursor
            .as_deref()
            .map(|text| position(text, filter.sort))
            .transpose()?;
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let (mut items, mut keys) = match stored_order(filter.sort.by) {
            Some(order) => {
                self.in_stored_order((caller, filter), order, (after, limit))
                    .await?
            }
            None => self.in_seen_order((caller, filter), (after, limit)).await?,
        };
        // One more than fits was looked for, to know whether there is more.
        let more = items.len() > limit;
        items.truncate(limit);
        keys.truncate(limit);
        let last = keys.pop().filter(|_| more);
        let next_cursor = last.map(|at| format!("{}:{}:{}", filter.sort, at.key, at.id));
        Ok(List {
            items: self.observe_all(items).await,
            next_cursor,
        })
    }

    async fn in_stored_order(
        &self,
        (caller, filter): (&Principal, &ServiceFilter),
        order: ServiceOrder,
        (mut after, limit): (Option<ServicePosition>, usize),
    ) -> Result<(Vec<ServiceResource>, Vec<ServicePosition>), Failure> {
        let seen = self.seen(caller, filter);
        let chunk = if seen.is_needed() {
            CHUNK
        } else {
            u32::try_from(limit + 1).unwrap_or(CHUNK)
        };
        let (mut items, mut keys) = (Vec::new(), Vec::new());
        while items.len() <= limit {
            let order_of = (order, filter.sort.backwards);
            let rows = self
                .store()
                .services(stored(filter), order_of, (after, chunk))
                .await?;
            let is_last = rows.len() < chunk as usize;
            after = rows.last().map(|row| place(row, order));
            for row in rows {
                if seen.admits(&target(&row), !row.enabled) {
                    keys.push(place(&row, order));
                    items.push(row);
                }
            }
            if is_last {
                break;
            }
        }
        Ok((items, keys))
    }

    /// In an order that the store does not know: every service that fits is looked at.
    async fn in_seen_order(
        &self,
        (caller, filter): (&Principal, &ServiceFilter),
        (after, limit): (Option<ServicePosition>, usize),
    ) -> Result<(Vec<ServiceResource>, Vec<ServicePosition>), Failure> {
        let seen = self.seen(caller, filter);
        let counts = match filter.sort.by {
            SortKey::Calls => self.store().call_counts().await?,
            SortKey::Name | SortKey::Created | SortKey::Updated | SortKey::Health => [].into(),
        };
        let entries = self.store().service_entries(stored(filter)).await?;
        let mut keys: Vec<(u64, Id<Service>)> = Vec::new();
        for entry in entries {
            let id = entry.id;
            if seen.admits(&target_of(&entry), false) {
                let key = match filter.sort.by {
                    SortKey::Calls => counts.get(&id).copied().unwrap_or(0),
                    _ => rank(seen.state(id, false).1),
                };
                keys.push((key, id));
            }
        }
        keys.sort_unstable();
        if filter.sort.backwards {
            keys.reverse();
        }
        if let Some(at) = after {
            let wrong = || not_a_cursor(&at.key);
            let last = (
                at.key.parse::<u64>().map_err(|_| wrong())?,
                at.id.parse::<Id<Service>>().map_err(|_| wrong())?,
            );
            let is_behind = |one: &(u64, Id<Service>)| {
                if filter.sort.backwards {
                    *one < last
                } else {
                    *one > last
                }
            };
            keys.retain(is_behind);
        }
        keys.truncate(limit.saturating_add(1));
        let ids = keys.iter().map(|(_, id)| *id).collect();
        let items = self.store().services_by_id(ids).await?;
        let keys = keys.into_iter().map(|(key, id)| ServicePosition {
            key: key.to_string(),
            id: id.to_string(),
        });
        Ok((items, keys.collect()))
    }

    fn seen<'a>(&'a self, caller: &'a Principal, filter: &'a ServiceFilter) -> Seen<'a> {
        let offering = filter.tool.as_deref().map(|pattern| {
            let tools = self
                .inner
                .context
                .gateway
                .exposed_tools(caller, None)
                .into_iter();
            let fitting =
                tools.filter(|tool| matches(pattern, &tool.tool) || matches(pattern, &tool.name));
            fitting.map(|tool| tool.service.to_string()).collect()
        });
        Seen {
            control: self,
            caller,
            filter,
            offering,
        }
    }
}

impl Seen<'_> {
    /// Whether anything is asked for that the store cannot tell.
    fn is_needed(&self) -> bool {
        let ServiceFilter {
            state,
            health,
            tags,
            ..
        } = self.filter;
        state.is_some()
            || health.is_some()
            || tags.len() > 1
            || self.offering.is_some()
            || require(self.caller, Permission::McpRead).is_err()
    }

    fn admits(&self, service: &Target<'_>, asleep: bool) -> bool {
        let filter = self.filter;
        let mut offering = self.offering.iter();
        let offers = offering.all(|all| all.contains(service.name));
        if !offers || !filter.tags.iter().all(|tag| service.tags.contains(tag)) {
            return false;
        }
        if !is_seen(self.caller, service) {
            return false;
        }
        if filter.state.is_none() && filter.health.is_none() {
            return true;
        }
        let (state, health) = self.state(service.id, asleep || filter.deleted);
        filter.state.is_none_or(|wanted| wanted == state)
            && filter.health.is_none_or(|wanted| wanted == health)
    }

    /// What is seen of a service; of one that nothing was done for yet, what will be done.
    fn state(&self, id: Id<Service>, asleep: bool) -> (Lifecycle, Health) {
        let found = self.control.inner.context.board.find(id);
        match found {
            Some(seen) => (seen.status.lifecycle, seen.status.health),
            None if asleep || self.filter.deleted => (Lifecycle::Inactive, Health::Stopped),
            None => (Lifecycle::Draft, Health::Starting),
        }
    }
}

/// The part of a filter that the store can answer.
fn stored(filter: &ServiceFilter) -> ServiceQuery {
    let ServiceFilter {
        text,
        tags,
        environment,
        source,
        owner,
        state: _,
        health: _,
        tool: _,
        sort: _,
        deleted,
    } = filter;
    ServiceQuery {
        text: text.clone(),
        tag: tags.first().cloned(),
        environment: environment.clone(),
        source: source.clone(),
        owner: owner.clone(),
        deleted: *deleted,
    }
}

const fn stored_order(by: SortKey) -> Option<ServiceOrder> {
    match by {
        SortKey::Name => Some(ServiceOrder::Name),
        SortKey::Created => Some(ServiceOrder::Created),
        SortKey::Updated => Some(ServiceOrder::Updated),
        SortKey::Health | SortKey::Calls => None,
    }
}

fn place(row: &ServiceResource, order: ServiceOrder) -> ServicePosition {
    let key = match order {
        ServiceOrder::Name => row.name.to_string(),
        ServiceOrder::Created => row.created_at.as_millis().to_string(),
        ServiceOrder::Updated => row.updated_at.as_millis().to_string(),
    };
    ServicePosition {
        key,
        id: row.id.to_string(),
    }
}

/// A cursor is the order, the key and the id of the last service of the page before.
fn position(text: &str, sort: ServiceSort) -> Result<ServicePosition, Failure> {
    let mut parts = text.splitn(3, ':');
    let (order, key, id) = (parts.next(), parts.next(), parts.next());
    match (order, key, id) {
        (Some(order), Some(key), Some(id)) if order == sort.to_string() => Ok(ServicePosition {
            key: key.to_owned(),
            id: id.to_owned(),
        }),
        _ => Err(not_a_cursor(text)),
    }
}

fn not_a_cursor(text: &str) -> Failure {
    let text: String = text.chars().take(100).collect();
    let detail = format!(
        "`{text}` is no cursor of this list; use `next_cursor` of the page before, as it is, in the \
         same order"
    );
    Failure::new(Kind::Invalid, detail)
}

/// What needs a look first comes first.
const fn rank(health: Health) -> u64 {
    match health {
        Health::Error => 0,
        Health::Unhealthy => 1,
        Health::Degraded => 2,
        Health::Unknown => 3,
        Health::Starting => 4,
        Health::Stopped => 5,
        Health::Healthy => 6,
    }
}
