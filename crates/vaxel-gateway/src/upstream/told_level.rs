//! What a legacy server was told about log messages in one of its sessions.

use parking_lot::Mutex;
use vaxel_mcp::level::Level;

/// The most verbose level that was told; it goes with the session.
#[derive(Default)]
pub(super) struct ToldLevel(Mutex<Option<Level>>);

impl ToldLevel {
    /// Whether the server is still to be told; from then on it counts as told.
    pub(super) fn is_news(&self, level: Level) -> bool {
        let mut told = self.0.lock();
        if told.is_some_and(|told| told <= level) {
            return false;
        }
        *told = Some(level);
        true
    }

    /// It was not told.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}
