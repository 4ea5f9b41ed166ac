//! What was received and sent: counters and the last requests, in bounded memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// How many requests are kept.
const REQUESTS: usize = 256;
/// How much of each body is kept.
const BODY: usize = 64 * 1024;

/// What a test backend did since it started or was last reset. Requests to `/testbackend/…` and `/health` do not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub connections_active: u64,
    /// Requests whose headers have come in.
    pub requests: u64,
    /// Requests being received or answered now.
    pub requests_active: u64,
    /// Answers sent to their end.
    pub completed: u64,
    /// Answers that the other side did not take to their end.
    pub aborted: u64,
    /// Answers that a fault ended.
    pub faulted: u64,
    /// Pieces of answers handed to the connection.
    pub chunks_sent: u64,
    /// Bytes of answers handed to the connection, compressed if the answer is.
    pub bytes_sent: u64,
    /// Those of `chunks_sent` that were made although the connection was known to be gone.
    pub chunks_after_gone: u64,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It has not.
    Active,
    /// The answer was sent to its end.
    Completed,
    /// The other side went away.
    Aborted,
    /// By a fault that was asked for.
    Faulted,
}

/// One request as it came in and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// Counts from 0 since the start; resets do not change it.
    pub number: u64,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The authority: of HTTP/2, or the host header.
    pub authority: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The server name asked for in TLS, empty if none; absent without TLS.
    pub tls: Option<String>,
    /// Lower-case names, each with all its values. What is not UTF-8 is replaced.
    pub headers: Map<String, Value>,
    /// The first 64 KiB of the body: text, or base64 in an object `{"base64": …}`.
    pub body: Value,
    /// The length of the whole body.
    pub body_bytes: u64,
    /// The SHA-256 of the whole body, in hexadecimal.
    pub body_sha256: String,
    /// Trailers of the request.
    pub trailers: Map<String, Value>,
    /// Pieces sent in answer.
    pub chunks_sent: u64,
    /// How it ended.
    pub outcome: Outcome,
}

#[derive(Debug, Default)]
struct State {
    counters: Counters,
    next: u64,
    requests: VecDeque<Recorded>,
}

/// The shared record.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder(Arc<Mutex<State>>);

impl Recorder {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every update is complete in itself, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> Counters {
        self.state().counters
    }

    /// The last `n`, oldest first.
    pub(super) fn requests(&self, n: usize) -> Vec<Recorded> {
        let state = self.state();
        state.requests.iter().skip(state.requests.len().saturating_sub(n)).cloned().collect()
    }

    /// Forgets requests and counts; what is going on stays counted.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        let Counters { connections_active, requests_active, .. } = state.counters;
        state.counters = Counters { connections_active, requests_active, ..Counters::default() };
        state.requests.clear();
    }

    pub(super) fn connection(&self) -> Arc<Connection> {
        {
            let counters = &mut self.state().counters;
            counters.connections += 1;
            counters.connections_active += 1;
        }
        Arc::new(Connection {
            recorder: self.clone(),
            tls: OnceLock::new(),
            gone: AtomicBool::new(false),
            reset: AtomicBool::new(false),
        })
    }

    pub(super) fn exchange(&self, connection: &Arc<Connection>, parts: &Parts) -> Exchange {
        let mut state = self.state();
        state.counters.requests += 1;
        state.counters.requests_active += 1;
        let number = state.next;
        state.next += 1;
        if state.requests.len() == REQUESTS {
            state.requests.pop_front();
        }
        let host =
            parts.headers.get(http::header::HOST).map(|h| String::from_utf8_lossy(h.as_bytes()).into_owned());
        state.requests.push_back(Recorded {
            number,
            method: parts.method.to_string(),
            path: parts.uri.path_and_query().map_or_else(|| parts.uri.to_string(), ToString::to_string),
            authority: parts.uri.authority().map(ToString::to_string).or(host).unwrap_or_default(),
            version: format!("{:?}", parts.version),
            tls: connection.tls.get().cloned(),
            headers: header_json(&parts.headers),
            body: Value::Null,
            body_bytes: 0,
            body_sha256: String::new(),
            trailers: Map::new(),
            chunks_sent: 0,
            outcome: Outcome::Active,
        });
        drop(state);
        Exchange { recorder: self.clone(), connection: connection.clone(), number, outcome: Outcome::Aborted }
    }
}

