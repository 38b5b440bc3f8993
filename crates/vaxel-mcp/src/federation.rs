//! Lists of many servers as one: ready definitions, put together without being parsed again.

use bytes::Bytes;
use serde_json::value::RawValue;

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
    /// How long a modern client may keep it, milliseconds.
    pub ttl_ms: u64,
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
        meta::member(&mut out, "ttlMs", page.ttl_ms.to_string().as_bytes());
        meta::member(&mut out, "cacheScope", b"\"private\"");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_each_era_reads() {
        let items = [&b"{\"name\":\"a\"}"[..], b"{\"name\":\"b\"}"];
        let page = |revision| {
            let page = ListPage {
                revision,
                next_cursor: Some("x"),
                ttl_ms: 9,
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
}
