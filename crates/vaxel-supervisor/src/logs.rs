//! What services say beside their protocol: a bounded tail in memory, live followers, and a file.
//!
//! Nobody who adds a line waits for the disk: lines for the file go through a bounded queue to one
//! thread, and when that queue is full they are left out of the file, counted, and the count is
//! written in their place. So a child that floods its standard error costs neither memory nor calls.

mod capture;
mod file;

use std::{collections::VecDeque, fmt, sync::Arc};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;
use vaxel_core::time::{Clock, Timestamp};

pub(crate) use capture::capture;
pub(crate) use file::{Rotation, Writer, recover};

/// Lines that wait for one follower; the oldest are lost to it when it is slower.
const FOLLOWER_LINES: usize = 256;
/// Most bytes of text in one tail, whatever its number of lines.
const TAIL_BYTES: usize = 1 << 20;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// The child's standard error.
    Stderr,
    /// Text on the child's standard output that is no protocol.
    Garbage,
    /// Vaxel itself: starts, ends, restarts.
    Vaxel,
}

impl Stream {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Stderr => "stderr",
            Self::Garbage => "garbage",
            Self::Vaxel => "vaxel",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Stderr, Self::Garbage, Self::Vaxel]
            .into_iter()
            .find(|stream| stream.as_str() == text)
    }
}

/// One line of a service's log. `Display` is the line as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When it was read or written.
    pub at: Timestamp,
    /// Which replica of the service.
    pub replica: u16,
    /// Where it came from.
    pub stream: Stream,
    /// The text, without its line end; cut (with a mark) at the configured length.
    pub text: String,
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            replica,
            stream,
            text,
        } = self;
        write!(f, "{at} {}[{replica}] {text}", stream.as_str())
    }
}

/// The log of one service. Cheap to clone; lives as long as the supervisor.
#[derive(Clone)]
pub struct Logs {
    log: Arc<Log>,
}

struct Log {
    name: String,
    clock: Clock,
    line_max: usize,
    tail_max: usize,
    tail: Mutex<Tail>,
    followers: broadcast::Sender<LogLine>,
    writer: Writer,
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<LogLine>,
    bytes: usize,
}

/// What a log needs beside its name.
pub(crate) struct Bounds {
    pub(crate) line_max: usize,
    pub(crate) tail_max: usize,
}

impl Logs {
    /// `before`: lines of an earlier run, oldest first.
    pub(crate) fn new(
        name: &str,
        clock: Clock,
        bounds: &Bounds,
        writer: Writer,
        before: Vec<LogLine>,
    ) -> Self {
        let mut tail = Tail::default();
        for line in before {
            tail.push(line, bounds.tail_max);
        }
        Self {
            log: Arc::new(Log {
                name: name.to_owned(),
                clock,
                line_max: bounds.line_max,
                tail_max: bounds.tail_max,
                tail: Mutex::new(tail),
                followers: broadcast::Sender::new(FOLLOWER_LINES),
                writer,
            }),
        }
    }

    /// The last `n` lines, oldest first; fewer when there are fewer or the tail holds no more.
    pub fn tail(&self, n: usize) -> Vec<LogLine> {
        self.log.tail.lock().last(n)
    }

    /// Lines from now on. A reader that is slower than the log loses the oldest ones and is told how
    /// many by `RecvError::Lagged`.
    pub fn follow(&self) -> broadcast::Receiver<LogLine> {
        self.log.followers.subscribe()
    }

    /// [`Logs::tail`] and [`Logs::follow`] with nothing lost or repeated between them.
    pub fn tail_and_follow(&self, n: usize) -> (Vec<LogLine>, broadcast::Receiver<LogLine>) {
        let tail = self.log.tail.lock();
        (tail.last(n), self.log.followers.subscribe())
    }

    /// Adds a line. Never waits; ends of lines inside `text` become separate lines.
    pub fn append(&self, stream: Stream, replica: u16, text: &str) {
        for text in text.lines() {
            self.push(stream, replica, cut(text, self.log.line_max, 0));
        }
    }

    /// Adds one line that was already cut.
    pub(crate) fn push(&self, stream: Stream, replica: u16, text: String) {
        let at = self.log.clock.now();
        let line = LogLine {
            at,
            replica,
            stream,
            text,
        };
        let mut tail = self.log.tail.lock();
        tail.push(line.clone(), self.log.tail_max);
        self.log.writer.write(&self.log.name, line.to_string());
        if self.log.followers.receiver_count() > 0 {
            // An error means that the last follower left just now.
            let _ = self.log.followers.send(line);
        }
    }

    pub(crate) fn line_max(&self) -> usize {
        self.log.line_max
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs")
            .field("name", &self.log.name)
            .finish_non_exhaustive()
    }
}

impl Tail {
    fn push(&mut self, line: LogLine, lines_max: usize) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > lines_max || (self.bytes > TAIL_BYTES && self.lines.len() > 1) {
            if let Some(old) = self.lines.pop_front() {
                self.bytes -= old.text.len();
            }
        }
    }

    fn last(&self, n: usize) -> Vec<LogLine> {
        let skip = self.lines.len().saturating_sub(n);
        self.lines.iter().skip(skip).cloned().collect()
    }
}

/// `text` within `max` bytes, with a mark that counts what is missing (`more` is missing already).
fn cut(text: &str, max: usize, more: usize) -> String {
    let kept = text.floor_char_boundary(max);
    let missing = text.len() - kept + more;
    if missing == 0 {
        return text.to_owned();
    }
    format!("{} … [{missing} bytes cut]", &text[..kept])
}

#[cfg(test)]
mod tests;
