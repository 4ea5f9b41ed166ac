//! MCPRoute of `aigateway.envoyproxy.io`: routes for the Model Context Protocol. They are read and checked; nothing serves them
//! yet.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::aigateway::HeaderMatch;
use super::foreign::{
    Checked,
    cluster_settings::{ClusterBackend, ClusterSettings},
    ext_auth::ExtAuth,
};
use super::rules::{Report, unique};
use super::types::{
    API_GROUP, API_KIND, BackendObjectReference, DNS_LABEL, GatewayDuration, HOSTNAME, LocalObjectReference,
    ParentReference, SecretObjectReference,
};

/// Makes the tools of several MCP servers one server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct MCPRoute {
    /// What is asked for.
    pub spec: MCPRouteSpec,
}

/// See [`MCPRoute`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPRouteSpec {
    /// The Gateways it attaches to.
    #[schemars(length(min = 1, max = 16), extend("x-field-rules" = [
        ["self.all(parent, parent.kind == 'Gateway')", "a route can attach to Gateways only"]
    ]))]
    pub parent_refs: Vec<ParentReference>,
    /// Only requests for these hosts are routed; none means any.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = HOSTNAME)))]
    pub hostnames: Vec<String>,
    /// The path clients use.
    #[serde(default = "path")]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Only requests with these headers are routed.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HeaderMatch>,
    /// The MCP servers.
    #[schemars(length(min = 1, max = 256), extend("x-field-rules" = [
        ["self.all(b, self.exists_one(other, other.name == b.name))", "two backends have the same name"]
    ]))]
    pub backend_refs: Vec<MCPRouteBackendRef>,
    /// Which of the servers a session can use; absent means all.
    pub backend_selector: Option<MCPBackendSelector>,
    /// Who may use it.
    pub security_policy: Option<MCPRouteSecurityPolicy>,
}

/// An MCP server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [["has(self.port) || self.kind != 'Service' || self.group != ''", "a Service needs a `port`"]]))]
pub struct MCPRouteBackendRef {
    /// API group; empty is the core group.
    #[serde(default)]
    #[schemars(length(max = 253), regex(pattern = API_GROUP))]
    pub group: String,
    /// Kind.
    #[serde(default = "service_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = API_KIND))]
    pub kind: String,
    /// Name. The server's tools are told apart by it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace; absent means that of the route.
    #[schemars(length(min = 1, max = 63), regex(pattern = DNS_LABEL))]
    pub namespace: Option<String>,
    /// Port; needed for a Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The path the server is asked under.
    #[serde(default = "path")]
    #[schemars(length(max = 1024))]
    pub path: String,
    /// Headers of clients that it is sent.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub forward_headers: Vec<MCPForwardHeader>,
    /// Which of its tools there are; absent means all.
    pub tool_selector: Option<MCPToolFilter>,
    /// The credential it is sent.
    pub security_policy: Option<MCPBackendSecurityPolicy>,
}

/// A header that is sent on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPForwardHeader {
    /// What clients call it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// What the server calls it; absent means the same.
    #[schemars(length(min = 1))]
    pub backend_header: Option<String>,
}

/// Some of a server's tools.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["!has(self.include) || !has(self.includeRegex)", "there can be one of `include` and `includeRegex`"],
    ["!has(self.exclude) || !has(self.excludeRegex)", "there can be one of `exclude` and `excludeRegex`"],
    ["has(self.include) || has(self.includeRegex) || has(self.exclude) || has(self.excludeRegex)",
     "there must be one of `include`, `includeRegex`, `exclude` and `excludeRegex`"],
]))]
pub struct MCPToolFilter {
    /// By name.
    #[schemars(length(max = 32))]
    pub include: Option<Vec<String>>,
    /// By expressions, in RE2's syntax.
    #[schemars(length(max = 32))]
    pub include_regex: Option<Vec<String>>,
    /// All but those of these names.
    #[schemars(length(max = 32))]
    pub exclude: Option<Vec<String>>,
    /// All but those that fit these expressions.
    #[schemars(length(max = 32))]
    pub exclude_regex: Option<Vec<String>>,
}

/// What an MCP server is sent to let the gateway in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPBackendSecurityPolicy {
    /// A key.
    pub api_key: Option<MCPBackendAPIKey>,
}

