//! The control plane with a real store, a real data plane and real processes.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests end the test that they cannot help"
)]

mod home; // read this first

mod changes;
mod dependencies;
mod keys;
mod lifecycle;
mod many;
mod running;
mod values;
mod watching;
