//! AIServiceBackends, resolved: dialect, edits, credential and destination of each, worked out once however many rules
//! refer to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::config::{ApiSchema, ApiSchemaName};
use crate::diagnostics::{Diagnostics, suggest};
use crate::endpoint::Endpoint;
use crate::resources::aigateway::{
    AIServiceBackend, HTTPBodyMutation, HTTPHeaderMutation, VersionedAPISchema,
};
use crate::resources::envoy_gateway::Backend;
use crate::resources::types::BackendObjectReference;
use crate::resources::{Located, Snapshot};
use crate::translate::Pair;

use super::credentials::{Credential, Policies};
use super::destinations::{self, Destinations, Place};
use super::grants::{From, To, allowed, missing};
use super::plan::{ClusterPlan, ClusterTraffic};
use super::{EmbeddedBackend, digest, envoy};

const BACKEND_GROUP: &str = "gateway.envoyproxy.io";

/// An AIServiceBackend that can be sent requests.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) schema: ApiSchema,
    pub(super) header_mutation: Option<HTTPHeaderMutation>,
    pub(super) body_mutation: Option<HTTPBodyMutation>,
    pub(super) credential: Option<Credential>,
    pub(super) cluster: ClusterPlan,
    /// What the cluster was made of, with its namespace.
    pub(super) reference: BackendObjectReference,
    /// Each way in which rules have asked for it to be treated so far: there are few, of however many rules.
    reached: RefCell<Vec<Rc<Reached>>>,
}

/// A destination, treated as a rule asks for.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) cluster: ClusterPlan,
    /// Of the cluster as Envoy reads it.
    pub(super) digest: String,
}

impl Service {
    /// Where requests go that are treated like that.
    pub(super) fn reached(&self, traffic: &ClusterTraffic) -> Rc<Reached> {
        let mut known = self.reached.borrow_mut();
        if let Some(reached) = known.iter().find(|reached| reached.cluster.traffic == *traffic) {
            return Rc::clone(reached);
        }
        let cluster = destinations::treated(&self.cluster, traffic);
        let digest = digest::of(&envoy::provider_cluster(&cluster).to_string());
        let reached = Rc::new(Reached { cluster, digest });
        known.push(Rc::clone(&reached));
        reached
    }
}

/// Resolves AIServiceBackends and remembers the answers, refusals included.
pub(super) struct Services<'a> {
    snapshot: &'a Snapshot,
    destinations: Destinations<'a>,
    credentials: Policies<'a>,
    resolved: BTreeMap<usize, Option<Rc<Service>>>,
    clusters: BTreeMap<usize, Option<ClusterPlan>>,
}

