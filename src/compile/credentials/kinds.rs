//! Each kind of credential a policy can name, as the processor reads it.

use secrecy::{ExposeSecret, SecretString};

use super::secrets::Lookup;
use super::{Credential, Kind, Unavailable};
use crate::auth::{AwsTarget, Credential as Signer, Source, aws_keys_of_file};
use crate::config::{
    ApiKeyAuth, Auth, AwsAuth, AwsRole, AzureApplication, AzureAuth, CredentialOverride, GcpAuth,
    GcpFederation, Issuer,
};
use crate::diagnostics::Diagnostics;
use crate::resources::security::{
    self, AWSCredentials, AzureCredentials, BackendSecurityPolicy, BackendSecurityPolicyType as Type,
    GCPCredentials, GCPWorkloadIdentityFederationConfig, OIDC, SecretKeyCredential,
};
use crate::resources::{Located, Snapshot};

/// The Secret's key that holds an API key.
const API_KEY: &str = "apiKey";
/// The Secret's key that holds a shared credentials file of AWS.
const AWS_FILE: &str = "credentials";
/// The Secret's key that holds the secret of an application or of an OIDC client.
const CLIENT_SECRET: &str = "client-secret";
/// The Secret's key that holds a credentials file of Google Cloud.
const GCP_FILE: &str = "service_account.json";
/// The types of credentials files that can be used.
const GCP_FILES: [&str; 3] = ["service_account", "authorized_user", "external_account"];

/// The credential a policy names; what keeps it from being used is in the diagnostics.
pub(super) fn compile(
    snapshot: &Snapshot,
    policy: &Located<BackendSecurityPolicy>,
    diagnostics: &mut Diagnostics,
) -> Result<Credential, Unavailable> {
    let spec = &policy.spec;
    let mut lookup = Lookup { snapshot, policy, diagnostics };
    let mut parts = Parts(Vec::new());
    let member = match spec.kind {
        Type::APIKey => "apiKey",
        Type::AzureAPIKey => "azureAPIKey",
        Type::AnthropicAPIKey => "anthropicAPIKey",
        Type::AWSCredentials => "awsCredentials",
        Type::AzureCredentials => "azureCredentials",
        Type::GCPCredentials => "gcpCredentials",
    };
    let (kind, mut auth) = match spec.kind {
        Type::APIKey => {
            let api_key = api_key(&mut lookup, member, spec.api_key.as_ref(), &mut parts)?;
            (Kind::Bearer, Auth { api_key, ..Auth::default() })
        }
        Type::AzureAPIKey => {
            let azure_api_key = api_key(&mut lookup, member, spec.azure_api_key.as_ref(), &mut parts)?;
            (Kind::Azure, Auth { azure_api_key, ..Auth::default() })
        }
        Type::AnthropicAPIKey => {
            let anthropic_api_key =
                api_key(&mut lookup, member, spec.anthropic_api_key.as_ref(), &mut parts)?;
            (Kind::Anthropic, Auth { anthropic_api_key, ..Auth::default() })
        }
        Type::AWSCredentials => {
            let written = spec.aws_credentials.as_ref();
            let written = written.ok_or(()).or_else(|()| absent(&mut lookup, member))?;
            let aws = Some(aws(&mut lookup, written, &mut parts)?);
            (Kind::Aws, Auth { aws, ..Auth::default() })
        }
        Type::AzureCredentials => {
            let written = spec.azure_credentials.as_ref();
            let written = written.ok_or(()).or_else(|()| absent(&mut lookup, member))?;
            let azure = Some(azure(&mut lookup, written, &mut parts)?);
            (Kind::AzureToken, Auth { azure, ..Auth::default() })
        }
        Type::GCPCredentials => {
            let written = spec.gcp_credentials.as_ref();
            let written = written.ok_or(()).or_else(|()| absent(&mut lookup, member))?;
            let gcp = Some(gcp(&mut lookup, written, &mut parts)?);
            (Kind::Gcp, Auth { gcp, ..Auth::default() })
        }
    };
    if let Some(written) = &spec.credential_override {
        auth.credential_override = Some(per_request(&mut lookup, written, &mut parts)?);
    }
    Ok(Credential { kind, material: parts.material(), auth })
}

