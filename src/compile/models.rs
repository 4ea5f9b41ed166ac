//! What the models endpoints list, and which costs are computed.

use crate::config::{CostType, HeaderMatchType, LlmRequestCost, Model, Models, RouteCost};
use crate::cost::{Cost, CostKind};
use crate::diagnostics::Diagnostics;
use crate::resources::Located;
use crate::resources::aigateway::AIGatewayRoute;

use super::MODEL_HEADER;
use super::plan::Action;
use super::routes::AttachedRoute;

/// When neither the rule nor the route says: a fixed time, so that the same files give the same list.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

/// The models of one listener: those that a served rule matches exactly.
pub(super) fn list(listener: usize, routes: &[AttachedRoute<'_>]) -> Models {
    let mut models = Models::default();
    for route in routes.iter() {
        let Some(hostnames) = route.hostnames.get(&listener) else { continue };
        for model in of(route) {
            add(&mut models.all, &model);
            if route.resource.spec.hostnames.is_empty() {
                add(&mut models.unscoped, &model);
            } else {
                for hostname in hostnames {
                    add(models.by_host.entry(hostname.clone()).or_default(), &model);
                }
            }
        }
    }
    // A route without host names serves every host.
    for listed in models.by_host.values_mut() {
        for model in &models.unscoped {
            add(listed, model);
        }
    }
    if models.by_host.is_empty() {
        models.unscoped.clear();
    }
    models
}

fn of(route: &AttachedRoute<'_>) -> Vec<Model> {
    let rules = route.resource.spec.rules.iter().zip(&route.rules).zip(&route.matches);
    rules
        .filter(|((_, compiled), _)| matches!(compiled.action, Action::Forward(_)))
        .flat_map(|((rule, _), matches)| {
            let created =
                rule.models_created_at.as_deref().or(route.resource.metadata.creation_timestamp.as_deref());
            let headers = matches.iter().flat_map(|tried| &tried.headers);
            headers.filter(|header| header.name == MODEL_HEADER && header.kind == HeaderMatchType::Exact).map(
                move |header| Model {
                    name: header.value.clone(),
                    owned_by: rule.models_owned_by.clone(),
                    created_at: created.unwrap_or(UNKNOWN_TIME).to_owned(),
                },
            )
        })
        .collect()
}

fn add(list: &mut Vec<Model>, model: &Model) {
    if !list.iter().any(|known| known.name == model.name) {
        list.push(model.clone());
    }
}

/// The costs of all routes.
pub(super) fn costs(routes: &[AttachedRoute<'_>], diagnostics: &mut Diagnostics) -> Vec<RouteCost> {
    routes.iter().flat_map(|route| costs_of(route.resource, diagnostics)).collect()
}

/// The costs of one route; the last definition of a key counts.
pub(super) fn costs_of(route: &Located<AIGatewayRoute>, diagnostics: &mut Diagnostics) -> Vec<RouteCost> {
    let mut costs = Vec::new();
    let written = &route.spec.llm_request_costs;
    for (index, cost) in written.iter().enumerate() {
        let field = format!("spec.llmRequestCosts[{index}]");
        if written.iter().skip(index + 1).any(|later| later.metadata_key == cost.metadata_key) {
            let message = format!(
                "metadataKey `{}` is defined again below: this definition has no effect",
                cost.metadata_key
            );
            let help = "remove one of them";
            diagnostics.push(route.warning(&format!("{field}.metadataKey"), message).help(help));
            continue;
        }
        let refused = cost.cel.as_deref().filter(|_| cost.kind == CostType::Cel).and_then(refusal);
        if let Some(reason) = refused {
            let message = format!("this cost cannot be computed: {reason}");
            let help = "token counts are unsigned: write numbers as 2u; variables are model, backend, route_name, input_tokens, output_tokens, total_tokens, cached_input_tokens, cache_creation_input_tokens and reasoning_tokens";
            diagnostics.push(route.error(&format!("{field}.cel"), message).help(help));
            continue;
        }
        costs.push(RouteCost {
            route_name: format!("{}/{}", route.namespace(), route.name()),
            backend: None,
            model: None,
            cost: LlmRequestCost {
                metadata_key: cost.metadata_key.clone(),
                kind: cost.kind,
                cel: cost.cel.clone(),
            },
        });
    }
    costs
}

/// Why an expression would be refused by the processor.
fn refusal(expression: &str) -> Option<String> {
    Cost::new(CostKind::Cel(expression)).err().map(|error| error.to_string())
}
