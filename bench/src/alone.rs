//! The processors without Envoy: how fast they start, what an idle stream holds, how long new routes take.

use std::path::Path;
use std::time::{Duration, Instant};

use ai_gateway::proto::ext_proc::external_processor_client::ExternalProcessorClient;
use ai_gateway::proto::ext_proc::processing_request::Request as Message;
use ai_gateway::proto::ext_proc::processing_response::Response as Reply;
use ai_gateway::proto::ext_proc::{HeaderMap, HeaderValue, HttpBody, HttpHeaders, ProcessingRequest};
use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::procfs;
use crate::rig::{Files, Listener};

/// Envoy opens another connection past about as many streams.
const STREAMS_A_CONNECTION: usize = 1024;

/// A gRPC stream whose request phases are done, as Envoy leaves it while a model thinks. Dropping it resets the stream.
pub struct Thinking {
    _messages: mpsc::UnboundedSender<ProcessingRequest>,
    _replies: tonic::Streaming<ai_gateway::proto::ext_proc::ProcessingResponse>,
}

pub async fn connect(socket: &Path, authority: &str) -> anyhow::Result<Channel> {
    let socket = socket.to_owned();
    let endpoint = Endpoint::try_from(format!("http://{authority}"))?;
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

/// Sends a request for that model; `None` if the processor refuses it.
pub async fn request(channel: Channel, model: &str) -> anyhow::Result<Option<Thinking>> {
    let (messages, queue) = mpsc::unbounded_channel();
    let message = |request| ProcessingRequest { request: Some(request), ..ProcessingRequest::default() };
    messages.send(message(Message::RequestHeaders(headers())))?;
    let mut client = ExternalProcessorClient::new(channel);
    let mut replies = client.process(UnboundedReceiverStream::new(queue)).await?.into_inner();
    let reply = replies.message().await?.and_then(|reply| reply.response);
    if matches!(reply, Some(Reply::ImmediateResponse(_))) {
        return Ok(None);
    }
    let body = format!(
        r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(80)
    );
    messages.send(message(Message::RequestBody(HttpBody { body: body.into(), end_of_stream: true })))?;
    let reply = replies.message().await?.and_then(|reply| reply.response);
    ensure!(reply.is_some(), "the processor ended the stream");
    let accepted = !matches!(reply, Some(Reply::ImmediateResponse(_)));
    Ok(accepted.then_some(Thinking { _messages: messages, _replies: replies }))
}

/// What Envoy sends of a usual request.
fn headers() -> HttpHeaders {
    const HEADERS: [(&str, &str); 12] = [
        (":authority", "bench.example"),
        (":path", "/v1/chat/completions"),
        (":method", "POST"),
        (":scheme", "http"),
        ("content-type", "application/json"),
        ("authorization", "Bearer client-key"),
        ("accept", "application/json"),
        ("user-agent", "bench/1.0"),
        ("content-length", "150"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "8c1f5c3e-7d0a-4d0e-9f0b-2f6c0a7f1a11"),
    ];
    let header = |(key, value): (&'static str, &'static str)| HeaderValue {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::new(),
        raw_value: Bytes::from_static(value.as_bytes()),
    };
    HttpHeaders { headers: Some(HeaderMap { headers: HEADERS.map(header).into() }), end_of_stream: false }
}

/// Waits until a fresh processor serves that model.
pub async fn serving(socket: &Path, authority: &str, model: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let served = async { request(connect(socket, authority).await?, model).await }.await;
        match served {
            Ok(Some(_)) => return Ok(()),
            other => {
                ensure!(Instant::now() < deadline, "the processor does not serve: {:?}", other.err());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Milliseconds from the start of the process to its first answer, and its resident memory then.
pub async fn startup(
    files: &Files,
    listener: Listener,
    config: &Path,
    authority: &str,
) -> anyhow::Result<(f64, u64)> {
    let name = format!("startup-{}", listener.name());
    let start = Instant::now();
    let process = files.processor(listener, &name, config)?;
    serving(&files.path(&format!("{name}.sock")), authority, "bench-model").await?;
    Ok((start.elapsed().as_secs_f64() * 1e3, procfs::rss(process.pid())?))
}

/// Bytes of resident memory that each of `count` idle streams adds to a fresh processor.
pub async fn bytes_a_stream(
    files: &Files,
    listener: Listener,
    config: &Path,
    authority: &str,
    count: usize,
) -> anyhow::Result<f64> {
    let name = format!("idle-{}", listener.name());
    let process = files.processor(listener, &name, config)?;
    let socket = files.path(&format!("{name}.sock"));
    serving(&socket, authority, "bench-model").await?;
    let before = procfs::rss(process.pid())?;
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let channel = connect(&socket, authority).await?;
        for _ in 0..STREAMS_A_CONNECTION.min(count - streams.len()) {
            streams.push(request(channel.clone(), "bench-model").await?.context("refused")?);
        }
    }
    let after = procfs::rss(process.pid())?;
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

/// What a change to that many routes costs; times in milliseconds.
#[derive(Debug)]
pub struct Reload {
    pub routes: usize,
    /// Until the first request is served by the new routes.
    pub live: f64,
    pub usual_p99: f64,
    pub swap_p99: f64,
    pub rss: u64,
}

/// Replaces a small configuration file by one with `routes` more rules, under requests one after the other.
pub async fn reload(files: &Files, routes: usize) -> anyhow::Result<Reload> {
    let (small, compiled) = files.config(2, "bench-model", 9)?;
    let (large, _) = files.config(routes, "bench-model-new", 9)?;
    let authority = compiled.config.gateways[0].authority.clone();
    let config = files.path("reload.json");
    std::fs::copy(small, &config)?;
    let process = files.processor(Listener::Ours, "reload", &config)?;
    let socket = files.path("reload.sock");
    serving(&socket, &authority, "bench-model").await?;
    let channel = connect(&socket, &authority).await?;
    // Past the first look at the file.
    let mut usual = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        usual.push(timed(&channel, "bench-model").await?.0);
    }
    std::fs::rename(large, &config)?;
    let (start, mut swap) = (Instant::now(), Vec::new());
    loop {
        let (time, served) = timed(&channel, "bench-model-new").await?;
        swap.push(time);
        if served {
            break;
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "the new routes never came");
    }
    let live = start.elapsed().as_secs_f64() * 1e3;
    Ok(Reload { routes, live, usual_p99: p99(usual), swap_p99: p99(swap), rss: procfs::rss(process.pid())? })
}

async fn timed(channel: &Channel, model: &str) -> anyhow::Result<(f64, bool)> {
    let start = Instant::now();
    let served = request(channel.clone(), model).await?.is_some();
    let time = start.elapsed().as_secs_f64() * 1e3;
    // A load that leaves the processor time for other things.
    tokio::time::sleep(Duration::from_millis(1)).await;
    Ok((time, served))
}

fn p99(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}
