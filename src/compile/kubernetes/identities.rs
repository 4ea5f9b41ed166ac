//! TenantPolicies: which of the clients that Envoy knows are known to the processors, too.
//!
//! The payload of a token that Envoy has verified stands in metadata that no client writes, and Envoy Gateway hands it on. The name that
//! goes with an API key or a password stands in a header at best, which a client can write as well wherever the policy does not run, if
//! only while Envoy and the processors have different configurations. And of a certificate it is told what is in it, and not whether
//! it was verified, which `mode: Request` leaves out. So these count as anonymous, and the policy says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::resources::Snapshot;

use super::protection::Subject;
use super::sites::Site;
use super::targets::{Object, targets};

/// By namespace and name of a TenantPolicy, how clients prove who they are in vain.
pub(super) type Unknown = BTreeMap<(String, String), BTreeSet<String>>;

/// A way in which clients of a Gateway prove who they are to Envoy alone.
struct Way {
    said: String,
    /// Whether it is for the whole Gateway.
    everywhere: bool,
    /// Indexes of the routes that it is for.
    routes: BTreeSet<usize>,
}

/// Adds what there is to say about one Gateway.
pub(super) fn find(snapshot: &Snapshot, site: &Site<'_>, subjects: &[Subject<'_>], unknown: &mut Unknown) {
    if snapshot.tenant_policies.is_empty() {
        return;
    }
    let ways = ways(snapshot, site, subjects);
    for policy in &snapshot.tenant_policies {
        for target in &policy.spec.target_refs {
            let here = policy.namespace() == site.gateway.namespace() && target.name == site.gateway.name();
            let aimed = |route: &usize| {
                let route = subjects.get(*route).map(|subject| subject.route.resource);
                route.is_some_and(|it| (it.namespace(), it.name()) == (policy.namespace(), &target.name))
            };
            let concerned = |way: &&Way| match target.kind.as_str() {
                "Gateway" => here,
                _ if way.everywhere => (0..subjects.len()).any(|route| aimed(&route)),
                _ => way.routes.iter().any(aimed),
            };
            let said: Vec<String> = ways.iter().filter(concerned).map(|way| way.said.clone()).collect();
            if !said.is_empty() {
                let name = (policy.namespace().to_owned(), policy.name().to_owned());
                unknown.entry(name).or_default().extend(said);
            }
        }
    }
}

fn ways(snapshot: &Snapshot, site: &Site<'_>, subjects: &[Subject<'_>]) -> Vec<Way> {
    let gateway = Object {
        kind: "Gateway",
        namespace: site.gateway.namespace(),
        name: site.gateway.name(),
        labels: &site.gateway.metadata.labels,
    };
    let mut ways = Vec::new();
    for policy in &snapshot.security_policies {
        let asked = [
            ("apiKeyAuth", policy.spec.api_key_auth.is_some()),
            ("basicAuth", policy.spec.basic_auth.is_some()),
        ];
        let is_for = |(_, subject): &(usize, &Subject<'_>)| {
            !targets!(policy).sections(subject.object(&subject.http_route)).is_empty()
        };
        for (field, _) in asked.into_iter().filter(|(_, asked)| *asked) {
            ways.push(Way {
                said: format!("{field} of {}", policy.id()),
                everywhere: !targets!(policy).sections(gateway).is_empty(),
                routes: subjects.iter().enumerate().filter(is_for).map(|(index, _)| index).collect(),
            });
        }
    }
    for policy in &snapshot.client_traffic_policies {
        let asked = policy.spec.tls.as_ref().is_some_and(|tls| tls.client_validation.is_some());
        if asked && !targets!(policy).sections(gateway).is_empty() {
            let said = format!("tls.clientValidation of {}", policy.id());
            ways.push(Way { said, everywhere: true, routes: BTreeSet::new() });
        }
    }
    ways.retain(|way| way.everywhere || !way.routes.is_empty());
    ways
}
