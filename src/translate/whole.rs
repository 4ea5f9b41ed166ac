//! Answers and errors of another dialect in one document: held until their end, and translated then.

use bytes::{Bytes, BytesMut};

use super::decoding::Decoding;
use super::{ReadError, Report, chat_to_anthropic};
use crate::mutation::BodyChange;
use crate::usage::TokenUsage;

/// The longest document that is held, in bytes, without its encoding. Envoy's own limit is met first.
const MAX_DOCUMENT: usize = 64 * 1024 * 1024;

/// What a translation needs besides the document.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The model that was asked for.
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) status: u16,
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

/// Which translation.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    AnthropicAnswer,
    AnthropicError,
}

/// Holds a document.
#[derive(Debug)]
pub(super) struct Whole {
    form: Form,
    context: Context,
    decoding: Decoding,
    held: BytesMut,
    report: Report,
}

impl Whole {
    pub(super) fn new(form: Form, context: Context, decoding: Decoding) -> Self {
        Self { form, context, decoding, held: BytesMut::new(), report: Report::default() }
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
        let translated = match self.form {
            Form::AnthropicAnswer => chat_to_anthropic::answer(&document, &self.context)?,
            Form::AnthropicError => chat_to_anthropic::error(&document, &self.context),
        };
        self.report.usage = translated.usage;
        self.report.model = translated.model;
        Ok(BodyChange::Replace(translated.body))
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
