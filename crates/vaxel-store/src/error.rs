//! What can go wrong in the store, by what a caller or operator can do about it.

use std::path::PathBuf;

use vaxel_core::failure::{Failure, Kind};

/// A store that cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the data directory.
    #[error(
        "{dir} is in use by another Vaxel (process {pid}); stop it, or give this one another --data-dir"
    )]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// The other process, as far as it said.
        pid: String,
    },
    /// Written by a newer Vaxel.
    #[error(
        "{file} was written by a newer Vaxel (schema {found}, this one knows {known}); install that version or a newer one"
    )]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this binary knows.
        known: i64,
    },
    /// The directory or a file in it cannot be used.
    #[error("{path} cannot be used ({source}); check its owner and permissions")]
    Unusable {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is damaged.
    #[error("{file} is damaged ({detail}); restore it from a backup")]
    Corrupt {
        /// The database.
        file: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// No space is left.
    #[error("nothing can be written: the disk is full")]
    Full,
    /// The queue of writes did not move in time.
    #[error("the store did not take the write in time; it is overloaded or its disk hangs")]
    Busy,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A unique name is taken.
    #[error("the name is taken")]
    Taken,
    /// Somebody else wrote meanwhile.
    #[error("it was changed meanwhile")]
    Changed,
    /// A row that must be there is not.
    #[error("it is not there any more")]
    Missing,
    /// A stored value is not what this version reads.
    #[error("a stored {what} cannot be read")]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything else that the engine says.
    #[error("the store failed: {0}")]
    Engine(#[from] rusqlite::Error),
}

impl Error {
    pub(crate) fn unreadable(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable {
            what,
            source: source.into(),
        }
    }

    /// The engine's error, sorted by what can be done about it.
    pub(crate) fn of(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ConstraintViolation) => Self::Taken,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Engine(error),
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Full | Self::Busy | Self::Closed => Kind::StoreUnavailable,
            Self::Taken => Kind::Conflict,
            Self::Changed => Kind::VersionMismatch,
            Self::Missing => Kind::NotFound,
            Self::InUse { .. }
            | Self::Newer { .. }
            | Self::Unusable { .. }
            | Self::Corrupt { .. }
            | Self::Unreadable { .. }
            | Self::Engine(_) => Kind::Internal,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Internal => Self::internal(error),
            kind => {
                let mut detail = error.to_string();
                if let Some(first) = detail.get(..1).map(str::to_uppercase) {
                    detail.replace_range(..1, &first);
                }
                Self::new(kind, detail).caused_by(error)
            }
        }
    }
}
