//! L2. The compiled configuration: the one document that the control plane writes and the data plane reads.
//!
//! It is a superset of the filter configuration of Envoy AI Gateway v1.1: every field of that document keeps its name
//! and meaning, and unknown fields at that level are ignored. What is ours sits in [`Config::gateways`], where unknown
//! fields are refused. Secrets are held in [`secrecy::SecretString`], which does not print.

mod auth;
mod quota;
mod redacted;
mod revealed;
mod shown;
mod tenancy;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::auth::{
    ApiKeyAuth, Auth, AwsAuth, AwsRole, AzureApplication, AzureAuth, CredentialOverride, GcpAuth,
    GcpFederation, Issuer,
};
pub use self::quota::{
    CalendarUnit, Compare, DimensionKind, EstimateMethod, ModelOutput, ModelPrice, OnError, OnLeaseExpiry,
    OnStoreFailure, Quota, QuotaDimension, QuotaLimit, QuotaMetric, QuotaMode, QuotaSource, QuotaTarget,
    QuotaTargetKind, QuotaTenant, QuotaTest, QuotaWindow, WindowKind,
};
pub use self::revealed::Revealed;
pub use self::tenancy::{Access, KeyDemand, Parts, Proof, ProofKind, Tenancy};
pub use crate::wire::ApiSchemaName;

/// The whole document. One instance describes everything one processor serves.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    /// The version of the controller that wrote the document.
    pub version: String,
    /// Identifies this edition of the document in logs; no meaning otherwise.
    pub uuid: String,
    /// Costs evaluated for every request whose route does not define the same key.
    #[serde(rename = "globalLLMRequestCosts")]
    pub global_llm_request_costs: Vec<LlmRequestCost>,
    /// Costs of single routes.
    pub llm_request_costs: Vec<RouteCost>,
    /// Every backend a request can be sent to, keyed by [`Backend::name`].
    pub backends: Vec<Backend>,
    /// Models listed when no host list applies.
    pub models: Vec<Model>,
    /// Models listed per host name (`*.suffix` allowed).
    pub models_by_host: BTreeMap<String, Vec<Model>>,
    /// Models of routes without host names, listed for unknown hosts.
    pub unscoped_models: Vec<Model>,
    /// The gateways whose requests are routed *directly*: rule, credential and body in one reply.
    pub gateways: Vec<Gateway>,
    /// How much requests may use.
    pub quotas: Vec<Quota>,
}

/// What a cost is computed from. Names are those of `llmRequestCosts[].type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum CostType {
    /// Tokens of the answer.
    OutputToken,
    /// Tokens of the prompt.
    InputToken,
    /// Prompt tokens read from the provider's cache.
    CachedInputToken,
    /// Prompt tokens written to the provider's cache.
    CacheCreationInputToken,
    /// Prompt and answer together.
    TotalToken,
    /// Answer tokens spent on reasoning.
    ReasoningToken,
    /// The result of a CEL expression.
    #[serde(rename = "CEL")]
    Cel,
}

/// One number that is computed from a finished exchange and published as dynamic metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LlmRequestCost {
    /// The key under `io.envoy.ai_gateway`.
    pub metadata_key: String,
    /// What the number is.
    #[serde(rename = "type")]
    pub kind: CostType,
    /// The expression, for [`CostType::Cel`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cel: Option<String>,
}

/// A cost that applies to one route only, optionally narrowed to one backend and one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "RouteCostMembers")]
pub struct RouteCost {
    /// `namespace/name` of the route.
    pub route_name: String,
    /// `namespace/name` of the backend it is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The effective request model it is narrowed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The cost itself.
    #[serde(flatten)]
    pub cost: LlmRequestCost,
}

/// A [`RouteCost`] as it is read: all members side by side, so that a deserializer knows their names.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RouteCostMembers {
    route_name: String,
    #[serde(default)]
    backend: Option<String>,
    #[serde(default)]
    model: Option<String>,
    metadata_key: String,
    #[serde(rename = "type")]
    kind: CostType,
    #[serde(default)]
    cel: Option<String>,
}

impl From<RouteCostMembers> for RouteCost {
    fn from(members: RouteCostMembers) -> Self {
        let RouteCostMembers { route_name, backend, model, metadata_key, kind, cel } = members;
        Self { route_name, backend, model, cost: LlmRequestCost { metadata_key, kind, cel } }
    }
}

