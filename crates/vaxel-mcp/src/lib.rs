//! Speaks MCP; opens no socket, knows no policy, holds no key.
//!
//! Messages stay the bytes they came as: an envelope is *read*, never rebuilt, and what has to change
//! (an id, a name, a reserved `_meta` key) is spliced in. Unknown fields therefore survive by
//! construction. Inside there is one model, the stateless one of MCP 2026-07-28; everything here that
//! mentions a [`revision::Era`] is a translation for an edge.
pub mod envelope;
pub mod method;
pub mod revision; // read these first
pub mod splice;

pub mod error;
pub mod meta;
pub mod level;
pub mod request; // one client request, era removed
pub mod response; // one answer, whatever its era

pub mod headers; // the transports
pub mod lines;

pub mod hello;
pub mod handshake; // between eras
pub mod translate;
pub mod interaction; // what servers ask of clients

pub mod schema; // what tools take and give
pub mod plain; // what a service answers that speaks no MCP

pub mod cursor;
pub mod definition; // many servers as one
pub mod federation;
pub mod names;
