//! All limits, and what a request claims by those it falls under.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::limit::DEFAULT_OUTPUT;
use super::metric::AtMost;
use super::scope::Target;
use super::{Ask, Claim, Dimension, EstimateBy, Facts, Group, Limit, Mode, OnAway, OutputCap, ReservationId};
use crate::tenant::naming::allows;

/// How long a reservation is held unless it is renewed.
pub const LEASE: Duration = Duration::from_secs(60);

/// Which part of its limits a request is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// All: its backend is known when its body is.
    Whole,
    /// Those that do not depend on the backend, which Envoy chooses later.
    Router,
    /// Those that do.
    Attempt,
}

/// What a request may use, before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens of the prompt, at most.
    pub prompt: u64,
    /// How many tokens an answer may have, where the request says so.
    pub output: Option<u64>,
    /// It may be sent in a way that does not say so, too.
    pub unsaid: bool,
    /// How many answers it asks for.
    pub answers: u64,
}

type Places = HashMap<Arc<str>, Vec<usize>>;

/// Every limit there is, found by what it is attached to.
#[derive(Debug, Default)]
pub struct Quotas {
    all: Vec<Arc<Limit>>,
    /// Those that are attached to something: their places, by its name.
    gateways: Places,
    routes: Places,
    backends: Places,
    /// Those that are for everything: their places.
    loose: Vec<usize>,
    /// The headers that any of them looks at.
    headers: BTreeSet<String>,
}

/// The limits that a request falls under.
#[derive(Debug, Clone)]
pub struct Selected(Vec<Arc<Limit>>);

/// What is to be asked of the store for a request.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The question.
    pub ask: Ask,
    /// The limit of each claim.
    pub limits: Vec<Arc<Limit>>,
    /// Whether the answer may be cut to what is left: then the request has to say how long it may get.
    pub clamp: bool,
    /// What becomes of the request if the store is out of reach.
    pub on_away: OnAway,
    /// What the estimate was.
    pub estimate: Estimate,
}

impl Quotas {
    /// Takes limits in the order in which they are asked.
    #[must_use]
    pub fn new(limits: impl IntoIterator<Item = Limit>) -> Self {
        let mut quotas = Self::default();
        for limit in limits {
            let place = quotas.all.len();
            for target in &limit.selector.targets {
                let (places, name) = match target {
                    Target::Gateway(name) => (&mut quotas.gateways, name),
                    Target::Route(name) => (&mut quotas.routes, name),
                    Target::Backend(name) => (&mut quotas.backends, name),
                };
                places.entry(Arc::clone(name)).or_default().push(place);
            }
            if limit.selector.targets.is_empty() {
                quotas.loose.push(place);
            }
            let dimensions = limit.per.iter().filter_map(Dimension::header);
            quotas.headers.extend(limit.selector.headers().chain(dimensions).map(str::to_owned));
            quotas.all.push(Arc::new(limit));
        }
        quotas
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Limit>> {
        self.all.iter()
    }

    /// The lower-case names of the headers that any of them looks at, pseudo-headers among them.
    pub fn headers(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(String::as_str)
    }

    /// Those that a request falls under at this stage; nothing if there are none.
    #[must_use]
    pub fn select(&self, stage: Stage, facts: &Facts<'_>) -> Option<Selected> {
        if self.is_empty() {
            return None;
        }
        let limits: Vec<_> =
            self.due(stage, facts).filter(|limit| limit.selector.selects(facts)).cloned().collect();
        (!limits.is_empty()).then_some(Selected(limits))
    }

    /// Those that a request would fall under at this stage if its client were one they are for.
    pub fn candidates(&self, stage: Stage, facts: &Facts<'_>) -> impl Iterator<Item = &Arc<Limit>> {
        self.due(stage, facts).filter(move |limit| limit.selector.may_select(facts))
    }

    /// Those that are attached to what a request goes through or to, in their order.
    fn due(&self, stage: Stage, facts: &Facts<'_>) -> impl Iterator<Item = &Arc<Limit>> {
        let attached = [
            facts.gateway.and_then(|name| self.gateways.get(name)),
            facts.route.and_then(|name| self.routes.get(name)),
            facts.service().and_then(|name| self.backends.get(name)),
            facts.backend.and_then(|name| self.backends.get(name)),
        ];
        let attached = attached.into_iter().flatten().flatten();
        let mut places: Vec<usize> = self.loose.iter().chain(attached).copied().collect();
        places.sort_unstable();
        places.dedup();
        let due = move |limit: &&Arc<Limit>| match stage {
            Stage::Whole => true,
            Stage::Router => !limit.depends_on_backend(),
            Stage::Attempt => limit.depends_on_backend(),
        };
        places.into_iter().filter_map(|place| self.all.get(place)).filter(due)
    }

    /// [`Quotas::select`] and [`Selected::prepare`] in one.
    #[must_use]
    pub fn prepare(
        &self,
        stage: Stage,
        facts: &Facts<'_>,
        estimate: Estimate,
        id: ReservationId,
        now_ms: u64,
    ) -> Option<Prepared> {
        Some(self.select(stage, facts)?.prepare(facts, estimate, id, now_ms))
    }
}

impl Selected {
    /// How the prompt is to be measured: as exactly as any of them asks for.
    #[must_use]
    pub fn estimate_by(&self) -> EstimateBy {
        self.0.iter().map(|limit| limit.terms.estimate).max().unwrap_or(EstimateBy::Bytes)
    }

