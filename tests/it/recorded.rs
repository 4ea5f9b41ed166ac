//! Recorded answers of Anthropic and Bedrock, given to clients that speak OpenAI's dialect: nothing of what the model said, asked
//! for or cost is lost, however the answer was cut into chunks. Anthropic's own clients get them as they were.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ai_gateway::endpoint::Endpoint;
use ai_gateway::headers::Headers;
use ai_gateway::mutation::{BodyChange, ResponsePhases};
use ai_gateway::translate::{self, Answer, Pair, Report};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::shared_data;

/// One recorded answer.
#[derive(Debug)]
struct Recorded {
    source: String,
    status: u16,
    content_type: String,
    body: Bytes,
}

impl Recorded {
    fn succeeded(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The answers of a folder's exchanges whose path ends in one of these.
fn recorded(folder: &Path, ends: &[&str]) -> Vec<Recorded> {
    let mut found = Vec::new();
    for file in files(folder) {
        let text = std::fs::read_to_string(&file).unwrap();
        let options = serde_saphyr::options! { ignore_binary_tag_for_string: true };
        let document: Value = serde_saphyr::from_str_with_options(&text, options)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for interaction in document["interactions"].as_array().unwrap() {
            let uri = interaction["request"]["uri"].as_str().unwrap_or_default();
            let path = uri.split('?').next().unwrap_or_default();
            if !ends.iter().any(|end| path.ends_with(end)) {
                continue;
            }
            let response = &interaction["response"];
            let headers = response["headers"].as_object().cloned().unwrap_or_default();
            let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
            let content_type = content_type.and_then(|(_, value)| value[0].as_str()).unwrap_or_default();
            let body = match response["body"]["string"].as_str() {
                Some(text) if path.ends_with("converse-stream") => {
                    let text: String = text.split_ascii_whitespace().collect();
                    STANDARD.decode(text).unwrap()
                }
                Some(text) => text.as_bytes().to_vec(),
                None => response["parsed_body"].to_string().into_bytes(),
            };
            let streams = path.ends_with("converse-stream") && response["body"]["string"].is_string();
            found.push(Recorded {
                source: file.file_name().unwrap().to_string_lossy().into_owned(),
                status: u16::try_from(response["status"]["code"].as_u64().unwrap()).unwrap(),
                // Recordings of event streams leave the header out.
                content_type: if streams { AWS.to_owned() } else { content_type.to_owned() },
                body: body.into(),
            });
        }
    }
    found
}

const AWS: &str = "application/vnd.amazon.eventstream";

/// The recorded payloads of streams, as server-sent events, and whole answers.
fn payloads(folder: &Path) -> Vec<Recorded> {
    let files = files(folder).into_iter().filter_map(|file| {
        let source = file.file_name()?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        if !source.ends_with(".chunks.txt") {
            let kind = serde_json::from_str::<Value>(&text).ok()?["type"] == "message";
            let content_type = "application/json".to_owned();
            return kind.then(|| Recorded { source, status: 200, content_type, body: text.into() });
        }
        // Some files hold the streams of several requests, one after the other.
        let end = text
            .find("{\"type\":\"message_stop\"")
            .map_or(text.len(), |at| text[at..].find('\n').map_or(text.len(), |line| at + line));
        let events =
            text[..end].lines().filter(|line| !line.is_empty()).map(|line| format!("data: {line}\n\n"));
        let body: String = events.collect();
        Some(Recorded {
            source,
            status: 200,
            content_type: "text/event-stream".to_owned(),
            body: body.into(),
        })
    });
    files.collect()
}

/// What the client gets, in chunks of that size.
fn read(pair: Pair, endpoint: Endpoint, recorded: &Recorded, size: usize) -> (Vec<u8>, Report) {
    let answer = Answer {
        pair,
        model: "asked-for",
        created: SystemTime::UNIX_EPOCH,
        endpoint,
        streaming: true,
        hide_usage: false,
        status: recorded.status,
    };
    let headers: Headers = [("content-type", recorded.content_type.clone())].into_iter().collect();
    let mut out = Vec::new();
    let plan = translate::plan(&answer, &headers);
    // Envoy cuts nothing that it was asked to hold.
    let size = if plan.phases == ResponsePhases::Buffered { recorded.body.len() } else { size };
    let Some(mut reader) = plan.reader else {
        return (recorded.body.to_vec(), Report::default());
    };
    let chunks = recorded.body.chunks(size).map(Bytes::copy_from_slice);
    for (chunk, end) in chunks.map(|chunk| (chunk, false)).chain([(Bytes::new(), true)]) {
        match reader.chunk(chunk.clone(), end).unwrap_or_else(|error| panic!("{}: {error}", recorded.source))
        {
            BodyChange::Keep => out.extend_from_slice(&chunk),
            BodyChange::Replace(bytes) => out.extend_from_slice(&bytes),
        }
    }
    (out, reader.report().clone())
}

/// What an answer says, whatever the dialect and the form.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    thoughts: String,
    /// Names and arguments.
    calls: Vec<(String, Value)>,
    finish: String,
    input: u64,
    output: u64,
}

/// What the client understands of what it got.
fn understood(body: &[u8]) -> Said {
    let text = std::str::from_utf8(body).unwrap();
    let mut said = Said::default();
    if !text.starts_with("data: ") {
        let answer: Value = serde_json::from_str(text).unwrap();
        let message = &answer["choices"][0]["message"];
        let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
        let call = |call: &Value| {
            (word(&call["function"]["name"]), arguments(&word(&call["function"]["arguments"])))
        };
        return Said {
            text: word(&message["content"]),
            thoughts: word(&message["reasoning_content"]),
            calls: calls.iter().map(call).collect(),
            finish: word(&answer["choices"][0]["finish_reason"]),
            input: answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0),
            output: answer["usage"]["completion_tokens"].as_u64().unwrap_or(0),
        };
    }
    let events: Vec<&str> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.last().map(|event| event.trim_end()), Some("[DONE]"));
    let mut calls: Vec<(String, String)> = Vec::new();
    for event in &events[..events.len() - 1] {
        let event: Value = serde_json::from_str(event).unwrap();
        let delta = &event["choices"][0]["delta"];
        said.text += &word(&delta["content"]);
        said.thoughts += &word(&delta["reasoning_content"]);
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if calls.len() <= index {
                calls.resize_with(index + 1, Default::default);
            }
            calls[index].0 += &word(&call["function"]["name"]);
            calls[index].1 += &word(&call["function"]["arguments"]);
        }
        said.finish += &word(&event["choices"][0]["finish_reason"]);
        if event["usage"].is_object() {
            said.input = event["usage"]["prompt_tokens"].as_u64().unwrap_or(0);
            said.output = event["usage"]["completion_tokens"].as_u64().unwrap_or(0);
        }
    }
    said.calls = calls.into_iter().map(|(name, text)| (name, arguments(&text))).collect();
    said
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An object, or as much of its text as there was room for.
fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

