//! The account of an exchange: who asked for what, who answered, what it cost, how it ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::quota::Reservation;
use crate::cost::CostFacts;
use crate::endpoint::{self, Endpoint};
use crate::mutation::Metadata;
use crate::runtime::{Rule, Served};
use crate::tenant::Tenant;
use crate::translate::Report;
use crate::usage::TokenUsage;

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The provider's answer was delivered to its end, with a status of 2xx.
    Completed,
    /// The provider, or Envoy in its place, answered with another status, or did not bring its answer to its end.
    ProviderError,
    /// The gateway answered itself; the word says why.
    Refused(&'static str),
    /// Envoy answered before the request was complete.
    AnsweredByEnvoy,
    /// The client, the provider or Envoy went away in the middle, or the processor was stopped.
    Interrupted,
    /// Envoy's messages did not fit, or an answer could not be processed.
    Violation,
}

impl Outcome {
    /// One word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ProviderError => "provider_error",
            Self::Refused(_) => "refused",
            Self::AnsweredByEnvoy => "answered_by_envoy",
            Self::Interrupted => "interrupted",
            Self::Violation => "violation",
        }
    }
}

/// The account. There is exactly one for each exchange.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// How it ended.
    pub outcome: Outcome,
    /// The endpoint, if the path named one.
    pub endpoint: Option<Endpoint>,
    /// `namespace/name` of the Gateway.
    pub gateway: Option<Arc<str>>,
    /// Who asked.
    pub tenant: Tenant,
    /// The rule that was chosen, where the processor chooses.
    pub rule: Option<Arc<Rule>>,
    /// Who was asked, once somebody was: by the last attempt, if there were several.
    pub served: Option<Arc<Served>>,
    /// Who was asked before in vain, in that order.
    pub failed: Vec<Arc<Served>>,
    /// The model the client asked for.
    pub original_model: Option<Arc<str>>,
    /// The model the provider was asked for.
    pub request_model: Option<Arc<str>>,
    /// The model the provider says it used.
    pub response_model: Option<Arc<str>>,
    /// Attributes of the client's headers, for metrics.
    pub attributes: Vec<(String, String)>,
    /// Whether the client asked for a stream.
    pub streaming: bool,
    /// The status the client got.
    pub status: Option<u16>,
    /// Tokens, as reported or, where [`Settlement::estimated`] says so, as counted.
    pub usage: TokenUsage,
    /// The provider reported no usage; what was delivered was counted instead.
    pub estimated: bool,
    /// Nobody has counted the prompt: its tokens are taken from its length.
    pub(super) prompt_guessed: bool,
    /// What the store of quotas was asked to hold for it: it is to be told of [`Settlement::settles`].
    pub reservations: Vec<Reservation>,
    /// The limit that had no room for it.
    pub refused_by: Option<Arc<str>>,
    /// How long the answer may get, in tokens, where a policy has written that into the request.
    pub clamped: Option<u64>,
    /// It went on to a provider.
    pub sent: bool,
    /// Length of the request body.
    pub prompt_bytes: u64,
    /// When the request came.
    pub started: Instant,
    /// When the first chunk of the answer's body came.
    pub first_chunk: Option<Instant>,
    /// When the answer was complete.
    pub completed: Option<Instant>,
    /// From the request to the end.
    pub duration: Duration,
}

/// A token is about that many bytes of text. Only used where a provider reports nothing.
const BYTES_PER_TOKEN: u64 = 4;

