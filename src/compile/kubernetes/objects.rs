//! The generated objects, as Kubernetes reads them. Fields that the API server would fill in are written, so that what it
//! keeps is what was written.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::exchange::{NO_ROUTE, PROCESSED_HEADER, ROUTING_HEADER, VERIFIED_TOKENS};
use crate::mutation::METADATA_NAMESPACE;
use crate::resources::aigateway::AIGatewayRoute;
use crate::resources::types::{BackendObjectReference, ParentReference};
use crate::resources::{Located, Metadata};

use super::sites::Site;
use super::{GATEWAY_LABEL, KubernetesOptions, MANAGED_BY, MANAGED_BY_LABEL, Object, names};

pub(super) const ROUTE_ANNOTATION: &str = "aigateway.envoyproxy.io/route";
/// What no request carries as its routing key.
pub(super) const NOBODY: &str = "none";

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";
/// Written by kubectl for itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Requests with images and documents pass; Envoy Gateway's own limit refuses them.
const BUFFER_LIMIT: &str = "64Mi";
/// As many as there are: a gateway for models holds thousands of requests open, and Envoy's default is 1,024.
const NO_LIMIT: u32 = u32::MAX;
/// The processor waits for stores and signs; Envoy Gateway's default of 200 ms is made for less.
const MESSAGE_TIMEOUT: &str = "10s";

/// Labels of what is generated for a Gateway.
pub(super) fn labels(service: &str) -> BTreeMap<String, String> {
    [(MANAGED_BY_LABEL, MANAGED_BY), (GATEWAY_LABEL, service)]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Those of a generated HTTPRoute: the route's own, and ours.
pub(super) fn route_labels(route: &Metadata, service: &str) -> BTreeMap<String, String> {
    let mut all = route.labels.clone();
    all.extend(labels(service));
    all
}

fn object(api_version: &str, kind: &str, metadata: Value, spec: Value) -> Object {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Object {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        body: json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec }),
    }
}

fn owner(route: &Located<AIGatewayRoute>) -> Option<Value> {
    let uid = route.metadata.uid.as_ref()?;
    Some(json!({
        "apiVersion": "aigateway.envoyproxy.io/v1beta1",
        "kind": "AIGatewayRoute",
        "name": route.name(),
        "uid": uid,
        "controller": true,
        "blockOwnerDeletion": true,
    }))
}

fn owned(mut metadata: Value, owners: Vec<Value>) -> Value {
    if !owners.is_empty() {
        metadata["ownerReferences"] = Value::Array(owners);
    }
    metadata
}

/// By which Envoy finds the processors, and by which they know for which Gateway it asks.
pub(super) fn service(site: &Site<'_>, options: &KubernetesOptions) -> Object {
    let metadata = json!({
        "name": site.service,
        "namespace": options.system_namespace,
        "labels": labels(&site.service),
        "annotations": { "aigateway.envoyproxy.io/gateway-id": site.id },
    });
    let port = json!({
        "name": "grpc",
        "port": options.port,
        "targetPort": options.port,
        "protocol": "TCP",
        "appProtocol": "kubernetes.io/h2c",
    });
    object(
        "v1",
        "Service",
        metadata,
        json!({ "type": "ClusterIP", "selector": options.selector, "ports": [port] }),
    )
}

/// Lets the policy of a namespace refer to the Service.
pub(super) fn grant(site: &Site<'_>, namespace: &str, options: &KubernetesOptions) -> Object {
    let metadata = json!({
        "name": names::suffixed(&site.service, namespace),
        "namespace": options.system_namespace,
        "labels": labels(&site.service),
    });
    let from = json!({ "group": ENVOY_GATEWAY, "kind": "EnvoyExtensionPolicy", "namespace": namespace });
    let to = json!({ "group": "", "kind": "Service", "name": site.service });
    object(
        &format!("{GATEWAY_API}/v1beta1"),
        "ReferenceGrant",
        metadata,
        json!({ "from": [from], "to": [to] }),
    )
}

/// Sends the requests of the generated HTTPRoutes of a namespace through the processors. It names none of the routes as its owner: it
/// would change with each of them, and with some thousands be larger than the API server takes.
pub(super) fn extension(site: &Site<'_>, namespace: &str, options: &KubernetesOptions) -> Object {
    let metadata = json!({ "name": site.service, "namespace": namespace, "labels": labels(&site.service) });
    let mut processor = json!({
        "backendRefs": [{
            "group": "",
            "kind": "Service",
            "name": site.service,
            "namespace": options.system_namespace,
            "port": options.port,
        }],
        "backendSettings": { "circuitBreaker": circuit_breaker() },
        "messageTimeout": MESSAGE_TIMEOUT,
        "failOpen": false,
        "processingMode": {
            "allowModeOverride": true,
            "request": { "body": "Buffered", "attributes": ["source.address"] },
            "response": {},
        },
        "metadata": { "accessibleNamespaces": [VERIFIED_TOKENS], "writableNamespaces": [METADATA_NAMESPACE] },
    });
    if options.system_namespace == namespace
        && let Some(reference) = processor["backendRefs"][0].as_object_mut()
    {
        reference.remove("namespace");
    }
    let selector = json!({ "group": GATEWAY_API, "kind": "HTTPRoute", "matchLabels": labels(&site.service) });
    object(
        &format!("{ENVOY_GATEWAY}/v1alpha1"),
        "EnvoyExtensionPolicy",
        metadata,
        json!({ "targetSelectors": [selector], "extProc": [processor] }),
    )
}

