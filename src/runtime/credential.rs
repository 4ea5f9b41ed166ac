//! What a backend's requests are signed with, from what is configured.

use secrecy::{ExposeSecret, SecretString};

use super::backend::InvalidBackend;
use crate::auth::{
    AwsTarget, AzureSecret, Credential, CredentialError, Issuer, Override, Source, aws_keys_of_file,
};
use crate::config::{
    self, Auth, AwsAuth, AwsRole, AzureApplication, AzureAuth, CredentialOverride, GcpAuth, GcpFederation,
};

/// The credential of a backend; where several are configured, the first of the order in which the Go gateway looks.
pub(super) fn compile(auth: &Auth) -> Result<Credential, InvalidBackend> {
    let Auth { aws, api_key, azure_api_key, azure, gcp, anthropic_api_key, credential_override } = auth;
    let per_request = credential_override.as_ref().map(per_request).transpose()?;
    // A configured credential that is never used need not be there.
    let optional = credential_override.as_ref().is_some_and(|written| !written.fallback_to_configured);
    let credential = if let Some(auth) = aws {
        aws_credential(auth)?
    } else if let Some(auth) = api_key {
        let key = key_or_none(&auth.key, optional);
        Credential::bearer(&key).map_err(|error| invalid("auth.apiKey.key", &error))?
    } else if let Some(auth) = azure_api_key {
        let key = key_or_none(&auth.key, optional);
        Credential::azure_key(&key).map_err(|error| invalid("auth.azureAPIKey.key", &error))?
    } else if let Some(auth) = azure {
        azure_credential(auth, optional)?
    } else if let Some(auth) = gcp {
        gcp_credential(auth)?
    } else if let Some(auth) = anthropic_api_key {
        let key = key_or_none(&auth.key, optional);
        Credential::anthropic_key(&key).map_err(|error| invalid("auth.anthropicAPIKey.key", &error))?
    } else {
        // Sending without the credential that was configured would be worse than not sending.
        let kinds = "aws, apiKey, azureAPIKey, azure, gcp and anthropicAPIKey";
        let message = format!("there is no credential of a known kind in it; {kinds} are known");
        return Err(InvalidBackend { field: "auth", message });
    };
    Ok(match per_request {
        Some(per_request) => credential.or_per_request(per_request),
        None => credential,
    })
}

fn invalid(field: &'static str, error: &CredentialError) -> InvalidBackend {
    InvalidBackend { field, message: error.to_string() }
}

/// Where the key is never sent, any will do.
fn key_or_none(key: &SecretString, optional: bool) -> SecretString {
    if optional && key.expose_secret().trim().is_empty() { "unused".into() } else { key.clone() }
}

fn given(secret: &Option<SecretString>) -> Option<&SecretString> {
    secret.as_ref().filter(|secret| !secret.expose_secret().trim().is_empty())
}

fn aws_credential(auth: &AwsAuth) -> Result<Credential, InvalidBackend> {
    let AwsAuth { credential_file_literal, region, profile, host, role } = auth;
    let target =
        AwsTarget::new(region, host.as_deref()).map_err(|error| invalid("auth.aws.region", &error))?;
    let region = target.region().to_owned();
    if let Some(AwsRole { arn, session, issuer }) = role {
        let (role, session) = (arn.clone(), session.clone());
        let source = Source::AwsRole { role, session, region, issuer: self::issuer(issuer) };
        return Ok(Credential::fetched_aws(source, target));
    }
    let Some(file) = given(credential_file_literal) else {
        return Ok(Credential::fetched_aws(Source::AwsChain { region }, target));
    };
    let keys = aws_keys_of_file(file.expose_secret(), profile.as_deref().unwrap_or("default"))
        .map_err(|error| invalid("auth.aws.credentialFileLiteral", &error))?;
    Ok(Credential::aws(keys, target))
}

fn azure_credential(auth: &AzureAuth, optional: bool) -> Result<Credential, InvalidBackend> {
    let AzureAuth { access_token, application } = auth;
    let Some(application) = application else {
        let token = access_token.clone().unwrap_or_default();
        let token = key_or_none(&token, optional);
        return Credential::bearer(&token).map_err(|error| invalid("auth.azure.accessToken", &error));
    };
    let AzureApplication { tenant_id, client_id, client_secret, issuer, authority } = application;
    let secret = match (given(client_secret), issuer) {
        (Some(secret), None) => AzureSecret::Secret(secret.clone()),
        (None, Some(issuer)) => AzureSecret::Issuer(self::issuer(issuer)),
        _ => {
            let message = "either clientSecret or issuer has to be there".to_owned();
            return Err(InvalidBackend { field: "auth.azure.application", message });
        }
    };
    let (tenant, client) = (tenant_id.clone(), client_id.clone());
    Ok(Credential::fetched_bearer(Source::Azure { tenant, client, secret, authority: authority.clone() }))
}

