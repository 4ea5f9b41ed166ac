//! What the controller tells of itself, for Prometheus.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// The instruments and the registry they are read from.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    compilations: IntCounter,
    compile_seconds: Histogram,
    queue_seconds: Histogram,
    writes: IntCounterVec,
    watch_failures: IntCounterVec,
    objects: IntGaugeVec,
    leads: IntGauge,
    generations: IntGaugeVec,
    processors: IntGaugeVec,
}

/// What came of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Conflict,
    Failed,
}

impl Metrics {
    /// Fresh instruments.
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| IntCounter::new(format!("aigw_controller_{name}"), help);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(format!("aigw_controller_{name}"), help), labels)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(format!("aigw_controller_{name}"), help), labels)
        };
        let seconds = |name: &str, help: &str| {
            let buckets = vec![0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
            Histogram::with_opts(HistogramOpts::new(format!("aigw_controller_{name}"), help).buckets(buckets))
        };
        let metrics = Self {
            compilations: counter(
                "compilations_total",
                "How often the objects of the cluster were compiled.",
            )?,
            compile_seconds: seconds("compile_seconds", "How long a compilation took.")?,
            queue_seconds: seconds(
                "queue_seconds",
                "From a change that was seen to the end of its compilation.",
            )?,
            writes: counters("writes_total", "Writes to the API server.", &["kind", "verb", "outcome"])?,
            watch_failures: counters("watch_failures_total", "Watches that broke off.", &["kind"])?,
            objects: gauges("objects", "Objects that are watched.", &["kind"])?,
            leads: IntGauge::new("aigw_controller_leader", "Whether this controller leads, and so writes.")?,
            generations: gauges(
                "published_generation",
                "The configuration that is published.",
                &["gateway"],
            )?,
            processors: gauges(
                "processors",
                "Processors that are connected, by whether they run the configuration that is published.",
                &["gateway", "current"],
            )?,
            registry,
        };
        let Self { registry, .. } = &metrics;
        registry.register(Box::new(metrics.compilations.clone()))?;
        registry.register(Box::new(metrics.compile_seconds.clone()))?;
        registry.register(Box::new(metrics.queue_seconds.clone()))?;
        registry.register(Box::new(metrics.writes.clone()))?;
        registry.register(Box::new(metrics.watch_failures.clone()))?;
        registry.register(Box::new(metrics.objects.clone()))?;
        registry.register(Box::new(metrics.leads.clone()))?;
        registry.register(Box::new(metrics.generations.clone()))?;
        registry.register(Box::new(metrics.processors.clone()))?;
        Ok(metrics)
    }

    /// A compilation, and how long the oldest change it took in had waited at its end.
    pub(super) fn compiled(&self, took: Duration, queued: Option<Duration>) {
        self.compilations.inc();
        self.compile_seconds.observe(took.as_secs_f64());
        if let Some(queued) = queued {
            self.queue_seconds.observe(queued.as_secs_f64());
        }
    }

    /// A write.
    pub(super) fn wrote(&self, kind: &str, verb: &str, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Conflict => "conflict",
            Outcome::Failed => "failed",
        };
        self.writes.with_label_values(&[kind, verb, outcome]).inc();
    }

    /// A watch that broke off.
    pub(super) fn watch_failed(&self, kind: &str) {
        self.watch_failures.with_label_values(&[kind]).inc();
    }

    /// How many objects of a kind there are.
    pub(super) fn objects(&self, kind: &str, count: usize) {
        self.objects.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether this controller leads.
    pub(super) fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
    }

    /// What is published for a Gateway, and how many processors run it and something else.
    pub(super) fn published(&self, gateway: &str, generation: u64, (current, behind): (usize, usize)) {
        self.generations.with_label_values(&[gateway]).set(i64::try_from(generation).unwrap_or(i64::MAX));
        for (label, count) in [("true", current), ("false", behind)] {
            self.processors
                .with_label_values(&[gateway, label])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A Gateway is served no longer.
    pub(super) fn withdrawn(&self, gateway: &str) {
        // What was never there cannot be removed, and need not be.
        let _ = self.generations.remove_label_values(&[gateway]);
        for label in ["true", "false"] {
            let _ = self.processors.remove_label_values(&[gateway, label]);
        }
    }

    /// Everything, in Prometheus' text form.
    pub(super) fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
