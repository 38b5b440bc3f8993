//! Rules of OAuth 2.1 as MCP 2026-07-28 uses them: what is an endpoint, a scope, a proof, a redirect address and
//! a client. Pure; who may do what, and what is remembered, is decided elsewhere.

pub mod endpoint; // what a token is for
pub mod scope; // what it lets through
pub mod pkce; // who began, finishes
pub mod redirect; // where an answer may go
pub mod client; // what clients say about themselves
pub mod metadata; // what we say about ourselves
pub mod discovery; // who gives the tokens that servers of others want
pub mod grant; // how they are got
