//! L1. Which costs an exchange has.

use super::{Cost, CostError, CostFacts};

/// A cost of one route, optionally only for one backend and one model.
#[derive(Debug, Clone)]
pub struct RouteCost {
    /// The key the number is published under.
    pub metadata_key: String,
    /// The number.
    pub cost: Cost,
    /// `namespace/name` of the only backend it is for.
    pub backend: Option<String>,
    /// The only model it is for: the one the backend was asked for.
    pub model: Option<String>,
}

impl RouteCost {
    fn applies(&self, facts: &CostFacts<'_>) -> bool {
        self.backend.as_deref().is_none_or(|backend| backend == short_name(facts.backend))
            && self.model.as_deref().is_none_or(|model| model == facts.model)
    }
}

/// All costs that exchanges over one route can have.
#[derive(Debug, Clone, Default)]
pub struct CostSet {
    /// The route's own. Of several that apply under one key the last counts.
    pub route: Vec<RouteCost>,
    /// Key and cost of those for every route; each counts unless one of the route's own was applicable under its key.
    pub global: Vec<(String, Cost)>,
}

impl CostSet {
    /// Whether no exchange has any cost.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.route.is_empty() && self.global.is_empty()
    }

    /// Every key that has a cost for this exchange, once, in the order of configuration. A cost that fails does not keep
    /// the others from being computed, nor does it give way to a global one.
    pub fn evaluate<'a>(&'a self, facts: &CostFacts<'_>) -> Vec<(&'a str, Result<u64, CostError>)> {
        let mut chosen: Vec<(&str, &Cost)> = Vec::with_capacity(self.route.len() + self.global.len());
        for RouteCost { metadata_key, cost, .. } in self.route.iter().filter(|cost| cost.applies(facts)) {
            match chosen.iter_mut().find(|(key, _)| key == metadata_key) {
                Some(earlier) => earlier.1 = cost,
                None => chosen.push((metadata_key, cost)),
            }
        }
        for (key, cost) in &self.global {
            if !chosen.iter().any(|(set, _)| set == key) {
                chosen.push((key, cost));
            }
        }
        chosen.into_iter().map(|(key, cost)| (key, cost.evaluate(facts))).collect()
    }
}

/// `namespace/name` of a backend's full name.
fn short_name(full: &str) -> &str {
    let second = full.match_indices('/').nth(1).map_or(full.len(), |(at, _)| at);
    &full[..second]
}
