//! The data plane: carries one client request to an upstream and back.
//!
//! Invariant: nothing here waits for the database. Services arrive through [`Gateway::publish`] and
//! are read from an immutable [`snapshot`], pinned once per request; facts leave through a bounded
//! channel of call records.
pub mod gateway; // the handle: what the control plane may ask of the data plane
pub mod config;

mod listener; // read from here: the way of a request, in order
mod places; // how many connections there may be
pub mod tls;
mod http2;
mod pipeline;
mod guard;
mod authenticate;
mod challenge; // where whoever is refused can log in
mod decode;
mod edge;
mod dispatch;
mod lists;
mod meta; // all tools through four
mod route;
mod authorize;
mod addresses; // what resources are called where there are many services
mod tasks; // work that goes on after its call
mod admit;
mod limits; // how much callers, services and tools take
mod breaker;
mod validate;
mod upstream;
mod relay;
mod answer;
mod cut; // calls that hang when Vaxel stops
mod unhurried; // calls whose clients left
mod conversation; // calls with notes and questions
mod interactions; // questions to modern clients, between two requests
mod respond;
mod record;
mod incidents; // what was refused
mod tool_call; // calls over REST, and of our own
mod check; // calls of our own, to see how an instance is

mod connect; // how an upstream is reached for the first time
mod session; // legacy sessions of clients
mod replay; // streamed answers that a legacy client can take up again
mod idle; // services that are stopped until somebody calls them
mod interest; // which single resources clients watch
mod subscribe; // streams that tell clients of changes
mod snapshot;
mod metrics;

pub use authenticate::{Caller, Holder, KeyUse, Lent, Standing, Tokens};
pub use breaker::BreakerRules;
pub use check::{CheckReply, ToolCheck};
pub use config::{Config, Keep, Tunables};
pub use connect::{ConnectTarget, Transport};
pub use gateway::{
    Deps, ExposedTool, Gateway, Load, ServedSet, ServiceEntry, ShownOf, Unavailable,
};
pub use guard::base;
pub use idle::Bell;
pub use incidents::Incident;
pub use limits::Toll;
pub use pipeline::{Fallback, FallbackBody, Hidden, Identity, Peer, RequestId};
pub use snapshot::About;
pub use tool_call::{ToolCall, ToolReply};
pub use upstream::{
    Bearer, BuiltinError, BuiltinRequest, BuiltinServer, Evidence, Introduced, Link, Refused,
    TokenRequest, TokenSource,
};
