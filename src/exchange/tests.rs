//! Exchanges, driven as Envoy drives them.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::mutation::{BodyChange, MetadataValue, PhaseOverride, ResponsePhases};
use crate::runtime::Runtime;
use crate::usage::TokenUsage;

const AUTHORITY: &str = "http.gw.default";

/// Two rules: `plain` without anything, `tuned` with everything; costs on both.
fn runtime() -> Arc<Runtime> {
    runtime_of(json!({
        "backends": [
            {"name": "default/plain/route/r/rule/0/ref/0"},
            {
                "name": "default/tuned/route/r/rule/1/ref/0",
                "modelNameOverride": "real-name",
                "schema": {"name": "OpenAI", "prefix": "/api//v2/"},
                "auth": {"apiKey": {"key": "sk-provider"}},
                "httpHeaderMutation": {
                    "set": [{"name": "X-Team", "value": "a"}, {"name": "x-ai-eg-route", "value": "forged"}],
                    "remove": ["x-drop", "x-not-there"]
                },
            },
        ],
        "llmRequestCosts": [
            {"routeName": "default/r", "metadataKey": "in", "type": "InputToken"},
            {"routeName": "default/r", "metadataKey": "twice", "type": "CEL", "cel": "total_tokens * 2u"},
        ],
        "gateways": [{
            "authority": AUTHORITY,
            "name": "default/gw",
            "hosts": [{"hostname": "*", "matches": [
                {"headers": [{"name": "x-ai-eg-model", "value": "plain"}], "rule": 0},
                {"headers": [{"name": "x-ai-eg-model", "type": "RegularExpression", "value": "tuned-.*"}], "rule": 1},
                {"headers": [{"name": "x-ai-eg-model", "value": "broken"}], "rule": 2},
            ]}],
            "rules": [
                {"route": "default/r", "backend": "default/plain/route/r/rule/0/ref/0", "routingKey": "k0"},
                {"route": "default/r", "backend": "default/tuned/route/r/rule/1/ref/0", "routingKey": "k1"},
                {"route": "default/r", "backend": "nowhere", "routingKey": "k2"},
            ],
            "models": {"all": [{"Name": "plain", "OwnedBy": "us", "CreatedAt": "2026-01-01T00:00:00Z"}]},
        }],
    }))
}

fn runtime_of(config: Value) -> Arc<Runtime> {
    let config: Config = serde_json::from_value(config).unwrap();
    Arc::new(Runtime::new(config).0)
}

fn attributes() -> HeaderAttributes {
    let mapping = |text: &str| text.parse().unwrap();
    HeaderAttributes { metrics: mapping("x-team:team"), logs: mapping("agent-session-id:session.id") }
}

fn response(phases: ResponsePhases) -> Option<PhaseOverride> {
    Some(PhaseOverride::Response(phases))
}

fn at(monotonic: Instant) -> Now {
    Now { monotonic, wall: SystemTime::UNIX_EPOCH }
}

fn exchange(runtime: &Runtime, now: Instant) -> Exchange {
    let id = ExchangeId { process: 1, number: 2 };
    let settings = Arc::new(Settings { attributes: attributes(), ..Settings::default() });
    Exchange::new(runtime.scope(AUTHORITY), id, settings, at(now))
}

/// Envoy's side of one exchange.
struct Script {
    exchange: Exchange,
    now: Instant,
}

impl Script {
    fn new() -> Self {
        let now = Instant::now();
        Self { exchange: exchange(&runtime(), now), now }
    }

    fn send(&mut self, input: Input) -> Result<Step, Violation> {
        self.now += Duration::from_millis(10);
        self.exchange.handle(input, at(self.now))
    }

    fn change(&mut self, input: Input) -> Change {
        match self.send(input).unwrap() {
            Step::Continue(change) => change,
            other => panic!("answered: {other:?}"),
        }
    }

    fn reply(&mut self, input: Input) -> LocalReply {
        match self.send(input).unwrap() {
            Step::Reply(reply) => reply,
            other => panic!("went on: {other:?}"),
        }
    }

    /// A request that is sent on; its change.
    fn request(&mut self, path: &str, headers: &[(&str, &str)], body: &Value) -> Change {
        self.change(request_headers("POST", path, headers));
        self.change(request_body(&body.to_string()))
    }

