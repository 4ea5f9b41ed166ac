//! What the processors of one Gateway serve by, and the rules that Envoy needs for it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Value, json};

use crate::compile::digest::Digest;
use crate::compile::grants::{From, To, allowed, missing};
use crate::compile::overlap::Overlaps;
use crate::compile::routes::{self, AttachedRoute, Places};
use crate::compile::rules::CompiledRule;
use crate::compile::security::Security;
use crate::compile::{costs, gateway_config, models, quota};
use crate::config::{self, Config, QuotaTargetKind};
use crate::diagnostics::Diagnostics;
use crate::resources::{Located, Snapshot};

use super::KubernetesOptions;
use super::objects::{self, Filters};
use super::placement::Wanted;
use super::sites::Site;

/// The largest weight of Gateway API.
const MOST_WEIGHT: u32 = 1_000_000;
/// The longest limit that Gateway API can write: five digits of a unit.
const MOST_SECONDS: u64 = 99_999;

/// A rule that is not served, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) rule: usize,
    /// Whether something it refers to is not there or not allowed.
    pub(super) reference: bool,
    pub(super) message: String,
}

/// What is served on a Gateway.
pub(super) struct Served {
    pub(super) config: Config,
    /// By route, the rules of its HTTPRoutes and those that are refused.
    pub(super) routes: Vec<(Vec<Wanted>, Vec<Refusal>)>,
}

/// What is the same for all Gateways.
pub(super) struct Common<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) options: &'a KubernetesOptions,
    pub(super) security: &'a Security<'a>,
    pub(super) quotas: &'a [config::Quota],
    pub(super) digest: &'a Digest,
}

