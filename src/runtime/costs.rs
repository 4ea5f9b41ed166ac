//! The costs of every route, each compiled once.

use std::collections::HashMap;
use std::sync::Arc;

use super::Problem;
use crate::config::{Config, CostType, LlmRequestCost};
use crate::cost::{Cost, CostKind, CostSet, RouteCost};

/// The sets of costs of a document.
#[derive(Debug)]
pub(super) struct Costs {
    by_route: HashMap<String, Arc<CostSet>>,
    /// For routes that have none of their own.
    global: Arc<CostSet>,
}

impl Costs {
    /// Compiles all costs. One that cannot be compiled is reported and left out.
    pub(super) fn new(config: &Config, problems: &mut Vec<Problem>) -> Self {
        let mut compile = |cost: &LlmRequestCost, at: String| {
            compile(cost).map_err(|message| problems.push(Problem { at, message })).ok()
        };
        let mut global = Vec::new();
        for (index, cost) in config.global_llm_request_costs.iter().enumerate() {
            if let Some(compiled) = compile(cost, format!("globalLLMRequestCosts[{index}]")) {
                global.push((cost.metadata_key.clone(), compiled));
            }
        }
        let mut routes: HashMap<String, CostSet> = HashMap::new();
        for (index, route) in config.llm_request_costs.iter().enumerate() {
            let Some(cost) = compile(&route.cost, format!("llmRequestCosts[{index}]")) else { continue };
            let set = routes.entry(route.route_name.clone());
            let set = set.or_insert_with(|| CostSet { route: Vec::new(), global: global.clone() });
            set.route.push(RouteCost {
                metadata_key: route.cost.metadata_key.clone(),
                backend: route.backend.clone(),
                model: route.model.clone(),
                cost,
            });
        }
        let by_route = routes.into_iter().map(|(route, set)| (route, Arc::new(set))).collect();
        Self { by_route, global: Arc::new(CostSet { route: Vec::new(), global }) }
    }

    /// The costs of that route, `namespace/name`.
    pub(super) fn of_route(&self, route: &str) -> Arc<CostSet> {
        Arc::clone(self.by_route.get(route).unwrap_or(&self.global))
    }
}

fn compile(cost: &LlmRequestCost) -> Result<Cost, String> {
    let kind = match cost.kind {
        CostType::OutputToken => CostKind::Output,
        CostType::InputToken => CostKind::Input,
        CostType::CachedInputToken => CostKind::CachedInput,
        CostType::CacheCreationInputToken => CostKind::CacheCreationInput,
        CostType::TotalToken => CostKind::Total,
        CostType::ReasoningToken => CostKind::Reasoning,
        CostType::Cel => CostKind::Cel(cost.cel.as_deref().ok_or("type CEL needs the expression in `cel`")?),
    };
    Cost::new(kind).map_err(|error| error.to_string())
}