    /// A request that is refused.
    fn refused(&mut self, headers: &[(&str, &str)], body: &str) -> LocalReply {
        self.change(request_headers("POST", "/v1/chat/completions", headers));
        self.reply(request_body(body))
    }

    fn response(&mut self, status: &str, headers: &[(&str, &str)]) -> Change {
        self.change(response_headers(status, headers))
    }

    /// Sends a body in pieces and returns what the client gets.
    fn body<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Change) {
        let mut pieces = pieces.into_iter().peekable();
        let mut delivered = Vec::new();
        let mut last = Change::default();
        while let Some(piece) = pieces.next() {
            let body = Bytes::copy_from_slice(piece);
            last = self.change(Input::ResponseBody { body, end_of_stream: pieces.peek().is_none() });
            match &last.body {
                BodyChange::Keep => delivered.extend_from_slice(piece),
                BodyChange::Replace(bytes) => delivered.extend_from_slice(bytes),
            }
        }
        (delivered, last)
    }

    fn settled(&mut self) -> Settlement {
        let settlement = self.exchange.settle(self.now).expect("settled once");
        assert!(self.exchange.settle(self.now).is_none(), "settled twice");
        settlement
    }
}

fn request_headers(method: &str, path: &str, headers: &[(&str, &str)]) -> Input {
    let own = [(":method", method), (":path", path), (":authority", "ai.example:8080")];
    Input::RequestHeaders { headers: owned(own.iter().chain(headers)), end_of_stream: method == "GET" }
}

fn request_body(body: &str) -> Input {
    Input::RequestBody { body: Bytes::copy_from_slice(body.as_bytes()), end_of_stream: true }
}

fn response_headers(status: &str, headers: &[(&str, &str)]) -> Input {
    let own = [(":status", status)];
    Input::ResponseHeaders { headers: owned(own.iter().chain(headers)), end_of_stream: false }
}

fn owned<'a>(headers: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Headers {
    headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn set<'a>(change: &'a Change, name: &str) -> Option<&'a str> {
    let entry = change.headers.set.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(&entry.1).ok()
}

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi."}]})
}

fn streamed(model: &str) -> Value {
    json!({"model": model, "stream": true, "messages": []})
}

#[test]
fn a_request_is_routed_signed_and_sent_in_one_reply() {
    let mut script = Script::new();
    let client = [
        ("authorization", "Bearer client"),
        ("cookie", "session=1"),
        ("x-drop", "1"),
        ("x-ai-eg-model", "forged"),
        ("x-ai-eg-processed", "forged"),
        ("x-ai-eg-tenant", "forged"),
    ];
    let change = script.request("/v1/chat/completions?a=b", &client, &chat("tuned-1"));
    assert!(change.clear_route_cache);
    assert_eq!(set(&change, MODEL_HEADER), Some("tuned-1"));
    assert_eq!(set(&change, ROUTING_HEADER), Some("k1"));
    assert_eq!(set(&change, PROCESSED_HEADER), Some("1"));
    assert_eq!(set(&change, ORIGINAL_PATH_HEADER), Some("/v1/chat/completions?a=b"));
    assert_eq!(set(&change, ENVOY_ORIGINAL_PATH_HEADER), Some("/v1/chat/completions?a=b"));
    assert_eq!(set(&change, ":path"), Some("/api/v2/chat/completions"));
    assert_eq!(set(&change, "authorization"), Some("Bearer sk-provider"));
    assert_eq!(set(&change, "x-team"), Some("a"));
    let mut removed = change.headers.remove.clone();
    removed.sort();
    assert_eq!(removed, ["authorization", "cookie", "x-ai-eg-tenant", "x-drop"]);
    let BodyChange::Replace(body) = &change.body else { panic!("the model was not replaced") };
    assert_eq!(body, &Bytes::from(chat("real-name").to_string()));
    assert_eq!(set(&change, "content-length"), Some(body.len().to_string().as_str()));
    let name = MetadataValue::Text("default/tuned/route/r/rule/1/ref/0".to_owned());
    assert_eq!(change.metadata.0[0], ("backend_name".into(), name));
}

