//! What is stored as lines of text, the same of either engine.
//!
//! A table is a line with its name, its columns and the number of its rows; each row is a line of its own, an
//! array in the order of the columns, with bytes as base64. What is absent on purpose: what goes around these
//! lines in a file, and how they are kept from others.

use std::{io::Write, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    migrations,
    stmt::{Kind, Value},
    store::Store,
    transfer::{Table, tables, tables_of},
    tx::Tx,
};

/// Tables that are of use only together with the root key, or that let somebody in: a backup holds them
/// only when it is sealed itself.
pub const PRIVATE: &[&str] = &[
    "audit_keys",
    "data_keys",
    "keys",
    "oauth_clients",
    "oauth_consents",
    "passwords",
    "secrets",
    "sessions",
    "sign_ins",
    "signing_keys",
    "upstream_tokens",
];

/// Tables with values that are sealed, in a column `sealed`: when the root key is replaced they are sealed anew.
pub const SEALED: &[&str] = &[
    "audit_keys",
    "data_keys",
    "secrets",
    "signing_keys",
    "upstream_tokens",
];

/// How far a schema has come: numbers of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Of the resources.
    pub resources: usize,
    /// Of the records.
    pub records: usize,
}

impl Schema {
    /// That of this version.
    pub const NEWEST: Self = Self {
        resources: migrations::RESOURCES.len(),
        records: migrations::RECORDS.len(),
    };

    /// Refuses what only a newer Vaxel understands, found in `file`.
    ///
    /// # Errors
    /// [`Error::Newer`].
    pub fn require_known(self, file: &Path) -> Result<(), Error> {
        let parts = [
            (self.resources, Self::NEWEST.resources),
            (self.records, Self::NEWEST.records),
        ];
        match parts.into_iter().find(|(found, known)| found > known) {
            None => Ok(()),
            Some((found, known)) => Err(Error::Newer {
                file: file.to_owned(),
                found: i64::try_from(found).unwrap_or(i64::MAX),
                known: i64::try_from(known).unwrap_or(i64::MAX),
            }),
        }
    }

    pub(crate) fn resource_steps(self) -> &'static [&'static str] {
        &migrations::RESOURCES[..self.resources.min(migrations::RESOURCES.len())]
    }

    pub(crate) fn record_steps(self) -> &'static [&'static str] {
        &migrations::RECORDS[..self.records.min(migrations::RECORDS.len())]
    }
}

/// The line before the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableHead {
    /// Its name.
    pub table: String,
    /// Its columns, sorted by name.
    columns: Vec<(String, Kind)>,
    /// How many rows follow.
    pub rows: u64,
}

impl TableHead {
    /// Reads the line before the rows of a table.
    ///
    /// # Errors
    /// [`Error::NoRow`].
    pub fn read(line: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(line).map_err(|error| Error::NoRow(error.to_string()))
    }

    /// Whether `line` is a row of this table.
    ///
    /// # Errors
    /// [`Error::NoRow`].
    pub fn check(&self, line: &[u8]) -> Result<(), Error> {
        self.row(line).map(drop)
    }

    /// What stands in a column of text of a row; `None` when there is no such column or no text in it.
    pub fn text(&self, line: &[u8], column: &str) -> Option<String> {
        let at = self.columns.iter().position(|(name, _)| name == column)?;
        match self.row(line).ok()?.swap_remove(at) {
            Value::Text(text) => Some(text.into_owned()),
            Value::Null(_) | Value::Int(_) | Value::Blob(_) => None,
        }
    }

    /// What stands in a column of bytes of a row.
    pub fn bytes(&self, line: &[u8], column: &str) -> Option<Vec<u8>> {
        let at = self.columns.iter().position(|(name, _)| name == column)?;
        match self.row(line).ok()?.swap_remove(at) {
            Value::Blob(bytes) => Some(bytes.into_owned()),
            Value::Null(_) | Value::Int(_) | Value::Text(_) => None,
        }
    }

