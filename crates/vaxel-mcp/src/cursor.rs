//! Cursors of our own list pages (MCP, Pagination). What clients get is this, sealed by whoever has a key;
//! the numbers alone say nothing about whose list it is.

/// Where a list goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Digest of the lists that the page was cut from.
    pub generation: u64,
    /// Index of the next entry.
    pub offset: u64,
}

/// Bytes of a cursor.
const LENGTH: usize = 16;

impl Cursor {
    /// The cursor as bytes, always as many.
    pub fn to_bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&self.generation.to_be_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }

    /// The cursor in `bytes`; none in any that [`Cursor::to_bytes`] did not make.
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (generation, offset) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            generation: u64::from_be_bytes(*generation),
            offset: u64::from_be_bytes(offset.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_come_back_as_they_went(generation: u64, offset: u64) {
            let cursor = Cursor { generation, offset };
            prop_assert_eq!(Cursor::of_bytes(&cursor.to_bytes()), Some(cursor));
        }

        #[test]
        fn bytes_of_another_length_are_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Cursor::of_bytes(&bytes).is_some(), bytes.len() == LENGTH);
        }
    }
}
