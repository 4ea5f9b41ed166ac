//! L1. What happens to bodies between client and provider.
//!
//! Where client and provider speak the same dialect, most bytes pass untouched: a request is edited in place where a backend
//! wants another model or the gateway wants usage reported, and an answer is read for its usage. Where they do not, a [`Pair`]
//! says between which dialects bodies are translated.

mod chat_to_anthropic;
mod chat_to_converse;
mod chunks;
mod data_url;
mod decoding;
mod error;
mod observe;
mod request;
mod stream;
mod translated;
mod unary;
mod whole;

use std::fmt::Display;
use std::time::SystemTime;

use bytes::Bytes;

use self::decoding::Decoding;
use self::observe::Observer;
pub use self::request::BodyEdits;
use crate::codec::encoding::DecodeError;
use crate::codec::json;
use crate::endpoint::Endpoint;
use crate::headers::{HeaderEdits, Headers};
use crate::mutation::{BodyChange, ResponsePhases};
use crate::usage::TokenUsage;
use crate::wire::ApiSchemaName;

/// The dialect of a client's request and that of the backend it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pair {
    /// Both are the same, or alike enough for bytes to pass.
    Same,
    /// Chat completions served by Anthropic's messages API.
    ChatToAnthropic,
    /// Chat completions served by AWS Bedrock's Converse API.
    ChatToConverse,
}

impl Pair {
    /// The pair of an endpoint and a backend of that dialect; nothing where the backend cannot serve the endpoint.
    pub fn of(endpoint: Endpoint, schema: ApiSchemaName) -> Option<Self> {
        use Endpoint as E;
        match (schema, endpoint) {
            (_, E::Models | E::AnthropicModels) => None,
            (ApiSchemaName::OpenAI, E::Rerank | E::Messages | E::CountTokens) => None,
            (ApiSchemaName::OpenAI, _) => Some(Self::Same),
            (
                ApiSchemaName::AzureOpenAI,
                E::ChatCompletions | E::Embeddings | E::Responses | E::ResponsesInputTokens,
            ) => Some(Self::Same),
            (ApiSchemaName::Anthropic, E::Messages | E::CountTokens) => Some(Self::Same),
            (ApiSchemaName::Anthropic, E::ChatCompletions) => Some(Self::ChatToAnthropic),
            (ApiSchemaName::AWSBedrock, E::ChatCompletions) => Some(Self::ChatToConverse),
            (ApiSchemaName::Cohere, E::Rerank) => Some(Self::Same),
            _ => None,
        }
    }
}

/// What there is to know of a request that goes to a backend.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// The endpoint that was called.
    pub endpoint: Endpoint,
    /// The client's headers.
    pub headers: &'a Headers,
    /// The client's body, which [`crate::endpoint::ModelRequest::read`] accepted.
    pub body: &'a Bytes,
    /// The model that the backend is asked for.
    pub model: &'a str,
    /// The same, where it is another than the client's and the body is to say so.
    pub model_override: Option<&'a str>,
    /// The client asked for a stream.
    pub streaming: bool,
    /// The provider is to report usage at the end of the stream although the client did not ask for it.
    pub force_usage: bool,
    /// Configured edits of the body, applied last.
    pub edits: &'a BodyEdits,
}

/// What a request becomes on its way to a backend. The path is [`crate::endpoint::ApiTarget::path`]'s to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The new body; nothing where the client's own bytes will do.
    pub body: Option<Bytes>,
    /// Headers that the dialect demands, besides path and length.
    pub headers: HeaderEdits,
}

/// Why a request cannot be sent to a backend of another dialect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// The request is not what its endpoint wants, whatever the backend; for the client to read, with status 400.
    #[error("{0}")]
    Malformed(String),
    /// The request asks for what the backend does not have; for the client to read, with status 422.
    #[error("{0}")]
    User(String),
    /// The gateway's own fault.
    #[error("{0}")]
    Internal(String),
}

/// What a request becomes on its way to the backend.
pub fn request(pair: Pair, facts: &RequestFacts<'_>) -> Result<Outgoing, TranslateError> {
    let translated = match pair {
        Pair::Same => return request::same(facts),
        Pair::ChatToAnthropic => chat_to_anthropic::request(facts)?,
        Pair::ChatToConverse => chat_to_converse::request(facts)?,
    };
    let body = translated.body.map(|body| request::edited(body, facts.edits)).transpose()?;
    Ok(Outgoing { body, ..translated })
}

/// The refusal of a request whose member asks for what the backend does not have.
fn user_error<T>(member: impl Display, problem: &str) -> Result<T, TranslateError> {
    Err(TranslateError::User(format!("invalid request body: {member}: {problem}")))
}

