//! What the models endpoints list.

use crate::config::{HeaderMatchType, Model, Models};

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
