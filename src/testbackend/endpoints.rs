//! The bodies of the endpoints beside completions and embeddings: responses, images, audio, tokenize, rerank, messages.
//!
//! Shapes follow the API references of OpenAI (responses, images, audio), vLLM (tokenize), Cohere (rerank v2) and Anthropic
//! (messages, token counting, streaming, errors).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::answer::{Answer, CONTENT, CREATED, Pieces, Request, Service};
use super::knobs::{Knobs, Usage};
use crate::codec::multipart::Form;

/// A picture of one pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
const MAX_IMAGES: usize = 10;
const MAX_DOCUMENTS: usize = 10_000;
/// How many token ids are listed, and the context that is claimed.
const MAX_TOKENS: u64 = 4096;
/// How many words of a stream its last events repeat, so that a long stream is not held in memory.
const MAX_REPEATED: usize = 65_536;

/// What `service` says to this request, whose status is one of success.
pub(super) fn answer(service: Service, request: &Request, knobs: &Knobs, status: StatusCode) -> Answer {
    let usage = knobs.usage.unwrap_or(Usage::DEFAULT);
    let streamed = match service {
        Service::Speech => request.stream_format.as_deref() == Some("sse"),
        Service::Responses | Service::Transcriptions | Service::Messages => request.stream == Some(true),
        _ => false,
    };
    if streamed {
        let content_type = HeaderValue::from_static("text/event-stream");
        let pieces = Pieces::Script(Script::new(service, request, &usage, knobs));
        return Answer { status, content_type, model: None, pieces };
    }
    let content = knobs.content.as_deref().unwrap_or(CONTENT);
    let model = request.model();
    let body = match service {
        Service::Responses => response(model, "completed", Some(content), Some(&usage)),
        Service::InputTokens => json!({"object": "response.input_tokens", "input_tokens": usage.prompt}),
        Service::Images => images(request, &usage),
        Service::Speech => {
            let content_type = HeaderValue::from_static(audio_type(request));
            return Answer { content_type, ..Answer::json(status, speech()) }.parts(knobs);
        }
        Service::Transcriptions | Service::Translations
            if request.response_format.as_deref() == Some("text") =>
        {
            let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
            return Answer { content_type, ..Answer::json(status, format!("{content}\n")) }.parts(knobs);
        }
        Service::Transcriptions => json!({"text": content, "usage": audio_usage(&usage)}),
        Service::Tokenize => {
            let tokens: Vec<u64> = (0..usage.prompt.min(MAX_TOKENS)).collect();
            json!({"count": usage.prompt, "max_model_len": MAX_TOKENS, "tokens": tokens})
        }
        Service::Rerank => rerank(request, &usage),
        Service::Messages => message(model, Some(content), Some("end_turn"), &usage),
        Service::CountTokens => json!({"input_tokens": usage.prompt}),
        // The others are answered elsewhere.
        _ => json!({"text": content}),
    };
    Answer::json(status, body.to_string()).parts(knobs)
}

/// The body of an error where it is not OpenAI's.
pub(super) fn error(service: Option<Service>, status: StatusCode, message: &str) -> Option<Value> {
    match service {
        Some(Service::Messages | Service::CountTokens) => {
            let kind = match status.as_u16() {
                401 => "authentication_error",
                403 => "permission_error",
                404 => "not_found_error",
                413 => "request_too_large",
                429 => "rate_limit_error",
                529 => "overloaded_error",
                500.. => "api_error",
                _ => "invalid_request_error",
            };
            let error = json!({"type": kind, "message": message});
            Some(json!({"type": "error", "error": error, "request_id": "req_testbackend"}))
        }
        Some(Service::Rerank) => Some(json!({"id": "testbackend", "message": message})),
        _ => None,
    }
}

/// The members of a form that an answer depends on; the form must have a `model` and a `file`.
pub(super) fn form(content_type: &str, body: &[u8]) -> Result<Request, String> {
    let form = Form::parse(content_type, body).map_err(|e| e.to_string())?;
    let text = |name| form.text(name).map(|text| text.map(str::to_owned)).map_err(|e| e.to_string());
    if !form.contains("file") {
        return Err("the form has no `file`".to_owned());
    }
    let model = text("model")?.ok_or_else(|| "the form has no `model`".to_owned())?;
    Ok(Request {
        model: Some(model),
        stream: text("stream")?.map(|text| text == "true"),
        response_format: text("response_format")?,
        ..Request::default()
    })
}