/// Compiles one Gateway. `refusals` are those that policies ask for.
pub(super) fn serve(
    common: &Common<'_>,
    site: &Site<'_>,
    attached: &[AttachedRoute<'_>],
    refusals: &BTreeMap<(usize, usize), String>,
    diagnostics: &mut Diagnostics,
) -> Served {
    let (mut rules, mut places, mut backends) = (Vec::new(), Places::new(), Vec::new());
    let (mut written, mut shown): (Vec<_>, HashSet<(&str, usize)>) = (Vec::new(), HashSet::new());
    for (route_index, route) in attached.iter().enumerate() {
        let filters = Filters::of(route.resource.name());
        let (mut wanted, mut refused) = (Vec::new(), Vec::new());
        for (index, compiled) in route.rules.iter().enumerate() {
            let policy = refusals.get(&(route_index, index));
            let refusal = common.refusal(site, route, index, compiled, policy);
            let key = common.key(site, route, index, compiled, refusal.is_some());
            let is_refused = refusal.is_some();
            let name = route.resource.spec.rules.get(index).and_then(|rule| rule.name.as_deref());
            wanted.push(Wanted {
                body: objects::rule(
                    &common.options.root_prefix,
                    &key,
                    name,
                    body(compiled, is_refused, &filters),
                ),
                key: key.clone(),
            });
            refused.extend(refusal);
            if !is_refused && compiled.is_served() {
                shown.insert((&route.name, index));
            }
            // A rule that is not served has no credential: Envoy answers its requests.
            backends.push(if is_refused { compiled.placeholder() } else { compiled.config() });
            places.insert((route_index, index), rules.len());
            rules.push(config::Rule {
                route: route.name.clone(),
                backend: compiled.name.clone(),
                attempts: Vec::new(),
                routing_key: key,
                proofs: Vec::new(),
                tenancy: common.security.tenancy_of_rule(route.resource, name),
            });
        }
        written.push((wanted, refused));
    }
    let listeners: Vec<usize> = (0..site.targets.len()).collect();
    let mut overlaps = Overlaps::default();
    let hosts = routes::hosts(&listeners, attached, &places, &mut overlaps);
    overlaps.report(attached, diagnostics);
    let models = models::list(&listeners, attached, |route, rule| shown.contains(&(route, rule)));
    let (tenancy, gateway_key) = common.tenants(site, diagnostics);
    let mut config = Config {
        llm_request_costs: costs::of_routes(attached, &mut Diagnostics::new()),
        backends,
        ..Config::default()
    };
    gateway_config::add_costs(&site.targets, attached, &mut config, diagnostics);
    config.quotas = concerned(common.quotas, &site.id, &rules);
    let published = quota::published(&config.quotas, attached, &config.llm_request_costs);
    config.llm_request_costs.extend(published);
    config.gateways = vec![config::Gateway {
        authority: site.authority.clone(),
        name: site.id.clone(),
        hosts,
        rules,
        models,
        proofs: Vec::new(),
        tenancy,
        gateway_key,
    }];
    Served { config, routes: written }
}

impl Common<'_> {
    /// Why a rule is not served on a Gateway.
    fn refusal(
        &self,
        site: &Site<'_>,
        route: &AttachedRoute<'_>,
        rule: usize,
        compiled: &CompiledRule,
        policy: Option<&String>,
    ) -> Option<Refusal> {
        let other = |message: String| Some(Refusal { rule, reference: false, message });
        if let Some(reason) = &site.refused {
            return other(format!("nothing is served on {}: {reason}", site.id));
        }
        if compiled.is_refused() {
            return Some(Refusal {
                rule,
                reference: true,
                message: "one of its backends cannot be used".to_owned(),
            });
        }
        let from = From {
            group: "gateway.networking.k8s.io",
            kind: "HTTPRoute",
            namespace: route.resource.namespace(),
        };
        for (reference, _) in compiled.references() {
            let to = To {
                group: &reference.group,
                kind: &reference.kind,
                namespace: reference.namespace.as_deref().unwrap_or_default(),
                name: &reference.name,
            };
            if !allowed(self.snapshot, from, to) {
                let message = format!(
                    "{} {}/{} does not allow the generated HTTPRoute to refer to it: {}",
                    to.kind,
                    to.namespace,
                    to.name,
                    missing(from, to)
                );
                return Some(Refusal { rule, reference: true, message });
            }
        }
        if let Some(message) = policy {
            return other(message.clone());
        }
        let names: Vec<&str> = compiled.backends.iter().map(|backend| backend.name.as_str()).collect();
        if compiled.is_per_attempt() || quota::tells_apart(self.quotas, &site.id, &route.name, &names) {
            return other(
                "its backends differ in dialect, credential, edits, priority or limits, so that each attempt would have to be signed for the one it goes to: that is not served on Kubernetes yet".to_owned(),
            );
        }
        None
    }

    /// The routing key: another one for everything that is sent elsewhere or otherwise.
    fn key(
        &self,
        site: &Site<'_>,
        route: &AttachedRoute<'_>,
        index: usize,
        compiled: &CompiledRule,
        refused: bool,
    ) -> String {
        let reached = compiled.reached();
        let key =
            compiled.routing_key(self.digest, &site.authority, &route.name, index, &reached, (None, false));
        // A rule that is refused has no credential at the processors. When it is served again, no request without one may get
        // through, so that it is another rule. What its backends refer to is not among what they are reached by.
        let references: Vec<Value> = compiled
            .references()
            .map(|(reference, weight)| objects::backend_ref(reference, weight))
            .collect();
        self.digest.routing_key(&(key, refused, references), std::iter::empty())
    }

    /// Who the clients of a Gateway are. What only its listeners say differently cannot be told apart.
    fn tenants(
        &self,
        site: &Site<'_>,
        diagnostics: &mut Diagnostics,
    ) -> (Option<config::Tenancy>, Option<config::KeyDemand>) {
        let mut all = site
            .targets
            .iter()
            .map(|target| self.security.tenants_of_listener(site.gateway, target.listener));
        let Some(first) = all.next() else { return (None, None) };
        if all.any(|other| other != first) {
            let message = "the TenantPolicies of its listeners differ, and processors do not know the listener: that of the first listener counts for all";
            diagnostics.push(
                site.gateway.error("spec.listeners", message).help("target the Gateway, and not a listener"),
            );
        }
        first
    }
}

/// What a rule does besides matching.
fn body(compiled: &CompiledRule, refused: bool, filters: &Filters) -> Value {
    if refused {
        return json!({ "filters": filters.not_found() });
    }
    if !compiled.is_served() {
        // Without backends: 500, as Gateway API demands.
        return json!({});
    }
    let heaviest = compiled.references().map(|(_, weight)| weight).max().unwrap_or(1);
    let divisor = heaviest.div_ceil(MOST_WEIGHT).max(1);
    let backends: Vec<Value> = compiled
        .references()
        .map(|(reference, weight)| objects::backend_ref(reference, (weight / divisor).max(1)))
        .collect();
    let (request, attempt) = compiled.timeouts();
    let mut timeouts = json!({ "request": duration(request) });
    // An attempt may take no longer than the whole.
    if let Some(attempt) = attempt.filter(|attempt| *attempt > 0 && (request == 0 || *attempt <= request)) {
        timeouts["backendRequest"] = json!(duration(attempt));
    }
    json!({ "filters": filters.forwarding(), "backendRefs": backends, "timeouts": timeouts })
}

