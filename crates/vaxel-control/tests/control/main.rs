//! The control plane with a real store, a real data plane and real processes.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests end the test that they cannot help"
)]

mod home; // read this first

mod access;
mod audit;
mod bundles;
mod changes;
mod dependencies;
mod feed;
mod health;
mod idle;
mod keys;
mod lifecycle;
mod limits;
mod lists;
mod many;
mod ownership;
mod proof;
mod revisions;
mod running;
mod sign_ins;
mod templates;
mod toolsets;
mod usage;
mod values;
mod watching;
mod writers;
