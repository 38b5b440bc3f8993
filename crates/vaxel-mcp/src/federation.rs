//! Lists of many servers as one: ready definitions, put together without being parsed again.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use vaxel_core::catalog::CacheHint;

use crate::{
    meta,
    revision::{Era, Revision},
};

/// What a list lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    /// `tools`
    Tools,
    /// `prompts`
    Prompts,
    /// `resources`
    Resources,
    /// `resourceTemplates`
    Templates,
}

impl ListKind {
    /// The member of the result that holds the entries.
    pub const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }
}

/// What a list result says besides its entries.
#[derive(Debug, Clone, Copy)]
pub struct ListPage<'a> {
    /// The caller's revision.
    pub revision: Revision,
    /// Where the list goes on; absent at its end.
    pub next_cursor: Option<&'a str>,
    /// What a modern client may do with it.
    pub cache: CacheHint,
    /// Who says so, for modern clients; an object.
    pub server_info: Option<&'a RawValue>,
}

/// The `result` of a list request.
pub fn list_result<'a>(
    kind: ListKind,
    items: impl Iterator<Item = &'a [u8]> + Clone,
    page: &ListPage<'_>,
) -> Bytes {
    let size: usize = items.clone().map(|item| item.len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(kind.member().as_bytes());
    out.extend_from_slice(b"\":[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item);
    }
    out.push(b']');
    if let Some(cursor) = page.next_cursor {
        let mut text = Vec::with_capacity(cursor.len() + 2);
        meta::quote(&mut text, cursor);
        meta::member(&mut out, "nextCursor", &text);
    }
    if page.revision.era() == Era::Modern {
        meta::member(&mut out, "resultType", b"\"complete\"");
        meta::member(&mut out, "ttlMs", page.cache.ttl_ms.to_string().as_bytes());
        let scope: &[u8] = if page.cache.is_public {
            b"\"public\""
        } else {
            b"\"private\""
        };
        meta::member(&mut out, "cacheScope", scope);
        if let Some(info) = page.server_info {
            let about = meta::rewrite(
                None,
                |_| false,
                &[(meta::SERVER_INFO, info.get().as_bytes())],
            );
            meta::member(&mut out, "_meta", &about);
        }
    }
    out.push(b'}');
    out.into()
}

/// Schemes that hosts act upon: what they name keeps them.
const KEPT_SCHEMES: [&str; 2] = ["ui", "skill"];
const SCHEME: &str = "vaxel";

/// The address of a resource (or a template of addresses) whose own is taken by another service:
/// `vaxel://SERVICE/URI`, or `ui://SERVICE+REST` for the schemes that hosts know.
pub fn prefixed_uri(service: &str, uri: &str) -> String {
    match uri.split_once("://") {
        Some((scheme, rest)) if KEPT_SCHEMES.contains(&scheme) => {
            format!("{scheme}://{service}+{rest}")
        }
        _ => format!("{SCHEME}://{service}/{uri}"),
    }
}

/// Service and own address of what [`prefixed_uri`] wrote. A server may have addresses of its own that
/// look so: known addresses are looked up first, and the service must be one that exists.
pub fn unprefixed_uri(uri: &str) -> Option<(&str, Cow<'_, str>)> {
    let (scheme, rest) = uri.split_once("://")?;
    if scheme == SCHEME {
        let (service, own) = rest.split_once('/')?;
        return Some((service, Cow::Borrowed(own)));
    }
    if !KEPT_SCHEMES.contains(&scheme) {
        return None;
    }
    let (service, own) = rest.split_once('+')?;
    Some((service, Cow::Owned(format!("{scheme}://{own}"))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_is_what_each_era_reads() {
        let items = [&b"{\"name\":\"a\"}"[..], b"{\"name\":\"b\"}"];
        let page = |revision| {
            let page = ListPage {
                revision,
                next_cursor: Some("x"),
                cache: CacheHint {
                    ttl_ms: 9,
                    is_public: false,
                },
                server_info: None,
            };
            let list = list_result(ListKind::Tools, items.iter().copied(), &page);
            String::from_utf8(list.to_vec()).unwrap()
        };
        let entries = r#"{"tools":[{"name":"a"},{"name":"b"}],"nextCursor":"x""#;
        assert_eq!(page(Revision::V2025_06_18), format!("{entries}}}"));
        let modern = r#","resultType":"complete","ttlMs":9,"cacheScope":"private"}"#;
        assert_eq!(page(Revision::V2026_07_28), format!("{entries}{modern}"));
    }
    #[test]
    fn an_empty_page_of_any_kind_is_a_list() {
        for kind in [
            ListKind::Tools,
            ListKind::Prompts,
            ListKind::Resources,
            ListKind::Templates,
        ] {
            let page = ListPage {
                revision: Revision::V2024_11_05,
                next_cursor: None,
                cache: CacheHint {
                    ttl_ms: 0,
                    is_public: true,
                },
                server_info: None,
            };
            let list = list_result(kind, std::iter::empty(), &page);
            assert_eq!(
                &list[..],
                format!(r#"{{"{}":[]}}"#, kind.member()).as_bytes()
            );
        }
    }

    #[test]
    fn taken_addresses_get_a_prefix_and_keep_the_schemes_that_hosts_know() {
        assert_eq!(
            prefixed_uri("a", "file:///x?y#z"),
            "vaxel://a/file:///x?y#z"
        );
        assert_eq!(prefixed_uri("a", "mailto:x"), "vaxel://a/mailto:x");
        assert_eq!(prefixed_uri("a-b_c", "ui://x/{y}"), "ui://a-b_c+x/{y}");
        assert_eq!(unprefixed_uri("file:///x"), None);
        assert_eq!(unprefixed_uri("ui://x"), None);
        assert_eq!(unprefixed_uri("vaxel://x"), None);
    }

    proptest! {
        #[test]
        fn prefixes_come_off_again(service in "[a-z0-9]([a-z0-9_-]{0,30}[a-z0-9])?", uri in "((ui|skill|vaxel|file)://)?.{0,40}") {
            let prefixed = prefixed_uri(&service, &uri);
            prop_assert_eq!(unprefixed_uri(&prefixed), Some((&*service, Cow::Borrowed(&*uri))));
            prop_assert_ne!(prefixed, uri);
        }

        #[test]
        fn hostile_addresses_never_panic(uri in ".{0,40}") {
            if let Some((service, own)) = unprefixed_uri(&uri) {
                prop_assert_eq!(prefixed_uri(service, &own).len(), uri.len());
            }
        }

        #[test]
        fn every_page_is_valid_json_with_its_entries_in_order(
            names in proptest::collection::vec(".{0,10}", 0..6),
            cursor in proptest::option::of(".{0,20}"),
            revision in prop::sample::select(Revision::ALL.to_vec()),
        ) {
            let items: Vec<Vec<u8>> =
                names.iter().map(|name| serde_json::to_vec(&serde_json::json!({"name": name})).unwrap()).collect();
            let info = RawValue::from_string(r#"{"name":"v"}"#.to_owned()).unwrap();
            let page = ListPage {
                revision,
                next_cursor: cursor.as_deref(),
                cache: CacheHint { ttl_ms: 7, is_public: false },
                server_info: Some(&info),
            };
            let list = list_result(ListKind::Tools, items.iter().map(Vec::as_slice), &page);
            let seen: serde_json::Value = serde_json::from_slice(&list).unwrap();
            let listed: Vec<&str> =
                seen["tools"].as_array().unwrap().iter().filter_map(|tool| tool["name"].as_str()).collect();
            prop_assert_eq!(listed, names);
            prop_assert_eq!(seen["nextCursor"].as_str(), cursor.as_deref());
            let is_modern = revision.era() == Era::Modern;
            prop_assert_eq!(seen["ttlMs"].as_u64(), is_modern.then_some(7));
            prop_assert_eq!(seen.get("_meta").is_some(), is_modern);
        }
    }
}
