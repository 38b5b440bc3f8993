//! What the store has done, by the names of its transactions.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use crate::error::Error;

/// Figures of the transactions of one name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionStats {
    /// What it does, such as `create_service`.
    pub name: &'static str,
    /// How often it ran.
    pub count: u64,
    /// How often it was refused or failed.
    pub errors: u64,
    /// From the call to the answer, waiting included, all together.
    pub total: Duration,
}

/// Counts of one database.
#[derive(Default)]
pub(crate) struct Counts {
    by_name: Mutex<BTreeMap<&'static str, TransactionStats>>,
    last_error: Mutex<Option<String>>,
}

impl Counts {
    pub(crate) fn note<T>(&self, name: &'static str, took: Duration, result: Result<&T, &Error>) {
        if let Err(error) = result {
            tracing::debug!(transaction = name, %error, "a transaction was refused");
            if error.is_the_stores() {
                *self.last_error.lock() = Some(format!("{name}: {error}"));
            }
        }
        let mut by_name = self.by_name.lock();
        let stats = by_name.entry(name).or_default();
        stats.name = name;
        stats.count += 1;
        stats.errors += u64::from(result.is_err());
        stats.total += took;
    }

    pub(crate) fn by_name(&self) -> Vec<TransactionStats> {
        self.by_name.lock().values().cloned().collect()
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }
}
