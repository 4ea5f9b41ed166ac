//! SecurityPolicy of `gateway.envoyproxy.io` (Envoy Gateway 1.8), as far as it says how clients prove who they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules::Report;
use super::types::{
    GatewayDuration, HEADER_NAME, LabelExpression, LocalObjectReference, PolicyTargetReference,
    SecretObjectReference,
};
use crate::tenant::naming::Pattern;

/// What clients have to prove.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct SecurityPolicy {
    /// What is asked for.
    pub spec: SecurityPolicySpec,
}

/// See [`SecurityPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["cors", "csrf"]))]
pub struct SecurityPolicySpec {
    /// The one Gateway or route it applies to (older form).
    pub target_ref: Option<PolicyTargetReference>,
    /// The Gateways and routes it applies to.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Selects the Gateways and routes it applies to by their labels.
    #[serde(default)]
    pub target_selectors: Vec<TargetSelector>,
    /// By a key.
    #[serde(rename = "apiKeyAuth")]
    pub api_key_auth: Option<APIKeyAuth>,
    /// By name and password.
    pub basic_auth: Option<BasicAuth>,
    /// By a token.
    pub jwt: Option<JWT>,
    /// Not served: what it refuses would be let through (refused when read, as the next ones are).
    pub authorization: Option<Unserved>,
    /// Not served.
    pub ext_auth: Option<Unserved>,
    /// Not served.
    pub oidc: Option<Unserved>,
    /// Not served.
    pub merge_type: Option<Unserved>,
}

/// A field of which it only matters that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unserved;

impl<'de> Deserialize<'de> for Unserved {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl JsonSchema for Unserved {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Unserved".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({})
    }
}

/// Selects targets of a kind by their labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["namespaces"]))]
pub struct TargetSelector {
    /// API group of the targets.
    #[serde(default = "gateway_group")]
    pub group: String,
    /// Kind of the targets.
    pub kind: String,
    /// Labels that must have exactly these values.
    #[serde(default)]
    pub match_labels: std::collections::BTreeMap<String, String>,
    /// Further conditions.
    #[serde(default)]
    pub match_expressions: Vec<LabelExpression>,
}

fn gateway_group() -> String {
    "gateway.networking.k8s.io".to_owned()
}

/// Clients bring a key.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct APIKeyAuth {
    /// Secrets whose entries are clients' names and their keys.
    #[schemars(length(min = 1))]
    pub credential_refs: Vec<SecretObjectReference>,
    /// Where the key is looked for, in that order.
    #[schemars(length(min = 1))]
    pub extract_from: Vec<ExtractFrom>,
    /// The provider is told the client's name under this header.
    #[serde(rename = "forwardClientIDHeader")]
    #[schemars(length(min = 1), regex(pattern = HEADER_NAME))]
    pub forward_client_id_header: Option<String>,
    /// Whether the key is taken off; here it always is.
    pub sanitize: Option<bool>,
}

/// Where something is looked for in a request.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtractFrom {
    /// Headers.
    pub headers: Vec<String>,
    /// Parameters of the query.
    pub params: Vec<String>,
    /// Cookies.
    pub cookies: Vec<String>,
}

/// Clients bring a name and a password.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// A Secret whose key `.htpasswd` has a line `user:{SHA}hash` for each user.
    pub users: SecretObjectReference,
    /// The provider is told the user's name under this header.
    #[schemars(length(min = 1), regex(pattern = HEADER_NAME))]
    pub forward_username_header: Option<String>,
}

/// Clients bring a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWT {
    /// A request without a token is served too, as one that proves nothing.
    #[serde(default)]
    pub optional: bool,
    /// Who issues tokens: one of them has to vouch.
    #[schemars(length(min = 1, max = 4))]
    pub providers: Vec<JWTProvider>,
}

