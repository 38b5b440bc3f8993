//! `_meta`: the reserved keys of 2026-07-28, read and written without touching the others.

use std::borrow::Cow;

use serde::{Deserialize, de};
use serde_json::value::RawValue;

/// Revision that a request speaks.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// Capabilities that the client has for this request.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// Name and version of the client, unverified.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// Least severe log message that the client wants.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// Name and version of the server, unverified.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Which `subscriptions/listen` a notification belongs to.
pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
/// Full name of a tool whose exposed name had to be altered.
pub const FULL_NAME: &str = "dev.vaxel/fullName";

/// Who calls, as a token that the gateway signed for the server. What a client writes there goes no further.
pub const IDENTITY: &str = "dev.vaxel/identity";

/// What a gateway reads in a request's `_meta`.
#[derive(Debug, Default, Deserialize)]
pub struct RequestMeta<'a> {
    /// See [`PROTOCOL_VERSION`].
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    pub protocol_version: Option<Cow<'a, str>>,
    /// See [`CLIENT_CAPABILITIES`].
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientCapabilities")]
    pub client_capabilities: Option<&'a RawValue>,
    /// See [`CLIENT_INFO`].
    #[serde(borrow, default, rename = "io.modelcontextprotocol/clientInfo")]
    pub client_info: Option<&'a RawValue>,
    /// See [`LOG_LEVEL`].
    #[serde(borrow, default, rename = "io.modelcontextprotocol/logLevel")]
    pub log_level: Option<Cow<'a, str>>,
    /// String or integer.
    #[serde(borrow, default, rename = "progressToken")]
    pub progress_token: Option<&'a RawValue>,
    /// W3C trace context.
    #[serde(borrow, default)]
    pub traceparent: Option<Cow<'a, str>>,
    /// See [`IDENTITY`]. A client has no business with it.
    #[serde(borrow, default, rename = "dev.vaxel/identity")]
    pub identity: Option<&'a RawValue>,
}

/// Rewrites an object: members in `set` are put in place of those of the same name (or added),
/// members for which `drop` says so are left out, all others stay byte for byte.
///
/// Text that is no object counts as an empty one.
pub fn rewrite(
    object: Option<&RawValue>,
    drop: impl Fn(&str) -> bool,
    set: &[(&str, &[u8])],
) -> Vec<u8> {
    let members = object
        .and_then(|object| members(object.get()))
        .unwrap_or_default();
    let kept = members
        .iter()
        .filter(|(key, _)| !drop(key) && !set.iter().any(|(name, _)| *name == key));
    let mut out = Vec::with_capacity(object.map_or(2, |object| object.get().len()) + 128);
    out.push(b'{');
    for (key, value) in kept {
        member(&mut out, key, value.get().as_bytes());
    }
    for (key, value) in set {
        member(&mut out, key, value);
    }
    out.push(b'}');
    out
}

/// An object that was just written, as a value.
pub(crate) fn object(text: Vec<u8>) -> Box<RawValue> {
    let raw = String::from_utf8(text)
        .ok()
        .and_then(|text| RawValue::from_string(text).ok());
    raw.unwrap_or_else(|| RawValue::NULL.to_owned())
}

/// The members of an object, values raw, in their order. `None` when `text` is no object.
pub fn members(text: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                members.push((key, value));
            }
            Ok(members)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let members = de::Deserializer::deserialize_map(&mut deserializer, Visitor).ok()?;
    deserializer.end().ok()?;
    Some(members)
}

/// A key, borrowed unless it holds escapes (`Cow` alone always copies).
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Appends `"key":value`, with a comma when it is not the first.
pub fn member(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    quote(out, key);
    out.push(b':');
    out.extend_from_slice(value);
}

/// Appends `text` as a JSON string.
pub fn quote(out: &mut Vec<u8>, text: &str) {
    // Writing a `str` to a `Vec` has no error to report.
    let _ = serde_json::to_writer(&mut *out, text);
}

/// Whether `key` is one of the reserved request keys that a legacy peer must not see.
pub fn is_modern_key(key: &str) -> bool {
    matches!(
        key,
        PROTOCOL_VERSION | CLIENT_CAPABILITIES | CLIENT_INFO | LOG_LEVEL
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn foreign_members_keep_their_bytes() {
        let object = raw(r#"{"a": 1.0, "b\"":[ 1 ,2],"progressToken":7}"#);
        let out = rewrite(Some(&object), |key| key == "progressToken", &[("c", b"3")]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"a":1.0,"b\"":[ 1 ,2],"c":3}"#
        );
        assert_eq!(rewrite(None, |_| false, &[]), b"{}");
        assert_eq!(
            rewrite(Some(&raw("[1]")), |_| false, &[("x", b"1")]),
            br#"{"x":1}"#
        );
    }

    #[test]
    fn a_set_member_replaces_the_old_one() {
        let object = raw(r#"{"a":1,"b":2}"#);
        assert_eq!(
            rewrite(Some(&object), |_| false, &[("a", b"9")]),
            br#"{"b":2,"a":9}"#
        );
    }
}
