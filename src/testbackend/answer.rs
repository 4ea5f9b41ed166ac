//! The bodies: what a provider says, made from the request and the knobs.
//!
//! Shapes follow the OpenAI API reference (chat completions, completions, embeddings, models, errors); those of all other
//! endpoints are in [`endpoints`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::endpoints::{self, Script};
use super::knobs::{Fault, Knobs, Usage};

/// The answer of the walkthrough, byte for byte.
pub(super) const INEVITABLE: &str =
    r#"{"choices":[{"message":{"role":"assistant", "content":"I am inevitable."}}]}"#;
pub(super) const CONTENT: &str = "I am inevitable.";
const MODEL: &str = "testbackend-model";
pub(super) const CREATED: u64 = 1_700_000_000;
const DIMENSIONS: usize = 8;
const MAX_DIMENSIONS: usize = 65_536;

/// What a path asks for. Any prefix before the known ending is tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Chat,
    Completions,
    Embeddings,
    Responses,
    InputTokens,
    Images,
    Speech,
    Transcriptions,
    Translations,
    Tokenize,
    Rerank,
    Messages,
    CountTokens,
    Models,
    Health,
}

impl Service {
    pub(super) fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        // The longer ending first: a chat path ends with `/completions` too.
        [
            ("/chat/completions", Self::Chat),
            ("/completions", Self::Completions),
            ("/embeddings", Self::Embeddings),
            ("/responses", Self::Responses),
            ("/responses/input_tokens", Self::InputTokens),
            ("/images/generations", Self::Images),
            ("/audio/speech", Self::Speech),
            ("/audio/transcriptions", Self::Transcriptions),
            ("/audio/translations", Self::Translations),
            ("/tokenize", Self::Tokenize),
            ("/rerank", Self::Rerank),
            ("/messages", Self::Messages),
            ("/messages/count_tokens", Self::CountTokens),
            ("/models", Self::Models),
            ("/health", Self::Health),
        ]
        .into_iter()
        .find_map(|(ending, service)| path.ends_with(ending).then_some(service))
    }

    pub(super) fn takes(self, method: &http::Method) -> bool {
        match self {
            Self::Models | Self::Health => method == http::Method::GET || method == http::Method::HEAD,
            _ => method == http::Method::POST,
        }
    }

    fn takes_form(self) -> bool {
        matches!(self, Self::Transcriptions | Self::Translations)
    }
}

/// The members of a request that an answer depends on.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    pub(super) model: Option<String>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) input: Option<Value>,
    pub(super) encoding_format: Option<String>,
    pub(super) dimensions: Option<usize>,
    pub(super) n: Option<usize>,
    #[serde(deserialize_with = "text")]
    pub(super) response_format: Option<String>,
    pub(super) stream_format: Option<String>,
    pub(super) documents: Option<Vec<IgnoredAny>>,
    pub(super) top_n: Option<usize>,
}

impl Request {
    pub(super) fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(MODEL)
    }
}

/// A text, or nothing for what is none: chat has an object where audio has a word.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().map(str::to_owned))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
}

