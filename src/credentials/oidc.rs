//! OAuth 2.0 token answers, and OIDC providers that give out tokens for a client's secret.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::http::Request;
use super::{FetchError, Providers};
use crate::auth::{Held, Issuer, Secret};

/// The bearer token of a token endpoint's answer (RFC 6749, 5.1).
pub(super) fn bearer(answer: &Value, now: SystemTime, who: &str) -> Result<Held, FetchError> {
    let token = answer.get("access_token").and_then(Value::as_str).unwrap_or_default();
    let Some(secret) = Secret::bearer(token) else {
        return Err(FetchError(format!("{who} answered without a usable access_token")));
    };
    let seconds = match answer.get("expires_in") {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_u64(),
        None => None,
    };
    let expires = seconds.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
    Ok(Held { secret, expires })
}

impl Providers {
    /// A token of an OIDC provider.
    pub(super) async fn issued(&self, issuer: &Issuer) -> Result<SecretString, FetchError> {
        let Issuer { url, token_endpoint, client_id, client_secret, scopes, audience } = issuer;
        let who = format!("the OIDC provider {url}");
        let (mut scopes, mut in_body) = (scopes.clone(), false);
        let endpoint = match token_endpoint {
            Some(endpoint) => endpoint.clone(),
            None => {
                let known = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
                let known =
                    self.client.send(Request::get(&known).by(self.proxy("", &known))).await?.json(&who)?;
                let texts = |name: &str| {
                    let list =
                        known.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                    list.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
                };
                for scope in texts("scopes_supported") {
                    if !scopes.contains(&scope) {
                        scopes.push(scope);
                    }
                }
                let methods = texts("token_endpoint_auth_methods_supported");
                in_body =
                    !methods.is_empty() && !methods.iter().any(|method| method == "client_secret_basic");
                let Some(endpoint) = known.get("token_endpoint").and_then(Value::as_str) else {
                    return Err(FetchError(format!("{who} does not tell its token_endpoint")));
                };
                if !endpoint.starts_with("https://") && url.starts_with("https://") {
                    return Err(FetchError(format!("{who} has a token_endpoint without TLS")));
                }
                endpoint.to_owned()
            }
        };
        let scopes = scopes.join(" ");
        let secret = client_secret.expose_secret().trim();
        let mut fields = vec![("grant_type", "client_credentials")];
        if !scopes.is_empty() {
            fields.push(("scope", &scopes));
        }
        if let Some(audience) = audience {
            fields.push(("audience", audience));
        }
        if in_body {
            fields.extend([("client_id", client_id.as_str()), ("client_secret", secret)]);
        }
        let mut request = Request::form(&endpoint, &fields).by(self.proxy("", &endpoint));
        if !in_body {
            let login = format!("{client_id}:{secret}");
            request = request.header("authorization", format!("Basic {}", STANDARD.encode(login)));
        }
        let answer = self.client.send(request).await?.json(&who)?;
        let token = answer.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
        token.map(Into::into).ok_or_else(|| FetchError(format!("{who} answered without an access_token")))
    }
}
