//! A remote server to which every user comes with a token of their own: one link per user, so that sessions
//! and tokens of one never meet those of another.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;
use vaxel_core::failure::Failure;

use super::{Answer, Outbound, http_link::HttpLink};

/// Users that have a link at the same time; the one that was unused longest makes room.
const USERS: usize = 1_024;

/// All links to one server.
pub(crate) struct PerUser {
    /// That of Vaxel itself, which sees what there is.
    pub(super) own: HttpLink,
    users: Mutex<HashMap<Arc<str>, Known>>,
}

struct Known {
    link: HttpLink,
    used: Instant,
}

impl PerUser {
    pub(crate) fn new(own: HttpLink) -> Self {
        Self {
            own,
            users: Mutex::default(),
        }
    }

    pub(super) async fn exchange(&self, out: &Outbound<'_>) -> Result<Answer, Failure> {
        let link = match out.user {
            Some(user) => self.link(user),
            None => self.own.clone(),
        };
        link.exchange(out).await
    }

    fn link(&self, user: &str) -> HttpLink {
        let mut users = self.users.lock();
        let now = Instant::now();
        if let Some(known) = users.get_mut(user) {
            known.used = now;
            return known.link.clone();
        }
        if users.len() >= USERS {
            let oldest = users.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(user, _)| Arc::clone(user)) {
                users.remove(&oldest);
            }
        }
        let user = Arc::<str>::from(user);
        let link = self.own.of_user(&user);
        let known = Known {
            link: link.clone(),
            used: now,
        };
        users.insert(user, known);
        link
    }

    /// Ends what was opened for users who have not used it for so long.
    pub(super) fn sweep(&self, idle: Duration) {
        self.own.sweep(idle);
        let now = Instant::now();
        let all = self.users.lock();
        all.values().for_each(|known| known.link.sweep(idle));
        drop(all);
        self.users.lock().retain(|_, known| known.used + idle > now);
    }

    /// Ends every session.
    pub(super) async fn close(&self) {
        let users = std::mem::take(&mut *self.users.lock());
        for known in users.into_values() {
            known.link.close().await;
        }
        self.own.close().await;
    }
}
