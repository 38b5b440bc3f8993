//! What can go wrong in the store, by what a caller or operator can do about it.

use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};
use vaxel_core::{
    audit::chain::Flaw,
    failure::{Failure, Kind},
    name::ServiceName,
};

/// Extended codes of writes for which there was no room.
const GROWING: [i32; 2] = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE];
/// Extended codes of rows that are there already.
const UNIQUE: [i32; 2] = [
    ffi::SQLITE_CONSTRAINT_UNIQUE,
    ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
];

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
    #[error(
        "nothing can be written: the disk is full, or a quota or file-size limit is reached; make room and try again"
    )]
    Full,
    /// The disk says that it failed.
    #[error("the disk under the store failed ({0}); the system's log may say why")]
    Disk(String),
    /// The queue did not move in time; nothing was written.
    #[error("the store did not take the request in time; it is overloaded or its disk hangs")]
    Busy,
    /// Taken, but not answered in time.
    #[error(
        "the store did not answer in time, its disk may hang; look whether the change was made before you repeat it"
    )]
    Late,
    /// The server of the database cannot be reached, or does not let Vaxel do its work.
    #[error("the store, {server}, cannot be reached ({detail})")]
    Unreachable {
        /// Which one, without its password.
        server: String,
        /// What was said last.
        detail: String,
    },
    /// The server answers and refuses: a password, a right, a database that is not there.
    #[error("{server} refuses what Vaxel needs ({detail})")]
    Refused {
        /// Which one, without its password.
        server: String,
        /// What it said.
        detail: String,
    },
    /// The connection broke between a commit and its answer.
    #[error(
        "the connection to {server} was lost before it answered; look whether the change was made before you repeat it"
    )]
    Unknown {
        /// Which one, without its password.
        server: String,
    },
    /// Another Vaxel works on the database.
    #[error(
        "{server} is in use by another Vaxel ({holder}); stop it, or give this one another database or schema: several on one database come with a later version"
    )]
    Shared {
        /// Which one, without its password.
        server: String,
        /// What the server knows about the other one.
        holder: String,
    },
    /// Others changed the same rows at the same moment, more than once.
    #[error("others changed the same at the same moment; try again")]
    Contended,
    /// A place that is moved to holds something already.
    #[error(
        "{place} is not empty ({rows} rows in {table}); nothing was moved: name an empty place, or empty this one first"
    )]
    NotEmpty {
        /// Which place.
        place: String,
        /// The first table that has rows.
        table: String,
        /// How many.
        rows: u64,
    },
    /// Something is where a restore would put what it brings.
    #[error(
        "{} is there already; nothing was restored: name an empty --data-dir, or say --force, which moves what is there aside", .0.display()
    )]
    Occupied(PathBuf),
    /// Nothing is written past the chain of the audit.
    #[error("the audit of this store is sealed, and nobody opened its key: nothing can be written")]
    Unsealed,
    /// Something was done to the audit past Vaxel.
    #[error("the audit does not hold: {0}")]
    Flawed(#[from] Flaw),
    /// What is no line of a backup of this schema.
    #[error("the backup cannot be read: {0}; nothing was restored")]
    NoRow(String),
    /// What arrived is not what was sent.
    #[error(
        "{table} arrived with {found} rows that are not the {rows} that were sent; nothing was moved"
    )]
    Differs {
        /// Which table.
        table: String,
        /// Rows that were read.
        rows: u64,
        /// Rows that were found.
        found: u64,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A unique name is taken.
    #[error("the name is taken")]
    Taken,
    /// Services would need each other in a circle, which begins and ends with the same name.
    #[error("`{}` would depend on itself: {}", .0[0], circle(.0))]
    Circle(Vec<ServiceName>),
    /// Somebody else wrote meanwhile.
    #[error("it was changed meanwhile")]
    Changed,
    /// A row that must be there is not.
    #[error("it is not there any more")]
    Missing,
    /// A cursor that no page returned.
    #[error("`{0}` is no cursor; use `next_cursor` of the page before, as it is")]
    Cursor(String),
    /// A stored value is not what this version reads.
    #[error("the stored {what} cannot be read")]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Our own code in the transaction panicked; nothing of it was kept.
    #[error("a transaction panicked")]
    Panicked,
    /// Anything else that the engine says.
    #[error("the store failed: {0}")]
    Engine(String),
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

    /// The whole sentence, with why a value cannot be read.
    pub(crate) fn with_reason(&self) -> String {
        match std::error::Error::source(self) {
            Some(reason) => format!("{self}: {reason}"),
            None => self.to_string(),
        }
    }

    /// The operating system's error about a path, sorted.
    pub(crate) fn unusable(path: &Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Unusable {
                path: path.to_owned(),
                source,
            },
        }
    }

    /// The engine's error about a file that is being opened.
    pub(crate) fn opening(file: &Path, error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Self::unusable(file, std::io::Error::other(error))
            }
            _ => Self::of(error).in_file(file),
        }
    }

    /// Names the file, where the engine did not.
    pub(crate) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Corrupt { detail, .. } => Self::Corrupt {
                file: file.to_owned(),
                detail,
            },
            other => other,
        }
    }

    /// The engine's error, sorted by what can be done about it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "it is the function that `map_err` wants"
    )]
    pub(crate) fn of(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map_or(0, |raw| raw.extended_code);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            // What a file-size limit or a quota looks like; and the shared memory file cannot grow.
            Some(ErrorCode::SystemIoFailure) if GROWING.contains(&extended) => Self::Full,
            Some(ErrorCode::SystemIoFailure) => Self::Disk(error.to_string()),
            Some(ErrorCode::ConstraintViolation) if UNIQUE.contains(&extended) => Self::Taken,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt {
                file: PathBuf::from("the database"),
                detail: error.to_string(),
            },
            _ => Self::Engine(error.to_string()),
        }
    }

    /// The same for somebody else whom it meets.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::Full => Self::Full,
            Self::Busy => Self::Busy,
            Self::Contended => Self::Contended,
            Self::Taken => Self::Taken,
            Self::Changed => Self::Changed,
            Self::Missing => Self::Missing,
            Self::Engine(detail) => Self::Engine(detail.clone()),
            Self::Disk(detail) => Self::Disk(detail.clone()),
            Self::Unreachable { server, detail } => Self::Unreachable {
                server: server.clone(),
                detail: detail.clone(),
            },
            Self::Refused { server, detail } => Self::Refused {
                server: server.clone(),
                detail: detail.clone(),
            },
            Self::Shared { server, holder } => Self::Shared {
                server: server.clone(),
                holder: holder.clone(),
            },
            Self::Unknown { server } => Self::Unknown {
                server: server.clone(),
            },
            Self::Corrupt { file, detail } => Self::Corrupt {
                file: file.clone(),
                detail: detail.clone(),
            },
            Self::Flawed(flaw) => Self::Flawed(flaw.clone()),
            other => Self::Engine(other.to_string()),
        }
    }

    /// Whether what was to be written may be written all the same, or will be.
    pub const fn is_uncertain(&self) -> bool {
        matches!(self, Self::Late | Self::Unknown { .. } | Self::Closed)
    }

    /// Whether it may be gone the next time, and nothing was written.
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Contended | Self::Unreachable { .. })
    }

    /// Whether the store is to blame, not what was asked of it.
    pub(crate) const fn is_the_stores(&self) -> bool {
        !matches!(
            self.kind(),
            Kind::Conflict | Kind::VersionMismatch | Kind::NotFound | Kind::Invalid
        )
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::InUse { .. }
            | Self::Newer { .. }
            | Self::Unusable { .. }
            | Self::Corrupt { .. }
            | Self::Full
            | Self::Disk(_)
            | Self::Busy
            | Self::Late
            | Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Unknown { .. }
            | Self::Shared { .. }
            | Self::Contended
            | Self::Unsealed
            | Self::Flawed(_)
            | Self::Closed => Kind::StoreUnavailable,
            Self::Taken | Self::Circle(_) | Self::NotEmpty { .. } | Self::Occupied(_) => {
                Kind::Conflict
            }
            Self::Changed => Kind::VersionMismatch,
            Self::Missing => Kind::NotFound,
            Self::Cursor(_) | Self::NoRow(_) => Kind::Invalid,
            Self::Unreadable { .. } | Self::Differs { .. } | Self::Panicked | Self::Engine(_) => {
                Kind::Internal
            }
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

fn circle(names: &[ServiceName]) -> String {
    let names: Vec<&str> = names.iter().map(ServiceName::as_str).collect();
    names.join(" → ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_can_do_about_is_said_and_what_is_ours_is_not() {
        let said = |error: Error| {
            let failure = Failure::from(error);
            (failure.kind, failure.detail.into_owned())
        };
        let (kind, detail) = said(Error::Full);
        assert_eq!(kind, Kind::StoreUnavailable);
        assert!(detail.starts_with("Nothing can be written"), "{detail}");
        assert_eq!(said(Error::Changed).0, Kind::VersionMismatch);
        assert_eq!(said(Error::Taken).0, Kind::Conflict);
        assert_eq!(said(Error::Missing).0, Kind::NotFound);
        let (kind, detail) = said(Error::Engine("no such table: services".to_owned()));
        assert_eq!(kind, Kind::Internal);
        assert!(!detail.contains("table"), "{detail}");
    }
}
