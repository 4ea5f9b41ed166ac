//! A limit, and what a request claims by it.

use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::metric::{Asked, AtMost};
use super::{
    BucketKey, Claim, Counted, Dimension, Facts, Metric, Mode, OnExpiry, Selector, WindowRule, scope,
};
use crate::usage::TokenUsage;

/// What all limits of a policy have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What becomes of requests while the store is out of reach.
    pub on_away: OnAway,
    /// What errors of the provider cost.
    pub on_error: OnError,
    /// What becomes of reservations that nobody ends.
    pub on_expiry: OnExpiry,
    /// How prompts are measured before they are sent.
    pub estimate: EstimateBy,
    /// The fewest tokens to which an answer may be cut so that it fits; nothing: requests are refused instead.
    pub clamp: Option<u64>,
    /// How long answers may get, in tokens, where requests do not say: by the model's name, in which `*` stands for any text. The
    /// first that fits counts.
    pub outputs: Vec<(String, u64)>,
}

/// How long an answer may get, in tokens, where nobody says.
pub const DEFAULT_OUTPUT: u64 = 4_096;

impl Default for Terms {
    fn default() -> Self {
        Self {
            on_away: OnAway::Open,
            on_error: OnError::Free,
            on_expiry: OnExpiry::Charge,
            estimate: EstimateBy::Bytes,
            clamp: None,
            outputs: Vec::new(),
        }
    }
}

/// What becomes of requests while the store is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAway {
    /// They go on, and are charged once it is back.
    Open,
    /// They are refused.
    Closed,
}

/// What a request costs that the provider answers with an error, or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Nothing.
    Free,
    /// What it used, and its prompt where that is not known.
    Charge,
}

/// How a prompt is measured before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EstimateBy {
    /// By its length.
    Bytes,
    /// By a tokenizer.
    Tokenizer,
}

/// How much of something a class of requests may use in a time.
#[derive(Debug, Clone)]
pub struct Limit {
    /// What clients are told it is called.
    pub name: Arc<str>,
    /// The first part of its buckets' names. Belongs to it alone; ASCII letters, digits, `.`, `/`, `-`, `_`, `:`.
    pub id: Arc<str>,
    /// Which requests it is for.
    pub selector: Selector,
    /// What its buckets are told apart by; nothing: it has one.
    pub per: Vec<Dimension>,
    /// What it counts.
    pub metric: Metric,
    /// How much there is in a window.
    pub amount: u64,
    /// The windows. Requests in flight have [`WindowRule::InFlight`], and nothing else has.
    pub window: WindowRule,
    /// Whether it is held to before or after a request.
    pub mode: Mode,
    /// Counted, but never a reason to refuse.
    pub shadow: bool,
    /// It is one of those of which any one is enough; their name.
    pub any_of: Option<Arc<str>>,
    /// How many buckets it may have in a window; where clients choose them, those of one organisation.
    pub most_subjects: Option<u32>,
    /// What it shares with others.
    pub terms: Arc<Terms>,
}

/// How a request ended, as far as it matters for what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum End {
    /// It was never sent to a provider.
    Unsent,
    /// The provider answered with a status of 2xx; all of the answer was delivered, or a part of it.
    Answered,
    /// The provider, or Envoy in its place, answered with another status, or not at all.
    Failed,
    /// It was given up before the provider answered: the client went away, or the processor was stopped.
    Abandoned,
}

/// What a request did use.
#[derive(Debug, Clone, Copy)]
pub struct Used<'a> {
    /// Tokens, as reported or counted; empty where nothing is known.
    pub usage: &'a TokenUsage,
    /// Tokens of the prompt by the estimate that was reserved for; they count where [`Used::usage`] is empty and the request is not
    /// free.
    pub prompt: u64,
    /// How it ended.
    pub end: End,
    /// The model the backend was asked for.
    pub model: &'a str,
    /// The full name of the backend.
    pub backend: &'a str,
    /// `namespace/name` of the route.
    pub route: &'a str,
}

impl Limit {
    /// What its amounts are.
    #[must_use]
    pub fn counted(&self) -> Counted {
        self.metric.counted()
    }

    /// Whether it cannot be told before a backend is chosen if it is for a request, or what that costs.
    #[must_use]
    pub fn depends_on_backend(&self) -> bool {
        self.selector.depends_on_backend()
            || self.metric.depends_on_backend()
            || self.per.iter().any(Dimension::depends_on_backend)
    }

    /// What a request did cost, in the limit's own unit. Requests in flight cost nothing once they are over.
    #[must_use]
    pub fn cost(&self, used: &Used<'_>) -> u64 {
        let Used { usage, prompt, end, model, backend, route } = *used;
        let free = match end {
            End::Unsent => true,
            End::Failed => self.terms.on_error == OnError::Free,
            End::Answered | End::Abandoned => false,
        };
        if free {
            return 0;
        }
        let asked = Asked { model, backend, route };
        if usage.is_empty() {
            let usage = TokenUsage { input: Some(prompt), total: Some(prompt), ..TokenUsage::default() };
            return self.metric.cost(&usage, asked);
        }
        self.metric.cost(usage, asked)
    }

    /// What a request claims. The claim is of group `group` of its ask.
    pub(super) fn claim(&self, facts: &Facts<'_>, most: AtMost, now: u64, group: usize) -> Claim {
        let asked = Asked {
            model: facts.sent_model.unwrap_or(facts.asked_model),
            backend: facts.backend.unwrap_or_default(),
            route: facts.route.unwrap_or_default(),
        };
        let subject = match self.most_subjects {
            Some(_) => scope::owned_subject(&self.per, facts),
            None => scope::subject(&self.per, facts),
        };
        Claim {
            bucket: BucketKey { limit: Arc::clone(&self.id), subject },
            amount: self.amount.min(super::MAX_AMOUNT),
            window: self.window.at(now),
            bound: self.metric.bound(most, asked),
            mode: self.mode,
            shadow: self.shadow,
            on_expiry: self.terms.on_expiry,
            group,
            most_subjects: self.most_subjects,
        }
    }

    /// The id of a limit of that name that counts so: limits that count differently never share a bucket, one whose amount is
    /// edited keeps its own. What cannot stand in an id is replaced, and told apart by a digest.
    #[must_use]
    pub fn id_of(name: &str, metric: &Metric, window: &WindowRule) -> Arc<str> {
        let safe = |letter: char| letter.is_ascii_alphanumeric() || "./-_:".contains(letter);
        let mut id: String = name.chars().map(|letter| if safe(letter) { letter } else { '_' }).collect();
        if id != name {
            let digest = digest(&SHA256, name.as_bytes());
            let digest = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}"));
            id.push('-');
            id.extend(digest);
        }
        format!("{id}:{}:{}", metric.tag(), window.tag()).into()
    }
}
