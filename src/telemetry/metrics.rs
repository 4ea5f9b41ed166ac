//! Metrics, by OpenTelemetry's conventions for generative AI, exported for Prometheus.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, UNIX_EPOCH};

use opentelemetry::metrics::{BoundCounter, Counter, Histogram, Meter, MeterProvider};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use super::export;
use super::series::{Known, Series};
use crate::credentials::{Keeper, Status};
use crate::endpoint::provider_name;
use crate::exchange::{Outcome, Settlement};
use crate::extproc::ActiveExchanges;
use crate::keys::Index;
use crate::quotastore::Desk;
use crate::source::{GatewayStatus, Pushed};

const SCOPE: &str = "envoyproxy/ai-gateway";

/// The instruments of one process and the registry they are read from.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    provider: SdkMeterProvider,
    token_usage: Histogram<f64>,
    request_duration: Histogram<f64>,
    time_to_first_token: Histogram<f64>,
    time_per_output_token: Histogram<f64>,
    exchanges: Counter<u64>,
    estimated: Counter<u64>,
    failed_attempts: Counter<u64>,
    refused_by_limit: Counter<u64>,
    prompt_estimate: Histogram<f64>,
    known: Mutex<(HashMap<Outcome, BoundCounter<u64>>, Known)>,
}

