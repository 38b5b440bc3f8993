//! Proof Key for Code Exchange (RFC 7636), by S256 only: a plain challenge would be its own answer.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::digest;

/// What a client sends first, made of what it keeps to itself.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::sha256(verifier.as_bytes()))
}

/// What a client keeps to itself until it takes the code, hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge([u8; 32]);

impl Challenge {
    /// A `code_challenge` of the method `S256`: 43 letters of base64url.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Whether `verifier` is what it was made of: 43 to 128 letters (RFC 7636 §4.1).
    pub fn is_met_by(&self, verifier: &str) -> bool {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let is_formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(letter);
        is_formed && digest::are_equal(&self.0, &digest::sha256(verifier.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_verifier_of_a_challenge_meets_it() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let challenge = Challenge::read("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
        assert!(challenge.is_met_by(verifier));
        assert_eq!(
            Challenge::read(&super::challenge(verifier)),
            Some(challenge.clone())
        );
        let other = format!("{}j", &verifier[..42]);
        for bad in [
            "",
            "short",
            &other,
            &"a".repeat(129),
            &format!("{verifier} "),
        ] {
            assert!(!challenge.is_met_by(bad), "{bad}");
        }
        for no_challenge in [
            "",
            verifier.get(1..).unwrap(),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
        ] {
            assert_eq!(Challenge::read(no_challenge), None, "{no_challenge}");
        }
    }
}
