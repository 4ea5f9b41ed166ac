//! The answer as a stream, event by event.

use super::answer::BACKEND_ERROR;
use super::finish_reason;
use crate::codec::eventstream::{Frame, FrameKind};
use crate::translate::Report;
use crate::translate::chunks::{Chunks, Tool};
use crate::usage::AnthropicCounts;
use crate::wire::converse::answer::{Delta, Event};
use crate::wire::openai::answer as openai;
use crate::wire::openai::error_event;

/// The end of the stream. One line end less than the dialect has it: what the Go gateway writes, and clients see the end all
/// the same, by the end of the body.
const DONE: &[u8] = b"data: [DONE]\n";

/// Turns Bedrock's events into OpenAI's chunks.
#[derive(Debug)]
pub(in crate::translate) struct Events {
    chunks: Chunks,
    /// The client wants a chunk with the usage at the end.
    tells_usage: bool,
    /// The message has ended; what it cost may follow.
    stopped: bool,
    over: bool,
}

impl Events {
    pub(in crate::translate) fn new(chunks: Chunks, tells_usage: bool) -> Self {
        Self { chunks, tells_usage, stopped: false, over: false }
    }

    /// Whether the client got the whole answer.
    pub(in crate::translate) fn is_complete(&self) -> bool {
        self.over || self.stopped
    }

    /// Adds what a frame becomes to `out`. What cannot be read is left out.
    pub(in crate::translate) fn frame(&mut self, frame: &Frame, report: &mut Report, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        let event = serde_json::from_slice::<Event<'_>>(&frame.payload);
        match &frame.kind {
            FrameKind::Event(kind) => {
                if let Ok(event) = event {
                    self.event(kind, &event, frame.payload.len(), report, out);
                }
            }
            FrameKind::Exception(kind) => {
                let message = event.ok().and_then(|event| event.message);
                let kind = if kind.is_empty() { BACKEND_ERROR } else { kind };
                out.extend(error_event(kind, status(kind), message.as_deref().unwrap_or_default()));
                self.fail(report);
            }
            FrameKind::Error(code, message) => {
                let kind = if code.is_empty() { BACKEND_ERROR } else { code };
                out.extend(error_event(kind, 500, message));
                self.fail(report);
            }
        }
    }

    /// Adds the end to `out`, and what the client is to know if it came too early.
    pub(in crate::translate) fn end(&mut self, report: &mut Report, problem: &str, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        if self.stopped {
            self.over = true;
            out.extend_from_slice(DONE);
            return;
        }
        self.cut(report, problem, out);
    }

    /// Adds what the client is to know of a stream that cannot be read on.
    pub(in crate::translate) fn cut(&mut self, report: &mut Report, problem: &str, out: &mut Vec<u8>) {
        if !self.over {
            out.extend(error_event(BACKEND_ERROR, 502, problem));
            self.fail(report);
        }
    }

    fn fail(&mut self, report: &mut Report) {
        report.cut = true;
        self.over = true;
    }

    fn event(
        &mut self,
        kind: &str,
        event: &Event<'_>,
        length: usize,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) {
        match kind {
            "messageStart" => self.chunks.content("", out),
            "contentBlockStart" => {
                if let Some(tool) = event.start.as_ref().and_then(|start| start.tool_use.as_ref()) {
                    let tool = Tool { id: &tool.tool_use_id, name: &tool.name, arguments: "" };
                    self.chunks.tool_begins(&tool, out);
                }
            }
            "contentBlockDelta" => {
                report.delivered(length);
                if let Some(delta) = &event.delta {
                    self.delta(delta, out);
                }
            }
            "contentBlockStop" => self.chunks.tool_ends(out),
            "messageStop" => {
                self.stopped = true;
                self.chunks.tool_ends(out);
                self.chunks.last(finish_reason(event.stop_reason.as_deref()), out);
            }
            "metadata" => self.metadata(event, report, out),
            _ => {}
        }
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        if let Some(text) = &delta.text {
            self.chunks.content(text, out);
        }
        if let Some(tool) = &delta.tool_use {
            self.chunks.arguments(&tool.input, out);
        }
        let Some(reasoning) = &delta.reasoning_content else { return };
        if let Some(text) = &reasoning.text {
            self.chunks.thought(text, out);
        }
        if let Some(signature) = reasoning.signature.clone().filter(|signature| !signature.is_empty()) {
            self.chunks.block(openai::ThinkingBlock::thinking(None, Some(signature)), out);
        }
        if let Some(data) = reasoning.redacted_content.clone() {
            self.chunks.block(openai::ThinkingBlock::redacted(data), out);
        }
    }

    /// What the answer cost: the last of all events.
    fn metadata(&mut self, event: &Event<'_>, report: &mut Report, out: &mut Vec<u8>) {
        let counts = event.usage.and_then(|usage| AnthropicCounts::read_converse(usage.get().as_bytes()));
        if let Some(counts) = counts {
            report.usage = counts.unified();
            if self.tells_usage {
                self.chunks.service_tier = event.service_tier.as_ref().map(|tier| tier.r#type.to_string());
                let usage = openai::Usage::of(&report.usage).with_cache_if_any(&report.usage);
                self.chunks.usage(usage, out);
            }
        }
        if self.stopped {
            self.over = true;
            out.extend_from_slice(DONE);
        }
    }
}

/// The HTTP status that an exception has where it comes before the stream.
fn status(exception: &str) -> u16 {
    match exception {
        "validationException" => 400,
        "throttlingException" => 429,
        "modelTimeoutException" => 408,
        "modelStreamErrorException" => 424,
        "serviceUnavailableException" => 503,
        _ => 500,
    }
}
