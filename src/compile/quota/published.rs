//! What requests cost by QuotaPolicies, as it is published.

use super::apart::service;
use crate::compile::routes::AttachedRoute;
use crate::config::{self, CostType, LlmRequestCost, RouteCost};

/// The key in dynamic metadata, as upstream's.
const KEY: &str = "quota_cost";

/// The costs by which quotas of models are charged, for access logs and filters that read them: of each route, backend and model.
/// A route that defines the key itself keeps its own.
pub(crate) fn published(
    quotas: &[config::Quota],
    routes: &[AttachedRoute<'_>],
    own: &[RouteCost],
) -> Vec<RouteCost> {
    let mut costs: Vec<RouteCost> = Vec::new();
    let limits = quotas.iter().flat_map(|quota| &quota.limits);
    for (limit, model) in limits.filter_map(|limit| Some((limit, limit.only_sent_model.as_ref()?))) {
        for route in routes {
            if own.iter().any(|cost| cost.route_name == route.name && cost.cost.metadata_key == KEY) {
                continue;
            }
            for backend in route.rules.iter().flat_map(|rule| &rule.backends) {
                let service = service(&backend.name);
                let is_meant =
                    limit.targets.iter().any(|target| [service, &backend.name].contains(&&*target.name));
                let cost = RouteCost {
                    route_name: route.name.clone(),
                    backend: Some(service.to_owned()),
                    model: Some(model.clone()),
                    cost: LlmRequestCost {
                        metadata_key: KEY.to_owned(),
                        kind: if limit.cel.is_some() { CostType::Cel } else { CostType::TotalToken },
                        cel: limit.cel.clone(),
                    },
                };
                if is_meant && !costs.contains(&cost) {
                    costs.push(cost);
                }
            }
        }
    }
    costs
}