/// A key, from a Secret or written down.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["has(self.secretRef) != has(self.inline)", "there must be exactly one of `secretRef` and `inline`"],
    ["!has(self.header) || !has(self.queryParam)", "there can be one of `header` and `queryParam`"],
]))]
pub struct MCPBackendAPIKey {
    /// The Secret that holds it under `apiKey`.
    pub secret_ref: Option<SecretObjectReference>,
    /// The key itself.
    #[schemars(with = "Option<String>")]
    pub inline: Option<SecretString>,
    /// The header it is sent in; absent means `Authorization`.
    #[schemars(length(min = 1))]
    pub header: Option<String>,
    /// The parameter of the query it is sent in instead.
    #[schemars(length(min = 1))]
    pub query_param: Option<String>,
}

/// Which of the servers a session can use.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPBackendSelector {
    /// What holds where no rule does.
    #[serde(default = "deny")]
    pub default_action: MCPAction,
    /// The rules; the first that fits counts.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub rules: Vec<MCPBackendSelectorRule>,
}

/// Whether something is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum MCPAction {
    Allow,
    Deny,
}

/// A rule about servers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct MCPBackendSelectorRule {
    /// What becomes of the servers that fit.
    #[serde(default = "allow")]
    pub action: MCPAction,
    /// Which fit, in CEL; absent means all.
    #[schemars(length(max = 4096))]
    pub cel: Option<String>,
}

/// Who may use a route.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "has(self.oauth) || !has(self.authorization) \
     || (has(self.authorization.rules) && !self.authorization.rules.exists(rule, has(rule.source)))",
    "`authorization` needs `oauth`, unless it has rules and none of them asks for a `source`"
]]))]
pub struct MCPRouteSecurityPolicy {
    /// Those with a token.
    pub oauth: Option<MCPRouteOAuth>,
    /// Those with a key.
    pub api_key_auth: Option<MCPRouteAPIKeyAuth>,
    /// Those whom a service lets pass.
    pub ext_auth: Option<Checked<ExtAuth>>,
    /// Which tools each may use.
    pub authorization: Option<MCPRouteAuthorization>,
}

/// Clients bring a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPRouteOAuth {
    /// Who issues it.
    #[schemars(extend("format" = "uri"))]
    pub issuer: String,
    /// Of which it has to name one; none means that any will do.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub audiences: Vec<String>,
    /// The issuer's keys; absent: they are discovered.
    pub jwks: Option<MCPRouteJWKS>,
    /// Claims that become headers.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub claim_to_headers: Vec<MCPClaimToHeader>,
    /// What clients are told about the route as a protected resource (RFC 9728).
    pub protected_resource_metadata: MCPProtectedResourceMetadata,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(extend("x-rules" = [
    ["has(self.remoteJWKS) || has(self.localJWKS)", "there must be one of `remoteJWKS` and `localJWKS`"],
    ["!has(self.remoteJWKS) || !has(self.localJWKS)", "there cannot be both `remoteJWKS` and `localJWKS`"],
]))]
pub struct MCPRouteJWKS {
    /// Elsewhere.
    #[serde(rename = "remoteJWKS")]
    pub remote_jwks: Option<Checked<MCPRemoteJWKS>>,
    /// Here.
    #[serde(rename = "localJWKS")]
    pub local_jwks: Option<Checked<MCPLocalJWKS>>,
}

/// Keys that are fetched.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [
    ["!has(self.backendRef)", "`backendRef` is not supported; write `backendRefs`"],
    ["!has(self.backendSettings) || !has(self.backendSettings.retry) || !has(self.backendSettings.retry.perRetry) \
      || !has(self.backendSettings.retry.perRetry.timeout)",
     "`backendSettings.retry.perRetry.timeout` is not supported"],
    ["!has(self.backendSettings) || !has(self.backendSettings.retry) || !has(self.backendSettings.retry.retryOn) \
      || !has(self.backendSettings.retry.retryOn.httpStatusCodes)",
     "`backendSettings.retry.retryOn.httpStatusCodes` is not supported"],
]))]
pub struct MCPRemoteJWKS {
    /// Where they are.
    #[schemars(length(min = 1, max = 253))]
    pub uri: String,
    /// How long they are good for.
    #[schemars(extend("x-crd" = {"default": "300s"}))]
    pub cache_duration: Option<GatewayDuration>,
    /// Refused; `backendRefs` has its place.
    pub backend_ref: Option<BackendObjectReference>,
    /// The servers that are asked, where they are not those of the URL.
    #[schemars(length(max = 16))]
    pub backend_refs: Option<Vec<ClusterBackend>>,
    /// How Envoy treats them.
    pub backend_settings: Option<ClusterSettings>,
}

