//! How services are, how they were, and having them checked at once.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use vaxel_core::{
    access::{decide, require},
    failure::Failure,
    health::{
        availability::{Day, Moment, per_day},
        check::CheckResult,
        tally::State,
    },
    id::{Id, Service},
    lifecycle::Lifecycle,
    principal::{Permission, Principal},
    service::ServiceResource,
    status::{Health, ServiceStatus},
    time::Timestamp,
};
use vaxel_store::{Grain, HealthRow};

use crate::{
    change::{Outcome, ServiceRef},
    control::{Control, conflict},
    definitions,
    runner::Watched,
    service::compare,
};

/// Changes of health in an answer.
const CHANGES: usize = 100;
/// Changes that the availability of days is worked out from.
const CHANGES_READ: u32 = 10_000;
/// Days of availability in an answer.
const DAYS: u32 = 30;
const DAY: Duration = Duration::from_hours(24);
/// Longest wait for checks that were asked for: each has a deadline, and they may wait for their turn.
const CHECKED_WITHIN: Duration = Duration::from_mins(2);

/// How a service is.
#[derive(Debug, Clone)]
pub struct HealthReport {
    /// Whether it takes calls.
    pub ready: bool,
    /// Everything that is seen.
    pub status: ServiceStatus,
    /// The last result of each kind of check, per instance, and of what is around the service.
    pub checks: Vec<Checked>,
    /// Results that failed or differed from the one before, newest first; bounded per instance.
    pub results: Vec<Checked>,
}

/// The result of a check.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Which instance; none: what is around the service.
    pub replica: Option<u16>,
    /// The result.
    pub result: CheckResult,
    /// What is believed after it; unknown for results of the past.
    pub state: State,
}

/// How a service was.
#[derive(Debug, Clone)]
pub struct HealthHistory {
    /// Changes of its health, newest first.
    pub changes: Vec<(Timestamp, Health, Option<String>)>,
    /// How much of each day it worked, the last day first.
    pub days: Vec<Day>,
}

