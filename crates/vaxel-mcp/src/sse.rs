//! Server-sent events (WHATWG HTML, "Server-sent events"): written as MCP sends them, read from
//! chunks that may be cut anywhere.

use bytes::{Buf, Bytes, BytesMut};

/// One message as an event.
///
/// JSON that is sent has no raw line feed in its strings; one that stands between tokens is carried
/// by a `data` line of its own, as the format asks.
pub fn event(data: &[u8], id: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 32);
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: message\n");
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.into()
}

/// A comment: shows that the stream is alive, means nothing.
pub fn comment(text: &str) -> Bytes {
    Bytes::from(format!(": {text}\n\n"))
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// All `data` lines, joined by line feeds.
    pub data: Bytes,
    /// `event`; empty means `message`.
    pub kind: String,
    /// `id`, when the event has one.
    pub id: Option<String>,
}

/// An event over its limit; the stream cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct TooLong {
    /// The limit, bytes.
    pub limit: usize,
}

/// Takes chunks, gives events.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts about the position"
)]
pub struct Decoder {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
    /// A line feed right after it belongs to the carriage return before.
    after_return: bool,
    begun: bool,
    data: BytesMut,
    has_data: bool,
    kind: String,
    id: Option<String>,
    limit: usize,
    failed: bool,
}

impl Decoder {
    /// A decoder for events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            after_return: false,
            begun: false,
            data: BytesMut::new(),
            has_data: false,
            kind: String::new(),
            id: None,
            limit,
            failed: false,
        }
    }

    /// Takes the next chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event; `None` when more chunks are needed. After an error there is nothing
    /// more.
    #[expect(
        clippy::should_implement_trait,
        reason = "`None` is not an end: more may be pushed"
    )]
    pub fn next(&mut self) -> Option<Result<Event, TooLong>> {
        if self.failed {
            return None;
        }
        while let Some(line) = self.line() {
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Some(Ok(event));
                }
            } else {
                self.field(&line);
            }
            if self.data.len() > self.limit {
                return Some(Err(self.fail()));
            }
        }
        if self.buffer.len() + self.data.len() > self.limit.saturating_add(64) {
            return Some(Err(self.fail()));
        }
        None
    }

    fn fail(&mut self) -> TooLong {
        self.failed = true;
        self.buffer = BytesMut::new();
        self.data = BytesMut::new();
        TooLong { limit: self.limit }
    }

    /// The next line without its end, which is LF, CR or CRLF.
    fn line(&mut self) -> Option<Bytes> {
        if self.after_return && !self.buffer.is_empty() {
            self.after_return = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let found = memchr::memchr2(b'\n', b'\r', &self.buffer[self.scanned..]);
        let Some(at) = found.map(|at| at + self.scanned) else {
            self.scanned = self.buffer.len();
            return None;
        };
        self.scanned = 0;
        self.after_return = self.buffer[at] == b'\r';
        let mut line = self.buffer.split_to(at).freeze();
        self.buffer.advance(1);
        if !std::mem::replace(&mut self.begun, true) && line.starts_with(b"\xEF\xBB\xBF") {
            line.advance(3);
        }
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(0) => return, // a comment
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
            }
            b"event" => self.kind = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => {
                self.id = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        let kind = std::mem::take(&mut self.kind);
        let id = self.id.take();
        if !std::mem::replace(&mut self.has_data, false) {
            return None;
        }
        Some(Event {
            data: self.data.split().freeze(),
            kind,
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> Vec<String> {
        let mut decoder = Decoder::new(1_000);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(Ok(event)) = decoder.next() {
                events.push(String::from_utf8_lossy(&event.data).into_owned());
            }
        }
        events
    }

    #[test]
    fn every_line_end_ends_a_line() {
        let text = b"\xEF\xBB\xBFdata: a\r\ndata:b\r\n\r\n: note\rdata: c\r\rdata\n\nevent: x\n\n";
        assert_eq!(decode(&[text]), ["a\nb", "c", ""]);
    }

    #[test]
    fn an_event_that_never_ends_is_cut_off() {
        let mut decoder = Decoder::new(100);
        decoder.push(&[b'd'; 200]);
        assert_eq!(decoder.next(), Some(Err(TooLong { limit: 100 })));
        assert_eq!(decoder.next(), None);
    }

    proptest! {
        #[test]
        fn chunks_may_be_cut_anywhere(
            messages in proptest::collection::vec("[a-z{}\" \n\r:]{0,30}", 1..5),
            cuts in proptest::collection::vec(0_usize..300, 0..10),
        ) {
            let whole: Vec<u8> =
                messages.iter().flat_map(|text| event(text.as_bytes(), Some("7"))).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|at| at.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> =
                cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&chunks), decode(&[&whole]));
            prop_assert_eq!(decode(&chunks).len(), messages.len());
        }

        #[test]
        fn hostile_bytes_never_panic(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            decode(&chunks);
        }
    }
}
