//! JSON-RPC error codes, and how a [`Failure`] of ours is said to a client of either era.

use bytes::Bytes;
use vaxel_core::failure::{Failure, Kind, facts};

use crate::{
    meta, response,
    revision::{Era, Revision},
};

/// Not JSON.
pub const PARSE_ERROR: i32 = -32700;
/// Not a request.
pub const INVALID_REQUEST: i32 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// The client has to visit URLs before the request can be answered (MCP 2025-11-25 only).
pub const URL_ELICITATION_REQUIRED: i32 = -32042;
/// Wrong parameters, unknown tool, prompt or cursor; since 2026-07-28 also unknown resource.
pub const INVALID_PARAMS: i32 = -32602;
/// A fault of the server.
pub const INTERNAL_ERROR: i32 = -32603;
/// Unknown resource, up to 2025-11-25.
pub const RESOURCE_NOT_FOUND: i32 = -32002;
/// A header does not say what the body says (2026-07-28).
pub const HEADER_MISMATCH: i32 = -32020;
/// The client lacks a capability that the request needs (2026-07-28).
pub const MISSING_CAPABILITY: i32 = -32021;
/// The protocol version is not supported (2026-07-28).
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// The JSON-RPC answer that tells a client of `era` about `failure`.
pub fn render(id: &[u8], failure: &Failure, era: Era) -> Bytes {
    let facts = facts(failure.kind);
    let code = match (failure.kind, era) {
        (Kind::UnknownResource, Era::Legacy) => RESOURCE_NOT_FOUND,
        _ => facts.code,
    };
    let mut data = vec![b'{'];
    let mut text = Vec::new();
    meta::quote(&mut text, facts.slug);
    meta::member(&mut data, "problem", &text);
    if let Some(seconds) = failure.retry_after {
        meta::member(&mut data, "retryAfter", seconds.to_string().as_bytes());
    }
    if let Some(level) = &failure.level {
        text.clear();
        meta::quote(&mut text, level.limit.as_str());
        meta::member(&mut data, "limit", &text);
    }
    if !failure.issues.is_empty() {
        let issues = serde_json::to_vec(&failure.issues).unwrap_or_default();
        meta::member(&mut data, "errors", &issues);
    }
    data.push(b'}');
    response::error(id, code, &failure.in_full(), Some(&data))
}

/// The HTTP status of a JSON-RPC error towards a modern client (MCP 2026-07-28, Streamable HTTP):
/// unknown methods are 404, broken envelopes 400, everything else is an answer like any other.
pub const fn modern_status(code: i32) -> u16 {
    match code {
        METHOD_NOT_FOUND => 404,
        PARSE_ERROR | INVALID_REQUEST | HEADER_MISMATCH | MISSING_CAPABILITY
        | UNSUPPORTED_VERSION => 400,
        _ => 200,
    }
}

/// The answer to a version that no request can have, with those that one can. Revisions of the other era
/// are reached by `initialize`, not by saying their version.
pub fn unsupported_version(id: &[u8], requested: &str) -> Bytes {
    let mut supported = vec![b'['];
    let modern = |revision: &&Revision| revision.era() == Era::Modern;
    for (index, revision) in Revision::ALL.iter().rev().filter(modern).enumerate() {
        if index > 0 {
            supported.push(b',');
        }
        meta::quote(&mut supported, revision.as_str());
    }
    supported.push(b']');
    let mut asked = Vec::new();
    meta::quote(&mut asked, &requested.chars().take(64).collect::<String>());
    let mut data = vec![b'{'];
    meta::member(&mut data, "supported", &supported);
    meta::member(&mut data, "requested", &asked);
    data.push(b'}');
    response::error(
        id,
        UNSUPPORTED_VERSION,
        "Unsupported protocol version",
        Some(&data),
    )
}

/// The answer to a request that only a client which knows `extension` may make (MCP 2026-07-28, error
/// codes; SEP-2663, "Protocol Errors").
pub fn missing_extension(id: &[u8], extension: &str) -> Bytes {
    let named = |name: &str, value: &[u8]| {
        let mut object = vec![b'{'];
        meta::member(&mut object, name, value);
        object.push(b'}');
        object
    };
    let required = named("extensions", &named(extension, b"{}"));
    let data = named("requiredCapabilities", &required);
    let detail = format!(
        "This needs a client that knows `{extension}`: declare it in the capabilities of the request"
    );
    response::error(id, MISSING_CAPABILITY, &detail, Some(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_resource_has_the_code_of_the_callers_era() {
        let failure = Failure::new(Kind::UnknownResource, "No resource `x`");
        let code = |era| {
            let body = render(b"1", &failure, era);
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            value["error"]["code"].as_i64()
        };
        assert_eq!(code(Era::Legacy), Some(-32002));
        assert_eq!(code(Era::Modern), Some(-32602));
    }

    #[test]
    fn a_version_error_lists_what_is_spoken() {
        let body = unsupported_version(b"1", "1900-01-01");
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["error"]["data"]["supported"][0], "2026-07-28");
        assert_eq!(value["error"]["data"]["requested"], "1900-01-01");
    }
}