#[test]
fn a_request_that_needs_no_edit_keeps_its_bytes_and_loses_the_clients_credential() {
    let mut script = Script::new();
    let change = script.request("/v1/embeddings", &[("x-api-key", "client")], &chat("plain"));
    assert_eq!(change.body, BodyChange::Keep);
    assert_eq!(set(&change, ":path"), Some("/v1/embeddings"));
    assert_eq!(set(&change, "authorization"), None);
    assert_eq!(change.headers.remove, ["x-api-key"]);
}

#[test]
fn mapped_headers_are_told_in_metadata_and_metrics() {
    let mut script = Script::new();
    let headers = [("x-team", "blue"), ("agent-session-id", "s1")];
    let change = script.request("/v1/chat/completions", &headers, &chat("plain"));
    let session = ("session.id".into(), MetadataValue::Text("s1".to_owned()));
    assert!(change.metadata.0.contains(&session), "{:?}", change.metadata);
    assert_eq!(script.settled().attributes, [("team".to_owned(), "blue".to_owned())]);
}

#[test]
fn encodings_that_cannot_be_read_are_not_asked_for() {
    for (accepted, asked) in [
        ("gzip, br", None),
        ("gzip, deflate, br;q=0.5, zstd", Some("gzip, br;q=0.5")),
        ("zstd", Some("identity")),
    ] {
        let change =
            Script::new().request("/v1/chat/completions", &[("accept-encoding", accepted)], &chat("plain"));
        assert_eq!(set(&change, "accept-encoding"), asked, "{accepted}");
    }
}

fn unary_answer() -> String {
    json!({
        "id": "1", "model": "real-name-0905", "choices": [{"message": {"content": "a \"usage\": {} b"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 11, "total_tokens": 20,
                  "prompt_tokens_details": {"cached_tokens": 3}},
    })
    .to_string()
}

#[test]
fn a_unary_answer_passes_untouched_and_is_read_at_every_split() {
    let answer = unary_answer();
    for at in 0..=answer.len() {
        let mut script = Script::new();
        script.request("/v1/chat/completions", &[], &chat("tuned-1"));
        let change = script.response("200", &[("content-type", "application/json")]);
        assert_eq!(change.phases, response(ResponsePhases::Streamed));
        let (first, second) = answer.as_bytes().split_at(at);
        let (delivered, last) = script.body([first, second]);
        assert_eq!(delivered, answer.as_bytes());
        assert_eq!(last.metadata.0[0], ("in".into(), MetadataValue::Number(9.0)));
        assert_eq!(last.metadata.0[1], ("twice".into(), MetadataValue::Number(40.0)));
        assert!(script.exchange.is_over());
        let settlement = script.settled();
        assert_eq!(settlement.outcome, Outcome::Completed);
        let usage = TokenUsage {
            input: Some(9),
            cached_input: Some(3),
            cache_creation_input: Some(0),
            output: Some(11),
            total: Some(20),
            reasoning: None,
        };
        assert_eq!(settlement.usage, usage);
        assert!(!settlement.estimated);
        assert_eq!(settlement.response_model.as_deref(), Some("real-name-0905"));
        assert_eq!(settlement.request_model.as_deref(), Some("real-name"));
        assert_eq!(settlement.original_model.as_deref(), Some("tuned-1"));
    }
}

#[test]
fn a_short_unary_answer_is_asked_for_in_one_message() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    let change = script.response("200", &[("content-length", "100")]);
    assert_eq!(change.phases, response(ResponsePhases::Buffered));
}

#[test]
fn trailers_end_an_answer_too() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    script.response("200", &[]);
    script.change(Input::ResponseBody { body: unary_answer().into(), end_of_stream: false });
    assert!(!script.exchange.is_over());
    let change = script.change(Input::ResponseTrailers);
    assert_eq!(change.metadata.0[0], ("in".into(), MetadataValue::Number(9.0)));
    assert_eq!(script.settled().usage.output, Some(11));
}

const EVENTS: [&str; 3] = [
    "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"I\"}}],\"usage\":null}\n\n",
    "data: {\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\" am \\\"usage\\\"\"}}],\"usage\":null}\n\n",
    "data: {\"model\":\"m\",\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
];
const USAGE_EVENT: &str = "data: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":3,\"total_tokens\":4}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn stream_with_usage() -> String {
    EVENTS.concat() + USAGE_EVENT + DONE
}

