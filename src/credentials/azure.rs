//! Tokens of Microsoft Entra, by the client credentials flow.

use secrecy::ExposeSecret;

use super::http::Request;
use super::{FetchError, Providers, oidc};
use crate::auth::{AzureSecret, Held};

/// What the tokens are for: Azure's AI services.
const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Providers {
    pub(super) async fn azure(
        &self,
        tenant: &str,
        client: &str,
        secret: &AzureSecret,
        authority: Option<&str>,
    ) -> Result<Held, FetchError> {
        let authority = authority
            .map(str::to_owned)
            .or_else(|| self.variable("AZURE_AUTHORITY_HOST"))
            .unwrap_or_else(|| "https://login.microsoftonline.com".to_owned());
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", SCOPE)];
        let assertion;
        match secret {
            AzureSecret::Secret(secret) => fields.push(("client_secret", secret.expose_secret().trim())),
            AzureSecret::Issuer(issuer) => {
                assertion = self.issued(issuer).await?;
                fields.push(("client_assertion_type", ASSERTION));
                fields.push(("client_assertion", assertion.expose_secret()));
            }
        }
        let request = Request::form(&url, &fields).by(self.proxy("AI_GATEWAY_AZURE_PROXY_URL", &url));
        let answer = self.client.send(request).await?.json("Microsoft Entra")?;
        oidc::bearer(&answer, self.now(), "Microsoft Entra")
    }
}
