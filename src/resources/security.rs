//! BackendSecurityPolicy of `aigateway.envoyproxy.io`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::foreign::{
    Checked,
    cluster_settings::{ClusterBackend, ClusterSettings},
    login::{CookieConfig, CookieNames, DenyRedirect, ForwardIDToken},
};
use super::types::{BackendObjectReference, GatewayDuration, LocalObjectReference, SecretObjectReference};

/// The credential that is sent to the backends it targets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct BackendSecurityPolicy {
    /// What is asked for.
    pub spec: BackendSecurityPolicySpec,
}

/// See [`BackendSecurityPolicy`]. Exactly the field that `type` names is set (checked when read).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("maxProperties" = 4, "x-rules" = [
    ["has(self.apiKey) == (self.type == 'APIKey')", "type APIKey needs `apiKey`, and no other type can have it"],
    ["has(self.awsCredentials) == (self.type == 'AWSCredentials')",
     "type AWSCredentials needs `awsCredentials`, and no other type can have it"],
    ["has(self.azureAPIKey) == (self.type == 'AzureAPIKey')",
     "type AzureAPIKey needs `azureAPIKey`, and no other type can have it"],
    ["has(self.azureCredentials) == (self.type == 'AzureCredentials')",
     "type AzureCredentials needs `azureCredentials`, and no other type can have it"],
    ["has(self.gcpCredentials) == (self.type == 'GCPCredentials')",
     "type GCPCredentials needs `gcpCredentials`, and no other type can have it"],
    ["has(self.anthropicAPIKey) == (self.type == 'AnthropicAPIKey')",
     "type AnthropicAPIKey needs `anthropicAPIKey`, and no other type can have it"],
]))]
pub struct BackendSecurityPolicySpec {
    /// The AIServiceBackends it applies to.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-field-rules" = [[
        "self.all(target, (target.kind == 'AIServiceBackend' && target.group == 'aigateway.envoyproxy.io') \
         || (target.kind == 'InferencePool' && target.group == 'inference.networking.k8s.io'))",
        "name AIServiceBackends of `aigateway.envoyproxy.io`, or InferencePools of `inference.networking.k8s.io`"
    ]]))]
    pub target_refs: Vec<LocalObjectReference>,
    /// Which kind of credential.
    #[serde(rename = "type")]
    pub kind: BackendSecurityPolicyType,
    /// For [`BackendSecurityPolicyType::APIKey`]; the Secret's key is `apiKey`.
    pub api_key: Option<SecretKeyCredential>,
    /// For [`BackendSecurityPolicyType::AnthropicAPIKey`]; the Secret's key is `apiKey`.
    #[serde(rename = "anthropicAPIKey")]
    pub anthropic_api_key: Option<SecretKeyCredential>,
    /// For [`BackendSecurityPolicyType::AzureAPIKey`]; the Secret's key is `apiKey`.
    #[serde(rename = "azureAPIKey")]
    pub azure_api_key: Option<SecretKeyCredential>,
    /// For [`BackendSecurityPolicyType::AzureCredentials`].
    pub azure_credentials: Option<AzureCredentials>,
    /// For [`BackendSecurityPolicyType::AWSCredentials`].
    pub aws_credentials: Option<AWSCredentials>,
    /// For [`BackendSecurityPolicyType::GCPCredentials`].
    pub gcp_credentials: Option<GCPCredentials>,
    /// Requests may bring a credential of the same kind themselves.
    pub credential_override: Option<CredentialOverride>,
}

/// Where a request's own credential stands. Exactly one of the two is set (checked when read).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct CredentialOverride {
    /// In a header.
    pub from_request_headers: Option<FromRequestHeaders>,
    /// In what another filter of Envoy says.
    pub from_dynamic_metadata: Option<FromDynamicMetadata>,
}

/// A header that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromRequestHeaders {
    /// Its name; with AWS the prefix of three. Absent: one that goes with the type.
    pub header: Option<String>,
    /// Whether requests without it get the configured credential, and not 401.
    #[serde(default = "yes")]
    pub fallback_to_configured: bool,
}

