//! Cursors: what was encoded comes back, nothing else is taken, and no place has two names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vaxel_mcp::cursor::Cursor;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(cursor) = Cursor::decode(text)
    {
        assert_eq!(cursor.encode(), text, "two texts name one place");
    }
    let Some((numbers, change)) = data.split_first_chunk::<24>() else {
        return;
    };
    let number = |at: usize| u64::from_le_bytes(numbers[at..at + 8].try_into().unwrap());
    let cursor = Cursor {
        generation: number(0),
        offset: number(8),
        filter: number(16),
    };
    let good = cursor.encode();
    assert_eq!(Cursor::decode(&good), Ok(cursor));
    if let [at, to, ..] = change {
        let mut bad = good.clone().into_bytes();
        let at = usize::from(*at) % bad.len();
        bad[at] = to & 0x7f;
        let bad = String::from_utf8(bad).unwrap();
        assert!(
            bad == good || Cursor::decode(&bad).is_err(),
            "{good} and {bad}"
        );
    }
});