impl Metrics {
    /// Fresh instruments; `active` and the state of the credentials and of the store of keys are shown as gauges. Fails if the environment asks for an exporter that cannot be set up.
    /// Must be called within a tokio runtime.
    pub fn new(
        active: ActiveExchanges,
        credentials: Keeper,
        keys: Option<Arc<Index>>,
        desk: Desk,
    ) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let resource = resource();
        let provider = SdkMeterProvider::builder().with_reader(exporter).with_resource(resource);
        let provider = export::add(provider, |name| std::env::var(name).ok())?.build();
        let meter = provider.meter_with_scope(scope());
        meter
            .u64_observable_gauge("aigw.exchanges.active")
            .with_description("Exchanges that are being served.")
            .with_callback(move |gauge| gauge.observe(active.count(), &[]))
            .build();
        observe_credentials(&meter, credentials);
        meter
            .u64_observable_counter("aigw.quota.overflowed")
            .with_description("Times a limit had as many subjects as it tells apart (maxSubjects), so that another one shared a bucket.")
            .with_callback(move |counter| counter.observe(desk.overflowed(), &[]))
            .build();
        if let Some(keys) = keys {
            observe_keys(&meter, &keys);
        }
        let seconds = |name, description, bounds: &[f64]| histogram(&meter, name, "s", description, bounds);
        Ok(Self {
            token_usage: histogram(
                &meter,
                "gen_ai.client.token.usage",
                "{token}",
                "Tokens of an exchange by class.",
                &TOKENS,
            ),
            request_duration: seconds(
                "gen_ai.server.request.duration",
                "From the request to the end of the answer.",
                &DURATIONS,
            ),
            time_to_first_token: seconds(
                "gen_ai.server.time_to_first_token",
                "From the request to the first chunk of a streamed answer.",
                &FIRST_TOKENS,
            ),
            time_per_output_token: seconds(
                "gen_ai.server.time_per_output_token",
                "Mean time between two tokens of a streamed answer.",
                &TOKEN_GAPS,
            ),
            exchanges: meter
                .u64_counter("aigw.exchanges.settled")
                .with_description("Exchanges settled, by outcome.")
                .build(),
            estimated: meter
                .u64_counter("aigw.exchanges.estimated")
                .with_description(
                    "Exchanges whose tokens were counted here because the provider reported none.",
                )
                .build(),
            failed_attempts: meter
                .u64_counter("aigw.attempts.failed")
                .with_description("Attempts at a backend that Envoy gave up for another, by backend.")
                .build(),
            refused_by_limit: meter
                .u64_counter("aigw.quota.refused")
                .with_description("Requests for which a limit had no room, by limit.")
                .build(),
            prompt_estimate: histogram(
                &meter,
                "aigw.quota.prompt.estimate",
                "1",
                "How many times the prompt tokens that the provider counted were reserved for them.",
                &ESTIMATES,
            ),
            registry,
            provider,
            known: Mutex::default(),
        })
    }

    /// Shows the stream from a controller as gauges, where there is one.
    pub fn observe_pushed(&self, pushed: &Pushed) {
        observe_pushed(&self.provider.meter_with_scope(scope()), pushed);
    }

    /// Shows from now on what the store of quotas is owed.
    pub fn observe_quotas(&self, desk: &Desk) {
        let meter = self.provider.meter_with_scope(scope());
        let (waiting, lost, kept) = (desk.clone(), desk.clone(), desk.clone());
        meter
            .u64_observable_gauge("aigw.quota.unsettled")
            .with_description("Ends of reservations that the store of quotas has not been told of.")
            .with_callback(move |gauge| gauge.observe(waiting.unsettled() as u64, &[]))
            .build();
        meter
            .u64_observable_counter("aigw.quota.unsettled.lost")
            .with_description("Ends of reservations that the journal could not take, or that were given up.")
            .with_callback(move |counter| counter.observe(lost.lost(), &[]))
            .build();
        meter
            .u64_observable_counter("aigw.quota.snapshot.failed")
            .with_description("Times the snapshot of quotas could not be written.")
            .with_callback(move |counter| counter.observe(kept.unwritten(), &[]))
            .build();
    }

    /// Counts one settled exchange.
    pub fn record(&self, settlement: &Settlement) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcomes, known) = &mut *known;
        let outcome = settlement.outcome;
        let bind = || {
            let reason = match outcome {
                Outcome::Refused(reason) => reason,
                _ => "",
            };
            let labels = [KeyValue::new("outcome", outcome.word()), KeyValue::new("reason", reason)];
            self.exchanges.bind(&labels)
        };
        outcomes.entry(outcome).or_insert_with(bind).add(1);
        for served in &settlement.failed {
            self.failed_attempts.add(
                1,
                &[
                    KeyValue::new("gen_ai.provider.name", provider_name(served.backend.api.schema())),
                    KeyValue::new("backend", served.backend.name.to_string()),
                ],
            );
        }
        if let Some(limit) = &settlement.refused_by {
            self.refused_by_limit.add(1, &[KeyValue::new("limit", limit.to_string())]);
        }
        if let Some(times) = settlement.prompt_estimate() {
            self.prompt_estimate.record(times, &[]);
        }
        // The others never reached a provider.
        if settlement.served.is_some() {
            self.record_answer(settlement, known.of(settlement));
        }
    }

    fn record_answer(&self, settlement: &Settlement, series: &mut Series) {
        let Series { labels, duration, failed_duration, first_token, token_gap, tokens } = series;
        if settlement.estimated {
            self.estimated.add(1, labels);
        }
        let took = settlement.duration.as_secs_f64();
        if settlement.succeeded() {
            duration.record(&self.request_duration, labels, None, took);
        } else {
            let error = Some(("error.type", "_OTHER"));
            failed_duration.record(&self.request_duration, labels, error, took);
        }
        if let Some(ttft) = settlement.time_to_first_token() {
            first_token.record(&self.time_to_first_token, labels, None, ttft.as_secs_f64());
        }
        if let Some(gap) = settlement.time_per_output_token() {
            token_gap.record(&self.time_per_output_token, labels, None, gap.as_secs_f64());
        }
        let usage = &settlement.usage;
        let classes = [
            ("input", usage.input),
            ("cached_input", usage.cached_input),
            ("cache_creation_input", usage.cache_creation_input),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
        ];
        for ((class, count), series) in classes.into_iter().zip(tokens) {
            if let Some(count) = count {
                let class = Some(("gen_ai.token.type", class));
                series.record(&self.token_usage, labels, class, count as f64);
            }
        }
    }

    /// Exports what was recorded last, where metrics are exported. Waits for it, so not for an asynchronous task.
    pub fn shutdown(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last metrics were not exported");
        }
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Empty rather than absent: the series carry all three labels.
fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE).with_version("").with_schema_url("").build()
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go before our own name.
fn resource() -> Resource {
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok()
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES")
            .is_ok_and(|attributes| attributes.contains("service.name="));
    let builder = Resource::builder();
    if named { builder.build() } else { builder.with_service_name("ai-gateway").build() }
}

