//! The only place that knows the SQL engine.
//!
//! Two files: `vaxel.db` holds resources, where a write is answered after it is on disk, and
//! `records.db` holds call records, of which a crash may cost the last second. Every write is one
//! named transaction that also holds its audit line and its change event. Statements are values with
//! `$1`-style parameters, so that a second engine can take the same text.
mod store; // read this first
mod error;
mod stmt;
mod sqlite;
mod migrations;
mod lock;
mod counts;

mod service; // one file per resource
mod dependency;
mod revision;
mod secret;
mod key;
mod catalog;
mod audit;
mod outbox;
mod note;
mod session;
mod health;
mod meta;
mod call;
mod usage;

pub use audit::AuditRow;
pub use call::{CallQuery, CallRow, CallStats};
pub use counts::TransactionStats;
pub use error::Error;
pub use health::{Digests, HealthChange, HealthRow};
pub use key::KeyRow;
pub use outbox::{Event, Happening};
pub use revision::{LabelRow, RevisionRow};
pub use secret::SecretRow;
pub use service::{ServiceEntry, ServiceOrder, ServicePosition, ServiceQuery};
pub use store::{Config, Stats, Store};
pub use usage::{Grain, UsageBatch, UsageRows, UsageSum};

#[cfg(test)]
mod tests;
