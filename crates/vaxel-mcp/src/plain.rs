//! What a service answers that speaks HTTP and no MCP, as the result of a tool (MCP 2026-07-28, Tools,
//! "Tool Result").
//!
//! The bytes of JSON answers stay as they came: they become structured content, and text beside it.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::meta;

/// Longest sentence of a service that is passed on, characters.
const SAID: usize = 2_000;

/// The body of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    /// `Content-Type`, when there is one.
    pub content_type: Option<&'a str>,
    /// As it came.
    pub body: &'a [u8],
}

/// It says that it is JSON, and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it says that it is JSON, and is not")]
pub struct NotJson;

/// What kind of body it is.
enum Kind<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
    /// `image` or `audio`.
    Media(&'static str),
    Other,
}

impl Plain<'_> {
    /// The result of a tool that answered this. What already is one passes as it is; an object becomes
    /// structured content with the same JSON as text, other JSON and text become text, images and audio
    /// blocks of their kind, and anything else a resource under `uri`.
    ///
    /// # Errors
    /// [`NotJson`].
    pub fn result(&self, uri: &str) -> Result<Vec<u8>, NotJson> {
        if self.body.trim_ascii().is_empty() {
            return Ok(complete(&[], None));
        }
        Ok(match self.kind()? {
            Kind::Json(json) if is_result(json) => {
                meta::rewrite(Some(json), is_result_type, &[("resultType", COMPLETE)])
            }
            Kind::Json(json) => match json.get().as_bytes().first() {
                Some(b'{') => complete(&text(json.get()), Some(json)),
                _ => complete(&text(&plain_text(json)), None),
            },
            Kind::Text(said) => complete(&text(&said), None),
            Kind::Media(kind) => complete(&self.media(kind), None),
            Kind::Other => complete(&self.resource(uri), None),
        })
    }

    /// What a service says about why it refuses or fails: the detail of a problem (RFC 9457), what
    /// frameworks say in its place, or a plain text. `None` when it says nothing that a person reads.
    pub fn reason(&self) -> Option<String> {
        let said = match self.kind().ok()? {
            Kind::Json(json) => explained(json, true)?,
            Kind::Text(said) if self.mime() == "text/plain" => said.into_owned(),
            Kind::Text(_) | Kind::Media(_) | Kind::Other => return None,
        };
        let said = said.trim();
        (!said.is_empty()).then(|| said.chars().take(SAID).collect())
    }

    fn kind(&self) -> Result<Kind<'_>, NotJson> {
        let mime = self.mime();
        let json = || {
            let text = std::str::from_utf8(self.body).ok()?;
            serde_json::from_str::<&RawValue>(text).ok()
        };
        if is_json(&mime) {
            return json().map(Kind::Json).ok_or(NotJson);
        }
        if self.content_type.is_none() {
            let plain = || std::str::from_utf8(self.body).ok().map(Cow::Borrowed);
            let found = json().map(Kind::Json).or_else(|| plain().map(Kind::Text));
            return Ok(found.unwrap_or(Kind::Other));
        }
        Ok(match mime.split('/').next() {
            Some("text") => Kind::Text(String::from_utf8_lossy(self.body)),
            Some("image") => Kind::Media("image"),
            Some("audio") => Kind::Media("audio"),
            _ => Kind::Other,
        })
    }

    /// The media type alone, in lower case.
    fn mime(&self) -> String {
        let whole = self.content_type.unwrap_or_default();
        let mime = whole.split(';').next().unwrap_or_default();
        mime.trim().to_ascii_lowercase()
    }

    fn media(&self, kind: &str) -> Vec<u8> {
        let mut block = block(kind);
        member(&mut block, "data", &STANDARD.encode(self.body));
        member(&mut block, "mimeType", &self.mime());
        block.push(b'}');
        block
    }

    fn resource(&self, uri: &str) -> Vec<u8> {
        let mut resource = vec![b'{'];
        member(&mut resource, "uri", uri);
        if self.content_type.is_some() {
            member(&mut resource, "mimeType", &self.mime());
        }
        match std::str::from_utf8(self.body) {
            Ok(text) => member(&mut resource, "text", text),
            Err(_) => member(&mut resource, "blob", &STANDARD.encode(self.body)),
        }
        resource.push(b'}');
        let mut block = block("resource");
        meta::member(&mut block, "resource", &resource);
        block.push(b'}');
        block
    }
}

