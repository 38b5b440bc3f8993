//! Results and errors between revisions. What needs no change is not touched.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::{
        HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, MISSING_CAPABILITY, RESOURCE_NOT_FOUND,
        UNSUPPORTED_VERSION,
    },
    meta,
    method::Method,
    revision::{Era, Revision},
};

/// A legacy result as a modern client reads it: it has a `resultType` and, where the revision asks
/// for them, cache hints, which say that nothing may be kept, since nobody promised anything.
pub fn result_to_modern<'a>(
    method: Method,
    result: &'a RawValue,
    server_info: Option<&RawValue>,
) -> Cow<'a, [u8]> {
    let members = meta::members(result.get()).unwrap_or_default();
    let has = |name: &str| members.iter().any(|(key, _)| key == name);
    let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(4);
    if !has("resultType") {
        set.push(("resultType", b"\"complete\""));
    }
    if is_cacheable(method) && !has("ttlMs") {
        set.push(("ttlMs", b"0"));
        set.push(("cacheScope", b"\"private\""));
    }
    let about = server_info.map(|info| {
        let old = members
            .iter()
            .find(|(key, _)| key == "_meta")
            .map(|(_, value)| *value);
        meta::rewrite(
            old,
            |_| false,
            &[(meta::SERVER_INFO, info.get().as_bytes())],
        )
    });
    if let Some(about) = &about {
        set.push(("_meta", about));
    }
    if set.is_empty() {
        return Cow::Borrowed(result.get().as_bytes());
    }
    Cow::Owned(meta::rewrite(Some(result), |_| false, &set))
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
pub fn result_to_legacy(method: Method, revision: Revision, result: &RawValue) -> Cow<'_, [u8]> {
    let members = meta::members(result.get()).unwrap_or_default();
    let structured = members.iter().find(|(key, _)| key == "structuredContent");
    let drops_structured = structured.is_some_and(|(_, value)| {
        revision < Revision::V2025_06_18 || !value.get().starts_with('{')
    });
    let too_new = |key: &str| match key {
        "resultType" | "ttlMs" | "cacheScope" => true,
        "structuredContent" => drops_structured,
        _ => false,
    };
    let about = members
        .iter()
        .find(|(key, value)| key == "_meta" && value.get().contains(meta::SERVER_INFO))
        .map(|(_, value)| meta::rewrite(Some(value), |key| key == meta::SERVER_INFO, &[]));
    let content = (method == Method::ToolsCall)
        .then(|| members.iter().find(|(key, _)| key == "content"))
        .flatten()
        .and_then(|(_, value)| content_for(revision, value));
    let mut set: Vec<(&str, &[u8])> = Vec::with_capacity(2);
    if let Some(content) = &content {
        set.push(("content", content));
    }
    let empty_meta = about.as_deref() == Some(b"{}");
    if let Some(about) = about.as_deref().filter(|_| !empty_meta) {
        set.push(("_meta", about));
    }
    let drops = members.iter().any(|(key, _)| too_new(key));
    if set.is_empty() && !drops && !empty_meta {
        return Cow::Borrowed(result.get().as_bytes());
    }
    let leave_out = |key: &str| too_new(key) || (empty_meta && key == "_meta");
    Cow::Owned(meta::rewrite(Some(result), leave_out, &set))
}

