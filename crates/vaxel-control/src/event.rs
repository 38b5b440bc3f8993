//! What changed, for whoever watches. In memory and bounded; the audit is what lasts.

use vaxel_core::{
    id::{Id, Key, Service, Toolset},
    template::TemplateName,
};

/// Events that wait for a slow reader; it misses the oldest ones when there are more.
pub(crate) const WAITING: usize = 1_024;

/// One change that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A service was created, updated, deleted, restored, started, stopped or restarted.
    Service {
        /// Which.
        id: Id<Service>,
        /// What was done, as it stands in the audit: `service.create`, …
        action: &'static str,
    },
    /// A template was created, updated or deleted.
    Template {
        /// Which.
        name: TemplateName,
        /// What was done, as it stands in the audit: `template.create`, …
        action: &'static str,
    },
    /// A key was created or revoked.
    Key {
        /// Which.
        id: Id<Key>,
        /// What was done, as it stands in the audit: `key.create`, …
        action: &'static str,
    },
    /// A user, role, grant or policy was created, updated or deleted: what somebody may do changed.
    Access {
        /// `user`, `role`, `grant` or `policy`.
        kind: &'static str,
        /// What was done, as it stands in the audit: `user.create`, …
        action: &'static str,
    },
    /// A set was created, updated or deleted.
    Toolset {
        /// Which.
        id: Id<Toolset>,
        /// What was done, as it stands in the audit: `toolset.create`, …
        action: &'static str,
    },
}
