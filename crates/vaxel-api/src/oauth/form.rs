//! Forms: `application/x-www-form-urlencoded`, each name at most once (RFC 6749 §3.1, §3.2).

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderValue, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use vaxel_control::{Asked, OauthError};

use super::Told;

/// Longest body, bytes.
pub(super) const LONGEST: usize = 64 << 10;

/// What a form says: passwords and codes may be in it, so that it is never shown.
#[derive(Default)]
pub(crate) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads what stands in a query or a body; `None` when a name comes twice.
    pub(crate) fn read(text: &[u8]) -> Option<Self> {
        let mut read = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text) {
            // MCP lets a client name one resource only; those that repeat it mean the same.
            let before = read.insert(name.clone().into_owned(), value.clone().into_owned());
            if before.is_some_and(|before| before != value) {
                return None;
            }
        }
        Some(Self(read))
    }

    /// A value that is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// A value that has to be there.
    pub(crate) fn need(&self, name: &'static str) -> Result<&str, OauthError> {
        let missing = || OauthError::new("invalid_request", format!("{name} is missing"));
        self.get(name).ok_or_else(missing)
    }

    /// The parameters of an authorization.
    pub(crate) fn asked(&self) -> Asked {
        let get = |name| self.get(name).map(str::to_owned);
        Asked {
            response_type: get("response_type"),
            client_id: get("client_id"),
            redirect_uri: get("redirect_uri"),
            state: get("state"),
            scope: get("scope"),
            resource: get("resource"),
            code_challenge: get("code_challenge"),
            code_challenge_method: get("code_challenge_method"),
        }
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Told;

    async fn from_request(request: Request, state: &S) -> Result<Self, Told> {
        let wrong =
            |sentence: &'static str| Told::from(OauthError::new("invalid_request", sentence));
        let kind = request
            .headers()
            .get(header::CONTENT_TYPE)
            .map(HeaderValue::as_bytes);
        if !kind.is_some_and(|kind| kind.starts_with(b"application/x-www-form-urlencoded")) {
            return Err(wrong(
                "the body is a form: application/x-www-form-urlencoded",
            ));
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|_| wrong("the body is too long, or did not come to its end"))?;
        Self::read(&body).ok_or_else(|| wrong("a parameter comes twice"))
    }
}

/// Name and secret of `Authorization: Basic …`; both are encoded as in forms (RFC 6749 §2.3.1).
pub(crate) fn basic(head: &str) -> Option<(String, String)> {
    let (scheme, encoded) = head.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let plain = |text: &str| {
        let pair = format!("x={text}");
        url::form_urlencoded::parse(pair.as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
    };
    Some((plain(id)?, plain(secret)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_comes_twice_with_two_values_is_refused() {
        assert!(Form::read(b"a=1&a=2").is_none());
        assert_eq!(Form::read(b"a=1&a=1&b=").unwrap().get("a"), Some("1"));
        assert_eq!(Form::read(b"b=").unwrap().get("b"), None);
    }

    #[test]
    fn a_secret_in_the_head_is_read() {
        let head = format!("Basic {}", STANDARD.encode("id%2B:a%3Ab"));
        assert_eq!(basic(&head), Some(("id+".to_owned(), "a:b".to_owned())));
        for bad in ["Bearer x", "Basic", "Basic !!", "Basic aWQ="] {
            assert_eq!(basic(bad), None, "{bad}");
        }
    }
}
