//! The admin listener: `/health` for probes, `/metrics` for Prometheus, `/config` for people. Nothing here shows a secret.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health::Health;
use super::listen::{Incoming, Listener};
use crate::credentials::Keeper;
use crate::keys::Index;
use crate::source::{Pushed, PushedStatus, Slot};
use crate::telemetry::Metrics;

/// Serves until dropped. Without a slot there is no `/config`.
pub(super) async fn serve(
    listener: Listener,
    health: Health,
    metrics: Arc<Metrics>,
    (keeper, keys, pushed): (Keeper, Option<Arc<Index>>, Pushed),
    slot: Option<Slot>,
) {
    let mut routes = Router::new()
        .route("/health", get(check).with_state((health, keeper, keys, pushed)))
        .route("/metrics", get(scrape).with_state(metrics));
    if let Some(slot) = slot {
        routes = routes.route("/config", get(show).with_state(slot));
    }
    if let Err(error) = axum::serve(Incoming(listener), routes).await {
        tracing::error!(%error, "the admin server failed");
    }
}

/// A credential that cannot be renewed, a store of keys and a controller that are away are told here, and are no reason to take the
/// processor out of service: others would fare no better, and other backends and clients are served.
async fn check(
    State((health, keeper, keys, pushed)): State<(Health, Keeper, Option<Arc<Index>>, Pushed)>,
) -> Response {
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
            for line in pushed.status().into_iter().flat_map(|status| status.lines(Instant::now())) {
                let _ = writeln!(text, "{line}");
            }
            (StatusCode::OK, text).into_response()
        }
        Some(problem) => {
            let mut text = format!("{problem}\n");
            for line in pushed.status().into_iter().flat_map(|status| status.lines(Instant::now())) {
                let _ = writeln!(text, "{line}");
            }
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    scraped(metrics.render())
}

/// The answer to Prometheus: what was rendered, in its text format, or 500 with the reason.
pub(crate) fn scraped(rendered: Result<String, impl std::fmt::Display>) -> Response {
    match rendered {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// The configuration in force, and which one since the start it is; `null` while there is none.
async fn show(State(slot): State<Slot>) -> Response {
    let config = slot.load().map(|runtime| runtime.document());
    let mut document = serde_json::json!({ "generation": slot.generation(), "config": config });
    if let Some(status) = slot.pushed().status() {
        document["controller"] = told(&status, Instant::now());
    }
    ([(header::CONTENT_TYPE, "application/json")], format!("{document:#}\n")).into_response()
}

/// How the stream from the controller is.
fn told(status: &PushedStatus, now: Instant) -> serde_json::Value {
    let age = |since: Instant| now.saturating_duration_since(since).as_secs();
    let gateways = status.gateways.iter().map(|gateway| {
        let refused = gateway.refused.as_ref();
        let told = serde_json::json!({
            "generation": gateway.in_force.map(|(generation, _)| generation),
            "ageSeconds": gateway.in_force.map(|(_, since)| age(since)),
            "fromCache": gateway.cached,
            "itemsNotServed": gateway.problems,
            "refused": refused.map(|(generation, problem)| serde_json::json!({"generation": generation, "problem": problem})),
        });
        (gateway.name.to_string(), told)
    });
    serde_json::json!({
        "connected": status.connected,
        "sinceSeconds": age(status.since),
        "problem": status.problem,
        "gateways": gateways.collect::<serde_json::Map<_, _>>(),
    })
}
