//! Puts the objects together: which HTTPRoutes a route has on which Gateway, and what else a Gateway needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use crate::compile::routes::AttachedRoute;
use crate::resources::Snapshot;

use super::applied::{Applied, Before};
use super::objects::{self, Filters};
use super::placement::{self, Placed, Wanted};
use super::protection::Subject;
use super::sites::Site;
use super::targets::{Object as Aimed, targets};
use super::{KubernetesOptions, Object, names, neighbours};

/// How HTTPRoutes are called. One Gateway of a route has the HTTPRoute of its name, as upstream calls it, and keeps it: the
/// first one that the route names. Those of others are called by what they are for.
pub(super) struct Layout<'a> {
    previous: &'a Applied,
    /// By `namespace/name` of the route, the Service of the Gateway whose HTTPRoute has its name.
    holders: BTreeMap<(String, String), String>,
    taken: names::Taken,
}

impl<'a> Layout<'a> {
    pub(super) fn new(snapshot: &Snapshot, sites: &[Site<'_>], previous: &'a Applied) -> Self {
        let mut taken = names::Taken::default();
        let mut holders = BTreeMap::new();
        for route in snapshot.http_routes.iter().filter(|route| neighbours::occupies(route)) {
            taken.add(route.namespace(), route.name());
        }
        for route in &snapshot.ai_gateway_routes {
            taken.add(route.namespace(), route.name());
            let named = route.spec.parent_refs.iter().filter_map(|parent| {
                sites.iter().find(|site| objects::is_parent(parent, route, site)).map(|site| &site.service)
            });
            let named: Vec<&String> = named.collect();
            let holder = match previous.get(route.namespace(), route.name()) {
                // Nobody else has it until it is gone: its requests are still under way.
                Some(before) => named.iter().find(|service| ***service == before.service),
                None => named.first(),
            };
            if let Some(holder) = holder {
                holders.insert((route.namespace().to_owned(), route.name().to_owned()), (*holder).clone());
            }
        }
        Self { previous, holders, taken }
    }

    /// A route on a Gateway, as its first HTTPRoute is called there.
    pub(super) fn subject<'r>(&mut self, site: &Site<'_>, route: &'r AttachedRoute<'r>) -> Subject<'r> {
        let (namespace, name) = (route.resource.namespace(), route.resource.name());
        let holder = self.holders.get(&(namespace.to_owned(), name.to_owned()));
        let http_route = if holder == Some(&site.service) {
            name.to_owned()
        } else {
            self.further(site, namespace, name, 0)
        };
        Subject { http_route, labels: objects::route_labels(&route.resource.metadata, &site.service), route }
    }

    fn further(&mut self, site: &Site<'_>, namespace: &str, route: &str, index: usize) -> String {
        self.taken.find(namespace, route, &format!("{namespace}/{route} {} {index}", site.id))
    }

    /// Why the route has no HTTPRoute on a Gateway, if a user's own has the name.
    pub(super) fn occupied(&self, snapshot: &Snapshot, subject: &Subject<'_>) -> Option<String> {
        let found = snapshot.http_routes.get(subject.route.resource.namespace(), &subject.http_route)?;
        neighbours::occupies(found).then(|| {
            format!(
                "{} is not one of ours and has the name that is needed: rename one of the two",
                found.id()
            )
        })
    }

    fn before(&self, namespace: &str, name: &str, site: &Site<'_>) -> Option<&'a Before> {
        self.previous.get(namespace, name).filter(|before| before.service == site.service)
    }
}

