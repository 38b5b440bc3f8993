//! Reads a child's standard error line by line, with bounded memory whatever it writes.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Logs, Stream, cut};

const CHUNK: usize = 8 * 1024;

/// Adds every line of `source` to `logs` until its end.
pub(crate) async fn capture(mut source: impl AsyncRead + Unpin, logs: Logs, replica: u16) {
    let mut lines = Lines::new(logs.line_max());
    let mut chunk = vec![0; CHUNK];
    loop {
        match source.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(length) => lines.feed(&chunk[..length], |text| {
                logs.push(Stream::Stderr, replica, text);
            }),
        }
    }
    lines.finish(|text| logs.push(Stream::Stderr, replica, text));
}

/// Splits bytes into lines of at most `max` bytes; what is longer is counted, not kept.
struct Lines {
    max: usize,
    line: Vec<u8>,
    missing: usize,
}

impl Lines {
    const fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            missing: 0,
        }
    }

    fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(String)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.extend(&bytes[..end]);
            each(self.take());
            bytes = &bytes[end + 1..];
        }
        self.extend(bytes);
    }

    fn finish(&mut self, mut each: impl FnMut(String)) {
        if !self.line.is_empty() || self.missing > 0 {
            each(self.take());
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        let kept = bytes.len().min(self.max - self.line.len());
        self.line.extend_from_slice(&bytes[..kept]);
        self.missing += bytes.len() - kept;
    }

    fn take(&mut self) -> String {
        if self.missing == 0 && self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        let text = cut(&String::from_utf8_lossy(&self.line), self.max, self.missing);
        self.line.clear();
        self.missing = 0;
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(max: usize, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::new(max);
        let mut all = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |text| all.push(text));
        }
        lines.finish(|text| all.push(text));
        all
    }

    #[test]
    fn lines_are_found_across_chunks() {
        assert_eq!(
            split(20, &[b"on", b"e\r\ntwo\n\nthr", b"ee"]),
            ["one", "two", "", "three"]
        );
    }

    #[test]
    fn an_overlong_line_is_cut_and_says_by_how_much() {
        assert_eq!(
            split(4, &[b"abcdef", b"gh\nxy\n"]),
            ["abcd … [4 bytes cut]", "xy"]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_keep_memory_and_lines_bounded(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..32)
        ) {
            let mut lines = Lines::new(16);
            let mut count = 0;
            for chunk in &chunks {
                lines.feed(chunk, |text| {
                    count += 1;
                    assert!(text.len() < 16 * 3 + 40, "{text:?}");
                });
                prop_assert!(lines.line.len() <= 16);
            }
            let ends = chunks.iter().flatten().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(count, ends);
        }
    }
}
