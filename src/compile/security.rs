//! SecurityPolicies and TenantPolicies: what clients have to prove on a listener or for a rule, and who they are then.
//!
//! The policy of a route counts instead of that of its Gateway's listener, that instead of the Gateway's. A policy that is there
//! but cannot be served closes what it is for: it is never as if it were not there.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config::{self, KeyDemand, Proof, ProofKind};
use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::aigateway::AIGatewayRoute;
use crate::resources::gateway_api::{Gateway, Listener};
use crate::resources::security_policy::{
    GatewayKey, GatewayKeyMode, SecurityPolicy, TenantParts, TenantPolicy,
};
use crate::resources::types::PolicyTargetReference;
use crate::resources::{Located, Snapshot};

use super::digest::Digest;
use super::plan::Cluster;
use super::security_parts::{self, Context};
use super::{CompileOptions, plan};

use super::plan::Guard;

/// All policies of the files that say who clients are.
pub(super) struct Security<'a> {
    snapshot: &'a Snapshot,
    security: Found<'a, SecurityPolicy>,
    tenants: Found<'a, TenantPolicy>,
    plans: BTreeMap<String, Guard>,
    clusters: Vec<Cluster>,
}

/// Policies by kind, namespace, name and section of what they are for.
type Key = (&'static str, String, String, Option<String>);
type Found<'a, T> = BTreeMap<Key, &'a Located<T>>;

impl<'a> Security<'a> {
    /// Sorts them, compiles them, and says which have no effect and which close what they are for.
    pub(super) fn new(
        snapshot: &'a Snapshot,
        options: &CompileOptions,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let security = find(
            snapshot,
            snapshot.security_policies.iter(),
            |policy| targets_of(snapshot, policy),
            diagnostics,
        );
        let tenants = find(
            snapshot,
            snapshot.tenant_policies.iter(),
            |policy| named(&policy.spec.target_refs),
            diagnostics,
        );
        let (mut plans, mut clusters) = (BTreeMap::new(), Vec::new());
        for policy in &snapshot.security_policies {
            let mut context = Context { snapshot, options, diagnostics, clusters: &mut clusters };
            let guard = match security_parts::compile(policy, &mut context) {
                Some(plan) => Guard::Asks(Rc::new(plan)),
                None => Guard::Closed,
            };
            plans.insert(id(policy), guard);
        }
        if !snapshot.rejected.is_empty() {
            let mut kinds: Vec<&str> = snapshot.rejected.iter().map(|(kind, _)| *kind).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let message = match kinds.as_slice() {
                [kind] if snapshot.rejected.len() == 1 => format!(
                    "a {kind} cannot be read: until it is mended, nothing in its namespace is served that it might protect"
                ),
                kinds => format!(
                    "{} policies cannot be read ({}): until they are mended, nothing in their namespaces is served that they might protect",
                    snapshot.rejected.len(),
                    kinds.join(", ")
                ),
            };
            diagnostics
                .push(crate::diagnostics::Diagnostic::error(message).help("mend what is said about it"));
        }
        Self { snapshot, security, tenants, plans, clusters }
    }

    /// Only who clients are: what they have to prove is Envoy Gateway's business in a cluster.
    pub(super) fn of_tenants(snapshot: &'a Snapshot, diagnostics: &mut Diagnostics) -> Self {
        let tenants = find(
            snapshot,
            snapshot.tenant_policies.iter(),
            |policy| named(&policy.spec.target_refs),
            diagnostics,
        );
        let (security, plans) = (Found::new(), BTreeMap::new());
        Self { snapshot, security, tenants, plans, clusters: Vec::new() }
    }

    /// What fetches keys.
    pub(super) fn clusters(&self) -> &[Cluster] {
        &self.clusters
    }

    fn is_lost(&self, namespace: &str) -> bool {
        self.snapshot.rejected.iter().any(|(_, lost)| lost.as_ref().is_none_or(|lost| lost == namespace))
    }

    fn guard(&self, policy: &Located<SecurityPolicy>) -> Guard {
        self.plans.get(&id(policy)).cloned().unwrap_or(Guard::Closed)
    }

    /// What is asked of all clients of a listener, where nothing else is said.
    pub(super) fn of_listener(&self, gateway: &Located<Gateway>, listener: &Listener) -> Guard {
        if self.is_lost(gateway.namespace()) {
            return Guard::Closed;
        }
        let get = |section| self.security.get(&key("Gateway", gateway.namespace(), gateway.name(), section));
        get(Some(&listener.name)).or_else(|| get(None)).map_or(Guard::Open, |policy| self.guard(policy))
    }

    /// What is asked for a route's rule instead, if anything.
    pub(super) fn of_rule(&self, route: &Located<AIGatewayRoute>, rule: Option<&str>) -> Option<Guard> {
        if self.is_lost(route.namespace()) {
            return Some(Guard::Closed);
        }
        let get = |section| self.security.get(&key("route", route.namespace(), route.name(), section));
        let found = rule.and_then(|rule| get(Some(rule))).or_else(|| get(None))?;
        Some(self.guard(found))
    }

    /// Who the clients of a listener are, and whether they show keys of the gateway's own.
    pub(super) fn tenants_of_listener(
        &self,
        gateway: &Located<Gateway>,
        listener: &Listener,
    ) -> (Option<config::Tenancy>, Option<KeyDemand>) {
        let get = |section| self.tenants.get(&key("Gateway", gateway.namespace(), gateway.name(), section));
        let Some(policy) = get(Some(&listener.name)).or_else(|| get(None)) else { return (None, None) };
        let demand = |asked: &GatewayKey| match asked.mode {
            GatewayKeyMode::Required => KeyDemand::Required,
            GatewayKeyMode::Optional => KeyDemand::Optional,
            GatewayKeyMode::NotAsked => KeyDemand::NotAsked,
        };
        (Some(tenancy(policy)), policy.spec.gateway_key.as_ref().map(demand))
    }

    /// Who the clients of a route's rule are instead.
    pub(super) fn tenancy_of_rule(
        &self,
        route: &Located<AIGatewayRoute>,
        rule: Option<&str>,
    ) -> Option<config::Tenancy> {
        let get = |section| self.tenants.get(&key("route", route.namespace(), route.name(), section));
        rule.and_then(|rule| get(Some(rule))).or_else(|| get(None)).map(|policy| tenancy(policy))
    }
}

fn key(kind: &'static str, namespace: &str, name: &str, section: Option<&str>) -> Key {
    (kind, namespace.to_owned(), name.to_owned(), section.map(str::to_owned))
}

fn id<T>(policy: &Located<T>) -> String {
    format!("{}/{}", policy.namespace(), policy.name())
}

fn named(references: &[PolicyTargetReference]) -> Vec<(String, PolicyTargetReference)> {
    let references = references.iter().enumerate();
    references.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target.clone())).collect()
}

