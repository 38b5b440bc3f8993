//! What every answer tells browsers: that it is what it says, that it is shown in no frame, that nothing is told
//! to others, and that secrets are not kept.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What holds where an answer says nothing else. It is no page: nothing in it may be loaded or run.
const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
];
/// A year, for this host alone: of those below it we know nothing (RFC 6797 §6.1).
const ONLY_TLS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Paths whose answers are the same for everyone; all others may hold what is one caller's alone.
const OPEN: &[&str] = &["/docs", "/errors", "/health/", "/.well-known/"];

/// Adds what the answer to a request for `path` lacks. With `only_tls` browsers are told to come back with TLS
/// and nothing else.
pub(crate) fn complete(headers: &mut HeaderMap, path: &str, only_tls: bool) {
    for (name, value) in ALWAYS {
        headers.entry(name).or_insert(value);
    }
    let is_open = path == "/" || OPEN.iter().any(|open| path.starts_with(open));
    if !is_open {
        let no_store = HeaderValue::from_static("no-store");
        headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    }
    if only_tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, ONLY_TLS);
    }
}
