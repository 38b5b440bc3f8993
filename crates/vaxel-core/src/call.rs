//! The record that every call leaves: who, what, when, how long, how big, with which outcome.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    id::{Call, Id, Key, Service},
    name::ServiceName,
    time::Timestamp,
};

/// One call, from its arrival to the end of its answer.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// Sorts by arrival.
    pub id: Id<Call>,
    /// Arrival.
    pub at: Timestamp,
    /// Until the end of the answer.
    pub duration: Duration,
    /// The service.
    pub service: Id<Service>,
    /// Its name at that time.
    pub service_name: ServiceName,
    /// MCP method, such as `tools/call`.
    pub method: &'static str,
    /// Name of the tool or prompt, URI of the resource; as the service knows it.
    pub target: Box<str>,
    /// The key that was used.
    pub principal: Option<Id<Key>>,
    /// Its name.
    pub principal_name: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// For people, when it did not end well.
    pub error: Option<Box<str>>,
    /// Size of the request body.
    pub request_bytes: u64,
    /// Size of the answer.
    pub response_bytes: u64,
    /// MCP revision that the client spoke; empty at the REST door.
    pub client_revision: &'static str,
    /// MCP revision that the service spoke; empty when it was not reached.
    pub upstream_revision: &'static str,
    /// Through which door it came.
    pub door: Door,
    /// W3C trace id, when the client sent one.
    pub trace_id: Option<Box<str>>,
    /// The parameters, when the configuration keeps them (capped).
    pub request: Option<Bytes>,
    /// The result, when the configuration keeps it (capped).
    pub response: Option<Bytes>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// With a result that the tool marked as an error.
    ToolError,
    /// With a protocol error from the service.
    Error,
    /// No answer before the deadline.
    Timeout,
    /// The caller went away or cancelled.
    Cancelled,
    /// Refused by policy or limits.
    Denied,
    /// The service was not there or was lost.
    Unavailable,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::ToolError,
        Self::Error,
        Self::Timeout,
        Self::Cancelled,
        Self::Denied,
        Self::Unavailable,
    ];

    /// The name in storage, metrics and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::Error => "error",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Through which door a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// An MCP endpoint.
    Mcp,
    /// The management API.
    Rest,
    /// A health check of Vaxel's own.
    Health,
}

impl Door {
    /// The name in storage and APIs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Rest => "rest",
            Self::Health => "health",
        }
    }

    /// Whether somebody wanted the call for itself: others count in no figure.
    pub const fn is_usage(self) -> bool {
        matches!(self, Self::Mcp | Self::Rest)
    }
}
