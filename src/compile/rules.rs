//! Rules of AIGatewayRoutes: which backends each leads to, and whether they are of one kind.

use std::collections::BTreeMap;
use std::rc::Rc;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::config::{self, BodyMutation, HeaderMutation};
use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::resources::aigateway::{AIGatewayRoute, AIGatewayRouteRule, AIGatewayRouteRuleBackendRef};
use crate::resources::types::BackendObjectReference;
use crate::resources::{Located, Snapshot};

use super::backend_traffic::Traffic;
use super::credentials::Kind;
use super::digest::Digest;
use super::failover::{self, Gathered, Way};
use super::grants::{From, To, allowed, missing};
use super::plan::{Action, Cluster, ClusterPlan, ClusterTraffic, Endpoint, Forward, Member, RetryPlan};
use super::routes::AttachedRoute;
use super::services::{Reached, Service, Services};
use super::{Destination, milliseconds, mutations};

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
    fate: Fate,
    /// Whether the backends are of several kinds or in an order, so that each attempt is translated and signed for the one it
    /// goes to.
    per_attempt: bool,
    limits: Limits,
}

/// What becomes of a rule's requests, on whatever listener.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Forward,
    /// See [`Action::Refuse`].
    Refuse,
    /// See [`Action::NoBackend`].
    NoBackend,
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
    /// By backend, how it is reached.
    pub(super) reached: Vec<Rc<Reached>>,
    /// What Envoy has to know.
    pub(super) clusters: Vec<Cluster>,
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
    let without =
        |fate| CompiledRule { backends: Vec::new(), name: name.clone(), fate, per_attempt: false, limits };
    let mut backends = Vec::new();
    let mut missing = Vec::new();
    for (position, reference) in
        rule.backend_refs.iter().enumerate().filter(|(_, reference)| reference.weight > 0)
    {
        let field = format!("{field}.backendRefs[{position}]");
        match backend(snapshot, route, &field, reference, services, diagnostics) {
            Ok(service) => {
                let name = string(position, &reference.name);
                backends.push(RuleBackend::new(name, position, reference, service));
            }
            Err(Unusable(named)) => missing.push((field, reference.priority, named)),
        }
    }
    // The rule does without a backend that others come before, and not without one that requests are meant for first.
    let first = backends.iter().map(|backend| backend.priority).min();
    let refused = missing.iter().any(|(_, priority, _)| first.is_none_or(|first| *priority <= first));
    for (field, _, named) in missing {
        let named = named.unwrap_or_else(|| "this backend".to_owned());
        let message = if refused {
            format!("requests of this rule are answered with 404, because {named} cannot be used")
        } else {
            format!(
                "the rule is served without {named}, which cannot be used: when the others fail, it is not tried"
            )
        };
        diagnostics.push(route.warning(&field, message).help("what is said about it says why"));
    }
    if refused {
        return without(Fate::Refuse);
    }
    let Some(first) = backends.first() else {
        let message = "no backend has a weight above zero: requests of this rule are answered with 500";
        let help = "give one of its backendRefs a weight";
        diagnostics.push(route.warning(&format!("{field}.backendRefs"), message).help(help));
        return without(Fate::NoBackend);
    };
    diagnostics.extend(unweighed(route, &field, &backends));
    // Of backends in an order it has to be known who served, although one reply could do for all of them.
    let per_attempt = backends.iter().any(|backend| {
        !backend.is_like(first) || backend.priority != first.priority || backend.is_signed_for_its_host()
    });
    CompiledRule { name: first.name.clone(), fate: Fate::Forward, backends, per_attempt, limits }
}

/// A backend cannot be used; why is in the diagnostics. Named if it exists.
struct Unusable(Option<String>);