/// Who issues tokens.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-accepted" = ["recomputeRoute"]))]
pub struct JWTProvider {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What tokens have to say about their issuer; absent means anything.
    #[schemars(length(max = 253))]
    pub issuer: Option<String>,
    /// Of which tokens have to name one; none means that any will do.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub audiences: Vec<String>,
    /// Its keys, here. Exactly one of the two is set (checked when read).
    #[serde(rename = "localJWKS")]
    pub local_jwks: Option<LocalJWKS>,
    /// Its keys, elsewhere.
    #[serde(rename = "remoteJWKS")]
    pub remote_jwks: Option<RemoteJWKS>,
    /// Claims that become headers.
    #[serde(default)]
    pub claim_to_headers: Vec<ClaimToHeader>,
    /// Where the token is looked for; absent means `Authorization: Bearer`.
    pub extract_from: Option<JWTExtractor>,
}

/// Keys in the files. Its debug form does not show them: one may be secret.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalJWKS {
    /// Whether the text or the reference counts.
    #[serde(rename = "type", default)]
    pub kind: LocalJWKSType,
    /// The document.
    pub inline: Option<String>,
    /// A ConfigMap that holds it under `jwks`, or as its only value.
    pub value_ref: Option<LocalObjectReference>,
}

impl std::fmt::Debug for LocalJWKS {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, inline: _, value_ref } = self;
        f.debug_struct("LocalJWKS").field("kind", kind).field("value_ref", value_ref).finish_non_exhaustive()
    }
}

/// Where a JWKS of the files stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum LocalJWKSType {
    /// In the policy.
    #[default]
    Inline,
    /// In a ConfigMap.
    ValueRef,
}

/// Keys that are fetched.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["backendRef", "backendRefs", "backendSettings"]))]
pub struct RemoteJWKS {
    /// Where they are.
    #[schemars(length(min = 1, max = 253))]
    pub uri: String,
    /// How long they are good for; five minutes if it is absent.
    pub cache_duration: Option<GatewayDuration>,
}

/// A claim that becomes a header.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct ClaimToHeader {
    /// The header.
    #[schemars(length(min = 1), regex(pattern = HEADER_NAME))]
    pub header: String,
    /// The claim; `a.b` is within `a`.
    #[schemars(length(min = 1))]
    pub claim: String,
}

/// Where a token is looked for.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct JWTExtractor {
    /// Headers, and what stands before the token there.
    pub headers: Vec<JWTHeaderExtractor>,
    /// Cookies.
    pub cookies: Vec<String>,
    /// Parameters of the query.
    pub params: Vec<String>,
}

/// A header that holds a token.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JWTHeaderExtractor {
    /// Its name.
    #[schemars(length(min = 1), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// What stands before the token.
    pub value_prefix: Option<String>,
}

/// Which client certificates a listener takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = [
    "alpnProtocols", "ciphers", "ecdhCurves", "maxVersion", "minVersion", "session", "signatureAlgorithms", "statelessResumption"
]))]
pub struct ClientTLSSettings {
    /// What clients have to show.
    pub client_validation: Option<ClientValidation>,
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["certificateHashes", "crl", "mode", "spkiHashes", "subjectAltNames"]))]
pub struct ClientValidation {
    /// A client without a certificate is served too, as one that proves nothing.
    #[serde(default)]
    pub optional: bool,
    /// Secrets or ConfigMaps with the authorities in `ca.crt`.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub ca_certificate_refs: Vec<SecretObjectReference>,
}

/// Who tenants are, and what each may use. Of `ext.aigateway.envoyproxy.io`, a group of this project's own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct TenantPolicy {
    /// What is asked for.
    pub spec: TenantPolicySpec,
}

/// See [`TenantPolicy`].
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "!has(self.gatewayKey) || self.targetRefs.all(target, target.kind == 'Gateway')",
    "`gatewayKey` is asked for before the route is chosen: make a policy for the Gateway"
]]))]
pub struct TenantPolicySpec {
    /// The Gateways and AIGatewayRoutes it applies to; a route's own policy counts instead of its Gateway's.
    #[schemars(length(min = 1, max = 16), extend("x-field-rules" = [[
        "self.all(target, (target.group == 'gateway.networking.k8s.io' && target.kind in ['Gateway', 'HTTPRoute']) \
         || (target.group == 'aigateway.envoyproxy.io' && target.kind == 'AIGatewayRoute'))",
        "name a Gateway of `gateway.networking.k8s.io`, or a route: as AIGatewayRoute of `aigateway.envoyproxy.io`, or as the \
         HTTPRoute of the same name"
    ]]))]
    pub target_refs: Vec<PolicyTargetReference>,
    /// Whether clients show keys of the gateway's own (`aigw key`); absent: as `--keys` says for all. On Gateways only.
    pub gateway_key: Option<GatewayKey>,
    /// How tenants are read out of what is proved.
    #[serde(default)]
    pub identity: TenantIdentity,
    /// Who may use which models; without any, everybody may use all.
    #[serde(default)]
    pub access: Vec<TenantAccess>,
}

