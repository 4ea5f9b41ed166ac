//! All typed objects, by kind and name, each knowing its place in the files.

use std::{
    any::Any,
    collections::{BTreeMap, btree_map::Entry},
    ops::Deref,
    sync::{Arc, LazyLock},
};

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    aigateway::{AIGatewayRoute, AIServiceBackend, GatewayConfig},
    core::{ConfigMap, Deployment, Secret, Service},
    envoy_gateway::{Backend, ClientTrafficPolicy, EnvoyProxy},
    gateway_api::{BackendTLSPolicy, Gateway, GatewayClass, ReferenceGrant},
    mcp::MCPRoute,
    neighbours::{EnvoyExtensionPolicy, HTTPRoute},
    quota_policy::QuotaPolicy,
    read::{Source, parse},
    rules::Rules,
    schema::Shape,
    security::BackendSecurityPolicy,
    security_policy::{SecurityPolicy, TenantPolicy},
    traffic::BackendTrafficPolicy,
    types::{DNS_LABEL, DNS_SUBDOMAIN},
    usage_limit::UsageLimit,
};
use crate::diagnostics::{Diagnostic, Location};

/// The namespace of objects that name none.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// What identifies an object and what is attached to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-accepted" = [
    "deletionGracePeriodSeconds", "finalizers", "generateName", "managedFields", "ownerReferences", "resourceVersion",
    "selfLink"
]))]
pub struct Metadata {
    /// The name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
    /// The namespace: `default` if the document names none, empty for kinds without namespaces.
    #[serde(default)]
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations; taken as they are written.
    #[serde(default)]
    #[schemars(extend("x-literal" = true))]
    pub annotations: BTreeMap<String, String>,
    /// When the object was created (RFC 3339), if the document says so.
    #[schemars(extend("format" = "date-time"))]
    pub creation_timestamp: Option<String>,
    /// Since when it is about to be deleted, if it is.
    #[schemars(extend("format" = "date-time"))]
    pub deletion_timestamp: Option<String>,
    /// What tells it from others that had or will have its name; only the API server's objects have one.
    pub uid: Option<String>,
    /// Which edition of what is asked for this is; only the API server's objects have one.
    pub generation: Option<i64>,
}

/// Where an object's fields are.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) kind: &'static str,
    pub(super) source: Arc<Source>,
    /// Line and column of the document's object.
    pub(super) start: (u32, u32),
    /// Line and column by field path.
    pub(super) positions: Arc<BTreeMap<String, (u32, u32)>>,
}

impl Origin {
    /// The place of a field, or of its nearest parent that was written.
    pub(super) fn locate(&self, field: &str) -> Location {
        let mut path = field;
        let (line, column) = loop {
            if let Some(position) = self.positions.get(path) {
                break *position;
            }
            match parent(path) {
                Some(shorter) => path = shorter,
                None => break self.start,
            }
        };
        self.source.location(line, column)
    }
}

/// The path without its last step: `a.b[0]` → `a.b`, `data["x.y"]` → `data`.
fn parent(path: &str) -> Option<&str> {
    let cut = match path.strip_suffix("\"]") {
        Some(quoted) => quoted.rfind("[\"")?,
        None => path.rfind(['.', '['])?,
    };
    Some(&path[..cut])
}

/// A typed object and where it comes from. It reads as the object itself (`route.spec.rules`).
#[derive(Debug, Clone)]
pub struct Located<T> {
    /// Editions of the files in which it stands unchanged share it.
    value: Arc<T>,
    /// Its name and labels.
    pub metadata: Arc<Metadata>,
    /// Its place among all objects of all files; breaks ties where creation times are equal or absent.
    pub order: usize,
    origin: Arc<Origin>,
}