/// No sound, but every byte there is.
fn speech() -> Vec<u8> {
    b"ID3".iter().copied().chain((0..16).flat_map(|_| 0..=u8::MAX)).collect()
}

fn audio_type(request: &Request) -> &'static str {
    match request.response_format.as_deref() {
        Some("opus") => "audio/opus",
        Some("aac") => "audio/aac",
        Some("flac") => "audio/flac",
        Some("wav") => "audio/wav",
        Some("pcm") => "audio/pcm",
        _ => "audio/mpeg",
    }
}

fn audio_usage(usage: &Usage) -> Value {
    json!({
        "type": "tokens", "input_tokens": usage.prompt, "output_tokens": usage.completion,
        "input_token_details": {"audio_tokens": usage.prompt, "text_tokens": 0},
        "total_tokens": usage.prompt.saturating_add(usage.completion),
    })
}

fn images(request: &Request, usage: &Usage) -> Value {
    let data = vec![json!({"b64_json": PNG}); request.n.unwrap_or(1).min(MAX_IMAGES)];
    json!({
        "created": CREATED, "data": data, "output_format": "png", "size": "1024x1024",
        "usage": {
            "input_tokens": usage.prompt, "input_tokens_details": {"image_tokens": 0, "text_tokens": usage.prompt},
            "output_tokens": usage.completion, "total_tokens": usage.prompt.saturating_add(usage.completion),
        },
    })
}

/// The documents in their order, each less relevant than the one before.
fn rerank(request: &Request, usage: &Usage) -> Value {
    let count = request.documents.as_ref().map_or(0, Vec::len).min(MAX_DOCUMENTS);
    let results: Vec<Value> = (0..count.min(request.top_n.unwrap_or(count)))
        .map(|index| json!({"index": index, "relevance_score": 1.0 / (index + 1) as f64}))
        .collect();
    json!({
        "id": "rerank-testbackend", "results": results,
        "meta": {
            "api_version": {"version": "2"}, "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": usage.prompt, "output_tokens": usage.completion},
        },
    })
}

/// A `response` object; without text its output has not begun.
fn response(model: &str, status: &str, text: Option<&str>, usage: Option<&Usage>) -> Value {
    let output: Vec<Value> =
        text.map(|text| output_message("completed", &[output_text(text)])).into_iter().collect();
    json!({
        "id": "resp_testbackend", "object": "response", "created_at": CREATED, "status": status, "model": model,
        "output": output, "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0,
        "text": {"format": {"type": "text"}}, "truncation": "disabled",
        "usage": usage.map(|usage| json!({
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_creation},
            "output_tokens": usage.completion, "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt.saturating_add(usage.completion),
        })),
    })
}

fn output_message(status: &str, content: &[Value]) -> Value {
    json!({
        "id": "msg_testbackend", "type": "message", "role": "assistant", "status": status, "content": content,
    })
}

fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// An Anthropic message; without text its content has not begun.
fn message(model: &str, text: Option<&str>, stop: Option<&str>, usage: &Usage) -> Value {
    let content: Vec<Value> = text.map(|text| json!({"type": "text", "text": text})).into_iter().collect();
    json!({
        "id": "msg_testbackend", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop, "stop_sequence": null,
        "usage": {
            // What was read from and written to the cache does not count as input here.
            "input_tokens": usage.prompt.saturating_sub(usage.cached).saturating_sub(usage.cache_creation),
            "cache_creation_input_tokens": usage.cache_creation, "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.completion,
        },
    })
}

/// The typed events of one streamed answer: some first, one for each piece of content, some last.
#[derive(Debug)]
pub(super) struct Script {
    opening: Vec<Value>,
    /// The event of a piece of content, and where in it the piece belongs.
    delta: Value,
    place: &'static str,
    words: Vec<String>,
    contents: usize,
    closing: Vec<Value>,
    /// Whether an event says its type before its data.
    named: bool,
    /// Whether an event says its number.
    numbered: bool,
}

