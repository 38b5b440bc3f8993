//! Cursors: what was written comes back, and nothing else is taken.

use vaxel_mcp::cursor::Cursor;

pub(crate) fn check(data: &[u8]) {
    match Cursor::of_bytes(data) {
        Some(cursor) => assert_eq!(cursor.to_bytes(), data),
        None => assert_ne!(data.len(), 16),
    }
}
