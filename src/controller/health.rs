//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::metrics::Metrics;
use super::store::Stream;
use crate::server::listen::{Incoming, Listener};
use crate::server::scraped;

/// A loop that has not come round for this long hangs.
const HANGS: Duration = Duration::from_secs(180);

/// How the controller is. Clones are handles.
#[derive(Debug, Clone)]
pub(super) struct Health(Arc<Mutex<Facts>>);

#[derive(Debug)]
struct Facts {
    beat: Instant,
    compiled: bool,
    waiting: Vec<String>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Facts { beat: Instant::now(), compiled: false, waiting: Vec::new() })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Facts) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The loop has come round.
    pub(super) fn beat(&self) {
        self.with(|facts| facts.beat = Instant::now());
    }

    /// Everything has been compiled once.
    pub(super) fn compiled(&self) {
        self.with(|facts| facts.compiled = true);
    }

    /// What has not been shown by the API server yet.
    pub(super) fn waiting(&self, streams: &[Stream]) {
        let name = |stream: &Stream| match &stream.narrowed {
            Some((namespace, name)) if !name.is_empty() => format!("{} {namespace}/{name}", stream.kind),
            Some((namespace, _)) => format!("{} in {namespace}", stream.kind),
            None => stream.kind.to_owned(),
        };
        let waiting = streams.iter().map(name).collect();
        self.with(|facts| facts.waiting = waiting);
    }
}

/// Serves until dropped.
pub(super) async fn serve(listener: Listener, health: Health, metrics: Arc<Metrics>) {
    let routes = Router::new()
        .route("/healthz", get(alive).with_state(health.clone()))
        .route("/readyz", get(ready).with_state(health))
        .route("/metrics", get(scrape).with_state(metrics));
    if let Err(error) = axum::serve(Incoming(listener), routes).await {
        tracing::error!(%error, "health and metrics are served no longer");
    }
}

async fn alive(State(health): State<Health>) -> Response {
    let hangs = health.with(|facts| facts.beat.elapsed() > HANGS);
    if hangs {
        (StatusCode::INTERNAL_SERVER_ERROR, "the loop hangs\n").into_response()
    } else {
        "OK\n".into_response()
    }
}

/// Ready is who knows everything: whoever follows is ready too.
async fn ready(State(health): State<Health>) -> Response {
    let (compiled, waiting) = health.with(|facts| (facts.compiled, facts.waiting.clone()));
    if compiled {
        return "OK\n".into_response();
    }
    let mut text = "not everything has been seen and compiled yet\n".to_owned();
    for name in waiting {
        // Writing to a string does not fail.
        let _ = writeln!(text, "waiting for {name}");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    scraped(metrics.render())
}
