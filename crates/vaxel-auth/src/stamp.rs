//! The seal of the audit: hashes under a key that lies nowhere in the clear.
//!
//! The key is made once per installation and kept sealed beside what it seals, so that another root key
//! leaves the chain as it is.

use std::fmt;

use aws_lc_rs::hmac;
use vaxel_core::{
    audit::chain::{Hash, Stamp},
    secret::Secret,
};

use crate::{digest::sha256, failure::Error, random};

/// Bytes of the key.
const KEY: usize = 32;

/// Makes the hashes of the audit's chain, and seals them with its key (HMAC-SHA256, RFC 2104).
pub struct AuditKey(hmac::Key);

impl AuditKey {
    /// A new key: what seals, and the bytes that are to be kept sealed themselves.
    pub fn invent() -> (Self, Secret<Vec<u8>>) {
        let bytes = random::bytes::<KEY>();
        let key = Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        (key, Secret::new(bytes.to_vec()))
    }

    /// The key that was kept.
    ///
    /// # Errors
    /// [`Error::Unsealable`] when it has another length.
    pub fn read(bytes: &Secret<Vec<u8>>) -> Result<Self, Error> {
        let bytes = bytes.expose();
        if bytes.len() != KEY {
            return Err(Error::Unsealable);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey")
    }
}

impl Stamp for AuditKey {
    fn digest(&self, bytes: &[u8]) -> Hash {
        Hash(sha256(bytes))
    }

    fn seal(&self, hash: &Hash) -> Option<Hash> {
        Hash::from_slice(hmac::sign(&self.0, &hash.0).as_ref())
    }
}

/// The same for whoever lacks the key: hashes, and no seals.
#[derive(Debug, Clone, Copy)]
pub struct Unsealed;

impl Stamp for Unsealed {
    fn digest(&self, bytes: &[u8]) -> Hash {
        Hash(sha256(bytes))
    }

    fn seal(&self, _: &Hash) -> Option<Hash> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_seals_in_the_same_way() {
        let (key, kept) = AuditKey::invent();
        let hash = key.digest(b"a line");
        let again = AuditKey::read(&kept).unwrap();
        assert_eq!(again.seal(&hash), key.seal(&hash));
        assert_ne!(AuditKey::invent().0.seal(&hash), key.seal(&hash));
        assert_ne!(key.seal(&hash), Some(hash));
        assert_eq!(Unsealed.digest(b"a line"), hash);
        assert_eq!(Unsealed.seal(&hash), None);
        assert!(AuditKey::read(&Secret::new(vec![1; 31])).is_err());
    }
}
