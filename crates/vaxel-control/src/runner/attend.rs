//! Watches an instance that answered: until it ends, does not answer any more, or is not wanted.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use vaxel_gateway::Link;
use vaxel_supervisor::ProcessHandle;

use super::{
    checkup::Checkup,
    instance::{EXIT_FOLLOWS, End, Instance},
    report::News,
};

/// Several announced changes within this time are one.
const CHANGES_SETTLE: Duration = Duration::from_millis(250);
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
            // Who looked at an older snapshot and comes after this looks again.
            while !self.link.close_to_calls() {
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
    /// instance has to be made anew.
    async fn keep_fresh(&self) -> End {
        let config = &self.instance.context.config;
        let mut ttl = ticks(config.catalog_ttl);
        let watched = &self.instance.watched;
        // On the heap: it is large, and most of its life an instance waits.
        let mut checkup = Box::new(Checkup::new(self.instance, self.link, self.process));
        let mut due = Instant::now() + checkup.first_wait();
        loop {
            tokio::select! {
                () = self.link.catalog_changed() => {
                    tokio::time::sleep(CHANGES_SETTLE).await;
                    Box::pin(self.refresh()).await;
                    ttl.reset();
                }
                _ = ttl.tick() => Box::pin(self.refresh()).await,
                () = sleep_until(due) => {
                    if let Some(end) = Box::pin(checkup.check(false)).await {
                        return end;
                    }
                    due = Instant::now() + checkup.wait();
                }
                () = watched.rung() => {
                    let is_other = checkup.adopt();
                    if let Some(number) = watched.pending() {
                        let end = Box::pin(checkup.check(true)).await;
                        watched.carried_out(number);
                        if let Some(end) = end {
                            return end;
                        }
                    }
                    if is_other {
                        due = Instant::now() + checkup.first_wait();
                    }
                }
            }
        }
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

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
    ticks.reset();
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
