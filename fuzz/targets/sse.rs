//! Server-sent events: the same events wherever the chunks are cut, and every message comes back.
//!
//! The first byte says how many of the next are lengths of chunks; the rest is the stream.

use vaxel_core::sse::{Decoder, Event, TooLong, event};

/// So small that it is met.
const LIMIT: usize = 40;

type Read = (
    Vec<Result<Event, TooLong>>,
    String,
    Option<std::time::Duration>,
);

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(event) = decoder.next() {
            events.push(event);
        }
    }
    (events, decoder.last_id().to_owned(), decoder.retry())
}

fn cut<'a>(lengths: &[u8], mut stream: &'a [u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    for length in lengths {
        let (chunk, rest) = stream.split_at(usize::from(*length).min(stream.len()));
        chunks.push(chunk);
        stream = rest;
    }
    chunks.push(stream);
    chunks
}

pub(crate) fn check(data: &[u8]) {
    let Some((count, rest)) = data.split_first() else {
        return;
    };
    let (lengths, stream) = rest.split_at(usize::from(*count).min(rest.len()));
    let whole = read([stream].into_iter());
    let chunks = cut(lengths, stream);
    assert_eq!(read(chunks.into_iter()), whole, "in chunks");
    assert_eq!(read(stream.chunks(1)), whole, "byte by byte");
    for event in &whole.0 {
        let length = event.as_ref().map_or(0, |event| event.data.len());
        assert!(length <= LIMIT, "longer than the limit");
    }
    // What is written is read again; the format has one line end.
    let id = std::str::from_utf8(lengths).ok();
    let written = event(stream, id);
    let mut decoder = Decoder::new(stream.len().max(lengths.len()) * 2 + 64);
    decoder.push(&written);
    let back = decoder.next().expect("an event").expect("within the limit");
    let sent = String::from_utf8_lossy(stream)
        .replace("\r\n", "\n")
        .replace('\r', "\n");
    assert_eq!(String::from_utf8_lossy(&back.data), sent);
    let sent = id.filter(|id| !id.contains(['\n', '\r', '\0']));
    assert_eq!(back.id.as_deref(), sent);
    assert_eq!(decoder.next(), None);
}