/// The result of a tool that failed, with a sentence for the model.
pub fn failed(sentence: &str) -> Vec<u8> {
    let mut result = complete(&text(sentence), None);
    result.pop();
    meta::member(&mut result, "isError", b"true");
    result.push(b'}');
    result
}

const COMPLETE: &[u8] = b"\"complete\"";

fn is_result_type(name: &str) -> bool {
    name == "resultType"
}

/// A result of this one block, or of none.
fn complete(block: &[u8], structured: Option<&RawValue>) -> Vec<u8> {
    let extra = structured.map_or(0, |json| json.get().len());
    let mut result = Vec::with_capacity(block.len() + extra + 80);
    result.push(b'{');
    meta::member(&mut result, "resultType", COMPLETE);
    meta::member(&mut result, "content", &[b"[", block, b"]"].concat());
    if let Some(json) = structured {
        meta::member(&mut result, "structuredContent", json.get().as_bytes());
    }
    result.push(b'}');
    result
}

fn text(text: &str) -> Vec<u8> {
    let mut block = block("text");
    member(&mut block, "text", text);
    block.push(b'}');
    block
}

/// A content block that is not closed yet.
fn block(kind: &str) -> Vec<u8> {
    let mut block = vec![b'{'];
    member(&mut block, "type", kind);
    block
}

fn member(out: &mut Vec<u8>, key: &str, value: &str) {
    let mut quoted = Vec::with_capacity(value.len() + 2);
    meta::quote(&mut quoted, value);
    meta::member(out, key, &quoted);
}

/// JSON that is no object, as text: a string is what it says.
fn plain_text(json: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(json.get()) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed(json.get()),
    }
}

fn is_json(mime: &str) -> bool {
    matches!(mime, "application/json" | "text/json") || mime.ends_with("+json")
}

#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    content: Vec<Block<'a>>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default)]
    uri: Option<&'a RawValue>,
}

/// Whether an object already is the result of a tool: every entry of its content is a block that MCP
/// knows.
fn is_result(json: &RawValue) -> bool {
    let begins = |value: Option<&RawValue>, with: char| {
        value.is_some_and(|value| value.get().starts_with(with))
    };
    let is_block = |block: &Block<'_>| match &*block.kind {
        "text" => begins(block.text, '"'),
        "image" | "audio" => begins(block.data, '"'),
        "resource" => begins(block.resource, '{'),
        "resource_link" => begins(block.uri, '"'),
        _ => false,
    };
    // serde would read an array as a struct, member by member.
    json.get().starts_with('{')
        && serde_json::from_str::<Shape<'_>>(json.get())
            .is_ok_and(|shape| !shape.content.is_empty() && shape.content.iter().all(is_block))
}

/// What an object says in words: `detail` of RFC 9457 (a list of problems with some frameworks), or
/// what else stands in its place; `deeper` also one object further in.
fn explained(json: &RawValue, deeper: bool) -> Option<String> {
    let members = meta::members(json.get())?;
    ["detail", "message", "error", "error_description", "title"]
        .into_iter()
        .filter_map(|name| members.iter().find(|(key, _)| key == name))
        .find_map(|(_, value)| in_words(value, deeper))
}

fn in_words(value: &RawValue, deeper: bool) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'[' => {
            let all: Vec<Problem<'_>> = serde_json::from_str(value.get()).ok()?;
            let all: Vec<String> = all.iter().filter_map(Problem::in_words).collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        b'{' if deeper => explained(value, false),
        _ => None,
    }
}

/// One of several problems, as `FastAPI` and problems of RFC 9457 with an `errors` member have them.
#[derive(Deserialize)]
struct Problem<'a> {
    #[serde(borrow, default)]
    loc: Vec<&'a RawValue>,
    #[serde(borrow, default, alias = "detail", alias = "message")]
    msg: Option<Cow<'a, str>>,
}

impl Problem<'_> {
    fn in_words(&self) -> Option<String> {
        let said = self.msg.as_deref()?;
        let place = self.loc.iter().map(|step| plain_text(step));
        let place: Vec<Cow<'_, str>> = place.collect();
        if place.is_empty() {
            return Some(said.to_owned());
        }
        Some(format!("{}: {said}", place.join(".")))
    }
}

#[cfg(test)]
mod tests;
