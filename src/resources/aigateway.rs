//! AIGatewayRoute and AIServiceBackend of `aigateway.envoyproxy.io`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::foreign::{Checked, container::KubernetesContainerSpec};
use super::types::{
    API_GROUP, API_KIND_OR_EMPTY, BackendObjectReference, DNS_LABEL, DNS_SUBDOMAIN, GatewayDuration,
    HEADER_NAME, HOSTNAME, ParentReference,
};
use crate::config::{ApiSchemaName, CostType, HeaderMatchType};

/// Routes LLM requests by model and headers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct AIGatewayRoute {
    /// What is asked for.
    pub spec: AIGatewayRouteSpec,
}

/// See [`AIGatewayRoute`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AIGatewayRouteSpec {
    /// The Gateways it attaches to.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-field-rules" = [
        ["self.all(parent, parent.kind == 'Gateway')", "a route can attach to Gateways only"]
    ]))]
    pub parent_refs: Vec<ParentReference>,
    /// Only requests for these hosts are routed; none means any.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = HOSTNAME)))]
    pub hostnames: Vec<String>,
    /// The rules; Gateway API precedence decides among them.
    #[schemars(length(max = 15), extend("x-field-rules" = [[
        "self.all(rule, !has(rule.name) || self.exists_one(other, has(other.name) && other.name == rule.name))",
        "two rules have the same name"
    ]]))]
    pub rules: Vec<AIGatewayRouteRule>,
    /// Numbers published as dynamic metadata when an exchange has ended.
    #[serde(default)]
    #[schemars(length(max = 36))]
    pub llm_request_costs: Vec<LLMRequestCost>,
}

/// Matches and the backends they lead to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["!has(self.name) || self.name != 'route-not-found'",
     "the rule name `route-not-found` is taken: it names the answer to requests that no rule matches"],
    ["!has(self.backendRefs) || self.backendRefs.all(b, has(b.group) && has(b.kind)) \
      || !self.backendRefs.exists(b, has(b.group) || has(b.kind))",
     "a rule cannot have an InferencePool and an AIServiceBackend"],
    ["!has(self.backendRefs) || size(self.backendRefs) <= 1 || !self.backendRefs.exists(b, has(b.group) && has(b.kind))",
     "an InferencePool must be the only backend of its rule"],
]))]
pub struct AIGatewayRouteRule {
    /// The rule's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: Option<String>,
    /// Any of these must match; none means that every request does.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub matches: Vec<AIGatewayRouteRuleMatch>,
    /// Where requests are sent.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub backend_refs: Vec<AIGatewayRouteRuleBackendRef>,
    /// How long a request may take.
    #[serde(default)]
    pub timeouts: RuleTimeouts,
    /// How long a stream may stay silent.
    pub stream_idle_timeout: Option<GatewayDuration>,
    /// Who runs the models of this rule, for the models list.
    #[serde(default = "owned_by")]
    pub models_owned_by: String,
    /// When the models of this rule were added (RFC 3339), for the models list.
    #[schemars(extend("format" = "date-time"))]
    pub models_created_at: Option<String>,
}

/// A conjunction of header matches.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AIGatewayRouteRuleMatch {
    /// All must match.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HeaderMatch>,
}

/// One header comparison.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct HeaderMatch {
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: HeaderMatchType,
    /// The header, in any case.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// The value or the expression.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// A backend of a rule: an AIServiceBackend unless group and kind say otherwise.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.group) == has(self.kind)", "`group` and `kind` go together"],
    ["!has(self.group) || (self.group == 'inference.networking.k8s.io' && self.kind == 'InferencePool')",
     "leave `group` and `kind` out for an AIServiceBackend; the only other kind is InferencePool of `inference.networking.k8s.io`"],
]))]
pub struct AIGatewayRouteRuleBackendRef {
    /// Name of the backend.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Namespace; absent means that of the route.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
    /// API group; absent or empty means an AIServiceBackend.
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: Option<String>,
    /// Kind; absent or empty means an AIServiceBackend.
    #[schemars(length(max = 63), regex(pattern = API_KIND_OR_EMPTY))]
    pub kind: Option<String>,
    /// Sent to the backend in place of the model that the client named.
    pub model_name_override: Option<String>,
    /// Header edits, after those of the AIServiceBackend.
    pub header_mutation: Option<HTTPHeaderMutation>,
    /// Body edits, after those of the AIServiceBackend.
    pub body_mutation: Option<HTTPBodyMutation>,
    /// Share of the requests, relative to the other backends of the same priority.
    #[serde(default = "weight")]
    #[schemars(range(min = 0, max = 2_147_483_647_u32))]
    pub weight: u32,
    /// Lower ones are tried first.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_147_483_647_u32))]
    pub priority: u32,
}

