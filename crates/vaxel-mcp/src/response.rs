//! One answer of an upstream: the bytes as they came, and what a gateway has to know of them.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::{
    envelope::{Malformed, span, text},
    meta,
    splice::Splice,
};

/// An answer to one request.
#[derive(Debug, Clone)]
pub struct Response {
    body: Bytes,
    id: Option<Range<usize>>,
    /// How it came out.
    pub verdict: Verdict,
}

/// How a request came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A result.
    Complete,
    /// A result that the tool marked as an error.
    ToolError,
    /// The server needs input from the client first (2026-07-28).
    InputRequired,
    /// A task was begun, whose result is asked for later (SEP-2663).
    Task,
    /// A JSON-RPC error.
    Error,
}

/// An envelope that looks just as deep as the verdict needs.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<IgnoredAny>,
    #[serde(borrow)]
    result: Option<ResultPeek<'a>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ResultPeek<'a> {
    #[serde(default, rename = "isError")]
    is_error: Option<bool>,
    #[serde(borrow, default, rename = "resultType")]
    result_type: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Response {
    /// Reads an answer in one pass.
    pub fn read(body: Bytes) -> Result<Self, Malformed> {
        let (id, verdict) = Peek::of(&body)?.verdict(&body)?;
        Ok(Self { body, id, verdict })
    }

    /// Reads a message in one pass, if it is an answer that can be read.
    pub fn if_answer(message: &Bytes) -> Option<Self> {
        let peek = Peek::of(message).ok()?;
        if peek.method.is_some() {
            return None;
        }
        let (id, verdict) = peek.verdict(message).ok()?;
        let body = message.clone();
        Some(Self { body, id, verdict })
    }

    /// The whole message.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The id, raw; empty when the answer has none.
    pub fn id(&self) -> &[u8] {
        self.id.clone().map_or(&[], |range| &self.body[range])
    }

    /// `result` or `error`, raw.
    pub fn payload(&self) -> Result<&RawValue, &RawValue> {
        let payload: Option<Payload<'_>> = serde_json::from_slice(&self.body).ok();
        match payload {
            Some(Payload {
                error: Some(error), ..
            }) => Err(error),
            Some(Payload {
                result: Some(result),
                ..
            }) => Ok(result),
            _ => Err(RawValue::NULL),
        }
    }

    /// The message with `id` in the place of its own; the same bytes when they are equal.
    pub fn with_id(&self, id: &[u8]) -> Bytes {
        let Some(range) = self.id.clone() else {
            return self.body.clone();
        };
        if &self.body[range.clone()] == id {
            return self.body.clone();
        }
        let mut splice = Splice::new(&self.body);
        splice.replace(range, id);
        splice.apply()
    }
}

impl<'a> Peek<'a> {
    fn of(body: &'a [u8]) -> Result<Self, Malformed> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(Malformed::Message("expected one object"));
        }
        serde_json::from_str(text(body)?).map_err(|error| Malformed::Json(error.to_string()))
    }

    /// Where its id stands, and how it came out.
    fn verdict(&self, body: &[u8]) -> Result<(Option<Range<usize>>, Verdict), Malformed> {
        let verdict = match (&self.result, self.error) {
            (_, Some(_)) => Verdict::Error,
            (Some(result), None) => result.verdict(),
            (None, None) => return Err(Malformed::Message("neither result nor error")),
        };
        Ok((self.id.and_then(|id| span(body, id)), verdict))
    }
}

impl ResultPeek<'_> {
    fn verdict(&self) -> Verdict {
        match self.result_type.as_deref() {
            Some("input_required") => Verdict::InputRequired,
            Some("task") => Verdict::Task,
            _ if self.is_error == Some(true) => Verdict::ToolError,
            _ => Verdict::Complete,
        }
    }
}

/// `{"jsonrpc":"2.0","id":…,"result":…}`
pub fn result(id: &[u8], result: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(id.len() + result.len() + 40);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id);
    out.extend_from_slice(br#","result":"#);
    out.extend_from_slice(result);
    out.push(b'}');
    out.into()
}

/// `{"jsonrpc":"2.0","id":…,"error":…}` around a ready error object; `id` may be empty when the
/// request's could not be read.
pub fn error_object(id: &[u8], error: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(id.len() + error.len() + 40);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(if id.is_empty() { b"null" } else { id });
    out.extend_from_slice(br#","error":"#);
    out.extend_from_slice(error);
    out.push(b'}');
    out.into()
}

/// A JSON-RPC error answer; `data` is raw JSON.
pub fn error(id: &[u8], code: i32, message: &str, data: Option<&[u8]>) -> Bytes {
    let mut object = Vec::with_capacity(message.len() + 64);
    object.push(b'{');
    meta::member(&mut object, "code", code.to_string().as_bytes());
    let mut text = Vec::with_capacity(message.len() + 2);
    meta::quote(&mut text, message);
    meta::member(&mut object, "message", &text);
    if let Some(data) = data {
        meta::member(&mut object, "data", data);
    }
    object.push(b'}');
    error_object(id, &object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Response {
        Response::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn verdicts_are_read_from_the_surface() {
        let verdict = |text: &str| read(text).verdict;
        assert_eq!(
            verdict(r#"{"id":1,"result":{"content":[]}}"#),
            Verdict::Complete
        );
        assert_eq!(
            verdict(r#"{"id":1,"result":{"isError":true}}"#),
            Verdict::ToolError
        );
        assert_eq!(
            verdict(r#"{"id":1,"error":{"code":1,"message":"x"}}"#),
            Verdict::Error
        );
        assert_eq!(
            verdict(r#"{"id":1,"result":{"resultType":"input_required"}}"#),
            Verdict::InputRequired
        );
        assert!(Response::read(Bytes::from_static(b"{\"id\":1}")).is_err());
        let question = Bytes::from_static(br#"{"id":1,"method":"x","result":{}}"#);
        assert!(Response::if_answer(&question).is_none());
        let no_text = b"{\"id\":1,\"result\":{\"text\":\"\xff\"}}";
        assert!(Response::read(Bytes::from_static(no_text)).is_err());
    }

    #[test]
    fn the_callers_id_comes_back_and_the_rest_stays() {
        let response = read(r#"{"id": 12 ,"result":{"x":1.0}}"#);
        assert_eq!(
            &response.with_id(b"\"me\"")[..],
            br#"{"id": "me" ,"result":{"x":1.0}}"#
        );
        assert_eq!(response.with_id(b"12").as_ptr(), response.body().as_ptr());
        assert_eq!(response.payload().unwrap().get(), r#"{"x":1.0}"#);
    }

    #[test]
    fn an_error_answer_is_valid_json() {
        let body = error(b"1", -32602, "no \"tool\"", Some(b"{\"a\":1}"));
        assert_eq!(
            &body[..],
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no \"tool\"","data":{"a":1}}}"#
        );
        assert!(error(b"", -32700, "x", None).starts_with(br#"{"jsonrpc":"2.0","id":null,"#));
    }
}
