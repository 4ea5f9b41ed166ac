//! What single stream events say, by the dialect they are in.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Report;
use crate::codec::sse::Event;
use crate::endpoint::Endpoint;
use crate::usage::{AnthropicCounts, TokenUsage};

/// A text that is looked for in every event; building its finder anew would cost as much as the search.
type Mark = LazyLock<Finder<'static>>;

static USAGE: Mark = LazyLock::new(|| Finder::new(b"\"usage\""));
static RESPONSE_DELTA: Mark = LazyLock::new(|| Finder::new(b".delta\""));
static CONTENT_DELTA: Mark = LazyLock::new(|| Finder::new(b"content_block_delta"));

/// Reads the events of one stream, one after the other.
#[derive(Debug)]
pub(super) enum Observer {
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
    response: Option<Reported<'a>>,
}

#[derive(Deserialize)]
struct MessageEvent<'a> {
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
        match endpoint {
            Endpoint::ChatCompletions | Endpoint::Completions => Self::Chunks,
            Endpoint::Responses => Self::Responses,
            Endpoint::Messages => Self::Messages(AnthropicCounts::default()),
            _ => Self::Silent,
        }
    }

    /// Reads one event into the report. Whether it is a usage event, which carries nothing else.
    pub(super) fn observe(&mut self, report: &mut Report, event: &Event) -> bool {
        let Some(data) = event.data() else { return false };
        match self {
            Self::Chunks => chunk(report, &data),
            Self::Responses => {
                response(report, &data);
                false
            }
            Self::Messages(counts) => {
                message(report, counts, &data);
                false
            }
            Self::Silent => false,
        }
    }
}

fn chunk(report: &mut Report, data: &[u8]) -> bool {
    if data.is_empty() || data == b"[DONE]" {
        return false;
    }
    if report.model.is_none() || reports_usage(data) {
        let Ok(chunk) = serde_json::from_slice::<Chunk<'_>>(data) else { return false };
        name(report, chunk.model);
        if let Some(usage) = chunk.usage.and_then(|usage| TokenUsage::from_openai(usage.get().as_bytes())) {
            report.usage.merge(usage);
            if chunk.choices.is_none_or(is_empty_array) {
                return true;
            }
        }
    }
    report.delivered(data.len());
    false
}

fn response(report: &mut Report, data: &[u8]) {
    if has(data, &RESPONSE_DELTA) {
        report.delivered(data.len());
        return;
    }
    // Only the first event and the last one are worth reading.
    if report.model.is_some() && !reports_usage(data) {
        return;
    }
    let Ok(ResponseEvent { response: Some(response) }) = serde_json::from_slice(data) else { return };
    name(report, response.model);
    if let Some(usage) = response.usage.and_then(|usage| TokenUsage::from_openai(usage.get().as_bytes())) {
        report.usage.merge(usage);
    }
}

fn message(report: &mut Report, counts: &mut AnthropicCounts, data: &[u8]) {
    if has(data, &CONTENT_DELTA) {
        report.delivered(data.len());
        return;
    }
    if !reports_usage(data) {
        return;
    }
    let Ok(event) = serde_json::from_slice::<MessageEvent<'_>>(data) else { return };
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

/// Whether there may be counts in an event. A provider that was asked for usage says `"usage":null` in every event but one.
fn reports_usage(data: &[u8]) -> bool {
    USAGE.find_iter(data).any(|at| {
        let value = data[at + USAGE.needle().len()..].trim_ascii_start();
        let value = value.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        value.is_some_and(|value| !value.starts_with(b"null"))
    })
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
            assert_eq!(reports_usage(data), expected, "{}", String::from_utf8_lossy(data));
        }
    }
}
