//! The first byte says how large chunks are; the rest is the stream.

use ai_gateway::codec::sse::{Event, Splitter};
use bytes::Bytes;

const LIMIT: usize = 256;

/// The events up to the first that is too long, and whether there was one.
fn split(stream: &[u8], size: usize) -> (Vec<Event>, bool) {
    let mut splitter = Splitter::new(LIMIT);
    let mut events = Vec::new();
    for chunk in stream.chunks(size) {
        for event in splitter.feed(Bytes::copy_from_slice(chunk)) {
            match event {
                Ok(event) => events.push(event),
                Err(_) => return (events, true),
            }
        }
        assert!(splitter.held() <= LIMIT);
    }
    events.extend(splitter.finish());
    (events, false)
}

pub fn run(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = split(stream, stream.len().max(1));
    assert_eq!(split(stream, usize::from(*size).max(1)), whole);
    assert_eq!(split(stream, 1), whole);
    let (events, failed) = whole;
    let raw: Vec<u8> = events.iter().flat_map(|event| event.raw().to_vec()).collect();
    assert!(stream.starts_with(&raw) && (failed || raw.len() == stream.len()));
    for event in &events {
        assert_eq!(event.data().is_some(), event.data_lines().next().is_some());
        let _ = event.name();
    }
}