    /// What stands in a column of numbers of a row.
    pub fn number(&self, line: &[u8], column: &str) -> Option<i64> {
        let at = self.columns.iter().position(|(name, _)| name == column)?;
        match self.row(line).ok()?.swap_remove(at) {
            Value::Int(number) => Some(number),
            Value::Null(_) | Value::Text(_) | Value::Blob(_) => None,
        }
    }

    pub(crate) fn row(&self, line: &[u8]) -> Result<Vec<Value<'static>>, Error> {
        let wrong = |detail: String| Error::NoRow(format!("{}: {detail}", self.table));
        let found: Vec<serde_json::Value> =
            serde_json::from_slice(line).map_err(|error| wrong(error.to_string()))?;
        if found.len() != self.columns.len() {
            let (has, wants) = (found.len(), self.columns.len());
            return Err(wrong(format!("a row has {has} values in place of {wants}")));
        }
        let values = found.into_iter().zip(&self.columns);
        values
            .map(|(value, (column, kind))| {
                value_of(value, *kind).ok_or_else(|| wrong(format!("{column} is not {kind:?}")))
            })
            .collect()
    }

    /// Whether a table is as this one was.
    pub(crate) fn fits(&self, table: &Table) -> bool {
        self.table == table.name && self.columns == table.columns
    }
}

fn value_of(value: serde_json::Value, kind: Kind) -> Option<Value<'static>> {
    use serde_json::Value as Json;
    Some(match (value, kind) {
        (Json::Null, kind) => Value::Null(kind),
        (Json::Number(number), Kind::Int) => Value::Int(number.as_i64()?),
        (Json::String(text), Kind::Text) => Value::Text(text.into()),
        (Json::String(text), Kind::Blob) => Value::Blob(STANDARD.decode(text).ok()?.into()),
        _ => return None,
    })
}

impl Store {
    /// Writes everything that is stored, but for the tables `without`, to `out`, which it returns. The
    /// resources are those of one moment, and the records those of one right behind it.
    ///
    /// # Errors
    /// Those of the engine; [`Error::Full`] and [`Error::Unusable`] of `out`.
    pub async fn dump<W: Write + Send + 'static>(
        &self,
        without: &'static [&'static str],
        mut out: W,
    ) -> Result<W, Error> {
        let parts = [
            (self.resources(), migrations::RESOURCES),
            (self.records(), migrations::RECORDS),
        ];
        for (database, steps) in parts {
            let mut names = tables_of(steps);
            names.retain(|name| !without.contains(&name.as_str()));
            let writing = database.read("backup", move |tx| {
                for table in tables(tx, &names)? {
                    write_table(tx, &table, &mut out)?;
                }
                Ok(out)
            });
            out = writing.await?;
        }
        Ok(out)
    }
}

fn write_table(tx: &mut Tx<'_>, table: &Table, out: &mut impl Write) -> Result<(), Error> {
    let unwritten = |error| Error::unusable(Path::new("the backup"), error);
    let (rows, select) = (table.count(tx)?, table.select());
    let mut line = Vec::new();
    let head = TableHead {
        table: table.name.clone(),
        columns: table.columns.clone(),
        rows,
    };
    write_json(&mut line, &head)?;
    line.push(b'\n');
    out.write_all(&line).map_err(unwritten)?;
    tx.each(select, &table.name, |row| {
        line.clear();
        for (at, value) in table.read(row)?.iter().enumerate() {
            line.push(if at == 0 { b'[' } else { b',' });
            match value {
                Value::Null(_) => line.extend_from_slice(b"null"),
                Value::Int(number) => write_json(&mut line, number)?,
                Value::Text(text) => write_json(&mut line, text)?,
                Value::Blob(bytes) => write_json(&mut line, &STANDARD.encode(bytes))?,
            }
        }
        line.extend_from_slice(b"]\n");
        out.write_all(&line).map_err(unwritten)
    })
}

fn write_json(line: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    serde_json::to_writer(line, value).map_err(|error| Error::unreadable("value", error))
}

#[cfg(test)]
mod tests;