fn gcp_credential(auth: &GcpAuth) -> Result<Credential, InvalidBackend> {
    let GcpAuth { access_token, region, project_name, credentials_file, federation } = auth;
    let source = match (given(credentials_file), federation) {
        (_, Some(GcpFederation { audience, service_account, issuer })) => Source::GcpFederation {
            audience: audience.clone(),
            service_account: service_account.clone(),
            issuer: self::issuer(issuer),
        },
        (Some(file), None) => Source::GcpFile(file.clone()),
        (None, None) => Source::GcpDefault,
    };
    Credential::gcp(given(access_token), source, project_name, region)
        .map_err(|error| invalid("auth.gcp", &error))
}

fn issuer(issuer: &config::Issuer) -> Issuer {
    let config::Issuer { url, token_endpoint, client_id, client_secret, scopes, audience } = issuer.clone();
    Issuer { url, token_endpoint, client_id, client_secret, scopes, audience }
}

fn per_request(written: &CredentialOverride) -> Result<Override, InvalidBackend> {
    let CredentialOverride {
        header_name,
        dynamic_metadata_namespace: namespace,
        dynamic_metadata_key: key,
        fallback_to_configured: fallback,
        input_headers_to_remove,
    } = written;
    let from = match (header_name.as_str(), namespace.as_str()) {
        ("", "") => {
            let message = "it names neither a header nor a namespace of dynamic metadata".to_owned();
            return Err(InvalidBackend { field: "auth.credentialOverride", message });
        }
        ("", _) => Override::metadata(namespace, key, *fallback),
        (name, _) => Override::header(name, *fallback),
    };
    Ok(from.removing(input_headers_to_remove))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kind(auth: serde_json::Value) -> Result<String, String> {
        let auth: Auth = serde_json::from_value(auth).unwrap();
        match compile(&auth) {
            Ok(credential) => Ok(credential.cell().map_or("fixed", |cell| cell.source().kind()).to_owned()),
            Err(InvalidBackend { field, message }) => Err(format!("{field}: {message}")),
        }
    }

    const FILE: &str = "[default]\naws_access_key_id = AKID\naws_secret_access_key = hush\n";

    #[test]
    fn every_kind_leads_to_its_source() {
        let issuer = json!({"url": "https://i", "clientId": "c", "clientSecret": "s"});
        let gcp = |more: serde_json::Value| {
            let mut auth = json!({"region": "r", "projectName": "p"});
            auth.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"gcp": auth})
        };
        for (auth, expected) in [
            (json!({"aws": {"credentialFileLiteral": FILE, "region": "us-east-1"}}), "fixed"),
            (json!({"aws": {"credentialFileLiteral": " ", "region": "us-east-1"}}), "the AWS default chain"),
            (json!({"aws": {"region": "us-east-1"}}), "the AWS default chain"),
            (
                json!({"aws": {"region": "us-east-1", "role": {"arn": "a", "session": "s", "issuer": issuer}}}),
                "an AWS role by OIDC",
            ),
            (json!({"azure": {"accessToken": "t"}}), "fixed"),
            (
                json!({"azure": {"application": {"tenantId": "t", "clientId": "c", "clientSecret": "s"}}}),
                "a Microsoft Entra application",
            ),
            (gcp(json!({"accessToken": "t"})), "fixed"),
            (gcp(json!({"accessToken": ""})), "Google's application default credentials"),
            (gcp(json!({"credentialsFile": "{}"})), "a Google credentials file"),
            (
                gcp(json!({"federation": {"audience": "a", "issuer": issuer}})),
                "Google's workload identity federation",
            ),
            // What is never used is not fetched.
            (json!({"aws": {"region": "us-east-1"}, "credentialOverride": {"headerName": "x-"}}), "fixed"),
            (json!({"apiKey": {"key": ""}, "credentialOverride": {"headerName": "x-key"}}), "fixed"),
        ] {
            assert_eq!(kind(auth.clone()).as_deref(), Ok(expected), "{auth}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_and_secrets_are_not() {
        for (auth, field) in [
            (json!({}), "auth: "),
            (json!({"azureAPIKey": {"key": ""}}), "auth.azureAPIKey.key: "),
            (json!({"azure": {}}), "auth.azure.accessToken: "),
            (
                json!({"azure": {"application": {"tenantId": "t", "clientId": "c"}}}),
                "auth.azure.application: ",
            ),
            (json!({"aws": {"credentialFileLiteral": FILE}}), "auth.aws.region: "),
            (
                json!({"aws": {"credentialFileLiteral": "hush", "region": "r"}}),
                "auth.aws.credentialFileLiteral: ",
            ),
            (json!({"gcp": {"accessToken": "hush", "region": "r", "projectName": "../x"}}), "auth.gcp: "),
            (json!({"apiKey": {"key": "k"}, "credentialOverride": {}}), "auth.credentialOverride: "),
            (
                json!({"apiKey": {"key": ""}, "credentialOverride": {"headerName": "x", "fallbackToConfigured": true}}),
                "auth.apiKey.key: ",
            ),
        ] {
            let error = kind(auth.clone()).unwrap_err();
            assert!(error.starts_with(field), "{auth}: {error}");
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
