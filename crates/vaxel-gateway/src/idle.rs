//! Services whose instances are stopped because nobody called them: whoever calls one rings for it.

use std::sync::Arc;

use tokio::sync::Notify;
use vaxel_core::id::{Id, Service};

use crate::{gateway::Gateway, upstream::Link};

/// Asks the control plane for the instances of an idle service. Each time of being idle has its own.
#[derive(Debug, Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Somebody calls. Ringing twice is the same as once.
    pub fn ring(&self) {
        self.0.notify_one();
    }

    /// Resolves when it was rung.
    pub async fn rung(&self) {
        self.0.notified().await;
    }
}

/// Two are the same when ringing one rings the other.
impl PartialEq for Bell {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Bell {}

impl Gateway {
    /// Closes all of these links of a service to calls, unless one of them is in use: by a call, by
    /// a question that waits for its answer, or by a task. Whether it did; then whoever calls waits until
    /// the service is published anew.
    pub fn retire(&self, links: &[Link]) -> bool {
        let closed = links.iter().take_while(|link| link.retire()).count();
        if closed == links.len() {
            return true;
        }
        links[..closed].iter().for_each(Link::unretire);
        // Who came meanwhile waits for something to change.
        self.look_again();
        false
    }

    /// Whether clients watch any resource or task of a service.
    pub fn is_watched(&self, service: Id<Service>) -> bool {
        self.interests().is_watched(service)
    }
}
