//! Errors of providers that are not JSON.

use bytes::Bytes;

use crate::endpoint::Endpoint;
use crate::headers::HeaderEdits;
use crate::mutation::BodyChange;
use crate::translate::decoding::Decoding;
use crate::translate::{Answer, Report};
use crate::wire::{anthropic, cohere, openai};

/// As much of an error's text is repeated to the client, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// How an error is told in the client's dialect.
#[derive(Debug, Clone, Copy)]
enum Form {
    OpenAi,
    Cohere,
    Anthropic,
}

/// The wrapper for an answer with an error status: none where the client understands the body as it is, or where the
/// endpoint's errors are passed on whatever they are.
pub(super) fn wrapper(
    answer: &Answer<'_>,
    content_type: Option<&str>,
    decoding: Decoding,
    edits: &mut HeaderEdits,
) -> Option<Wrapper> {
    let form = match answer.endpoint {
        Endpoint::Completions | Endpoint::CountTokens => return None,
        // Its errors without a content type pass.
        Endpoint::Rerank if content_type.is_none() => return None,
        Endpoint::Rerank => Form::Cohere,
        Endpoint::Messages => Form::Anthropic,
        _ => Form::OpenAi,
    };
    let kind = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.to_ascii_lowercase().ends_with("json") || decoding.is_unknown() {
        return None;
    }
    edits.set("content-type", "application/json");
    if decoding.is_compressed() {
        edits.remove("content-encoding");
    }
    Some(Wrapper { form, status: answer.status, decoding, done: false, report: Report::default() })
}

/// Gives an error's text to the client in JSON.
#[derive(Debug)]
pub(super) struct Wrapper {
    form: Form,
    status: u16,
    decoding: Decoding,
    done: bool,
    report: Report,
}

impl Wrapper {
    /// Takes the text, which comes in one chunk; an empty one is none.
    pub(super) fn chunk(&mut self, chunk: &Bytes, whole: bool) -> BodyChange {
        if !whole || std::mem::replace(&mut self.done, true) {
            return BodyChange::Replace(Bytes::new());
        }
        let text = self.decoding.lenient(chunk).unwrap_or_default();
        let message = String::from_utf8_lossy(&text[..text.len().min(MAX_MESSAGE)]);
        BodyChange::Replace(match self.form {
            Form::OpenAi => openai::error_body("OpenAIBackendError", self.status, &message),
            Form::Cohere => cohere::error_body(&message),
            Form::Anthropic => anthropic::error_body(self.status, &message),
        })
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
