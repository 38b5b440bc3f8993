//! Results and errors between revisions. What needs no change is not touched.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::{
        HEADER_MISMATCH, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, MISSING_CAPABILITY,
        RESOURCE_NOT_FOUND, UNSUPPORTED_VERSION, URL_ELICITATION_REQUIRED,
    },
    meta,
    method::Method,
    revision::{Era, Revision},
};

/// A legacy result as a modern client reads it: it has a `resultType`, the content that a tool's
/// result cannot be without and, where the revision asks for them, cache hints, which say that nothing
/// may be kept, since nobody promised anything.
pub fn result_to_modern<'a>(
    method: Method,
    result: &'a RawValue,
    server_info: Option<&RawValue>,
) -> Cow<'a, [u8]> {
    let members = meta::members(result.get()).unwrap_or_default();
    let find = |name: &str| find(&members, name);
    let kind = find("resultType");
    let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(5);
    if kind.is_none() {
        set.push(("resultType", b"\"complete\""));
    }
    // Neither a question nor a task is cacheable or has content.
    if kind.is_none_or(|kind| kind.get() == "\"complete\"") {
        if is_cacheable(method) && find("ttlMs").is_none() {
            set.push(("ttlMs", b"0"));
        }
        if is_cacheable(method) && find("cacheScope").is_none() {
            set.push(("cacheScope", b"\"private\""));
        }
        if method == Method::ToolsCall && find("content").is_none() {
            set.push(("content", b"[]"));
        }
    }
    let about = server_info.map(|info| {
        let info: &[(&str, &[u8])] = &[(meta::SERVER_INFO, info.get().as_bytes())];
        meta::rewrite(find("_meta"), |_| false, info)
    });
    if let Some(about) = &about {
        set.push(("_meta", about));
    }
    if set.is_empty() {
        return Cow::Borrowed(result.get().as_bytes());
    }
    Cow::Owned(meta::rewrite(Some(result), |_| false, &set))
}

/// The last member of that name, as JSON readers see it.
fn find<'a>(members: &[(Cow<'_, str>, &'a RawValue)], name: &str) -> Option<&'a RawValue> {
    let found = members.iter().rfind(|(key, _)| key == name);
    found.map(|(_, value)| *value)
}

const fn is_cacheable(method: Method) -> bool {
    matches!(
        method,
        Method::Discover
            | Method::ToolsList
            | Method::PromptsList
            | Method::ResourcesList
            | Method::TemplatesList
            | Method::ResourcesRead
    )
}

/// A result as a legacy client of `revision` reads it: without the members that came later.
///
/// Structured content that the revision cannot carry is left out; where nothing else says it, its JSON
/// becomes the text.
pub fn result_to_legacy(method: Method, revision: Revision, result: &RawValue) -> Cow<'_, [u8]> {
    let members = meta::members(result.get()).unwrap_or_default();
    let find = |name: &str| find(&members, name);
    let structured = find("structuredContent")
        .filter(|value| revision < Revision::V2025_06_18 || !value.get().starts_with('{'));
    let content = match method {
        Method::ToolsCall => {
            tool_content(revision, find("content"), structured).map(|content| ("content", content))
        }
        Method::PromptsGet => find("messages")
            .and_then(|messages| messages_for(revision, messages))
            .map(|messages| ("messages", messages)),
        _ => None,
    };
    let about = find("_meta")
        .filter(|value| value.get().contains(meta::SERVER_INFO))
        .map(|value| meta::rewrite(Some(value), |key| key == meta::SERVER_INFO, &[]));
    let drops = |key: &str| match key {
        "resultType" | "ttlMs" | "cacheScope" => true,
        "structuredContent" => structured.is_some(),
        "_meta" => about.as_deref() == Some(b"{}"),
        _ => false,
    };
    let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(2);
    if let Some((name, content)) = &content {
        set.push((name, content));
    }
    if let Some(about) = about.as_deref().filter(|_| !drops("_meta")) {
        set.push(("_meta", about));
    }
    if set.is_empty() && !members.iter().any(|(key, _)| drops(key)) {
        return Cow::Borrowed(result.get().as_bytes());
    }
    Cow::Owned(meta::rewrite(Some(result), drops, &set))
}

/// The content of a tool's result, where it has to change for `revision`.
fn tool_content(
    revision: Revision,
    content: Option<&RawValue>,
    dropped: Option<&RawValue>,
) -> Option<Vec<u8>> {
    if revision >= Revision::V2025_06_18 && dropped.is_none() {
        return None;
    }
    let blocks: Vec<&RawValue> = match content {
        Some(content) => serde_json::from_str(content.get()).ok()?,
        None => Vec::new(),
    };
    match dropped {
        Some(dropped) if blocks.is_empty() => {
            let mut out = vec![b'['];
            out.extend_from_slice(&text_block(dropped.get()));
            out.push(b']');
            Some(out)
        }
        _ => changed_array(&blocks, |block| block_for(revision, block)),
    }
}