fn circuit_breaker() -> Value {
    json!({
        "maxConnections": NO_LIMIT,
        "maxPendingRequests": NO_LIMIT,
        "maxParallelRequests": NO_LIMIT,
        "maxParallelRetries": NO_LIMIT,
    })
}

/// Lets prompts through that have more than Envoy Gateway's default.
pub(super) fn client_traffic(site: &Site<'_>) -> Object {
    let metadata = json!({
        "name": site.service,
        "namespace": site.gateway.namespace(),
        "labels": labels(&site.service),
    });
    let target = json!({ "group": GATEWAY_API, "kind": "Gateway", "name": site.gateway.name() });
    object(
        &format!("{ENVOY_GATEWAY}/v1alpha1"),
        "ClientTrafficPolicy",
        metadata,
        json!({ "targetRefs": [target], "connection": { "bufferLimit": BUFFER_LIMIT } }),
    )
}

/// Lets more requests under way at providers than Envoy's default.
pub(super) fn backend_traffic(
    site: &Site<'_>,
    route: &Located<AIGatewayRoute>,
    http_routes: &[String],
) -> Option<Object> {
    let metadata = json!({
        // No name that a user might have given to a policy of another purpose.
        "name": names::suffixed(http_routes.first()?, &format!("{} backend traffic", site.id)),
        "namespace": route.namespace(),
        "labels": labels(&site.service),
    });
    let target = |name: &String| json!({ "group": GATEWAY_API, "kind": "HTTPRoute", "name": name });
    let targets: Vec<Value> = http_routes.iter().map(target).collect();
    Some(object(
        &format!("{ENVOY_GATEWAY}/v1alpha1"),
        "BackendTrafficPolicy",
        owned(metadata, owner(route).into_iter().collect()),
        json!({ "targetRefs": targets, "circuitBreaker": circuit_breaker() }),
    ))
}

/// The names of a route's filters.
pub(super) struct Filters {
    host_rewrite: String,
    not_found: String,
    not_ready: String,
}

impl Filters {
    pub(super) fn of(route: &str) -> Self {
        Self {
            host_rewrite: names::fitted(&format!("ai-eg-host-rewrite-{route}")),
            not_found: names::fitted(&format!("ai-eg-route-not-found-response-{route}")),
            not_ready: names::fitted(&format!("ai-eg-route-not-ready-response-{route}")),
        }
    }

    /// The filters themselves. They do not depend on the Gateway; `service` is that of the first.
    pub(super) fn objects(&self, route: &Located<AIGatewayRoute>, service: &str) -> Vec<Object> {
        let filter = |name: &str, spec: Value| {
            let metadata = json!({ "name": name, "namespace": route.namespace(), "labels": labels(service) });
            let metadata = owned(metadata, owner(route).into_iter().collect());
            object(&format!("{ENVOY_GATEWAY}/v1alpha1"), "HTTPRouteFilter", metadata, spec)
        };
        let answer = |status: u16, content_type: &str, text: &str| {
            json!({ "directResponse": {
                "contentType": content_type,
                "statusCode": status,
                "body": { "type": "Inline", "inline": text },
            }})
        };
        let not_ready = json!({ "error": {
            "type": "ServiceUnavailable",
            "code": "503",
            "message": "the gateway is taking over a new configuration; try again shortly",
        }});
        vec![
            filter(&self.host_rewrite, json!({ "urlRewrite": { "hostname": { "type": "Backend" } } })),
            filter(&self.not_found, answer(404, "text/plain", NO_ROUTE)),
            filter(&self.not_ready, answer(503, "application/json", &not_ready.to_string())),
        ]
    }

    fn reference(name: &str) -> Value {
        json!({
            "type": "ExtensionRef",
            "extensionRef": { "group": ENVOY_GATEWAY, "kind": "HTTPRouteFilter", "name": name },
        })
    }

