//! Streams of another dialect.

use bytes::Bytes;

use super::decoding::Decoding;
use super::{CUT, MAX_EVENT, ReadError, Report, chat_to_anthropic, chat_to_converse};
use crate::codec::eventstream::Frames;
use crate::codec::sse::Splitter;
use crate::mutation::BodyChange;

/// What is said to the client of a stream that goes on, but not here.
const TOO_LONG: &str = "the provider sent an event that is too long to be translated";

/// What is said to the client of a stream that cannot be read on.
const DAMAGED: &str = "the provider's stream is damaged";

/// Translates a stream as it comes. What is not a whole event yet is held; everything else goes out at once.
#[derive(Debug)]
pub(super) struct Stream {
    decoding: Decoding,
    source: Source,
    report: Report,
}

/// How the provider's stream is made of events.
#[derive(Debug)]
enum Source {
    /// Server-sent events.
    Anthropic(Splitter, chat_to_anthropic::Events),
    /// AWS's event stream.
    Converse(Frames, chat_to_converse::Events),
}

impl Stream {
    pub(super) fn anthropic(events: chat_to_anthropic::Events, decoding: Decoding) -> Self {
        let source = Source::Anthropic(Splitter::new(MAX_EVENT), events);
        Self { decoding, source, report: Report::default() }
    }

    pub(super) fn converse(events: chat_to_converse::Events, decoding: Decoding) -> Self {
        let source = Source::Converse(Frames::new(MAX_EVENT), events);
        Self { decoding, source, report: Report::default() }
    }

    pub(super) fn chunk(&mut self, chunk: &Bytes, end: bool) -> Result<BodyChange, ReadError> {
        let text = self.decoding.strict(chunk, end)?;
        let mut out = Vec::with_capacity(text.len());
        match &mut self.source {
            Source::Anthropic(splitter, events) => {
                for event in splitter.feed(text) {
                    match event {
                        Ok(event) => events.event(&event, &mut self.report, &mut out),
                        Err(_) => events.cut(&mut self.report, TOO_LONG, &mut out),
                    }
                }
                if end {
                    if let Some(event) = splitter.finish() {
                        events.event(&event, &mut self.report, &mut out);
                    }
                    events.cut(&mut self.report, CUT, &mut out);
                }
            }
            Source::Converse(frames, events) => {
                frames.feed(&text);
                loop {
                    match frames.next_frame() {
                        Ok(Some(frame)) => events.frame(&frame, &mut self.report, &mut out),
                        Ok(None) => break,
                        Err(_) => {
                            events.cut(&mut self.report, DAMAGED, &mut out);
                            break;
                        }
                    }
                }
                if end {
                    events.end(&mut self.report, CUT, &mut out);
                }
            }
        }
        Ok(BodyChange::Replace(out.into()))
    }

    /// Takes over that the body ended without a chunk that said so.
    pub(super) fn finish(&mut self) {
        let complete = match &self.source {
            Source::Anthropic(_, events) => events.is_over(),
            Source::Converse(_, events) => events.is_complete(),
        };
        self.report.cut |= !complete;
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
