//! Chat completions served by AWS Bedrock's Converse API.

mod answer;
mod request;
mod stream;

pub(super) use self::answer::{answer, error};
pub(super) use self::request::request;
pub(super) use self::stream::Events;

/// The finish reason that a stop reason becomes. One that is not known yet ends an answer like any other.
fn finish_reason(stop_reason: Option<&str>) -> &'static str {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded") => "length",
        Some("tool_use") => "tool_calls",
        Some("content_filtered" | "guardrail_intervened") => "content_filter",
        _ => "stop",
    }
}

#[cfg(test)]
mod tests;
