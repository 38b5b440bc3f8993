//! Translates; contains no rule.
//!
//! The management API over HTTP: a handler reads the request, makes one call of `vaxel-control`, and
//! shows what came of it. Who may do what, and what is valid, is decided there. The gateway owns the
//! listener and hands over ([`Api`] is its fallback) what is not MCP.
mod routes; // read this first: every endpoint
mod api;
mod context;
mod extract; // what handlers take
mod problem; // how failures look
mod guards; // what browsers are told

mod services; // one file per resource
mod dependencies;
mod leases;
mod health;
mod revisions;
mod events;
mod usage;
mod tools;
mod toolsets;
mod backup;
mod bundle;
mod logs;
mod calls;
mod users;
mod sign_ins;
mod oauth; // clients that log in for users
mod roles;
mod grants;
mod policies;
mod access;
mod audit;
mod authorization;
mod keys;
mod server_keys;
mod templates;
mod status;

mod compat; // the doors of earlier systems
mod docs; // pages for people
mod markdown;
mod describe;

pub use api::{Api, Deps};
pub use context::{Config, MetricsAccess};
