//! Short names of long texts: equal texts have the same, and nobody finds another text with it.

use aws_lc_rs::digest;

/// SHA-256 of `bytes` in hexadecimal.
pub fn of(bytes: &[u8]) -> String {
    let mut running = Running::default();
    running.add(bytes);
    running.text()
}

/// The SHA-256 of what comes piece by piece.
#[derive(Clone)]
pub struct Running(digest::Context);

impl Default for Running {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Running {
    /// Goes on with `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The fingerprint of what came so far.
    pub fn text(&self) -> String {
        text(&self.0.clone().finish())
    }
}

fn text(digest: &digest::Digest) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in digest.as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fingerprint_is_the_sha_256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(super::of(b"abc"), expected);
    }
}