/// Only of credentials that are fetched and renewed.
fn observe_credentials(meter: &Meter, credentials: Keeper) {
    let label = |status: &Status| [KeyValue::new("backend", status.service.to_string())];
    let keeper = credentials.clone();
    meter
        .f64_observable_gauge("aigw.credential.expiry")
        .with_unit("s")
        .with_description(
            "When the credential in force expires, in seconds since 1970; 0 while there is none.",
        )
        .with_callback(move |gauge| {
            for status in keeper.status() {
                let expires = status.expires.and_then(|expires| expires.duration_since(UNIX_EPOCH).ok());
                match expires {
                    Some(expires) => gauge.observe(expires.as_secs_f64(), &label(&status)),
                    None if !status.fetched => gauge.observe(0.0, &label(&status)),
                    None => {}
                }
            }
        })
        .build();
    meter
        .u64_observable_counter("aigw.credential.refresh.failures")
        .with_description("Attempts to fetch or renew a credential that failed.")
        .with_callback(move |counter| {
            for status in credentials.status() {
                counter.observe(status.failures, &label(&status));
            }
        })
        .build();
}

/// How the store of the gateway's own keys is, as this processor sees it.
fn observe_keys(meter: &Meter, keys: &Arc<Index>) {
    let status = |keys: &Arc<Index>| {
        let keys = Arc::clone(keys);
        move || keys.status(Instant::now())
    };
    let held = status(keys);
    meter
        .u64_observable_gauge("aigw.keys.held")
        .with_description("Keys of the gateway's own that are known, whatever they are good for.")
        .with_callback(move |gauge| gauge.observe(held().keys as u64, &[]))
        .build();
    let up = status(keys);
    meter
        .u64_observable_gauge("aigw.keys.store.up")
        .with_description("Whether the store of keys is there: 1 or 0.")
        .with_callback(move |gauge| {
            let status = up();
            gauge.observe(u64::from(status.problem.is_none() && status.age.is_some()), &[]);
        })
        .build();
    let age = status(keys);
    meter
        .f64_observable_gauge("aigw.keys.age")
        .with_unit("s")
        .with_description("How long ago the store of keys was last heard of; absent if it never was.")
        .with_callback(move |gauge| {
            if let Some(age) = age().age {
                gauge.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
}

/// Which configurations are in force, as a controller pushed them.
fn observe_pushed(meter: &Meter, pushed: &Pushed) {
    let label = |gateway: &GatewayStatus| [KeyValue::new("gateway", gateway.name.to_string())];
    let connected = pushed.clone();
    meter
        .u64_observable_gauge("aigw.config.controller.connected")
        .with_description("Whether the controller is connected: 1 or 0.")
        .with_callback(move |gauge| {
            if let Some(status) = connected.status() {
                gauge.observe(status.connected.into(), &[]);
            }
        })
        .build();
    let generation = pushed.clone();
    meter
        .u64_observable_gauge("aigw.config.generation")
        .with_description("The generation of a Gateway's configuration that is in force.")
        .with_callback(move |gauge| {
            for gateway in generation.status().iter().flat_map(|status| &status.gateways) {
                if let Some((generation, _)) = gateway.in_force {
                    gauge.observe(generation, &label(gateway));
                }
            }
        })
        .build();
    let age = pushed.clone();
    meter
        .f64_observable_gauge("aigw.config.age")
        .with_unit("s")
        .with_description("For how long a Gateway's configuration is in force.")
        .with_callback(move |gauge| {
            for gateway in age.status().iter().flat_map(|status| &status.gateways) {
                if let Some((_, since)) = gateway.in_force {
                    gauge.observe(since.elapsed().as_secs_f64(), &label(gateway));
                }
            }
        })
        .build();
    let refused = pushed.clone();
    meter
        .u64_observable_gauge("aigw.config.refused")
        .with_description("Whether a Gateway's latest configuration could not be used: 1 or 0.")
        .with_callback(move |gauge| {
            for gateway in refused.status().iter().flat_map(|status| &status.gateways) {
                gauge.observe(gateway.refused.is_some().into(), &label(gateway));
            }
        })
        .build();
}

fn histogram(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    description: &'static str,
    bounds: &[f64],
) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_unit(unit)
        .with_description(description)
        .with_boundaries(bounds.to_vec())
        .build()
}

/// Below 1, more was used than was reserved.
const ESTIMATES: [f64; 11] = [0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 50.0];
/// Bucket bounds as the conventions give them: powers of four.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const DURATIONS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKENS: [f64; 21] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0,
    30.0, 45.0, 60.0,
];
const TOKEN_GAPS: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
