//! Recorded exchanges of real providers, sent through the gateway again: the client gets what the provider sent, the provider
//! what the client sent, and the tokens are those of the recording.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::gateway::{Gateway, Setup};
use crate::support::http::post;
use crate::support::{shared_data, spawn, until, yaml};

/// Folders of recorded traffic whose providers speak OpenAI's dialect.
const OPENAI_LIKE: [&str; 8] =
    ["deepseek", "groq", "huggingface", "mistral", "openai", "openai_responses", "openrouter", "zai"];

/// Endpoints by the end of the provider's path, the longest first.
const ENDPOINTS: [(&str, &str); 6] = [
    ("/responses/input_tokens", "/v1/responses/input_tokens"),
    ("/chat/completions", "/v1/chat/completions"),
    ("/images/generations", "/v1/images/generations"),
    ("/completions", "/v1/completions"),
    ("/embeddings", "/v1/embeddings"),
    ("/responses", "/v1/responses"),
];

/// One recorded exchange.
#[derive(Debug, Clone)]
struct Exchange {
    source: String,
    path: &'static str,
    azure: bool,
    request: String,
    status: u16,
    content_type: Option<String>,
    answer: Bytes,
}

impl Exchange {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.answer).unwrap_or(Value::Null)
    }

    fn streams(&self) -> bool {
        self.content_type.as_deref().is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The payloads of a stream, one by one.
    fn events(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.answer);
        let payloads = text.lines().filter_map(|line| line.strip_prefix("data:"));
        payloads.filter_map(|payload| serde_json::from_str(payload).ok()).collect()
    }

    /// The `usage` that the provider reported last.
    fn usage(&self) -> Option<Value> {
        let usage = |value: &Value| {
            [&value["usage"], &value["response"]["usage"]]
                .into_iter()
                .find(|usage| usage.is_object())
                .cloned()
        };
        if self.streams() {
            return self.events().iter().rev().find_map(usage);
        }
        let answer = self.json();
        if self.path.ends_with("input_tokens") {
            return Some(json!({"input_tokens": answer["input_tokens"]}));
        }
        usage(&answer)
    }
}

/// Every exchange of a file that goes to one of our endpoints.
fn exchanges(file: &Path) -> Vec<Exchange> {
    let text = std::fs::read_to_string(file).unwrap();
    // Downloads of documents are among the recordings; what they hold is of no interest here.
    let options = serde_saphyr::options! { ignore_binary_tag_for_string: true };
    let document: Value = serde_saphyr::from_str_with_options(&text, options)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let interactions = document["interactions"].as_array().cloned().unwrap_or_default();
    interactions.iter().filter_map(|interaction| exchange(file, interaction)).collect()
}

fn exchange(file: &Path, interaction: &Value) -> Option<Exchange> {
    let (request, response) = (&interaction["request"], &interaction["response"]);
    let url = request["url"].as_str().or_else(|| request["uri"].as_str())?;
    let path = url.split('?').next()?;
    let (_, path) = ENDPOINTS.into_iter().find(|(end, _)| path.ends_with(end))?;
    let (body, answer) = (content(request)?, content(response)?);
    let status = response["code"]
        .as_u64()
        .or_else(|| response["status"].as_u64())
        .or_else(|| response["status"]["code"].as_u64())?;
    let content_type = response["headers"].as_object().and_then(|headers| {
        let values = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"))?.1;
        values.as_str().or(values[0].as_str()).map(str::to_owned)
    });
    Some(Exchange {
        source: file.file_name()?.to_string_lossy().into_owned(),
        path,
        azure: url.contains("/openai/deployments/"),
        request: body,
        status: u16::try_from(status).ok()?,
        content_type,
        answer: answer.into(),
    })
}

/// Folders of recorded answers whose providers speak OpenAI's dialect.
const ANSWERS: [&str; 6] = ["alibaba", "azure", "deepseek", "groq", "mistral", "openai"];

/// An answer of which the request was not recorded, with a request that could have led to it; nothing for answers of other
/// endpoints.
fn answered(file: &Path) -> Option<Exchange> {
    let name = file.file_name()?.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).unwrap();
    let streams = name.ends_with(".chunks.txt");
    let first: Value = serde_json::from_str(if streams { text.lines().next()? } else { &text }).ok()?;
    let kind = first["object"].as_str().or_else(|| first["type"].as_str())?;
    let path = match kind {
        "chat.completion" | "chat.completion.chunk" => "/v1/chat/completions",
        "text_completion" => "/v1/completions",
        "list" => "/v1/embeddings",
        "response" | "response.created" => "/v1/responses",
        _ => return None,
    };
    let answer = if streams {
        let events = text.lines().filter(|line| !line.is_empty());
        events.map(|payload| format!("data: {payload}\n\n")).collect::<String>() + "data: [DONE]\n\n"
    } else {
        text
    };
    let content_type = if streams { "text/event-stream" } else { "application/json" };
    Some(Exchange {
        source: name,
        path,
        azure: false,
        request: json!({"model": "m", "input": "Hi.", "stream": streams}).to_string(),
        status: 200,
        content_type: Some(content_type.to_owned()),
        answer: answer.into(),
    })
}

