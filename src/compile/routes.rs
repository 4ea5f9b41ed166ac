//! AIGatewayRoutes: where each attaches, and the order in which their matches are tried.
//!
//! The order is Gateway API's, as Envoy Gateway sorts: more header matches, then more exact ones, then the older route,
//! then `namespace/name`, then the order in the route. All routes here have the same path match.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;

use crate::config::{self, HeaderMatchType, Host, ProofKind, RuleMatch};
use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::aigateway::{AIGatewayRoute, AIGatewayRouteRuleMatch};
use crate::resources::types::ParentReference;
use crate::resources::{Located, Snapshot};
use crate::routing::Condition;

use super::backend_traffic::BackendPolicies;
use super::digest::Digest;
use super::hostnames;
use super::listeners::Target;
use super::overlap::Overlaps;
use super::plan::{Action, Asked, AuthPlan, Clients, Cluster, Guard, ListenerPlan, RulePlan};
use super::rules::{self, CompiledRule};
use super::security::{Security, proof_header};
use super::services::Services;
use super::{MODEL_HEADER, models};

/// A route that attaches to at least one listener.
#[derive(Debug)]
pub(super) struct AttachedRoute<'a> {
    pub(super) resource: &'a Located<AIGatewayRoute>,
    /// `namespace/name`.
    pub(super) name: String,
    pub(super) rules: Vec<CompiledRule>,
    /// By rule, the matches as the processor and Envoy take them; none means that the rule cannot be tried.
    pub(super) matches: Vec<Vec<Match>>,
    /// Host names by the index of the listener.
    pub(super) hostnames: BTreeMap<usize, Vec<String>>,
}

/// A match of a rule, as the processor and Envoy take it.
#[derive(Debug)]
pub(super) struct Match {
    /// Its index among the rule's matches; none where the rule has none, and with that matches everything.
    pub(super) index: Option<usize>,
    pub(super) headers: Vec<config::HeaderMatch>,
}

/// Finds where every route attaches and compiles those that attach anywhere, the oldest first.
pub(super) fn attach<'a>(
    snapshot: &'a Snapshot,
    targets: &[Target<'a>],
    services: &mut Services<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<AttachedRoute<'a>> {
    let mut attached = Vec::new();
    for resource in &snapshot.ai_gateway_routes {
        let hostnames = attachments(resource, snapshot, targets, diagnostics);
        if hostnames.is_empty() {
            continue;
        }
        let rules = resource.spec.rules.iter().enumerate();
        attached.push(AttachedRoute {
            name: format!("{}/{}", resource.namespace(), resource.name()),
            matches: rules
                .clone()
                .map(|(index, rule)| matches(resource, index, &rule.matches, diagnostics))
                .collect(),
            rules: rules
                .map(|(index, rule)| rules::compile(snapshot, resource, index, rule, services, diagnostics))
                .collect(),
            hostnames,
            resource,
        });
    }
    attached.sort_by(|a, b| a.age().cmp(&b.age()));
    attached
}

impl AttachedRoute<'_> {
    /// Sorts the older first; a route without a time of creation counts as the oldest.
    pub(super) fn age(&self) -> (Option<&str>, &str) {
        (self.resource.metadata.creation_timestamp.as_deref(), &self.name)
    }

    /// The host names it serves on any of some listeners.
    pub(super) fn hostnames_on(&self, listeners: &[usize]) -> BTreeSet<&str> {
        let names = listeners.iter().filter_map(|listener| self.hostnames.get(listener));
        names.flatten().map(String::as_str).collect()
    }
}

