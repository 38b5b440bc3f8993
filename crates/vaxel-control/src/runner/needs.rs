//! What a service needs of others: they start before it, and while one of them does not serve it is
//! degraded, but goes on.

use std::time::Duration;

use tokio::time::timeout;
use vaxel_core::{lifecycle::Lifecycle, name::ServiceName, status::Health};

use crate::status::{Board, Seen};

/// Waits for each of `needs` that is on its way, at most so long: what does not come must not keep
/// others from coming.
pub(super) async fn arrival(board: &Board, needs: &[ServiceName], longest: Duration) {
    if needs.is_empty() {
        return;
    }
    let bell = board.follow(needs);
    let arrived = async {
        while needs.iter().any(|name| is_coming(board, name)) {
            bell.notified().await;
        }
    };
    let _ = timeout(longest, arrived).await;
}

/// What `needs` lack, as a sentence; `None` when all serve.
pub(super) fn lack(board: &Board, needs: &[ServiceName]) -> Option<String> {
    let lacking = |name: &ServiceName| match board.find_by_name(name) {
        None => Some(format!("`{name}`, which it depends on, does not exist")),
        Some(seen) if serves(&seen) => None,
        Some(seen) => {
            let health = seen.status.health.as_str();
            Some(format!("`{name}`, which it depends on, is {health}"))
        }
    };
    let sentences: Vec<String> = needs.iter().filter_map(lacking).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// What is idle serves whoever calls it.
const fn serves(seen: &Seen) -> bool {
    let is_idle = matches!(seen.status.lifecycle, Lifecycle::Active)
        && matches!(seen.status.health, Health::Stopped);
    is_idle || matches!(seen.status.health, Health::Healthy | Health::Degraded)
}

/// Not there yet, or about to serve.
fn is_coming(board: &Board, name: &ServiceName) -> bool {
    board.find_by_name(name).is_none_or(|seen| {
        let state = seen.status.lifecycle;
        let begins = matches!(state, Lifecycle::Validating | Lifecycle::Deploying);
        begins && !serves(&seen)
    })
}