/// Collects objects.
pub(super) struct Writer<'a> {
    snapshot: &'a Snapshot,
    options: &'a KubernetesOptions,
    after: Vec<Object>,
    between: Vec<Object>,
    /// Routes whose filters are written.
    filtered: BTreeSet<(String, String)>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, options: &'a KubernetesOptions) -> Self {
        Self { snapshot, options, after: Vec::new(), between: Vec::new(), filtered: BTreeSet::new() }
    }

    fn both(&mut self, object: Object) {
        self.between.push(object.clone());
        self.after.push(object);
    }

    /// Writes the HTTPRoutes of a route on a Gateway, and returns their names.
    pub(super) fn route(
        &mut self,
        site: &Site<'_>,
        route: &AttachedRoute<'_>,
        subject: &Subject<'_>,
        wanted: Vec<Wanted>,
        layout: &mut Layout<'_>,
    ) -> Vec<String> {
        let resource = route.resource;
        let (namespace, name) = (resource.namespace(), resource.name());
        let filters = Filters::of(name);
        if self.filtered.insert((namespace.to_owned(), name.to_owned())) {
            for filter in filters.objects(resource, &site.service) {
                self.both(filter);
            }
        }
        // As many names as there may be HTTPRoutes: those of before and the new rules, none of which is left out.
        let most = wanted.len() / 8 + 2 + layout.previous.count(namespace, name);
        let further = (1..most).map(|index| layout.further(site, namespace, name, index));
        let names: Vec<String> = std::iter::once(subject.http_route.clone()).chain(further).collect();
        let before: Vec<Option<&Before>> =
            names.iter().map(|name| layout.before(namespace, name, site)).collect();
        let Placed { after, between } = placement::place(wanted, &before);
        let last = filters.last(&self.options.root_prefix);
        let write = |rules: &Vec<Value>, index: usize| {
            let mut rules = rules.clone();
            if index == 0 {
                rules.extend(last.iter().cloned());
            }
            let name = names.get(index)?;
            (!rules.is_empty()).then(|| objects::http_route(resource, site, name, &rules))
        };
        self.after.extend(after.iter().enumerate().filter_map(|(index, rules)| write(rules, index)));
        self.between.extend(between.iter().enumerate().filter_map(|(index, rules)| write(rules, index)));
        let names: Vec<String> = names.into_iter().take(after.len()).collect();
        if !self.has_backend_traffic(site, subject, &names)
            && let Some(policy) = objects::backend_traffic(site, resource, &names)
        {
            self.both(policy);
        }
        names
    }

    /// Whether a user says how the backends of the route are treated.
    fn has_backend_traffic(&self, site: &Site<'_>, subject: &Subject<'_>, names: &[String]) -> bool {
        let resource = subject.route.resource;
        let names = || names.iter().map(String::as_str).chain([resource.name()]);
        let policies = self.snapshot.backend_traffic_policies.iter();
        policies.filter(|policy| !neighbours::is_ours(policy)).any(|policy| {
            let route = |name| Aimed {
                kind: "HTTPRoute",
                namespace: resource.namespace(),
                name,
                labels: &subject.labels,
            };
            aims_at_gateway(targets!(policy), site)
                || names().any(|name| !targets!(policy).sections(route(name)).is_empty())
        })
    }

    /// Writes what a Gateway needs besides its HTTPRoutes.
    pub(super) fn site(&mut self, site: &Site<'_>, attached: &[AttachedRoute<'_>]) {
        self.both(objects::service(site, self.options));
        let namespaces: BTreeSet<&str> = attached.iter().map(|route| route.resource.namespace()).collect();
        for namespace in namespaces {
            if namespace != self.options.system_namespace {
                self.both(objects::grant(site, namespace, self.options));
            }
            self.both(objects::extension(site, namespace, self.options));
        }
        let policies = self.snapshot.client_traffic_policies.iter();
        let users = policies.filter(|policy| !neighbours::is_ours(policy));
        if !{ users }.any(|policy| aims_at_gateway(targets!(policy), site)) {
            self.both(objects::client_traffic(site));
        }
    }

    /// All objects, and those there shall be before, if they are others or something has to stay for a while.
    pub(super) fn finish(mut self, previous: &Applied) -> (Vec<Object>, Option<Vec<Object>>) {
        for objects in [&mut self.after, &mut self.between] {
            objects.sort_by(|a, b| {
                let place = |object: &Object| rank(&object.kind);
                (place(a), &a.namespace, &a.name).cmp(&(place(b), &b.namespace, &b.name))
            });
        }
        let routes = self.after.iter().filter(|object| object.kind == "HTTPRoute");
        let routes: HashSet<(&str, &str)> =
            routes.map(|object| (object.namespace.as_str(), object.name.as_str())).collect();
        let stays = previous.names().all(|name| routes.contains(&name));
        let differs = !stays || self.after != self.between;
        (self.after, differs.then_some(self.between))
    }
}

fn aims_at_gateway(targets: super::targets::Targets<'_>, site: &Site<'_>) -> bool {
    let gateway = Aimed {
        kind: "Gateway",
        namespace: site.gateway.namespace(),
        name: site.gateway.name(),
        labels: &site.gateway.metadata.labels,
    };
    !targets.sections(gateway).is_empty()
}

/// What others refer to comes first, and HTTPRoutes last, when the policy that sends their requests through the processors is
/// there.
fn rank(kind: &str) -> usize {
    let order = [
        "Service",
        "ReferenceGrant",
        "HTTPRouteFilter",
        "EnvoyExtensionPolicy",
        "ClientTrafficPolicy",
        "BackendTrafficPolicy",
        "HTTPRoute",
    ];
    order.iter().position(|known| *known == kind).unwrap_or(order.len())
}