impl Script {
    fn new(service: Service, request: &Request, usage: &Usage, knobs: &Knobs) -> Self {
        let words: Vec<String> = if service == Service::Speech {
            speech().chunks(1024).map(|part| STANDARD.encode(part)).collect()
        } else {
            let content = knobs.content.as_deref().unwrap_or(CONTENT);
            content.split_inclusive(' ').map(str::to_owned).collect()
        };
        let contents = knobs.chunks.map_or(words.len(), |n| n as usize);
        let all: String = words.iter().map(String::as_str).cycle().take(contents.min(MAX_REPEATED)).collect();
        let model = request.model();
        let empty = Self {
            opening: Vec::new(),
            delta: Value::Null,
            place: "/delta",
            words,
            contents,
            closing: Vec::new(),
            named: false,
            numbered: false,
        };
        match service {
            Service::Responses => {
                Self { named: true, numbered: true, ..responses(empty, model, &all, usage) }
            }
            Service::Messages => Self { named: true, ..messages(empty, model, usage) },
            Service::Speech => Self {
                delta: json!({"type": "speech.audio.delta", "audio": ""}),
                place: "/audio",
                closing: vec![json!({"type": "speech.audio.done", "usage": {
                    "input_tokens": usage.prompt, "output_tokens": usage.completion,
                    "total_tokens": usage.prompt.saturating_add(usage.completion),
                }})],
                ..empty
            },
            _ => Self {
                delta: json!({"type": "transcript.text.delta", "delta": ""}),
                closing: vec![
                    json!({"type": "transcript.text.done", "text": all, "usage": audio_usage(usage)}),
                ],
                ..empty
            },
        }
    }

    /// The i-th event; none after the last.
    pub(super) fn get(&self, i: usize) -> Option<Bytes> {
        let content = i.checked_sub(self.opening.len());
        let mut event = match content {
            None => self.opening.get(i)?.clone(),
            Some(content) if content < self.contents => {
                let mut event = self.delta.clone();
                let word = self.words.get(content % self.words.len().max(1)).map_or("", String::as_str);
                if let Some(place) = event.pointer_mut(self.place) {
                    *place = word.into();
                }
                event
            }
            Some(content) => self.closing.get(content - self.contents)?.clone(),
        };
        if self.numbered {
            event["sequence_number"] = i.into();
        }
        let name = event["type"].as_str().filter(|_| self.named);
        let line = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
        Some(format!("{line}data: {event}\n\n").into())
    }

    /// The i-th event of a stream without end: its contents come again and again.
    pub(super) fn get_endless(&self, i: usize) -> Option<Bytes> {
        match i.checked_sub(self.opening.len()) {
            None => self.get(i),
            Some(content) => self.get(self.opening.len() + content % self.contents.max(1)),
        }
    }
}

fn responses(script: Script, model: &str, all: &str, usage: &Usage) -> Script {
    let place = |mut event: Value| {
        event["item_id"] = "msg_testbackend".into();
        event["output_index"] = 0.into();
        event["content_index"] = 0.into();
        event
    };
    let started = response(model, "in_progress", None, None);
    let item = |event: &str, item: Value| json!({"type": event, "output_index": 0, "item": item});
    Script {
        opening: vec![
            json!({"type": "response.created", "response": started}),
            json!({"type": "response.in_progress", "response": started}),
            item("response.output_item.added", output_message("in_progress", &[])),
            place(json!({"type": "response.content_part.added", "part": output_text("")})),
        ],
        delta: place(json!({"type": "response.output_text.delta", "delta": "", "logprobs": []})),
        closing: vec![
            place(json!({"type": "response.output_text.done", "text": all, "logprobs": []})),
            place(json!({"type": "response.content_part.done", "part": output_text(all)})),
            item("response.output_item.done", output_message("completed", &[output_text(all)])),
            json!({
                "type": "response.completed",
                "response": response(model, "completed", Some(all), Some(usage)),
            }),
        ],
        ..script
    }
}

fn messages(script: Script, model: &str, usage: &Usage) -> Script {
    // The first event counts the input, and of the output what there is by then.
    let started = message(model, None, None, &Usage { completion: usage.completion.min(1), ..*usage });
    Script {
        opening: vec![
            json!({"type": "message_start", "message": started}),
            json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            json!({"type": "ping"}),
        ],
        delta: json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": ""}}),
        place: "/delta/text",
        closing: vec![
            json!({"type": "content_block_stop", "index": 0}),
            json!({
                "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                "usage": {"output_tokens": usage.completion},
            }),
            json!({"type": "message_stop"}),
        ],
        ..script
    }
}

#[cfg(test)]
mod tests;