/// The files of a folder, in order.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A body as it was, or as it was understood.
fn content(message: &Value) -> Option<String> {
    let raw = message["body"]
        .as_str()
        .or_else(|| message["body"]["string"].as_str())
        .filter(|body| !body.is_empty());
    raw.map(str::to_owned).or_else(|| message.get("parsed_body").map(Value::to_string))
}

/// What the provider was sent, by the number of the exchange.
type Received = Arc<Mutex<BTreeMap<usize, (String, Bytes)>>>;

/// A provider that answers request `x-replay: N` with exchange N, compressed if `x-replay-gzip` is there.
async fn provider(exchanges: Arc<Vec<Exchange>>) -> (SocketAddr, Received) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = Received::default();
    let kept = received.clone();
    spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (exchanges, kept) = (exchanges.clone(), kept.clone());
            let service = service_fn(move |request| answer(request, exchanges.clone(), kept.clone()));
            spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, received)
}

async fn answer(
    request: Request<Incoming>,
    exchanges: Arc<Vec<Exchange>>,
    received: Received,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number: usize = request.headers()["x-replay"].to_str().unwrap().parse().unwrap();
    let gzip = request.headers().contains_key("x-replay-gzip");
    let path = request.uri().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    received.lock().unwrap().insert(number, (path, body));
    let exchange = &exchanges[number];
    let mut response = Response::builder().status(exchange.status);
    if let Some(content_type) = &exchange.content_type {
        response = response.header("content-type", content_type);
    }
    let mut body = exchange.answer.clone();
    if gzip {
        response = response.header("content-encoding", "gzip");
        let mut encoder = flate2::read::GzEncoder::new(&exchange.answer[..], flate2::Compression::fast());
        let mut encoded = Vec::new();
        std::io::Read::read_to_end(&mut encoder, &mut encoded).unwrap();
        body = encoded.into();
    }
    Ok(response.body(Full::new(body)).unwrap())
}

fn resources(address: SocketAddr) -> String {
    let parameters =
        "  infrastructure: {parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: log}}\n";
    let spec = "  gatewayClassName: test\n";
    let gateway = yaml::gateway("50Mi").replace(spec, &format!("{spec}{parameters}"));
    let azure = yaml::backend("azure", address)
        .replace("schema: {name: OpenAI}", "schema: {name: AzureOpenAI, version: v1}");
    let route = "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: test, namespace: default}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: test}]
  llmRequestCosts:
    - {metadataKey: input, type: InputToken}
    - {metadataKey: cached, type: CachedInputToken}
    - {metadataKey: output, type: OutputToken}
    - {metadataKey: reasoning, type: ReasoningToken}
    - {metadataKey: total, type: TotalToken}
  rules:
    - backendRefs: [{name: openai}]
    - matches: [{headers: [{name: x-azure, value: 'true'}]}]
      backendRefs: [{name: azure}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: log, namespace: default}
spec:
  telemetry:
    accessLog:
      settings:
        - sinks: [{type: File, file: {path: /dev/stdout}}]
          format:
            type: JSON
            json:
              replayed: '%REQ(X-REPLAY)%-%REQ(X-REPLAY-GZIP)%'
              input: '%DYNAMIC_METADATA(io.envoy.ai_gateway:input)%'
              cached: '%DYNAMIC_METADATA(io.envoy.ai_gateway:cached)%'
              output: '%DYNAMIC_METADATA(io.envoy.ai_gateway:output)%'
              reasoning: '%DYNAMIC_METADATA(io.envoy.ai_gateway:reasoning)%'
              total: '%DYNAMIC_METADATA(io.envoy.ai_gateway:total)%'
              model: '%DYNAMIC_METADATA(io.envoy.ai_gateway:response_model)%'
";
    [gateway, yaml::backend("openai", address), azure, route.to_owned()].concat()
}

/// The line that the access log has of an exchange.
async fn logged(gateway: &Gateway, name: &str) -> Value {
    let mut found = Value::Null;
    until(&format!("an access log line of {name}"), async || {
        let lines = gateway.lines();
        let mut entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        found = entries.find(|entry| entry["replayed"] == name).unwrap_or_default();
        !found.is_null()
    })
    .await;
    found
}

/// What the client has to get: the recording, without a usage event that it did not ask for.
fn expected_answer(exchange: &Exchange, hides: bool) -> String {
    let text = String::from_utf8(exchange.answer.to_vec()).unwrap();
    if !hides {
        return text;
    }
    let events = text.split_inclusive("\n\n").filter(|event| {
        let payload = event.strip_prefix("data:").unwrap_or_default();
        let payload: Value = serde_json::from_str(payload).unwrap_or_default();
        !(payload["usage"].is_object() && payload["choices"].as_array().is_none_or(Vec::is_empty))
    });
    events.collect()
}