/// A whole answer, before encoding and faults.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    /// The model that a form named, which nothing in the answer's body tells.
    pub(super) model: Option<HeaderValue>,
    pub(super) pieces: Pieces,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let content_type = HeaderValue::from_static("application/json");
        Self { status, content_type, model: None, pieces: Pieces::cut(body.into(), 1) }
    }

    /// An error as the service's provider words it; OpenAI where there is no service.
    pub(super) fn error(service: Option<Service>, status: StatusCode, message: &str) -> Self {
        if let Some(error) = endpoints::error(service, status, message) {
            return Self::json(status, error.to_string());
        }
        let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
        Self::json(status, error.to_string())
    }

    /// The exact body, if one was asked for.
    pub(super) fn raw(knobs: &Knobs) -> Option<Self> {
        let mut answer = Self::json(knobs.status.unwrap_or(StatusCode::OK), Bytes::new());
        answer.pieces = Pieces::cut(knobs.raw_body()?, knobs.parts());
        Some(answer)
    }

    /// What the service says to this body.
    pub(super) fn of(service: Service, content_type: &str, body: &[u8], knobs: &Knobs) -> Self {
        if let Some(raw) = Self::raw(knobs) {
            return raw;
        }
        let status = knobs.status.unwrap_or(StatusCode::OK);
        let error = |status, message: &str| Self::error(Some(service), status, message);
        if !status.is_success() {
            return error(status, "the test backend was told to answer with this status");
        }
        let request = match service {
            Service::Models => return Self::json(status, models()).parts(knobs),
            Service::Health => return Self::json(status, r#"{"status":"ok"}"#),
            form if form.takes_form() => endpoints::form(content_type, body),
            _ => serde_json::from_slice::<Request>(body).map_err(|e| e.to_string()),
        };
        let request = match request {
            Ok(request) => request,
            Err(e) => return error(StatusCode::BAD_REQUEST, &format!("the body is not understood: {e}")),
        };
        match service {
            Service::Embeddings => match embeddings(&request, knobs) {
                Ok(body) => Self::json(status, body).parts(knobs),
                Err(reason) => error(StatusCode::BAD_REQUEST, &reason),
            },
            Service::Chat | Service::Completions if request.stream == Some(true) => Self {
                status,
                content_type: HeaderValue::from_static("text/event-stream"),
                model: None,
                pieces: Pieces::Events(Events::new(service, &request, knobs)),
            },
            Service::Chat | Service::Completions => {
                Self::json(status, whole(service, &request, knobs)).parts(knobs)
            }
            _ => {
                let model = request.model().parse().ok().filter(|_| service.takes_form());
                Self { model, ..endpoints::answer(service, &request, knobs, status) }
            }
        }
    }

    /// Cut as the knobs say.
    pub(super) fn parts(self, knobs: &Knobs) -> Self {
        match self.pieces {
            Pieces::Parts { body, .. } => Self { pieces: Pieces::cut(body, knobs.parts()), ..self },
            Pieces::Events(_) | Pieces::Script(_) => self,
        }
    }
}

impl Knobs {
    /// Into how many parts a body that is not a stream of events is cut: enough for the fault to come in between.
    fn parts(&self) -> u32 {
        let for_fault = match self.fault {
            Some(Fault::Reset(n) | Fault::Close(n) | Fault::Cut(n) | Fault::Garbage(n) | Fault::Stall(n)) => {
                n.saturating_add(1)
            }
            Some(Fault::Endless) | None => 1,
        };
        self.chunks.unwrap_or(1).max(for_fault)
    }
}

/// A body in pieces, each made when it is sent.
#[derive(Debug)]
pub(super) enum Pieces {
    Parts { body: Bytes, count: usize },
    Events(Events),
    Script(Script),
}

impl Pieces {
    fn cut(body: Bytes, count: u32) -> Self {
        Self::Parts { count: (count.max(1) as usize).min(body.len().max(1)), body }
    }

    /// The length of the whole, where it is known before.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Self::Parts { body, .. } => Some(body.len()),
            Self::Events(_) | Self::Script(_) => None,
        }
    }

    /// The i-th piece; none after the last.
    pub(super) fn get(&self, i: usize) -> Option<Bytes> {
        match self {
            Self::Parts { body, count } => (i < *count).then(|| {
                // Positions grow with i, so that the parts differ by one byte at most and none is empty.
                let at = |i: usize| body.len() / count * i + (body.len() % count).min(i);
                body.slice(at(i)..at(i + 1))
            }),
            Self::Events(events) => events.get(i),
            Self::Script(script) => script.get(i),
        }
    }

    /// The i-th piece of an answer without end.
    pub(super) fn get_endless(&self, i: usize) -> Bytes {
        let i = match self {
            Self::Parts { count, .. } => i % count,
            Self::Events(_) if i == 0 => 0,
            Self::Events(events) => 1 + (i - 1) % events.contents.max(1),
            Self::Script(script) => return script.get_endless(i).unwrap_or_default(),
        };
        self.get(i).unwrap_or_default()
    }
}

