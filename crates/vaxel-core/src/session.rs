//! What is remembered of a legacy client's session besides what its id says, so that it outlives the
//! process that the client set it in.

use std::time::Duration;

use crate::id::{Id, Service, Session};

/// How long a session can be taken up after it was opened. Nothing is remembered for longer.
pub const LIFE: Duration = Duration::from_hours(30 * 24);

/// What a client has set in its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    /// Which session.
    pub id: Id<Session>,
    /// Least severe log message wanted, by its MCP name.
    pub level: Option<Box<str>>,
    /// Resources that the client watches: of which service, by which URI, and what the client calls it.
    pub watched: Vec<(Id<Service>, Box<str>, Box<str>)>,
    /// The client ended it. It stays ended.
    pub ended: bool,
}

impl SessionState {
    /// A session in which nothing was set.
    pub const fn new(id: Id<Session>) -> Self {
        Self {
            id,
            level: None,
            watched: Vec::new(),
            ended: false,
        }
    }

    /// Whether there is nothing to remember.
    pub const fn is_empty(&self) -> bool {
        self.level.is_none() && self.watched.is_empty() && !self.ended
    }
}