fn finish(reason: &Value) -> String {
    let reason = match reason.as_str() {
        Some("max_tokens") => "length",
        Some("tool_use") => "tool_calls",
        Some("refusal" | "content_filtered" | "guardrail_intervened") => "content_filter",
        _ => "stop",
    };
    reason.to_owned()
}

/// What Anthropic said, by its own record.
fn anthropic(body: &[u8], streams: bool) -> Said {
    let mut said = Said::default();
    let text = std::str::from_utf8(body).unwrap();
    let mut usage = json!({});
    let mut count = |later: &Value| {
        for (name, value) in later.as_object().into_iter().flatten() {
            if name == "output_tokens" || value.as_u64().unwrap_or(0) > 0 {
                usage[name] = value.clone();
            }
        }
    };
    if streams {
        let mut open: Option<(String, String)> = None;
        for event in text.lines().filter_map(|line| line.strip_prefix("data:")) {
            let event: Value = serde_json::from_str(event).unwrap();
            let (block, delta) = (&event["content_block"], &event["delta"]);
            match event["type"].as_str().unwrap() {
                "message_start" => count(&event["message"]["usage"]),
                "content_block_start" if block["type"] == "text" => said.text += &word(&block["text"]),
                "content_block_start" if block["type"] == "tool_use" => {
                    let input = block["input"].as_object().filter(|input| !input.is_empty());
                    open = Some((
                        word(&block["name"]),
                        input.map(|_| block["input"].to_string()).unwrap_or_default(),
                    ));
                }
                "content_block_delta" => {
                    said.text += &word(&delta["text"]);
                    said.thoughts += &word(&delta["thinking"]);
                    if let Some((_, text)) = &mut open {
                        *text += &word(&delta["partial_json"]);
                    }
                }
                "content_block_stop" => said.calls.extend(
                    open.take()
                        .map(|(name, text)| (name, arguments(if text.is_empty() { "{}" } else { &text }))),
                ),
                "message_delta" => {
                    count(&event["usage"]);
                    said.finish = finish(&delta["stop_reason"]);
                }
                _ => {}
            }
        }
    } else {
        let answer: Value = serde_json::from_str(text).unwrap();
        for block in answer["content"].as_array().unwrap() {
            match block["type"].as_str().unwrap() {
                "text" => said.text += &word(&block["text"]),
                "thinking" => said.thoughts += &word(&block["thinking"]),
                "tool_use" => said.calls.push((word(&block["name"]), block["input"].clone())),
                _ => {}
            }
        }
        count(&answer["usage"]);
        said.finish = finish(&answer["stop_reason"]);
    }
    let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
    said.input =
        tokens("input_tokens") + tokens("cache_read_input_tokens") + tokens("cache_creation_input_tokens");
    said.output = tokens("output_tokens");
    said
}