/// Everything that makes a credential this one.
struct Parts(Vec<SecretString>);

impl Parts {
    fn add(&mut self, part: &str) {
        self.0.push(part.into());
    }

    /// One part is itself; of several each is preceded by its length, so that no two lists of parts give the same text.
    fn material(self) -> SecretString {
        match self.0.as_slice() {
            [only] => only.clone(),
            parts => {
                let parts = parts.iter().map(ExposeSecret::expose_secret);
                parts.map(|part| format!("{}:{part}", part.len())).collect::<String>().into()
            }
        }
    }
}

fn absent<T>(lookup: &mut Lookup<'_>, member: &str) -> Result<T, Unavailable> {
    let message = format!("type is {:?}, but there is no {member}", lookup.policy.spec.kind);
    lookup.refuse("spec", message, "name its Secret")
}

fn api_key(
    lookup: &mut Lookup<'_>,
    member: &str,
    written: Option<&SecretKeyCredential>,
    parts: &mut Parts,
) -> Result<Option<ApiKeyAuth>, Unavailable> {
    let Some(SecretKeyCredential { secret_ref }) = written else { return absent(lookup, member) };
    let key = lookup.key(&format!("spec.{member}.secretRef"), secret_ref, API_KEY, "API key")?;
    parts.add(key.expose_secret());
    Ok(Some(ApiKeyAuth { key }))
}

fn aws(lookup: &mut Lookup<'_>, written: &AWSCredentials, parts: &mut Parts) -> Result<AwsAuth, Unavailable> {
    let AWSCredentials { region, credentials_file, oidc_exchange_token } = written;
    let mut auth = AwsAuth { region: region.clone(), ..AwsAuth::default() };
    parts.add(region);
    if let Err(error) = AwsTarget::new(region, None) {
        let help = "write the region as AWS does, for example us-east-1";
        return lookup.refuse("spec.awsCredentials.region", error.to_string(), help);
    }
    if let Some(exchange) = oidc_exchange_token {
        if credentials_file.is_some() {
            let message = "there can be one of `credentialsFile` and `oidcExchangeToken`".to_owned();
            return lookup.refuse("spec.awsCredentials", message, "remove one of them");
        }
        let field = "spec.awsCredentials.oidcExchangeToken.oidc";
        let issuer = issuer(lookup, field, &exchange.oidc, exchange.aud.as_ref(), parts)?;
        parts.add(&exchange.aws_role_arn);
        let session = session_name(lookup.policy.name());
        auth.role = Some(AwsRole { arn: exchange.aws_role_arn.clone(), session, issuer });
        return Ok(auth);
    }
    let Some(file) = credentials_file else { return Ok(auth) };
    let field = "spec.awsCredentials.credentialsFile.secretRef";
    let (text, secret) = lookup.value(field, &file.secret_ref, AWS_FILE, "AWS credentials file")?;
    if let Err(error) = aws_keys_of_file(text.expose_secret(), &file.profile) {
        let help = "a profile has the lines `aws_access_key_id = …` and `aws_secret_access_key = …`";
        lookup
            .diagnostics
            .push(secret.error(&format!("stringData.{AWS_FILE}"), error.to_string()).help(help));
        return Err(Unavailable);
    }
    parts.add(text.expose_secret());
    parts.add(&file.profile);
    auth.credential_file_literal = Some(text);
    auth.profile = Some(file.profile.clone());
    Ok(auth)
}

/// What STS takes as a session's name: at most 64 of these characters.
fn session_name(policy: &str) -> String {
    let fits = |c: &char| c.is_ascii_alphanumeric() || "+=,.@-_".contains(*c);
    format!("ai-gateway-{policy}").chars().filter(fits).take(64).collect()
}