/// One place a request can be sent to, with everything that is done to the request on the way.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// `namespace/name/route/<route>/rule/<i>/ref/<j>`: unique in the document.
    pub name: String,
    /// Replaces the model the client asked for.
    #[serde(default)]
    pub model_name_override: Option<String>,
    /// The API the backend speaks.
    #[serde(default)]
    pub schema: ApiSchema,
    /// The credential sent to the backend.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// Header edits, applied before the credential.
    #[serde(default, rename = "httpHeaderMutation")]
    pub header_mutation: Option<HeaderMutation>,
    /// Top-level JSON edits of the request body.
    #[serde(default, rename = "httpBodyMutation")]
    pub body_mutation: Option<BodyMutation>,
}

/// An API dialect and where it is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiSchema {
    /// The dialect.
    pub name: ApiSchemaName,
    /// The API version, for dialects that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Path prefix. OpenAI takes it verbatim, so that an empty one means none; absent means `v1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Header edits: removals first, then sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderMutation {
    /// Headers to set, replacing any value.
    pub set: Vec<HeaderValue>,
    /// Headers to remove, lower-case.
    pub remove: Vec<String>,
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderValue {
    /// Lower-case name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// Edits of top-level members of a JSON request body: removals first, then sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BodyMutation {
    /// Members to set.
    pub set: Vec<BodyField>,
    /// Members to remove.
    pub remove: Vec<String>,
}

/// One JSON member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyField {
    /// The member's name.
    pub path: String,
    /// A JSON document; anything that is not one is taken as a string.
    pub value: String,
}

/// A model as the models endpoints list it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The id clients send.
    #[serde(rename = "Name", alias = "name")]
    pub name: String,
    /// Who runs it.
    #[serde(rename = "OwnedBy", alias = "ownedBy", default)]
    pub owned_by: String,
    /// When it was added, RFC 3339.
    #[serde(rename = "CreatedAt", alias = "createdAt", default)]
    pub created_at: String,
}

/// One set of routes that is served under one identity. Envoy's filter names it in the `:authority` of the gRPC stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gateway {
    /// The `:authority` by which Envoy asks for this gateway; unique in the document.
    pub authority: String,
    /// `namespace/name` of the Gateway, for logs and metrics.
    pub name: String,
    /// Host names, each with the rules that serve it. A request is served by the most specific host only, as Envoy's
    /// virtual hosts are: exact, then the longest `*.suffix`, then `*`.
    pub hosts: Vec<Host>,
    /// Everything a rule can send a request to.
    pub rules: Vec<Rule>,
    /// The models listed to clients of this gateway, per host as [`Config::models_by_host`].
    pub models: Models,
    /// What every request that reaches the processor has to prove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
    /// Who its clients are, where no rule says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Tenancy>,
    /// Whether its clients show keys of the gateway's own; absent: as the processor is told otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_key: Option<KeyDemand>,
}

/// The models lists of one gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Models {
    /// Listed when [`Models::by_host`] is empty or the request names no host.
    pub all: Vec<Model>,
    /// Listed per host.
    pub by_host: BTreeMap<String, Vec<Model>>,
    /// Listed for hosts that no list names.
    pub unscoped: Vec<Model>,
}

/// The ordered matches of one host name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// `*`, `*.suffix` or an exact lower-case name.
    pub hostname: String,
    /// In order of precedence: the first that matches decides.
    pub matches: Vec<RuleMatch>,
}

/// A conjunction of header matches and the rule it selects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleMatch {
    /// All must match; none means always.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
    /// Index into [`Gateway::rules`].
    pub rule: usize,
}

/// How a header is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum HeaderMatchType {
    /// Byte for byte.
    #[default]
    Exact,
    /// RE2 syntax, over the whole value.
    RegularExpression,
}

/// One header comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// Lower-case name.
    pub name: String,
    /// How.
    #[serde(rename = "type", default)]
    pub kind: HeaderMatchType,
    /// The value or the expression.
    pub value: String,
}

/// A route rule: *direct* if all its backends are of one kind, so that one reply can route and sign; *per attempt* if Envoy
/// has to choose a backend first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// `namespace/name` of the AIGatewayRoute.
    pub route: String,
    /// [`Backend::name`] of the backend of a direct rule; where Envoy spreads it over several of one kind, the first. Empty
    /// where [`Rule::attempts`] is not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// [`Backend::name`]s of the backends of a rule that is served per attempt: of these, and of no others, Envoy tells the
    /// processor for each attempt which one it is about to send the request to. Empty for a direct rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<String>,
    /// The value of the routing header (`x-ai-eg-route`): a keyed digest over the rule, its backends and everything that
    /// is sent to them. Envoy's route for this rule demands it, so that a request signed for one configuration can never
    /// be delivered by another.
    pub routing_key: String,
    /// What every attempt of its requests has to prove besides. Only for rules that are served per attempt: the credential is added
    /// once Envoy's filters, which stand behind the processor for the sake of these rules, have let the request pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
    /// Takes the place of [`Gateway::tenancy`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Tenancy>,
}
