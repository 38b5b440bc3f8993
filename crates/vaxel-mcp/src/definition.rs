//! Definitions of tools, prompts, resources and templates, kept as their server wrote them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    envelope::span,
    meta,
    method::Method,
    revision::{Era, Revision},
    splice::Splice,
};

/// One page of a list, as a server sent it.
#[derive(Debug)]
pub struct Page {
    /// Name, URI or URI template, and the definition.
    pub items: Vec<(String, Box<RawValue>)>,
    /// Where the list goes on; absent at its end.
    pub next_cursor: Option<String>,
}

/// Why a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPage {
    /// The result has not the shape of a list.
    #[error("it is not a list result: {0}")]
    Shape(String),
    /// An entry has nothing to be addressed by.
    #[error("its entry number {0} has no `{1}`")]
    Nameless(usize, &'static str),
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    tools: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    resources: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "resourceTemplates")]
    templates: Vec<&'a RawValue>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
    #[serde(default, rename = "uriTemplate")]
    template: Option<String>,
}

impl Page {
    /// Reads the result of a list request.
    pub fn read(method: Method, result: &RawValue) -> Result<Self, InvalidPage> {
        if !result.get().starts_with('{') {
            return Err(InvalidPage::Shape("it is no object".to_owned()));
        }
        let page: RawPage<'_> = serde_json::from_str(result.get())
            .map_err(|error| InvalidPage::Shape(error.to_string()))?;
        let (entries, member) = match method {
            Method::PromptsList => (page.prompts, "name"),
            Method::ResourcesList => (page.resources, "uri"),
            Method::TemplatesList => (page.templates, "uriTemplate"),
            _ => (page.tools, "name"),
        };
        let mut items = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let address: Option<Address> = serde_json::from_str(entry.get()).ok();
            let key = address.and_then(|address| match member {
                "uri" => address.uri,
                "uriTemplate" => address.template,
                _ => address.name,
            });
            let key = key.ok_or(InvalidPage::Nameless(index, member))?;
            items.push((key, entry.to_owned()));
        }
        Ok(Self {
            items,
            next_cursor: page.next_cursor,
        })
    }
}

/// What people and searches read of a definition.
#[derive(Debug, Default, Deserialize)]
pub struct Summary<'a> {
    /// Display name.
    #[serde(borrow, default)]
    pub title: Option<Cow<'a, str>>,
    /// For people and models.
    #[serde(borrow, default)]
    pub description: Option<Cow<'a, str>>,
}

/// Title and description of a definition.
pub fn summary(definition: &RawValue) -> Summary<'_> {
    serde_json::from_str(definition.get()).unwrap_or_default()
}

/// The definition under another name; everything else stays byte for byte. `full` is written into
/// `_meta` when the name had to be altered.
pub fn renamed(definition: &RawValue, name: &str, full: Option<&str>) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        name: &'a RawValue,
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    let text = definition.get().as_bytes();
    let named: Option<Named<'_>> = serde_json::from_slice(text).ok();
    let place = named.as_ref().and_then(|named| span(text, named.name));
    let (Some(named), Some(place)) = (named, place) else {
        return text.to_vec();
    };
    let mut quoted = Vec::with_capacity(name.len() + 2);
    meta::quote(&mut quoted, name);
    let mut about = Vec::new();
    let mut splice = Splice::new(text);
    splice.replace(place.clone(), &quoted);
    if let Some(full) = full {
        let mut text_of_full = Vec::new();
        meta::quote(&mut text_of_full, full);
        about = meta::rewrite(named.meta, |_| false, &[(meta::FULL_NAME, &text_of_full)]);
    }
    if !about.is_empty() {
        if let Some(old) = named.meta.and_then(|old| span(text, old)) {
            splice.replace(old, &about);
        } else {
            about.splice(0..0, br#","_meta":"#.iter().copied());
            splice.replace(place.end..place.end, &about);
        }
    }
    splice.apply().to_vec()
}

/// The definition as a client of `revision` may read it: an output schema that is no object schema
/// exists only since 2026-07-28, `execution` only in 2025-11-25.
pub fn for_revision(definition: &[u8], revision: Revision) -> Cow<'_, [u8]> {
    let contains = |needle: &[u8]| memchr::memmem::find(definition, needle).is_some();
    let drops_schema = revision.era() == Era::Legacy
        && contains(b"\"outputSchema\"")
        && !has_object_output(definition);
    let drops_execution = revision != Revision::V2025_11_25 && contains(b"\"execution\"");
    if !drops_schema && !drops_execution {
        return Cow::Borrowed(definition);
    }
    let raw: Option<&RawValue> = serde_json::from_slice(definition).ok();
    Cow::Owned(meta::rewrite(
        raw,
        |key| (drops_schema && key == "outputSchema") || (drops_execution && key == "execution"),
        &[],
    ))
}

fn has_object_output(definition: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Tool {
        #[serde(default, rename = "outputSchema")]
        output: Option<Schema>,
    }
    #[derive(Deserialize)]
    struct Schema {
        #[serde(default, rename = "type")]
        kind: serde_json::Value,
    }
    serde_json::from_slice::<Tool>(definition)
        .is_ok_and(|tool| tool.output.is_none_or(|schema| schema.kind == "object"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_page_keeps_definitions_as_they_came() {
        let result = raw(r#"{"tools":[{"name":"a", "odd": 1.0}],"nextCursor":"n"}"#);
        let page = Page::read(Method::ToolsList, &result).unwrap();
        assert_eq!(page.items[0].0, "a");
        assert_eq!(page.items[0].1.get(), r#"{"name":"a", "odd": 1.0}"#);
        assert_eq!(page.next_cursor.as_deref(), Some("n"));
        let nameless = Page::read(Method::ToolsList, &raw(r#"{"tools":[{}]}"#));
        assert_eq!(nameless.unwrap_err(), InvalidPage::Nameless(0, "name"));
        assert!(Page::read(Method::ToolsList, &raw("[]")).is_err());
    }

    #[test]
    fn only_the_name_changes() {
        let tool = raw(r#"{"inputSchema":{"name":"x"}, "name" : "b","_meta":{"k":1}}"#);
        assert_eq!(
            text(&renamed(&tool, "a__b", None)),
            r#"{"inputSchema":{"name":"x"}, "name" : "a__b","_meta":{"k":1}}"#
        );
        assert_eq!(
            text(&renamed(&tool, "a__b", Some("a__b.c"))),
            r#"{"inputSchema":{"name":"x"}, "name" : "a__b","_meta":{"k":1,"dev.vaxel/fullName":"a__b.c"}}"#
        );
        assert_eq!(
            text(&renamed(&raw(r#"{"name":"b"}"#), "c", Some("f"))),
            r#"{"name":"c","_meta":{"dev.vaxel/fullName":"f"}}"#
        );
    }

    #[test]
    fn older_clients_are_spared_what_they_cannot_read() {
        let odd = br#"{"name":"a","outputSchema":{"type":"array"},"execution":{"taskSupport":"optional"}}"#;
        assert_eq!(
            text(&for_revision(odd, Revision::V2025_06_18)),
            r#"{"name":"a"}"#
        );
        assert!(text(&for_revision(odd, Revision::V2026_07_28)).contains("outputSchema"));
        let plain = br#"{"name":"a","outputSchema":{"type":"object"}}"#;
        assert!(matches!(
            for_revision(plain, Revision::V2024_11_05),
            Cow::Borrowed(_)
        ));
    }
}