/// Finds what a `backendRef` refers to.
fn backend(
    snapshot: &Snapshot,
    route: &Located<AIGatewayRoute>,
    field: &str,
    reference: &AIGatewayRouteRuleBackendRef,
    services: &mut Services<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Rc<Service>, Unusable> {
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if filled(&reference.group) || filled(&reference.kind) {
        let kind = reference.kind.as_deref().unwrap_or_default();
        let message = format!("a backend of kind {kind} is not supported yet; only an AIServiceBackend is");
        diagnostics
            .push(route.warning(&format!("{field}.kind"), message).help("refer to an AIServiceBackend"));
        return Err(Unusable(None));
    }
    let namespace = reference.namespace.as_deref().unwrap_or_else(|| route.namespace());
    let from = From { group: GROUP, kind: "AIGatewayRoute", namespace: route.namespace() };
    let to = To { group: GROUP, kind: "AIServiceBackend", namespace, name: &reference.name };
    if !allowed(snapshot, from, to) {
        let message = format!(
            "the AIServiceBackend is in namespace `{namespace}`, which does not allow this reference"
        );
        diagnostics.push(route.error(&format!("{field}.namespace"), message).help(missing(from, to)));
        return Err(Unusable(None));
    }
    let Some(found) = snapshot.ai_service_backends.get(namespace, &reference.name) else {
        let message = format!("there is no AIServiceBackend {namespace}/{}", reference.name);
        let help = suggest(&reference.name, snapshot.ai_service_backends.names_in(namespace));
        diagnostics.push(route.error(&format!("{field}.name"), message).help(help));
        return Err(Unusable(None));
    };
    services.resolve(found, diagnostics).ok_or_else(|| Unusable(Some(found.id())))
}

impl RuleBackend {
    fn new(
        name: String,
        index: usize,
        reference: &AIGatewayRouteRuleBackendRef,
        service: Rc<Service>,
    ) -> Self {
        Self {
            name,
            index,
            weight: reference.weight,
            priority: reference.priority,
            model_name_override: reference.model_name_override.clone().filter(|model| !model.is_empty()),
            header_mutation: mutations::headers(
                service.header_mutation.as_ref(),
                reference.header_mutation.as_ref(),
            ),
            body_mutation: mutations::body(service.body_mutation.as_ref(), reference.body_mutation.as_ref()),
            service,
        }
    }

    /// Whether one reply can serve both.
    fn is_like(&self, other: &Self) -> bool {
        self.service.schema == other.service.schema
            && self.service.credential == other.service.credential
            && self.model_name_override == other.model_name_override
            && self.header_mutation == other.header_mutation
            && self.body_mutation == other.body_mutation
            && (!self.is_signed_for_host() || self.host() == other.host())
    }

    /// Whether what is sent depends on the host name.
    fn is_signed_for_host(&self) -> bool {
        self.service.credential.as_ref().is_some_and(|credential| credential.kind == Kind::Aws)
    }

    /// Whether it depends on which of several host names Envoy chooses.
    fn is_signed_for_its_host(&self) -> bool {
        let mut names = self.hosts();
        let first = names.next();
        self.is_signed_for_host() && names.any(|name| Some(name) != first)
    }

    /// The names Envoy asks for, address by address.
    fn hosts(&self) -> impl Iterator<Item = Option<&str>> {
        let ClusterPlan { endpoints, tls, .. } = &self.service.cluster;
        let proven = tls.as_ref().map(|tls| tls.hostname.as_str());
        endpoints.iter().map(move |endpoint| endpoint.hostname().or(proven))
    }

    fn public(&self, reached: &Reached) -> Value {
        json!({
            "name": self.name,
            "weight": self.weight,
            "priority": self.priority,
            "schema": self.service.schema,
            "credential": self.service.credential.as_ref().map(|credential| format!("{:?}", credential.kind)),
            "modelNameOverride": self.model_name_override,
            "headerMutation": self.header_mutation,
            "bodyMutation": self.body_mutation,
            "destination": reached.digest,
        })
    }

    fn destination(&self) -> Destination {
        let ClusterPlan { endpoints, tls, .. } = &self.service.cluster;
        Destination {
            backend: self.name.clone(),
            weight: self.weight,
            priority: self.priority,
            addresses: endpoints.iter().map(Endpoint::to_string).collect(),
            hosts: self.hosts().flatten().map(str::to_owned).collect(),
            tls: tls.as_ref().map(|tls| tls.hostname.clone()),
        }
    }

    /// The name Envoy asks for, where all addresses have the same.
    fn host(&self) -> Option<&str> {
        let mut names = self.hosts();
        let first = names.next()??;
        names.all(|name| name == Some(first)).then_some(first)
    }

    fn config(&self) -> config::Backend {
        config::Backend {
            name: self.name.clone(),
            model_name_override: self.model_name_override.clone(),
            schema: self.service.schema.clone(),
            auth: self.service.credential.as_ref().map(|credential| credential.config(self.host())),
            header_mutation: self.header_mutation.clone(),
            body_mutation: self.body_mutation.clone(),
        }
    }
}

impl CompiledRule {
    /// Whether its requests are sent anywhere.
    pub(super) fn is_served(&self) -> bool {
        matches!(self.fate, Fate::Forward)
    }

    /// The backends, as people want to know of them.
    pub(super) fn destinations(&self) -> Vec<Destination> {
        self.backends.iter().map(RuleBackend::destination).collect()
    }

    /// Its backends as the processor reads them.
    fn configs(&self) -> Vec<config::Backend> {
        if self.backends.is_empty() {
            return vec![self.placeholder()];
        }
        self.backends.iter().map(RuleBackend::config).collect()
    }

    /// The backend that a direct rule is sent to, or what stands for it.
    pub(super) fn config(&self) -> config::Backend {
        self.backends.first().map_or_else(|| self.placeholder(), RuleBackend::config)
    }

    /// What stands for the backends of a rule that Envoy answers itself: there is no credential in it.
    pub(super) fn placeholder(&self) -> config::Backend {
        config::Backend {
            name: self.name.clone(),
            model_name_override: None,
            schema: config::ApiSchema::default(),
            auth: None,
            header_mutation: None,
            body_mutation: None,
        }
    }

    /// Whether it is refused whatever else is said, as one of its backends cannot be used.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.fate, Fate::Refuse)
    }

    /// Whether its backends are of several kinds or in an order.
    pub(super) fn is_per_attempt(&self) -> bool {
        self.per_attempt
    }

    /// Where its backends are, as a cluster names them, with their weights.
    pub(super) fn references(&self) -> impl Iterator<Item = (&BackendObjectReference, u32)> {
        self.backends.iter().map(|backend| (&backend.service.reference, backend.weight))
    }

    /// How long a request may take and an attempt, in milliseconds; zero is without limit.
    pub(super) fn timeouts(&self) -> (u64, Option<u64>) {
        (self.limits.request.unwrap_or(DEFAULT_TIMEOUT_MS), self.limits.attempt)
    }

    /// How its backends are reached where no policy says anything.
    pub(super) fn reached(&self) -> Vec<Rc<Reached>> {
        let plain = ClusterTraffic::default();
        self.backends.iter().map(|backend| backend.service.reached(&plain)).collect()
    }

    /// [`config::Rule::attempts`].
    pub(super) fn attempts(&self, per_attempt: bool) -> Vec<String> {
        let named = self.backends.iter().filter(|_| self.per_attempt || per_attempt);
        named.map(|backend| backend.name.clone()).collect()
    }

    /// The rule as policies ask for, on the listener of that authority.
    pub(super) fn treated(
        &self,
        rule: &str,
        authority: &str,
        traffic: &Traffic,
        per_attempt: bool,
    ) -> Treated {
        let per_attempt = self.per_attempt || per_attempt;
        let reached: Vec<Rc<Reached>> =
            self.backends.iter().map(|backend| backend.service.reached(&traffic.cluster)).collect();
        let (action, clusters) = match self.fate {
            Fate::Refuse => (Action::Refuse, Vec::new()),
            Fate::NoBackend => (Action::NoBackend, Vec::new()),
            Fate::Forward if self.is_gathered(traffic, per_attempt) => {
                let members = self.backends.iter().zip(&reached).map(|(backend, reached)| Member {
                    backend: backend.name.clone(),
                    priority: backend.priority,
                    weight: backend.weight,
                    cluster: reached.cluster.clone(),
                });
                let authority = Some(authority).filter(|_| per_attempt);
                let Gathered { clusters, targets, first, prioritised } =
                    failover::gather(rule, members.collect(), authority);
                let per_priority = prioritised.then_some(first);
                let forward = forward(targets, per_priority, self.backends.len() > 1, self.limits, traffic);
                (Action::Forward(Box::new(forward)), clusters)
            }
            Fate::Forward => {
                let targets = weighted(&self.backends, &reached);
                let clusters = reached
                    .iter()
                    .map(|reached| Cluster::Backend(Box::new(reached.cluster.clone())))
                    .collect();
                (Action::Forward(Box::new(forward(targets, None, false, self.limits, traffic))), clusters)
            }
        };
        Treated { action, reached, clusters }
    }

    /// Whether Envoy chooses a backend for each attempt, and not one for all of them.
    fn is_gathered(&self, traffic: &Traffic, per_attempt: bool) -> bool {
        let another = traffic.retry.is_some() || traffic.cluster.health_check.is_some();
        per_attempt || (another && self.backends.len() > 1)
    }

    /// The value Envoy's routes demand for this rule on one listener, where the backends are these clusters. `asked` is what is
    /// asked for it, and whether it is served per attempt whatever its backends.
    pub(super) fn routing_key(
        &self,
        digest: &Digest,
        authority: &str,
        route: &str,
        index: usize,
        reached: &[Rc<Reached>],
        (asked, per_attempt): (Option<&Value>, bool),
    ) -> String {
        let mut public = json!({
            "authority": authority,
            "route": route,
            "rule": index,
            "name": self.name,
            "served": !self.backends.is_empty(),
            "perAttempt": self.per_attempt || per_attempt,
            "backends": self
                .backends
                .iter()
                .zip(reached)
                .map(|(backend, reached)| backend.public(reached))
                .collect::<Vec<_>>(),
        });
        if let Some(asked) = asked {
            public["asked"] = asked.clone();
        }
        let credentials = self.backends.iter().map(|backend| backend.service.credential.as_ref());
        digest.routing_key(&public, credentials.map(|held| held.map(|held| held.material.expose_secret())))
    }
}