/// Content blocks that `revision` does not know, as text; `None` when there are none.
fn content_for(revision: Revision, content: &RawValue) -> Option<Vec<u8>> {
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
    let blocks: Vec<&RawValue> = serde_json::from_str(content.get()).ok()?;
    let mut changed = false;
    let mut out = vec![b'['];
    for block in blocks {
        let seen: Option<Block<'_>> = serde_json::from_str(block.get()).ok();
        let note = seen.and_then(|seen| match &*seen.kind {
            "resource_link" => Some(seen.uri.unwrap_or_default().into_owned()),
            "audio" if revision < Revision::V2025_03_26 => {
                Some("[audio, which this client's protocol revision cannot carry]".to_owned())
            }
            _ => None,
        });
        if out.len() > 1 {
            out.push(b',');
        }
        match note {
            None => out.extend_from_slice(block.get().as_bytes()),
            Some(note) => {
                changed = true;
                out.extend_from_slice(br#"{"type":"text","text":"#);
                meta::quote(&mut out, &note);
                out.push(b'}');
            }
        }
    }
    out.push(b']');
    changed.then_some(out)
}

/// An error object as a client of `revision` reads it: an unknown resource has another code in each
/// era, and the codes of 2026-07-28 mean nothing to older clients.
pub fn error(method: Method, revision: Revision, error: &RawValue) -> Cow<'_, [u8]> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i32,
        #[serde(borrow, default)]
        data: Option<&'a RawValue>,
    }
    let same = Cow::Borrowed(error.get().as_bytes());
    let Ok(seen) = serde_json::from_str::<Error<'_>>(error.get()) else {
        return same;
    };
    let names_uri = seen.data.is_some_and(|data| data.get().contains("\"uri\""));
    let code = match (revision.era(), seen.code) {
        (Era::Modern, RESOURCE_NOT_FOUND) => INVALID_PARAMS,
        (Era::Legacy, INVALID_PARAMS) if method == Method::ResourcesRead && names_uri => {
            RESOURCE_NOT_FOUND
        }
        (Era::Legacy, HEADER_MISMATCH | MISSING_CAPABILITY | UNSUPPORTED_VERSION) => {
            INVALID_REQUEST
        }
        _ => return same,
    };
    let code = code.to_string();
    Cow::Owned(meta::rewrite(
        Some(error),
        |_| false,
        &[("code", code.as_bytes())],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn legacy(revision: Revision, text: &str) -> String {
        let result = raw(text);
        String::from_utf8(result_to_legacy(Method::ToolsCall, revision, &result).to_vec()).unwrap()
    }

    #[test]
    fn a_modern_result_loses_only_what_legacy_clients_refuse() {
        let text = r#"{"content":[{"type":"text","text":"1.0","odd":1}],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"},"k":[1.0]}}"#;
        assert_eq!(
            legacy(Revision::V2025_11_25, text),
            r#"{"content":[{"type":"text","text":"1.0","odd":1}],"_meta":{"k":[1.0]}}"#
        );
        let only_ours = r#"{"content":[],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{}}}"#;
        assert_eq!(
            legacy(Revision::V2025_11_25, only_ours),
            r#"{"content":[]}"#
        );
    }

    #[test]
    fn old_clients_get_text_for_what_they_do_not_know() {
        let text = r#"{"content":[{"type":"resource_link","uri":"f:/x","name":"x"},{"type":"audio","data":"","mimeType":"a/b"}],"structuredContent":{"a":1}}"#;
        let old = legacy(Revision::V2024_11_05, text);
        assert!(old.starts_with(r#"{"content":[{"type":"text","text":"f:/x"},{"type":"text""#));
        assert!(!old.contains("structuredContent"));
        assert_eq!(legacy(Revision::V2025_06_18, text), text);
        assert!(
            !legacy(
                Revision::V2025_11_25,
                r#"{"content":[],"structuredContent":[1]}"#
            )
            .contains("structured")
        );
    }

    #[test]
    fn a_legacy_result_gets_what_modern_clients_need() {
        let result = raw(r#"{"contents":[]}"#);
        let modern = result_to_modern(Method::ResourcesRead, &result, None);
        assert_eq!(
            &*modern,
            br#"{"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}"#
        );
        let done = raw(r#"{"content":[],"resultType":"complete"}"#);
        assert!(matches!(
            result_to_modern(Method::ToolsCall, &done, None),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn errors_have_the_code_of_the_callers_era() {
        let code = |revision, text: &str| {
            let object = raw(text);
            let out = error(Method::ResourcesRead, revision, &object).into_owned();
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()["code"]
                .as_i64()
                .unwrap()
        };
        let missing = r#"{"code":-32002,"message":"x","data":{"uri":"a"}}"#;
        assert_eq!(code(Revision::V2026_07_28, missing), -32602);
        let modern = r#"{"code":-32602,"message":"x","data":{"uri":"a"}}"#;
        assert_eq!(code(Revision::V2025_06_18, modern), -32002);
        assert_eq!(
            code(Revision::V2025_06_18, r#"{"code":-32021,"message":"x"}"#),
            -32600
        );
        assert_eq!(
            code(Revision::V2025_06_18, r#"{"code":-32602,"message":"x"}"#),
            -32602
        );
    }
}
