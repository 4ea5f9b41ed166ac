//! Answers in server-sent events.

use bytes::{Bytes, BytesMut};

use crate::codec::encoding::DecodeError;
use crate::codec::sse::Splitter;
use crate::headers::HeaderEdits;
use crate::mutation::BodyChange;
use crate::translate::decoding::Decoding;
use crate::translate::observe::{Observer, Progress};
use crate::translate::{CUT, MAX_EVENT, Report};

/// Reads usage out of a stream of events. Where the usage event is to be hidden, an incomplete event is held until its end,
/// because it might be the one; everything else passes as it came, at once.
#[derive(Debug)]
pub(super) struct Stream {
    observer: Observer,
    decoding: Decoding,
    /// The client gets the decoded bytes: something may have to be taken out of a compressed stream.
    rewrites: bool,
    hide_usage: bool,
    splitter: Splitter,
    /// An event was too long: it passes, and so does everything after it; nothing is read or hidden any more.
    blind: bool,
    /// The last event has no end.
    unfinished: bool,
    report: Report,
}

impl Stream {
    pub(super) fn new(
        observer: Observer,
        decoding: Decoding,
        hide_usage: bool,
        edits: &mut HeaderEdits,
    ) -> Self {
        let rewrites = hide_usage && decoding.is_compressed();
        if rewrites {
            edits.remove("content-encoding");
        }
        let splitter = Splitter::new(MAX_EVENT);
        // What cannot be decoded cannot be read: it passes.
        let blind = decoding.is_unknown();
        Self {
            observer,
            decoding,
            rewrites,
            hide_usage,
            splitter,
            blind,
            unfinished: false,
            report: Report::default(),
        }
    }

    pub(super) fn chunk(&mut self, chunk: Bytes, end: bool) -> Result<BodyChange, DecodeError> {
        if self.blind && !self.rewrites {
            return Ok(BodyChange::Keep);
        }
        let text = if self.rewrites {
            self.decoding.strict(&chunk, end)?
        } else {
            match self.decoding.lenient(&chunk) {
                Some(text) => text,
                None => return Ok(BodyChange::Keep),
            }
        };
        let out = self.events(text, end);
        let ending = if end { self.ending() } else { None };
        Ok(match (out, ending) {
            (Some(out), Some(ending)) => BodyChange::Replace([out, ending].concat().into()),
            (Some(out), None) => BodyChange::Replace(out),
            // Nothing can be said to the client within a compression that is not ours.
            (None, Some(ending)) if !self.decoding.is_compressed() => {
                BodyChange::Replace([chunk, ending].concat().into())
            }
            (None, _) => BodyChange::Keep,
        })
    }

    /// What the client is to be told at the end of a stream that the provider did not bring to its end.
    fn ending(&mut self) -> Option<Bytes> {
        if self.blind {
            return None;
        }
        let progress = self.observer.progress();
        self.report.cut = progress != Progress::Complete;
        if progress != Progress::Open {
            return None;
        }
        let ending = self.observer.cut(CUT);
        Some(if self.unfinished { [b"\n\n", &ending[..]].concat().into() } else { ending })
    }

    /// Takes over what was read of a body that ended without a chunk that said so.
    pub(super) fn finish(&mut self) {
        if let Some(tail) = self.splitter.finish() {
            self.observer.observe(&mut self.report, &tail);
        }
        self.ending();
    }

    /// Reads the events that `text` completes. Returns what the client is to get in its place; nothing where it gets the
    /// chunk as it came.
    fn events(&mut self, text: Bytes, end: bool) -> Option<Bytes> {
        if self.blind {
            return Some(text);
        }
        let held_before = self.splitter.held();
        let mut out = BytesMut::new();
        let mut hidden = false;
        let mut passed: Option<Bytes> = None;
        let mut too_long = false;
        // Two fields are borrowed at once: the splitter by its events, the rest by the observer.
        let Self { observer, splitter, report, hide_usage, .. } = self;
        for event in splitter.feed(text) {
            let Ok(event) = event else {
                too_long = true;
                break;
            };
            if observer.observe(report, &event) && *hide_usage {
                hidden = true;
                continue;
            }
            // A single event passes without a copy.
            match passed.take() {
                None if out.is_empty() => passed = Some(event.into_raw()),
                first => {
                    out.extend_from_slice(&first.unwrap_or_default());
                    out.extend_from_slice(event.raw());
                }
            }
        }
        if end || too_long {
            self.blind |= too_long;
            if let Some(tail) = self.splitter.finish() {
                self.unfinished = true;
                let is_usage = !too_long && self.observer.observe(&mut self.report, &tail);
                if is_usage && self.hide_usage {
                    hidden = true;
                } else {
                    out.extend_from_slice(&passed.take().unwrap_or_default());
                    out.extend_from_slice(tail.raw());
                }
            }
        }
        let untouched = !hidden && held_before == 0 && self.splitter.held() == 0;
        if !self.hide_usage || (untouched && !self.rewrites) {
            return None;
        }
        Some(passed.unwrap_or_else(|| out.freeze()))
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}

#[cfg(test)]
mod tests;
