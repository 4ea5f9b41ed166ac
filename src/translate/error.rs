//! Errors of providers that are not JSON.

use bytes::Bytes;

use crate::endpoint::Endpoint;
use crate::headers::HeaderEdits;
use crate::mutation::BodyChange;
use crate::translate::decoding::Decoding;
use crate::translate::{Answer, Report};
use crate::wire::openai;

/// As much of an error's text is repeated to the client, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

/// The wrapper for an answer with an error status: none where the client understands the body as it is.
pub(super) fn wrapper(
    answer: &Answer,
    content_type: &str,
    decoding: Decoding,
    edits: &mut HeaderEdits,
) -> Option<Wrapper> {
    let is_json =
        content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().ends_with("json");
    let wraps = matches!(answer.endpoint, Endpoint::ChatCompletions | Endpoint::Embeddings);
    if is_json || !wraps || decoding.is_unknown() {
        return None;
    }
    edits.set("content-type", "application/json");
    if decoding.is_compressed() {
        edits.remove("content-encoding");
    }
    Some(Wrapper { status: answer.status, decoding, message: Vec::new(), report: Report::default() })
}

/// Holds an error's text and gives it to the client as `OpenAIBackendError` in JSON.
#[derive(Debug)]
pub(super) struct Wrapper {
    status: u16,
    decoding: Decoding,
    message: Vec<u8>,
    report: Report,
}

impl Wrapper {
    pub(super) fn chunk(&mut self, chunk: &Bytes, end: bool) -> BodyChange {
        if let Some(text) = self.decoding.lenient(chunk) {
            let room = MAX_MESSAGE - self.message.len();
            self.message.extend_from_slice(&text[..text.len().min(room)]);
        }
        if !end {
            return BodyChange::Replace(Bytes::new());
        }
        let message = String::from_utf8_lossy(&self.message);
        BodyChange::Replace(openai::error_body("OpenAIBackendError", self.status, &message))
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
