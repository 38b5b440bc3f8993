//! Certificates that are known by their fingerprints.

/// The SHA-256 that a text says: 64 hexadecimal digits, with colons between the bytes or without.
pub fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| {
            char::from(byte)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect();
    bytes.try_into().ok().filter(|_| digits.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_colons_and_without() {
        let plain = "00ff".repeat(16);
        let bytes = fingerprint(&plain).unwrap();
        assert_eq!(bytes[..4], [0, 255, 0, 255]);
        let colons: Vec<&str> = plain
            .as_bytes()
            .chunks(2)
            .map(|two| std::str::from_utf8(two).unwrap())
            .collect();
        assert_eq!(fingerprint(&colons.join(":").to_uppercase()), Some(bytes));
        for wrong in ["", "00ff", &plain[1..], &"0g".repeat(32), &"00".repeat(33)] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }
}
