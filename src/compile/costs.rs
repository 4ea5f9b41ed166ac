//! Which costs are computed of an exchange.

use crate::config::{CostType, LlmRequestCost, RouteCost};
use crate::cost::{Cost, CostKind};
use crate::diagnostics::Diagnostics;
use crate::resources::Located;
use crate::resources::aigateway::{AIGatewayRoute, LLMRequestCost};

use super::routes::AttachedRoute;

/// The costs of all routes.
pub(super) fn of_routes(routes: &[AttachedRoute<'_>], diagnostics: &mut Diagnostics) -> Vec<RouteCost> {
    routes.iter().flat_map(|route| of_route(route.resource, diagnostics)).collect()
}

/// The costs of one route.
pub(super) fn of_route(route: &Located<AIGatewayRoute>, diagnostics: &mut Diagnostics) -> Vec<RouteCost> {
    checked(route, "spec.llmRequestCosts", &route.spec.llm_request_costs, diagnostics)
        .into_iter()
        .map(|cost| RouteCost {
            route_name: format!("{}/{}", route.namespace(), route.name()),
            backend: None,
            model: None,
            cost,
        })
        .collect()
}

/// Those that can be computed; the last definition of a key counts.
pub(super) fn checked<T>(
    owner: &Located<T>,
    list: &str,
    written: &[LLMRequestCost],
    diagnostics: &mut Diagnostics,
) -> Vec<LlmRequestCost> {
    let mut costs = Vec::new();
    for (index, cost) in written.iter().enumerate() {
        let field = format!("{list}[{index}]");
        if written.iter().skip(index + 1).any(|later| later.metadata_key == cost.metadata_key) {
            let message = format!(
                "metadataKey `{}` is defined again below: this definition has no effect",
                cost.metadata_key
            );
            let help = "remove one of them";
            diagnostics.push(owner.warning(&format!("{field}.metadataKey"), message).help(help));
            continue;
        }
        let refused = cost.cel.as_deref().filter(|_| cost.kind == CostType::Cel).and_then(refusal);
        if let Some(reason) = refused {
            let message = format!("this cost cannot be computed: {reason}");
            let help = "token counts are unsigned: write numbers as 2u; variables are model, backend, route_name, input_tokens, output_tokens, total_tokens, cached_input_tokens, cache_creation_input_tokens and reasoning_tokens";
            diagnostics.push(owner.error(&format!("{field}.cel"), message).help(help));
            continue;
        }
        costs.push(LlmRequestCost {
            metadata_key: cost.metadata_key.clone(),
            kind: cost.kind,
            cel: cost.cel.clone(),
        });
    }
    costs
}

/// Why an expression would be refused by the processor.
fn refusal(expression: &str) -> Option<String> {
    Cost::new(CostKind::Cel(expression)).err().map(|error| error.to_string())
}
