//! SecurityPolicies: whether what they ask for is asked of every request that reaches a rule.
//!
//! Envoy's authentication filters run by the route on which a request starts, and that is the catch-all of any of our routes
//! that have the host name in common, the oldest one's. So what a policy of one route asks for protects its rules only if
//! every other one asks for the same. If not, the protected rules are refused: a request without a key would come through
//! by another route's catch-all.

use std::collections::{BTreeMap, BTreeSet};

use crate::compile::routes::AttachedRoute;
use crate::resources::security_policy::SecurityPolicy;
use crate::resources::{Located, Snapshot};

use super::sites::Site;
use super::targets::{Object, targets};

/// What is asked of clients; equal texts ask for the same. `None` is nothing.
type Asked = Option<String>;

/// A route, as its HTTPRoute on one Gateway is called and labelled.
pub(super) struct Subject<'a> {
    pub(super) route: &'a AttachedRoute<'a>,
    pub(super) http_route: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// By index of the route and of its rule, why it is not served on a Gateway.
pub(super) fn refusals(
    snapshot: &Snapshot,
    site: &Site<'_>,
    subjects: &[Subject<'_>],
) -> BTreeMap<(usize, usize), String> {
    let mut policies: Vec<&Located<SecurityPolicy>> = snapshot.security_policies.iter().collect();
    policies.sort_by_key(|policy| {
        (policy.metadata.creation_timestamp.as_deref(), policy.namespace(), policy.name())
    });
    let mut asked: BTreeMap<(usize, usize), Asked> = BTreeMap::new();
    let mut by_host: BTreeMap<(usize, &str), BTreeSet<Asked>> = BTreeMap::new();
    for (index, subject) in subjects.iter().enumerate() {
        for (listener, hostnames) in &subject.route.hostnames {
            let own = of_route(&policies, site, *listener, subject);
            for hostname in hostnames {
                by_host.entry((*listener, hostname)).or_default().insert(own.clone());
            }
            asked.insert((index, *listener), own);
        }
    }
    let mut refusals = BTreeMap::new();
    for (index, subject) in subjects.iter().enumerate() {
        let mixed = subject.route.hostnames.iter().any(|(listener, hostnames)| {
            let own = asked.get(&(index, *listener)).is_some_and(Option::is_some);
            let several = |hostname: &String| {
                by_host.get(&(*listener, hostname.as_str())).is_some_and(|all| all.len() > 1)
            };
            own && hostnames.iter().any(several)
        });
        let route = subject.route.resource;
        let lost = |namespace: &str| is_lost(snapshot, namespace);
        let all = if lost(route.namespace()) || lost(site.gateway.namespace()) {
            Some("a policy of its namespace cannot be read, and might protect it".to_owned())
        } else if mixed {
            Some(format!(
                "its SecurityPolicy is not that of all AI routes with the same host names on {}: requests start on a route of any of them, so that it would not be enforced; put it on the Gateway, or select all of them",
                site.id
            ))
        } else {
            elsewhere(&policies, site, subject)
        };
        for (rule, written) in route.spec.rules.iter().enumerate() {
            let own = || of_section(&policies, subject, written.name.as_deref());
            if let Some(message) = all.clone().or_else(own) {
                refusals.insert((index, rule), message);
            }
        }
    }
    refusals
}

fn is_lost(snapshot: &Snapshot, namespace: &str) -> bool {
    let protecting = snapshot.rejected.iter().filter(|(kind, _)| *kind != "ClientTrafficPolicy");
    protecting.into_iter().any(|(_, lost)| lost.as_ref().is_none_or(|lost| lost == namespace))
}

/// What a policy asks for. Policies of one namespace that say the same ask for the same; what is not read here is only the
/// same as itself.
fn asked(policy: &Located<SecurityPolicy>) -> Asked {
    let spec = &policy.spec;
    let unread = spec.authorization.is_some() || spec.ext_auth.is_some() || spec.oidc.is_some();
    if unread {
        return Some(format!("{}/{}", policy.namespace(), policy.name()));
    }
    let read = (&spec.api_key_auth, &spec.basic_auth, &spec.jwt);
    let nothing = spec.api_key_auth.is_none() && spec.basic_auth.is_none() && spec.jwt.is_none();
    (!nothing).then(|| format!("{} {read:?}", policy.namespace()))
}

/// What is asked on the catch-all of a route: by its own policy, else by the listener's or the Gateway's.
fn of_route(
    policies: &[&Located<SecurityPolicy>],
    site: &Site<'_>,
    listener: usize,
    subject: &Subject<'_>,
) -> Asked {
    let gateway = || {
        let name = site.targets.get(listener).map(|target| target.listener.name.as_str());
        let object = Object {
            kind: "Gateway",
            namespace: site.gateway.namespace(),
            name: site.gateway.name(),
            labels: &site.gateway.metadata.labels,
        };
        let find = |wanted: Option<&str>| {
            policies.iter().find(|policy| targets!(policy).sections(object).contains(&wanted))
        };
        name.and_then(|name| find(Some(name))).or_else(|| find(None)).and_then(|policy| asked(policy))
    };
    let object = subject.object(&subject.http_route);
    match policies.iter().find(|policy| targets!(policy).sections(object).contains(&None)) {
        Some(policy) if policy.spec.merge_type.is_some() => match (asked(policy), gateway()) {
            (None, None) => None,
            both => Some(format!("{both:?}")),
        },
        Some(policy) => asked(policy),
        None => gateway(),
    }
}

/// A policy that names the route, but not as it is called on this Gateway.
fn elsewhere(
    policies: &[&Located<SecurityPolicy>],
    site: &Site<'_>,
    subject: &Subject<'_>,
) -> Option<String> {
    let name = subject.route.resource.name();
    let here = subject.object(&subject.http_route);
    let there = Object { name, ..here };
    let direct = Object { kind: "AIGatewayRoute", ..there };
    let missed = |policy: &&&Located<SecurityPolicy>| {
        let targets = targets!(policy);
        asked(policy).is_some()
            && (!targets.sections(direct).is_empty()
                || (targets.sections(there).contains(&None) && !targets.sections(here).contains(&None)))
    };
    let policy = policies.iter().find(missed)?;
    Some(format!(
        "{} is not enforced on {}: Envoy Gateway knows the route there as HTTPRoute {}; select it by a label of the AIGatewayRoute (targetSelectors, kind HTTPRoute), or put the policy on the Gateway",
        policy.id(),
        site.id,
        subject.http_route
    ))
}

/// A policy of one rule never runs: requests start on the catch-all.
fn of_section(
    policies: &[&Located<SecurityPolicy>],
    subject: &Subject<'_>,
    rule: Option<&str>,
) -> Option<String> {
    let rule = rule?;
    let object = subject.object(subject.route.resource.name());
    let policy = policies
        .iter()
        .find(|policy| asked(policy).is_some() && targets!(policy).sections(object).contains(&Some(rule)))?;
    Some(format!(
        "{} is for this rule alone, and is not enforced: requests start on the catch-all of the route; put it on the whole route or on the Gateway",
        policy.id()
    ))
}

impl Subject<'_> {
    /// The route as policies know it, under this name.
    pub(super) fn object<'s>(&'s self, name: &'s str) -> Object<'s> {
        Object { kind: "HTTPRoute", namespace: self.route.resource.namespace(), name, labels: &self.labels }
    }
}
