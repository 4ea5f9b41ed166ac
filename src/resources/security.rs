//! BackendSecurityPolicy of `aigateway.envoyproxy.io`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::types::{LocalObjectReference, SecretObjectReference};

/// The credential that is sent to the backends it targets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct BackendSecurityPolicy {
    /// What is asked for.
    pub spec: BackendSecurityPolicySpec,
}

/// See [`BackendSecurityPolicy`]. Exactly the field that `type` names is set (checked when read).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendSecurityPolicySpec {
    /// The AIServiceBackends it applies to.
    #[serde(default)]
    #[schemars(length(max = 16))]
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
#[schemars(extend("x-accepted" = ["grantType"]))]
pub struct OIDCExchangeToken {
    /// The provider and the client.
    pub oidc: OIDC,
    /// For whom the token is meant.
    pub aud: Option<String>,
}

/// As [`OIDCExchangeToken`], for a role of AWS.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-accepted" = ["grantType"]))]
pub struct AWSOIDCExchangeToken {
    /// The provider and the client.
    pub oidc: OIDC,
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
    "x-accepted" = [
        "cookieConfig", "cookieDomain", "cookieNames", "csrfTokenTTL", "defaultRefreshTokenTTL", "defaultTokenTTL",
        "denyRedirect", "disableTokenEncryption", "forwardAccessToken", "forwardIDToken", "logoutPath",
        "passThroughAuthHeader", "redirectURL", "refreshToken", "resources",
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
}

/// An OIDC provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend(
    "x-not-served" = ["backendRef", "backendRefs", "backendSettings"],
    "x-accepted" = ["authorizationEndpoint", "endSessionEndpoint"],
))]
pub struct OIDCProvider {
    /// Its URL.
    #[schemars(length(min = 1))]
    pub issuer: String,
    /// Where tokens are asked for; absent: it is discovered.
    pub token_endpoint: Option<String>,
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