impl Control {
    /// How a service was: the last changes, and the availability of the last thirty days. `mcp:read`.
    pub async fn health_history(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<HealthHistory, Failure> {
        let resource = self.find_for(caller, Permission::McpRead, service).await?;
        let now = self.now();
        let since = Grain::Day.begin(now.minus(DAY * (DAYS - 1)));
        let rows = self
            .store()
            .health_changes(resource.id, since, CHANGES_READ);
        Ok(history(rows.await?, since.max(resource.created_at), now))
    }

    /// Has everything of a service checked at once, and answers what came of it. `mcp:manage`: each
    /// check is a request to its servers.
    ///
    /// # Errors
    /// `Conflict` when the service is stopped.
    pub async fn check_health(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<HealthReport, Failure> {
        let resource = self
            .find_for(caller, Permission::McpManage, service)
            .await?;
        if !resource.enabled {
            let name = &resource.name;
            return Err(conflict(format!(
                "`{name}` is stopped; `vaxel service start {name}` starts it"
            )));
        }
        let until = Instant::now() + CHECKED_WITHIN;
        let orders = self.order_checks(resource.id);
        for (watched, number) in orders {
            // What takes longer is in a later answer.
            let _ = timeout_at(until, watched.made(number)).await;
        }
        Ok(self.report(&resource))
    }

    /// Has those of these services checked that the caller owns or may manage, all at once, and waits for
    /// what comes of it, at most `within`. `mcp:read`.
    pub async fn check_own(
        &self,
        caller: &Principal,
        services: Vec<Id<Service>>,
        within: Duration,
    ) -> Result<(), Failure> {
        require(caller, Permission::McpRead)?;
        let until = Instant::now() + within;
        let may_all = decide(caller, Permission::McpManage).allowed;
        let mut orders = Vec::new();
        for id in services {
            let resource = self.store().service(id).await?;
            let is_own = |one: &ServiceResource| may_all || *one.owner == *caller.name;
            if resource.is_some_and(|one| one.enabled && is_own(&one)) {
                orders.extend(self.order_checks(id));
            }
        }
        for (watched, number) in orders {
            // They are made beside each other; what takes longer is in a later answer.
            let _ = timeout_at(until, watched.made(number)).await;
        }
        Ok(())
    }

    /// Orders a check of everything that can be checked now.
    fn order_checks(&self, service: Id<Service>) -> Vec<(Watched, u64)> {
        let Some(seen) = self.inner.context.board.find(service) else {
            return Vec::new();
        };
        let runs = |watched: &&Watched| {
            let replica = watched.replica();
            let works = |health| {
                matches!(
                    health,
                    Health::Healthy | Health::Degraded | Health::Unhealthy
                )
            };
            let mut instances = seen.status.instances.iter();
            replica.is_none_or(|replica| {
                instances.any(|one| {
                    one.replica == replica && works(one.health) && one.started_at.is_some()
                })
            })
        };
        let order = |watched: &Watched| (watched.clone(), watched.order());
        seen.watched.iter().filter(runs).map(order).collect()
    }

    /// What is seen of a service now.
    pub(crate) fn report(&self, resource: &ServiceResource) -> HealthReport {
        let status = self.status_of(resource);
        let ready = status.lifecycle == Lifecycle::Active
            && matches!(
                status.health,
                Health::Healthy | Health::Degraded | Health::Unhealthy
            )
            && status.instances.iter().any(|one| one.started_at.is_some());
        let seen = self.inner.context.board.find(resource.id);
        let (mut checks, mut results) = (Vec::new(), Vec::new());
        for watched in seen.iter().flat_map(|seen| &seen.watched) {
            let checked = |result: &CheckResult, state| Checked {
                replica: watched.replica(),
                result: result.clone(),
                state,
            };
            watched.read(|record| {
                checks.extend(record.last().map(|(last, state)| checked(last, state)));
                results.extend(record.notable().map(|one| checked(one, State::Unknown)));
            });
        }
        results.sort_by_key(|one| std::cmp::Reverse(one.result.at));
        HealthReport {
            ready,
            status,
            checks,
            results,
        }
    }

    pub(crate) async fn accept_definitions(
        &self,
        caller: &Principal,
        service: &ServiceRef,
    ) -> Result<Outcome, Failure> {
        let resource = self
            .find_for(caller, Permission::McpManage, service)
            .await?;
        compare(&resource, self.terms.expected)?;
        let seen = self.inner.context.board.find(resource.id);
        let catalog = seen.as_ref().and_then(|seen| seen.catalog.clone());
        let Some(catalog) = catalog else {
            let name = &resource.name;
            return Err(conflict(format!(
                "`{name}` was never reached: there is nothing to accept"
            )));
        };
        let mut audit = self.audit(caller, "service.accept", &resource);
        let digests = definitions::digests(&catalog);
        audit.detail = serde_json::json!({ "definitions": digests.len() });
        let now = self.now();
        let accepted = self
            .store()
            .accept_definitions(resource.id, (digests, now), Some(audit));
        accepted.await?;
        for watched in seen.iter().flat_map(|seen| &seen.watched) {
            if watched.replica().is_none() {
                watched.order();
            }
        }
        self.done(resource, "service.accept").await
    }
}

/// What was written down, as it is shown. `rows` are newest first.
fn history(rows: Vec<HealthRow>, from: Timestamp, now: Timestamp) -> HealthHistory {
    let moments: Vec<(Timestamp, Moment)> =
        rows.iter().rev().map(|row| (row.at, row.moment)).collect();
    let change = |row: HealthRow| match row.moment {
        Moment::Became(health) => Some((row.at, health, row.reason)),
        Moment::Ended | Moment::Started => None,
    };
    let mut days = per_day(&moments, from, now);
    days.reverse();
    HealthHistory {
        changes: rows.into_iter().filter_map(change).take(CHANGES).collect(),
        days,
    }
}
