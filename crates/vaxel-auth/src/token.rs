//! What can be seen of a token of somebody else's: when it ends, where it says so itself.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use vaxel_core::time::Timestamp;

/// When the JSON Web Token in `text` (alone, or after a word such as `Bearer`) ends (RFC 7519 §4.1.4);
/// none when there is no such token, or it does not say. Nothing about it is verified.
pub fn expiry(text: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<f64>,
    }
    let token = text.split_ascii_whitespace().next_back()?;
    let mut parts = token.split('.');
    let (header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    // Every header begins with `{"`.
    if !header.starts_with("ey") || parts.next().is_some() {
        return None;
    }
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    let seconds = claims.exp.filter(|exp| (0.0..1e11).contains(exp))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the bounds were checked"
    )]
    let seconds = seconds as u64;
    Some(Timestamp::from_millis(seconds * 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part("{\"alg\":\"none\"}"), part(claims))
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let plain = token("{\"exp\":1900000000}");
        let at = Some(Timestamp::from_millis(1_900_000_000_000));
        assert_eq!(expiry(&plain), at);
        assert_eq!(expiry(&format!("Bearer {plain}")), at);
        assert_eq!(expiry(&token("{\"exp\":1900000000.5}")), at);
        for other in ["", "Bearer sk-123", "a.b.c", "ey.ey.ey"] {
            assert_eq!(expiry(other), None, "{other}");
        }
        for claims in [
            "{}",
            "{\"exp\":\"soon\"}",
            "{\"exp\":-1}",
            "{\"exp\":1e300}",
            "[]",
        ] {
            assert_eq!(expiry(&token(claims)), None, "{claims}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text: String, claims: String) {
            let _ = expiry(&text);
            let _ = expiry(&token(&claims));
        }
    }
}
