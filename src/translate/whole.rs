//! Answers and errors of another dialect in one document: held until their end, and translated then.

use bytes::{Bytes, BytesMut};

use super::decoding::Decoding;
use super::{Answer, Pair, ReadError, Report, chat_to_anthropic, chat_to_converse};
use crate::headers::Headers;
use crate::mutation::BodyChange;
use crate::usage::TokenUsage;

/// The longest document that is held, in bytes, without its encoding. Envoy's own limit is met first.
const MAX_DOCUMENT: usize = 64 * 1024 * 1024;

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

/// Holds a document.
#[derive(Debug)]
pub(super) struct Whole {
    context: Context,
    decoding: Decoding,
    held: BytesMut,
    report: Report,
}

impl Whole {
    pub(super) fn new(context: Context, decoding: Decoding) -> Self {
        Self { context, decoding, held: BytesMut::new(), report: Report::default() }
    }

    pub(super) fn chunk(&mut self, chunk: &Bytes, end: bool) -> Result<BodyChange, ReadError> {
        let text = self.decoding.strict(chunk, end)?;
        if self.held.len() + text.len() > MAX_DOCUMENT {
            return Err(ReadError::TooLong);
        }
        self.report.event_bytes += text.len() as u64;
        self.held.extend_from_slice(&text);
        if !end {
            return Ok(BodyChange::Replace(Bytes::new()));
        }
        let document = std::mem::take(&mut self.held);
        let context = &self.context;
        let failed = !(200..300).contains(&context.status);
        let translated = match context.pair {
            Pair::ChatToAnthropic if failed => chat_to_anthropic::error(&document, context),
            Pair::ChatToAnthropic => chat_to_anthropic::answer(&document, context)?,
            Pair::ChatToConverse if failed => chat_to_converse::error(&document, context),
            Pair::ChatToConverse => chat_to_converse::answer(&document, context)?,
            Pair::Same => return Ok(BodyChange::Replace(document.freeze())),
        };
        self.report.usage = translated.usage;
        self.report.model = translated.model;
        Ok(BodyChange::Replace(translated.body))
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
