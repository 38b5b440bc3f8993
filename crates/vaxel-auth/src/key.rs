//! API keys: `vxl_<10 characters>_<32 characters>`, letters and digits.
//!
//! The first part is public and finds the key; the second holds 190 random bits. With that much
//! randomness a plain SHA-256 is what the store keeps: there is nothing to guess, so a slow password
//! hash would only slow down every request.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::digest;
use vaxel_core::secret::Secret;

use crate::random;

const MARK: &str = "vxl_";
/// Characters of the public part after the mark.
const PUBLIC: usize = 10;
/// Where the public part ends.
const PREFIX: usize = MARK.len() + PUBLIC;
/// Characters of the secret part: of keys that are made here, and of keys that are accepted.
const SECRET: usize = 32;
const LONGEST_SECRET: usize = 64;

/// Makes API keys.
#[derive(Debug)]
pub enum ApiKey {}

impl ApiKey {
    /// A new key: its text, to be shown once, and what is kept of it.
    pub fn generate() -> (Secret<String>, StoredKey) {
        // The capacity is exact, so that no copy of the secret is left behind by growing.
        let mut text = String::with_capacity(PREFIX + 1 + SECRET);
        text.push_str(MARK);
        random::push_token(&mut text, PUBLIC);
        text.push('_');
        random::push_token(&mut text, SECRET);
        let stored = StoredKey::of(&text).expect("a generated key has the form of a key");
        (Secret::new(text), stored)
    }
}

/// The public part of a key, `vxl_XXXXXXXXXX`: names it in lists, logs and the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix([u8; PREFIX]);

impl Prefix {
    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a prefix is ASCII")
    }

    fn of(text: &[u8]) -> Option<Self> {
        let bytes: [u8; PREFIX] = text.get(..PREFIX)?.try_into().ok()?;
        let public = bytes.strip_prefix(MARK.as_bytes())?;
        public
            .iter()
            .all(u8::is_ascii_alphanumeric)
            .then_some(Self(bytes))
    }
}

/// A text that is no prefix of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the prefix of a key: expected `vxl_` and 10 letters or digits")]
pub struct InvalidPrefix;

impl FromStr for Prefix {
    type Err = InvalidPrefix;
    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let exact = text.len() == PREFIX;
        exact
            .then(|| Self::of(text.as_bytes()))
            .flatten()
            .ok_or(InvalidPrefix)
    }
}
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is kept of a key: enough to recognise it, not enough to use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredKey {
    /// The public part.
    pub prefix: Prefix,
    /// SHA-256 of the whole text.
    pub digest: [u8; 32],
}

impl StoredKey {
    /// What would be kept of a presented key; `None` when the text does not have the form of a key.
    pub fn of(presented: &str) -> Option<Self> {
        let text = presented.as_bytes();
        let prefix = Prefix::of(text)?;
        let secret = text[PREFIX..].strip_prefix(b"_")?;
        let formed = (SECRET..=LONGEST_SECRET).contains(&secret.len())
            && secret.iter().all(u8::is_ascii_alphanumeric);
        let digest = || digest::digest(&digest::SHA256, text).as_ref().try_into();
        formed.then(|| Self {
            prefix,
            digest: digest().expect("SHA-256 has 32 bytes"),
        })
    }
}

/// Why a key is refused. Only who holds the whole key learns that it is expired or revoked, or whose it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such key, or a wrong secret.
    #[error("the API key is not known here; `vaxel key create` makes one")]
    Unknown,
    /// It was valid once.
    #[error("the API key has expired; `vaxel key create` makes a new one")]
    Expired,
    /// Someone revoked it.
    #[error("the API key was revoked; `vaxel key create` makes a new one")]
    Revoked,
    /// Its key has another secret since, and the time in which both work is over.
    #[error("the API key was rotated and this is the text that it had before")]
    Replaced,
    /// Its user is disabled or gone.
    #[error("the user `{0}` is disabled")]
    Disabled(Arc<str>),
}

#[cfg(test)]
mod tests;
