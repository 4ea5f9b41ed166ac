//! What the models endpoints list.

use std::collections::{BTreeMap, HashSet};

use crate::config::{HeaderMatchType, Model, Models};

use super::MODEL_HEADER;
use super::routes::AttachedRoute;

/// When neither the rule nor the route says: a fixed time, so that the same files give the same list.
const UNKNOWN_TIME: &str = "1970-01-01T00:00:00Z";

/// The models of some listeners: those that a served rule matches exactly. `shown`: whether a rule, by its route and its index there,
/// may be known to whoever asks for the list.
pub(super) fn list(
    listeners: &[usize],
    routes: &[AttachedRoute<'_>],
    shown: impl Fn(&str, usize) -> bool,
) -> Models {
    let mut all = Listed::default();
    let mut unscoped = Listed::default();
    let mut by_host: BTreeMap<String, Listed> = BTreeMap::new();
    for route in routes {
        let hostnames = route.hostnames_on(listeners);
        if hostnames.is_empty() {
            continue;
        }
        for model in of(route, &shown) {
            all.add(&model);
            if route.resource.spec.hostnames.is_empty() {
                unscoped.add(&model);
            } else {
                for hostname in &hostnames {
                    by_host.entry((*hostname).to_owned()).or_default().add(&model);
                }
            }
        }
    }
    // A route without host names serves every host.
    for listed in by_host.values_mut() {
        unscoped.models.iter().for_each(|model| listed.add(model));
    }
    Models {
        all: all.models,
        unscoped: if by_host.is_empty() { Vec::new() } else { unscoped.models },
        by_host: by_host.into_iter().map(|(host, listed)| (host, listed.models)).collect(),
    }
}

/// Models in the order they were added, each name once.
#[derive(Default)]
struct Listed {
    models: Vec<Model>,
    names: HashSet<String>,
}

impl Listed {
    fn add(&mut self, model: &Model) {
        if self.names.insert(model.name.clone()) {
            self.models.push(model.clone());
        }
    }
}

fn of(route: &AttachedRoute<'_>, shown: &impl Fn(&str, usize) -> bool) -> Vec<Model> {
    let rules = route.resource.spec.rules.iter().zip(&route.rules).zip(&route.matches);
    rules
        .enumerate()
        .filter(|(index, ((_, compiled), _))| compiled.is_served() && shown(&route.name, *index))
        .flat_map(|(_, ((rule, _), matches))| {
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