/// Whether clients show keys of the gateway's own.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct GatewayKey {
    /// What becomes of those who show none.
    #[serde(default)]
    pub mode: GatewayKeyMode,
}

/// What becomes of clients without a key of the gateway's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayKeyMode {
    /// They are refused.
    #[default]
    Required,
    /// They are served as clients who prove nothing by it; a key that is not good is refused.
    Optional,
    /// Nobody looks for keys.
    NotAsked,
}

/// How tenants are read out of what is proved.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantIdentity {
    /// Of the client's name that goes with an API key.
    pub api_key: Option<NamePattern>,
    /// Of a user's name.
    pub basic_auth: Option<NamePattern>,
    /// Of a token's claims; `a.b` is within `a`. If it is absent, `sub` is the key.
    pub jwt: Option<TenantParts>,
    /// Of the attributes of a certificate's subject. If it is absent: `O`, `OU` and `CN`.
    pub client_certificate: Option<TenantParts>,
    /// Of the URI that a certificate names (SPIFFE). What does not look so names nobody. With this or `clientCertificateDNS`, the
    /// subject counts only if `clientCertificate` is there too.
    #[serde(rename = "clientCertificateURI")]
    pub client_certificate_uri: Option<NamePattern>,
    /// Of the first of the DNS names in a certificate that looks so.
    #[serde(rename = "clientCertificateDNS")]
    pub client_certificate_dns: Option<NamePattern>,
}

/// What a name looks like.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct NamePattern {
    /// Such as `{organisation}.{team}.{key}`. A name that does not fit is wholly the key's.
    #[schemars(length(min = 1, max = 253))]
    pub pattern: String,
}

/// The parts of a tenant.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantParts {
    /// Who pays.
    pub organisation: Option<String>,
    /// A part of the organisation.
    pub team: Option<String>,
    /// The key, user or machine.
    pub key: Option<String>,
}

/// Some models for some tenants.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "!self.anonymous || !has(self.tenant) \
     || !(has(self.tenant.organisation) || has(self.tenant.team) || has(self.tenant.key))",
    "a request that proves nothing has no tenant: remove `tenant`, or `anonymous`"
]]))]
pub struct TenantAccess {
    /// Those whose parts are these; a part that is absent may be any. Not requests that prove nothing.
    #[serde(default)]
    pub tenant: TenantParts,
    /// Requests that prove nothing instead.
    #[serde(default)]
    pub anonymous: bool,
    /// Names of models, in which `*` stands for any text.
    #[schemars(length(min = 1, max = 1024))]
    pub models: Vec<String>,
}

/// The group of AIGatewayRoutes, which upstream's policies do not name.
const AI_GROUP: &str = "aigateway.envoyproxy.io";
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Whether a policy may apply to a kind.
fn is_target(group: &str, kind: &str) -> bool {
    matches!((group, kind), (GATEWAY_GROUP, "Gateway" | "HTTPRoute") | (AI_GROUP, "AIGatewayRoute"))
}

fn check_targets(references: &[(String, &PolicyTargetReference)], report: Report<'_>) {
    for (field, target) in references {
        if !is_target(&target.group, &target.kind) {
            let message = format!("this policy cannot apply to {} of `{}`", target.kind, target.group);
            let help = format!(
                "name a Gateway of `{GATEWAY_GROUP}`, or a route: as AIGatewayRoute of `{AI_GROUP}`, or as the HTTPRoute of \
                 the same name"
            );
            report(&format!("{field}.kind"), message, help);
        }
    }
}