fn azure(
    lookup: &mut Lookup<'_>,
    written: &AzureCredentials,
    parts: &mut Parts,
) -> Result<AzureAuth, Unavailable> {
    let AzureCredentials { client_id, tenant_id, client_secret_ref, oidc_exchange_token } = written;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !tenant_id.bytes().all(fits) {
        let message = format!("`{tenant_id}` is no directory");
        let help = "write its id, or its domain name";
        return lookup.refuse("spec.azureCredentials.tenantID", message, help);
    }
    let mut application = AzureApplication {
        tenant_id: tenant_id.clone(),
        client_id: client_id.clone(),
        client_secret: None,
        issuer: None,
        authority: None,
    };
    parts.add(tenant_id);
    parts.add(client_id);
    match (client_secret_ref, oidc_exchange_token) {
        (Some(reference), None) => {
            let field = "spec.azureCredentials.clientSecretRef";
            let secret = lookup.key(field, reference, CLIENT_SECRET, "client secret")?;
            parts.add(secret.expose_secret());
            application.client_secret = Some(secret);
        }
        (None, Some(exchange)) => {
            let field = "spec.azureCredentials.oidcExchangeToken.oidc";
            application.issuer = Some(issuer(lookup, field, &exchange.oidc, exchange.aud.as_ref(), parts)?);
        }
        // Said when it was read.
        _ => return Err(Unavailable),
    }
    Ok(AzureAuth { access_token: None, application: Some(application) })
}

fn gcp(lookup: &mut Lookup<'_>, written: &GCPCredentials, parts: &mut Parts) -> Result<GcpAuth, Unavailable> {
    let GCPCredentials { project_name, region, credentials_file, workload_identity_federation_config } =
        written;
    let mut auth =
        GcpAuth { region: region.clone(), project_name: project_name.clone(), ..GcpAuth::default() };
    parts.add(project_name);
    parts.add(region);
    if let Err(error) = Signer::gcp(None, Source::GcpDefault, project_name, region) {
        let help =
            "write projectName and region as Google Cloud does, for example my-project and us-central1";
        return lookup.refuse("spec.gcpCredentials", error.to_string(), help);
    }
    if let Some(config) = workload_identity_federation_config {
        auth.federation = Some(federation(lookup, config, project_name, parts)?);
    } else if let Some(SecretKeyCredential { secret_ref }) = credentials_file {
        let field = "spec.gcpCredentials.credentialsFile.secretRef";
        let (text, secret) = lookup.value(field, secret_ref, GCP_FILE, "Google Cloud credentials file")?;
        let kind = serde_json::from_str::<serde_json::Value>(text.expose_secret()).ok();
        let kind = kind.as_ref().and_then(|file| file["type"].as_str()).unwrap_or_default();
        if !GCP_FILES.contains(&kind) {
            let message = "this is no credentials file of Google Cloud that can be used";
            let help = format!("it has to be JSON, with a `type` that is one of {}", GCP_FILES.join(", "));
            lookup.diagnostics.push(secret.error(&format!("stringData.{GCP_FILE}"), message).help(help));
            return Err(Unavailable);
        }
        parts.add(text.expose_secret());
        auth.credentials_file = Some(text);
    }
    Ok(auth)
}

fn federation(
    lookup: &mut Lookup<'_>,
    written: &GCPWorkloadIdentityFederationConfig,
    project_name: &str,
    parts: &mut Parts,
) -> Result<GcpFederation, Unavailable> {
    let GCPWorkloadIdentityFederationConfig {
        project_id,
        workload_identity_pool_name: pool,
        workload_identity_provider_name: provider,
        service_account_impersonation,
        oidc_exchange_token: exchange,
    } = written;
    let field = "spec.gcpCredentials.workloadIdentityFederationConfig.oidcExchangeToken.oidc";
    let issuer = issuer(lookup, field, &exchange.oidc, exchange.aud.as_ref(), parts)?;
    let audience = format!(
        "//iam.googleapis.com/projects/{project_id}/locations/global/workloadIdentityPools/{pool}/providers/{provider}"
    );
    let service_account = service_account_impersonation
        .as_ref()
        .map(|account| format!("{}@{project_name}.iam.gserviceaccount.com", account.service_account_name));
    parts.add(&audience);
    parts.add(service_account.as_deref().unwrap_or_default());
    Ok(GcpFederation { audience, service_account, issuer })
}

