//! A request, put through an exchange and its attempts.

use std::sync::Arc;

use super::client::Client;
use super::{ProviderRequest, Question, message, provider_request};
use crate::compile::Destination;
use crate::config::{self, Proof};
use crate::exchange::{Arrival, Attempt, Exchange, ExchangeId, Input, Now, Settings, Step, Violation};
use crate::headers::Headers;
use crate::quota::{Grant, Verdict};
use crate::runtime::{Rule, Runtime};

/// Puts the request through an exchange, up to where it is sent on.
pub(super) fn begin(
    runtime: &Arc<Runtime>,
    gateway: &config::Gateway,
    question: &Question,
    (headers, settings): (Headers, Arc<Settings>),
    now: Now,
) -> (Exchange, Result<Step, Violation>) {
    let id = ExchangeId { process: 0, number: 0 };
    let mut exchange = Exchange::new(runtime.scope(&gateway.authority), id, settings, now);
    let first = exchange.handle(Input::RequestHeaders { headers, end_of_stream: false }, now);
    let step = match first {
        Ok(Step::Continue(_)) => {
            exchange.handle(Input::RequestBody { body: question.body(), end_of_stream: true }, now)
        }
        other => other,
    };
    // How much is left is nothing that files say.
    let step = match step {
        Ok(Step::Ask(ask)) => exchange.answered(Ok(Verdict::Granted(Grant::of_plenty(&ask))), now),
        step => step,
    };
    (exchange, step)
}

/// Puts the request of an exchange through an attempt at one of the backends: what that is sent, or why it is sent nothing.
pub(super) fn attempt(
    exchange: &Exchange,
    (rule, proofs): (&Rule, &[Proof]),
    destination: &Destination,
    question: &Question,
    client: &Client<'_>,
    now: Now,
) -> Result<ProviderRequest, String> {
    let arrival = Arrival {
        host_backend: Some(destination.backend.clone()),
        upstream_host: destination.hosts.first().cloned(),
        count: Some(1),
        ..Arrival::default()
    };
    let mut attempt = Attempt::new(arrival, exchange.handover().cloned(), None, Arc::default());
    let headers = client.proving(question.headers(None), proofs);
    let step = match attempt.handle(Input::RequestHeaders { headers, end_of_stream: false }, now) {
        Ok(Step::Ask(ask)) => attempt.answered(Ok(Verdict::Granted(Grant::of_plenty(&ask))), now),
        step => step,
    };
    match step {
        Ok(Step::Ask(_)) => Err("the limits cannot be asked about".to_owned()),
        Ok(Step::Continue(change)) => {
            let served = rule.attempted(&destination.backend);
            let model = served.and_then(|served| served.backend.model_override.as_deref());
            Ok(provider_request(&change, Some(model.unwrap_or_else(|| question.model()).to_owned())))
        }
        Ok(Step::Reply(reply)) => {
            let told = String::from_utf8_lossy(&reply.body).into_owned();
            Err(format!("{} by the gateway itself: {}", reply.status, message(&told).unwrap_or(told)))
        }
        Err(violation) => Err(violation.to_string()),
    }
}
