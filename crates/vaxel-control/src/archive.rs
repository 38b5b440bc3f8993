//! Empties the archive: services that were deleted long ago are gone for good, when the configuration
//! says so.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vaxel_core::{failure::Kind, principal::Principal, time::Timestamp};

use crate::{
    change::{Change, ServiceRef, Terms},
    control::Control,
};

/// Between two looks.
const EVERY: Duration = Duration::from_hours(1);
/// Services of one look at the store.
const STEP: u32 = 100;

/// Looks every hour, until `stop`.
pub(crate) async fn empty(control: Control, stop: CancellationToken) {
    let Some(retention) = control.inner.context.config.archive else {
        return;
    };
    let mut hourly = tokio::time::interval(EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = hourly.tick() => {}
        }
        purge(&control, control.now().minus(retention), &stop).await;
    }
}

async fn purge(control: &Control, before: Timestamp, stop: &CancellationToken) {
    let control = control.on(Terms {
        expected: None,
        message: Some("in the archive for as long as things are kept there".to_owned()),
    });
    while !stop.is_cancelled() {
        let old = match control.store().deleted_before(before, STEP).await {
            Ok(old) if old.is_empty() => return,
            Ok(old) => old,
            Err(error) => {
                tracing::warn!(%error, "the archive could not be looked at");
                return;
            }
        };
        for (id, name) in old {
            let change = Change::PurgeService(ServiceRef::Id(id));
            match control.submit(&Principal::system(), change).await {
                Ok(_) => tracing::info!(service.name = name, "it leaves the archive for good"),
                // Somebody was faster.
                Err(failure) if failure.kind == Kind::UnknownService => {}
                Err(failure) => {
                    tracing::warn!(service.name = name, "the archive keeps it: {failure}");
                    return;
                }
            }
        }
    }
}