/// How long a request may take; absent means the default, zero no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-rules" = [[
    "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') \
     || duration(self.backendRequest) <= duration(self.request)",
    "`backendRequest` cannot be longer than `request`"
]]))]
pub struct RuleTimeouts {
    /// From the client's request to the end of the answer.
    pub request: Option<GatewayDuration>,
    /// One attempt at a backend.
    pub backend_request: Option<GatewayDuration>,
}

/// One number that is published when an exchange has ended.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LLMRequestCost {
    /// The key under `io.envoy.ai_gateway`.
    pub metadata_key: String,
    /// What the number is.
    #[serde(rename = "type")]
    pub kind: CostType,
    /// The expression, for [`CostType::Cel`].
    pub cel: Option<String>,
}

/// Edits of the request headers: removals first, then sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HTTPHeaderMutation {
    /// Headers to set, replacing any value.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub set: Vec<HTTPHeader>,
    /// Headers to remove.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub remove: Vec<String>,
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct HTTPHeader {
    /// Its name, in any case.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// Its value.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// Edits of top-level members of the JSON request body: removals first, then sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HTTPBodyMutation {
    /// Members to set.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub set: Vec<HTTPBodyField>,
    /// Members to remove.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub remove: Vec<String>,
}

/// One JSON member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct HTTPBodyField {
    /// The member's name.
    #[schemars(length(min = 1))]
    pub path: String,
    /// A JSON document; anything that is not one is taken as a string.
    pub value: String,
}

/// A backend that speaks an LLM API.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct AIServiceBackend {
    /// What is asked for.
    pub spec: AIServiceBackendSpec,
}

/// See [`AIServiceBackend`]. Its `timeouts` of earlier API versions still stand in many files.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["timeouts"]))]
pub struct AIServiceBackendSpec {
    /// The API it speaks.
    pub schema: VersionedAPISchema,
    /// Where it is: a Backend of Envoy Gateway.
    #[schemars(extend("x-field-rules" = [[
        "self.group == 'gateway.envoyproxy.io' && self.kind == 'Backend'",
        "an AIServiceBackend refers to a Backend: write `kind: Backend` and `group: gateway.envoyproxy.io`"
    ]]))]
    pub backend_ref: BackendObjectReference,
    /// Header edits for every request.
    pub header_mutation: Option<HTTPHeaderMutation>,
    /// Body edits for every request.
    pub body_mutation: Option<HTTPBodyMutation>,
}

/// Settings of the Gateways of its namespace whose annotation `aigateway.envoyproxy.io/gateway-config` names it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GatewayConfig {
    /// What is asked for.
    pub spec: GatewayConfigSpec,
}

/// See [`GatewayConfig`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayConfigSpec {
    /// How the external processor is run. It has no meaning outside a cluster.
    pub ext_proc: Option<GatewayConfigExtProc>,
    /// Costs of every route that does not define the same key itself.
    #[serde(rename = "globalLLMRequestCosts")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["metadataKey"]))]
    pub global_llm_request_costs: Vec<LLMRequestCost>,
    /// The proxy through which providers are reached.
    pub forward_proxy: Option<ForwardProxy>,
}

/// How the external processor is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GatewayConfigExtProc {
    /// Its container.
    pub kubernetes: Option<Checked<KubernetesContainerSpec>>,
}

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct ForwardProxy {
    /// `host:port`.
    #[schemars(length(min = 1))]
    pub address: String,
}

/// An API dialect and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct VersionedAPISchema {
    /// The dialect.
    pub name: ApiSchemaName,
    /// The API version, for dialects that have one.
    pub version: Option<String>,
    /// Path prefix; absent means the dialect's own, which for OpenAI is `v1`.
    pub prefix: Option<String>,
}

fn weight() -> u32 {
    1
}

fn owned_by() -> String {
    "Envoy AI Gateway".to_owned()
}
