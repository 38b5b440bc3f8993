//! Why a process could not be started, as sentences for the person who asked for it.

use std::{io, path::PathBuf, time::Duration};

use vaxel_core::failure::{Failure, Kind};

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such program.
    #[error("There is no program `{program}` in {place}: install it, or give its full path")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// Where it was looked for: `PATH (…)` or `this file system`.
        place: String,
    },
    /// The program exists and must not or cannot be run.
    #[error("The program `{program}` cannot be run: {why}")]
    Denied {
        /// As it was asked for.
        program: String,
        /// What stands in the way, and what to do.
        why: String,
    },
    /// The working directory cannot be entered.
    #[error("The working directory `{}` cannot be entered: {why}", cwd.display())]
    BadCwd {
        /// As it was asked for.
        cwd: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// An argument or variable cannot be handed to a program.
    #[error("The process cannot be started: {why}")]
    BadOrder {
        /// What is wrong with which part.
        why: String,
    },
    /// The shim did not report in time.
    #[error("The process was not started within {after:?}; this machine may be overloaded")]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// The supervisor is being shut down.
    #[error("No process is started any more: Vaxel is shutting down")]
    ShuttingDown,
    /// The machine refused something.
    #[error("The process could not be started: {doing} failed")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            doing: doing.into(),
            source,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let detail = match &error {
            // The cause matters to the caller here: no memory, too many processes, no such shim.
            Error::Io { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        };
        Self::new(Kind::UpstreamUnavailable, detail).caused_by(error)
    }
}
