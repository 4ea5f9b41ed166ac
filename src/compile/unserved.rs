//! What is written but leads to nothing served: it is looked at all the same, so that everything that is wrong with the
//! files is said at once.

use std::collections::BTreeSet;

use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::resources::Snapshot;

use super::routes::{self, AttachedRoute};
use super::services::Services;
use super::{costs, gateway_config, rules};

/// Adds what serving did not come across.
pub(super) fn check(
    snapshot: &Snapshot,
    served: &[AttachedRoute<'_>],
    services: &Services<'_>,
    diagnostics: &mut Diagnostics,
) {
    let mut aside = services.aside();
    let served: BTreeSet<usize> = served.iter().map(|route| route.resource.order).collect();
    for route in snapshot.ai_gateway_routes.iter().filter(|route| !served.contains(&route.order)) {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let _ = routes::matches(route, index, &rule.matches, diagnostics);
            let _ = rules::compile(snapshot, route, index, rule, &mut aside, diagnostics);
        }
        let _ = costs::of_route(route, diagnostics);
    }
    for backend in &snapshot.ai_service_backends {
        let _ = aside.resolve(backend, diagnostics);
    }
    for backend in &snapshot.backends {
        let _ = aside.cluster(backend, diagnostics);
    }
    gateway_config::check(snapshot, diagnostics);
    diagnostics.extend(dangling(snapshot));
}

/// Policies that name what is not there.
fn dangling(snapshot: &Snapshot) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for policy in &snapshot.backend_security_policies {
        for (index, target) in policy.spec.target_refs.iter().enumerate() {
            if target.kind == "AIServiceBackend"
                && snapshot.ai_service_backends.get(policy.namespace(), &target.name).is_none()
            {
                let message = format!(
                    "there is no AIServiceBackend {}/{}, so that its credential is sent nowhere",
                    policy.namespace(),
                    target.name
                );
                let help = suggest(&target.name, snapshot.ai_service_backends.names_in(policy.namespace()));
                found.push(policy.warning(&format!("spec.targetRefs[{index}].name"), message).help(help));
            }
        }
    }
    for policy in &snapshot.backend_tls_policies {
        for (index, target) in policy.spec.target_refs.iter().enumerate() {
            if target.kind == "Backend" && snapshot.backends.get(policy.namespace(), &target.name).is_none() {
                let message = format!(
                    "there is no Backend {}/{}, so that this policy secures nothing",
                    policy.namespace(),
                    target.name
                );
                let help = suggest(&target.name, snapshot.backends.names_in(policy.namespace()));
                found.push(policy.warning(&format!("spec.targetRefs[{index}].name"), message).help(help));
            }
        }
    }
    found
}