/// The server-sent events of one streamed answer.
#[derive(Debug)]
pub(super) struct Events {
    service: Service,
    model: String,
    words: Vec<String>,
    contents: usize,
    usage: Usage,
    include_usage: bool,
    usage_every_chunk: bool,
}

impl Events {
    fn new(service: Service, request: &Request, knobs: &Knobs) -> Self {
        let content = knobs.content.as_deref().unwrap_or(CONTENT);
        let words: Vec<String> = content.split_inclusive(' ').map(str::to_owned).collect();
        Self {
            service,
            model: request.model().to_owned(),
            contents: knobs.chunks.map_or(words.len(), |n| n as usize),
            words,
            usage: knobs.usage.unwrap_or(Usage::DEFAULT),
            include_usage: request.stream_options.as_ref().and_then(|o| o.include_usage) == Some(true),
            usage_every_chunk: knobs.usage_every_chunk == Some(true),
        }
    }

    fn get(&self, i: usize) -> Option<Bytes> {
        let finish = self.contents + 1;
        let done = finish + 1 + usize::from(self.include_usage);
        let data = match i {
            0 => self.event(json!([self.choice(json!({"role": "assistant", "content": ""}), "", None)]), 0),
            i if i < finish => {
                let word = &self.words.get((i - 1) % self.words.len().max(1)).map_or("", String::as_str);
                self.event(json!([self.choice(json!({"content": word}), word, None)]), i)
            }
            i if i == finish => self.event(json!([self.choice(json!({}), "", Some("stop"))]), i),
            i if i < done => self.event(json!([]), i),
            i if i == done => "[DONE]".to_owned(),
            _ => return None,
        };
        Some(format!("data: {data}\n\n").into())
    }

    fn choice(&self, delta: Value, text: &str, finish: Option<&str>) -> Value {
        match self.service {
            Service::Completions => {
                json!({"text": text, "index": 0, "logprobs": null, "finish_reason": finish})
            }
            _ => json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}),
        }
    }

    /// `i` says how far the stream is, for usage in every event.
    fn event(&self, choices: Value, i: usize) -> String {
        let object =
            if self.service == Service::Completions { "text_completion" } else { "chat.completion.chunk" };
        let usage_event = choices.as_array().is_some_and(Vec::is_empty);
        let mut event = json!({
            "id": id(self.service), "object": object, "created": CREATED, "model": self.model,
            "system_fingerprint": "fp_testbackend", "choices": choices,
        });
        if usage_event || self.usage_every_chunk {
            let so_far =
                if i > self.contents { self.usage.completion } else { (i as u64).min(self.usage.completion) };
            event["usage"] = usage_json(&Usage { completion: so_far, ..self.usage });
        } else if self.include_usage {
            event["usage"] = Value::Null;
        }
        event.to_string()
    }
}

fn id(service: Service) -> &'static str {
    if service == Service::Completions { "cmpl-testbackend" } else { "chatcmpl-testbackend" }
}

fn usage_json(usage: &Usage) -> Value {
    let mut value = json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt.saturating_add(usage.completion),
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    });
    if usage.cache_creation > 0 {
        value["prompt_tokens_details"]["cache_creation_input_tokens"] = usage.cache_creation.into();
    }
    value
}

/// The unary answer of the two completion services.
fn whole(service: Service, request: &Request, knobs: &Knobs) -> String {
    if service == Service::Chat && knobs.usage.is_none() && knobs.content.is_none() {
        return INEVITABLE.to_owned();
    }
    let content = knobs.content.as_deref().unwrap_or(CONTENT);
    let model = request.model();
    let usage = usage_json(&knobs.usage.unwrap_or(Usage::DEFAULT));
    let (object, choice) = match service {
        Service::Completions => (
            "text_completion",
            json!({"text": content, "index": 0, "logprobs": null, "finish_reason": "stop"}),
        ),
        _ => (
            "chat.completion",
            json!({
                "index": 0, "message": {"role": "assistant", "content": content, "refusal": null},
                "logprobs": null, "finish_reason": "stop",
            }),
        ),
    };
    json!({
        "id": id(service), "object": object, "created": CREATED, "model": model, "choices": [choice], "usage": usage,
    })
    .to_string()
}