/// By name and by label.
fn targets_of(snapshot: &Snapshot, policy: &Located<SecurityPolicy>) -> Vec<(String, PolicyTargetReference)> {
    let spec = &policy.spec;
    let mut targets = named(&spec.target_refs);
    targets.extend(spec.target_ref.iter().map(|target| ("spec.targetRef".to_owned(), target.clone())));
    for (index, selector) in spec.target_selectors.iter().enumerate() {
        let labels = crate::resources::types::LabelSelector {
            match_labels: selector.match_labels.clone(),
            match_expressions: selector.match_expressions.clone(),
        };
        let field = format!("spec.targetSelectors[{index}]");
        let mut select = |metadata: &crate::resources::Metadata| {
            if metadata.namespace == policy.namespace() && labels.matches(&metadata.labels) {
                let target = PolicyTargetReference {
                    group: selector.group.clone(),
                    kind: selector.kind.clone(),
                    name: metadata.name.clone(),
                    section_name: None,
                };
                targets.push((field.clone(), target));
            }
        };
        if selector.kind == "Gateway" {
            snapshot.gateways.iter().for_each(|gateway| select(&gateway.metadata));
        } else {
            snapshot.ai_gateway_routes.iter().for_each(|route| select(&route.metadata));
        }
    }
    targets
}

