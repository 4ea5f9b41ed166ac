//! L4. The stand-in model server of the examples and tests: a provider without a model, OpenAI-compatible, Anthropic or
//! Cohere by the path, whose answers and failures are chosen by the caller.
//!
//! By default every chat request is answered with the walkthrough's body, [`knobs::Knobs`] change that. Each knob is a flag
//! for all requests and a header `x-testbackend-<name>` for one, for example `x-testbackend-fault: reset:3`. The paths are
//! known by their endings, whatever precedes: `/chat/completions`, `/completions`, `/embeddings`, `/responses`,
//! `/responses/input_tokens`, `/images/generations`, `/audio/speech`, `/audio/transcriptions`, `/audio/translations`,
//! `/tokenize`, `/rerank`, `/messages`, `/messages/count_tokens`, `/models`, `/health`. The two that take forms say in the
//! header `x-testbackend-model` which model the form named. Other paths are answered with the body that is asked for, if one is. HTTP/1.1 and HTTP/2 are served on one port, with TLS (by ALPN) or without (by the client's first bytes).
//!
//! What came in and what went out is told by
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /testbackend/counters` | [`Counters`] |
//! | `GET /testbackend/requests?last=N` | the last `N` (at most 256) requests, [`Recorded`], oldest first |
//! | `DELETE /testbackend/counters`, `DELETE /testbackend/requests` | forgets both |

mod answer;
mod body;
mod encode;
mod endpoints;
pub mod knobs;
mod record;
mod tls;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRAILER,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use self::answer::{Answer, Service};
use self::body::Sender;
use self::encode::Encoder;
pub use self::encode::Encoding;
use self::knobs::{Fault, Knobs};
use self::record::{Connection, Exchange, Recorder};
pub use self::record::{Counters, Outcome, Recorded};
pub use self::tls::TlsOptions;
use crate::server::listen::{Listen, Listener, Stream};

/// The largest request body taken.
const MAX_BODY: usize = 512 * 1024 * 1024;
const ID: HeaderName = HeaderName::from_static("x-testbackend-id");
const MODEL: HeaderName = HeaderName::from_static("x-testbackend-model");

/// The command line of `aigw testbackend`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to listen: `:8080`, `127.0.0.1:8080` or `unix:///path/to/socket`
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS", env = "LISTENER_ADDRESS")]
    pub listen: Listen,
    /// What to do there.
    #[command(flatten)]
    pub options: Options,
}

const EXAMPLES: &str = "\
Examples:
  A server with the walkthrough's answer:
    aigw testbackend
    curl -d '{\"model\":\"m\",\"messages\":[]}' http://127.0.0.1:8080/v1/chat/completions
  Answers with token usage, over TLS, the authority's certificate written to ca.pem:
    aigw testbackend --usage prompt=9,completion=11 --tls-self-signed api.example.com --tls-ca-out ca.pem
  A slow stream of 100 events, for one request:
    curl -N -H 'x-testbackend-chunks: 100' -H 'x-testbackend-pace: 50ms' -d '{\"stream\":true}' URL
  A stream that is reset after the third event; one that ends inside an event; one that never ends:
    curl -N -H 'x-testbackend-fault: reset:3' -d '{\"stream\":true}' URL
    curl -N -H 'x-testbackend-fault: cut:2' -d '{\"stream\":true}' URL
    curl -N -H 'x-testbackend-fault: endless' -d '{\"stream\":true}' URL
  What the server has received and sent:
    curl http://127.0.0.1:8080/testbackend/requests?last=1
    curl http://127.0.0.1:8080/testbackend/counters
    curl -X DELETE http://127.0.0.1:8080/testbackend/counters";

/// How a test backend behaves. The default is the walkthrough's: plain text, no faults.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Sent back in the header x-testbackend-id of every answer, to tell backends apart
    #[arg(long, env = "TESTUPSTREAM_ID", value_name = "TEXT", value_parser = parse_id)]
    pub id: Option<HeaderValue>,
    /// What answers look like.
    #[command(flatten)]
    pub knobs: Knobs,
    /// Which certificate is shown.
    #[command(flatten)]
    pub tls: TlsOptions,
}

fn parse_id(text: &str) -> Result<HeaderValue, String> {
    text.parse().map_err(|_| "not a header value".to_owned())
}

