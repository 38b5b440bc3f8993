//! The framing of stdio: one message per line (MCP, Transports, "stdio"). What a server prints that
//! is no message is told apart, reported and survived.

use bytes::{Buf, Bytes, BytesMut};

/// Longest piece of garbage that is shown.
const SHOWN: usize = 400;

/// What a line holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// UTF-8 that starts like a JSON object or array, without the white space around it.
    Message(Bytes),
    /// Anything else.
    Garbage {
        /// Its beginning; what is not UTF-8 is replaced.
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
    begun: bool,
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
            begun: false,
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
            let mut line = self.buffer.split_to(self.scanned + at).freeze();
            self.buffer.advance(1);
            self.scanned = 0;
            if let Some(skipped) = self.skipping.take() {
                self.begun = true;
                return Some(Line::TooLong {
                    bytes: skipped + line.len(),
                });
            }
            if line.len() > self.limit {
                self.begun = true;
                return Some(Line::TooLong { bytes: line.len() });
            }
            // Some runtimes start their output with a byte order mark.
            if !std::mem::replace(&mut self.begun, true) && line.starts_with(b"\xEF\xBB\xBF") {
                line.advance(3);
            }
            if let Some(line) = classify(&line) {
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

fn classify(line: &Bytes) -> Option<Line> {
    let content = line.trim_ascii();
    let starts_well = matches!(content.first()?, b'{' | b'[');
    if starts_well && std::str::from_utf8(content).is_ok() {
        return Some(Line::Message(line.slice_ref(content)));
    }
    let beginning = String::from_utf8_lossy(&content[..content.len().min(SHOWN)]);
    let text = if content.len() > SHOWN {
        // The cut may have gone through a character.
        beginning.trim_end_matches(char::REPLACEMENT_CHARACTER)
    } else {
        &beginning
    };
    Some(Line::Garbage {
        text: text.to_owned(),
        bytes: line.len(),
    })
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

    #[test]
    fn what_looks_like_a_message_but_is_no_text_is_garbage() {
        let found = read(20, &[b"{\"a\":\"\xff\"}\n"]);
        assert!(matches!(&found[..], [Line::Garbage { bytes: 9, .. }]));
    }

    #[test]
    fn white_space_and_a_byte_order_mark_are_not_part_of_a_message() {
        let found = read(20, &[b"\xEF\xBB", b"\xBF {}\r\n", b"\xEF\xBB\xBF{}\n"]);
        assert_eq!(found[0], Line::Message(Bytes::from_static(b"{}")));
        assert!(matches!(found[1], Line::Garbage { .. }));
    }

    #[test]
    fn shown_garbage_ends_at_a_character() {
        let long = format!("x{}\n", "ä".repeat(400));
        let [Line::Garbage { text, bytes }] = &read(1_000, &[long.as_bytes()])[..] else {
            panic!("not one piece of garbage");
        };
        assert_eq!((text.chars().last(), *bytes), (Some('ä'), 801));
    }

    #[test]
    fn messages_of_one_chunk_share_its_memory() {
        let mut lines = Lines::new(100);
        lines.push(b"{\"a\":1}\n{\"b\":2}\n");
        let (Some(Line::Message(first)), Some(Line::Message(second))) =
            (lines.next(), lines.next())
        else {
            panic!("not two messages");
        };
        assert_eq!(first.as_ptr().wrapping_add(8), second.as_ptr());
    }

    proptest! {
        #[test]
        fn any_bytes_mean_the_same_whatever_the_cuts(
            text in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b'{'), Just(b' '), Just(0xEF), any::<u8>()],
                0..200,
            ),
            cuts in proptest::collection::vec(0_usize..201, 0..8),
            limit in 0_usize..60,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> =
                cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(limit, &chunks), read(limit, &[&text]));
        }

        #[test]
        fn every_message_comes_back(messages in proptest::collection::vec("[{\\[][a-zä\r\t]{0,20}[}\\]]", 0..8)) {
            let sent: Vec<Line> = messages
                .iter()
                .map(|text| Line::Message(Bytes::copy_from_slice(text.as_bytes())))
                .collect();
            prop_assert_eq!(read(100, &[format!("{}\n", messages.join("\n\r\n")).as_bytes()]), sent);
        }

        #[test]
        fn no_flood_is_kept(piece in "[a-z{]{0,90}\n?", limit in 0_usize..60) {
            let mut lines = Lines::new(limit);
            for _ in 0..50 {
                lines.push(piece.as_bytes());
                while lines.next().is_some() {}
                prop_assert!(lines.buffer.len() <= limit);
            }
        }
    }
}
