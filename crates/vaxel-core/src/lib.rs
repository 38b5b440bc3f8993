//! Pure: no async, no I/O. The words of the product and the decisions that need nothing but their
//! arguments.
//!
//! Every other crate may use this one; it uses none of them. What is absent on purpose: sockets,
//! files, environment, SQL, HTTP types, MCP wire types, tasks and locks.
pub mod id; // read these first: how a thing is identified, named and dated
pub mod name;
pub mod time;
pub mod quantity;
pub mod secret;

pub mod failure; // what can go wrong, and the one table that decides how it is shown
pub mod problem; // failures on HTTP
pub mod sse; // events as text, for MCP and the management API
pub mod unambiguous; // JSON that everybody reads in the same way
pub mod fields; // reading objects with every problem at once

pub mod principal; // who is asking
pub mod user; // people and programs
pub mod role; // what they may do: by their roles, by what is shared with them, by policies above both
pub mod grant;
pub mod policy;
pub mod rights; // all of that gathered for one user
pub mod access; // the decision

pub mod service; // the desired state of a service, and its validation
pub mod template; // services with blanks
pub mod toolset; // a selection of what services offer
pub mod status; // the observed state of a service
pub mod lifecycle;
pub mod dependencies; // which service needs which
pub mod health; // what is checked of a service, and what follows from it
pub mod catalog; // what a service offers
pub mod jsonc; // JSON with comments, changed without touching the rest
pub mod import; // configurations of MCP clients, read as services
pub mod bundle; // many resources in one document
pub mod session; // what is remembered of a legacy client
pub mod audit;
pub mod call; // the record that every call leaves
pub mod histogram; // how long calls took, added up
pub mod difference; // what differs between two documents

pub mod rate; // how much in how much time
pub mod quota; // what a caller may take
pub mod lockout; // how long who guesses waits
pub mod backoff;
pub mod balance; // which instance gets the next call