/// Policies by what they are for; the oldest counts.
fn find<'a, T>(
    snapshot: &Snapshot,
    policies: impl Iterator<Item = &'a Located<T>>,
    targets: impl Fn(&Located<T>) -> Vec<(String, PolicyTargetReference)>,
    diagnostics: &mut Diagnostics,
) -> Found<'a, T> {
    let mut policies: Vec<_> = policies.collect();
    policies.sort_by_key(|policy| (policy.metadata.creation_timestamp.clone(), id(policy)));
    let mut found = Found::new();
    for policy in policies {
        for (field, target) in targets(policy) {
            let (kind, names, sections): (_, Vec<&str>, Option<Vec<&str>>) = if target.kind == "Gateway" {
                let gateway = snapshot.gateways.get(policy.namespace(), &target.name);
                let listeners = gateway.map(|gateway| {
                    gateway.spec.listeners.iter().map(|listener| listener.name.as_str()).collect()
                });
                ("Gateway", snapshot.gateways.names_in(policy.namespace()).collect(), listeners)
            } else {
                let route = snapshot.ai_gateway_routes.get(policy.namespace(), &target.name);
                let rules = route
                    .map(|route| route.spec.rules.iter().filter_map(|rule| rule.name.as_deref()).collect());
                ("route", snapshot.ai_gateway_routes.names_in(policy.namespace()).collect(), rules)
            };
            let unknown = match (&sections, target.section_name.as_deref()) {
                (None, _) => {
                    let wanted = if kind == "Gateway" { "Gateway" } else { "AIGatewayRoute" };
                    let message = format!(
                        "there is no {wanted} {}/{}, so that this protects nothing",
                        policy.namespace(),
                        target.name
                    );
                    Some((format!("{field}.name"), message, suggest(&target.name, names.iter().copied())))
                }
                (Some(known), Some(section)) if !known.contains(&section) => {
                    let message =
                        format!("{} has no section `{section}`, so that this protects nothing", target.name);
                    Some((format!("{field}.sectionName"), message, suggest(section, known.iter().copied())))
                }
                _ => None,
            };
            if let Some((field, message, help)) = unknown {
                diagnostics.push(policy.error(&field, message).help(help));
                continue;
            }
            let key = key(kind, policy.namespace(), &target.name, target.section_name.as_deref());
            if let Some(older) = found.get(&key).filter(|older: &&&Located<T>| id(older) != id(policy)) {
                let message = format!(
                    "this has no effect on {} {}: {} targets it too and is the older one",
                    target.kind,
                    target.name,
                    older.id()
                );
                diagnostics.push(policy.warning(&field, message).help("make one policy of the two"));
            } else {
                found.insert(key, policy);
            }
        }
    }
    found
}

/// A TenantPolicy as the processor reads it.
fn tenancy(policy: &Located<TenantPolicy>) -> config::Tenancy {
    let parts = |parts: &TenantParts| config::Parts {
        organisation: parts.organisation.clone(),
        team: parts.team.clone(),
        key: parts.key.clone(),
    };
    let identity = &policy.spec.identity;
    config::Tenancy {
        policy: id(policy),
        api_key: identity.api_key.as_ref().map(|names| names.pattern.clone()),
        basic_auth: identity.basic_auth.as_ref().map(|names| names.pattern.clone()),
        jwt: identity.jwt.as_ref().map(parts),
        client_certificate: identity.client_certificate.as_ref().map(parts),
        client_uri: identity.client_certificate_uri.as_ref().map(|names| names.pattern.clone()),
        client_dns: identity.client_certificate_dns.as_ref().map(|names| names.pattern.clone()),
        access: policy
            .spec
            .access
            .iter()
            .map(|access| config::Access {
                tenant: parts(&access.tenant),
                anonymous: access.anonymous,
                models: access.models.clone(),
            })
            .collect(),
    }
}

impl plan::AuthPlan {
    /// The header in which Envoy leaves its proof. Nobody can guess it who does not know the secret of this start.
    pub(super) fn header(&self, digest: &Digest, authority: &str, kind: ProofKind) -> String {
        proof_header(digest, authority, &self.policy, kind)
    }

    /// What the processor demands.
    pub(super) fn proofs(&self, digest: &Digest, authority: &str) -> Vec<Proof> {
        let mut proofs = Vec::new();
        let claims = |jwt: &plan::JwtPlan| {
            let claims = jwt.issuers.iter().flat_map(|issuer| &issuer.claims);
            let mut told: Vec<String> = claims.map(|(header, _)| header.clone()).collect();
            told.sort();
            told.dedup();
            told
        };
        let told = self.jwt.as_ref().map(claims).unwrap_or_default();
        let mut add = |kind, optional, forward: Option<&String>, secrets: &[String]| {
            proofs.push(Proof {
                kind,
                header: self.header(digest, authority, kind),
                policy: self.policy.clone(),
                optional,
                forward: forward.map(|name| name.to_ascii_lowercase()),
                told: if kind == ProofKind::Jwt { told.clone() } else { Vec::new() },
                secrets: secrets.to_vec(),
            });
        };
        if let Some(keys) = &self.api_key {
            add(ProofKind::ApiKey, false, keys.forward.as_ref(), &keys.secrets);
        }
        if let Some(basic) = &self.basic {
            add(ProofKind::BasicAuth, false, basic.forward.as_ref(), &["authorization".to_owned()]);
        }
        if let Some(jwt) = &self.jwt {
            add(ProofKind::Jwt, jwt.optional, None, &jwt.secrets);
        }
        proofs
    }
}

/// A name that only this gateway and its processor know.
pub(super) fn proof_header(digest: &Digest, authority: &str, policy: &str, kind: ProofKind) -> String {
    let key = digest.routing_key(&("proof", authority, policy, kind), std::iter::empty());
    format!("x-ai-eg-auth-{key}")
}