fn issuer(
    lookup: &mut Lookup<'_>,
    field: &str,
    written: &OIDC,
    audience: Option<&String>,
    parts: &mut Parts,
) -> Result<Issuer, Unavailable> {
    let OIDC { provider, client_id, client_secret, scopes, .. } = written;
    let Some(client_id) = client_id else {
        let message = "there is no client".to_owned();
        return lookup.refuse(&format!("{field}.clientID"), message, "name it as `clientID`");
    };
    let endpoint = provider.token_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
    for (name, url) in [("issuer", Some(&provider.issuer)), ("tokenEndpoint", endpoint.as_ref())] {
        if url.is_some_and(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
            let message = "this is no URL of http or https".to_owned();
            return lookup.refuse(
                &format!("{field}.provider.{name}"),
                message,
                "write it out, with https://",
            );
        }
    }
    let secret =
        lookup.key(&format!("{field}.clientSecret"), client_secret, CLIENT_SECRET, "client secret")?;
    let audience = audience.filter(|audience| !audience.is_empty()).cloned();
    for part in [&provider.issuer, client_id, endpoint.as_ref().unwrap_or(&String::new())] {
        parts.add(part);
    }
    parts.add(secret.expose_secret());
    parts.add(&scopes.join(" "));
    parts.add(audience.as_deref().unwrap_or_default());
    Ok(Issuer {
        url: provider.issuer.clone(),
        token_endpoint: endpoint,
        client_id: client_id.clone(),
        client_secret: secret,
        scopes: scopes.clone(),
        audience,
    })
}

fn per_request(
    lookup: &mut Lookup<'_>,
    written: &security::CredentialOverride,
    parts: &mut Parts,
) -> Result<CredentialOverride, Unavailable> {
    let spec = &lookup.policy.spec;
    // The names are those of the filters in front that are there already.
    let usual = match spec.kind {
        Type::APIKey => "x-aigw-api-key",
        Type::AnthropicAPIKey => "x-aigw-anthropic-api-key",
        Type::AzureAPIKey => "x-aigw-azure-api-key",
        Type::AzureCredentials => "x-aigw-azure-access-token",
        Type::GCPCredentials => "x-aigw-gcp-access-token",
        Type::AWSCredentials => "x-aigw-aws-",
    };
    let aws = spec.kind == Type::AWSCredentials;
    let filled = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let (field, made) = match (&written.from_request_headers, &written.from_dynamic_metadata) {
        (Some(header), None) => {
            let name = filled(&header.header).unwrap_or_else(|| usual.to_owned()).to_ascii_lowercase();
            let read = match aws {
                true => ["access-key-id", "secret-access-key", "session-token"]
                    .map(|part| format!("{name}{part}"))
                    .to_vec(),
                false => vec![name.clone()],
            };
            let made = CredentialOverride {
                header_name: name,
                fallback_to_configured: header.fallback_to_configured,
                input_headers_to_remove: read,
                ..CredentialOverride::default()
            };
            ("fromRequestHeaders", made)
        }
        (None, Some(metadata)) => {
            let usual = if aws { "x-aigw-aws-credentials" } else { usual };
            let made = CredentialOverride {
                dynamic_metadata_namespace: metadata.namespace.clone(),
                dynamic_metadata_key: filled(&metadata.key).unwrap_or_else(|| usual.to_owned()),
                fallback_to_configured: metadata.fallback_to_configured,
                ..CredentialOverride::default()
            };
            let message =
                "no filter of this gateway writes dynamic metadata: no request brings a credential this way";
            let help = "take it from a header: fromRequestHeaders";
            let warning = lookup.policy.warning("spec.credentialOverride.fromDynamicMetadata", message);
            lookup.diagnostics.push(warning.help(help));
            ("fromDynamicMetadata", made)
        }
        // Said when it was read.
        _ => return Err(Unavailable),
    };
    let gcp = spec.gcp_credentials.as_ref();
    let nothing_else = gcp.is_some_and(|gcp| {
        gcp.credentials_file.is_none() && gcp.workload_identity_federation_config.is_none()
    });
    if nothing_else && made.fallback_to_configured {
        let field = format!("spec.credentialOverride.{field}.fallbackToConfigured");
        let message = "there is no configured credential to fall back to".to_owned();
        let help = "write `fallbackToConfigured: false`, or name a credentialsFile";
        return lookup.refuse(&field, message, help);
    }
    parts.add(&made.header_name);
    parts.add(&made.dynamic_metadata_namespace);
    parts.add(&made.dynamic_metadata_key);
    parts.add(if made.fallback_to_configured { "falls back" } else { "does not" });
    Ok(made)
}
