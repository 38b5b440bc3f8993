//! Header values: every text survives its header, and the headers that mirror arguments are those that
//! are accepted with them.
//!
//! The input is a header value; with a NUL in it, an input schema and arguments.

use http::{HeaderMap, HeaderValue};
use serde_json::value::RawValue;
use vaxel_mcp::headers::{decode_value, encode_value, params::ParamHeaders};

fn survives(text: &str) {
    let value = encode_value(text);
    assert!(HeaderValue::from_str(&value).is_ok(), "{value:?}");
    assert_eq!(decode_value(&value).as_deref(), Ok(text));
}

pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    survives(text);
    if let Ok(decoded) = decode_value(text) {
        survives(&decoded);
    }
    let Some((schema, arguments)) = text.split_once('\0') else {
        return;
    };
    let Ok(schema) = serde_json::from_str::<&RawValue>(schema) else {
        return;
    };
    let Ok(mirrored) = ParamHeaders::of(schema) else {
        return;
    };
    if serde_json::from_str::<&RawValue>(arguments).is_err() {
        return;
    }
    let headers: HeaderMap = mirrored.mirror(Some(arguments)).into_iter().collect();
    let checked = mirrored.check(Some(arguments), &headers);
    assert_eq!(checked, Ok(()), "{headers:?} for {arguments}");
}
