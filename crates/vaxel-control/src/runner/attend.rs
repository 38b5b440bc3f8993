//! Watches an instance that answered: until it ends, does not answer any more, or is not wanted.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, timeout};
use vaxel_core::failure::Failure;
use vaxel_gateway::Link;
use vaxel_supervisor::ProcessHandle;

use super::{
    instance::{EXIT_FOLLOWS, End, Instance, random},
    report::News,
};

/// Several announced changes within this time are one.
const CHANGES_SETTLE: Duration = Duration::from_millis(250);
/// Longest wait for the answer to a health check.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// Between a missed health check and the next one.
const RECHECK: Duration = Duration::from_secs(5);
/// So many missed health checks in a row are an end, when no call is in flight: a server that works
/// on one call at a time cannot answer a check meanwhile.
const MISSED_CHECKS: u32 = 3;
/// So many are an end whatever is in flight.
const MISSED_CHECKS_BUSY: u32 = 10;
/// Between two looks at whether calls in flight have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

pub(super) struct Attendant<'a> {
    pub(super) instance: &'a Instance,
    pub(super) link: &'a Link,
    pub(super) process: Option<&'a ProcessHandle>,
}

impl Attendant<'_> {
    pub(super) async fn until_end(&self) -> End {
        tokio::select! {
            () = self.instance.stop.cancelled() => End::Stopped,
            end = self.lost() => end,
            end = self.keep_fresh() => end,
        }
    }

    /// Lets calls in flight end, as long as a stop may take. New ones do not come: the runner took
    /// the link out of the snapshot before it cancelled the token.
    pub(super) async fn drain(&self) {
        let idle = async {
            // Requests that chose this link a moment ago may not be counted yet.
            tokio::time::sleep(DRAIN_LOOK).await;
            while self.link.in_flight() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        // Calls that take longer end with an error of their own.
        let _ = timeout(self.instance.context.config.process.drain, idle).await;
    }

    /// Resolves when the process has ended or the connection is gone.
    async fn lost(&self) -> End {
        let Some(process) = self.process else {
            return End::lost(self.link.closed().await);
        };
        tokio::select! {
            exit = process.exited() => End::lost(exit.to_string()),
            reason = self.link.closed() => match timeout(EXIT_FOLLOWS, process.exited()).await {
                Ok(exit) => End::lost(exit.to_string()),
                Err(_) => End::lost(reason),
            },
        }
    }

    /// Reads the catalog again when it may have changed, and checks the health; resolves when the
    /// instance does not answer any more.
    async fn keep_fresh(&self) -> End {
        let config = &self.instance.context.config;
        let every = config.process.health_interval;
        let mut ttl = ticks(config.catalog_ttl, config.catalog_ttl);
        // Services that were started together are not checked together.
        let first = every.mul_f64(f64::from(random()) / f64::from(u32::MAX));
        let mut check = ticks(first, every);
        let mut missed = 0;
        loop {
            tokio::select! {
                () = self.link.catalog_changed() => {
                    tokio::time::sleep(CHANGES_SETTLE).await;
                    self.refresh().await;
                    ttl.reset();
                }
                _ = ttl.tick() => self.refresh().await,
                _ = check.tick() => match self.link.ping(every.min(CHECK_WITHIN)).await {
                    Ok(_) if missed == 0 => {}
                    Ok(_) => {
                        missed = 0;
                        self.instance.tell(News::Steady).await;
                    }
                    Err(failure) => {
                        missed += 1;
                        if let Some(end) = self.missed(missed, &failure).await {
                            return end;
                        }
                        check.reset_after(RECHECK.min(every));
                    }
                },
            }
        }
    }

    /// What follows from so many missed checks in a row.
    async fn missed(&self, missed: u32, failure: &Failure) -> Option<End> {
        let service = self.instance.resource.id;
        let busy = self.instance.context.gateway.load(service).in_flight > 0;
        let bound = if busy {
            MISSED_CHECKS_BUSY
        } else {
            MISSED_CHECKS
        };
        if missed >= bound {
            return Some(End::lost(format!(
                "It missed {missed} health checks: {failure}"
            )));
        }
        let reason = format!("It missed a health check: {failure}");
        self.instance.tell(News::Shaky(reason)).await;
        None
    }

    async fn refresh(&self) {
        let within = self.instance.context.config.process.start_timeout;
        let name = &self.instance.resource.name;
        match timeout(within, self.link.catalog()).await {
            Ok(Ok(catalog)) => self.instance.tell(News::Offers(Arc::new(catalog))).await,
            // The last catalog stays; health checks decide whether the instance does.
            Ok(Err(failure)) => {
                tracing::warn!(service.name = %name, "its catalog could not be read: {failure}");
            }
            Err(_) => {
                tracing::warn!(service.name = %name, "its catalog was not answered in time");
            }
        }
    }
}

fn ticks(first: Duration, every: Duration) -> tokio::time::Interval {
    let every = every.max(Duration::from_millis(1));
    let mut ticks = tokio::time::interval(every);
    ticks.reset_after(first.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
