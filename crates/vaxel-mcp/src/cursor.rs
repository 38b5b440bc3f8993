//! Cursors of our own list pages: opaque to clients, checked when they come back.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Where a list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Digest of the lists that the page was cut from.
    pub generation: u64,
    /// Index of the next entry.
    pub offset: u64,
    /// Which endpoint it belongs to.
    pub filter: u64,
}

/// A text that is no cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not one that this server made")]
pub struct InvalidCursor;

impl Cursor {
    /// The text that clients send back.
    pub fn encode(&self) -> String {
        let mut bytes = [0; 24];
        for (slot, number) in
            bytes
                .chunks_exact_mut(8)
                .zip([self.generation, self.offset, self.filter])
        {
            slot.copy_from_slice(&number.to_be_bytes());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor in `text`.
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; 24] = bytes.try_into().map_err(|_| InvalidCursor)?;
        let number = |at: usize| {
            bytes[at..at + 8]
                .iter()
                .fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte))
        };
        Ok(Self {
            generation: number(0),
            offset: number(8),
            filter: number(16),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_come_back_as_they_went(generation: u64, offset: u64, filter: u64) {
            let cursor = Cursor { generation, offset, filter };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn foreign_cursors_are_refused(text in ".{0,31}") {
            prop_assert_eq!(Cursor::decode(&text), Err(InvalidCursor));
        }
    }
}
