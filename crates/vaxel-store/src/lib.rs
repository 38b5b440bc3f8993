//! The only place that knows the SQL engine.
//!
//! Two databases: one holds resources, where a write is answered after it is on disk, the other one
//! call records, of which a crash may cost the last second. They are two files of SQLite, or the
//! tables of one schema of PostgreSQL. Every write is one named transaction that also holds its audit
//! line and its change event. Statements are values with `$1`-style parameters that both engines take.
mod store; // read this first
mod database;
mod writer;
mod error;
mod stmt;
mod tx;
mod left_out;
mod link; // where the engines part:
mod sqlite;
mod postgres;
mod migrations;
mod lock;
mod counts;
mod data_key;
mod transfer;
mod backup;
mod restore;

mod service; // one file per resource
mod dependency;
mod revision;
mod secret;
mod user;
mod role;
mod grant;
mod policy;
mod key;
mod password;
mod sign_in;
mod signing_key;
mod oauth;
mod template;
mod toolset;
mod catalog;
mod audit;
mod chain; // what makes lines of the audit hold together
mod outbox;
mod wait;
mod note;
mod session;
mod health;
mod meta;
mod call;
mod usage;
mod upstream_token;

pub use audit::{AuditQuery, AuditRow};
pub use backup::{PRIVATE, SEALED, Schema, TableHead};
pub use call::{CallQuery, CallRow, CallStats};
pub use chain::{AuditChain, AuditKeyRow, AuditPage, AuditSeal};
pub use counts::TransactionStats;
pub use error::Error;
pub use health::{Digests, HealthChange, HealthRow};
pub use key::{EarlierSecret, KeyPage, KeyRow, KeyUseRow};
pub use oauth::OauthClientRow;
pub use outbox::{Event, Happening, Step};
pub use password::PasswordRow;
pub use postgres::{DatabaseUrl, InvalidUrl};
pub use restore::{Lines, Restoring, restore};
pub use revision::{LabelRow, RevisionRow};
pub use secret::SecretRow;
pub use service::{ServiceEntry, ServiceOrder, ServicePosition, ServiceQuery};
pub use sign_in::{Delegation, SignInRow};
pub use signing_key::SigningKeyRow;
pub use store::{Config, Stats, Store};
pub use template::TemplateRow;
pub use transfer::{Moved, has_files, transfer};
pub use upstream_token::UpstreamTokenRow;
pub use usage::{Grain, UsageBatch, UsageRows, UsageSum};

#[cfg(test)]
mod tests;
