//! The JSON-RPC 2.0 envelope, read in place: members are slices of the message.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// One JSON-RPC message, borrowed from the bytes it stands in.
#[derive(Debug, Deserialize)]
pub struct Envelope<'a> {
    /// `id`, raw: number, string or null.
    #[serde(borrow)]
    pub id: Option<&'a RawValue>,
    /// `method`, for requests and notifications.
    #[serde(borrow)]
    pub method: Option<Cow<'a, str>>,
    /// `params`, raw.
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    /// `result`, raw.
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    /// `error`, raw.
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error.
    Response,
    /// Is none of these.
    Invalid,
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not JSON.
    #[error("the body is not valid JSON: {0}")]
    Json(String),
    /// JSON, but no JSON-RPC message.
    #[error("the body is not a JSON-RPC 2.0 message: {0}")]
    Message(&'static str),
}

impl<'a> Envelope<'a> {
    /// Reads the envelope of `message`. Bodies of `params` and `result` are only skipped over.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        // serde would read an array as a struct, member by member.
        if message.trim_ascii_start().first() == Some(&b'[') {
            return Err(Malformed::Message(
                "a JSON-RPC batch, which this server does not take",
            ));
        }
        serde_json::from_str(text(message)?).map_err(|error| {
            if error.is_data() {
                Malformed::Message("expected one object with id, method, params, result or error")
            } else {
                Malformed::Json(error.to_string())
            }
        })
    }

    /// What the message is.
    pub const fn kind(&self) -> Kind {
        match (&self.method, &self.id) {
            (Some(_), Some(_)) => Kind::Request,
            (Some(_), None) => Kind::Notification,
            (None, _) if self.result.is_some() || self.error.is_some() => Kind::Response,
            (None, _) => Kind::Invalid,
        }
    }
}

/// A message as text. A part that is only skipped over would otherwise keep bytes that are none, and
/// whoever reads it next may fall over them.
pub(crate) fn text(message: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(message).map_err(|_| Malformed::Json("it is not UTF-8".to_owned()))
}

/// Where `part`, a slice of `whole`, stands in it.
///
/// `None` when it is no such slice, which only a caller's mistake can cause.
pub fn span(whole: &[u8], part: &RawValue) -> Option<Range<usize>> {
    let part = part.get().as_bytes();
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

/// Whether a raw JSON-RPC id is one that a request may carry: a string or an integer (MCP basic
/// protocol, "Requests": the id MUST NOT be null).
pub fn is_request_id(id: &RawValue) -> bool {
    let text = id.get();
    match text.as_bytes().first() {
        Some(b'"') => text.len() <= 1_024,
        Some(b'-' | b'0'..=b'9') => text.len() <= 24 && !text.contains(['.', 'e', 'E']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_are_slices_of_the_message() {
        let message = br#"{"jsonrpc":"2.0","id":"a\u0041","method":"tools/call","params":{"x":1}}"#;
        let envelope = Envelope::parse(message).unwrap();
        assert_eq!(envelope.kind(), Kind::Request);
        let range = span(message, envelope.params.unwrap()).unwrap();
        assert_eq!(&message[range], br#"{"x":1}"#);
        let range = span(message, envelope.id.unwrap()).unwrap();
        assert_eq!(&message[range], br#""a\u0041""#);
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |text: &str| Envelope::parse(text.as_bytes()).map(|envelope| envelope.kind());
        assert_eq!(kind(r#"{"method":"x"}"#), Ok(Kind::Notification));
        assert_eq!(kind(r#"{"id":1,"result":{}}"#), Ok(Kind::Response));
        assert_eq!(kind(r#"{"id":1}"#), Ok(Kind::Invalid));
        assert!(matches!(kind("[]"), Err(Malformed::Message(_))));
        assert!(matches!(kind("{"), Err(Malformed::Json(_))));
        assert!(matches!(
            kind(r#"{"id":1,"id":2}"#),
            Err(Malformed::Message(_))
        ));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_wherever_they_stand() {
        for message in [
            &b"{\"method\":\"x\",\"odd\":\"\xff\"}"[..],
            b"{\"method\":\"x\",\"params\":{\"a\":\"\xff\"}}",
            b"{\"method\":\"x\",\"\xff\":1}",
        ] {
            assert!(matches!(Envelope::parse(message), Err(Malformed::Json(_))));
        }
    }

    #[test]
    fn only_strings_and_integers_are_request_ids() {
        let ok = |text: &str| is_request_id(&RawValue::from_string(text.to_owned()).unwrap());
        assert!(ok("1") && ok("-5") && ok("\"x\""));
        assert!(!ok("null") && !ok("1.5") && !ok("1e3") && !ok("{}") && !ok("true"));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(envelope) = Envelope::parse(&bytes) {
                envelope.kind();
            }
        }
    }
}
