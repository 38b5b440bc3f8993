//! Header names of Streamable HTTP, and how values that a header cannot hold are written in one
//! (MCP 2026-07-28, Streamable HTTP, "Standard headers"; SEP-2243).

pub mod params;

use base64::{Engine, engine::general_purpose::STANDARD};

/// Revision of the request.
pub const MCP_PROTOCOL_VERSION: http::HeaderName =
    http::HeaderName::from_static("mcp-protocol-version");
/// Legacy session.
pub const MCP_SESSION_ID: http::HeaderName = http::HeaderName::from_static("mcp-session-id");
/// Mirrors `method`.
pub const MCP_METHOD: http::HeaderName = http::HeaderName::from_static("mcp-method");
/// Mirrors `params.name` or `params.uri`.
pub const MCP_NAME: http::HeaderName = http::HeaderName::from_static("mcp-name");
/// Starts the names of headers that mirror arguments.
pub const MCP_PARAM_PREFIX: &str = "mcp-param-";

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

/// `value` as a header value: itself where a header can hold it, else base64 between markers.
pub fn encode_value(value: &str) -> String {
    let fits = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let padded = value.starts_with(' ') || value.ends_with(' ');
    let marked = value.starts_with(OPEN) && value.ends_with(CLOSE);
    let plain = fits && !padded && !marked;
    if plain {
        value.to_owned()
    } else {
        format!("{OPEN}{}{CLOSE}", STANDARD.encode(value))
    }
}

/// A header value with the markers but not their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header value is not valid base64 between its markers")]
pub struct NotBase64;

/// What [`encode_value`] wrote; a value without the markers is itself.
pub fn decode_value(value: &str) -> Result<String, NotBase64> {
    let Some(inner) = value
        .strip_prefix(OPEN)
        .and_then(|rest| rest.strip_suffix(CLOSE))
    else {
        return Ok(value.to_owned());
    };
    let bytes = STANDARD.decode(inner).map_err(|_| NotBase64)?;
    String::from_utf8(bytes).map_err(|_| NotBase64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_survives_its_header(name in ".{0,40}") {
            let value = encode_value(&name);
            prop_assert!(http::HeaderValue::from_str(&value).is_ok());
            prop_assert_eq!(decode_value(&value), Ok(name));
        }
    }

    proptest! {
        #[test]
        fn hostile_values_never_panic(value in "(=\\?base64\\?)?.{0,20}(\\?=)?") {
            if let Ok(name) = decode_value(&value) {
                prop_assert_eq!(decode_value(&encode_value(&name)), Ok(name));
            }
        }
    }

    #[test]
    fn only_what_a_header_cannot_hold_is_encoded() {
        for plain in [
            "echo",
            "a b",
            "file:///x?y=1",
            "=?base64?open",
            "=?BASE64?YQ==?=",
        ] {
            assert_eq!(encode_value(plain), plain);
            assert_eq!(decode_value(plain).as_deref(), Ok(plain));
        }
        assert_eq!(encode_value("hälsa"), "=?base64?aMOkbHNh?=");
        assert_eq!(encode_value("tab\t"), "=?base64?dGFiCQ==?=");
    }

    #[test]
    fn marked_values_that_are_no_text_are_refused() {
        for bad in ["%%", "YQ", "YQ===", "/w==", "Y Q="] {
            assert_eq!(
                decode_value(&format!("=?base64?{bad}?=")),
                Err(NotBase64),
                "{bad}"
            );
        }
        assert_eq!(decode_value("=?base64??=").as_deref(), Ok(""));
    }
}
