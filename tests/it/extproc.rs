//! The processor over gRPC, with a scripted Envoy.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ai_gateway::config::Config;
use ai_gateway::proto::ext_proc::processing_request::Request as Message;
use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use ai_gateway::proto::ext_proc::{HeaderValue, HttpTrailers, ProcessingRequest, ProcessingResponse};
use ai_gateway::proto::health::health_check_response::ServingStatus;
use ai_gateway::proto::health::health_client::HealthClient;
use ai_gateway::proto::health::{HealthCheckRequest, HealthListRequest};
use ai_gateway::runtime::Runtime;
use ai_gateway::server::{Listen, Processor, ProcessorOptions};
use ai_gateway::source::Slot;
use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3 as envoy;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use crate::support::scripted::{
    AUTHORITY, Envoy, channel, headers, request_body, response_body, response_headers,
};

/// A processor on a socket of its own.
struct Rig {
    processor: Processor,
    slot: Slot,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn new(configured: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("extproc.sock");
        let slot = Slot::default();
        if configured {
            slot.publish(runtime());
        }
        let options = ProcessorOptions {
            admin: Some(Listen::Tcp(([127, 0, 0, 1], 0).into())),
            ..ProcessorOptions::new(Listen::Unix(socket.clone()), slot.clone())
        };
        let processor = Processor::start(options).unwrap();
        Self { processor, slot, socket, _dir: dir }
    }

    fn channel(&self) -> Channel {
        channel(self.socket.clone())
    }

    async fn stream(&self) -> Envoy {
        Envoy::open(self.channel()).await
    }