impl<T> Located<T> {
    /// `Kind namespace/name`, or `Kind name` for kinds without namespaces.
    #[must_use]
    pub fn id(&self) -> String {
        identify(self.origin.kind, &self.metadata.namespace, &self.metadata.name)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The namespace; empty for kinds without namespaces.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// The place of a field such as `spec.rules[0].name` or `data["ca.crt"]`; if it was not written, that of its nearest
    /// parent that was.
    #[must_use]
    pub fn locate(&self, field: &str) -> Location {
        self.origin.locate(field)
    }

    /// An error about a field of this object.
    #[must_use]
    pub fn error(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.describe(field, Diagnostic::error(message))
    }

    /// A warning about a field of this object.
    #[must_use]
    pub fn warning(&self, field: &str, message: impl Into<String>) -> Diagnostic {
        self.describe(field, Diagnostic::warning(message))
    }

    fn describe(&self, field: &str, diagnostic: Diagnostic) -> Diagnostic {
        let at = self.origin.locate(field);
        let diagnostic = diagnostic.resource(self.id()).field(field);
        match self.origin.source.line(at.line) {
            Some(line) if !matches!(self.origin.kind, "Secret" | "MCPRoute") => {
                diagnostic.at(at).snippet(line)
            }
            _ => diagnostic.at(at),
        }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

pub(super) fn identify(kind: &str, namespace: &str, name: &str) -> String {
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

/// All objects of one kind.
#[derive(Debug, Clone)]
pub struct Kind<T> {
    items: Vec<Located<T>>,
    by_name: BTreeMap<(String, String), usize>,
}

impl<T> Default for Kind<T> {
    fn default() -> Self {
        Self { items: Vec::new(), by_name: BTreeMap::new() }
    }
}

impl<T> Kind<T> {
    /// The object of this namespace (empty for kinds without) and name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<&Located<T>> {
        self.by_name.get(&(namespace.to_owned(), name.to_owned())).and_then(|index| self.items.get(*index))
    }

    /// All objects in the order of the documents.
    pub fn iter(&self) -> std::slice::Iter<'_, Located<T>> {
        self.items.iter()
    }

    /// The names in a namespace, for suggestions.
    pub fn names_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        self.items.iter().filter(move |item| item.namespace() == namespace).map(Located::name)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds an object unless its name is taken, of which is told then.
    fn insert(&mut self, item: Located<T>) -> Option<Diagnostic> {
        match self.by_name.entry((item.metadata.namespace.clone(), item.metadata.name.clone())) {
            Entry::Occupied(taken) => {
                let first = self.items.get(*taken.get());
                let first = first.map_or_else(|| item.locate(""), |first| first.locate("metadata.name"));
                let twice = item.error("metadata.name", format!("{} is defined twice", item.id()));
                Some(twice.help(format!("the first one is at {first}; remove or rename one of them")))
            }
            Entry::Vacant(free) => {
                free.insert(self.items.len());
                self.items.push(item);
                None
            }
        }
    }
}

impl<'a, T> IntoIterator for &'a Kind<T> {
    type Item = &'a Located<T>;
    type IntoIter = std::slice::Iter<'a, Located<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// An object of the kind that it is filed under.
pub(super) type Typed = Arc<dyn Any + Send + Sync>;

/// What a document has become before it is filed.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) metadata: Arc<Metadata>,
    pub(super) value: Typed,
    pub(super) origin: Arc<Origin>,
    pub(super) order: usize,
}

type Read = fn(Arc<Metadata>, Value, &Arc<Origin>, bool) -> Result<Typed, Vec<Diagnostic>>;

/// A kind that has a meaning here.
pub(super) struct Served {
    pub(super) kind: &'static str,
    pub(super) group: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) namespaced: bool,
    pub(super) shape: Shape,
    /// Makes the object of what stands in its document, which an API server keeps or not; the findings say why it cannot be used.
    pub(super) read: Read,
    /// Takes it in, unless one of its name is there, of which is told then.
    pub(super) file: fn(&mut Snapshot, Draft) -> Option<Diagnostic>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $field:ident: $type:ident, $group:literal, $versions:expr, $namespaced:literal;)*) => {
        /// Every object that was read without an error.
        #[derive(Debug, Clone, Default)]
        pub struct Snapshot {
            $($(#[$doc])* pub $field: Kind<$type>,)*
            /// Documents that protect something and could not be read: the kind, and the namespace where that is known.
            pub rejected: Vec<(&'static str, Option<String>)>,
        }

        /// The kinds that have a meaning here.
        pub(super) static SERVED: LazyLock<Vec<Served>> = LazyLock::new(|| vec![$(Served {
            kind: stringify!($type),
            group: $group,
            versions: &$versions,
            namespaced: $namespaced,
            shape: Shape::of::<$type>(),
            read: read::<$type>,
            file: |snapshot, draft| file(&mut snapshot.$field, draft),
        },)*]);
    };
}

kinds! {
    /// GatewayClasses; they have no namespace.
    gateway_classes: GatewayClass, "gateway.networking.k8s.io", ["v1", "v1beta1"], false;
    /// Gateways.
    gateways: Gateway, "gateway.networking.k8s.io", ["v1", "v1beta1"], true;
    /// BackendTLSPolicies.
    backend_tls_policies: BackendTLSPolicy, "gateway.networking.k8s.io", ["v1", "v1alpha3"], true;
    /// ReferenceGrants.
    reference_grants: ReferenceGrant, "gateway.networking.k8s.io", ["v1", "v1beta1"], true;
    /// AIGatewayRoutes.
    ai_gateway_routes: AIGatewayRoute, "aigateway.envoyproxy.io", ["v1beta1", "v1alpha1"], true;
    /// AIServiceBackends.
    ai_service_backends: AIServiceBackend, "aigateway.envoyproxy.io", ["v1beta1", "v1alpha1"], true;
    /// BackendSecurityPolicies.
    backend_security_policies: BackendSecurityPolicy, "aigateway.envoyproxy.io", ["v1beta1", "v1alpha1"], true;
    /// GatewayConfigs.
    gateway_configs: GatewayConfig, "aigateway.envoyproxy.io", ["v1beta1", "v1alpha1"], true;
    /// Backends.
    backends: Backend, "gateway.envoyproxy.io", ["v1alpha1"], true;
    /// ClientTrafficPolicies.
    client_traffic_policies: ClientTrafficPolicy, "gateway.envoyproxy.io", ["v1alpha1"], true;
    /// BackendTrafficPolicies.
    backend_traffic_policies: BackendTrafficPolicy, "gateway.envoyproxy.io", ["v1alpha1"], true;
    /// SecurityPolicies.
    security_policies: SecurityPolicy, "gateway.envoyproxy.io", ["v1alpha1"], true;
    /// TenantPolicies.
    tenant_policies: TenantPolicy, "ext.aigateway.envoyproxy.io", ["v1alpha1"], true;
    /// MCPRoutes; nothing serves them yet.
    mcp_routes: MCPRoute, "aigateway.envoyproxy.io", ["v1beta1", "v1alpha1"], true;
    /// QuotaPolicies.
    quota_policies: QuotaPolicy, "aigateway.envoyproxy.io", ["v1alpha1"], true;
    /// UsageLimits.
    usage_limits: UsageLimit, "ext.aigateway.envoyproxy.io", ["v1alpha1"], true;
    /// EnvoyExtensionPolicies, of a cluster only.
    envoy_extension_policies: EnvoyExtensionPolicy, "gateway.envoyproxy.io", ["v1alpha1"], true;
    /// HTTPRoutes, of a cluster only.
    http_routes: HTTPRoute, "gateway.networking.k8s.io", ["v1", "v1beta1"], true;
    /// EnvoyProxies.
    envoy_proxies: EnvoyProxy, "gateway.envoyproxy.io", ["v1alpha1"], true;
    /// Secrets.
    secrets: Secret, "", ["v1"], true;
    /// ConfigMaps.
    config_maps: ConfigMap, "", ["v1"], true;
    /// Services.
    services: Service, "", ["v1"], true;
    /// Deployments.
    deployments: Deployment, "apps", ["v1"], true;
}

impl Snapshot {
    /// Reads one text of any number of documents, without environment variables. For tests and small tools.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Diagnostic>) {
        let (snapshot, findings) = parse([Source::new("input.yaml", text)], &|_| None);
        (snapshot, findings.into())
    }

    /// The Deployment whose pods a Service sends its requests to.
    #[must_use]
    pub fn deployment_of(&self, service: &Located<Service>) -> Option<&Located<Deployment>> {
        self.deployments.iter().find(|deployment| {
            deployment.namespace() == service.namespace() && deployment.selected_by(&service.spec)
        })
    }
}

fn read<T: DeserializeOwned + Rules + Send + Sync + 'static>(
    metadata: Arc<Metadata>,
    body: Value,
    origin: &Arc<Origin>,
    stored: bool,
) -> Result<Typed, Vec<Diagnostic>> {
    let value = match serde_json::from_value::<T>(body) {
        Ok(value) => Arc::new(value),
        Err(error) => {
            // The walk lets nothing through that does not deserialise; this is for what it may have missed.
            let message = match origin.kind {
                kind @ ("Secret" | "MCPRoute") => format!("this {kind} cannot be read"),
                kind => format!("this {kind} cannot be read: {error}"),
            };
            let id = identify(origin.kind, &metadata.namespace, &metadata.name);
            return Err(vec![Diagnostic::error(message).at(origin.locate("")).resource(id)]);
        }
    };
    let item = Located { value: Arc::clone(&value), metadata, order: 0, origin: Arc::clone(origin) };
    let mut findings = Vec::new();
    let report = &mut |field: &str, message: String, help: String| {
        let finding = item.error(field, message);
        findings.push(if help.is_empty() { finding } else { finding.help(help) });
    };
    if stored {
        value.check_stored(report);
    } else {
        value.check(report);
    }
    if findings.is_empty() { Ok(value) } else { Err(findings) }
}

fn file<T: Send + Sync + 'static>(kind: &mut Kind<T>, draft: Draft) -> Option<Diagnostic> {
    let Draft { metadata, value, origin, order } = draft;
    // It was read as this kind.
    let value = value.downcast::<T>().ok()?;
    kind.insert(Located { value, metadata, order, origin })
}
