//! Answers in one JSON document.

use bytes::Bytes;

use crate::codec::json::MemberScanner;
use crate::endpoint::Endpoint;
use crate::translate::Report;
use crate::translate::decoding::Decoding;
use crate::usage::{AnthropicCounts, TokenUsage};

/// The largest member that is read, in bytes.
const MAX_MEMBER: usize = 64 * 1024;

/// Where an answer says what it used.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// OpenAI's `usage` and `model`.
    Usage,
    /// Anthropic's `usage` and `model`.
    Messages,
    /// `input_tokens`, a number.
    InputTokens,
    /// Cohere's `meta`.
    Meta,
}

impl Form {
    fn of(endpoint: Endpoint) -> Option<Self> {
        Some(match endpoint {
            Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Responses
            | Endpoint::ImageGenerations => Self::Usage,
            Endpoint::Messages => Self::Messages,
            Endpoint::ResponsesInputTokens | Endpoint::CountTokens => Self::InputTokens,
            Endpoint::Rerank => Self::Meta,
            Endpoint::Speech
            | Endpoint::Transcriptions
            | Endpoint::Translations
            | Endpoint::Tokenize
            | Endpoint::Models
            | Endpoint::AnthropicModels => return None,
        })
    }

    fn members(self) -> &'static [&'static str] {
        match self {
            Self::Usage | Self::Messages => &["usage", "model"],
            Self::InputTokens => &["input_tokens"],
            Self::Meta => &["meta"],
        }
    }
}

/// Reads the few members that count out of a JSON document of any size, holding only those. The document itself always
/// passes as it is, whatever is wrong with it.
#[derive(Debug)]
pub(super) struct Unary {
    form: Form,
    decoding: Decoding,
    scanner: MemberScanner,
    report: Report,
}

impl Unary {
    /// A reader for answers of that endpoint; none if they report nothing.
    pub(super) fn new(endpoint: Endpoint, decoding: Decoding) -> Option<Self> {
        let form = Form::of(endpoint)?;
        let scanner = MemberScanner::new(form.members(), MAX_MEMBER);
        Some(Self { form, decoding, scanner, report: Report::default() })
    }

    pub(super) fn chunk(&mut self, chunk: &Bytes, end: bool) {
        if let Some(text) = self.decoding.lenient(chunk) {
            self.scanner.push(&text);
            self.report.event_bytes += text.len() as u64;
        }
        if end {
            self.finish();
        }
    }

    /// Takes over what the document said. Harmless to call again.
    pub(super) fn finish(&mut self) {
        let member = |name| self.scanner.member(name);
        let usage = match self.form {
            Form::Usage => member("usage").and_then(TokenUsage::from_openai),
            Form::Messages => member("usage").and_then(AnthropicCounts::read).map(|counts| counts.unified()),
            Form::InputTokens => member("input_tokens").and_then(TokenUsage::from_input_tokens),
            Form::Meta => member("meta").and_then(TokenUsage::from_cohere_meta),
        };
        if let Some(usage) = usage {
            self.report.usage = usage;
        }
        if let Some(model) = member("model") {
            self.report.model = serde_json::from_slice(model).ok();
        }
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
