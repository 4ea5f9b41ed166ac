//! Rules of AIGatewayRoutes: which backends, of one kind, each leads to.

use std::collections::BTreeMap;
use std::rc::Rc;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::config::{self, BodyMutation, HeaderMutation};
use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::aigateway::{AIGatewayRoute, AIGatewayRouteRule, AIGatewayRouteRuleBackendRef};
use crate::resources::{Located, Snapshot};

use super::backend_traffic::Traffic;
use super::credentials::Credential;
use super::digest::Digest;
use super::grants::{From, To, allowed, missing};
use super::plan::{Action, ClusterPlan, Endpoint, Forward, RetryPlan};
use super::routes::AttachedRoute;
use super::services::{Service, Services};
use super::{Destination, destinations, envoy, milliseconds, mutations};

/// What upstream gives a rule that says nothing; Envoy's own default would cut most answers.
const DEFAULT_TIMEOUT_MS: u64 = 60_000;

const GROUP: &str = "aigateway.envoyproxy.io";

/// A rule as it is on every listener.
#[derive(Debug)]
pub(super) struct CompiledRule {
    /// Those with a weight above zero; empty if the rule cannot be served.
    pub(super) backends: Vec<RuleBackend>,
    /// The first backend, or what stands for it where there is none.
    pub(super) name: String,
    /// As it is where no policy says otherwise.
    pub(super) action: Action,
    limits: Limits,
}

/// What a rule says about time, in milliseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    /// Zero is without limit.
    request: Option<u64>,
    attempt: Option<u64>,
    stream_idle: Option<u64>,
}

/// A rule on one listener, as policies ask for.
pub(super) struct Treated {
    pub(super) action: Action,
    /// By backend.
    pub(super) clusters: Vec<ClusterPlan>,
}

/// One backend of a rule.
#[derive(Debug)]
pub(super) struct RuleBackend {
    /// `namespace/name/route/<route>/rule/<i>/ref/<j>`.
    pub(super) name: String,
    /// Its index among the rule's `backendRefs`.
    index: usize,
    weight: u32,
    priority: u32,
    model_name_override: Option<String>,
    header_mutation: Option<HeaderMutation>,
    body_mutation: Option<BodyMutation>,
    service: Rc<Service>,
}

/// Compiles one rule; says what keeps it from being served.
pub(super) fn compile(
    snapshot: &Snapshot,
    route: &Located<AIGatewayRoute>,
    index: usize,
    rule: &AIGatewayRouteRule,
    services: &mut Services<'_>,
    diagnostics: &mut Diagnostics,
) -> CompiledRule {
    let field = format!("spec.rules[{index}]");
    let string = |reference: usize, name: &str| {
        format!("{}/{name}/route/{}/rule/{index}/ref/{reference}", route.namespace(), route.name())
    };
    let name = string(0, rule.backend_refs.first().map_or("none", |reference| reference.name.as_str()));
    let limits = limits(rule);
    let without = |action| CompiledRule { backends: Vec::new(), name: name.clone(), action, limits };
    let mut backends = Vec::new();
    let mut complete = true;
    for (position, reference) in
        rule.backend_refs.iter().enumerate().filter(|(_, reference)| reference.weight > 0)
    {
        let field = format!("{field}.backendRefs[{position}]");
        match backend(snapshot, route, &field, reference, services, diagnostics) {
            Some(service) => backends.push(RuleBackend {
                name: string(position, &reference.name),
                index: position,
                weight: reference.weight,
                priority: reference.priority,
                model_name_override: reference.model_name_override.clone().filter(|model| !model.is_empty()),
                header_mutation: mutations::headers(
                    service.header_mutation.as_ref(),
                    reference.header_mutation.as_ref(),
                ),
                body_mutation: mutations::body(
                    service.body_mutation.as_ref(),
                    reference.body_mutation.as_ref(),
                ),
                service,
            }),
            None => complete = false,
        }
    }
    if !complete {
        return without(Action::Refuse);
    }
    let Some(first) = backends.first() else {
        let message = "no backend has a weight above zero: requests of this rule are answered with 500";
        let help = "give one of its backendRefs a weight";
        diagnostics.push(route.warning(&format!("{field}.backendRefs"), message).help(help));
        return without(Action::NoBackend);
    };
    if let Some((other, difference)) =
        backends.iter().find_map(|other| other.difference(first).map(|difference| (other, difference)))
    {
        let message = format!(
            "backendRefs[{}] and backendRefs[{}] differ in {difference}: rules over backends of different kinds come with per-attempt failover, which is not supported yet",
            first.index, other.index
        );
        let help = "until then its requests are answered with 404; give each backend a rule, or all of them the same settings";
        diagnostics.push(route.warning(&format!("{field}.backendRefs[{}]", other.index), message).help(help));
        return without(Action::Refuse);
    }
    let clusters: Vec<ClusterPlan> = backends.iter().map(|backend| backend.service.cluster.clone()).collect();
    let forward = forward(&backends, &clusters, limits, &Traffic::default());
    CompiledRule { name: first.name.clone(), action: Action::Forward(forward), backends, limits }
}

