//! L1. What we ask of Envoy, in our own words: the change of one message, or an answer in its place.

use std::borrow::Cow;

use bytes::Bytes;

use crate::headers::HeaderEdits;

/// The dynamic metadata namespace in which Envoy AI Gateway publishes everything.
pub const METADATA_NAMESPACE: &str = "io.envoy.ai_gateway";

/// The change of one message (headers, a body chunk, trailers) on its way through. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Header edits; on a body message Envoy applies them only while it still holds the headers back.
    pub headers: HeaderEdits,
    /// What becomes of the body. In reply to request headers, a new body takes the place of one that did not come here.
    pub body: BodyChange,
    /// Whether Envoy chooses the route anew, by the headers as they are after this change.
    pub clear_route_cache: bool,
    /// What Envoy is to send from here on; heeded in the reply to headers only.
    pub phases: Option<PhaseOverride>,
    /// Published under [`METADATA_NAMESPACE`].
    pub metadata: Metadata,
}

/// What becomes of a body or a chunk of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum BodyChange {
    /// It passes as it is.
    #[default]
    Keep,
    /// Other bytes take its place. Empty means that nothing is sent for this chunk.
    Replace(Bytes),
}

/// Length only: bodies are the users' business.
impl std::fmt::Debug for BodyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keep => f.write_str("Keep"),
            Self::Replace(body) => write!(f, "Replace({} bytes)", body.len()),
        }
    }
}

/// What Envoy is to send, other than its configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseOverride {
    /// In reply to request headers: the request's body in one message, and the response's headers.
    RequestBody,
    /// In reply to response headers: the rest of the response, like this.
    Response(ResponsePhases),
}

/// How Envoy is to hand over the rest of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponsePhases {
    /// Not at all: the response passes by.
    None,
    /// The whole body in one message, then trailers if there are any.
    Buffered,
    /// Each chunk as it comes, then trailers if there are any.
    Streamed,
}

/// Dynamic metadata: key and value pairs in the order they were set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(pub Vec<(Cow<'static, str>, MetadataValue)>);

/// One value of dynamic metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    /// A number, as protobuf's `Value` holds it.
    Number(f64),
    /// A string.
    Text(String),
}

impl Metadata {
    /// Adds a number.
    pub fn number(&mut self, key: impl Into<Cow<'static, str>>, value: f64) {
        self.0.push((key.into(), MetadataValue::Number(value)));
    }

    /// Adds a string.
    pub fn text(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<String>) {
        self.0.push((key.into(), MetadataValue::Text(value.into())));
    }

    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An answer that the gateway itself gives instead of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Response headers besides `content-length`.
    pub headers: Vec<(&'static str, String)>,
    /// Response body.
    pub body: Bytes,
    /// Names the reason in Envoy's `response_code_details`; one word.
    pub details: &'static str,
}

impl LocalReply {
    /// A JSON body.
    pub fn json(status: u16, details: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", "application/json".to_owned())];
        Self { status, headers, body: body.into(), details }
    }

    /// A plain text body.
    pub fn text(status: u16, details: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", "text/plain".to_owned())];
        Self { status, headers, body: body.into(), details }
    }
}
