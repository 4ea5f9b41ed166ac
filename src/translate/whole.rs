//! Answers and errors of another dialect in one document, which Envoy holds until it is whole.

use bytes::Bytes;

use super::decoding::Decoding;
use super::{Answer, Pair, ReadError, Report, chat_to_anthropic, chat_to_converse};
use crate::headers::Headers;
use crate::mutation::BodyChange;
use crate::usage::TokenUsage;

/// What a translation needs besides the document.
#[derive(Debug)]
pub(super) struct Context {
    pair: Pair,
    /// The model that was asked for.
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) status: u16,
    /// What AWS calls the request; empty where it does not.
    pub(super) request_id: String,
    /// What AWS calls the error.
    pub(super) error_type: Option<String>,
    /// The document is JSON, by its header.
    pub(super) is_json: bool,
}

impl Context {
    pub(super) fn new(answer: &Answer<'_>, headers: &Headers, created: u64) -> Self {
        let text = |name| headers.text(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let content_type = headers.text("content-type").unwrap_or_default();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        Self {
            pair: answer.pair,
            model: answer.model.to_owned(),
            created,
            status: answer.status,
            request_id: text("x-amzn-requestid").unwrap_or_default(),
            error_type: text("x-amzn-errortype"),
            is_json: kind.to_ascii_lowercase().ends_with("json"),
        }
    }
}

/// A document in the client's terms, and what it said.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) body: Bytes,
    pub(super) usage: TokenUsage,
    /// The model, where the provider names it.
    pub(super) model: Option<String>,
}

impl Translated {
    pub(super) fn error(body: Bytes) -> Self {
        Self { body, usage: TokenUsage::default(), model: None }
    }
}

/// Translates a document.
#[derive(Debug)]
pub(super) struct Whole {
    context: Context,
    decoding: Decoding,
    done: bool,
    report: Report,
}

impl Whole {
    pub(super) fn new(context: Context, decoding: Decoding) -> Self {
        Self { context, decoding, done: false, report: Report::default() }
    }

    /// Takes the document, which comes in one chunk; an empty one is none.
    pub(super) fn chunk(&mut self, chunk: &Bytes, whole: bool) -> Result<BodyChange, ReadError> {
        if !whole || std::mem::replace(&mut self.done, true) {
            return Ok(BodyChange::Replace(Bytes::new()));
        }
        let document = self.decoding.strict(chunk, true)?;
        self.report.event_bytes += document.len() as u64;
        let context = &self.context;
        let failed = !(200..300).contains(&context.status);
        let translated = match context.pair {
            Pair::ChatToAnthropic if failed => chat_to_anthropic::error(&document, context),
            Pair::ChatToAnthropic => chat_to_anthropic::answer(&document, context)?,
            Pair::ChatToConverse if failed => chat_to_converse::error(&document, context),
            Pair::ChatToConverse => chat_to_converse::answer(&document, context)?,
            Pair::Same => return Ok(BodyChange::Replace(document)),
        };
        self.report.usage = translated.usage;
        self.report.model = translated.model;
        Ok(BodyChange::Replace(translated.body))
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
