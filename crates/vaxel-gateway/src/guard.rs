//! The first look at a request: may it be addressed to us, and may it come from there?
//!
//! Host and Origin are checked for every path before anything else, so that a web page cannot reach
//! a server on the visitor's own machine by rebinding a name to it (MCP 2026-07-28, Streamable HTTP,
//! "Security Warning").

use http::{HeaderMap, Uri, header, uri::Authority};
use vaxel_auth::web::WebRules;
use vaxel_core::failure::{Failure, Kind};

/// Refuses what does not belong here.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, rules: &WebRules) -> Result<(), Failure> {
    // A header that is no text is none that a rule could allow.
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("\0"))
    };
    let host = text(header::HOST).or_else(|| uri.authority().map(Authority::as_str));
    if !rules.allows_host(host) {
        return Err(Failure::new(
            Kind::ForbiddenOrigin,
            "The Host header names a host that this server does not answer for; \
             an operator can add it to server.allowed_hosts",
        ));
    }
    if !rules.allows_origin(text(header::ORIGIN), host) {
        return Err(Failure::new(
            Kind::ForbiddenOrigin,
            "Pages of this origin may not call this server; \
             an operator can add it to server.allowed_origins",
        ));
    }
    Ok(())
}
