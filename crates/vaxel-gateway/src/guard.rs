//! The first look at a request: may it be addressed to us, and may it come from there?
//!
//! Host and Origin are checked for every path before anything else, so that a web page cannot reach
//! a server on the visitor's own machine by rebinding a name to it (MCP 2026-07-28, Streamable HTTP,
//! "Security Warning").

use http::{HeaderMap, Uri, header, uri::Authority};
use vaxel_auth::web::WebRules;
use vaxel_core::failure::{Failure, Kind};

/// The address of this server as whoever sent a request knows it: the configured one, else under the `Host` that
/// passed the rules (letters, digits, dots and a port), with the one `scheme` that the listener speaks. `None` when the
/// request names no host.
pub fn base(
    public_url: Option<&str>,
    scheme: &str,
    headers: &HeaderMap,
    uri: &Uri,
) -> Option<String> {
    if let Some(url) = public_url {
        return Some(url.to_owned());
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str))?;
    Some(format!("{scheme}://{}", host.to_ascii_lowercase()))
}

/// Refuses what does not belong here.
pub(crate) fn check(headers: &HeaderMap, uri: &Uri, rules: &WebRules) -> Result<(), Failure> {
    // A header that is no text is none that a rule could allow.
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("\0"))
    };
    // Of two, whoever reads on may take either (RFC 9112 §3.2: one and no other).
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        let detail = "The request has more than one Host header, or one that is not its address's";
        return Err(Failure::new(Kind::Malformed, detail));
    }
    let named = uri.authority().map(Authority::as_str);
    let host = text(header::HOST).or(named);
    // Also the address itself may name a host, and then that counts (RFC 9112 §3.2.2): both must be good.
    if !rules.allows_host(host) || !named.is_none_or(|named| rules.allows_host(Some(named))) {
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