    /// What the request claims at that moment, in milliseconds since the Unix epoch by the store's clock.
    #[must_use]
    pub fn prepare(self, facts: &Facts<'_>, estimate: Estimate, id: ReservationId, now_ms: u64) -> Prepared {
        let limits = self.0;
        let output = output(&limits, facts, estimate);
        let most = AtMost { prompt: estimate.prompt, output: output.wanted, answers: estimate.answers };
        let mut groups = vec![Group::All];
        let mut names: Vec<&Arc<str>> = Vec::new();
        let mut claims = Vec::with_capacity(limits.len());
        for limit in &limits {
            let group = limit.any_of.as_ref().map_or(0, |name| {
                let known = names.iter().position(|known| *known == name);
                1 + known.unwrap_or_else(|| {
                    names.push(name);
                    groups.push(Group::Any);
                    names.len() - 1
                })
            });
            claims.push(limit.claim(facts, most, now_ms, group));
        }
        let enforced = limits.iter().filter(|limit| !limit.shadow);
        let closed = enforced.clone().any(|limit| limit.terms.on_away == OnAway::Closed);
        Prepared {
            ask: Ask { id, claims, groups, output, lease: LEASE },
            clamp: enforced.clone().any(|limit| can_clamp(limit)),
            limits,
            on_away: if closed { OnAway::Closed } else { OnAway::Open },
            estimate,
        }
    }
}

impl Prepared {
    /// Asks about the windows of another moment: the store's clock says so.
    pub fn move_to(&mut self, now_ms: u64) {
        for (claim, limit) in self.ask.claims.iter_mut().zip(&self.limits) {
            let claim: &mut Claim = claim;
            claim.window = limit.window.at(now_ms);
        }
    }
}

fn can_clamp(limit: &Limit) -> bool {
    limit.terms.clamp.is_some() && limit.mode == Mode::Reserve
}

/// How long the answer may get. Where several policies speak, the largest default counts, so that the bound is one, and the
/// largest minimum.
fn output(limits: &[Arc<Limit>], facts: &Facts<'_>, estimate: Estimate) -> OutputCap {
    if !facts.endpoint.generates_text() {
        return OutputCap { wanted: 0, least: 0 };
    }
    let model = facts.sent_model.unwrap_or(facts.asked_model);
    let default = |limit: &Arc<Limit>| {
        let mut outputs = limit.terms.outputs.iter();
        outputs.find(|(glob, _)| allows(glob, model)).map(|(_, tokens)| *tokens)
    };
    let said = estimate.output;
    let default = (estimate.unsaid || said.is_none())
        .then(|| limits.iter().filter_map(default).max().unwrap_or(DEFAULT_OUTPUT));
    let wanted = said.max(default).unwrap_or(0).min(super::MAX_AMOUNT);
    let clamping = limits.iter().filter(|limit| !limit.shadow && can_clamp(limit));
    let least = clamping.filter_map(|limit| limit.terms.clamp).max();
    OutputCap { wanted, least: least.map_or(wanted, |least| least.min(wanted)) }
}

#[cfg(test)]
mod tests;
