//! Vaxel as a whole: the rules of its house, and the binary with real programs on both sides.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "a skipped or failing test says why")]

mod harness;

mod access;
mod attacks;
mod audit;
mod backup;
mod bundles;
mod conformance;
mod crash;
mod doors;
mod edges;
mod edges_bodies;
mod faults;
mod first_run;
mod fixture;
mod history;
mod keys;
mod health;
mod http_services;
mod introductions;
mod limits;
mod login;
mod oauth;
mod matrix;
mod peers;
mod postgres;
mod registry;
mod restart;
mod seeds;
mod sets;
mod ssrf;
mod stopping;
mod stored;
mod task_news;
mod templates;
mod tidy;
mod tls;
mod tls_files;
mod tls_http2;
mod upstream_oauth;
mod validation;
mod writers;
