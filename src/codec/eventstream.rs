//! L0. Event streams of AWS: <https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html>, section "event stream
//! encoding". The frames themselves are read by AWS's own library; here they are found in chunks of any size.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::{HeaderValue, Message};
use bytes::{Bytes, BytesMut};

/// Length of a frame's beginning: two lengths and their checksum.
const PRELUDE: usize = 12;

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Its payload, for most kinds a JSON document.
    pub payload: Bytes,
}

/// What a message is, by its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameKind {
    /// A piece of the answer: its `:event-type`.
    Event(String),
    /// A failure that the service foresees: its `:exception-type`.
    Exception(String),
    /// One that it does not: its `:error-code` and `:error-message`.
    Error(String, String),
}

/// The bytes are no such stream, or one of longer frames than allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event stream is damaged")]
pub struct DamagedStream;

/// Cuts a stream of chunks into frames. Nothing is yielded after an error.
#[derive(Debug)]
pub struct Frames {
    limit: usize,
    held: BytesMut,
    damaged: bool,
}

impl Frames {
    /// A reader that refuses frames of more than `limit` bytes, and so never holds more than that and one chunk.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, held: BytesMut::new(), damaged: false }
    }

    /// Adds a chunk. Its frames are [`Frames::next_frame`]'s to give.
    pub fn feed(&mut self, chunk: &[u8]) {
        if !self.damaged {
            self.held.extend_from_slice(chunk);
        }
    }

    /// The next frame that is complete, if there is one.
    ///
    /// # Errors
    /// Where lengths, headers or checksums are not right.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, DamagedStream> {
        if self.damaged {
            return Err(DamagedStream);
        }
        let Some(length) = self.held.first_chunk::<4>().filter(|_| self.held.len() >= PRELUDE) else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length <= PRELUDE || length > self.limit {
            return Err(self.fail());
        }
        if self.held.len() < length {
            return Ok(None);
        }
        let mut frame = self.held.split_to(length).freeze();
        match read_message_from(&mut frame) {
            Ok(message) => Ok(Some(Frame { kind: kind(&message), payload: message.payload().clone() })),
            Err(_) => Err(self.fail()),
        }
    }

    /// How many bytes of an unfinished frame are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn fail(&mut self) -> DamagedStream {
        self.damaged = true;
        self.held = BytesMut::new();
        DamagedStream
    }
}

fn kind(message: &Message) -> FrameKind {
    let text = |name: &str| {
        let header = message.headers().iter().find(|header| header.name().as_str() == name);
        match header.map(|header| header.value()) {
            Some(HeaderValue::String(text)) => text.as_str().to_owned(),
            _ => String::new(),
        }
    };
    match &*text(":message-type") {
        "exception" => FrameKind::Exception(text(":exception-type")),
        "error" => FrameKind::Error(text(":error-code"), text(":error-message")),
        _ => FrameKind::Event(text(":event-type")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::Header;
    use proptest::prelude::*;

    use super::*;

    /// A frame as AWS sends it.
    pub(crate) fn frame(headers: &[(&str, &str)], payload: &str) -> Vec<u8> {
        let mut message = Message::new(payload.as_bytes().to_vec());
        for (name, value) in headers {
            let value = HeaderValue::String((*value).to_owned().into());
            message = message.add_header(Header::new((*name).to_owned(), value));
        }
        let mut out = Vec::new();
        write_message_to(&message, &mut out).unwrap();
        out
    }

    /// The frame of an event.
    pub(crate) fn event(name: &str, payload: &str) -> Vec<u8> {
        frame(
            &[(":event-type", name), (":content-type", "application/json"), (":message-type", "event")],
            payload,
        )
    }

    fn read(chunks: impl Iterator<Item = impl AsRef<[u8]>>, limit: usize) -> (Vec<Frame>, bool) {
        let mut frames = Frames::new(limit);
        let mut found = Vec::new();
        for chunk in chunks {
            frames.feed(chunk.as_ref());
            loop {
                match frames.next_frame() {
                    Ok(Some(frame)) => found.push(frame),
                    Ok(None) => break,
                    Err(DamagedStream) => return (found, true),
                }
            }
        }
        (found, false)
    }

    fn stream() -> Vec<u8> {
        let exception = [(":message-type", "exception"), (":exception-type", "throttlingException")];
        let error = [(":message-type", "error"), (":error-code", "500"), (":error-message", "no")];
        [event("messageStart", "{\"role\":1}"), event("x", ""), frame(&exception, "{}"), frame(&error, "")]
            .concat()
    }

    #[test]
    fn kinds_are_told_by_headers() {
        let (frames, damaged) = read(std::iter::once(stream()), 1024);
        assert!(!damaged);
        let kinds: Vec<_> = frames.iter().map(|frame| frame.kind.clone()).collect();
        let expected = [
            FrameKind::Event("messageStart".into()),
            FrameKind::Event("x".into()),
            FrameKind::Exception("throttlingException".into()),
            FrameKind::Error("500".into(), "no".into()),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(frames[0].payload, "{\"role\":1}");
    }

    #[test]
    fn a_damaged_byte_anywhere_ends_the_stream() {
        let stream = stream();
        let whole = read(std::iter::once(&stream), 1024).0;
        for at in 0..stream.len() {
            let mut damaged = stream.clone();
            damaged[at] ^= 1;
            let (frames, _) = read(std::iter::once(&damaged), 1024);
            assert!(frames.len() < whole.len() && whole.starts_with(&frames), "byte {at}");
        }
    }

    #[test]
    fn frames_beyond_the_limit_are_refused_before_they_are_held() {
        let long = event("x", &"y".repeat(1000));
        assert_eq!(read(std::iter::once(&long[..PRELUDE]), 1000), (Vec::new(), true));
        assert_eq!(read(std::iter::once(&long[..]), 2000).0.len(), 1);
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(size in 1..64_usize) {
            let stream = stream();
            prop_assert_eq!(read(stream.chunks(size), 1024), read(std::iter::once(&stream), 1024));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1..64_usize) {
            // A right beginning, so that more than the first length is looked at.
            let stream = [&event("x", "{}")[..], &bytes].concat();
            let (frames, _) = read(stream.chunks(size), 4096);
            prop_assert_eq!(&frames[0].payload[..], b"{}");
        }
    }
}