/// Host names by listener; says why where there are none.
fn attachments(
    route: &Located<AIGatewayRoute>,
    snapshot: &Snapshot,
    targets: &[Target<'_>],
    diagnostics: &mut Diagnostics,
) -> BTreeMap<usize, Vec<String>> {
    let mut found: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    if route.spec.parent_refs.is_empty() {
        let help = "add the Gateway under spec.parentRefs";
        diagnostics.push(
            route.warning("spec", "this route attaches to no Gateway, so that it is not served").help(help),
        );
    }
    for (index, parent) in route.spec.parent_refs.iter().enumerate() {
        let namespace = parent.namespace.as_deref().unwrap_or_else(|| route.namespace());
        let mut refusals = Vec::new();
        let (mut matched, mut attached) = (false, false);
        for (position, target) in
            targets.iter().enumerate().filter(|(_, target)| names(parent, namespace, target))
        {
            matched = true;
            if let Err(reason) = target.admits(route.namespace()) {
                refusals.push(reason);
                continue;
            }
            let hostnames = hostnames::intersect(target.hostname(), &route.spec.hostnames);
            if hostnames.is_empty() {
                refusals.push(format!(
                    "listener `{}` serves `{}`, and none of the route's hostnames is within that",
                    target.listener.name,
                    target.hostname().unwrap_or("*")
                ));
            } else {
                attached = true;
                found.insert(position, hostnames);
            }
        }
        if !matched {
            diagnostics.push(dangling(route, index, parent, namespace, snapshot, targets));
        } else if !attached {
            let message =
                format!("the route does not attach to {namespace}/{}: {}", parent.name, refusals.join("; "));
            diagnostics.push(route.warning(&format!("spec.parentRefs[{index}]"), message));
        }
    }
    found
}

fn names(parent: &ParentReference, namespace: &str, target: &Target<'_>) -> bool {
    target.gateway.namespace() == namespace
        && target.gateway.name() == parent.name
        && parent.section_name.as_ref().is_none_or(|section| *section == target.listener.name)
        && parent.port.is_none_or(|port| port == target.listener.port)
}

fn dangling(
    route: &Located<AIGatewayRoute>,
    index: usize,
    parent: &ParentReference,
    namespace: &str,
    snapshot: &Snapshot,
    targets: &[Target<'_>],
) -> crate::diagnostics::Diagnostic {
    let field = format!("spec.parentRefs[{index}]");
    if snapshot.gateways.get(namespace, &parent.name).is_none() {
        let message =
            format!("there is no Gateway {namespace}/{}, so that the route is not served there", parent.name);
        let help = suggest(&parent.name, snapshot.gateways.names_in(namespace));
        let field = format!("{field}.name");
        // Files without any Gateway are a part of something; a name besides those that are there is a slip.
        let finding = if snapshot.gateways.is_empty() {
            route.warning(&field, message)
        } else {
            route.error(&field, message)
        };
        return finding.help(help);
    }
    let listeners: Vec<String> = targets
        .iter()
        .filter(|target| target.gateway.namespace() == namespace && target.gateway.name() == parent.name)
        .map(|target| format!("{} (port {})", target.listener.name, target.listener.port))
        .collect();
    let message = format!("no listener of Gateway {namespace}/{} fits sectionName and port", parent.name);
    let help = match listeners.as_slice() {
        [] => "the Gateway has no listener that is served".to_owned(),
        names => format!("its listeners are {}", names.join(", ")),
    };
    route.warning(&field, message).help(help)
}

/// The matches of a rule. A rule without any matches everything.
pub(super) fn matches(
    route: &Located<AIGatewayRoute>,
    rule: usize,
    written: &[AIGatewayRouteRuleMatch],
    diagnostics: &mut Diagnostics,
) -> Vec<Match> {
    if written.is_empty() {
        return vec![Match { index: None, headers: Vec::new() }];
    }
    let one = |(index, written): (usize, &AIGatewayRouteRuleMatch)| {
        let mut headers: Vec<config::HeaderMatch> = Vec::new();
        for (position, header) in written.headers.iter().enumerate() {
            let field = || format!("spec.rules[{rule}].matches[{index}].headers[{position}]");
            let name = header.name.to_ascii_lowercase();
            if headers.iter().any(|known| known.name == name) {
                let message = format!(
                    "header `{name}` is matched twice: only the first one counts, as Gateway API says"
                );
                diagnostics.push(route.warning(&format!("{}.name", field()), message));
                continue;
            }
            if header.kind == HeaderMatchType::RegularExpression
                && let Err(reason) = check_expression(&name, &header.value)
            {
                let message = format!("this is not a regular expression that Envoy takes: {reason}");
                let help =
                    "the syntax is RE2's, over the whole value; this match is left out until it is mended";
                diagnostics.push(route.error(&format!("{}.value", field()), message).help(help));
                return None;
            }
            if let Some((message, help)) = never_seen(&name) {
                diagnostics.push(route.error(&format!("{}.name", field()), message).help(help));
            }
            headers.push(config::HeaderMatch { name, kind: header.kind, value: header.value.clone() });
        }
        Some(Match { index: Some(index), headers })
    };
    written.iter().enumerate().filter_map(one).collect()
}

/// Why a match on a header can never hold, and what to do, if it cannot.
fn never_seen(name: &str) -> Option<(String, &'static str)> {
    if name.starts_with("x-ai-eg-") && name != MODEL_HEADER {
        let message = format!(
            "this match never holds: `{name}` is a name of the gateway's own, not believed from clients"
        );
        return Some((message, "of these, only x-ai-eg-model can be matched"));
    }
    None
}

/// Whether the processor takes an expression; it takes none that Envoy would not.
fn check_expression(name: &str, expression: &str) -> Result<(), String> {
    let Err(error) = Condition::regex(name, expression) else { return Ok(()) };
    // Parsers draw the place over several lines; the last one is the reason.
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    Err(last.trim().trim_start_matches("error: ").to_owned())
}

/// One match with what decides its place.
pub(super) struct Entry<'a> {
    pub(super) headers: &'a [config::HeaderMatch],
    pub(super) exact: usize,
    age: (Option<&'a str>, &'a str),
    /// Where it is written: index of the route, of its rule, of the rule's match that can be tried.
    pub(super) place: (usize, usize, usize),
    /// Index among the listener's rules.
    rule: usize,
}

impl Entry<'_> {
    fn precedence(&self) -> impl Ord {
        (Reverse(self.headers.len()), Reverse(self.exact), self.age, self.place)
    }
}

