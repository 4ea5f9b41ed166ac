//! What of the users' own stands in the way of what is generated.

use crate::diagnostics::Diagnostics;
use crate::resources::neighbours::{EnvoyExtensionPolicy, HTTPRoute, HTTPRouteMatch};
use crate::resources::{Located, Snapshot};

use super::sites::Site;
use super::targets::{Object, targets};
use super::{MANAGED_BY, MANAGED_BY_LABEL, objects};
use crate::compile::hostnames;
use crate::compile::routes::AttachedRoute;

/// Whether an object is one of those that are generated.
pub(super) fn is_ours<T>(object: &Located<T>) -> bool {
    object.metadata.labels.get(MANAGED_BY_LABEL).is_some_and(|value| value == MANAGED_BY)
}

/// Whether an HTTPRoute of a user has the name that is wanted for a generated one.
pub(super) fn occupies(route: &Located<HTTPRoute>) -> bool {
    // What upstream has generated is taken over.
    !is_ours(route) && !route.metadata.annotations.contains_key("gateway.envoyproxy.io/ai-gateway-generated")
}

/// A policy of a user's that takes the place of ours on a generated HTTPRoute; in its presence requests may go to providers'
/// routes without the processor, where they match nothing.
pub(super) fn displacing(
    snapshot: &Snapshot,
    site: &Site<'_>,
    route: &AttachedRoute<'_>,
    http_routes: &[String],
) -> Option<String> {
    let labels = objects::route_labels(&route.resource.metadata, &site.service);
    let names = || http_routes.iter().map(String::as_str);
    let policies = snapshot.envoy_extension_policies.iter().filter(|policy| !is_ours(policy));
    let hits = |name: &str, policy: &Located<EnvoyExtensionPolicy>| {
        let object =
            Object { kind: "HTTPRoute", namespace: route.resource.namespace(), name, labels: &labels };
        !targets!(policy).sections(object).is_empty()
    };
    let policy = { policies }.find(|policy| names().any(|name| hits(name, policy)))?;
    Some(format!(
        "{} is for the generated HTTPRoutes on {} and takes the place of the policy that sends requests through the processors: nothing is served there by this route; remove it, or target routes of your own",
        policy.id(),
        site.id
    ))
}

/// HTTPRoutes of users that take requests which are meant for ours.
pub(super) fn stealing(
    snapshot: &Snapshot,
    site: &Site<'_>,
    attached: &[AttachedRoute<'_>],
    root_prefix: &str,
    diagnostics: &mut Diagnostics,
) {
    for route in snapshot.http_routes.iter().filter(|route| occupies(route)) {
        let here = route.spec.parent_refs.iter().any(|parent| {
            parent.kind == "Gateway"
                && parent.name == site.gateway.name()
                && parent.namespace.as_deref().unwrap_or_else(|| route.namespace())
                    == site.gateway.namespace()
        });
        if !here {
            continue;
        }
        let everything = [HTTPRouteMatch::default()];
        let taken = route.spec.rules.iter().enumerate().find(|(_, rule)| {
            let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
            matches.iter().any(|tried| comes_first(tried, root_prefix))
        });
        let Some((rule, _)) = taken else { continue };
        for ours in attached {
            let shared = |name: &String| !hostnames::intersect(Some(name), &route.spec.hostnames).is_empty();
            if !ours.hostnames.values().flatten().any(shared) {
                continue;
            }
            let message = format!(
                "rule {rule} of {} on {} is more specific than the generated HTTPRoute and takes its requests past the processors",
                route.id(),
                site.id
            );
            let help = "let it match none of the paths under which models are served, or give it host names of its own";
            diagnostics.push(ours.resource.warning("spec.parentRefs", message).help(help));
        }
    }
}

/// Whether Envoy Gateway tries a match before the catch-all of ours, for paths that models are served under.
fn comes_first(tried: &HTTPRouteMatch, root_prefix: &str) -> bool {
    let root = root_prefix.trim_end_matches('/');
    let (kind, value) =
        tried.path.as_ref().map_or(("PathPrefix", "/"), |path| (path.kind.as_str(), path.value.as_str()));
    let served = ["/v1", "/anthropic", "/cohere"].map(|path| format!("{root}{path}"));
    let value = value.trim_end_matches('/');
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match kind {
        // An expression is tried before prefixes; what it matches is not looked at.
        "RegularExpression" => true,
        "Exact" => served.iter().any(|path| within(path, value)),
        _ => {
            let deeper = value.len() > root.len();
            let same = value == root && !tried.headers.is_empty();
            (deeper && served.iter().any(|path| within(path, value) || within(value, path))) || same
        }
    }
}