const EVENT_STREAM: [(&str, &str); 1] = [("content-type", "text/event-stream; charset=utf-8")];

#[test]
fn a_usage_event_the_client_did_not_ask_for_is_hidden_at_every_split() {
    let stream = stream_with_usage();
    for at in 0..=stream.len() {
        let mut script = Script::new();
        let change = script.request("/v1/chat/completions", &[], &streamed("plain"));
        let BodyChange::Replace(body) = &change.body else { panic!("usage was not asked for") };
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(body["stream_options"], json!({"include_usage": true}));
        let change = script.response("200", &EVENT_STREAM);
        assert_eq!(change.phases, response(ResponsePhases::Streamed));
        let (first, second) = stream.as_bytes().split_at(at);
        let (delivered, last) = script.body([first, second]);
        assert_eq!(String::from_utf8(delivered).unwrap(), EVENTS.concat() + DONE, "split at {at}");
        assert!(last.metadata.0.iter().any(|(key, _)| key == "token_latency_ttft"));
        let settlement = script.settled();
        assert_eq!(settlement.usage.total, Some(4));
        assert!(!settlement.estimated);
    }
}

#[test]
fn a_usage_event_the_client_asked_for_passes_untouched() {
    let stream = stream_with_usage();
    for at in 0..=stream.len() {
        let mut script = Script::new();
        let mut body = streamed("plain");
        body["stream_options"] = json!({"include_usage": true});
        let change = script.request("/v1/chat/completions", &[], &body);
        assert_eq!(change.body, BodyChange::Keep);
        script.response("200", &EVENT_STREAM);
        let (first, second) = stream.as_bytes().split_at(at);
        for (piece, end) in [(first, false), (second, true)] {
            let change = script
                .change(Input::ResponseBody { body: Bytes::copy_from_slice(piece), end_of_stream: end });
            assert_eq!(change.body, BodyChange::Keep);
        }
        assert_eq!(script.settled().usage.total, Some(4));
    }
}

#[test]
fn a_stream_without_its_last_blank_line_loses_nothing() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &streamed("plain"));
    script.response("200", &EVENT_STREAM);
    let cut = EVENTS.concat() + "data: [DONE]";
    let (delivered, _) = script.body([cut.as_bytes()]);
    assert_eq!(delivered, cut.as_bytes());
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn usage_is_taken_out_of_a_compressed_stream_which_then_goes_on_uncompressed() {
    let stream = gzip(&stream_with_usage());
    for at in 0..=stream.len() {
        let mut script = Script::new();
        script.request("/v1/chat/completions", &[], &streamed("plain"));
        let change = script.response("200", &[EVENT_STREAM[0], ("content-encoding", "gzip")]);
        assert_eq!(change.headers.remove, ["content-encoding"]);
        let (first, second) = stream.split_at(at);
        let (delivered, _) = script.body([first, second]);
        assert_eq!(String::from_utf8(delivered).unwrap(), EVENTS.concat() + DONE, "split at {at}");
        assert_eq!(script.settled().usage.total, Some(4));
    }
}

#[test]
fn a_compressed_unary_answer_keeps_its_encoding_and_is_read() {
    let answer = gzip(&unary_answer());
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    let change = script.response("200", &[("content-encoding", "gzip")]);
    assert!(change.headers.is_empty());
    let (delivered, _) = script.body([&answer[..20], &answer[20..]]);
    assert_eq!(delivered, answer);
    assert_eq!(script.settled().usage.total, Some(20));
}

#[test]
fn a_broken_encoding_passes_where_it_is_only_read_and_ends_the_stream_where_it_is_rewritten() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    script.response("200", &[("content-encoding", "gzip")]);
    let (delivered, _) = script.body([&b"not gzip"[..]]);
    assert_eq!(delivered, b"not gzip");
    assert!(script.settled().estimated);

    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &streamed("plain"));
    script.response("200", &[EVENT_STREAM[0], ("content-encoding", "br")]);
    let error = script.send(Input::ResponseBody { body: "not br".into(), end_of_stream: true }).unwrap_err();
    assert!(matches!(error, Violation::Unreadable(_)), "{error}");
    assert_eq!(script.settled().outcome, Outcome::Violation);
}

