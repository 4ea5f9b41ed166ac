//! The document as text, with its secrets or without: one list of its fields for both, so that none is forgotten in one.

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

use super::{
    ApiKeyAuth, ApiSchema, Auth, AwsAuth, AwsRole, AzureApplication, AzureAuth, Backend, BodyMutation,
    Config, CredentialOverride, GcpAuth, GcpFederation, HeaderMutation, Issuer,
};

/// What stands for every secret.
pub(super) const REDACTED: &str = "[REDACTED]";

/// What becomes of secrets.
#[derive(Clone, Copy)]
pub(super) enum Secrets {
    Shown,
    Redacted,
}

impl Secrets {
    fn of(self, secret: &SecretString) -> Secret<'_> {
        let text = secret.expose_secret();
        match self {
            Self::Shown => Secret(text),
            // Nothing is no secret, and often what one wants to know.
            Self::Redacted if text.trim().is_empty() => Secret(""),
            Self::Redacted => Secret(REDACTED),
        }
    }

    fn maybe(self, secret: Option<&SecretString>) -> Option<Secret<'_>> {
        secret.map(|secret| self.of(secret))
    }
}

/// A secret, or what stands for it. It borrows: no copy of it is made on the way.
#[derive(Serialize)]
#[serde(transparent)]
struct Secret<'a>(&'a str);

/// A document that is being written.
pub(super) struct Document<'a>(pub(super) &'a Config, pub(super) Secrets);

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // All fields by name: a new one has to be looked at for secrets before it can be shown.
        let Config {
            version,
            uuid,
            global_llm_request_costs,
            llm_request_costs,
            backends,
            models,
            models_by_host,
            unscoped_models,
            gateways,
            quotas,
        } = self.0;
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Written<'a> {
            version: &'a str,
            uuid: &'a str,
            #[serde(rename = "globalLLMRequestCosts")]
            global_llm_request_costs: &'a [super::LlmRequestCost],
            llm_request_costs: &'a [super::RouteCost],
            backends: Vec<WrittenBackend<'a>>,
            models: &'a [super::Model],
            models_by_host: &'a std::collections::BTreeMap<String, Vec<super::Model>>,
            unscoped_models: &'a [super::Model],
            gateways: &'a [super::Gateway],
            quotas: &'a [super::Quota],
        }
        let written = Written {
            version,
            uuid,
            global_llm_request_costs,
            llm_request_costs,
            backends: backends.iter().map(|backend| WrittenBackend::new(backend, self.1)).collect(),
            models,
            models_by_host,
            unscoped_models,
            gateways,
            quotas,
        };
        written.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenBackend<'a> {
    name: &'a str,
    schema: &'a ApiSchema,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_name_override: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<WrittenAuth<'a>>,
    #[serde(rename = "httpHeaderMutation", skip_serializing_if = "Option::is_none")]
    header_mutation: Option<&'a HeaderMutation>,
    #[serde(rename = "httpBodyMutation", skip_serializing_if = "Option::is_none")]
    body_mutation: Option<&'a BodyMutation>,
}

