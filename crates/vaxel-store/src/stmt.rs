//! Statements and values that every engine takes.

use std::{borrow::Cow, sync::OnceLock};

use rusqlite::types::{ToSqlOutput, ValueRef};
use vaxel_core::{id::Id, time::Timestamp};

use crate::{error::Error, postgres::Number};

/// One SQL text for every engine. Parameters are `$1`, `$2`, …; `$` stands for nothing else.
pub(crate) struct Stmt {
    text: &'static str,
    sqlite: OnceLock<String>,
}

impl Stmt {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self {
            text,
            sqlite: OnceLock::new(),
        }
    }

    /// The text as SQLite reads it: there `$1` would be a name, `?1` is a number.
    pub(crate) fn for_sqlite(&self) -> &str {
        self.sqlite.get_or_init(|| self.text.replace('$', "?"))
    }

    /// The text as PostgreSQL reads it.
    pub(crate) const fn for_postgres(&self) -> &'static str {
        self.text
    }
}

/// What a column holds: BIGINT, TEXT or BLOB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Int,
    Text,
    Blob,
}

/// A value that is stored. PostgreSQL wants to know also of a null what it would be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null(Kind),
    Int(i64),
    Text(Cow<'a, str>),
    Blob(Cow<'a, [u8]>),
}

impl Value<'_> {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Null(kind) => *kind,
            Self::Int(_) => Kind::Int,
            Self::Text(_) => Kind::Text,
            Self::Blob(_) => Kind::Blob,
        }
    }

    /// The same, for longer than what it was made of.
    pub(crate) fn to_owned(&self) -> Value<'static> {
        match self {
            Self::Null(kind) => Value::Null(*kind),
            Self::Int(number) => Value::Int(*number),
            Self::Text(text) => Value::Text(Cow::Owned(text.clone().into_owned())),
            Self::Blob(bytes) => Value::Blob(Cow::Owned(bytes.clone().into_owned())),
        }
    }
}

/// What values of a type are stored as.
pub(crate) trait Stored {
    const KIND: Kind;
}

impl Stored for i64 {
    const KIND: Kind = Kind::Int;
}
impl Stored for u64 {
    const KIND: Kind = Kind::Int;
}
impl Stored for bool {
    const KIND: Kind = Kind::Int;
}
impl Stored for Timestamp {
    const KIND: Kind = Kind::Int;
}
impl Stored for &str {
    const KIND: Kind = Kind::Text;
}
impl Stored for String {
    const KIND: Kind = Kind::Text;
}
impl<T> Stored for Id<T> {
    const KIND: Kind = Kind::Text;
}
impl Stored for &[u8] {
    const KIND: Kind = Kind::Blob;
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null(_) => ValueRef::Null,
            Self::Int(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}
impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Int(i64::from(truth))
    }
}
impl From<Timestamp> for Value<'_> {
    fn from(at: Timestamp) -> Self {
        at.as_millis().into()
    }
}
impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}
impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}
impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(Cow::Borrowed(bytes))
    }
}
impl<T> From<Id<T>> for Value<'_> {
    fn from(id: Id<T>) -> Self {
        Self::Text(Cow::Owned(id.to_string()))
    }
}
impl<T: Into<Self> + Stored> From<Option<T>> for Value<'_> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null(T::KIND), Into::into)
    }
}

/// One row of an answer, read by position.
pub(crate) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    pub(crate) fn int(&self, at: usize) -> Result<i64, Error> {
        there("number", self.maybe_int(at)?)
    }
    pub(crate) fn maybe_int(&self, at: usize) -> Result<Option<i64>, Error> {
        const WHAT: &str = "number";
        match self {
            Self::Sqlite(row) => row.get(at).map_err(|error| Error::unreadable(WHAT, error)),
            Self::Postgres(row) => row
                .try_get::<_, Option<Number>>(at)
                .map(|number| number.map(|Number(number)| number))
                .map_err(|error| Error::unreadable(WHAT, error)),
        }
    }
    pub(crate) fn count(&self, at: usize) -> Result<u64, Error> {
        self.int(at)
            .map(|number| u64::try_from(number).unwrap_or(0))
    }
    pub(crate) fn maybe_count(&self, at: usize) -> Result<Option<u64>, Error> {
        let number = self.maybe_int(at)?;
        Ok(number.map(|number| u64::try_from(number).unwrap_or(0)))
    }
    pub(crate) fn truth(&self, at: usize) -> Result<bool, Error> {
        self.int(at).map(|number| number != 0)
    }
    pub(crate) fn text(&self, at: usize) -> Result<String, Error> {
        there("text", self.maybe_text(at)?)
    }
    pub(crate) fn maybe_text(&self, at: usize) -> Result<Option<String>, Error> {
        const WHAT: &str = "text";
        match self {
            Self::Sqlite(row) => row.get(at).map_err(|error| Error::unreadable(WHAT, error)),
            Self::Postgres(row) => row
                .try_get(at)
                .map_err(|error| Error::unreadable(WHAT, error)),
        }
    }
    pub(crate) fn blob(&self, at: usize) -> Result<Vec<u8>, Error> {
        there("value", self.maybe_blob(at)?)
    }
    pub(crate) fn maybe_blob(&self, at: usize) -> Result<Option<Vec<u8>>, Error> {
        const WHAT: &str = "value";
        match self {
            Self::Sqlite(row) => row.get(at).map_err(|error| Error::unreadable(WHAT, error)),
            Self::Postgres(row) => row
                .try_get(at)
                .map_err(|error| Error::unreadable(WHAT, error)),
        }
    }
    pub(crate) fn time(&self, at: usize) -> Result<Timestamp, Error> {
        self.count(at).map(Timestamp::from_millis)
    }
    pub(crate) fn maybe_time(&self, at: usize) -> Result<Option<Timestamp>, Error> {
        Ok(self.maybe_count(at)?.map(Timestamp::from_millis))
    }
    pub(crate) fn id<T>(&self, at: usize) -> Result<Id<T>, Error> {
        self.text(at)?
            .parse()
            .map_err(|error| Error::unreadable("id", error))
    }
}

fn there<T>(what: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::unreadable(what, "it is missing"))
}

/// `[value, …].into()` for parameters of different types.
macro_rules! values {
    ($($value:expr),* $(,)?) => { [$($crate::stmt::Value::from($value)),*] };
}
pub(crate) use values;
