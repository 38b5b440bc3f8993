//! Randomness that nobody can guess, from the operating system. The cryptography library's own generator
//! is not asked: it holds 128 KiB from its first byte on.

/// Digits, upper and lower case letters: what double-click selects and no shell interprets.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Fills `bytes` with random ones.
///
/// # Panics
/// When the operating system has no randomness to give: nothing secret can be made then.
pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives randomness");
}

/// Random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A text of `length` random letters and digits, 5.95 bits each.
pub fn token(length: usize) -> String {
    let mut token = String::with_capacity(length);
    push_token(&mut token, length);
    token
}

/// Appends `length` random letters and digits.
pub(crate) fn push_token(text: &mut String, length: usize) {
    // 248 = 4 × 62: larger bytes are thrown away, so that every letter is equally likely.
    const EVEN: u8 = 248;
    let end = text.len() + length;
    while text.len() < end {
        let draw = zeroize::Zeroizing::new(bytes::<64>());
        let letters = draw.iter().filter(|byte| **byte < EVEN);
        for byte in letters.take(end - text.len()) {
            text.push(char::from(ALPHABET[usize::from(byte % 62)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_asked_length_and_use_every_letter() {
        for length in [0, 1, 63, 64, 65] {
            assert_eq!(token(length).len(), length);
        }
        let long = token(20_000);
        assert!(
            ALPHABET
                .iter()
                .all(|letter| long.as_bytes().contains(letter))
        );
        assert!(long.bytes().all(|letter| ALPHABET.contains(&letter)));
    }

    #[test]
    fn two_draws_differ() {
        assert_ne!(bytes::<32>(), bytes::<32>());
        assert_ne!(token(32), token(32));
    }
}
