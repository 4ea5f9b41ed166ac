//! Clients of OpenAI's dialect, providers of another, a real Envoy between them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::gateway::{Gateway, Setup};
use crate::support::http::post;
use crate::support::{spawn, yaml};

const CHAT: &str = "/v1/chat/completions";
const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hi."}],"max_tokens":5}"#;

/// What the provider answers, and what it was asked.
#[derive(Default)]
struct Script {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    asked: Option<(String, HeaderMap, Bytes)>,
}

/// A provider that answers as its script says, in small pieces.
struct Provider {
    addr: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Provider {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let kept = script.clone();
        spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = kept.clone();
                let service = service_fn(move |request| answer(request, script.clone()));
                spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { addr, script }
    }

    fn answers(&self, status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Vec<u8>>) {
        *self.script.lock().unwrap() =
            Script { status, headers: headers.to_vec(), body: body.into(), asked: None };
    }

    fn asked(&self) -> (String, HeaderMap, Bytes) {
        self.script.lock().unwrap().asked.clone().expect("a request")
    }

    async fn gateway(&self, schema: &str, more: &str) -> Option<Gateway> {
        let resources = yaml::gateway("1Mi")
            + &yaml::backend_of(schema, "one", self.addr, "")
            + more
            + &yaml::route(&[("m", "one")], "");
        Some(Setup::new().await?.yaml(resources).start().await)
    }
}

type Pieces = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<Script>>,
) -> Result<Response<Pieces>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut script = script.lock().unwrap();
    script.asked = Some((parts.uri.to_string(), parts.headers, body));
    let mut pieces: Vec<_> =
        script.body.chunks(7).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    if script.headers.iter().any(|(name, _)| *name == "trailer") {
        let trailers = HeaderMap::from_iter([("x-checksum".parse().unwrap(), "5".parse().unwrap())]);
        pieces.push(Ok(Frame::trailers(trailers)));
    }
    let mut response = Response::builder().status(script.status);
    for (name, value) in &script.headers {
        response = response.header(*name, *value);
    }
    Ok(response.body(StreamBody::new(stream::iter(pieces))).unwrap())
}

fn streamed(options: &str) -> String {
    ASK.replace("}]", "}],\"stream\":true").replace("\"max_tokens\":5", &format!("\"max_tokens\":5{options}"))
}

/// The events of a stream, and the text that they make up.
fn events(text: &str) -> (Vec<Value>, String) {
    let payloads = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = payloads.filter_map(|payload| serde_json::from_str(payload).ok()).collect();
    let said = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    (events, said)
}

const ANTHROPIC: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg\",\"model\":\"claude-x\",\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello \"}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"there.\"}}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":11}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

#[tokio::test(flavor = "multi_thread")]
async fn chat_completions_from_anthropic() {
    let provider = Provider::start().await;
    let key = yaml::anthropic_key("one", "sk-one");
    let Some(gateway) = provider.gateway("Anthropic", &key).await else { return };
    let json_type = [("content-type", "application/json")];
    let sse_type = [("content-type", "text/event-stream; charset=utf-8")];

    let own = json!({"id": "msg", "model": "claude-x", "content": [{"type": "text", "text": "Hello."}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 11}});
    provider.answers(200, &json_type, own.to_string());
    let sent =
        [("authorization", "Bearer client"), ("x-api-key", "client"), ("anthropic-version", "1999-01-01")];
    let answer = gateway.peer().send(post(CHAT, &sent, ASK)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "Hello.");
    assert_eq!(answer.json()["usage"]["total_tokens"], 20);
    let (path, headers, body) = provider.asked();
    assert_eq!(path, "/v1/messages");
    assert_eq!(
        (&headers["x-api-key"], &headers["anthropic-version"]),
        (&"sk-one".parse().unwrap(), &"2023-06-01".parse().unwrap())
    );
    assert!(!headers.contains_key("authorization"));
    assert_eq!(headers["content-length"], body.len().to_string());
    let expected = r#"{"max_tokens":5,"messages":[{"content":[{"text":"Hi.","type":"text"}],"role":"user"}],"model":"m"}"#;
    assert_eq!(body, expected);

    provider.answers(200, &sse_type, ANTHROPIC);
    for (options, told) in [("", 0), (r#","stream_options":{"include_usage":true}"#, 1)] {
        let answer = gateway.peer().send(post(CHAT, &[], streamed(options))).await;
        assert_eq!(answer.headers["content-type"], sse_type[0].1);
        let text = answer.text();
        let (events, said) = events(&text);
        assert_eq!(said, "Hello there.", "{text}");
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let usage: Vec<_> = events.iter().filter(|event| event["usage"]["total_tokens"] == 20).collect();
        assert_eq!(usage.len(), told, "{text}");
        assert!(provider.asked().2.ends_with(b",\"stream\":true}"));
    }

    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    provider.answers(529, &json_type, error);
    let answer = gateway.peer().send(post(CHAT, &[], ASK)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["error"]["type"]), (529, &json!("overloaded_error")));
    assert_eq!(answer.json()["error"]["code"], "529");

    // Behind trailers no body can be sent any more.
    let trailed = [json_type[0], ("trailer", "x-checksum")];
    for (status, body) in [(200, own.to_string()), (529, error.to_owned())] {
        provider.answers(status, &trailed, body);
        let mut request = post(CHAT, &[("te", "trailers")], ASK);
        request.headers_mut().remove("host");
        *request.uri_mut() = format!("http://localhost{CHAT}").parse().unwrap();
        *request.version_mut() = http::Version::HTTP_2;
        let answer = gateway.peer().send(request).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["object"] == "chat.completion" || answer.json()["error"]["code"] == "529");
        assert_eq!(answer.trailers.expect("trailers")["x-checksum"], "5");
    }

    provider.answers(200, &sse_type, &ANTHROPIC[..ANTHROPIC.len() - 60]);
    let answer = gateway.peer().send(post(CHAT, &[], streamed(""))).await;
    let text = answer.text();
    assert!(text.contains("there.") && !text.contains("[DONE]"), "{text}");
    assert_eq!(events(&text).0.last().unwrap()["error"]["code"], "502", "{text}");
    gateway.stop().await;
}

