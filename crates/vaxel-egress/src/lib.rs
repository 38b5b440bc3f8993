//! Every outgoing connection passes here.
//!
//! An [`Egress`] is made once from a [`Config`]; it hands out a [`Target`] per upstream URL, and
//! [`Target::send`] is the hot path: no map lookup, no boxing of small bodies, and no task per
//! connection. Whoever waits for an answer drives the connection that it comes on, so a request
//! and its answer never change threads, and dropping either one closes the connection.
//!
//! Absent on purpose: redirects, retries of requests that may have been received, cookies,
//! decompression. Those are decisions of the callers.

mod connect;
mod pool;
mod reply;
mod stream;
mod target; // read this first: the life of a request
mod tls;
mod pin;
mod look; // at what is there, without asking it for anything

mod body;
mod config;
mod failure;
mod policy;

pub use body::{Body, BodyError, StreamBody};
pub use config::{Config, Roots};
pub use failure::{Cause, Error, Stage};
pub use pin::Pins;
pub use policy::{InvalidNetwork, Network, Networks, Policy, Reach};
pub use reply::{Reply, ReplyBody};
pub use target::{Egress, Origin, Target};

#[cfg(test)]
mod tests;