impl<'a> Services<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, place: Place<'a>) -> Self {
        Self {
            snapshot,
            destinations: Destinations::new(snapshot, place),
            credentials: Policies::new(snapshot),
            resolved: BTreeMap::new(),
            clusters: BTreeMap::new(),
        }
    }

    /// Knows what is known already, and keeps what it learns besides to itself.
    pub(super) fn aside(&self) -> Self {
        Self {
            snapshot: self.snapshot,
            destinations: self.destinations.afresh(),
            credentials: self.credentials.clone(),
            resolved: self.resolved.clone(),
            clusters: self.clusters.clone(),
        }
    }

    pub(super) fn embedded_backends(self) -> Vec<EmbeddedBackend> {
        self.destinations.into_embedded()
    }

    /// What is known of an AIServiceBackend; `None` if it cannot be used, which has been said by then.
    pub(super) fn resolve(
        &mut self,
        backend: &Located<AIServiceBackend>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Rc<Service>> {
        if let Some(known) = self.resolved.get(&backend.order) {
            return known.clone();
        }
        let service = self.work_out(backend, diagnostics).map(Rc::new);
        self.resolved.insert(backend.order, service.clone());
        service
    }

    fn work_out(
        &mut self,
        backend: &Located<AIServiceBackend>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Service> {
        let spec = &backend.spec;
        // Each of the three may have something to say; the user should read all of it at once.
        let schema = schema(backend, diagnostics);
        let cluster = self.destination(backend, diagnostics);
        let credential = match &schema {
            // Nothing more to be learnt about a backend that is out already.
            None => None,
            Some(_) => self.credentials.of(backend, diagnostics).ok(),
        };
        Some(Service {
            schema: schema?,
            header_mutation: spec.header_mutation.clone(),
            body_mutation: spec.body_mutation.clone(),
            credential: credential?,
            cluster: cluster?,
            reference: BackendObjectReference {
                namespace: Some(
                    spec.backend_ref.namespace.clone().unwrap_or_else(|| backend.namespace().to_owned()),
                ),
                ..spec.backend_ref.clone()
            },
            reached: RefCell::default(),
        })
    }

    fn destination(
        &mut self,
        backend: &Located<AIServiceBackend>,
        diagnostics: &mut Diagnostics,
    ) -> Option<ClusterPlan> {
        const FIELD: &str = "spec.backendRef";
        let reference = &backend.spec.backend_ref;
        if reference.group != BACKEND_GROUP || reference.kind != "Backend" {
            let message = format!("a {} cannot be the destination", reference.kind);
            diagnostics.push(
                backend
                    .error(FIELD, message)
                    .help(format!("refer to a Backend: kind: Backend, group: {BACKEND_GROUP}")),
            );
            return None;
        }
        let namespace = reference.namespace.as_deref().unwrap_or_else(|| backend.namespace());
        let to = To { group: BACKEND_GROUP, kind: "Backend", namespace, name: &reference.name };
        // Envoy Gateway checks the generated HTTPRoute, this project the AIServiceBackend; either grant shows consent.
        let ours = From {
            group: "aigateway.envoyproxy.io",
            kind: "AIServiceBackend",
            namespace: backend.namespace(),
        };
        let theirs =
            From { group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: backend.namespace() };
        if !allowed(self.snapshot, ours, to) && !allowed(self.snapshot, theirs, to) {
            let message =
                format!("the Backend is in namespace `{namespace}`, which does not allow this reference");
            diagnostics.push(backend.error(&format!("{FIELD}.namespace"), message).help(missing(theirs, to)));
            return None;
        }
        match self.snapshot.backends.get(namespace, &reference.name) {
            Some(found) => self.cluster(found, diagnostics),
            None => {
                let message = format!("there is no Backend {namespace}/{}", reference.name);
                let help = suggest(&reference.name, self.snapshot.backends.names_in(namespace));
                diagnostics.push(backend.error(&format!("{FIELD}.name"), message).help(help));
                None
            }
        }
    }

    /// The cluster of a Backend; `None` if it cannot be used, which has been said by then.
    pub(super) fn cluster(
        &mut self,
        backend: &Located<Backend>,
        diagnostics: &mut Diagnostics,
    ) -> Option<ClusterPlan> {
        if let Some(known) = self.clusters.get(&backend.order) {
            return known.clone();
        }
        let cluster = self.destinations.cluster(backend, diagnostics).ok();
        self.clusters.insert(backend.order, cluster.clone());
        cluster
    }
}

/// The dialect of a backend, if requests can be sent in it.
fn schema(backend: &Located<AIServiceBackend>, diagnostics: &mut Diagnostics) -> Option<ApiSchema> {
    let VersionedAPISchema { name, version, prefix } = &backend.spec.schema;
    let filled = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if !is_spoken(*name) {
        let all = ApiSchemaName::ALL.into_iter().filter(|name| is_spoken(*name));
        let spoken: Vec<String> = all.map(|name| format!("{name:?}")).collect();
        let message =
            format!("backends that speak {name:?} are not supported yet; {} are", spoken.join(", "));
        let help = "the rules that lead to it are left out until then";
        diagnostics.push(backend.warning("spec.schema.name", message).help(help));
        return None;
    }
    match name {
        ApiSchemaName::OpenAI | ApiSchemaName::Anthropic => {
            if filled(version) {
                let message = format!("`version` has no meaning for {name:?}: it does not change the path");
                let help = "to mount the API elsewhere than under /v1, write `prefix`";
                diagnostics.push(backend.warning("spec.schema.version", message).help(help));
            }
        }
        ApiSchemaName::AzureOpenAI => {
            if !filled(version) {
                let message = "AzureOpenAI needs `version`, the API version that every request names";
                let help = "for example version: 2025-01-01-preview";
                diagnostics.push(backend.error("spec.schema", message).help(help));
                return None;
            }
        }
        ApiSchemaName::Cohere
        | ApiSchemaName::AWSBedrock
        | ApiSchemaName::AWSAnthropic
        | ApiSchemaName::GCPVertexAI
        | ApiSchemaName::GCPAnthropic => {}
    }
    Some(ApiSchema { name: *name, version: version.clone(), prefix: prefix.clone() })
}

/// Whether any request can be sent in a dialect.
fn is_spoken(name: ApiSchemaName) -> bool {
    Endpoint::ALL.into_iter().any(|endpoint| Pair::of(endpoint, name).is_some())
}