/// Backends that Envoy cannot weigh against each other.
fn unweighed(route: &Located<AIGatewayRoute>, field: &str, backends: &[RuleBackend]) -> Option<Diagnostic> {
    let first = backends.iter().map(|backend| backend.priority).min()?;
    let later = || backends.iter().filter(|backend| backend.priority > first);
    let way = |backend: &RuleBackend| Way::of(&backend.service.cluster);
    let (one, other) = later().find_map(|one| {
        let other = later().find(|other| other.priority == one.priority && way(other) != way(one))?;
        Some((one, other))
    })?;
    let message = format!(
        "backendRefs[{}] is reached by {}, and backendRefs[{}], of the same priority, by {}: the heavier of the two is always tried first",
        one.index,
        way(one),
        other.index,
        way(other)
    );
    let help = "only in the first priority can such backends share requests by weight; give each a priority of its own";
    Some(route.warning(&format!("{field}.backendRefs[{}].weight", other.index), message).help(help))
}

/// The backends of all rules, as the processor reads them. A rule that Envoy answers itself has one without credential,
/// so that the processor can name a rule for it.
pub(super) fn backends(routes: &[AttachedRoute<'_>]) -> Vec<config::Backend> {
    routes.iter().flat_map(|route| &route.rules).flat_map(CompiledRule::configs).collect()
}

/// Where requests of a rule go, and how long they may take.
fn forward(
    clusters: Vec<(String, u32)>,
    per_priority: Option<u32>,
    elsewhere: bool,
    limits: Limits,
    traffic: &Traffic,
) -> Forward {
    let request = limits.request.or(traffic.request_timeout_ms).unwrap_or(DEFAULT_TIMEOUT_MS);
    let retry = traffic.retry.clone().map(|policy| {
        let attempt = policy.per_retry.as_ref().and_then(|limit| limit.timeout);
        let attempt = attempt.map(|limit| milliseconds(limit.0));
        let attempt_ms = shorter(attempt.unwrap_or(0), limits.attempt.unwrap_or(0));
        RetryPlan {
            attempt_ms: Some(attempt_ms).filter(|limit| *limit > 0),
            per_priority: per_priority.map(|all| policy.num_attempts_per_priority.unwrap_or(all).max(1)),
            elsewhere,
            policy,
        }
    });
    // With one attempt, a limit on it is one on the whole.
    let timeout_ms = if retry.is_some() { request } else { shorter(request, limits.attempt.unwrap_or(0)) };
    Forward {
        clusters,
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

/// Clusters with their weights; a cluster that several backends share appears once.
fn weighted(backends: &[RuleBackend], reached: &[Rc<Reached>]) -> Vec<(String, u32)> {
    let mut order = Vec::new();
    let mut weights: BTreeMap<&str, u64> = BTreeMap::new();
    for (backend, reached) in backends.iter().zip(reached) {
        let name = reached.cluster.name.as_str();
        if !weights.contains_key(name) {
            order.push(name);
        }
        *weights.entry(name).or_default() += u64::from(backend.weight);
    }
    let sum: u64 = weights.values().sum();
    let weight = |name| failover::scaled(weights.get(name).copied().unwrap_or_default(), sum);
    order.into_iter().map(|name| (name.to_owned(), weight(name))).collect()
}

fn limits(rule: &AIGatewayRouteRule) -> Limits {
    Limits {
        request: rule.timeouts.request.map(|limit| milliseconds(limit.0)),
        attempt: rule.timeouts.backend_request.map(|limit| milliseconds(limit.0)),
        stream_idle: rule.stream_idle_timeout.map(|idle| milliseconds(idle.0)).filter(|idle| *idle > 0),
    }
}
