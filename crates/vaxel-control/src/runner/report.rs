//! What an instance tells its runner.

use std::sync::Arc;

use vaxel_core::{catalog::Catalog, failure::Issue, status::Health, time::Timestamp};
use vaxel_gateway::Link;
use vaxel_supervisor::ProcessHandle;

/// Which instance: replicas of one generation belong to one revision of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seat {
    pub(crate) generation: u32,
    /// 0-based.
    pub(crate) replica: u16,
}

/// One thing that happened to one instance.
pub(crate) struct Report {
    pub(crate) seat: Seat,
    /// Boxed: a channel has room for many from its beginning, and is empty nearly always.
    pub(crate) news: Box<News>,
}

pub(crate) enum News {
    /// A start or a connection is being tried.
    Starting {
        /// How often it was started again after an unwanted end.
        restarts: u32,
    },
    /// The process runs; it has not answered yet.
    Spawned(ProcessHandle),
    /// It answered: calls may go there.
    Up { link: Link, catalog: Arc<Catalog> },
    /// It offers something else now.
    Offers(Arc<Catalog>),
    /// Its health is another one; calls still go there.
    Looks {
        health: Health,
        reason: Option<String>,
    },
    /// It was put out of the way of calls, or is back.
    Moved,
    /// New instances should take over from those of its generation.
    Worn,
    /// It was lost, for this reason; no call may go there any more. [`News::Down`] follows.
    Parted(String),
    /// It does not run, or cannot be reached.
    Down(Setback),
}

/// Why an instance is not there, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setback {
    /// A sentence for people, with the last words of the process.
    pub(crate) reason: String,
    /// What it does not do that it should, and may not serve for; see [`super::proof`].
    pub(crate) issues: Vec<Issue>,
    /// Starting it again and again does not help, or is not wanted.
    pub(crate) hopeless: bool,
    /// When it is tried again, if ever.
    pub(crate) next_start_at: Option<Timestamp>,
}
