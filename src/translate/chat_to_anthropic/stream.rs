//! The answer as a stream, event by event.

use super::answer::error_event;
use super::finish_reason;
use crate::codec::sse::Event;
use crate::translate::Report;
use crate::translate::chunks::{Chunks, Tool};
use crate::usage::AnthropicCounts;
use crate::wire::anthropic::answer::{self, Block, Delta};
use crate::wire::anthropic::error_status;
use crate::wire::openai::answer as openai;

/// Turns Anthropic's events into OpenAI's chunks.
#[derive(Debug)]
pub(in crate::translate) struct Events {
    chunks: Chunks,
    counts: AnthropicCounts,
    /// The client wants a chunk with the usage at the end.
    tells_usage: bool,
    finish_reason: &'static str,
    over: bool,
}

impl Events {
    pub(in crate::translate) fn new(chunks: Chunks, tells_usage: bool) -> Self {
        Self { chunks, counts: AnthropicCounts::default(), tells_usage, finish_reason: "stop", over: false }
    }

    /// Whether the answer has come to an end, be it a bad one.
    pub(in crate::translate) fn is_over(&self) -> bool {
        self.over
    }

    /// Adds what an event becomes to `out`. What cannot be read is left out.
    pub(in crate::translate) fn event(&mut self, event: &Event, report: &mut Report, out: &mut Vec<u8>) {
        let Some(data) = event.data().filter(|_| !self.over) else { return };
        let Ok(event) = serde_json::from_slice::<answer::Event<'_>>(&data) else { return };
        match &*event.r#type {
            "message_start" => self.start(event, report),
            "content_block_start" => self.block(event.content_block.as_ref(), out),
            "content_block_delta" => {
                report.delivered(data.len());
                self.delta(event.delta.as_ref(), out);
            }
            "content_block_stop" => self.chunks.tool_ends(out),
            "message_delta" => {
                if let Some(reason) = event.delta.as_ref().and_then(|delta| delta.stop_reason.as_deref()) {
                    self.finish_reason = finish_reason(Some(reason));
                }
                self.count(event.usage.map(|usage| usage.get()), report);
            }
            "message_stop" => self.stop(report, out),
            // Keeps the connection of the client alive as it does the one to the provider.
            "ping" => self.chunks.delta(openai::Delta::default(), None, out),
            "error" => {
                let error = event.error.as_ref();
                let kind = error.map(|error| &error.r#type).filter(|kind| !kind.is_empty());
                let status = kind.map_or(500, |kind| error_status(kind));
                let message = error.map(|error| &*error.message).unwrap_or_default();
                out.extend(error_event(kind, status, message));
                self.fail(report);
            }
            _ => {}
        }
    }

    /// Adds what the client is to know of a stream that ended, or cannot be read on, before the answer was complete.
    pub(in crate::translate) fn cut(&mut self, report: &mut Report, problem: &str, out: &mut Vec<u8>) {
        if !self.over {
            out.extend(error_event(None, 502, problem));
            self.fail(report);
        }
    }

    fn fail(&mut self, report: &mut Report) {
        report.cut = true;
        self.over = true;
    }

    fn start(&mut self, event: answer::Event<'_>, report: &mut Report) {
        let Some(message) = event.message else { return };
        self.count(message.usage.map(|usage| usage.get()), report);
        if !message.id.is_empty() {
            self.chunks.id = message.id.to_string();
        }
        if let Some(model) = message.model.filter(|model| !model.is_empty()) {
            self.chunks.model = model.to_string();
            report.model = Some(self.chunks.model.clone());
        }
    }

    fn count(&mut self, usage: Option<&str>, report: &mut Report) {
        if let Some(later) = usage.and_then(|usage| AnthropicCounts::read(usage.as_bytes())) {
            self.counts.update(later);
            report.usage = self.counts.unified();
        }
    }

    fn block(&mut self, block: Option<&Block<'_>>, out: &mut Vec<u8>) {
        let Some(block) = block else { return };
        match &*block.r#type {
            "text" => self.chunks.content(block.text.as_deref().unwrap_or_default(), out),
            "thinking" => {
                self.chunks.thought(block.thinking.as_deref().unwrap_or_default(), out);
                self.sign(block.signature.as_deref(), out);
            }
            "redacted_thinking" => {
                if let Some(data) = &block.data {
                    self.chunks.block(openai::ThinkingBlock::redacted(data.clone()), out);
                }
            }
            "tool_use" => {
                let input = block.input.as_ref();
                let empty = input.is_none_or(|input| {
                    input.is_null() || input.as_object().is_some_and(|input| input.is_empty())
                });
                let arguments = if empty { String::new() } else { openai::arguments(input) };
                let tool = Tool {
                    id: block.id.as_deref().unwrap_or_default(),
                    name: block.name.as_deref().unwrap_or_default(),
                    arguments: &arguments,
                };
                self.chunks.tool_begins(&tool, out);
            }
            // Blocks of tools that the provider runs itself have no counterpart.
            _ => {}
        }
    }

    fn delta(&mut self, delta: Option<&Delta<'_>>, out: &mut Vec<u8>) {
        let Some(delta) = delta else { return };
        match delta.r#type.as_deref() {
            Some("text_delta") => self.chunks.content(delta.text.as_deref().unwrap_or_default(), out),
            Some("thinking_delta") => {
                self.chunks.thought(delta.thinking.as_deref().unwrap_or_default(), out);
            }
            Some("signature_delta") => self.sign(delta.signature.as_deref(), out),
            Some("input_json_delta") => {
                self.chunks.arguments(delta.partial_json.as_deref().unwrap_or_default(), out);
            }
            _ => {}
        }
    }

    fn sign(&mut self, signature: Option<&str>, out: &mut Vec<u8>) {
        if let Some(signature) = signature.filter(|signature| !signature.is_empty()) {
            self.chunks.block(openai::ThinkingBlock::thinking(None, Some(signature.into())), out);
        }
    }

    fn stop(&mut self, report: &Report, out: &mut Vec<u8>) {
        self.over = true;
        self.chunks.tool_ends(out);
        self.chunks.delta(openai::Delta::default(), Some(self.finish_reason), out);
        if self.tells_usage && !report.usage.is_empty() {
            let usage = openai::Usage {
                completion_tokens_details: Some(openai::CompletionDetails::default()),
                ..openai::Usage::of(&report.usage).with_cache(&report.usage)
            };
            self.chunks.usage(usage, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}
