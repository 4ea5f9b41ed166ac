//! The first byte says how large chunks are; the rest is the stream.

use ai_gateway::codec::eventstream::{DamagedStream, Frame, Frames};

const LIMIT: usize = 512;

/// The frames up to the first that is damaged, and whether there was one.
fn read(stream: &[u8], size: usize) -> (Vec<Frame>, bool) {
    let mut frames = Frames::new(LIMIT);
    let mut found = Vec::new();
    for chunk in stream.chunks(size) {
        frames.feed(chunk);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(DamagedStream) => return (found, true),
            }
        }
        assert!(frames.held() <= LIMIT);
    }
    (found, false)
}

pub fn run(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(*size).max(1)), whole);
    assert_eq!(read(stream, 1), whole);
}