    async fn metrics(&self) -> String {
        let Some(Listen::Tcp(address)) = self.processor.admin() else { panic!("no admin listener") };
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until a series of that name and label has that value.
    async fn metric(&self, name: &str, label: &str, value: u64) {
        let mut shown = String::new();
        for _ in 0..2000 {
            shown = self.metrics().await;
            let mut series = shown.lines().filter(|line| line.starts_with(name) && line.contains(label));
            if series.any(|line| line.ends_with(&format!(" {value}"))) {
                return;
            }
        }
        panic!("{name}{{{label}}} is not {value} in\n{shown}");
    }
}

/// One streamed exchange from its beginning to its end, with usage.
pub(crate) async fn exchange(channel: Channel) {
    let mut envoy = Envoy::open(channel).await;
    envoy.request("m").await;
    let headers = response_headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
    envoy.send(Some(headers)).await.unwrap();
    envoy.send(Some(response_body("data: {\"model\":\"m\"}\n\n", false))).await.unwrap();
    envoy.send(Some(response_body(USAGE, true))).await.unwrap();
}

fn runtime() -> Runtime {
    let config: Config = serde_json::from_value(config()).unwrap();
    let (runtime, problems) = Runtime::new(config);
    assert!(problems.is_empty(), "{problems:?}");
    runtime
}

/// A configuration whose one model is `m`.
pub(crate) fn config() -> Value {
    json!({
        "backends": [{"name": "default/b/route/r/rule/0/ref/0", "auth": {"apiKey": {"key": "sk-1"}}}],
        "llmRequestCosts": [{"routeName": "default/r", "metadataKey": "total", "type": "TotalToken"}],
        "gateways": [{
            "authority": AUTHORITY,
            "name": "default/gw",
            "hosts": [{"hostname": "*", "matches": [
                {"headers": [{"name": "x-ai-eg-model", "value": "m"}], "rule": 0},
            ]}],
            "rules": [{"route": "default/r", "backend": "default/b/route/r/rule/0/ref/0", "routingKey": "key"}],
            "models": {},
        }],
    })
}

pub(crate) fn code(result: Result<ProcessingResponse, Status>) -> Code {
    result.expect_err("the stream should have ended").code()
}

pub(crate) const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"completion_tokens\":3,\"total_tokens\":5}}\n\n";

#[tokio::test]
async fn an_exchange_over_grpc() {
    let rig = Rig::new(true);
    let mut envoy = rig.stream().await;
    let reply = envoy.request("m").await;
    let Some(Reply::RequestBody(body)) = reply.response else { panic!("{reply:?}") };
    let common = body.response.unwrap();
    assert!(common.clear_route_cache);
    let set = common.header_mutation.unwrap().set_headers;
    let value = |name: &str| {
        let option =
            set.iter().find(|option| option.header.as_ref().is_some_and(|header| header.key == name));
        option.and_then(|option| option.header.as_ref()).map(|header| header.raw_value.clone())
    };
    assert_eq!(value("authorization"), Some("Bearer sk-1".into()));
    assert_eq!(value("x-ai-eg-route"), Some("key".into()));

    let reply = envoy
        .send(Some(response_headers(&[(":status", "200"), ("content-type", "text/event-stream")])))
        .await
        .unwrap();
    let mode = reply.mode_override.expect("phases are asked for here");
    assert_eq!((mode.response_body_mode, mode.response_trailer_mode), (1, 1));
    let reply = envoy.send(Some(response_body("data: {\"model\":\"m\"}\n\n", false))).await.unwrap();
    assert!(reply.dynamic_metadata.is_none());
    let reply = envoy.send(Some(response_body(USAGE, true))).await.unwrap();
    let metadata = format!("{:?}", reply.dynamic_metadata.expect("costs"));
    assert!(metadata.contains("io.envoy.ai_gateway") && metadata.contains("NumberValue(5.0)"), "{metadata}");
    let Some(Reply::ResponseBody(body)) = reply.response else { panic!("no body reply") };
    let replaced = format!("{:?}", body.response.unwrap().body_mutation.expect("the usage event is hidden"));
    assert!(replaced.contains("Body(b\"\")"), "{replaced}");
    rig.metric("aigw_exchanges_settled_total", "outcome=\"completed\"", 1).await;

    let metrics = rig.metrics().await;
    let (about, series): (Vec<&str>, Vec<&str>) =
        metrics.lines().filter(|line| line.contains('{')).partition(|line| line.starts_with("target_info"));
    assert!(matches!(&about[..], [about] if about.contains("service_name=")), "{about:?}");
    assert!(series.iter().any(|line| line.starts_with("gen_ai_server_request_duration_seconds_bucket")));
    for line in series {
        for label in [
            "otel_scope_name=\"envoyproxy/ai-gateway\"",
            "otel_scope_version=\"\"",
            "otel_scope_schema_url=\"\"",
        ] {
            assert!(line.contains(label), "{line}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_does_not_fit_ends_with_a_status_and_the_processor_lives() {
    let rig = Rig::new(true);
    let open = || headers(&[(":method", "POST"), (":path", "/v1/chat/completions")]);
    // Empty.
    assert_eq!(code(rig.stream().await.send(None).await), Code::InvalidArgument);
    // Out of order.
    assert_eq!(code(rig.stream().await.send(Some(response_body("", true))).await), Code::FailedPrecondition);
    let mut envoy = rig.stream().await;
    envoy.send(Some(open())).await.unwrap();
    assert_eq!(code(envoy.send(Some(open())).await), Code::FailedPrecondition);
    // In a mode that was not asked for: the request body in two pieces.
    let mut envoy = rig.stream().await;
    envoy.request("m").await;
    assert_eq!(code(envoy.send(Some(request_body(json!({})))).await), Code::FailedPrecondition);
    let mut envoy = rig.stream().await;
    envoy.request("m").await;
    let trailers = Message::ResponseTrailers(HttpTrailers { trailers: None });
    assert_eq!(code(envoy.send(Some(trailers)).await), Code::FailedPrecondition);

    let reply = rig.stream().await.request("m").await;
    assert!(matches!(reply.response, Some(Reply::RequestBody(_))), "{reply:?}");
}

/// None of them is missing in the metrics: envoyproxy/ai-gateway#2115.
#[tokio::test]
async fn streams_that_are_cut_are_settled_a_thousand_times() {
    const STREAMS: u64 = 1000;
    let rig = Rig::new(true);
    let done = AtomicU64::new(0);
    let cut = async || {
        let mut envoy = rig.stream().await;
        envoy.request("m").await;
        let headers = response_headers(&[(":status", "200"), ("content-type", "text/event-stream")]);
        envoy.send(Some(headers)).await.unwrap();
        let event = response_body("data: {\"choices\":[{\"delta\":{\"content\":\"I\"}}]}\n\n", false);
        envoy.send(Some(event)).await.unwrap();
        drop(envoy);
        done.fetch_add(1, Ordering::Relaxed);
    };
    futures_util::future::join_all((0..STREAMS).map(|_| cut())).await;
    assert_eq!(done.load(Ordering::Relaxed), STREAMS);
    rig.metric("aigw_exchanges_settled_total", "outcome=\"interrupted\"", STREAMS).await;
    rig.metric("aigw_exchanges_active", "", 0).await;
    let metrics = rig.metrics().await;
    let output = metrics
        .lines()
        .find(|line| line.starts_with("gen_ai_client_token_usage_sum") && line.contains("\"output\""))
        .expect("estimated output tokens");
    let tokens: f64 = output.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(tokens >= STREAMS as f64, "{output}");
}

#[tokio::test]
async fn shutdown_cuts_off_what_does_not_end_and_settles_it() {
    let rig = Rig::new(true);
    let mut envoy = rig.stream().await;
    envoy.request("m").await;
    let active = rig.processor.active().clone();
    assert_eq!(active.count(), 1);
    rig.processor.shutdown(Duration::ZERO).await;
    assert_eq!(active.count(), 0);
    assert_ne!(code(envoy.send(Some(response_headers(&[(":status", "200")]))).await), Code::Ok);
}

#[tokio::test]
async fn health_follows_configuration_and_draining() {
    let rig = Rig::new(false);
    let mut health = HealthClient::new(rig.channel());
    let service = |name: &str| HealthCheckRequest { service: name.to_owned() };
    let mut changes = health.watch(service("")).await.unwrap().into_inner();
    let status = |response: ai_gateway::proto::health::HealthCheckResponse| response.status();
    assert_eq!(status(changes.message().await.unwrap().unwrap()), ServingStatus::NotServing);

    rig.slot.publish(runtime());
    assert_eq!(status(changes.message().await.unwrap().unwrap()), ServingStatus::Serving);
    for name in ["", "extproc", "envoy.service.ext_proc.v3.ExternalProcessor"] {
        let response = health.check(service(name)).await.unwrap().into_inner();
        assert_eq!(status(response), ServingStatus::Serving, "{name:?}");
    }
    assert_eq!(health.check(service("other")).await.unwrap_err().code(), Code::NotFound);
    let listed = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert_eq!(listed["extproc"].status(), ServingStatus::Serving);

    rig.processor.begin_drain();
    assert_eq!(status(changes.message().await.unwrap().unwrap()), ServingStatus::NotServing);
    let listed = health.list(HealthListRequest {}).await.unwrap().into_inner().statuses;
    assert_eq!(listed[""].status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_request_before_any_configuration_is_refused() {
    let rig = Rig::new(false);
    let mut envoy = rig.stream().await;
    let open = headers(&[(":method", "POST"), (":path", "/v1/chat/completions")]);
    let reply = envoy.send(Some(open)).await.unwrap();
    let Some(Reply::ImmediateResponse(reply)) = reply.response else { panic!("{reply:?}") };
    assert_eq!(reply.status.unwrap().code, 503);
}

/// Our declaration of Envoy's messages and the complete one read each other's bytes.
#[test]
fn the_protocol_is_envoys_on_the_wire() {
    let mut complete = envoy::ProcessingRequest::default();
    let header = envoy_types::pb::envoy::config::core::v3::HeaderValue {
        key: ":path".into(),
        raw_value: b"/v1".to_vec(),
        ..Default::default()
    };
    let map = envoy_types::pb::envoy::config::core::v3::HeaderMap { headers: vec![header] };
    let message = envoy::HttpHeaders { headers: Some(map), end_of_stream: true, ..Default::default() };
    complete.request = Some(envoy::processing_request::Request::ResponseHeaders(message));
    let ours = ProcessingRequest::decode(Bytes::from(complete.encode_to_vec())).unwrap();
    let Some(Message::ResponseHeaders(message)) = ours.request else { panic!("another phase") };
    assert!(message.end_of_stream);
    let header = &message.headers.unwrap().headers[0];
    assert_eq!((&header.key[..], &header.raw_value[..]), (&b":path"[..], &b"/v1"[..]));

    for (ours, expected) in replies() {
        let theirs = envoy::ProcessingResponse::decode(Bytes::from(ours.encode_to_vec())).unwrap();
        let shown = format!("{theirs:?}");
        for part in expected {
            assert!(shown.contains(part), "no {part:?} in {shown}");
        }
        // Nothing of ours was unknown to it: re-encoding gives as many bytes.
        assert_eq!(theirs.encode_to_vec().len(), ours.encoded_len());
    }
}

fn replies() -> Vec<(ProcessingResponse, &'static [&'static str])> {
    use ai_gateway::proto::ext_proc as p;
    let option = p::HeaderValueOption {
        header: Some(HeaderValue { key: "a".into(), value: Bytes::new(), raw_value: "b".into() }),
        append_action: p::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    };
    let mutation = p::HeaderMutation { set_headers: vec![option], remove_headers: vec!["c".into()] };
    let body = p::BodyMutation { mutation: Some(p::body_mutation::Mutation::Body("new".into())) };
    let common = p::CommonResponse {
        status: p::common_response::ResponseStatus::ContinueAndReplace.into(),
        header_mutation: Some(mutation.clone()),
        body_mutation: Some(body),
        clear_route_cache: true,
    };
    let mode = p::ProcessingMode { response_body_mode: 4, response_trailer_mode: 1, ..Default::default() };
    let immediate = p::ImmediateResponse {
        status: Some(p::HttpStatus { code: 404 }),
        headers: Some(mutation),
        body: "text".into(),
        grpc_status: Some(p::GrpcStatus { status: 5 }),
        details: "why".into(),
    };
    vec![
        (
            ProcessingResponse {
                response: Some(Reply::ResponseBody(p::BodyResponse { response: Some(common) })),
                mode_override: Some(mode),
                ..Default::default()
            },
            &[
                "ResponseBody",
                "ContinueAndReplace",
                "key: \"a\"",
                "raw_value: [98]",
                "OverwriteIfExistsOrAdd",
                "remove_headers: [\"c\"]",
                "Body([110, 101, 119])",
                "clear_route_cache: true",
                "response_body_mode: FullDuplexStreamed",
                "response_trailer_mode: Send",
            ],
        ),
        (
            ProcessingResponse { response: Some(Reply::ImmediateResponse(immediate)), ..Default::default() },
            &["ImmediateResponse", "code: NotFound", "details: \"why\"", "status: 5"],
        ),
    ]
}
