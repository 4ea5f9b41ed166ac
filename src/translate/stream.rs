//! Answers in server-sent events.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::encoding::DecodeError;
use crate::codec::sse::{Event, Splitter};
use crate::headers::HeaderEdits;
use crate::mutation::BodyChange;
use crate::translate::Report;
use crate::translate::decoding::Decoding;
use crate::usage::TokenUsage;

/// The longest event that is looked into. A longer one passes, and so does everything after it.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// Reads usage out of a stream of events. Where the usage event is to be hidden, an incomplete event is held until its end,
/// because it might be the one; everything else passes as it came, at once.
#[derive(Debug)]
pub(super) struct Stream {
    decoding: Decoding,
    /// The client gets the decoded bytes: something may have to be taken out of a compressed stream.
    rewrites: bool,
    hide_usage: bool,
    splitter: Splitter,
    /// An event was too long: nothing is read or hidden any more.
    blind: bool,
    report: Report,
}

/// The members of a chunk that say what it is. `choices` is empty on the usage event.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<&'a RawValue>,
}

impl Stream {
    pub(super) fn new(decoding: Decoding, hide_usage: bool, edits: &mut HeaderEdits) -> Self {
        let rewrites = hide_usage && decoding.is_compressed();
        if rewrites {
            edits.remove("content-encoding");
        }
        let splitter = Splitter::new(MAX_EVENT);
        // What cannot be decoded cannot be read: it passes.
        let blind = decoding.is_unknown();
        Self { decoding, rewrites, hide_usage, splitter, blind, report: Report::default() }
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
        Ok(match out {
            Some(out) => BodyChange::Replace(out),
            None => BodyChange::Keep,
        })
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
        // Two fields are borrowed at once: the splitter by its events, the rest by `observe`.
        let Self { splitter, report, hide_usage, .. } = self;
        for event in splitter.feed(text) {
            let Ok(event) = event else {
                too_long = true;
                break;
            };
            if observe(report, &event) && *hide_usage {
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
                let is_usage = !too_long && observe(&mut self.report, &tail);
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

/// Reads one event into the report. Whether it is the usage event, which carries nothing else.
fn observe(report: &mut Report, event: &Event) -> bool {
    let Some(data) = event.data() else { return false };
    if data.is_empty() || *data == *b"[DONE]" {
        return false;
    }
    let length = data.len() as u64;
    let may_report = memchr::memmem::find(&data, b"\"usage\"").is_some();
    if may_report || report.model.is_none() {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(&data) else { return false };
        if let Some(model) = chunk.model.filter(|model| !model.is_empty()) {
            report.model = Some(model.into_owned());
        }
        if let Some(usage) = chunk.usage.and_then(|usage| TokenUsage::from_openai(usage.get().as_bytes())) {
            report.usage.merge(usage);
            if chunk.choices.is_none_or(is_empty_array) {
                return true;
            }
        }
    }
    report.shortest_event = if report.events == 0 { length } else { report.shortest_event.min(length) };
    report.events += 1;
    report.event_bytes += length;
    false
}

fn is_empty_array(raw: &RawValue) -> bool {
    let inner = raw.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.trim().is_empty())
}