/// What Bedrock said in one document, by its own record.
fn converse(body: &[u8]) -> Said {
    let answer: Value = serde_json::from_slice(body).unwrap();
    let mut said = Said { finish: finish(&answer["stopReason"]), ..Said::default() };
    for block in answer["output"]["message"]["content"].as_array().unwrap() {
        said.text += &word(&block["text"]);
        said.thoughts += &word(&block["reasoningContent"]["reasoningText"]["text"]);
        if let Some(call) = block.get("toolUse") {
            said.calls.push((word(&call["name"]), call["input"].clone()));
        }
    }
    let tokens = |name: &str| answer["usage"][name].as_u64().unwrap_or(0);
    said.input = tokens("inputTokens") + tokens("cacheReadInputTokens") + tokens("cacheWriteInputTokens");
    said.output = tokens("outputTokens");
    said
}

#[test]
fn recorded_answers_of_anthropic_keep_their_meaning() {
    let Some(data) = shared_data() else { return };
    let mut all = recorded(&data.join("traffic/recorded/anthropic"), &["/v1/messages"]);
    all.extend(payloads(&data.join("traffic/responses/anthropic")));
    assert!(all.len() > 60, "only {} answers were found", all.len());
    let (mut streams, mut calls, mut failures) = (0, 0, 0);
    for recorded in &all {
        let source = &recorded.source;
        let is_stream = recorded.content_type.starts_with("text/event-stream");
        let (own, report) = read(Pair::Same, Endpoint::Messages, recorded, 64);
        assert_eq!(own, recorded.body, "{source}: its own clients get it as it was");
        let translated = |size| read(Pair::ChatToAnthropic, Endpoint::ChatCompletions, recorded, size);
        let (body, counted) = translated(recorded.body.len());
        assert_eq!(translated(1), (body.clone(), counted.clone()), "{source}");
        if !recorded.succeeded() {
            failures += 1;
            let (error, own): (Value, Value) =
                (serde_json::from_slice(&body).unwrap(), serde_json::from_slice(&recorded.body).unwrap());
            assert_eq!(error["error"]["message"], own["error"]["message"], "{source}");
            continue;
        }
        let expected = anthropic(&recorded.body, is_stream);
        assert_eq!((counted.usage, counted.cut), (report.usage, false), "{source}");
        assert_eq!(understood(&body), expected, "{source}");
        streams += usize::from(is_stream);
        calls += expected.calls.len();
    }
    assert!(
        streams > 10 && calls > 10 && failures > 0,
        "{streams} streams, {calls} calls, {failures} failures"
    );
}

#[test]
fn recorded_answers_of_bedrock_keep_their_meaning() {
    let Some(data) = shared_data() else { return };
    let all = recorded(&data.join("traffic/recorded/bedrock"), &["/converse", "/converse-stream"]);
    assert!(all.len() > 40, "only {} answers were found", all.len());
    let (mut streams, mut calls, mut failures) = (0, 0, 0);
    for recorded in &all {
        let source = &recorded.source;
        let translated = |size| read(Pair::ChatToConverse, Endpoint::ChatCompletions, recorded, size);
        let (body, counted) = translated(recorded.body.len());
        assert_eq!(translated(1), (body.clone(), counted.clone()), "{source}");
        if !recorded.succeeded() {
            failures += 1;
            let own: Value = serde_json::from_slice(&recorded.body).unwrap();
            let error: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(error["error"]["message"], own["message"], "{source}");
            continue;
        }
        assert!(!counted.cut && !counted.usage.is_empty(), "{source}");
        let said = understood(&body);
        calls += said.calls.len();
        assert_eq!(
            (counted.usage.input, counted.usage.output),
            (Some(said.input), Some(said.output)),
            "{source}"
        );
        if recorded.content_type == AWS {
            streams += 1;
            // Frames are read by one library here and there; that something was said and ended is what is left to see.
            assert!(!said.finish.is_empty(), "{source}: {said:?}");
            assert!(
                said.output < 2 || !(said.text.is_empty() && said.calls.is_empty()),
                "{source}: {said:?}"
            );
        } else {
            assert_eq!(said, converse(&recorded.body), "{source}");
        }
    }
    assert!(
        streams > 3 && calls > 3 && failures > 0,
        "{streams} streams, {calls} calls, {failures} failures"
    );
}