fn frame(kind: &str, payload: &Value) -> Vec<u8> {
    let header =
        |name: &'static str, value: &str| Header::new(name, HeaderValue::String(value.to_owned().into()));
    let message = Message::new(payload.to_string().into_bytes())
        .add_header(header(":event-type", kind))
        .add_header(header(":message-type", "event"));
    let mut out = Vec::new();
    write_message_to(&message, &mut out).unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_completions_from_bedrock() {
    let provider = Provider::start().await;
    let Some(gateway) = provider.gateway("AWSBedrock", "").await else { return };
    let usage = json!({"inputTokens": 9, "outputTokens": 11, "totalTokens": 20});

    let own = json!({"output": {"message": {"content": [{"text": "Hello."}]}}, "stopReason": "end_turn", "usage": usage});
    let headers = [("content-type", "application/json"), ("x-amzn-requestid", "req-1")];
    provider.answers(200, &headers, own.to_string());
    let answer = gateway.peer().send(post(CHAT, &[], ASK)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.json();
    assert_eq!(
        (&json["id"], &json["model"], &json["usage"]["total_tokens"]),
        (&json!("req-1"), &json!("m"), &json!(20))
    );
    assert!(json["created"].as_u64().unwrap() > 1_700_000_000, "{json}");
    let (path, _, body) = provider.asked();
    assert_eq!(path, "/model/m/converse");
    let expected =
        r#"{"inferenceConfig":{"maxTokens":5},"messages":[{"content":[{"text":"Hi."}],"role":"user"}]}"#;
    assert_eq!(body, expected);

    let frames = [
        frame("messageStart", &json!({"role": "assistant"})),
        frame("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"text": "Hello there."}})),
        frame("contentBlockStop", &json!({"contentBlockIndex": 0})),
        frame("messageStop", &json!({"stopReason": "end_turn"})),
        frame("metadata", &json!({"usage": usage})),
    ];
    let stream_type = [("content-type", "application/vnd.amazon.eventstream")];
    provider.answers(200, &stream_type, frames.concat());
    let ask = streamed(r#","stream_options":{"include_usage":true}"#);
    let answer = gateway.peer().send(post(CHAT, &[], ask)).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let text = answer.text();
    assert_eq!(events(&text).1, "Hello there.", "{text}");
    assert!(text.contains("\"total_tokens\":20") && text.ends_with("data: [DONE]\n"), "{text}");
    assert_eq!(provider.asked().0, "/model/m/converse-stream");

    provider.answers(200, &stream_type, frames[..2].concat());
    let text = gateway.peer().send(post(CHAT, &[], streamed(""))).await.text();
    assert!(text.contains("Hello") && !text.contains("[DONE]"), "{text}");
    assert_eq!(events(&text).0.last().unwrap()["error"]["code"], "502", "{text}");

    let audio = ASK.replace("\"Hi.\"", r#"[{"type":"input_audio","input_audio":{}}]"#);
    let answer = gateway.peer().send(post(CHAT, &[], audio)).await;
    assert_eq!(answer.status, 422);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("messages[0].content[0]"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_provider_of_the_same_dialect_cuts_ends_with_an_error() {
    let provider = Provider::start().await;
    let Some(gateway) = provider.gateway("OpenAI", "").await else { return };
    let chunk =
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"},\"finish_reason\":null}]}\n\n";
    provider.answers(200, &[("content-type", "text/event-stream")], chunk);
    let text = gateway.peer().send(post(CHAT, &[], streamed(""))).await.text();
    let rest = text.strip_prefix(chunk).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(events(rest).0[0]["error"]["type"], "UpstreamError", "{text}");
    gateway.stop().await;
}
