use super::*;
use proptest::prelude::*;

const LIMIT: usize = 1_000;

fn decode(limit: usize, chunks: &[&[u8]]) -> Vec<Result<Event, TooLong>> {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(event) = decoder.next() {
            events.push(event);
        }
    }
    events
}

fn data(chunks: &[&[u8]]) -> Vec<String> {
    decode(LIMIT, chunks)
        .into_iter()
        .filter_map(Result::ok)
        .map(|event| String::from_utf8_lossy(&event.data).into_owned())
        .collect()
}

/// `whole` in pieces that end at `cuts`.
fn cut<'a>(whole: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|at| *at % (whole.len() + 1)).collect();
    cuts.extend([0, whole.len()]);
    cuts.sort_unstable();
    cuts.windows(2)
        .map(|pair| &whole[pair[0]..pair[1]])
        .collect()
}

#[test]
fn every_line_end_ends_a_line() {
    let text = b"\xEF\xBB\xBFdata: a\r\ndata:b\r\n\r\n: note\rdata: c\r\rdata\n\nevent: x\n\n";
    assert_eq!(data(&[text]), ["a\nb", "c", ""]);
}

#[test]
fn an_event_that_never_ends_is_cut_off() {
    let mut decoder = Decoder::new(100);
    decoder.push(&[b'd'; 200]);
    assert_eq!(decoder.next(), Some(Err(TooLong { limit: 100 })));
    assert_eq!(decoder.next(), None);
}

#[test]
fn an_event_of_many_short_lines_is_cut_off_too() {
    let flood = b"data: 12345678\n".repeat(100);
    let events = decode(100, &[&flood]);
    assert_eq!(events, [Err(TooLong { limit: 100 })]);
}

#[test]
fn a_line_that_is_too_long_is_so_whatever_the_chunks() {
    for line in [": comment ", "id: ", "event: ", "data: "] {
        let mut flood = line.as_bytes().to_vec();
        flood.extend_from_slice(&[b'x'; 200]);
        flood.extend_from_slice(b"\n\n");
        let bytes: Vec<&[u8]> = flood.chunks(1).collect();
        assert_eq!(decode(100, &[&flood]), [Err(TooLong { limit: 100 })]);
        assert_eq!(decode(100, &bytes), [Err(TooLong { limit: 100 })]);
    }
}

#[test]
fn an_event_of_exactly_the_limit_is_read() {
    let message = [b'x'; 100];
    let whole = event(&message, None);
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    let events = decode(100, &bytes);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].as_ref().map(|event| event.data.len()), Ok(100));
}

#[test]
fn only_one_space_and_one_byte_order_mark_are_taken_off() {
    assert_eq!(data(&[b"data:  a\n\n"]), [" a"]);
    let twice = b"data: a\n\n\xEF\xBB\xBFdata: b\n\n";
    assert_eq!(data(&[twice]), ["a"]);
}

#[test]
fn ids_outlive_events_and_those_with_nul_are_ignored() {
    let mut decoder = Decoder::new(LIMIT);
    decoder.push(b"id: 1\n\nid: a\0b\ndata: x\n\nid: 3\n");
    let event = decoder.next().unwrap().unwrap();
    assert_eq!((event.id, decoder.last_id()), (None, "1"));
    assert_eq!(decoder.next(), None);
    assert_eq!(decoder.last_id(), "1", "an id counts when its event ends");
    decoder.push(b"\n");
    assert_eq!((decoder.next(), decoder.last_id()), (None, "3"));
}

#[test]
fn a_wait_is_read_when_it_is_a_number() {
    let mut decoder = Decoder::new(LIMIT);
    decoder.push(&retry(Duration::from_millis(1_500)));
    decoder.push(b"retry: soon\nretry:\nretry: +7\nretry: 99999999999999999999\n\n");
    assert_eq!(decoder.next(), None);
    assert_eq!(decoder.retry(), Some(Duration::from_millis(1_500)));
}

#[test]
fn nothing_can_be_smuggled_in_through_an_id_or_a_comment() {
    assert_eq!(data(&[&event(b"a", Some("1\ndata: evil"))]), ["a"]);
    assert_eq!(data(&[&comment("x\n\ndata: evil\n\n")]), [""; 0]);
}

#[test]
fn a_single_line_is_not_copied_again() {
    let mut decoder = Decoder::new(LIMIT);
    decoder.push(b"data: abc\n\n");
    let from = decoder.buffer.as_ptr();
    let event = decoder.next().unwrap().unwrap();
    assert_eq!(event.data.as_ptr(), from.wrapping_add(6));
}

proptest! {
    #[test]
    fn messages_come_back_whatever_the_cuts(
        messages in proptest::collection::vec("[a-z{}\" \n\r:ä]{0,30}", 1..5),
        cuts in proptest::collection::vec(any::<usize>(), 0..10),
    ) {
        let whole: Vec<u8> =
            messages.iter().flat_map(|text| event(text.as_bytes(), Some("7"))).collect();
        // The format has one line end.
        let sent: Vec<String> = messages
            .iter()
            .map(|text| text.replace("\r\n", "\n").replace('\r', "\n"))
            .collect();
        prop_assert_eq!(data(&cut(&whole, &cuts)), sent);
    }

    #[test]
    fn any_bytes_mean_the_same_whatever_the_cuts(
        whole in proptest::collection::vec(
            prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), Just(0xEF), any::<u8>()],
            0..200,
        ),
        words in proptest::collection::vec("(data|id|event|retry)?(: ?)?[a-z0-9]{0,4}[\r\n]{1,2}", 0..20),
        cuts in proptest::collection::vec(any::<usize>(), 0..10),
    ) {
        for whole in [&whole[..], words.concat().as_bytes()] {
            prop_assert_eq!(decode(LIMIT, &cut(whole, &cuts)), decode(LIMIT, &[whole]));
        }
    }

    #[test]
    fn no_flood_is_kept(
        piece in "(data: ?|event: ?|id: ?|: ?)?[a-z]{0,60}[\r\n]{0,1}",
        limit in 0_usize..100,
    ) {
        let mut decoder = Decoder::new(limit);
        for _ in 0..50 {
            decoder.push(piece.as_bytes());
            while decoder.next().is_some() {}
            prop_assert!(decoder.buffer.len() + decoder.data.len() <= limit + 64);
        }
    }
}
