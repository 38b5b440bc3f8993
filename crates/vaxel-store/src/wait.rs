//! Waiting for changes: woken by what this process commits and, with PostgreSQL, by what others do.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    error::Error,
    postgres::Ear,
    store::{Engine, Store},
};

/// Who waits looks this often anyway: words between processes can be lost.
const LOOK: Duration = Duration::from_secs(2);

impl Store {
    /// Ticks when something may have been written.
    pub fn writes(&self) -> watch::Receiver<u64> {
        self.inner().ticks.subscribe()
    }

    /// Waits until there are changes after number `seq`; returns the number of the newest one. It
    /// waits as long as that takes: drop it to stop.
    ///
    /// # Errors
    /// Those of reading; a later try may go well.
    pub async fn wait_for_events(&self, seq: u64) -> Result<u64, Error> {
        let inner = self.inner();
        if let Engine::Postgres(server) = &inner.engine {
            let mut ear = inner.ear.lock();
            if ear.is_none() {
                *ear = Some(Ear::open(Arc::clone(server), inner.ticks.clone())?);
            }
        }
        let mut ticks = inner.ticks.subscribe();
        loop {
            ticks.mark_unchanged();
            let last = self.last_change().await?;
            if last > seq {
                return Ok(last);
            }
            // An error would mean that the sender is gone, and this handle holds it.
            let _ = tokio::time::timeout(LOOK, ticks.changed()).await;
        }
    }
}