impl Settlement {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            outcome: Outcome::Interrupted,
            endpoint: None,
            gateway: None,
            tenant: Tenant::anonymous(),
            rule: None,
            served: None,
            failed: Vec::new(),
            original_model: None,
            request_model: None,
            response_model: None,
            attributes: Vec::new(),
            streaming: false,
            status: None,
            usage: TokenUsage::default(),
            estimated: false,
            prompt_guessed: false,
            reservations: Vec::new(),
            refused_by: None,
            clamped: None,
            sent: false,
            prompt_bytes: 0,
            started,
            first_chunk: None,
            completed: None,
            duration: Duration::ZERO,
        }
    }

    /// The value of `gen_ai.provider.name`.
    pub fn provider(&self) -> Option<&'static str> {
        self.served.as_deref().map(|served| endpoint::provider_name(served.backend.api.schema()))
    }

    /// Whether the provider was asked and gave what it was asked for.
    pub fn succeeded(&self) -> bool {
        self.outcome == Outcome::Completed
    }

    /// From the request to the first chunk of a streamed answer.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        let first = self.first_chunk.filter(|_| self.streaming)?;
        Some(first.saturating_duration_since(self.started))
    }

    /// The mean time between two tokens of a streamed answer.
    pub fn time_per_output_token(&self) -> Option<Duration> {
        let (first, completed) = (self.first_chunk.filter(|_| self.streaming)?, self.completed?);
        let gaps = self.usage.output?.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(completed.saturating_duration_since(first).div_f64(gaps as f64))
    }

    /// Takes over what was read from the answer. An answer that was cut short, or that ends without saying what it used, is
    /// counted by what was delivered.
    pub(super) fn read(&mut self, report: &Report, cut_short: bool) {
        self.response_model = match (report.model.as_deref(), self.endpoint) {
            (Some(model), _) => Some(model.into()),
            // These never name one that could be missing.
            (None, Some(Endpoint::Completions | Endpoint::ResponsesInputTokens | Endpoint::CountTokens)) => {
                None
            }
            (None, _) => self.request_model.clone(),
        };
        self.usage = report.usage;
        let generates = self.endpoint.is_some_and(Endpoint::generates_text);
        let answered = self.status.is_some_and(|status| (200..300).contains(&status));
        if cut_short && answered && generates && !report.usage.is_empty() {
            // Counts that came before the end, such as those at a stream's beginning, leave out what was delivered since.
            let output = self.usage.output.unwrap_or(0).max(report.delivered_tokens());
            self.estimated = self.usage.output != Some(output);
            self.usage.output = Some(output);
            self.usage.total =
                self.usage.total.map(|total| total.max(self.usage.input.unwrap_or(0).saturating_add(output)));
        }
        if report.usage.is_empty() && answered && (cut_short || generates) {
            let input = self.prompt_bytes.div_ceil(BYTES_PER_TOKEN);
            let output = if generates { report.delivered_tokens() } else { 0 };
            self.usage = TokenUsage {
                input: Some(input),
                output: Some(output),
                total: Some(input + output),
                ..TokenUsage::default()
            };
            self.estimated = true;
            self.prompt_guessed = true;
        }
    }

    pub(super) fn close(&mut self, now: Instant) {
        self.duration = self.completed.unwrap_or(now).saturating_duration_since(self.started);
    }

    /// The dynamic metadata of a successful exchange: nothing unless a cost is configured for it.
    pub(super) fn metadata(&self, served: &Served) -> Metadata {
        let mut metadata = Metadata::default();
        if !self.succeeded() || served.costs.is_empty() {
            return metadata;
        }
        let model = self.request_model.as_deref().unwrap_or_default();
        let facts =
            CostFacts { model, backend: &served.backend.name, route_name: &served.route, usage: &self.usage };
        for (key, cost) in served.costs.evaluate(&facts) {
            match cost {
                Ok(cost) => metadata.number(key.to_owned(), cost as f64),
                Err(error) => tracing::warn!(route = %served.route, key, %error, "a cost cannot be computed"),
            }
        }
        metadata.text("model_name_override", model);
        metadata.text("ai_service_backend_name", served.backend.service());
        metadata.text("route_name", &*served.route);
        for (name, part) in self.tenant.parts() {
            metadata.text(name, &**part);
        }
        if let Some(model) = &self.response_model {
            metadata.text("response_model", &**model);
        }
        if let Some(ttft) = self.time_to_first_token() {
            metadata.number("token_latency_ttft", ttft.as_secs_f64() * 1e3);
        }
        if let Some(gap) = self.time_per_output_token() {
            metadata.number("token_latency_itl", gap.as_secs_f64() * 1e3);
        }
        metadata
    }
}