/// The clusters that rules lead to, each once, in the order in which they are first led to.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    names: BTreeSet<String>,
    plans: Vec<Cluster>,
}

impl Clusters {
    pub(super) fn add(&mut self, clusters: Vec<Cluster>) {
        for cluster in clusters {
            if self.names.insert(cluster.name().to_owned()) {
                self.plans.push(cluster);
            }
        }
    }

    /// All of them.
    pub(super) fn into_plans(self) -> Vec<Cluster> {
        self.plans
    }
}

/// What policies say of rules.
pub(super) struct Policies<'a> {
    pub(super) traffic: &'a BackendPolicies<'a>,
    pub(super) security: &'a Security<'a>,
    pub(super) quotas: &'a [config::Quota],
}

impl Policies<'_> {
    /// Whether a rule of this listener asks for something by itself, so that Envoy can ask only once the rule is chosen.
    fn asks_behind(&self, listener: usize, routes: &[AttachedRoute<'_>]) -> bool {
        let here = routes.iter().filter(|route| route.hostnames.contains_key(&listener));
        here.flat_map(|route| route.resource.spec.rules.iter().map(move |rule| (route, rule)))
            .any(|(route, rule)| self.security.of_rule(route.resource, rule.name.as_deref()).is_some())
    }
}

/// Who may use a listener, and whether nobody may.
fn clients(target: &Target<'_>, policies: &Policies<'_>, digest: &Digest, behind: bool) -> (Clients, bool) {
    let guard = policies.security.of_listener(target.gateway, target.listener);
    let asked = match &guard {
        Guard::Asks(plan) => Some(asked(plan, target, digest)),
        Guard::Open | Guard::Closed => None,
    };
    let certificate = target.client.certificates.iter().flat_map(|shown| {
        let kinds = [ProofKind::ClientUri, ProofKind::ClientDns, ProofKind::ClientCertificate];
        kinds.map(|kind| config::Proof {
            kind,
            header: proof_header(digest, &target.authority, &shown.policy, kind),
            policy: shown.policy.clone(),
            // A certificate has a subject, and need not have names of other kinds.
            optional: shown.optional || kind != ProofKind::ClientCertificate,
            forward: None,
            told: Vec::new(),
            secrets: Vec::new(),
        })
    });
    let certificate = certificate.collect();
    let (front, rest) = if behind { (None, asked) } else { (asked, None) };
    let (tenancy, gateway_key) = policies.security.tenants_of_listener(target.gateway, target.listener);
    let clients = Clients { front, behind, rest, certificate, tenancy, gateway_key };
    (clients, matches!(guard, Guard::Closed))
}

fn asked(plan: &Rc<AuthPlan>, target: &Target<'_>, digest: &Digest) -> Asked {
    Asked { proofs: plan.proofs(digest, &target.authority), plan: Rc::clone(plan) }
}

/// What is asked for a rule by itself, and whether nobody may use it. `clients` and `closed` are what is said of the listener.
fn asked_of(
    policies: &Policies<'_>,
    route: &AttachedRoute<'_>,
    rule: Option<&str>,
    target: &Target<'_>,
    digest: &Digest,
    (clients, closed): (&Clients, bool),
) -> (Option<Asked>, bool) {
    match policies.security.of_rule(route.resource, rule) {
        Some(Guard::Asks(plan)) => (Some(asked(&plan, target, digest)), false),
        Some(Guard::Open) => (None, false),
        Some(Guard::Closed) => (None, true),
        None => (clients.rest.clone(), closed),
    }
}

/// The indexes of rules in what is served, by the index of their route and their own in it.
pub(super) type Places = BTreeMap<(usize, usize), usize>;

