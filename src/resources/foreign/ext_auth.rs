//! A service that says whether requests may pass (`ExtAuth` of Envoy Gateway).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::cluster_settings::{ClusterBackend, ClusterSettings};
use crate::resources::types::{API_GROUP, API_KIND, BackendObjectReference, GatewayDuration};

/// A service that says whether requests may pass.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.grpc) != has(self.http)", "there must be exactly one of `grpc` and `http`"],
]))]
pub struct ExtAuth {
    /// Whether the body is sent too.
    pub body_to_ext_auth: Option<BodyToExtAuth>,
    /// What the service is told besides.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub context_extensions: Option<Vec<ContextExtension>>,
    /// Whether requests pass while the service is out of reach.
    #[serde(default)]
    pub fail_open: bool,
    /// It speaks gRPC.
    pub grpc: Option<GRPCExtAuth>,
    /// The headers it is sent.
    pub headers_to_ext_auth: Option<Vec<String>>,
    /// It speaks HTTP.
    pub http: Option<HTTPExtAuth>,
    /// Whether it is sent the metadata of the route.
    pub include_route_metadata: Option<bool>,
    /// Whether the route is chosen again after it has answered.
    pub recompute_route: Option<bool>,
    /// What clients get while it is out of reach.
    #[serde(default)]
    #[schemars(schema_with = "status")]
    pub status_on_error: Option<i32>,
    /// How long it may take.
    pub timeout: Option<GatewayDuration>,
}

fn status(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "format": "int32", "enum": [
        400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 426, 428,
        429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511
    ] })
}

/// How much of the body is sent.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BodyToExtAuth {
    /// In bytes.
    #[schemars(range(min = 1))]
    pub max_request_bytes: i32,
}

/// Something that the service is told.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "has(self.value) == (self.type == 'Value') && has(self.valueRef) == (self.type == 'ValueRef')",
    "type Value needs `value`, type ValueRef needs `valueRef`, and neither the other"
]]))]
pub struct ContextExtension {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(rename = "type")]
    #[schemars(extend("x-crd" = {"default": "Value"}))]
    pub kind: Option<ContextExtensionType>,
    /// For type `Value`.
    pub value: Option<String>,
    /// For type `ValueRef`.
    pub value_ref: Option<LocalObjectKeyReference>,
}

/// Where something stands that the service is told.
#[derive(JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum ContextExtensionType {
    Value,
    ValueRef,
}

/// A key of an object of the same namespace.
#[derive(JsonSchema)]
#[schemars(extend("x-rules" = [[
    "self.group in ['', 'v1'] && self.kind in ['ConfigMap', 'Secret']",
    "name a ConfigMap or a Secret of the core group"
]]))]
pub struct LocalObjectKeyReference {
    /// API group; empty is the core group.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// The key.
    pub key: String,
    /// Kind.
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A service that speaks gRPC.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.backendRef) || (has(self.backendRefs) && size(self.backendRefs) > 0)",
     "there must be `backendRefs`, or `backendRef`"],
    ["!has(self.backendRefs) || self.backendRefs.all(b, b.kind in ['Service', 'ServiceImport', 'Backend'])",
     "`backendRefs` can name Services, ServiceImports and Backends"],
    ["!has(self.backendRefs) || self.backendRefs.all(b, b.group in ['', 'multicluster.x-k8s.io', 'gateway.envoyproxy.io'])",
     "`backendRefs` can name objects of the core group, `multicluster.x-k8s.io` and `gateway.envoyproxy.io`"],
]))]
pub struct GRPCExtAuth {
    /// Where it is (older form).
    pub backend_ref: Option<BackendObjectReference>,
    /// Where it is.
    #[schemars(length(max = 16))]
    pub backend_refs: Option<Vec<ClusterBackend>>,
    /// How Envoy treats it.
    pub backend_settings: Option<ClusterSettings>,
}

/// A service that speaks HTTP.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.backendRef) || (has(self.backendRefs) && size(self.backendRefs) > 0)",
     "there must be `backendRefs`, or `backendRef`"],
    ["!has(self.backendRefs) || self.backendRefs.all(b, b.kind in ['Service', 'ServiceImport', 'Backend'])",
     "`backendRefs` can name Services, ServiceImports and Backends"],
    ["!has(self.backendRefs) || self.backendRefs.all(b, b.group in ['', 'multicluster.x-k8s.io', 'gateway.envoyproxy.io'])",
     "`backendRefs` can name objects of the core group, `multicluster.x-k8s.io` and `gateway.envoyproxy.io`"],
    ["!has(self.path) || !has(self.pathOverride)", "there can be one of `path` and `pathOverride`"],
]))]
pub struct HTTPExtAuth {
    /// Where it is (older form).
    pub backend_ref: Option<BackendObjectReference>,
    /// Where it is.
    #[schemars(length(max = 16))]
    pub backend_refs: Option<Vec<ClusterBackend>>,
    /// How Envoy treats it.
    pub backend_settings: Option<ClusterSettings>,
    /// Headers of its answer that backends are sent.
    pub headers_to_backend: Option<Vec<String>>,
    /// What the path of a request to it begins with.
    pub path: Option<String>,
    /// The path of a request to it.
    pub path_override: Option<String>,
}
