//! Limits: a service that is busy, or that does not answer, refuses at once instead of collecting
//! callers.

use std::{sync::Arc, time::Duration};

use vaxel_core::{
    failure::{Failure, Kind},
    time::Timestamp,
};

use crate::{config::Tunables, metrics::Meter, snapshot::Shard};

/// A place among the calls in flight of one service; given back when dropped.
pub(crate) struct Permit {
    meter: Arc<Meter>,
    /// Longest time for the call.
    pub(crate) timeout: Duration,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.meter.leave();
    }
}

/// Takes a place, or refuses.
pub(crate) fn admit(shard: &Shard, tunables: &Tunables, now: Timestamp) -> Result<Permit, Failure> {
    if let Err(wait) = shard.meter.breaker.admit(now, tunables.breaker) {
        let seconds = wait.as_secs().max(1);
        let detail = format!(
            "`{}` did not answer its last {} calls; it is tried again in {seconds} s",
            shard.name, tunables.breaker.failures
        );
        let failure = Failure::new(Kind::UpstreamUnavailable, detail);
        return Err(failure.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX)));
    }
    let limit = shard.concurrency.unwrap_or(tunables.concurrency);
    enter(shard, tunables, limit)
}

/// Takes a place for a call that nobody waits for, whatever the breaker says: such calls find out
/// whether it is right. It leaves the last place to others.
pub(crate) fn beside(shard: &Shard, tunables: &Tunables) -> Result<Permit, Failure> {
    let limit = shard.concurrency.unwrap_or(tunables.concurrency);
    enter(shard, tunables, limit.saturating_sub(1).max(1))
}

fn enter(shard: &Shard, tunables: &Tunables, limit: u32) -> Result<Permit, Failure> {
    if !shard.meter.enter(limit) {
        let detail = format!("`{}` already has {limit} calls in flight", shard.name);
        return Err(Failure::new(Kind::Busy, detail).retry_after(1));
    }
    let timeout = shard.timeout.unwrap_or(tunables.call_timeout);
    Ok(Permit {
        meter: Arc::clone(&shard.meter),
        timeout,
    })
}