/// Why an answer cannot be given to the client: the exchange ends here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its encoding is not what its headers say.
    #[error(transparent)]
    Encoding(#[from] DecodeError),
    /// It is not what providers of that dialect answer; the text says where, and repeats nothing of it.
    #[error("the provider's answer is not of its dialect ({0})")]
    Malformed(String),
}

impl ReadError {
    fn answer(error: serde_json::Error) -> Self {
        Self::Malformed(json::position(&error))
    }
}

/// Limits the encodings a provider may answer with to those that can be read here.
pub fn accept_encoding(headers: &Headers, edits: &mut HeaderEdits) {
    let Some(accepted) = headers.joined("accept-encoding") else { return };
    let accepted = String::from_utf8_lossy(&accepted);
    let codings = || accepted.split(',').map(str::trim).filter(|coding| !coding.is_empty());
    let readable = |coding: &&str| {
        let name = coding.split(';').next().unwrap_or_default().trim();
        ["gzip", "br", "identity"].iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    if codings().all(|coding| readable(&coding)) {
        return;
    }
    let kept: Vec<&str> = codings().filter(readable).collect();
    edits.set("accept-encoding", if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") });
}

/// What decides how an answer is read.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Between which dialects.
    pub pair: Pair,
    /// The model that the backend was asked for; the answer's own where the provider does not name one.
    pub model: &'a str,
    /// When the answer began; translated answers carry it.
    pub created: SystemTime,
    /// The endpoint that was called.
    pub endpoint: Endpoint,
    /// The client asked for a stream.
    pub streaming: bool,
    /// The usage event of the stream is not for the client.
    pub hide_usage: bool,
    /// HTTP status.
    pub status: u16,
}

/// How an answer is read, decided by its headers.
#[derive(Debug)]
pub struct Plan {
    /// How Envoy is to send the rest.
    pub phases: ResponsePhases,
    /// Edits of the answer's headers.
    pub headers: HeaderEdits,
    /// Reads the body; none where nothing in it matters.
    pub reader: Option<Reader>,
}

/// What was read from an answer so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The latest counts reported.
    pub usage: TokenUsage,
    /// The model that the provider names, the latest if it changes.
    pub model: Option<String>,
    /// Stream events that carry something of the answer.
    pub events: u64,
    /// Length of their payloads together; of an answer in one document, its length so far.
    pub event_bytes: u64,
    /// Length of the shortest: about what an event is long without any text.
    pub shortest_event: u64,
    /// The stream ended before the answer was complete, or with an error.
    pub cut: bool,
}

impl Report {
    /// Counts an event that carries something of the answer.
    fn delivered(&mut self, length: usize) {
        let length = length as u64;
        self.shortest_event = if self.events == 0 { length } else { self.shortest_event.min(length) };
        self.events += 1;
        self.event_bytes += length;
    }

    /// An estimate of the tokens delivered, for answers that do not say. An event carries one token or more; where it
    /// carries more, its length beyond that of the shortest event is text, of which four bytes make about one token.
    pub fn delivered_tokens(&self) -> u64 {
        let text = self.event_bytes.saturating_sub(self.events.saturating_mul(self.shortest_event));
        self.events.max(text.div_ceil(4))
    }
}

/// The longest event of a stream that is looked into, in bytes.
const MAX_EVENT: usize = 16 * 1024 * 1024;
/// Bodies up to this length are asked for in one message; longer ones, or ones of unknown length, chunk by chunk.
const MAX_BUFFERED: u64 = 1024 * 1024;

/// What is said to the client of a stream that the provider did not bring to its end.
const CUT: &str = "the provider ended the stream before the answer was complete";
/// The content type of Bedrock's streams.
const AWS_EVENT_STREAM: &str = "application/vnd.amazon.eventstream";

/// Decides how an answer with these headers is read.
pub fn plan(answer: &Answer<'_>, headers: &Headers) -> Plan {
    let content_type = headers.text("content-type");
    let decoding = Decoding::of(headers.text("content-encoding").unwrap_or_default().trim());
    let mut edits = HeaderEdits::default();
    let kind = match answer.pair {
        Pair::Same => same(answer, content_type, decoding, &mut edits),
        Pair::ChatToAnthropic | Pair::ChatToConverse => {
            Some(translated(answer, headers, decoding, &mut edits))
        }
    };
    let length = headers.text("content-length").and_then(|length| length.parse::<u64>().ok());
    let phases = match &kind {
        None => ResponsePhases::None,
        Some(Kind::Stream(_) | Kind::Translated(_)) => ResponsePhases::Streamed,
        // What is replaced as a whole has to come as a whole.
        Some(Kind::Error(_) | Kind::Whole(_)) => ResponsePhases::Buffered,
        Some(Kind::Unary(_)) if length.is_some_and(|length| length <= MAX_BUFFERED) => {
            ResponsePhases::Buffered
        }
        Some(Kind::Unary(_)) => ResponsePhases::Streamed,
    };
    let keeps_length = matches!(kind, None | Some(Kind::Unary(_)));
    if !keeps_length && headers.contains("content-length") {
        edits.remove("content-length");
    }
    Plan { phases, headers: edits, reader: kind.map(Reader) }
}

