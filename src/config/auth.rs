//! Credentials in the configuration. Members that the Go controller writes keep their names; what is ours says so.

use secrecy::SecretString;
use serde::Deserialize;

/// A backend's credential. Where several kinds are set, the first in this order counts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// Signatures of AWS.
    pub aws: Option<AwsAuth>,
    /// `Authorization: Bearer <key>`.
    pub api_key: Option<ApiKeyAuth>,
    /// `api-key: <key>`.
    #[serde(rename = "azureAPIKey")]
    pub azure_api_key: Option<ApiKeyAuth>,
    /// A token of Microsoft Entra.
    pub azure: Option<AzureAuth>,
    /// A token of Google Cloud.
    pub gcp: Option<GcpAuth>,
    /// `x-api-key: <key>`.
    #[serde(rename = "anthropicAPIKey")]
    pub anthropic_api_key: Option<ApiKeyAuth>,
    /// Requests may bring another credential of the same kind.
    pub credential_override: Option<CredentialOverride>,
}

/// A static API key.
#[derive(Debug, Clone, Deserialize)]
pub struct ApiKeyAuth {
    /// The key; surrounding white space is ignored.
    pub key: SecretString,
}

/// Signatures of AWS, version 4, for Bedrock.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AwsAuth {
    /// A shared credentials file; empty or absent is the default chain.
    pub credential_file_literal: Option<SecretString>,
    /// What requests are signed for.
    pub region: String,
    /// Ours. The profile in the file; absent is `default`.
    pub profile: Option<String>,
    /// Ours. The host that requests are sent to, where Envoy does not tell; absent is the region's public endpoint.
    pub host: Option<String>,
    /// Ours. A role that is assumed by OIDC instead of both.
    pub role: Option<AwsRole>,
}

/// Ours. A role of AWS that trusts an OIDC provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsRole {
    /// Its ARN.
    pub arn: String,
    /// How the session is called in AWS's logs.
    pub session: String,
    /// The OIDC provider.
    pub issuer: Issuer,
}

/// A token of Microsoft Entra, or where to get one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AzureAuth {
    /// `Authorization: Bearer <token>`.
    pub access_token: Option<SecretString>,
    /// Ours. Tokens are fetched for this application, and renewed.
    pub application: Option<AzureApplication>,
}

/// Ours. An application of Microsoft Entra. It has a secret or an issuer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AzureApplication {
    /// The directory's id.
    pub tenant_id: String,
    /// The application's id.
    pub client_id: String,
    /// Its secret.
    #[serde(default)]
    pub client_secret: Option<SecretString>,
    /// The OIDC provider whose tokens it trusts.
    #[serde(default)]
    pub issuer: Option<Issuer>,
    /// Where tokens are asked for; absent is the public cloud.
    #[serde(default)]
    pub authority: Option<String>,
}

/// A token of Google Cloud, or where to get one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GcpAuth {
    /// `Authorization: Bearer <token>`; empty or absent: tokens are fetched and renewed, by the application default credentials
    /// unless something else is said below.
    pub access_token: Option<SecretString>,
    /// The region, which stands in the path.
    pub region: String,
    /// The project, which stands in the path.
    pub project_name: String,
    /// Ours. A credentials file (JSON).
    pub credentials_file: Option<SecretString>,
    /// Ours. Workload identity federation.
    pub federation: Option<GcpFederation>,
}

/// Ours. A workload identity pool's provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GcpFederation {
    /// `//iam.googleapis.com/projects/…/providers/…`.
    pub audience: String,
    /// The service account that is impersonated, as `name@project.iam.gserviceaccount.com`.
    #[serde(default)]
    pub service_account: Option<String>,
    /// The OIDC provider.
    pub issuer: Issuer,
}

/// Ours. An OIDC provider that gives out tokens for a client's secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// Its URL, under which its token endpoint is discovered.
    pub url: String,
    /// Its token endpoint, where it is not to be discovered.
    #[serde(default)]
    pub token_endpoint: Option<String>,
    /// The client.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: SecretString,
    /// The scopes that are asked for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The audience that is asked for.
    #[serde(default)]
    pub audience: Option<String>,
}

/// Where a request's own credential stands: in a header or in dynamic metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CredentialOverride {
    /// The header; with AWS the prefix of three headers.
    pub header_name: String,
    /// The namespace of dynamic metadata.
    pub dynamic_metadata_namespace: String,
    /// The key in it.
    pub dynamic_metadata_key: String,
    /// Whether requests without are signed with the configured credential, and not answered with 401.
    pub fallback_to_configured: bool,
    /// Headers that the provider must not see.
    pub input_headers_to_remove: Vec<String>,
}