fn models() -> String {
    json!({
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": CREATED, "owned_by": "testbackend"}],
    })
    .to_string()
}

/// One vector an input; a text, a list of texts, a list of tokens and a list of lists are inputs.
fn embeddings(request: &Request, knobs: &Knobs) -> Result<String, String> {
    let dimensions = request.dimensions.unwrap_or(DIMENSIONS);
    if dimensions == 0 || dimensions > MAX_DIMENSIONS {
        return Err(format!("`dimensions` must be from 1 to {MAX_DIMENSIONS}"));
    }
    let inputs = match &request.input {
        None => return Err("`input` is missing".to_owned()),
        Some(Value::Array(items)) if items.iter().any(|item| !item.is_number()) => items.len(),
        Some(_) => 1,
    };
    if inputs > 2048 {
        return Err("`input` has more than 2048 items".to_owned());
    }
    let base64 = match request.encoding_format.as_deref() {
        Some("base64") => true,
        None | Some("float") => false,
        Some(other) => return Err(format!("`encoding_format` is neither `float` nor `base64`: `{other}`")),
    };
    let data: Vec<Value> = (0..inputs)
        .map(|index| {
            // Sixteenths are exact in binary and in decimal, so that both formats carry the same numbers.
            let vector = (0..dimensions).map(|i| ((index + i) % 32) as f32 / 16.0 - 1.0);
            let embedding = if base64 {
                json!(STANDARD.encode(vector.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()))
            } else {
                json!(vector.collect::<Vec<f32>>())
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let prompt = knobs.usage.unwrap_or(Usage::DEFAULT).prompt;
    let model = request.model();
    Ok(json!({
        "object": "list", "data": data, "model": model,
        "usage": {"prompt_tokens": prompt, "total_tokens": prompt},
    })
    .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Answer) -> String {
        let mut all = Vec::new();
        let mut i = 0;
        while let Some(piece) = answer.pieces.get(i) {
            all.extend_from_slice(&piece);
            i += 1;
        }
        String::from_utf8(all).unwrap()
    }

    fn events(body: &str, knobs: &Knobs) -> Vec<Value> {
        let text = text(&Answer::of(Service::Chat, "application/json", body.as_bytes(), knobs));
        let (events, done) = text.trim_end().rsplit_once("\n\n").unwrap();
        assert_eq!(done, "data: [DONE]");
        events
            .split("\n\n")
            .map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn paths_with_any_prefix() {
        assert_eq!(Service::of("/v1/chat/completions"), Some(Service::Chat));
        assert_eq!(Service::of("/openai/deployments/a/chat/completions?api-version=1"), Some(Service::Chat));
        assert_eq!(Service::of("/completions"), Some(Service::Completions));
        assert_eq!(Service::of("/x/v1/embeddings"), Some(Service::Embeddings));
        assert_eq!(Service::of("/v1/responses"), Some(Service::Responses));
        assert_eq!(Service::of("/openai/responses/input_tokens?api-version=1"), Some(Service::InputTokens));
        assert_eq!(Service::of("/v2/rerank"), Some(Service::Rerank));
        assert_eq!(Service::of("/v1/messages"), Some(Service::Messages));
        assert_eq!(Service::of("/v1/messages/count_tokens"), Some(Service::CountTokens));
        assert_eq!(Service::of("/v1/models"), Some(Service::Models));
        assert_eq!(Service::of("/health"), Some(Service::Health));
        assert_eq!(Service::of("/v1/other"), None);
        assert_eq!(Service::of("/"), None);
    }

    #[test]
    fn the_default_answer_is_the_walkthroughs() {
        let answer = Answer::of(
            Service::Chat,
            "application/json",
            br#"{"model":"m","messages":[]}"#,
            &Knobs::default(),
        );
        assert_eq!(text(&answer), INEVITABLE);
        assert_eq!(answer.content_type, "application/json");
    }

    #[test]
    fn usage_makes_a_full_completion() {
        let usage = Usage { prompt: 9, completion: 11, cached: 4, cache_creation: 2, reasoning: 3 };
        let knobs = Knobs { usage: Some(usage), ..Knobs::default() };
        let value: Value = serde_json::from_str(&text(&Answer::of(
            Service::Chat,
            "application/json",
            br#"{"model":"m"}"#,
            &knobs,
        )))
        .unwrap();
        assert_eq!(value["object"], "chat.completion");
        assert_eq!(value["model"], "m");
        assert_eq!(value["choices"][0]["finish_reason"], "stop");
        assert_eq!(value["usage"]["total_tokens"], 20);
        assert_eq!(value["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
        assert_eq!(value["usage"]["prompt_tokens_details"]["cache_creation_input_tokens"], 2);
        assert_eq!(value["usage"]["completion_tokens_details"]["reasoning_tokens"], 3);
    }

    #[test]
    fn a_stream_has_role_words_and_stop_and_usage_only_when_asked() {
        let plain = events(r#"{"model":"m","stream":true}"#, &Knobs::default());
        assert_eq!(plain.len(), 5);
        assert_eq!(plain[0]["choices"][0]["delta"]["role"], "assistant");
        let said: String =
            plain.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(said, CONTENT);
        assert_eq!(plain[4]["choices"][0]["finish_reason"], "stop");
        assert!(plain.iter().all(|e| e.get("usage").is_none()));

        let asked = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        let with_usage = events(asked, &Knobs { chunks: Some(10), ..Knobs::default() });
        assert_eq!(with_usage.len(), 13);
        assert_eq!(with_usage[12]["choices"], json!([]));
        assert_eq!(with_usage[12]["usage"]["total_tokens"], 20);
        assert!(with_usage[..12].iter().all(|e| e["usage"].is_null()));

        let every =
            events(r#"{"stream":true}"#, &Knobs { usage_every_chunk: Some(true), ..Knobs::default() });
        let counts: Vec<_> =
            every.iter().map(|e| e["usage"]["completion_tokens"].as_u64().unwrap()).collect();
        assert_eq!(counts, [0, 1, 2, 3, 11]);
    }

    #[test]
    fn parts_add_up_and_none_is_empty() {
        for (len, count) in [(0, 3), (1, 3), (10, 3), (10, 10), (10, 100)] {
            let body = Bytes::from(vec![b'x'; len]);
            let pieces = Pieces::cut(body.clone(), count);
            let parts: Vec<Bytes> = (0..).map_while(|i| pieces.get(i)).collect();
            assert_eq!(parts.concat(), body);
            assert!(len == 0 || parts.iter().all(|p| !p.is_empty()), "{len}/{count}");
        }
    }

    #[test]
    fn embeddings_in_both_formats_carry_the_same_numbers() {
        let get = |format: &str| -> Value {
            let body = json!({"input": ["a", "b"], "dimensions": 3, "encoding_format": format}).to_string();
            serde_json::from_str(&text(&Answer::of(
                Service::Embeddings,
                "application/json",
                body.as_bytes(),
                &Knobs::default(),
            )))
            .unwrap()
        };
        let floats = get("float");
        assert_eq!(floats["data"][1]["embedding"], json!([-0.9375, -0.875, -0.8125]));
        let bytes = STANDARD.decode(get("base64")["data"][1]["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> = bytes.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(json!(decoded), floats["data"][1]["embedding"]);
    }

    #[test]
    fn nonsense_is_refused_as_openai_would() {
        for (service, body) in [
            (Service::Chat, "{"),
            (Service::Chat, r#"{"model":1}"#),
            (Service::Embeddings, "{}"),
            (Service::Embeddings, r#"{"input":"x","dimensions":99999999}"#),
            (Service::Embeddings, r#"{"input":"x","encoding_format":"hex"}"#),
        ] {
            let answer = Answer::of(service, "application/json", body.as_bytes(), &Knobs::default());
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert!(text(&answer).contains("invalid_request_error"), "{body}");
        }
    }
}
