//! What single stream events say, by the dialect they are in.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Report;
use crate::codec::sse::Event;
use crate::endpoint::Endpoint;
use crate::usage::{AnthropicCounts, TokenUsage};
use crate::wire::{anthropic, openai};

/// A text that is looked for in every event; building its finder anew would cost as much as the search.
type Mark = LazyLock<Finder<'static>>;

static FINISH_REASON: Mark = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
static ERROR: Mark = LazyLock::new(|| Finder::new(b"\"error\""));
static USAGE: Mark = LazyLock::new(|| Finder::new(b"\"usage\""));
static RESPONSE_DELTA: Mark = LazyLock::new(|| Finder::new(b".delta\""));
static CONTENT_DELTA: Mark = LazyLock::new(|| Finder::new(b"content_block_delta"));

/// How far a stream says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// More is to come.
    Open,
    /// The answer is complete.
    Complete,
    /// The provider told of an error in its place.
    Failed,
}

/// Reads the events of one stream, one after the other.
#[derive(Debug)]
pub(super) struct Observer {
    dialect: Dialect,
    progress: Progress,
}

#[derive(Debug)]
enum Dialect {
    /// OpenAI's chunks: chat completions and completions.
    Chunks,
    /// OpenAI's responses events.
    Responses,
    /// Anthropic's events, with the counts so far.
    Messages(AnthropicCounts),
    /// Events that report nothing.
    Silent,
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

#[derive(Deserialize)]
struct ResponseEvent<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    response: Option<Reported<'a>>,
}

#[derive(Deserialize)]
struct MessageEvent<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Reported<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Reported<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

impl Observer {
    /// The observer of an endpoint's streams.
    pub(super) fn of(endpoint: Endpoint) -> Self {
        let dialect = match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => Dialect::Chunks,
            Endpoint::Responses => Dialect::Responses,
            Endpoint::Messages => Dialect::Messages(AnthropicCounts::default()),
            _ => Dialect::Silent,
        };
        // What has no end of its own ends with its body.
        let progress = if matches!(dialect, Dialect::Silent) { Progress::Complete } else { Progress::Open };
        Self { dialect, progress }
    }

    /// How far the stream is, by the events observed.
    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// An event of the dialect that tells the client of a stream that was cut.
    pub(super) fn cut(&self, problem: &str) -> Bytes {
        match self.dialect {
            Dialect::Messages(_) => anthropic::error_event(502, problem),
            _ => openai::error_event("UpstreamError", 502, problem).into(),
        }
    }

    /// Reads one event into the report. Whether it is a usage event, which carries nothing else.
    pub(super) fn observe(&mut self, report: &mut Report, event: &Event) -> bool {
        let Some(data) = event.data() else { return false };
        match &mut self.dialect {
            Dialect::Chunks => return chunk(report, &mut self.progress, &data),
            Dialect::Responses => response(report, &mut self.progress, &data),
            Dialect::Messages(counts) => message(report, &mut self.progress, counts, &data),
            Dialect::Silent => {}
        }
        false
    }
}

fn chunk(report: &mut Report, progress: &mut Progress, data: &[u8]) -> bool {
    if data.is_empty() {
        return false;
    }
    if data == b"[DONE]" {
        // After an error some say all the same that they are done.
        if *progress == Progress::Open {
            *progress = Progress::Complete;
        }
        return false;
    }
    // Not every provider says that it is done. An answer that has its finish reason is complete without; an event that breaks
    // off is none.
    if *progress == Progress::Open && has_value(data, &FINISH_REASON) && is_json(data) {
        *progress = Progress::Complete;
    }
    if report.model.is_none() || has_value(data, &USAGE) {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else { return false };
        name(report, chunk.model);
        if let Some(usage) = chunk.usage.and_then(|usage| TokenUsage::from_openai(usage.get().as_bytes())) {
            report.usage.merge(usage);
            if chunk.choices.is_none_or(is_empty_array) {
                *progress = Progress::Complete;
                return true;
            }
        }
    }
    if *progress == Progress::Open && has_value(data, &ERROR) && is_error(data) {
        *progress = Progress::Failed;
    }
    report.delivered(data.len());
    false
}

/// Whether an event is an error rather than a chunk that says the word.
fn is_error(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Failed<'a> {
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let failed = serde_json::from_slice::<Failed<'_>>(data);
    failed.is_ok_and(|failed| failed.error.is_some_and(|error| error.get() != "null"))
}

fn response(report: &mut Report, progress: &mut Progress, data: &[u8]) {
    if has(data, &RESPONSE_DELTA) {
        report.delivered(data.len());
        return;
    }
    let Ok(event) = serde_json::from_slice::<ResponseEvent<'_>>(data) else { return };
    match event.r#type.as_deref() {
        Some("response.completed" | "response.incomplete") => *progress = Progress::Complete,
        Some("response.failed" | "response.cancelled" | "error") => *progress = Progress::Failed,
        _ => {}
    }
    let Some(response) = event.response else { return };
    name(report, response.model);
    if let Some(usage) = response.usage.and_then(|usage| TokenUsage::from_openai(usage.get().as_bytes())) {
        report.usage.merge(usage);
    }
}

fn message(report: &mut Report, progress: &mut Progress, counts: &mut AnthropicCounts, data: &[u8]) {
    if has(data, &CONTENT_DELTA) {
        report.delivered(data.len());
        return;
    }
    let Ok(event) = serde_json::from_slice::<MessageEvent<'_>>(data) else { return };
    match event.r#type.as_deref() {
        Some("message_stop") => *progress = Progress::Complete,
        Some("error") => *progress = Progress::Failed,
        _ => {}
    }
    let first = event.message.map(|message| {
        name(report, message.model);
        message.usage
    });
    for usage in [first.flatten(), event.usage].into_iter().flatten() {
        if let Some(later) = AnthropicCounts::read(usage.get().as_bytes()) {
            counts.update(later);
            report.usage = counts.unified();
        }
    }
}

fn name(report: &mut Report, model: Option<Cow<'_, str>>) {
    if let Some(model) = model.filter(|model| !model.is_empty()) {
        report.model = Some(model.into_owned());
    }
}

fn has(data: &[u8], mark: &Mark) -> bool {
    mark.find(data).is_some()
}

/// Whether a member of that name may be there and not null. A provider that was asked for usage says `"usage":null` in every
/// event but one.
fn has_value(data: &[u8], mark: &Mark) -> bool {
    mark.find_iter(data).any(|at| {
        let value = data[at + mark.needle().len()..].trim_ascii_start();
        let value = value.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value.is_some_and(|value| !value.starts_with(b"null"))
    })
}

fn is_json(data: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(data).is_ok()
}

fn is_empty_array(raw: &RawValue) -> bool {
    let inner = raw.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| inner.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_with_counts_are_looked_into() {
        for (data, expected) in [
            (&br#"{"usage":{"total_tokens":1}}"#[..], true),
            (br#"{"usage" : {"total_tokens":1}}"#, true),
            (br#"{"usage":null}"#, false),
            (b"{\"usage\":\n null}", false),
            (br#"{"x_groq":{"usage":null},"usage":{"total_tokens":1}}"#, true),
            (br#"{"choices":[{"delta":{"content":"\"usage\": 1"}}]}"#, false),
            (br#"{"choices":["usage"]}"#, false),
            (br#"{"usage""#, false),
        ] {
            assert_eq!(has_value(data, &USAGE), expected, "{}", String::from_utf8_lossy(data));
        }
    }
}