/// What must hold for a SecurityPolicy beyond its schema.
pub(super) fn check(spec: &SecurityPolicySpec, report: Report<'_>) {
    let several = spec.target_refs.iter().enumerate();
    let several = several.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    let references: Vec<_> =
        several.chain(spec.target_ref.iter().map(|target| ("spec.targetRef".to_owned(), target))).collect();
    check_targets(&references, report);
    for (index, selector) in spec.target_selectors.iter().enumerate() {
        if !is_target(&selector.group, &selector.kind) {
            let message = format!("this policy cannot apply to {} of `{}`", selector.kind, selector.group);
            report(
                &format!("spec.targetSelectors[{index}].kind"),
                message,
                "select Gateways or HTTPRoutes".into(),
            );
        }
    }
    if references.is_empty() && spec.target_selectors.is_empty() {
        let help = "add targetRefs with the Gateway or the route it is for";
        report("spec", "this policy applies to nothing".into(), help.into());
    }
    let unserved = [
        ("authorization", &spec.authorization),
        ("extAuth", &spec.ext_auth),
        ("oidc", &spec.oidc),
        ("mergeType", &spec.merge_type),
    ];
    for (name, _) in unserved.iter().filter(|(_, field)| field.is_some()) {
        let message = format!("`{name}` is not supported: what it would refuse would be let through");
        let help =
            "apiKeyAuth, basicAuth and jwt are; until it is removed, what this policy is for is not served";
        report(&format!("spec.{name}"), message, help.into());
    }
    let is_some =
        [spec.api_key_auth.is_some(), spec.basic_auth.is_some(), spec.jwt.is_some()].contains(&true);
    if !is_some && unserved.iter().all(|(_, field)| field.is_none()) {
        report("spec", "this policy asks for nothing".into(), "add apiKeyAuth, basicAuth or jwt".into());
    }
    for (index, provider) in spec.jwt.iter().flat_map(|jwt| &jwt.providers).enumerate() {
        let field = format!("spec.jwt.providers[{index}]");
        if provider.local_jwks.is_some() == provider.remote_jwks.is_some() {
            let message = "a provider has exactly one of localJWKS and remoteJWKS";
            report(&field, message.into(), "say where its keys are".into());
        }
        if let Some(local) = &provider.local_jwks {
            let missing = match local.kind {
                LocalJWKSType::Inline => local.inline.is_none().then_some("inline"),
                LocalJWKSType::ValueRef => local.value_ref.is_none().then_some("valueRef"),
            };
            if let Some(missing) = missing {
                let message = format!("`{missing}` is missing");
                report(&format!("{field}.localJWKS"), message, format!("add {missing}, or change type"));
            }
        }
    }
}

/// What must hold for a TenantPolicy beyond its schema.
pub(super) fn check_tenants(spec: &TenantPolicySpec, report: Report<'_>) {
    let references = spec.target_refs.iter().enumerate();
    let references: Vec<_> =
        references.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target)).collect();
    check_targets(&references, report);
    let identity = &spec.identity;
    let patterns = [
        ("apiKey", &identity.api_key),
        ("basicAuth", &identity.basic_auth),
        ("clientCertificateURI", &identity.client_certificate_uri),
        ("clientCertificateDNS", &identity.client_certificate_dns),
    ];
    for (name, pattern) in patterns {
        if let Some(NamePattern { pattern }) = pattern
            && let Err(error) = pattern.parse::<Pattern>()
        {
            let help = "write one such as {organisation}.{team}.{key}".to_owned();
            report(&format!("spec.identity.{name}.pattern"), error.to_string(), help);
        }
    }
    for (field, target) in references.iter().filter(|(_, target)| target.kind != "Gateway") {
        if spec.gateway_key.is_some() {
            let message =
                format!("`gatewayKey` is asked for before the route is chosen, so not by {}", target.kind);
            let help =
                "make a policy for the Gateway of it; until then what this policy is for is not served";
            report(&format!("{field}.kind"), message, help.into());
        }
    }
    for (index, access) in spec.access.iter().enumerate() {
        let TenantParts { organisation, team, key } = &access.tenant;
        if access.anonymous && [organisation, team, key].iter().any(|part| part.is_some()) {
            let message = "a request that proves nothing has no tenant".to_owned();
            report(&format!("spec.access[{index}].tenant"), message, "remove it, or anonymous".to_owned());
        }
    }
}