/// Keys in the cluster.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "has(self.inline) == (self.type == 'Inline') && has(self.valueRef) == (self.type == 'ValueRef')",
    "type Inline needs `inline`, type ValueRef needs `valueRef`, and neither the other"
]]))]
pub struct MCPLocalJWKS {
    /// Whether the text or the reference counts.
    #[serde(rename = "type")]
    #[schemars(extend("x-crd" = {"default": "Inline"}))]
    pub kind: Option<super::security_policy::LocalJWKSType>,
    /// The document.
    pub inline: Option<String>,
    /// A ConfigMap that holds it.
    pub value_ref: Option<LocalObjectReference>,
}

/// A claim that becomes a header.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct MCPClaimToHeader {
    /// The claim.
    pub claim: String,
    /// The header.
    pub header: String,
}

/// What clients are told about a route as a protected resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPProtectedResourceMetadata {
    /// Its identifier.
    #[schemars(extend("format" = "uri"))]
    pub resource: String,
    /// Its name, for people.
    #[schemars(length(max = 256))]
    pub resource_name: Option<String>,
    /// What there is to read about it.
    #[schemars(extend("format" = "uri"))]
    pub resource_documentation: Option<String>,
    /// What may be done with its data.
    #[schemars(extend("format" = "uri"))]
    pub resource_policy_uri: Option<String>,
    /// How its answers may be signed.
    #[schemars(length(min = 1, max = 16))]
    pub resource_signing_alg_values_supported: Option<Vec<String>>,
    /// The scopes that tokens for it may have.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub scopes_supported: Vec<String>,
}

/// Clients bring a key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPRouteAPIKeyAuth {
    /// Secrets whose entries are clients' names and their keys.
    pub credential_refs: Vec<SecretObjectReference>,
    /// Where the key is looked for.
    pub extract_from: Vec<super::security_policy::ExtractFrom>,
    /// Servers are told the client's name under this header.
    #[serde(rename = "forwardClientIDHeader")]
    pub forward_client_id_header: Option<String>,
    /// Whether the key is taken off.
    pub sanitize: Option<bool>,
}

/// Which tools clients may use.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPRouteAuthorization {
    /// What holds where no rule does.
    #[serde(default = "deny")]
    pub default_action: MCPAction,
    /// The rules; the first that fits counts.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub rules: Vec<MCPRouteAuthorizationRule>,
}

/// A rule about clients and tools.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct MCPRouteAuthorizationRule {
    /// What becomes of the calls that fit.
    #[serde(default = "allow")]
    pub action: MCPAction,
    /// Which clients; absent means all.
    pub source: Option<MCPAuthorizationSource>,
    /// Which tools; absent means all.
    pub target: Option<MCPAuthorizationTarget>,
    /// Which calls, in CEL; absent means all.
    #[schemars(length(max = 4096))]
    pub cel: Option<String>,
}

/// Some clients.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct MCPAuthorizationSource {
    /// By their token.
    pub jwt: MCPJWTSource,
}

/// What a token has to say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("x-rules" = [[
    "(has(self.claims) && size(self.claims) > 0) || (has(self.scopes) && size(self.scopes) > 0)",
    "there must be `scopes` or `claims`"
]]))]
pub struct MCPJWTSource {
    /// Scopes, all of them.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub scopes: Vec<String>,
    /// Claims, all of them.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-field-rules" = [
        ["self.all(claim, claim.name != 'scope')", "the claim `scope` holds the scopes: write `scopes`"]
    ]))]
    pub claims: Vec<MCPJWTClaim>,
}

/// A claim of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MCPJWTClaim {
    /// Its name; `a.b` is within `a`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub value_type: MCPJWTClaimType,
    /// It has to be, or to hold, one of these.
    #[schemars(length(min = 1, max = 128))]
    pub values: Vec<String>,
}

/// What a claim is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MCPJWTClaimType {
    /// A string.
    #[default]
    String,
    /// A list of strings.
    StringArray,
}

/// Some tools.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct MCPAuthorizationTarget {
    /// These.
    #[schemars(length(min = 1, max = 16))]
    pub tools: Vec<MCPTool>,
}

/// A tool of a server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct MCPTool {
    /// The server.
    pub backend: String,
    /// The tool.
    pub tool: String,
}