#[test]
fn an_interrupted_stream_is_settled_with_what_was_delivered() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &streamed("plain"));
    script.response("200", &EVENT_STREAM);
    for event in EVENTS {
        script.change(Input::ResponseBody { body: event.into(), end_of_stream: false });
    }
    let settlement = script.settled();
    assert_eq!(settlement.outcome, Outcome::Interrupted);
    assert!(settlement.estimated);
    assert!(
        settlement.usage.output.is_some_and(|output| (3..=20).contains(&output)),
        "{:?}",
        settlement.usage
    );
    assert!(settlement.usage.input.is_some_and(|input| input > 0));
}

#[test]
fn an_exchange_that_is_dropped_before_an_answer_used_nothing() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    let settlement = script.settled();
    assert_eq!(settlement.outcome, Outcome::Interrupted);
    assert!(settlement.usage.is_empty());
}

#[test]
fn a_provider_error_in_json_passes_and_another_is_wrapped() {
    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    let change = script.response("429", &[("content-type", "application/problem+json")]);
    assert_eq!(change.phases, response(ResponsePhases::None));
    assert_eq!(script.settled().outcome, Outcome::ProviderError);

    let mut script = Script::new();
    script.request("/v1/chat/completions", &[], &chat("plain"));
    let change = script.response("503", &[("content-type", "text/plain"), ("content-length", "9")]);
    assert_eq!(change.phases, response(ResponsePhases::Buffered));
    assert_eq!(set(&change, "content-type"), Some("application/json"));
    let (delivered, last) = script.body([&b"no \"luck\""[..]]);
    let error: Value = serde_json::from_slice(&delivered).unwrap();
    let expected = json!({"type": "OpenAIBackendError", "code": "503", "message": "no \"luck\""});
    assert_eq!(error["error"], expected);
    assert!(last.metadata.is_empty());
    assert_eq!(script.settled().status, Some(503));
}

