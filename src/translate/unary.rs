//! Answers in one JSON document.

use bytes::Bytes;

use crate::codec::json::MemberScanner;
use crate::translate::Report;
use crate::translate::decoding::Decoding;
use crate::usage::TokenUsage;

/// The largest `usage` or `model` member that is read, in bytes.
const MAX_MEMBER: usize = 64 * 1024;

/// Reads `usage` and `model` out of a JSON document of any size, holding only those. The document itself always passes as
/// it is, whatever is wrong with it.
#[derive(Debug)]
pub(super) struct Unary {
    decoding: Decoding,
    scanner: MemberScanner,
    report: Report,
}

impl Unary {
    pub(super) fn new(decoding: Decoding) -> Self {
        Self {
            decoding,
            scanner: MemberScanner::new(&["usage", "model"], MAX_MEMBER),
            report: Report::default(),
        }
    }

    pub(super) fn chunk(&mut self, chunk: &Bytes, end: bool) {
        if let Some(text) = self.decoding.lenient(chunk) {
            self.scanner.push(&text);
        }
        if end {
            self.finish();
        }
    }

    /// Takes over what the document said. Harmless to call again.
    pub(super) fn finish(&mut self) {
        if let Some(usage) = self.scanner.member("usage").and_then(TokenUsage::from_openai) {
            self.report.usage = usage;
        }
        if let Some(model) = self.scanner.member("model") {
            self.report.model = serde_json::from_slice(model).ok();
        }
    }

    pub(super) fn report(&self) -> &Report {
        &self.report
    }
}