/// The host names of some listeners of one Gateway, each with the matches of the rules in the order in which they are tried.
pub(super) fn hosts(
    listeners: &[usize],
    routes: &[AttachedRoute<'_>],
    places: &Places,
    overlaps: &mut Overlaps,
) -> Vec<Host> {
    let mut hosts: BTreeMap<&str, Vec<Entry<'_>>> = BTreeMap::new();
    for (route_index, route) in routes.iter().enumerate() {
        let hostnames = route.hostnames_on(listeners);
        for (rule_index, matches) in route.matches.iter().enumerate() {
            let Some(rule) = places.get(&(route_index, rule_index)).copied() else { continue };
            for hostname in &hostnames {
                let entries = matches.iter().enumerate().map(|(match_index, Match { headers, .. })| Entry {
                    headers,
                    exact: headers.iter().filter(|header| header.kind == HeaderMatchType::Exact).count(),
                    age: route.age(),
                    place: (route_index, rule_index, match_index),
                    rule,
                });
                hosts.entry(hostname).or_default().extend(entries);
            }
        }
    }
    let ordered = |(hostname, mut entries): (&str, Vec<Entry<'_>>)| {
        entries.sort_by(|a, b| a.precedence().cmp(&b.precedence()));
        overlaps.look_at(&entries);
        let matches =
            entries.iter().map(|entry| RuleMatch { headers: entry.headers.to_vec(), rule: entry.rule });
        Host { hostname: hostname.to_owned(), matches: matches.collect() }
    };
    hosts.into_iter().map(ordered).collect()
}

/// What one listener serves.
pub(super) fn plan(
    index: usize,
    target: &Target<'_>,
    routes: &[AttachedRoute<'_>],
    policies: &Policies<'_>,
    digest: &Digest,
    overlaps: &mut Overlaps,
    clusters: &mut Clusters,
) -> ListenerPlan {
    let behind = policies.asks_behind(index, routes);
    let (clients, closed) = clients(target, policies, digest, behind);
    let mut rules = Vec::new();
    let mut places = Places::new();
    for (route_index, route) in routes.iter().enumerate() {
        if !route.hostnames.contains_key(&index) {
            continue;
        }
        for (rule_index, compiled) in route.rules.iter().enumerate() {
            let rule = rules.len();
            let written = route.resource.spec.rules.get(rule_index).and_then(|rule| rule.name.as_deref());
            let mut traffic = policies.traffic.of(target, route.resource, written);
            let (asked, closed) = asked_of(policies, route, written, target, digest, (&clients, closed));
            traffic.cluster.proxy = target.settings.proxy;
            let place = format!("{}/{rule_index}", route.name);
            // A rule that is not served has nobody to ask for.
            let asked = asked.filter(|_| !compiled.backends.is_empty());
            let names: Vec<&str> = compiled.backends.iter().map(|backend| backend.name.as_str()).collect();
            let gateway = format!("{}/{}", target.gateway.namespace(), target.gateway.name());
            let per_attempt =
                asked.is_some() || super::quota::tells_apart(policies.quotas, &gateway, &route.name, &names);
            let treated = compiled.treated(&place, &target.authority, &traffic, per_attempt);
            rules.push(RulePlan {
                route: route.name.clone(),
                index: rule_index,
                backend: compiled.name.clone(),
                routing_key: compiled.routing_key(
                    digest,
                    &target.authority,
                    &route.name,
                    rule_index,
                    &treated.reached,
                    (asked.as_ref().map(super::envoy::asked).as_ref(), per_attempt),
                ),
                attempts: compiled.attempts(per_attempt),
                asked,
                tenancy: policies.security.tenancy_of_rule(route.resource, written),
                action: if closed { Action::Refuse } else { treated.action },
                destinations: compiled.destinations(),
            });
            clusters.add(treated.clusters);
            places.insert((route_index, rule_index), rule);
        }
    }
    let shown: HashSet<(&str, usize)> = rules
        .iter()
        .filter(|rule| rule.asked.is_none() && rule.action != Action::Refuse)
        .map(|rule| (rule.route.as_str(), rule.index))
        .collect();
    let models = models::list(&[index], routes, |route, rule| shown.contains(&(route, rule)));
    let hosts = hosts(&[index], routes, &places, overlaps);
    ListenerPlan {
        name: target.listener.name.clone(),
        gateway: format!("{}/{}", target.gateway.namespace(), target.gateway.name()),
        authority: target.authority.clone(),
        port: target.port,
        client: target.client.clone(),
        certificates: target.certificates.clone(),
        models,
        clients,
        access_logs: target.access_logs.clone(),
        hosts,
        rules,
    }
}