    /// What is done to requests that go to a backend.
    pub(super) fn forwarding(&self) -> Value {
        let remove = json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": { "remove": [ROUTING_HEADER, PROCESSED_HEADER] },
        });
        json!([remove, Self::reference(&self.host_rewrite)])
    }

    pub(super) fn not_found(&self) -> Value {
        json!([Self::reference(&self.not_found)])
    }

    /// What ends the first HTTPRoute: choices of the processor that this Envoy does not know, and all that has not been at
    /// the processor yet, where requests begin.
    pub(super) fn last(&self, root_prefix: &str) -> [Value; 2] {
        let path = json!({ "type": "PathPrefix", "value": root_prefix });
        let header = json!({ "type": "Exact", "name": PROCESSED_HEADER, "value": "1" });
        [
            json!({
                "name": "route-not-ready",
                "matches": [{ "path": path, "headers": [header] }],
                "filters": [Self::reference(&self.not_ready)],
            }),
            json!({
                "name": "route-not-found",
                "matches": [{ "path": path }],
                "filters": self.not_found(),
            }),
        ]
    }
}

/// A rule that takes what the processor has chosen it for, and nothing else. `rest` are its other fields.
pub(super) fn rule(root_prefix: &str, key: &str, name: Option<&str>, rest: Value) -> Value {
    let header = |name: &str, value: &str| json!({ "type": "Exact", "name": name, "value": value });
    let mut rule = Map::new();
    if let Some(name) = name {
        rule.insert("name".to_owned(), json!(name));
    }
    let headers = [header(ROUTING_HEADER, key), header(PROCESSED_HEADER, "1")];
    let path = json!({ "type": "PathPrefix", "value": root_prefix });
    rule.insert("matches".to_owned(), json!([{ "path": path, "headers": headers }]));
    if let Value::Object(rest) = rest {
        rule.extend(rest);
    }
    Value::Object(rule)
}

/// Keeps the place of a rule that is gone; a rule without backends answers 500, to nobody.
pub(super) fn nothing() -> Value {
    rule("/", NOBODY, None, json!({}))
}

/// A backend of a rule.
pub(super) fn backend_ref(reference: &BackendObjectReference, weight: u32) -> Value {
    let mut written = json!({
        "group": reference.group,
        "kind": reference.kind,
        "name": reference.name,
        "namespace": reference.namespace,
        "weight": weight.min(1_000_000),
    });
    if let Some(port) = reference.port {
        written["port"] = json!(port);
    }
    written
}

/// One of the HTTPRoutes of a route on a Gateway.
pub(super) fn http_route(
    route: &Located<AIGatewayRoute>,
    site: &Site<'_>,
    name: &str,
    rules: &[Value],
) -> Object {
    let mut annotations: BTreeMap<&str, String> =
        route.metadata.annotations.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    annotations.remove(LAST_APPLIED);
    annotations.insert("gateway.envoyproxy.io/ai-gateway-generated", "true".to_owned());
    annotations.insert("gateway.envoyproxy.io/backend-ref-priority", priorities(route));
    annotations.insert(ROUTE_ANNOTATION, route.name().to_owned());
    let metadata = json!({
        "name": name,
        "namespace": route.namespace(),
        "labels": route_labels(&route.metadata, &site.service),
        "annotations": annotations,
    });
    let parents = route.spec.parent_refs.iter().filter(|parent| is_parent(parent, route, site));
    let parents: Vec<Value> = parents.map(|parent| parent_ref(parent, route)).collect();
    let mut spec = json!({ "parentRefs": parents, "rules": rules });
    if !route.spec.hostnames.is_empty() {
        spec["hostnames"] = json!(route.spec.hostnames);
    }
    object(
        &format!("{GATEWAY_API}/v1"),
        "HTTPRoute",
        owned(metadata, owner(route).into_iter().collect()),
        spec,
    )
}

/// Whether a reference of the route is to this Gateway.
pub(super) fn is_parent(parent: &ParentReference, route: &Located<AIGatewayRoute>, site: &Site<'_>) -> bool {
    parent.kind == "Gateway"
        && parent.group == GATEWAY_API
        && parent.name == site.gateway.name()
        && parent.namespace.as_deref().unwrap_or_else(|| route.namespace()) == site.gateway.namespace()
}

fn parent_ref(parent: &ParentReference, route: &Located<AIGatewayRoute>) -> Value {
    let ParentReference { group, kind, namespace, name, section_name, port } = parent;
    let namespace = namespace.as_deref().unwrap_or_else(|| route.namespace());
    let mut written = json!({ "group": group, "kind": kind, "namespace": namespace, "name": name });
    if let Some(section) = section_name {
        written["sectionName"] = json!(section);
    }
    if let Some(port) = port {
        written["port"] = json!(port);
    }
    written
}

/// Upstream's annotation: a change of priorities is a change of the HTTPRoute.
fn priorities(route: &Located<AIGatewayRoute>) -> String {
    let all = route.spec.rules.iter().enumerate().flat_map(|(index, rule)| {
        let one = move |reference: &crate::resources::aigateway::AIGatewayRouteRuleBackendRef| {
            format!("{index}:{}:{}", reference.name, reference.priority)
        };
        rule.backend_refs.iter().map(one)
    });
    all.collect::<Vec<_>>().join(",")
}