async fn replay(gateway: &Gateway, received: &Received, number: usize, exchange: &Exchange, gzip: bool) {
    let context = format!("{} ({number}, gzip: {gzip})", exchange.source);
    let id = number.to_string();
    let mut headers = vec![("x-replay", id.as_str()), ("accept-encoding", "gzip")];
    headers.extend(gzip.then_some(("x-replay-gzip", "yes")));
    headers.extend(exchange.azure.then_some(("x-azure", "true")));
    let answer = gateway.peer().send(post(exchange.path, &headers, exchange.request.clone())).await;
    assert_eq!(answer.status, exchange.status, "{context}: {}", answer.text());

    let sent: Value = serde_json::from_str(&exchange.request).unwrap();
    let optional = ["/v1/chat/completions", "/v1/completions"].contains(&exchange.path);
    let forced = optional && sent["stream"] == true && sent["stream_options"]["include_usage"] != true;
    let (path, got) = received.lock().unwrap()[&number].clone();
    if forced {
        let mut wanted = sent.clone();
        wanted["stream_options"]["include_usage"] = json!(true);
        assert_eq!(serde_json::from_slice::<Value>(&got).unwrap(), wanted, "{context}");
    } else {
        assert_eq!(got, exchange.request.as_bytes(), "{context}");
    }
    let azure = format!(
        "/openai/deployments/{}/chat/completions?api-version=v1",
        sent["model"].as_str().unwrap_or("")
    );
    assert_eq!(path, if exchange.azure { azure.as_str() } else { exchange.path }, "{context}");

    let hides = forced && exchange.streams();
    let compressed = answer.headers.get("content-encoding").is_some();
    assert_eq!(compressed, gzip && !hides, "{context}");
    let body = if compressed { gunzip(&answer.body) } else { answer.body.to_vec() };
    assert_eq!(String::from_utf8(body).unwrap(), expected_answer(exchange, hides), "{context}");
}

/// What Envoy logged of the exchange are the tokens of the recording.
async fn check_tokens(gateway: &Gateway, number: usize, exchange: &Exchange, gzip: bool) {
    let context = format!("{} ({number}, gzip: {gzip})", exchange.source);
    let entry = logged(gateway, &format!("{number}-{}", if gzip { "yes" } else { "-" })).await;
    if !(200..300).contains(&exchange.status) {
        assert!(entry["total"].is_null(), "{context}: {entry}");
        return;
    }
    let Some(usage) = exchange.usage() else {
        assert!(entry["total"].as_f64().is_some_and(|total| total > 0.0), "{context}: estimated, {entry}");
        return;
    };
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage[name].as_u64()).unwrap_or(0);
    let detail = |of: [&str; 2], name: &str| of.iter().find_map(|of| usage[of][name].as_u64()).unwrap_or(0);
    let inputs = ["prompt_tokens_details", "input_tokens_details"];
    let outputs = ["completion_tokens_details", "output_tokens_details"];
    for (key, expected) in [
        ("input", count(["prompt_tokens", "input_tokens"])),
        ("output", count(["completion_tokens", "output_tokens"])),
        ("total", usage["total_tokens"].as_u64().unwrap_or(0)),
        ("cached", detail(inputs, "cached_tokens")),
        ("reasoning", detail(outputs, "reasoning_tokens")),
    ] {
        assert_eq!(entry[key], expected, "{context}: {key} of {usage}, {entry}");
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(bytes), &mut decoded).unwrap();
    decoded
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_exchanges_pass_as_they_were_and_are_counted() {
    let Some(data) = shared_data() else { return };
    let mut folders = vec![data.join("cassettes")];
    folders.extend(OPENAI_LIKE.map(|folder| data.join("traffic/recorded").join(folder)));
    let mut recorded: Vec<Exchange> =
        folders.iter().flat_map(|folder| files(folder)).flat_map(|file| exchanges(&file)).collect();
    let folders = ANSWERS.map(|folder| data.join("traffic/responses").join(folder));
    recorded.extend(folders.iter().flat_map(|folder| files(folder)).filter_map(|file| answered(&file)));
    let recorded = Arc::new(recorded);
    assert!(recorded.len() > 150, "only {} exchanges were found", recorded.len());
    assert!(recorded.iter().filter(|exchange| exchange.streams()).count() > 5);
    let (address, received) = provider(recorded.clone()).await;
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.yaml(resources(address)).start().await;
    for (number, exchange) in recorded.iter().enumerate() {
        replay(&gateway, &received, number, exchange, false).await;
        replay(&gateway, &received, number, exchange, true).await;
    }
    for (number, exchange) in recorded.iter().enumerate() {
        check_tokens(&gateway, number, exchange, false).await;
        check_tokens(&gateway, number, exchange, true).await;
    }
    println!("{} recorded exchanges replayed, each plain and compressed", recorded.len());
    gateway.stop().await;
}
