use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 16;

fn split(chunks: &[&[u8]]) -> Vec<Event> {
    let mut splitter = Splitter::new(LIMIT);
    let mut events = Vec::new();
    for chunk in chunks {
        events.extend(
            splitter.feed(Bytes::copy_from_slice(chunk)).map(|event| event.expect("within the limit")),
        );
    }
    events.extend(splitter.finish());
    events
}

/// The events with each one's raw bytes, payload and type as text.
fn texts(stream: &str) -> Vec<(String, Option<String>, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    split(&[stream.as_bytes()])
        .iter()
        .map(|event| (text(event.raw()), event.data().map(|data| text(&data)), event.name().map(text)))
        .collect()
}

fn payloads(stream: &str) -> Vec<Option<String>> {
    texts(stream).into_iter().map(|(_, data, _)| data).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_chat_stream() {
    let stream = "data: {\"a\":1}\n\nevent: delta\ndata:{\"b\":2}\nid: 7\n\ndata: [DONE]\n\n";
    assert_eq!(
        texts(stream),
        [
            ("data: {\"a\":1}\n\n".to_owned(), some("{\"a\":1}"), None),
            ("event: delta\ndata:{\"b\":2}\nid: 7\n\n".to_owned(), some("{\"b\":2}"), some("delta")),
            ("data: [DONE]\n\n".to_owned(), some("[DONE]"), None),
        ]
    );
}

#[test]
fn every_line_end_ends_a_line() {
    for end in ["\n", "\r\n", "\r"] {
        let stream = "data: 1|event: x||data: 2||".replace('|', end);
        let events = texts(&stream);
        assert_eq!(events.len(), 2, "{end:?}");
        assert_eq!((&events[0].1, &events[0].2), (&some("1"), &some("x")));
        assert_eq!(events[1].0, "data: 2||".replace('|', end));
    }
}

#[test]
fn one_space_after_the_colon_is_not_data() {
    assert_eq!(payloads("data:  x \n\ndata:\n\ndata\n\n"), [some(" x "), some(""), some("")]);
}

#[test]
fn data_lines_are_joined_by_lf() {
    assert_eq!(payloads("data: 1\r\ndata: 2\r\ndata:\r\ndata: 3\r\n\r\n"), [some("1\n2\n\n3")]);
    let events = split(&[b"data: 1\ndata: 2\n\n"]);
    assert_eq!(events[0].data_lines().collect::<Vec<_>>(), [b"1", b"2"]);
}

#[test]
fn comments_and_blank_lines_are_events_without_data() {
    assert_eq!(payloads(": keep-alive\n\n\n:data: x\ndatax: 1\n\n"), [None, None, None]);
}

#[test]
fn a_byte_order_mark_counts_at_the_very_beginning_only() {
    assert_eq!(payloads("\u{feff}data: 1\n\n\u{feff}data: 2\n\n"), [some("1"), None]);
    assert_eq!(payloads("\u{feff}\ndata: 1\n\n"), [some("1")]);
}

#[test]
fn the_end_of_the_stream_ends_an_event() {
    assert_eq!(payloads("data: 1\n\ndata: [DONE]\n"), [some("1"), some("[DONE]")]);
    assert_eq!(payloads("data: [DONE]"), [some("[DONE]")]);
    assert_eq!(payloads(""), []);
}

#[test]
fn complete_events_share_the_chunk_and_leave_nothing_held() {
    let chunk = Bytes::from_static(b"data: 1\n\ndata: 2\n\n");
    let mut splitter = Splitter::new(LIMIT);
    let events: Vec<Event> = splitter.feed(chunk.clone()).map(Result::unwrap).collect();
    assert_eq!(events[1].raw().as_ptr(), chunk[9..].as_ptr());
    assert_eq!(splitter.held(), 0);
    assert_eq!(splitter.finish(), None);
}

#[test]
fn an_event_over_the_limit_is_an_error_and_its_bytes_are_not_lost() {
    for cut in 0..=12 {
        let stream = b"data: 12345\n\ndata: 2\n\n";
        let mut splitter = Splitter::new(12);
        let mut results = Vec::new();
        results.extend(splitter.feed(Bytes::copy_from_slice(&stream[..cut])));
        let first_failed = !results.is_empty();
        results.extend(splitter.feed(Bytes::copy_from_slice(&stream[cut..])));
        assert_eq!(results.first(), Some(&Err(EventTooLong { limit: 12 })), "cut at {cut}");
        assert!(results.iter().all(Result::is_err));
        if !first_failed {
            assert_eq!(splitter.finish().unwrap().raw(), &stream[..]);
        }
    }
}

#[test]
fn an_event_as_long_as_the_limit_passes() {
    let mut splitter = Splitter::new(9);
    assert_eq!(splitter.feed(Bytes::from_static(b"data: 1\n\ndata: 2\n\n")).filter(Result::is_ok).count(), 2);
}

#[test]
fn an_iterator_that_is_dropped_early_loses_nothing() {
    let mut splitter = Splitter::new(LIMIT);
    let first = splitter.feed(Bytes::from_static(b"data: 1\n\ndata: 2\n\nda")).next().unwrap().unwrap();
    assert_eq!(first.data().unwrap(), &b"1"[..]);
    let rest: Vec<Event> = splitter.feed(Bytes::from_static(b"ta: 3\n\n")).map(Result::unwrap).collect();
    assert_eq!(rest.iter().map(|event| event.data().unwrap().into_owned()).collect::<Vec<_>>(), [b"2", b"3"]);
}

#[test]
fn finishing_makes_the_splitter_new() {
    let mut splitter = Splitter::new(8);
    assert!(splitter.feed(Bytes::from_static(b"data: 123456")).next().unwrap().is_err());
    assert!(splitter.finish().is_some());
    assert_eq!(splitter.feed(Bytes::from_static(b"data:1\n\n")).count(), 1);
}

/// Text in which line ends, fields and oddities are likely.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n\n".to_vec()),
        Just(b"data: {\"x\":1}".to_vec()),
        Just(b"data".to_vec()),
        Just(b"event: e".to_vec()),
        Just(b": comment".to_vec()),
        Just(BOM.to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_split_into_chunks_never_matters(stream in stream()) {
        let whole = split(&[&stream]);
        prop_assert_eq!(whole.iter().map(|event| &event.raw()[..]).collect::<Vec<_>>().concat(), &stream[..]);
        for cut in 0..=stream.len() {
            prop_assert_eq!(&split(&[&stream[..cut], &stream[cut..]]), &whole, "cut at {}", cut);
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&split(&bytes), &whole);
    }

    #[test]
    fn memory_is_bounded(stream in stream(), size in 1_usize..8, limit in 0_usize..16) {
        let mut splitter = Splitter::new(limit);
        for chunk in stream.chunks(size) {
            let mut results = splitter.feed(Bytes::copy_from_slice(chunk)).peekable();
            if results.peek().is_some_and(Result::is_err) {
                break;
            }
            prop_assert!(results.all(|result| result.is_err() || result.is_ok_and(|event| event.raw().len() <= limit)));
            prop_assert!(splitter.held() <= limit + size);
        }
    }
}
