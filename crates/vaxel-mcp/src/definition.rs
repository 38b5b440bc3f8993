//! Definitions of tools, prompts, resources and templates, kept as their server wrote them.

use std::{borrow::Cow, ops::Range};

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
    /// How long the page may be kept, milliseconds; absent when the server promised nothing.
    pub ttl_ms: Option<u64>,
    /// Every caller gets this page, whoever asks (`cacheScope` is `public`).
    pub is_public: bool,
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

/// Some servers write an empty list as null.
#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow, default)]
    tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    prompts: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default)]
    resources: Option<Vec<&'a RawValue>>,
    #[serde(borrow, default, rename = "resourceTemplates")]
    templates: Option<Vec<&'a RawValue>>,
    #[serde(default, rename = "nextCursor")]
    next_cursor: Option<String>,
    #[serde(borrow, default, rename = "ttlMs")]
    ttl_ms: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "cacheScope")]
    cache_scope: Option<&'a RawValue>,
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
        let entries = entries.unwrap_or_default();
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
            // A hint that cannot be read promises nothing.
            ttl_ms: page.ttl_ms.and_then(|ttl| ttl.get().parse().ok()),
            is_public: page
                .cache_scope
                .is_some_and(|scope| scope.get() == "\"public\""),
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
    let text = definition.get().as_bytes();
    let members = meta::members(definition.get()).unwrap_or_default();
    let mut quoted = Vec::with_capacity(name.len() + 2);
    meta::quote(&mut quoted, name);
    let mut about = full.map(|full| {
        let mut value = Vec::with_capacity(full.len() + 2);
        meta::quote(&mut value, full);
        let old = members.iter().rfind(|(key, _)| key == "_meta");
        meta::rewrite(
            old.map(|(_, old)| *old),
            |_| false,
            &[(meta::FULL_NAME, &value)],
        )
    });
    let mut splice = Splice::new(text);
    let mut end = None;
    for place in places(text, &members, "name") {
        end = Some(place.end);
        splice.replace(place, &quoted);
    }
    if let (Some(about), Some(end)) = (&mut about, end) {
        let mut olds = places(text, &members, "_meta").peekable();
        if olds.peek().is_none() {
            about.splice(0..0, br#","_meta":"#.iter().copied());
            splice.replace(end..end, about);
        } else {
            olds.for_each(|old| splice.replace(old, about));
        }
    }
    splice.apply().to_vec()
}

/// A resource or template under another address; everything else stays byte for byte.
pub fn readdressed(definition: &RawValue, method: Method, address: &str) -> Vec<u8> {
    let member = match method {
        Method::TemplatesList => "uriTemplate",
        _ => "uri",
    };
    let text = definition.get().as_bytes();
    let members = meta::members(definition.get()).unwrap_or_default();
    let mut quoted = Vec::with_capacity(address.len() + 2);
    meta::quote(&mut quoted, address);
    let mut splice = Splice::new(text);
    for place in places(text, &members, member) {
        splice.replace(place, &quoted);
    }
    splice.apply().to_vec()
}

/// Where the values of all members of that name stand: JSON readers do not agree on which counts.
fn places<'a>(
    text: &'a [u8],
    members: &'a [(Cow<'_, str>, &'a RawValue)],
    name: &'a str,
) -> impl Iterator<Item = Range<usize>> + 'a {
    let named = members.iter().filter(move |(key, _)| key == name);
    named.filter_map(move |(_, value)| span(text, value))
}

