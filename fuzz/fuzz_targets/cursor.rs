//! Cursors: what was written comes back, and nothing else is taken.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vaxel_mcp::cursor::Cursor;

fuzz_target!(|data: &[u8]| match Cursor::of_bytes(data) {
    Some(cursor) => assert_eq!(cursor.to_bytes(), data),
    None => assert_ne!(data.len(), 16),
});
