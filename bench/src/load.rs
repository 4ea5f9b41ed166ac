//! The load: clients that each hold one HTTP/1.1 connection and send one request after the other.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What is sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub body: Bytes,
    pub headers: Vec<(&'static str, String)>,
}

impl Call {
    /// A chat completion with a prompt of that many bytes.
    pub fn chat(prompt: usize, streams: bool) -> Self {
        const WORDS: &str = "The quick brown fox jumps over the lazy dog; \\\"again\\\" and again.\\n";
        let text: String = WORDS.chars().cycle().take(prompt).collect();
        // Never ends within an escape.
        let text = text.trim_end_matches('\\');
        let stream = if streams { "\"stream\":true," } else { "" };
        let body = format!(
            r#"{{"model":"bench-model",{stream}"messages":[{{"role":"user","content":"{text}"}}],"temperature":0.7}}"#
        );
        Self { body: body.into(), headers: Vec::new() }
    }

    /// The same, for another model.
    pub fn of_model(mut self, model: &str) -> Self {
        let text = String::from_utf8_lossy(&self.body);
        self.body = text.replacen("bench-model", model, 1).into();
        self
    }

    fn request(&self) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::post("/v1/chat/completions")
            .header(HOST, "bench.example")
            .header(CONTENT_TYPE, "application/json")
            .header("authorization", "Bearer client-key")
            .header("accept", "application/json")
            .header("user-agent", "bench/1.0");
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        Ok(request.body(Full::new(self.body.clone()))?)
    }
}

/// One client's connection.
pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub async fn send(&mut self, call: &Call) -> anyhow::Result<Response<Incoming>> {
        self.0.ready().await?;
        let response = self.0.send_request(call.request()?).await?;
        ensure!(response.status() == 200, "answered with {}", response.status());
        Ok(response)
    }

    /// Sends a request and takes its answer to the end.
    pub async fn exchange(&mut self, call: &Call) -> anyhow::Result<()> {
        let mut body = self.send(call).await?.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(())
    }
}

/// What a load came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub elapsed: Duration,
    /// Of every request, sorted.
    pub latencies: Vec<Duration>,
}

impl Outcome {
    pub fn quantile(&self, quantile: f64) -> Duration {
        let index = (self.latencies.len().saturating_sub(1) as f64 * quantile).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// Open connections to one address.
pub struct Clients(Vec<Connection>);

impl Clients {
    pub async fn open(address: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Connection::open(address).await?);
        }
        Ok(Self(connections))
    }

    /// Sends on all connections for that long, and until each has had its last answer.
    pub async fn run(&mut self, call: &Rc<Call>, time: Duration) -> anyhow::Result<Outcome> {
        let start = Instant::now();
        let mut clients = JoinSet::new();
        for mut connection in self.0.drain(..) {
            let call = Rc::clone(call);
            clients.spawn_local(async move {
                let mut latencies = Vec::new();
                while start.elapsed() < time {
                    let sent = Instant::now();
                    connection.exchange(&call).await?;
                    latencies.push(sent.elapsed());
                }
                anyhow::Ok((connection, latencies))
            });
        }
        let mut outcome = Outcome::default();
        while let Some(client) = clients.join_next().await {
            let (connection, latencies) = client??;
            self.0.push(connection);
            outcome.latencies.extend(latencies);
        }
        outcome.elapsed = start.elapsed();
        outcome.latencies.sort_unstable();
        Ok(outcome)
    }
}

/// Whether the gateway does there what it should: a whole answer, and a stream without the usage nobody asked for.
pub async fn probe(address: SocketAddr) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    for streams in [false, true] {
        let call = Call::chat(80, streams);
        let body = connection.send(&call).await?.into_body().collect().await?.to_bytes();
        let text = std::str::from_utf8(&body).context("the answer is not text")?;
        if streams {
            let events = text.matches("data: {").count();
            ensure!(events == 200 && text.ends_with("data: [DONE]\n\n"), "{events} events: {text:.200}");
            ensure!(!text.contains("\"usage\""), "the stream tells usage that was not asked for");
        } else {
            ensure!(text.contains("\"usage\""), "{text}");
        }
    }
    Ok(())
}