/// Finds what a `backendRef` refers to.
fn backend(
    snapshot: &Snapshot,
    route: &Located<AIGatewayRoute>,
    field: &str,
    reference: &AIGatewayRouteRuleBackendRef,
    services: &mut Services<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Rc<Service>> {
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if filled(&reference.group) || filled(&reference.kind) {
        let kind = reference.kind.as_deref().unwrap_or_default();
        let message = format!("a backend of kind {kind} is not supported yet; only an AIServiceBackend is");
        diagnostics.push(
            route
                .warning(&format!("{field}.kind"), message)
                .help("until then its requests are answered with 404"),
        );
        return None;
    }
    let namespace = reference.namespace.as_deref().unwrap_or_else(|| route.namespace());
    let from = From { group: GROUP, kind: "AIGatewayRoute", namespace: route.namespace() };
    let to = To { group: GROUP, kind: "AIServiceBackend", namespace, name: &reference.name };
    if !allowed(snapshot, from, to) {
        let message = format!(
            "the AIServiceBackend is in namespace `{namespace}`, which does not allow this reference"
        );
        diagnostics.push(route.error(&format!("{field}.namespace"), message).help(missing(from, to)));
        return None;
    }
    let Some(found) = snapshot.ai_service_backends.get(namespace, &reference.name) else {
        let message = format!("there is no AIServiceBackend {namespace}/{}", reference.name);
        let help = suggest(&reference.name, snapshot.ai_service_backends.names_in(namespace));
        diagnostics.push(route.error(&format!("{field}.name"), message).help(help));
        return None;
    };
    let service = services.resolve(found, diagnostics);
    if service.is_none() {
        let message =
            format!("requests of this rule are answered with 404, because {} cannot be used", found.id());
        diagnostics.push(route.warning(field, message).help("its own error says why"));
    }
    service
}

impl RuleBackend {
    /// In what two backends differ that one reply cannot serve both; named as the user would.
    fn difference(&self, other: &Self) -> Option<String> {
        let differences = [
            ("schema", self.service.schema != other.service.schema),
            ("credential", self.service.credential != other.service.credential),
            ("modelNameOverride", self.model_name_override != other.model_name_override),
            ("headerMutation", self.header_mutation != other.header_mutation),
            ("bodyMutation", self.body_mutation != other.body_mutation),
            ("priority", self.priority != other.priority),
        ];
        let names: Vec<&str> =
            differences.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn public(&self, cluster: &ClusterPlan) -> Value {
        json!({
            "name": self.name,
            "weight": self.weight,
            "schema": self.service.schema,
            "credential": self.service.credential.as_ref().map(|credential| format!("{:?}", credential.kind)),
            "modelNameOverride": self.model_name_override,
            "headerMutation": self.header_mutation,
            "bodyMutation": self.body_mutation,
            "destination": envoy::provider_cluster(cluster),
        })
    }

    fn destination(&self) -> Destination {
        let ClusterPlan { endpoints, tls, .. } = &self.service.cluster;
        Destination {
            backend: self.name.clone(),
            weight: self.weight,
            addresses: endpoints.iter().map(Endpoint::to_string).collect(),
            tls: tls.as_ref().map(|tls| tls.hostname.clone()),
        }
    }

    fn config(&self) -> config::Backend {
        config::Backend {
            name: self.name.clone(),
            model_name_override: self.model_name_override.clone(),
            schema: self.service.schema.clone(),
            auth: self.service.credential.as_ref().map(Credential::config),
            header_mutation: self.header_mutation.clone(),
            body_mutation: self.body_mutation.clone(),
        }
    }
}

impl CompiledRule {
    /// The backends, as people want to know of them.
    pub(super) fn destinations(&self) -> Vec<Destination> {
        self.backends.iter().map(RuleBackend::destination).collect()
    }

    /// The rule as policies ask for.
    pub(super) fn treated(&self, traffic: &Traffic) -> Treated {
        let clusters: Vec<ClusterPlan> = self
            .backends
            .iter()
            .map(|backend| destinations::treated(&backend.service.cluster, &traffic.cluster))
            .collect();
        let action = match &self.action {
            Action::Forward(_) => Action::Forward(forward(&self.backends, &clusters, self.limits, traffic)),
            Action::Refuse => Action::Refuse,
            Action::NoBackend => Action::NoBackend,
        };
        Treated { action, clusters }
    }

    /// The value Envoy's routes demand for this rule on one listener, where the backends are these clusters.
    pub(super) fn routing_key(
        &self,
        digest: &Digest,
        authority: &str,
        route: &str,
        index: usize,
        clusters: &[ClusterPlan],
    ) -> String {
        let public = json!({
            "authority": authority,
            "route": route,
            "rule": index,
            "name": self.name,
            "served": !self.backends.is_empty(),
            "backends": self
                .backends
                .iter()
                .zip(clusters)
                .map(|(backend, cluster)| backend.public(cluster))
                .collect::<Vec<_>>(),
        });
        let credentials = self.backends.iter().map(|backend| backend.service.credential.as_ref());
        digest.routing_key(&public, credentials.map(|held| held.map(|held| held.key.expose_secret())))
    }
}

/// The backends of all rules, as the processor reads them. A rule that Envoy answers itself has one without credential,
/// so that the processor can name a rule for it.
pub(super) fn backends(routes: &[AttachedRoute<'_>]) -> Vec<config::Backend> {
    let rules = routes.iter().flat_map(|route| &route.rules);
    rules
        .flat_map(|rule| {
            let placeholder = rule.backends.is_empty().then(|| config::Backend {
                name: rule.name.clone(),
                model_name_override: None,
                schema: config::ApiSchema::default(),
                auth: None,
                header_mutation: None,
                body_mutation: None,
            });
            rule.backends.iter().map(RuleBackend::config).chain(placeholder)
        })
        .collect()
}

/// Where requests of a rule go, and how long they may take.
fn forward(backends: &[RuleBackend], clusters: &[ClusterPlan], limits: Limits, traffic: &Traffic) -> Forward {
    let request = limits.request.or(traffic.request_timeout_ms).unwrap_or(DEFAULT_TIMEOUT_MS);
    let retry = traffic.retry.clone().map(|policy| {
        let attempt = policy.per_retry.as_ref().and_then(|limit| limit.timeout);
        let attempt = attempt.map(|limit| milliseconds(limit.0));
        let attempt_ms = shorter(attempt.unwrap_or(0), limits.attempt.unwrap_or(0));
        RetryPlan { attempt_ms: Some(attempt_ms).filter(|limit| *limit > 0), policy }
    });
    // With one attempt, a limit on it is one on the whole.
    let timeout_ms = if retry.is_some() { request } else { shorter(request, limits.attempt.unwrap_or(0)) };
    Forward {
        clusters: weighted(backends, clusters),
        timeout_ms,
        stream_idle_ms: limits.stream_idle,
        retry,
        hashed: traffic.hashed.clone(),
    }
}

/// Of two limits; zero is none.
fn shorter(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, limit) | (limit, 0) => limit,
        (a, b) => a.min(b),
    }
}

/// Clusters with their weights; a cluster that several backends share appears once. Envoy takes a sum of at most 32 bits.
fn weighted(backends: &[RuleBackend], clusters: &[ClusterPlan]) -> Vec<(String, u32)> {
    let mut order = Vec::new();
    let mut weights: BTreeMap<&str, u64> = BTreeMap::new();
    for (backend, cluster) in backends.iter().zip(clusters) {
        let name = cluster.name.as_str();
        if !weights.contains_key(name) {
            order.push(name);
        }
        *weights.entry(name).or_default() += u64::from(backend.weight);
    }
    let sum: u64 = weights.values().sum();
    let divisor = sum.div_ceil(u64::from(u32::MAX)).max(1);
    order
        .into_iter()
        .map(|name| {
            let weight = weights.get(name).copied().unwrap_or_default() / divisor;
            (name.to_owned(), u32::try_from(weight.max(1)).unwrap_or(u32::MAX))
        })
        .collect()
}

fn limits(rule: &AIGatewayRouteRule) -> Limits {
    Limits {
        request: rule.timeouts.request.map(|limit| milliseconds(limit.0)),
        attempt: rule.timeouts.backend_request.map(|limit| milliseconds(limit.0)),
        stream_idle: rule.stream_idle_timeout.map(|idle| milliseconds(idle.0)).filter(|idle| *idle > 0),
    }
}