fn path() -> String {
    "/mcp".to_owned()
}

fn service_kind() -> String {
    "Service".to_owned()
}

fn allow() -> MCPAction {
    MCPAction::Allow
}

fn deny() -> MCPAction {
    MCPAction::Deny
}

/// What must hold for an MCPRoute beyond its schema: what the CRD's rules say.
pub(super) fn check(spec: &MCPRouteSpec, report: Report<'_>) {
    for (index, parent) in spec.parent_refs.iter().enumerate() {
        if parent.kind != "Gateway" {
            let message = format!("a route cannot attach to a {}", parent.kind);
            report(&format!("spec.parentRefs[{index}].kind"), message, "name a Gateway".to_owned());
        }
    }
    unique(spec.headers.iter().map(|header| header.name.as_str()), "spec.headers", "name", report);
    unique(spec.backend_refs.iter().map(|backend| backend.name.as_str()), "spec.backendRefs", "name", report);
    for (index, backend) in spec.backend_refs.iter().enumerate() {
        check_backend(backend, &format!("spec.backendRefs[{index}]"), report);
    }
    if let Some(policy) = &spec.security_policy {
        check_security(policy, report);
    }
}

fn check_backend(backend: &MCPRouteBackendRef, field: &str, report: Report<'_>) {
    if backend.port.is_none() && backend.kind == "Service" && backend.group.is_empty() {
        report(&format!("{field}.port"), "a Service needs a port".to_owned(), String::new());
    }
    if let Some(tools) = &backend.tool_selector {
        let field = format!("{field}.toolSelector");
        let MCPToolFilter { include, include_regex, exclude, exclude_regex } = tools;
        if include.is_some() && include_regex.is_some() {
            let message = "there can be one of `include` and `includeRegex`".to_owned();
            report(&field, message, String::new());
        }
        if exclude.is_some() && exclude_regex.is_some() {
            let message = "there can be one of `exclude` and `excludeRegex`".to_owned();
            report(&field, message, String::new());
        }
        if [include, include_regex, exclude, exclude_regex].iter().all(|list| list.is_none()) {
            let message = "there must be one of `include`, `includeRegex`, `exclude` and `excludeRegex`";
            report(&field, message.to_owned(), "leave `toolSelector` out for all tools".to_owned());
        }
    }
    if let Some(key) = backend.security_policy.as_ref().and_then(|policy| policy.api_key.as_ref()) {
        let field = format!("{field}.securityPolicy.apiKey");
        if key.secret_ref.is_some() == key.inline.is_some() {
            let message = "there must be exactly one of `secretRef` and `inline`".to_owned();
            report(&field, message, String::new());
        }
        if key.header.is_some() && key.query_param.is_some() {
            let message = "there can be one of `header` and `queryParam`".to_owned();
            report(&field, message, String::new());
        }
    }
}

fn check_security(policy: &MCPRouteSecurityPolicy, report: Report<'_>) {
    let rules = policy.authorization.iter().flat_map(|authorization| &authorization.rules);
    let sourced: Vec<_> =
        rules.enumerate().filter_map(|(index, rule)| Some((index, rule.source.as_ref()?))).collect();
    if let (Some((index, _)), None) = (sourced.first(), &policy.oauth) {
        let help = "add `oauth`, which says whose tokens count".to_owned();
        let field = format!("spec.securityPolicy.authorization.rules[{index}].source");
        report(&field, "nobody checks the token that this rule asks for".to_owned(), help);
    }
    for (index, MCPAuthorizationSource { jwt }) in sourced {
        let field = format!("spec.securityPolicy.authorization.rules[{index}].source.jwt");
        if jwt.scopes.is_empty() && jwt.claims.is_empty() {
            report(&field, "there must be `scopes` or `claims`".to_owned(), String::new());
        }
        for (claim, _) in jwt.claims.iter().enumerate().filter(|(_, claim)| claim.name == "scope") {
            let message = "the claim `scope` holds the scopes".to_owned();
            report(&format!("{field}.claims[{claim}].name"), message, "write `scopes`".to_owned());
        }
    }
    if let Some(jwks) = policy.oauth.as_ref().and_then(|oauth| oauth.jwks.as_ref())
        && jwks.remote_jwks.is_some() == jwks.local_jwks.is_some()
    {
        let message = "there must be exactly one of `remoteJWKS` and `localJWKS`".to_owned();
        report("spec.securityPolicy.oauth.jwks", message, String::new());
    }
}
