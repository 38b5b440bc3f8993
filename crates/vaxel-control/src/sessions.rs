//! Carries what legacy clients set in their sessions to the store, off the way of their requests, and
//! back at the next start.
//!
//! A change is written within a fraction of a second, and all that is left when Vaxel stops; only an end
//! without a stop loses what was set in its last moment.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vaxel_core::{failure::Failure, session::SessionState, time::Clock};
use vaxel_gateway::Gateway;
use vaxel_store::Store;

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(100);
/// Wait before states that could not be written are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Gives the gateway what was saved.
pub(crate) async fn restore(store: &Store, gateway: &Gateway) -> Result<(), Failure> {
    gateway.restore_sessions(store.sessions().await?);
    Ok(())
}

/// Saves what changes, until `stop`; what is left then is saved before it returns.
pub(crate) async fn save(store: Store, gateway: Gateway, clock: Clock, stop: CancellationToken) {
    let save = async |states: Vec<SessionState>| {
        let saved = store.put_sessions(states.clone(), clock.now()).await;
        if let Err(error) = &saved {
            tracing::warn!(%error, "what clients set in their sessions was not saved");
            gateway.sessions_not_saved(&states);
        }
        saved.is_ok()
    };
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => break,
            changed = gateway.changed_sessions() => changed,
        };
        let wait = if save(changed).await { GATHER } else { AGAIN };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    loop {
        let left = gateway.take_changed_sessions();
        if left.is_empty() || !save(left).await {
            return;
        }
    }
}
