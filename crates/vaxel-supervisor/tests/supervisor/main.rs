//! The supervisor with real processes: what it starts, what it keeps, and that nothing is left.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says where by failing there"
)]

mod home;

mod ends;
mod limits;
mod logs;
mod sandbox;
mod start;
mod tree;
