//! The framing of stdio: one message per line (MCP, Transports, "stdio"). What a server prints that
//! is no message is told apart, reported and survived.

use bytes::{Buf, Bytes, BytesMut};

/// Longest piece of garbage that is shown.
const SHOWN: usize = 400;

/// What a line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Starts like a JSON object or array.
    Message(Bytes),
    /// Text that is no message.
    Garbage {
        /// Its beginning.
        text: String,
        /// Its length.
        bytes: usize,
    },
    /// A line over the limit, which was skipped.
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Takes chunks, gives lines.
#[derive(Debug)]
pub struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line feed.
    scanned: usize,
    limit: usize,
    /// Length so far of a line that is being skipped.
    skipping: Option<usize>,
}

impl Lines {
    /// Lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            limit,
            skipping: None,
        }
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line that is not blank; `None` when more chunks are needed.
    #[expect(
        clippy::should_implement_trait,
        reason = "`None` is not an end: more may be pushed"
    )]
    pub fn next(&mut self) -> Option<Line> {
        loop {
            let Some(at) = memchr::memchr(b'\n', &self.buffer[self.scanned..]) else {
                self.hold();
                return None;
            };
            let line = self.buffer.split_to(self.scanned + at).freeze();
            self.buffer.advance(1);
            self.scanned = 0;
            if let Some(skipped) = self.skipping.take() {
                return Some(Line::TooLong {
                    bytes: skipped + line.len(),
                });
            }
            if line.len() > self.limit {
                return Some(Line::TooLong { bytes: line.len() });
            }
            if let Some(line) = classify(line) {
                return Some(line);
            }
        }
    }

    /// Keeps what may become a line; gives up a line that is already too long.
    fn hold(&mut self) {
        if self.skipping.is_some() || self.buffer.len() > self.limit {
            *self.skipping.get_or_insert(0) += self.buffer.len();
            self.buffer = BytesMut::new();
        }
        self.scanned = self.buffer.len();
    }
}

fn classify(line: Bytes) -> Option<Line> {
    let text = line.trim_ascii();
    match text.first() {
        None => None,
        Some(b'{' | b'[') => Some(Line::Message(line)),
        Some(_) => {
            let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN)]).into_owned();
            Some(Line::Garbage {
                text: shown,
                bytes: line.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(limit: usize, chunks: &[&[u8]]) -> Vec<Line> {
        let mut lines = Lines::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            while let Some(line) = lines.next() {
                found.push(line);
            }
        }
        found
    }

    #[test]
    fn messages_garbage_and_floods_are_told_apart() {
        let found = read(
            20,
            &[b"hello\r\n{\"a\"", b":1}\n\n", &[b'x'; 50], b"yy\n[1]\n"],
        );
        assert_eq!(
            found,
            [
                Line::Garbage {
                    text: "hello".to_owned(),
                    bytes: 6
                },
                Line::Message(Bytes::from_static(b"{\"a\":1}")),
                Line::TooLong { bytes: 52 },
                Line::Message(Bytes::from_static(b"[1]")),
            ]
        );
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(
            text in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'{'), any::<u8>()], 0..200),
            cut in 0_usize..200,
        ) {
            let cut = cut.min(text.len());
            prop_assert_eq!(read(50, &[&text[..cut], &text[cut..]]).len(), read(50, &[&text]).len());
        }
    }
}
