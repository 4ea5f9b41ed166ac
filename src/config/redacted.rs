//! The document to look at.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{
    Auth, AwsAuth, AwsRole, AzureApplication, AzureAuth, Backend, Config, CredentialOverride, GcpAuth,
    GcpFederation, Issuer,
};

/// What stands for every secret.
const REDACTED: &str = "[REDACTED]";

impl Config {
    /// The document with every credential replaced. For people and tests; the processor cannot use it.
    #[must_use]
    pub fn redacted(&self) -> Value {
        // All fields by name: a new one has to be looked at for secrets before it can be shown.
        let Self {
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
        } = self;
        json!({
            "version": version,
            "uuid": uuid,
            "globalLLMRequestCosts": global_llm_request_costs,
            "llmRequestCosts": llm_request_costs,
            "backends": backends.iter().map(backend).collect::<Vec<_>>(),
            "models": models,
            "modelsByHost": models_by_host,
            "unscopedModels": unscoped_models,
            "gateways": gateways,
            "quotas": quotas,
        })
    }
}

fn backend(backend: &Backend) -> Value {
    let Backend { name, model_name_override, schema, auth, header_mutation, body_mutation } = backend;
    let mut document = json!({ "name": name, "schema": schema });
    if let Some(model) = model_name_override {
        document["modelNameOverride"] = json!(model);
    }
    if let Some(auth) = auth {
        document["auth"] = self::auth(auth);
    }
    if let Some(mutation) = header_mutation {
        document["httpHeaderMutation"] = json!(mutation);
    }
    if let Some(mutation) = body_mutation {
        document["httpBodyMutation"] = json!(mutation);
    }
    document
}

fn auth(auth: &Auth) -> Value {
    let Auth { aws, api_key, azure_api_key, azure, gcp, anthropic_api_key, credential_override } = auth;
    let mut document = json!({});
    let keys = [("apiKey", api_key), ("azureAPIKey", azure_api_key), ("anthropicAPIKey", anthropic_api_key)];
    for (kind, _) in keys.iter().filter(|(_, key)| key.is_some()) {
        document[kind] = json!({ "key": REDACTED });
    }
    if let Some(AwsAuth { credential_file_literal, region, profile, host, role }) = aws {
        document["aws"] = json!({
            "credentialFileLiteral": hidden(credential_file_literal),
            "region": region,
            "profile": profile,
            "host": host,
            "role": role.as_ref().map(|AwsRole { arn, session, issuer }| {
                json!({ "arn": arn, "session": session, "issuer": self::issuer(issuer) })
            }),
        });
    }
    if let Some(AzureAuth { access_token, application }) = azure {
        document["azure"] = json!({
            "accessToken": hidden(access_token),
            "application": application.as_ref().map(azure_application),
        });
    }
    if let Some(GcpAuth { access_token, region, project_name, credentials_file, federation }) = gcp {
        document["gcp"] = json!({
            "accessToken": hidden(access_token),
            "region": region,
            "projectName": project_name,
            "credentialsFile": hidden(credentials_file),
            "federation": federation.as_ref().map(|GcpFederation { audience, service_account, issuer }| {
                json!({ "audience": audience, "serviceAccount": service_account, "issuer": self::issuer(issuer) })
            }),
        });
    }
    if let Some(CredentialOverride {
        header_name,
        dynamic_metadata_namespace,
        dynamic_metadata_key,
        fallback_to_configured,
        input_headers_to_remove,
    }) = credential_override
    {
        document["credentialOverride"] = json!({
            "headerName": header_name,
            "dynamicMetadataNamespace": dynamic_metadata_namespace,
            "dynamicMetadataKey": dynamic_metadata_key,
            "fallbackToConfigured": fallback_to_configured,
            "inputHeadersToRemove": input_headers_to_remove,
        });
    }
    drop_nulls(&mut document);
    document
}

fn azure_application(application: &AzureApplication) -> Value {
    let AzureApplication { tenant_id, client_id, client_secret, issuer, authority } = application;
    json!({
        "tenantId": tenant_id,
        "clientId": client_id,
        "clientSecret": hidden(client_secret),
        "issuer": issuer.as_ref().map(self::issuer),
        "authority": authority,
    })
}

fn issuer(issuer: &Issuer) -> Value {
    let Issuer { url, token_endpoint, client_id, client_secret: _, scopes, audience } = issuer;
    json!({
        "url": url,
        "tokenEndpoint": token_endpoint,
        "clientId": client_id,
        "clientSecret": REDACTED,
        "scopes": scopes,
        "audience": audience,
    })
}

fn hidden(secret: &Option<SecretString>) -> Option<&'static str> {
    let secret = secret.as_ref()?.expose_secret();
    // Nothing is no secret, and often what one wants to know.
    Some(if secret.trim().is_empty() { "" } else { REDACTED })
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(members) = value {
        members.retain(|_, member| !member.is_null());
        members.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_shown_and_everything_else_is() {
        let config: Config = serde_json::from_value(json!({
            "backends": [{
                "name": "default/b/route/r/rule/0/ref/0",
                "modelNameOverride": "other",
                "auth": {
                    "apiKey": {"key": "very"}, "azureAPIKey": {"key": "secret"}, "anthropicAPIKey": {"key": "indeed"},
                    "aws": {"credentialFileLiteral": "hush", "region": "us-east-1", "role": {
                        "arn": "arn:x", "session": "s",
                        "issuer": {"url": "https://issuer", "clientId": "c", "clientSecret": "psst"},
                    }},
                    "azure": {"accessToken": "quiet", "application": {
                        "tenantId": "tenant", "clientId": "c", "clientSecret": "silence",
                    }},
                    "gcp": {"accessToken": "", "region": "r", "projectName": "project", "credentialsFile": "mum"},
                    "credentialOverride": {"headerName": "x-brought"},
                },
                "httpHeaderMutation": {"set": [{"name": "x-a", "value": "b"}]},
                "httpBodyMutation": {"remove": ["user"]},
            }],
        }))
        .unwrap();
        let shown = config.redacted().to_string();
        for secret in ["\"very", "\"secret", "indeed", "hush", "psst", "quiet", "silence", "mum"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for part in [
            "anthropicAPIKey",
            "other",
            "x-a",
            "user",
            "us-east-1",
            "tenant",
            "project",
            "issuer",
            "x-brought",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }
}
