//! Server-sent events (WHATWG HTML, "Server-sent events"): written as MCP sends them, read from
//! chunks that may be cut anywhere.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

/// One message as an event.
///
/// JSON that is sent has no raw line feed in its strings; one that stands between tokens is carried
/// by a `data` line of its own, as the format asks. An `id` that no event can carry (it holds a line
/// end or NUL) is left out.
pub fn event(data: &[u8], id: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 64);
    if let Some(id) = id.filter(|id| !id.contains(['\n', '\r', '\0'])) {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: message\n");
    let mut rest = data;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', rest) {
        data_line(&mut out, &rest[..at]);
        let end = if rest[at..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = &rest[at + end..];
    }
    data_line(&mut out, rest);
    out.push(b'\n');
    out.into()
}

fn data_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// A comment: shows that the stream is alive, means nothing.
pub fn comment(text: &str) -> Bytes {
    let mut out = String::with_capacity(text.len() + 4);
    for line in text.split(['\n', '\r']) {
        out.push_str(": ");
        out.push_str(line);
        out.push('\n');
    }
    out.push('\n');
    out.into()
}

/// Tells a legacy client how long to wait before it asks again (MCP 2025-11-25, Transports,
/// "Sending Messages to the Server", on polling).
pub fn retry(wait: Duration) -> Bytes {
    Bytes::from(format!("retry: {}\n\n", wait.as_millis()))
}

/// An event that says nothing but its id, so that a client whose connection breaks has one to come back
/// with, and how long to wait before it does (MCP 2025-11-25, Transports, "Sending Messages to the
/// Server").
pub fn priming(id: &str, wait: Duration) -> Bytes {
    Bytes::from(format!("id: {id}\nretry: {}\ndata: \n\n", wait.as_millis()))
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
pub struct Decoder {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    scanned: usize,
    /// A line feed right after it belongs to the carriage return before.
    after_return: bool,
    begun: bool,
    data: Data,
    kind: String,
    id: Option<String>,
    last_id: String,
    retry: Option<Duration>,
    limit: usize,
    failed: bool,
}

/// The `data` lines of the event that is being read. Nearly every event has one, which then stays
/// the slice that it came in.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    Line(Bytes),
    Joined(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Line(line) => line.len(),
            Self::Joined(lines) => lines.len(),
        }
    }

    fn add(&mut self, line: Bytes) {
        *self = match std::mem::take(self) {
            Self::None => Self::Line(line),
            Self::Line(first) => {
                let mut lines = BytesMut::with_capacity(first.len() + 1 + line.len());
                lines.extend_from_slice(&first);
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(&line);
                Self::Joined(lines)
            }
            Self::Joined(mut lines) => {
                lines.extend_from_slice(b"\n");
                lines.extend_from_slice(&line);
                Self::Joined(lines)
            }
        };
    }

    fn finish(self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Line(line) => Some(line),
            Self::Joined(lines) => Some(lines.freeze()),
        }
    }
}

impl Decoder {
    /// A decoder for events of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            after_return: false,
            begun: false,
            data: Data::None,
            kind: String::new(),
            id: None,
            last_id: String::new(),
            retry: None,
            limit,
            failed: false,
        }
    }

    /// Takes the next chunk; after an error it is not kept.
    pub fn push(&mut self, chunk: &[u8]) {
        if !self.failed {
            self.buffer.extend_from_slice(chunk);
        }
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
            let Ok(line) = line else {
                return Some(Err(self.fail()));
            };
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Some(Ok(event));
                }
            } else {
                self.field(line);
            }
            if self.data.len() > self.limit {
                return Some(Err(self.fail()));
            }
        }
        let is_over = self.is_over(self.buffer.len());
        is_over.then(|| Err(self.fail()))
    }

    /// The id that a reconnect names in `Last-Event-ID`; empty when the server gave none. An event
    /// without data counts too.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// How long the server asks to wait before a reconnect, when it did.
    pub const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Forgets the event that a broken connection left incomplete; what comes next is another stream's
    /// beginning. Id and wait stay.
    pub fn reconnected(&mut self) {
        self.buffer = BytesMut::new();
        self.scanned = 0;
        self.after_return = false;
        self.begun = false;
        self.data = Data::None;
        self.kind = String::new();
        self.id = None;
    }

    /// Whether a line so long, whole or not, is too much; the same whatever the chunks.
    fn is_over(&self, line: usize) -> bool {
        line + self.data.len() > self.limit.saturating_add(64)
    }

    fn fail(&mut self) -> TooLong {
        self.failed = true;
        self.buffer = BytesMut::new();
        self.data = Data::None;
        TooLong { limit: self.limit }
    }

    /// The next line without its end, which is LF, CR or CRLF; an error when it is too long.
    fn line(&mut self) -> Option<Result<Bytes, ()>> {
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
        if self.is_over(at) {
            return Some(Err(()));
        }
        self.scanned = 0;
        self.after_return = self.buffer[at] == b'\r';
        let mut line = self.buffer.split_to(at).freeze();
        self.buffer.advance(1);
        if !std::mem::replace(&mut self.begun, true) && line.starts_with(b"\xEF\xBB\xBF") {
            line.advance(3);
        }
        Some(Ok(line))
    }

    fn field(&mut self, mut line: Bytes) {
        let (end, mut start) = match memchr::memchr(b':', &line) {
            Some(0) => return, // a comment
            Some(at) => (at, at + 1),
            None => (line.len(), line.len()),
        };
        if line.get(start) == Some(&b' ') {
            start += 1;
        }
        match &line[..end] {
            b"data" => {
                line.advance(start);
                self.data.add(line);
            }
            b"event" => self.kind = String::from_utf8_lossy(&line[start..]).into_owned(),
            b"id" if !line[start..].contains(&0) => {
                self.id = Some(String::from_utf8_lossy(&line[start..]).into_owned());
            }
            b"retry" => {
                self.retry = milliseconds(&line[start..]).or(self.retry);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        let kind = std::mem::take(&mut self.kind);
        let id = self.id.take();
        if let Some(id) = &id {
            self.last_id.clone_from(id);
        }
        let data = std::mem::take(&mut self.data).finish()?;
        Some(Event { data, kind, id })
    }
}

/// ASCII digits only, as the format asks.
fn milliseconds(value: &[u8]) -> Option<Duration> {
    let digits = value.iter().all(u8::is_ascii_digit);
    let text = digits.then(|| std::str::from_utf8(value).ok()).flatten()?;
    text.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests;