/// How an answer in the client's own dialect is read.
fn same(
    answer: &Answer<'_>,
    content_type: Option<&str>,
    decoding: Decoding,
    edits: &mut HeaderEdits,
) -> Option<Kind> {
    if !(200..300).contains(&answer.status) {
        return error::wrapper(answer, content_type, decoding, edits).map(Kind::Error);
    }
    if content_type.is_some_and(is_event_stream) {
        let observer = Observer::of(answer.endpoint);
        let stream = stream::Stream::new(observer, decoding, answer.hide_usage, edits);
        return Some(Kind::Stream(stream));
    }
    unary::Unary::new(answer.endpoint, decoding).map(Kind::Unary)
}

/// How an answer in another dialect than the client's is read.
fn translated(answer: &Answer<'_>, headers: &Headers, decoding: Decoding, edits: &mut HeaderEdits) -> Kind {
    if decoding.is_compressed() {
        edits.remove("content-encoding");
    }
    let content_type = headers.text("content-type").unwrap_or_default();
    let created = answer.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let context = || whole::Context::new(answer, headers, created);
    let chunks = || chunks::Chunks::new(answer.model, created);
    let failed = !(200..300).contains(&answer.status);
    let stream = match answer.pair {
        Pair::ChatToConverse if !failed && is_kind(content_type, AWS_EVENT_STREAM) => {
            edits.set("content-type", "text/event-stream");
            let chunks = chunks().with_id(&context().request_id).with_role_in_every_chunk();
            let events = chat_to_converse::Events::new(chunks, !answer.hide_usage);
            translated::Stream::converse(events, decoding)
        }
        Pair::ChatToAnthropic if !failed && is_event_stream(content_type) => {
            let events = chat_to_anthropic::Events::new(chunks(), !answer.hide_usage);
            translated::Stream::anthropic(events, decoding)
        }
        _ => {
            edits.set("content-type", "application/json");
            return Kind::Whole(Box::new(whole::Whole::new(context(), decoding)));
        }
    };
    Kind::Translated(Box::new(stream))
}

fn is_event_stream(content_type: &str) -> bool {
    is_kind(content_type, "text/event-stream")
}

/// Whether a content type is `kind`, whatever its parameters.
fn is_kind(content_type: &str, kind: &str) -> bool {
    content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
}

/// Reads one answer's body, chunk by chunk.
#[derive(Debug)]
pub struct Reader(Kind);

#[derive(Debug)]
enum Kind {
    /// A JSON document, read for its usage and otherwise untouched.
    Unary(unary::Unary),
    /// Server-sent events, read for usage; the usage event is taken out where the client did not ask for it.
    Stream(stream::Stream),
    /// An error in no JSON, held until its end and wrapped.
    Error(error::Wrapper),
    /// A document of another dialect.
    Whole(Box<whole::Whole>),
    /// A stream of another dialect.
    Translated(Box<translated::Stream>),
}

impl Reader {
    /// Takes the next chunk and says what becomes of it. After the chunk with `end` nothing is held back any more.
    ///
    /// Where the plan was [`ResponsePhases::Buffered`] there is one chunk. Envoy does not say of it that it is the last where
    /// trailers follow, and behind those no body can be sent any more.
    pub fn chunk(&mut self, chunk: Bytes, end: bool) -> Result<BodyChange, ReadError> {
        let whole = end || !chunk.is_empty();
        match &mut self.0 {
            Kind::Unary(reader) => {
                reader.chunk(&chunk, end);
                Ok(BodyChange::Keep)
            }
            Kind::Stream(reader) => Ok(reader.chunk(chunk, end)?),
            Kind::Error(reader) => Ok(reader.chunk(&chunk, whole)),
            Kind::Whole(reader) => reader.chunk(&chunk, whole),
            Kind::Translated(reader) => reader.chunk(&chunk, end),
        }
    }

    /// Takes over what was read of a body that ended without a chunk that said so.
    pub fn finish(&mut self) {
        match &mut self.0 {
            Kind::Unary(reader) => reader.finish(),
            Kind::Translated(reader) => reader.finish(),
            Kind::Stream(reader) => reader.finish(),
            Kind::Error(_) | Kind::Whole(_) => {}
        }
    }

    /// What was read so far.
    pub fn report(&self) -> &Report {
        match &self.0 {
            Kind::Unary(reader) => reader.report(),
            Kind::Stream(reader) => reader.report(),
            Kind::Error(reader) => reader.report(),
            Kind::Whole(reader) => reader.report(),
            Kind::Translated(reader) => reader.report(),
        }
    }
}