/// One connection, for as long as it is open.
#[derive(Debug)]
pub(super) struct Connection {
    recorder: Recorder,
    tls: OnceLock<String>,
    gone: AtomicBool,
    reset: AtomicBool,
}

impl Connection {
    /// It is over TLS, with this server name, empty if the client sent none.
    pub(super) fn set_tls(&self, server_name: &str) {
        _ = self.tls.set(server_name.to_owned());
    }

    /// The other side has closed it or it has failed.
    pub(super) fn set_gone(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// It is to end with a TCP reset, at once.
    pub(super) fn set_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let counters = &mut self.recorder.state().counters;
        counters.connections_active = counters.connections_active.saturating_sub(1);
    }
}

/// One request and its answer. Dropping it ends it, as aborted unless [`Exchange::end`] said otherwise.
#[derive(Debug)]
pub(super) struct Exchange {
    recorder: Recorder,
    pub(super) connection: Arc<Connection>,
    number: u64,
    outcome: Outcome,
}

impl Exchange {
    fn update(&self, change: impl FnOnce(&mut Recorded)) {
        let mut state = self.recorder.state();
        if let Some(recorded) = state.requests.iter_mut().rev().find(|r| r.number == self.number) {
            change(recorded);
        }
    }

    pub(super) fn body(&self, body: &[u8], trailers: Option<&HeaderMap>) {
        let sha256 = ring::digest::digest(&ring::digest::SHA256, body);
        let sha256: String = sha256.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let kept = body_json(body.get(..BODY).unwrap_or(body));
        self.update(|recorded| {
            recorded.body = kept;
            recorded.body_bytes = body.len() as u64;
            recorded.body_sha256 = sha256;
            recorded.trailers = trailers.map(header_json).unwrap_or_default();
        });
    }

    /// A copy of what was received.
    pub(super) fn recorded(&self) -> Option<Recorded> {
        self.recorder.state().requests.iter().rev().find(|r| r.number == self.number).cloned()
    }

    pub(super) fn sent(&self, bytes: usize) {
        let gone = self.connection.gone.load(Ordering::Relaxed);
        {
            let counters = &mut self.recorder.state().counters;
            counters.chunks_sent += 1;
            counters.bytes_sent += bytes as u64;
            counters.chunks_after_gone += u64::from(gone);
        }
        self.update(|recorded| recorded.chunks_sent += 1);
    }

    /// How it is to be counted when it is dropped.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let outcome = self.outcome;
        {
            let counters = &mut self.recorder.state().counters;
            counters.requests_active = counters.requests_active.saturating_sub(1);
            match outcome {
                Outcome::Completed => counters.completed += 1,
                Outcome::Faulted => counters.faulted += 1,
                Outcome::Active | Outcome::Aborted => counters.aborted += 1,
            }
        }
        self.update(|recorded| recorded.outcome = outcome);
    }
}

fn header_json(headers: &HeaderMap) -> Map<String, Value> {
    let mut map = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        map.insert(name.as_str().to_owned(), values.collect::<Vec<_>>().into());
    }
    map
}

fn body_json(body: &[u8]) -> Value {
    match std::str::from_utf8(body) {
        Ok(text) => text.into(),
        // The cut at the limit may split a character.
        Err(e) if e.error_len().is_none() => String::from_utf8_lossy(&body[..e.valid_up_to()]).into(),
        Err(_) => json!({"base64": STANDARD.encode(body)}),
    }
}
