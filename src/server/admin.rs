//! The admin listener: `/health` for probes, `/metrics` for Prometheus, `/config` for people. Nothing here shows a secret.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health::Health;
use super::listen::{Listen, Listener, Stream};
use crate::credentials::Keeper;
use crate::keys::Index;
use crate::source::Slot;
use crate::telemetry::Metrics;

/// Serves until dropped. Without a slot there is no `/config`.
pub(super) async fn serve(
    listener: Listener,
    health: Health,
    metrics: Arc<Metrics>,
    (keeper, keys): (Keeper, Option<Arc<Index>>),
    slot: Option<Slot>,
) {
    let mut routes = Router::new()
        .route("/health", get(check).with_state((health, keeper, keys)))
        .route("/metrics", get(scrape).with_state(metrics));
    if let Some(slot) = slot {
        routes = routes.route("/config", get(show).with_state(slot));
    }
    if let Err(error) = axum::serve(Incoming(listener), routes).await {
        tracing::error!(%error, "the admin server failed");
    }
}

/// A credential that cannot be renewed and a store of keys that is away are told here, and are no reason to take the processor out of
/// service: others would fare no better, and other backends and clients are served.
async fn check(State((health, keeper, keys)): State<(Health, Keeper, Option<Arc<Index>>)>) -> Response {
    match health.problem() {
        None => {
            let mut text = "OK\n".to_owned();
            for status in keeper.status() {
                if let Some(problem) = status.problem {
                    // Writing to a string does not fail.
                    let _ = writeln!(text, "the credential of {} is not renewed: {problem}", status.service);
                }
            }
            if let Some(keys) = keys {
                let _ = writeln!(text, "{}", keys.status(Instant::now()));
            }
            (StatusCode::OK, text).into_response()
        }
        Some(problem) => (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response(),
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.render() {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The configuration in force, and which one since the start it is; `null` while there is none.
async fn show(State(slot): State<Slot>) -> Response {
    let config = slot.load().map(|runtime| runtime.document());
    let document = serde_json::json!({ "generation": slot.generation(), "config": config });
    ([(header::CONTENT_TYPE, "application/json")], format!("{document:#}\n")).into_response()
}

/// Connections of a listener, as axum takes them.
pub(super) struct Incoming(pub(super) Listener);

impl axum::serve::Listener for Incoming {
    type Io = Stream;
    type Addr = Listen;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(stream) => return (stream, self.0.local().clone()),
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.0.local().clone())
    }
}
