//! Limits: a service that is busy, or that does not answer, refuses at once instead of collecting
//! callers.

use std::{sync::Arc, time::Duration};

use vaxel_core::{
    failure::{Failure, Kind},
    principal::Principal,
    time::Timestamp,
};
use vaxel_mcp::{method::Method, request::Request};

use crate::{
    config::Tunables, gateway::Shared, limits::Held, metrics::Meter, route::Route, snapshot::Shard,
};

/// A place among the calls in flight of one service; given back when dropped.
pub(crate) struct Permit {
    meter: Arc<Meter>,
    /// Longest time for the call.
    pub(crate) timeout: Duration,
    _held: Held,
}

/// Who wants to do what.
#[derive(Clone, Copy)]
pub(crate) struct Asking<'a> {
    pub(crate) caller: &'a Principal,
    pub(crate) method: Method,
    /// It may go on with a call that was counted: who finds out that it does not counts it.
    pub(crate) goes_on: bool,
}

impl<'a> Asking<'a> {
    pub(crate) const fn new(caller: &'a Principal, request: &Request) -> Self {
        Self {
            caller,
            method: request.method(),
            goes_on: false,
        }
    }

    /// The tool that is called, where a tool is.
    fn tool(self, route: &Route) -> Option<&str> {
        let tool = route.tool.as_deref();
        tool.filter(|_| self.method == Method::ToolsCall)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.meter.leave();
    }
}

/// Takes a place, or refuses. A call of a tool is counted last, so that one that is refused counts nowhere.
pub(crate) fn admit(shared: &Shared, route: &Route, asking: Asking<'_>) -> Result<Permit, Failure> {
    let (shard, tunables) = (&*route.shard, shared.tunables.load());
    let tool = asking.tool(route);
    check_breaker(shard, &tunables, shared.clock.now())?;
    let held = shared.hold(asking.caller, (shard, tool))?;
    let limit = shard.concurrency.unwrap_or(tunables.concurrency);
    let permit = enter(shard, &tunables, (limit, held))?;
    if !asking.goes_on {
        count(shared, route, asking)?;
    }
    Ok(permit)
}

/// Counts a call of a tool.
pub(crate) fn count(shared: &Shared, route: &Route, asking: Asking<'_>) -> Result<(), Failure> {
    match asking.tool(route) {
        Some(tool) => shared.count_call(asking.caller, (&route.shard, tool)),
        None => Ok(()),
    }
}

fn check_breaker(shard: &Shard, tunables: &Tunables, now: Timestamp) -> Result<(), Failure> {
    if let Err(wait) = shard.meter.breaker.admit(now, tunables.breaker) {
        let seconds = wait.as_secs().max(1);
        let detail = format!(
            "`{}` did not answer its last {} calls; it is tried again in {seconds} s",
            shard.name, tunables.breaker.failures
        );
        let failure = Failure::new(Kind::UpstreamUnavailable, detail);
        return Err(failure.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX)));
    }
    Ok(())
}

/// Takes a place for a call that nobody waits for, whatever the breaker says: such calls find out
/// whether it is right. It leaves the last place to others.
pub(crate) fn beside(shard: &Shard, tunables: &Tunables) -> Result<Permit, Failure> {
    let limit = shard.concurrency.unwrap_or(tunables.concurrency);
    let limit = limit.saturating_sub(1).max(1);
    enter(shard, tunables, (limit, Held::default()))
}

fn enter(
    shard: &Shard,
    tunables: &Tunables,
    (limit, held): (u32, Held),
) -> Result<Permit, Failure> {
    if !shard.meter.enter(limit) {
        let detail = format!("`{}` already has {limit} calls in flight", shard.name);
        return Err(Failure::new(Kind::Busy, detail).retry_after(1));
    }
    let timeout = shard.timeout.unwrap_or(tunables.call_timeout);
    Ok(Permit {
        meter: Arc::clone(&shard.meter),
        timeout,
        _held: held,
    })
}