/// A running test backend. Dropping it stops it: open connections are cut.
#[derive(Debug)]
pub struct Handle {
    listen: Listen,
    recorder: Recorder,
    task: JoinHandle<()>,
}

impl Handle {
    /// Where it listens, with the real port where 0 was asked for.
    pub fn local_addr(&self) -> &Listen {
        &self.listen
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        self.recorder.counters()
    }

    /// The last `n` requests (at most 256), oldest first.
    pub fn requests(&self, n: usize) -> Vec<Recorded> {
        self.recorder.requests(n)
    }

    /// Forgets requests and counts; what is going on stays counted.
    pub fn reset(&self) {
        self.recorder.reset();
    }

    /// Stops it and cuts open connections. When this returns the address is free.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // The only outcome besides the abort is a panic, which has been reported where it happened.
        _ = (&mut self.task).await;
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a test backend on the current runtime. It serves when this returns.
///
/// # Errors
/// The address cannot be listened on, or a certificate cannot be read, made or written.
#[expect(clippy::unused_async, reason = "it needs a runtime, which callers of an async function have")]
#[expect(clippy::disallowed_methods, reason = "the handle owns the task")]
pub async fn start(listen: Listen, options: Options) -> io::Result<Handle> {
    let tls = tls::config(&options.tls)?;
    let listener = listen.bind()?;
    let listen = listener.local().clone();
    let recorder = Recorder::default();
    let backend = Arc::new(Backend { options, recorder: recorder.clone() });
    let task = tokio::spawn(accept(listener, tls, backend));
    Ok(Handle { listen, recorder, task })
}

async fn accept(listener: Listener, tls: Option<Arc<ServerConfig>>, backend: Arc<Backend>) {
    // Owns the connections, so that ending this task ends them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    connections.spawn(serve(stream, tls.clone(), backend.clone()));
                }
                Err(e) => {
                    tracing::warn!(error = %e, "test backend: cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
}

async fn serve(stream: Stream, tls: Option<Arc<ServerConfig>>, backend: Arc<Backend>) {
    let connection = backend.recorder.connection();
    let socket = Socket { stream, connection: connection.clone() };
    let result = match tls {
        None => speak(socket, &connection, backend).await,
        Some(config) => match TlsAcceptor::from(config).accept(socket).await {
            Ok(socket) => {
                connection.set_tls(socket.get_ref().1.server_name().unwrap_or_default());
                speak(socket, &connection, backend).await
            }
            Err(e) => Err(e.into()),
        },
    };
    if let Err(e) = result {
        tracing::debug!(error = %e, "test backend: connection ended");
    }
}

async fn speak(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: &Arc<Connection>,
    backend: Arc<Backend>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let service = service_fn(|request| {
        let (backend, connection) = (backend.clone(), connection.clone());
        async move { backend.handle(request, &connection).await }
    });
    auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

struct Backend {
    options: Options,
    recorder: Recorder,
}

impl Backend {
    async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> io::Result<Response<Body>> {
        let path = request.uri().path();
        let mut response = if let Some(path) = path.strip_prefix("/testbackend/") {
            self.admin(request.method(), path, request.uri().query().unwrap_or_default())
        } else if path == "/health" && self.options.knobs.status.is_none() {
            small(StatusCode::OK, r#"{"status":"ok"}"#)
        } else {
            let (parts, body) = request.into_parts();
            let exchange = self.recorder.exchange(connection, &parts);
            self.answer(&parts, body, exchange).await?
        };
        if let Some(id) = &self.options.id {
            response.headers_mut().insert(ID, id.clone());
        }
        Ok(response)
    }

    fn admin(&self, method: &Method, path: &str, query: &str) -> Response<Body> {
        match (method.as_str(), path) {
            ("GET", "counters") => small_json(&self.recorder.counters()),
            ("GET", "requests") => {
                let last = query.split('&').find_map(|pair| pair.strip_prefix("last=")?.parse().ok());
                small_json(&self.recorder.requests(last.unwrap_or(usize::MAX)))
            }
            ("DELETE", "counters" | "requests") => {
                self.recorder.reset();
                small(StatusCode::OK, "{}")
            }
            _ => small(StatusCode::NOT_FOUND, r#"{"error":{"message":"there are counters and requests"}}"#),
        }
    }

    async fn answer(
        &self,
        parts: &Parts,
        body: Incoming,
        mut exchange: Exchange,
    ) -> io::Result<Response<Body>> {
        // Collected even where it is not looked at, so that what was received is on record.
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
            return Ok(small(
                StatusCode::PAYLOAD_TOO_LARGE,
                r#"{"error":{"message":"the body is too large"}}"#,
            ));
        };
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        exchange.body(&body, trailers.as_ref());
        let knobs = match self.options.knobs.with_headers(&parts.headers) {
            Ok(knobs) => knobs,
            Err(reason) => {
                return Ok(respond(
                    Answer::error(Service::of(parts.uri.path()), StatusCode::BAD_REQUEST, &reason),
                    exchange,
                    &Knobs::default(),
                    "",
                ));
            }
        };
        if let Some(delay) = knobs.delay {
            tokio::time::sleep(delay).await;
        }
        match knobs.fault {
            Some(fault @ (Fault::Reset(0) | Fault::Close(0))) => {
                exchange.end(Outcome::Faulted);
                if fault == Fault::Reset(0) {
                    exchange.connection.set_reset();
                }
                return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the fault that was asked for"));
            }
            Some(Fault::Stall(0)) => {
                exchange.end(Outcome::Faulted);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let accept = parts.headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let answer = choose(parts, &body, &exchange, &knobs);
        Ok(respond(answer, exchange, &knobs, accept))
    }
}

fn choose(parts: &Parts, body: &[u8], exchange: &Exchange, knobs: &Knobs) -> Answer {
    let path = parts.uri.path();
    let Some(service) = Service::of(path) else {
        let unknown =
            || Answer::error(None, StatusCode::NOT_FOUND, &format!("the test backend has no {path}"));
        return Answer::raw(knobs).unwrap_or_else(unknown);
    };
    if knobs.echo == Some(true) {
        let echo = serde_json::to_vec(&exchange.recorded()).unwrap_or_default();
        return Answer::json(knobs.status.unwrap_or(StatusCode::OK), echo).parts(knobs);
    }
    if !service.takes(&parts.method) {
        let message = format!("{path} does not take {}", parts.method);
        return Answer::error(Some(service), StatusCode::METHOD_NOT_ALLOWED, &message);
    }
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    Answer::of(service, content_type, body, knobs)
}

fn respond(answer: Answer, exchange: Exchange, knobs: &Knobs, accept_encoding: &str) -> Response<Body> {
    let encoder = Encoder::new(knobs.encoding.unwrap_or(Encoding::Identity), accept_encoding);
    let mut response = Response::new(());
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, knobs.content_type.clone().unwrap_or(answer.content_type));
    if let Some(model) = answer.model {
        headers.insert(MODEL, model);
    }
    let changes_length = matches!(knobs.fault, Some(Fault::Cut(_) | Fault::Garbage(_) | Fault::Endless));
    match (encoder.name(), answer.pieces.len()) {
        (Some(name), _) => _ = headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name)),
        (None, Some(len)) if !changes_length && knobs.trailers.is_none() => {
            headers.insert(CONTENT_LENGTH, len.into());
        }
        (None, _) => {}
    }
    if let Some(trailers) = &knobs.trailers {
        for name in trailers.0.keys() {
            // HTTP/1.1 demands that they are announced.
            headers.append(TRAILER, name.clone().into());
        }
    }
    if answer.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    let mut sender = Sender::new(exchange, answer.pieces, encoder);
    sender.pace = knobs.pace.unwrap_or_default();
    sender.fault = knobs.fault;
    sender.trailers = knobs.trailers.clone().map(|trailers| trailers.0);
    response.map(|()| StreamBody::new(sender.frames()).boxed_unsync())
}

fn small_json(value: &impl serde::Serialize) -> Response<Body> {
    small(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default())
}

fn small(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response =
        Response::new(Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A socket that notices when the other side goes and can end in a reset.
struct Socket {
    stream: Stream,
    connection: Arc<Connection>,
}

impl Socket {
    fn usable(&self) -> io::Result<()> {
        if self.connection.is_reset() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (true, Stream::Tcp(stream)) = (self.connection.is_reset(), &self.stream) {
            // Where it fails the connection ends without a reset, which is as close as one can get.
            _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.usable()?;
        let (before, room) = (buf.filled().len(), buf.remaining());
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if room == 0 || buf.filled().len() > before => {}
            Poll::Ready(_) => self.connection.set_gone(),
            Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.usable()?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Err(_)) = &polled {
            self.connection.set_gone();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.usable()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