/// A duration as Gateway API writes it.
fn duration(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    match (seconds.min(MOST_SECONDS), rest) {
        (seconds, 0) => format!("{seconds}s"),
        (0, rest) => format!("{rest}ms"),
        (seconds, rest) => format!("{seconds}s{rest}ms"),
    }
}

/// Only the limits that requests of this Gateway can come under.
fn concerned(quotas: &[config::Quota], gateway: &str, rules: &[config::Rule]) -> Vec<config::Quota> {
    let routes: BTreeSet<&str> = rules.iter().map(|rule| rule.route.as_str()).collect();
    let backends: BTreeSet<&str> = rules.iter().map(|rule| rule.backend.as_str()).collect();
    let is_meant = |target: &config::QuotaTarget| match target.kind {
        QuotaTargetKind::Gateway => target.name == gateway,
        QuotaTargetKind::Route => routes.contains(target.name.as_str()),
        QuotaTargetKind::Backend => backends.iter().any(|backend| {
            *backend == target.name
                || backend.strip_prefix(target.name.as_str()).is_some_and(|rest| rest.starts_with('/'))
        }),
    };
    let narrowed = |quota: &config::Quota| {
        let mut quota = quota.clone();
        quota.limits.retain(|limit| limit.targets.is_empty() || limit.targets.iter().any(is_meant));
        (!quota.limits.is_empty()).then_some(quota)
    };
    quotas.iter().filter_map(narrowed).collect()
}

/// The same host name on several listeners with different routes: processors know the Gateway and not the listener.
pub(super) fn ambiguous(site: &Site<'_>, attached: &[AttachedRoute<'_>], diagnostics: &mut Diagnostics) {
    let mut by_host: BTreeMap<&str, BTreeMap<usize, BTreeSet<&str>>> = BTreeMap::new();
    for route in attached {
        for (listener, hostnames) in &route.hostnames {
            for hostname in hostnames {
                let listeners = by_host.entry(hostname).or_default();
                listeners.entry(*listener).or_default().insert(&route.name);
            }
        }
    }
    for (hostname, listeners) in by_host {
        let mut sets = listeners.values();
        let Some(first) = sets.next() else { continue };
        if sets.all(|other| other == first) {
            continue;
        }
        let name = |listener: &usize| site.targets.get(*listener).map(|target| target.listener.name.as_str());
        let names: Vec<&str> = listeners.keys().filter_map(name).collect();
        let message = format!(
            "listeners {} of this Gateway serve the host name `{hostname}` with different routes, and processors do not know the listener: a request that another listener's route takes is answered with 503",
            names.join(", ")
        );
        let help = "give the listeners host names of their own, or attach the routes to all of them (no sectionName)";
        diagnostics.push(site.gateway.warning("spec.listeners", message.clone()).help(help));
        let all: BTreeSet<&str> = listeners.values().flatten().copied().collect();
        for route in attached.iter().filter(|route| all.contains(route.name.as_str())) {
            let message = format!("on {}: {message}", site.id);
            diagnostics.push(warn(route.resource, message).help(help));
        }
    }
}

/// What rules ask for and Envoy Gateway cannot be told.
pub(super) fn unheeded(attached: &[AttachedRoute<'_>], diagnostics: &mut Diagnostics) {
    for route in attached.iter().map(|route| route.resource) {
        for (index, _) in
            route.spec.rules.iter().enumerate().filter(|(_, it)| it.stream_idle_timeout.is_some())
        {
            let message = "Envoy Gateway has no such limit for a rule: it is not served on Kubernetes yet";
            let help = "limit the whole answer by `timeouts.request`";
            diagnostics
                .push(route.warning(&format!("spec.rules[{index}].streamIdleTimeout"), message).help(help));
        }
    }
}

fn warn<T>(resource: &Located<T>, message: String) -> crate::diagnostics::Diagnostic {
    resource.warning("spec.parentRefs", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gateway_apis() {
        for (milliseconds, text) in
            [(0, "0s"), (60_000, "60s"), (1500, "1s500ms"), (20, "20ms"), (u64::MAX, "99999s615ms")]
        {
            assert_eq!(duration(milliseconds), text);
        }
    }
}