/// The definition as a client of `revision` may read it. `execution` exists only in 2025-11-25. An
/// output schema is left out where the structured content that it promises is left out too: before
/// 2025-06-18, and in the legacy era when it describes something else than objects. Clients refuse
/// results that lack what was promised.
pub fn for_revision(definition: &[u8], revision: Revision) -> Cow<'_, [u8]> {
    let contains = |needle: &[u8]| memchr::memmem::find(definition, needle).is_some();
    let drops_schema = revision.era() == Era::Legacy
        && contains(b"\"outputSchema\"")
        && (revision < Revision::V2025_06_18 || !has_object_output(definition));
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
    use proptest::prelude::*;

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
            for_revision(plain, Revision::V2025_06_18),
            Cow::Borrowed(_)
        ));
        for revision in [Revision::V2024_11_05, Revision::V2025_03_26] {
            assert_eq!(text(&for_revision(plain, revision)), r#"{"name":"a"}"#);
        }
        let named =
            br#"{"name":"execution","description":"\"execution\"","inputSchema":{"execution":1}}"#;
        assert_eq!(
            text(&for_revision(named, Revision::LATEST)).len(),
            named.len()
        );
    }
    #[test]
    fn pages_of_every_list_are_read_with_their_hints() {
        for (method, member, address) in [
            (Method::ToolsList, "tools", "name"),
            (Method::PromptsList, "prompts", "name"),
            (Method::ResourcesList, "resources", "uri"),
            (Method::TemplatesList, "resourceTemplates", "uriTemplate"),
        ] {
            let result = raw(&format!(
                r#"{{"{member}":[{{"{address}":"a\u0062"}}],"ttlMs":5,"cacheScope":"public"}}"#
            ));
            let page = Page::read(method, &result).unwrap();
            assert_eq!(page.items[0].0, "ab");
            assert_eq!((page.ttl_ms, page.is_public), (Some(5), true));
            let empty = raw(&format!(r#"{{"{member}":null,"ttlMs":-1,"cacheScope":7}}"#));
            let page = Page::read(method, &empty).unwrap();
            assert_eq!(
                (page.items.len(), page.ttl_ms, page.is_public),
                (0, None, false)
            );
        }
    }

    #[test]
    fn odd_definitions_are_renamed_whole() {
        let renamed = |tool: &str| String::from_utf8(renamed(&raw(tool), "n", Some("f"))).unwrap();
        let about = r#"{"dev.vaxel/fullName":"f"}"#;
        assert_eq!(
            renamed(r#"{"name":"b","_meta":null}"#),
            format!(r#"{{"name":"n","_meta":{about}}}"#)
        );
        assert_eq!(
            renamed(r#"{"_meta":7,"name":"b","name":"c"}"#),
            format!(r#"{{"_meta":{about},"name":"n","name":"n"}}"#)
        );
        assert_eq!(renamed("[1]"), "[1]");
    }

    #[test]
    fn only_the_address_changes() {
        let resource = raw(r#"{"name":"uri", "uri" : "file:///a","_meta":{"uri":"x"}}"#);
        assert_eq!(
            text(&readdressed(
                &resource,
                Method::ResourcesList,
                "vaxel://s/file:///a"
            )),
            r#"{"name":"uri", "uri" : "vaxel://s/file:///a","_meta":{"uri":"x"}}"#
        );
        let template = raw(r#"{"uriTemplate":"f:/{x}","uri":"u"}"#);
        assert_eq!(
            text(&readdressed(&template, Method::TemplatesList, "\"")),
            r#"{"uriTemplate":"\"","uri":"u"}"#
        );
    }

    proptest! {
        #[test]
        fn hostile_pages_and_definitions_never_panic(
            text in r#"(\{|\[|\}|\]|"(name|tools|_meta|outputSchema|execution|nextCursor)"|:|,|1|null| ){0,20}"#,
            name in ".{0,20}",
        ) {
            let whole = format!(r#"{{"tools":[{{"name":"x"}},{text}]}}"#);
            for text in [&*text, &whole] {
                for_revision(text.as_bytes(), Revision::V2025_06_18);
                if let Ok(raw) = RawValue::from_string(text.to_owned()) {
                    // Only that it returns is of interest here.
                    let _ = Page::read(Method::ToolsList, &raw);
                    renamed(&raw, &name, Some(&name));
                    readdressed(&raw, Method::ResourcesList, &name);
                }
            }
        }

        #[test]
        fn a_renamed_definition_is_the_same_but_for_its_name(
            name in ".{0,20}",
            full in proptest::option::of(".{0,20}"),
            before in any::<bool>(),
            value in -1e9..1e9_f64,
        ) {
            let rest = format!(r#""k": {value:?} ,"d":"\u0061\n""#);
            let tool = if before {
                format!(r#"{{{rest},"name":"x"}}"#)
            } else {
                format!(r#"{{"name":"x",{rest}}}"#)
            };
            let out = String::from_utf8(renamed(&raw(&tool), &name, full.as_deref())).unwrap();
            prop_assert!(out.contains(&rest));
            let seen: serde_json::Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(seen["name"].as_str(), Some(&*name));
            prop_assert_eq!(seen["_meta"]["dev.vaxel/fullName"].as_str(), full.as_deref());
        }
    }
}