#[test]
fn refusals_say_what_is_wrong_in_valid_json() {
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(100_000));
    for (body, details, part) in [
        ("{\"model\": oops}", "malformed_json", "line 1 column 11"),
        (r#"{"model": 5}"#, "malformed_json", "`model` must be a string"),
        (r#"{"messages": []}"#, "missing_model", "`model` is missing"),
        (r#"{"model": null}"#, "missing_model", "`model` is missing"),
        ("{\"model\": \"a\\r\\nx: y\"}", "invalid_model", "control characters"),
        (long.as_str(), "invalid_model", "100000 bytes"),
        ("", "malformed_json", "line 1 column 0"),
    ] {
        let reply = Script::new().refused(&[], body);
        assert_eq!((reply.status, reply.details), (400, details));
        let value: Value = serde_json::from_slice(&reply.body).unwrap();
        let message = value["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{message}");
        assert_eq!(value["error"]["type"], "BadRequest");
    }
}

#[test]
fn an_unknown_model_gets_the_walkthroughs_sentence() {
    let reply = Script::new().refused(&[], &chat("nobody").to_string());
    assert_eq!((reply.status, reply.body), (404, NO_ROUTE.into()));
}

#[test]
fn a_rule_without_a_usable_backend_lets_nothing_through() {
    let mut script = Script::new();
    let reply = script.refused(&[], &chat("broken").to_string());
    assert_eq!(reply.status, 503);
    assert_eq!(script.settled().outcome, Outcome::Refused("broken_rule"));
}

#[test]
fn requests_that_cannot_be_served_are_answered_on_their_headers() {
    for (method, path, headers, status) in [
        ("POST", "/v1/nothing?x=y", vec![], 404),
        ("DELETE", "/v1/chat/completions", vec![], 405),
        ("GET", "/v1/chat/completions", vec![], 405),
        ("POST", "/v1/chat/completions", vec![("content-encoding", "gzip")], 415),
    ] {
        let reply = Script::new().reply(request_headers(method, path, &headers));
        assert_eq!(reply.status, status, "{method} {path}");
    }
    let reply = Script::new().reply(request_headers("GET", "/v1/nothing?x=y", &[]));
    assert_eq!(reply.body, "unsupported path: /v1/nothing?x=y");
}

#[test]
fn models_are_listed_for_any_method() {
    let reply = Script::new().reply(request_headers("GET", "/anthropic/v1/models", &[]));
    let list: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(list["data"][0]["display_name"], "plain");
    for method in ["GET", "POST"] {
        let reply = Script::new().reply(request_headers(method, "/v1/models", &[]));
        let list: Value = serde_json::from_slice(&reply.body).unwrap();
        let expected = json!({"data": [{"id": "plain", "created": 1_767_225_600, "object": "model", "owned_by": "us"}], "object": "list"});
        assert_eq!(list, expected);
    }
}

/// An answer of `endpoint` with that content type, cut at every place; what it used, and the model that answered.
fn read_at_every_split(
    path: &str,
    body: &Value,
    content_type: &str,
    answer: &str,
) -> (TokenUsage, Option<Arc<str>>) {
    let mut read = None;
    for at in 0..=answer.len() {
        let mut script = Script::new();
        script.request(path, &[], body);
        script.response("200", &[("content-type", content_type)]);
        let (first, second) = answer.as_bytes().split_at(at);
        let (delivered, _) = script.body([first, second]);
        assert_eq!(delivered, answer.as_bytes(), "split at {at}");
        let settlement = script.settled();
        assert!(!settlement.estimated);
        let now = (settlement.usage, settlement.response_model);
        assert_eq!(*read.get_or_insert_with(|| now.clone()), now, "split at {at}");
    }
    read.unwrap()
}

#[test]
fn responses_streams_are_read() {
    let answer = "event: response.created\n\
        data: {\"type\":\"response.created\",\"response\":{\"model\":\"gpt-5-x\",\"usage\":null}}\n\n\
        event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"I\"}\n\n\
        event: response.completed\n\
        data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":6,\
        \"total_tokens\":11,\"output_tokens_details\":{\"reasoning_tokens\":2}}}}\n\n";
    let (usage, model) =
        read_at_every_split("/v1/responses", &streamed("plain"), "text/event-stream", answer);
    assert_eq!((usage.input, usage.output, usage.reasoning), (Some(5), Some(6), Some(2)));
    assert_eq!(model.as_deref(), Some("gpt-5-x"));
}

#[test]
fn token_counts_and_images_are_read() {
    let counted = r#"{"object":"response.input_tokens","input_tokens":11}"#;
    let (usage, model) =
        read_at_every_split("/v1/responses/input_tokens", &chat("plain"), "application/json", counted);
    assert_eq!((usage, model), (TokenUsage { input: Some(11), ..TokenUsage::default() }, None));
    let image =
        r#"{"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":1,"output_tokens":2,"total_tokens":3}}"#;
    let (usage, model) =
        read_at_every_split("/v1/images/generations", &chat("plain"), "application/json", image);
    assert_eq!((usage.total, model.as_deref()), (Some(3), Some("plain")));
}

#[test]
fn speech_passes_unread_and_counts_as_completed() {
    let mut script = Script::new();
    script.request("/v1/audio/speech", &[], &chat("plain"));
    let change = script.response("200", &[("content-type", "audio/mpeg")]);
    assert_eq!(change.phases, response(ResponsePhases::None));
    let settlement = script.settled();
    assert_eq!((settlement.outcome, settlement.estimated), (Outcome::Completed, false));
    assert!(settlement.usage.is_empty());
}

/// A runtime whose one rule leads to a backend of that dialect.
fn script_with(schema: &Value) -> Script {
    let backend = "default/b/route/r/rule/0/ref/0";
    let runtime = runtime_of(json!({
        "backends": [{
            "name": backend, "schema": schema, "modelNameOverride": "deployed",
            "httpBodyMutation": {"set": [{"path": "tier", "value": "flex"}], "remove": ["user"]},
            "auth": {"anthropicAPIKey": {"key": "sk-ant"}},
        }],
        "gateways": [{
            "authority": AUTHORITY, "name": "default/gw", "models": {},
            "hosts": [{"hostname": "*", "matches": [{"headers": [], "rule": 0}]}],
            "rules": [{"route": "default/r", "backend": backend, "routingKey": "k"}],
        }],
    }));
    let now = Instant::now();
    Script { exchange: exchange(&runtime, now), now }
}

#[test]
fn anthropic_messages_are_signed_edited_and_read() {
    let answer = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"claude-x\",\
        \"usage\":{\"input_tokens\":3,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"I\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for at in 0..=answer.len() {
        let mut script = script_with(&json!({"name": "Anthropic"}));
        let body = json!({"model": "m", "stream": true, "user": "u", "messages": []});
        let change = script.request("/anthropic/v1/messages", &[("x-api-key", "client")], &body);
        assert_eq!(set(&change, ":path"), Some("/v1/messages"));
        assert_eq!(set(&change, "x-api-key"), Some("sk-ant"));
        let BodyChange::Replace(body) = &change.body else { panic!("not edited") };
        let expected = json!({"model": "deployed", "stream": true, "messages": [], "tier": "flex"});
        assert_eq!(serde_json::from_slice::<Value>(body).unwrap(), expected);
        script.response("200", &EVENT_STREAM);
        let (first, second) = answer.as_bytes().split_at(at);
        assert_eq!(script.body([first, second]).0, answer.as_bytes());
        let settlement = script.settled();
        let usage = settlement.usage;
        assert_eq!(
            (usage.input, usage.cached_input, usage.output, usage.total),
            (Some(7), Some(4), Some(9), Some(16))
        );
        assert_eq!(settlement.response_model.as_deref(), Some("claude-x"));
        assert_eq!(settlement.provider(), Some("anthropic"));
    }
}

#[test]
fn errors_are_wrapped_in_the_endpoints_dialect() {
    for (schema, path, kind) in [
        (
            "Anthropic",
            "/anthropic/v1/messages",
            json!({"error": {"message": "no", "type": "overloaded_error"}, "request_id": "", "type": "error"}),
        ),
        ("Cohere", "/cohere/v2/rerank", json!({"message": "no"})),
        (
            "AzureOpenAI",
            "/v1/responses",
            json!({"type": "error", "error": {"type": "OpenAIBackendError", "code": "529", "message": "no"}}),
        ),
    ] {
        let mut script = script_with(&json!({"name": schema}));
        script.request(path, &[], &chat("m"));
        script.response("529", &[("content-type", "text/html")]);
        let (delivered, _) = script.body([&b"no"[..]]);
        assert_eq!(serde_json::from_slice::<Value>(&delivered).unwrap(), kind);
    }
    let mut script = script_with(&json!({"name": "OpenAI"}));
    script.request("/v1/completions", &[], &chat("m"));
    assert_eq!(
        script.response("500", &[("content-type", "text/html")]).phases,
        response(ResponsePhases::None)
    );
}

#[test]
fn azure_has_the_model_in_the_path_of_chat_requests() {
    let mut script = script_with(&json!({"name": "AzureOpenAI", "version": "v9"}));
    let change = script.request("/v1/chat/completions", &[], &chat("m"));
    assert_eq!(set(&change, ":path"), Some("/openai/deployments/deployed/chat/completions?api-version=v9"));
    let BodyChange::Replace(body) = &change.body else { panic!("not edited") };
    assert_eq!(serde_json::from_slice::<Value>(body).unwrap()["model"], "m");
    let mut script = script_with(&json!({"name": "AzureOpenAI"}));
    script.change(request_headers("POST", "/v1/completions", &[]));
    let reply = script.reply(request_body(&chat("m").to_string()));
    assert_eq!((reply.status, reply.details), (422, "unsupported_endpoint"));
}

#[test]
fn rerank_is_read() {
    let mut script = script_with(&json!({"name": "Cohere", "version": "v2"}));
    let change = script.request("/cohere/v2/rerank", &[], &chat("m"));
    assert_eq!(set(&change, ":path"), Some("/v2/rerank"));
    script.response("200", &[("content-type", "application/json")]);
    script.body([&br#"{"results":[],"meta":{"tokens":{"input_tokens":14,"output_tokens":0}}}"#[..]]);
    let settlement = script.settled();
    assert_eq!(settlement.usage.total, Some(14));
    assert_eq!(settlement.response_model.as_deref(), Some("deployed"));
}

#[test]
fn an_unknown_gateway_is_refused() {
    for runtime in [None, Some(runtime())] {
        let scope = runtime.and_then(|runtime| runtime.scope("someone.else"));
        let (id, now) = (ExchangeId { process: 1, number: 1 }, at(Instant::now()));
        let mut exchange = Exchange::new(scope, id, Arc::default(), now);
        let step = exchange.handle(request_headers("POST", "/v1/chat/completions", &[]), now).unwrap();
        assert!(matches!(step, Step::Reply(LocalReply { status: 503, .. })));
    }
}

#[test]
fn an_answer_of_envoys_own_passes() {
    let mut script = Script::new();
    script.change(request_headers("POST", "/v1/chat/completions", &[]));
    let change = script.response("413", &[("content-type", "text/plain")]);
    assert_eq!(change.phases, response(ResponsePhases::None));
    let (delivered, _) = script.body([&b"Payload Too Large"[..]]);
    assert_eq!(delivered, b"Payload Too Large");
    assert_eq!(script.settled().outcome, Outcome::AnsweredByEnvoy);
}

#[test]
fn phases_out_of_order_are_violations() {
    let headers = || request_headers("POST", "/v1/chat/completions", &[]);
    let body = || request_body(&chat("plain").to_string());
    let answer = || response_headers("200", &[]);
    for inputs in [
        vec![body()],
        vec![Input::ResponseBody { body: Bytes::new(), end_of_stream: true }],
        vec![headers(), headers()],
        vec![headers(), body(), body()],
        vec![headers(), body(), answer(), answer()],
        vec![headers(), body(), answer(), body()],
        vec![headers(), body(), Input::ResponseTrailers],
        vec![headers(), body(), answer(), Input::ResponseTrailers, Input::ResponseTrailers],
    ] {
        let mut script = Script::new();
        let (last, fitting) = inputs.split_last().unwrap();
        for input in fitting {
            script.send(input.clone()).unwrap();
        }
        let error = script.send(last.clone()).unwrap_err();
        assert!(matches!(error, Violation::OutOfOrder { .. }), "{error}");
        script.settled();
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let header = prop_oneof![
        Just((":status", "200")),
        Just((":status", "500")),
        Just((":status", "x")),
        Just(("content-type", "text/event-stream")),
        Just(("content-encoding", "gzip")),
        Just(("content-encoding", "br")),
        Just(("content-length", "18446744073709551616")),
        Just((":path", "/v1/chat/completions")),
        Just((":method", "POST")),
    ];
    let headers = proptest::collection::vec(header, 0..6).prop_map(|headers| owned(headers.iter()));
    let body = prop_oneof![
        Just(Bytes::from(streamed("plain").to_string())),
        Just(Bytes::from(chat("tuned-x").to_string())),
        Just(Bytes::from(stream_with_usage())),
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from),
    ];
    prop_oneof![
        (headers.clone(), any::<bool>())
            .prop_map(|(headers, end_of_stream)| Input::RequestHeaders { headers, end_of_stream }),
        (body.clone(), any::<bool>())
            .prop_map(|(body, end_of_stream)| Input::RequestBody { body, end_of_stream }),
        Just(Input::RequestTrailers),
        (headers, any::<bool>())
            .prop_map(|(headers, end_of_stream)| Input::ResponseHeaders { headers, end_of_stream }),
        (body, any::<bool>()).prop_map(|(body, end_of_stream)| Input::ResponseBody { body, end_of_stream }),
        Just(Input::ResponseTrailers),
    ]
}

proptest! {
    /// Whatever Envoy sends: no panic, no credential without a route, one settlement.
    #[test]
    fn any_sequence_is_survived_and_settled_once(
        inputs in proptest::collection::vec(any_input(), 0..8),
        orderly in any::<bool>(),
    ) {
        let mut script = Script::new();
        let opening = [
            request_headers("POST", "/v1/chat/completions", &[]),
            request_body(&streamed("tuned-1").to_string()),
        ];
        let opening = opening.into_iter().filter(|_| orderly);
        for input in opening.chain(inputs) {
            match script.send(input) {
                Ok(Step::Continue(change)) if set(&change, "authorization").is_some() => {
                    prop_assert_eq!(set(&change, ROUTING_HEADER), Some("k1"));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        script.settled();
    }
}
