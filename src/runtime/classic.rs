//! A document without gateways, as the Go gateway's controller writes it.

use std::collections::HashMap;
use std::sync::Arc;

use super::costs::Costs;
use super::{Backend, ModelLists, Served};
use crate::config::{Config, Models};
use crate::quota::Quotas;

/// What such a document serves: backends by name. Which of them gets a request is Envoy's business.
#[derive(Debug)]
pub struct Classic {
    /// The bodies of its models lists.
    pub models: ModelLists,
    /// How much its requests may use.
    pub quotas: Arc<Quotas>,
    backends: HashMap<String, Arc<Backend>>,
    costs: Costs,
    has_costs: bool,
}

impl Classic {
    pub(super) fn new(
        config: &Config,
        backends: HashMap<String, Arc<Backend>>,
        costs: Costs,
        quotas: &Arc<Quotas>,
    ) -> Self {
        let models = Models {
            all: config.models.clone(),
            by_host: config.models_by_host.clone(),
            unscoped: config.unscoped_models.clone(),
        };
        let has_costs = !(config.global_llm_request_costs.is_empty() && config.llm_request_costs.is_empty());
        Self { models: ModelLists::new(&models), quotas: Arc::clone(quotas), backends, costs, has_costs }
    }

    /// The other backends of the rule a backend belongs to, by their names: `…/route/<route>/rule/<i>/ref/<j>`.
    pub fn siblings<'a>(&'a self, backend: &'a str) -> impl Iterator<Item = &'a Backend> + Clone {
        let rule = rule_of(backend);
        let others = self
            .backends
            .iter()
            .filter(move |(name, _)| *name != backend && rule.is_some() && rule_of(name) == rule);
        others.map(|(_, backend)| &**backend)
    }

    /// Whether anything is computed from usage at all.
    pub fn has_costs(&self) -> bool {
        self.has_costs
    }

    /// The backend of that full name, on the account of that route.
    pub fn served(&self, backend: &str, route: &str) -> Option<Arc<Served>> {
        let backend = Arc::clone(self.backends.get(backend)?);
        Some(Arc::new(Served { backend, route: route.into(), costs: self.costs.of_route(route) }))
    }
}

/// The rule a backend's full name is of.
fn rule_of(backend: &str) -> Option<&str> {
    let (_, rest) = backend.split_once("/route/")?;
    rest.rsplit_once("/ref/").map(|(rule, _)| rule)
}
