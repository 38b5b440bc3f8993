//! The data plane with real sockets and pipes: clients of both eras, upstreams of both eras and
//! transports, and everything that either side can do wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

mod access;
mod addresses;
mod attacks;
mod bridge;
mod cache_hints;
mod doors;
mod eras;
mod everyone;
mod hostile;
mod http_faults;
mod http_tools;
mod idle;
mod introductions;
mod limits;
mod meta;
mod mirrors;
mod offers;
mod oldest;
mod oldest_clients;
mod questions;
mod records;
mod replays;
mod resources;
mod session_streams;
mod sets;
mod starting;
mod stdio_faults;
mod streams;
mod task_news;
mod tasks;
mod upstream_sessions;
mod validation;
mod websocket;
mod websocket_servers;