impl<'a> WrittenBackend<'a> {
    fn new(backend: &'a Backend, secrets: Secrets) -> Self {
        let Backend { name, model_name_override, schema, auth, header_mutation, body_mutation } = backend;
        Self {
            name,
            schema,
            model_name_override: model_name_override.as_deref(),
            auth: auth.as_ref().map(|auth| WrittenAuth::new(auth, secrets)),
            header_mutation: header_mutation.as_ref(),
            body_mutation: body_mutation.as_ref(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenAuth<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    aws: Option<WrittenAws<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<WrittenKey<'a>>,
    #[serde(rename = "azureAPIKey", skip_serializing_if = "Option::is_none")]
    azure_api_key: Option<WrittenKey<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    azure: Option<WrittenAzure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gcp: Option<WrittenGcp<'a>>,
    #[serde(rename = "anthropicAPIKey", skip_serializing_if = "Option::is_none")]
    anthropic_api_key: Option<WrittenKey<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_override: Option<WrittenOverride<'a>>,
}

impl<'a> WrittenAuth<'a> {
    fn new(auth: &'a Auth, secrets: Secrets) -> Self {
        let Auth { aws, api_key, azure_api_key, azure, gcp, anthropic_api_key, credential_override } = auth;
        let key =
            |key: &'a Option<ApiKeyAuth>| key.as_ref().map(|key| WrittenKey { key: secrets.of(&key.key) });
        Self {
            aws: aws.as_ref().map(|aws| WrittenAws::new(aws, secrets)),
            api_key: key(api_key),
            azure_api_key: key(azure_api_key),
            azure: azure.as_ref().map(|azure| WrittenAzure::new(azure, secrets)),
            gcp: gcp.as_ref().map(|gcp| WrittenGcp::new(gcp, secrets)),
            anthropic_api_key: key(anthropic_api_key),
            credential_override: credential_override.as_ref().map(WrittenOverride::new),
        }
    }
}

#[derive(Serialize)]
struct WrittenKey<'a> {
    key: Secret<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenAws<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_file_literal: Option<Secret<'a>>,
    region: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    profile: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<WrittenRole<'a>>,
}

impl<'a> WrittenAws<'a> {
    fn new(aws: &'a AwsAuth, secrets: Secrets) -> Self {
        let AwsAuth { credential_file_literal, region, profile, host, role } = aws;
        Self {
            credential_file_literal: secrets.maybe(credential_file_literal.as_ref()),
            region,
            profile: profile.as_deref(),
            host: host.as_deref(),
            role: role.as_ref().map(|AwsRole { arn, session, issuer }| WrittenRole {
                arn,
                session,
                issuer: WrittenIssuer::new(issuer, secrets),
            }),
        }
    }
}

#[derive(Serialize)]
struct WrittenRole<'a> {
    arn: &'a str,
    session: &'a str,
    issuer: WrittenIssuer<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenAzure<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<Secret<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<WrittenApplication<'a>>,
}

impl<'a> WrittenAzure<'a> {
    fn new(azure: &'a AzureAuth, secrets: Secrets) -> Self {
        let AzureAuth { access_token, application } = azure;
        Self {
            access_token: secrets.maybe(access_token.as_ref()),
            application: application.as_ref().map(|application| {
                let AzureApplication { tenant_id, client_id, client_secret, issuer, authority } = application;
                WrittenApplication {
                    tenant_id,
                    client_id,
                    client_secret: secrets.maybe(client_secret.as_ref()),
                    issuer: issuer.as_ref().map(|issuer| WrittenIssuer::new(issuer, secrets)),
                    authority: authority.as_deref(),
                }
            }),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenApplication<'a> {
    tenant_id: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<Secret<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<WrittenIssuer<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenGcp<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<Secret<'a>>,
    region: &'a str,
    project_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials_file: Option<Secret<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    federation: Option<WrittenFederation<'a>>,
}

impl<'a> WrittenGcp<'a> {
    fn new(gcp: &'a GcpAuth, secrets: Secrets) -> Self {
        let GcpAuth { access_token, region, project_name, credentials_file, federation } = gcp;
        Self {
            access_token: secrets.maybe(access_token.as_ref()),
            region,
            project_name,
            credentials_file: secrets.maybe(credentials_file.as_ref()),
            federation: federation.as_ref().map(|federation| {
                let GcpFederation { audience, service_account, issuer } = federation;
                WrittenFederation {
                    audience,
                    service_account: service_account.as_deref(),
                    issuer: WrittenIssuer::new(issuer, secrets),
                }
            }),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenFederation<'a> {
    audience: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<&'a str>,
    issuer: WrittenIssuer<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenIssuer<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_endpoint: Option<&'a str>,
    client_id: &'a str,
    client_secret: Secret<'a>,
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<&'a str>,
}

impl<'a> WrittenIssuer<'a> {
    fn new(issuer: &'a Issuer, secrets: Secrets) -> Self {
        let Issuer { url, token_endpoint, client_id, client_secret, scopes, audience } = issuer;
        Self {
            url,
            token_endpoint: token_endpoint.as_deref(),
            client_id,
            client_secret: secrets.of(client_secret),
            scopes,
            audience: audience.as_deref(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenOverride<'a> {
    header_name: &'a str,
    dynamic_metadata_namespace: &'a str,
    dynamic_metadata_key: &'a str,
    fallback_to_configured: bool,
    input_headers_to_remove: &'a [String],
}

impl<'a> WrittenOverride<'a> {
    fn new(written: &'a CredentialOverride) -> Self {
        let CredentialOverride {
            header_name,
            dynamic_metadata_namespace,
            dynamic_metadata_key,
            fallback_to_configured,
            input_headers_to_remove,
        } = written;
        Self {
            header_name,
            dynamic_metadata_namespace,
            dynamic_metadata_key,
            fallback_to_configured: *fallback_to_configured,
            input_headers_to_remove,
        }
    }
}
