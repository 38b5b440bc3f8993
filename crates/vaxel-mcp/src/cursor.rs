//! Cursors of our own list pages: opaque to clients, checked when they come back.
//!
//! The checksum tells a damaged or foreign cursor from ours; it keeps nobody from making one. That
//! is enough: a cursor names a place in a list that its holder may read anyway.

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

/// Three numbers of eight bytes and four bytes of checksum.
const LENGTH: usize = 28;

impl Cursor {
    /// The text that clients send back: 38 characters of base64url.
    pub fn encode(&self) -> String {
        let mut bytes = [0; LENGTH];
        let numbers = [self.generation, self.offset, self.filter];
        for (slot, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_be_bytes());
        }
        let sum = checksum(&bytes[..24]);
        bytes[24..].copy_from_slice(&sum);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor in `text`; an error becomes `-32602` (MCP, Pagination, "Error Handling").
    pub fn decode(text: &str) -> Result<Self, InvalidCursor> {
        if text.len() > 2 * LENGTH {
            return Err(InvalidCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidCursor)?;
        let bytes: [u8; LENGTH] = bytes.try_into().map_err(|_| InvalidCursor)?;
        if bytes[24..] != checksum(&bytes[..24]) {
            return Err(InvalidCursor);
        }
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

/// FNV-1a, 32 bits. The start is not the usual one, so that other people's numbers with a plain
/// checksum are not taken for ours.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let sum = bytes.iter().fold(0x5641_584c_u32, |sum, byte| {
        (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    sum.to_be_bytes()
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
        fn foreign_cursors_are_refused(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 24)) {
            prop_assert_eq!(Cursor::decode(&text), Err(InvalidCursor));
            prop_assert_eq!(Cursor::decode(&URL_SAFE_NO_PAD.encode(bytes)), Err(InvalidCursor));
        }

        #[test]
        fn a_damaged_cursor_is_refused(generation: u64, offset: u64, at in 0_usize..38, other in "[A-Za-z0-9_-]") {
            let good = Cursor { generation, offset, filter: 7 }.encode();
            let mut bad = good.clone();
            bad.replace_range(at..=at, &other);
            prop_assume!(bad != good);
            prop_assert_eq!(Cursor::decode(&bad), Err(InvalidCursor));
        }
    }
}