/// The messages of a prompt, where they have to change for `revision`; each has one block.
fn messages_for(revision: Revision, messages: &RawValue) -> Option<Vec<u8>> {
    if revision >= Revision::V2025_06_18 {
        return None;
    }
    let messages: Vec<&RawValue> = serde_json::from_str(messages.get()).ok()?;
    changed_array(&messages, |message| {
        let members = meta::members(message.get())?;
        let block = block_for(revision, find(&members, "content")?)?;
        Some(meta::rewrite(
            Some(message),
            |_| false,
            &[("content", &block)],
        ))
    })
}

/// An array with some of its elements changed; `None` when none is.
fn changed_array(
    elements: &[&RawValue],
    change: impl Fn(&RawValue) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut changed = false;
    let mut out = vec![b'['];
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        if let Some(new) = change(element) {
            changed = true;
            out.extend_from_slice(&new);
        } else {
            out.extend_from_slice(element.get().as_bytes());
        }
    }
    out.push(b']');
    changed.then_some(out)
}

/// A content block that `revision` does not know, as text; `None` when it knows it.
fn block_for(revision: Revision, block: &RawValue) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Block<'a> {
        #[serde(borrow, rename = "type")]
        kind: Cow<'a, str>,
        #[serde(borrow, default)]
        uri: Option<Cow<'a, str>>,
    }
    if revision >= Revision::V2025_06_18 {
        return None;
    }
    let seen: Block<'_> = serde_json::from_str(block.get()).ok()?;
    match &*seen.kind {
        "resource_link" => Some(text_block(&seen.uri.unwrap_or_default())),
        "audio" if revision < Revision::V2025_03_26 => Some(text_block(
            "[audio, which this client's protocol revision cannot carry]",
        )),
        _ => None,
    }
}

fn text_block(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 32);
    out.extend_from_slice(br#"{"type":"text","text":"#);
    meta::quote(&mut out, text);
    out.push(b'}');
    out
}

/// An error object as a client of `revision` reads it: an unknown resource has another code in each
/// era, the codes of 2026-07-28 mean nothing to older clients, and 2026-07-28 forbids some of the older
/// ones (MCP 2026-07-28, Basic, "Error Codes"). What is no JSON-RPC error becomes one.
pub fn error(method: Method, revision: Revision, error: &RawValue) -> Cow<'_, [u8]> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i64,
        #[serde(rename = "message")]
        _message: Cow<'a, str>,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let same = Cow::Borrowed(error.get().as_bytes());
    let is_object = error.get().starts_with('{');
    let seen = is_object.then(|| serde_json::from_str::<Error<'_>>(error.get()).ok());
    let Some(seen) = seen.flatten() else {
        return Cow::Owned(odd_error(error));
    };
    let code = match (revision.era(), i32::try_from(seen.code)) {
        (Era::Modern, Ok(RESOURCE_NOT_FOUND)) => INVALID_PARAMS,
        (Era::Modern, _) if seen.code == i64::from(URL_ELICITATION_REQUIRED) => INTERNAL_ERROR,
        (Era::Legacy, Ok(INVALID_PARAMS))
            if method == Method::ResourcesRead && seen.data.is_some_and(names_uri) =>
        {
            RESOURCE_NOT_FOUND
        }
        (Era::Legacy, Ok(HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION)) => {
            INVALID_REQUEST
        }
        _ => return same,
    };
    let code = code.to_string();
    let code: &[(&str, &[u8])] = &[("code", code.as_bytes())];
    Cow::Owned(meta::rewrite(Some(error), |_| false, code))
}

/// Whether the data of an error say which resource it is about.
fn names_uri(data: &RawValue) -> bool {
    let members = meta::members(data.get()).unwrap_or_default();
    find(&members, "uri").is_some_and(|uri| uri.get().starts_with('"'))
}

/// An error object around something that a server sent in the place of one; its words are kept.
fn odd_error(error: &RawValue) -> Vec<u8> {
    let members = meta::members(error.get()).unwrap_or_default();
    let whole_number = |raw: &&RawValue| raw.get().parse::<i64>().is_ok();
    let code = find(&members, "code").filter(whole_number);
    let code = code.map_or_else(|| INTERNAL_ERROR.to_string(), |code| code.get().to_owned());
    let said = find(&members, "message").unwrap_or(error);
    let message = serde_json::from_str::<String>(said.get());
    let mut quoted = Vec::new();
    meta::quote(
        &mut quoted,
        message
            .as_deref()
            .unwrap_or("The server answered with an error that it did not explain"),
    );
    let set: &[(&str, &[u8])] = &[("code", code.as_bytes()), ("message", &quoted)];
    // An object keeps its other members; anything else is kept whole.
    let mut set = set.to_vec();
    if !error.get().starts_with('{') && message.is_err() {
        set.push(("data", error.get().as_bytes()));
    }
    meta::rewrite(Some(error), |_| false, &set)
}

#[cfg(test)]
mod tests;
