//! BackendSecurityPolicy of `aigateway.envoyproxy.io`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::types::{LocalObjectReference, Opaque, SecretObjectReference};

/// The credential that is sent to the backends it targets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub struct BackendSecurityPolicy {
    /// What is asked for.
    pub spec: BackendSecurityPolicySpec,
}

/// See [`BackendSecurityPolicy`]. Exactly the field that `type` names is set (checked when read).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-not-served" = ["credentialOverride"]))]
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
    pub oidc_exchange_token: Option<Opaque>,
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
    pub oidc_exchange_token: Option<Opaque>,
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
    pub workload_identity_federation_config: Option<Opaque>,
}

fn profile() -> String {
    "default".to_owned()
}
