//! What is kept of a random secret in the place of the secret itself.

use aws_lc_rs::{constant_time, digest};

/// SHA-256: of what cannot be guessed nothing slower is needed.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether two digests are the same, without telling by the time it takes where they differ.
pub fn are_equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_equal_digests_and_others_do_not() {
        assert!(are_equal(&sha256(b"abc"), &sha256(b"abc")));
        assert!(!are_equal(&sha256(b"abc"), &sha256(b"abd")));
        assert_eq!(sha256(b"abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