/// Dynamic metadata that holds a credential.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FromDynamicMetadata {
    /// The namespace.
    #[schemars(length(min = 1))]
    pub namespace: String,
    /// The key in it. Absent: one that goes with the type.
    pub key: Option<String>,
    /// Whether requests without it get the configured credential, and not 401.
    #[serde(default = "yes")]
    pub fallback_to_configured: bool,
}

/// Gets a token from an OIDC provider, for a client's secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OIDCExchangeToken {
    /// The provider and the client.
    pub oidc: OIDC,
    /// Has no meaning; the token is always asked for with the client's credentials.
    pub grant_type: Option<String>,
    /// For whom the token is meant.
    pub aud: Option<String>,
}

/// As [`OIDCExchangeToken`], for a role of AWS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AWSOIDCExchangeToken {
    /// The provider and the client.
    pub oidc: OIDC,
    /// Has no meaning; the token is always asked for with the client's credentials.
    pub grant_type: Option<String>,
    /// For whom the token is meant.
    pub aud: Option<String>,
    /// The role that trusts the provider.
    #[schemars(length(min = 1))]
    pub aws_role_arn: String,
}

/// An OIDC provider and one of its clients. What is about people's logins has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-not-served" = ["clientIDRef"],
    "x-rules" = [
        ["has(self.clientID) != has(self.clientIDRef)", "there must be exactly one of `clientID` and `clientIDRef`"],
        ["!has(self.forwardAccessToken) || !self.forwardAccessToken || !has(self.forwardIDToken) \
          || self.forwardIDToken.header.lowerAscii() != 'authorization'",
         "`forwardAccessToken` and `forwardIDToken` cannot both use the header Authorization"],
    ],
))]
pub struct OIDC {
    /// The provider.
    pub provider: OIDCProvider,
    /// The client.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1))]
    pub client_id: Option<String>,
    /// The Secret that holds the client's secret; its key is `client-secret`.
    pub client_secret: SecretObjectReference,
    /// What is asked for, besides all that the provider offers.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The Secret that holds the client's name; not served.
    #[serde(rename = "clientIDRef")]
    pub client_id_ref: Option<SecretObjectReference>,
    /// How long and for whom a login's cookies are good.
    pub cookie_config: Option<Checked<CookieConfig>>,
    /// For which hosts a login's cookies are.
    #[schemars(regex(pattern = COOKIE_DOMAIN))]
    pub cookie_domain: Option<String>,
    /// What a login's cookies are called.
    pub cookie_names: Option<Checked<CookieNames>>,
    /// How long a login may take.
    #[serde(rename = "csrfTokenTTL")]
    pub csrf_token_ttl: Option<GatewayDuration>,
    /// How long a refresh token is good whose provider does not say.
    #[serde(rename = "defaultRefreshTokenTTL")]
    pub default_refresh_token_ttl: Option<GatewayDuration>,
    /// How long a token is good whose provider does not say.
    #[serde(rename = "defaultTokenTTL")]
    pub default_token_ttl: Option<GatewayDuration>,
    /// Requests without a login that are refused and not sent to the provider.
    pub deny_redirect: Option<Checked<DenyRedirect>>,
    /// Leaves a login's cookies in clear text.
    pub disable_token_encryption: Option<bool>,
    /// Sends a login's access token on.
    pub forward_access_token: Option<bool>,
    /// Sends a login's ID token on.
    #[serde(rename = "forwardIDToken")]
    pub forward_id_token: Option<Checked<ForwardIDToken>>,
    /// The path that ends a login.
    pub logout_path: Option<String>,
    /// Takes requests that bring a token as they are.
    pub pass_through_auth_header: Option<bool>,
    /// Where a login comes back to.
    #[serde(rename = "redirectURL")]
    pub redirect_url: Option<String>,
    /// Whether a login's token is renewed.
    #[serde(default = "yes")]
    pub refresh_token: bool,
    /// What the token is for.
    #[serde(default)]
    pub resources: Vec<String>,
}

const COOKIE_DOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9]))*$";

