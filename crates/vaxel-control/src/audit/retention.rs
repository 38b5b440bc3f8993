//! The end of old lines. What does not hold stays, with everything else, until somebody has looked at it.

use tokio_util::sync::CancellationToken;
use vaxel_store::Error;

use crate::{
    control::Control,
    recorder::{SWEEP_EVERY, SWEEP_STEP, ago},
};

/// Removes every hour the lines that are too old, until `stop`.
pub(crate) async fn remove_old(control: Control, stop: CancellationToken) {
    let mut hourly = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hourly.tick() => {}
        }
        match control.remove_old_lines(&stop).await {
            Ok(()) => {}
            Err(Error::Flawed(flaw)) => control.flawed(format!(
                "{flaw}; no old lines are removed as long as that is so"
            )),
            Err(error) => tracing::warn!(%error, "old lines of the audit could not be removed"),
        }
    }
}

impl Control {
    async fn remove_old_lines(&self, stop: &CancellationToken) -> Result<(), Error> {
        let (context, store) = (&self.inner.context, self.store());
        let before = ago(&context.clock, context.config.health.retention);
        while !stop.is_cancelled() && store.trim_transitions(before, SWEEP_STEP).await? > 0 {}
        let before = ago(&context.clock, context.config.audit.retention);
        while !stop.is_cancelled() && store.trim_audit(before, SWEEP_STEP).await? > 0 {}
        Ok(())
    }
}