/// An OIDC provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-not-served" = ["backendRef", "backendRefs", "backendSettings"],
    "x-rules" = [
        ["!has(self.backendRef)", "`backendRef` is not supported; write `backendRefs`"],
        ["!has(self.backendSettings) || !has(self.backendSettings.retry) || !has(self.backendSettings.retry.perRetry) \
          || !has(self.backendSettings.retry.perRetry.timeout)",
         "`backendSettings.retry.perRetry.timeout` is not supported"],
        ["!has(self.backendSettings) || !has(self.backendSettings.retry) || !has(self.backendSettings.retry.retryOn) \
          || !has(self.backendSettings.retry.retryOn.httpStatusCodes)",
         "`backendSettings.retry.retryOn.httpStatusCodes` is not supported"],
    ],
))]
pub struct OIDCProvider {
    /// Its URL.
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// Where tokens are asked for; absent: it is discovered.
    pub token_endpoint: Option<String>,
    /// Where people log in.
    pub authorization_endpoint: Option<String>,
    /// Where logins end.
    pub end_session_endpoint: Option<String>,
    /// Refused; `backendRefs` has its place.
    pub backend_ref: Option<Checked<BackendObjectReference>>,
    /// The servers that are asked, where they are not those of the URL.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<Checked<ClusterBackend>>,
    /// How Envoy treats them.
    pub backend_settings: Option<Checked<ClusterSettings>>,
}

/// A pool of Google Cloud that trusts another identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GCPWorkloadIdentityFederationConfig {
    /// The project of the pool, by id or number.
    #[serde(rename = "projectID")]
    #[schemars(length(min = 1))]
    pub project_id: String,
    /// The pool.
    #[schemars(length(min = 1))]
    pub workload_identity_pool_name: String,
    /// The pool's provider.
    #[schemars(length(min = 1))]
    pub workload_identity_provider_name: String,
    /// The account whose token is taken in the end.
    pub service_account_impersonation: Option<GCPServiceAccountImpersonation>,
    /// Where the first token comes from.
    pub oidc_exchange_token: OIDCExchangeToken,
}

/// A service account of Google Cloud.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GCPServiceAccountImpersonation {
    /// Its name, without the domain.
    #[schemars(length(min = 1))]
    pub service_account_name: String,
}

/// The kinds of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum BackendSecurityPolicyType {
    APIKey,
    AWSCredentials,
    AzureAPIKey,
    AzureCredentials,
    GCPCredentials,
    AnthropicAPIKey,
}

/// A static key that a Secret holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyCredential {
    /// The Secret.
    pub secret_ref: SecretObjectReference,
}

/// A Microsoft Entra application.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "has(self.clientSecretRef) != has(self.oidcExchangeToken)",
    "there must be exactly one of `clientSecretRef` and `oidcExchangeToken`"
]]))]
pub struct AzureCredentials {
    /// The application's id.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// The directory's id.
    #[serde(rename = "tenantID")]
    #[schemars(length(min = 1))]
    pub tenant_id: String,
    /// The Secret that holds the application's secret.
    pub client_secret_ref: Option<SecretObjectReference>,
    /// Gets a token from an OIDC provider instead.
    pub oidc_exchange_token: Option<OIDCExchangeToken>,
}

/// How to get AWS credentials; with neither of the two sources, the default chain.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AWSCredentials {
    /// The region requests are signed for.
    #[schemars(length(min = 1))]
    pub region: String,
    /// A credentials file in a Secret.
    pub credentials_file: Option<AWSCredentialsFile>,
    /// Gets a token from an OIDC provider instead.
    pub oidc_exchange_token: Option<AWSOIDCExchangeToken>,
}

/// A credentials file in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AWSCredentialsFile {
    /// The Secret; its key is `credentials`.
    pub secret_ref: SecretObjectReference,
    /// The profile in the file.
    #[serde(default = "profile")]
    pub profile: String,
}

/// How to get Google Cloud credentials.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-rules" = [[
    "!has(self.credentialsFile) || !has(self.workloadIdentityFederationConfig)",
    "there can be one of `credentialsFile` and `workloadIdentityFederationConfig`"
]]))]
pub struct GCPCredentials {
    /// The project.
    #[schemars(length(min = 1))]
    pub project_name: String,
    /// The region.
    #[schemars(length(min = 1))]
    pub region: String,
    /// A service account key in a Secret.
    pub credentials_file: Option<SecretKeyCredential>,
    /// Gets a token from another identity provider instead.
    pub workload_identity_federation_config: Option<GCPWorkloadIdentityFederationConfig>,
}

fn profile() -> String {
    "default".to_owned()
}

fn yes() -> bool {
    true
}
