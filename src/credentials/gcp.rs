//! Tokens of Google Cloud: service accounts, users, external accounts, the metadata server.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Request;
use super::{FetchError, Providers, oidc, rfc3339};
use crate::auth::{Held, Issuer, Secret};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";
const WHO: &str = "Google";

/// A credentials file, by its `type`.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum File {
    ServiceAccount {
        client_email: String,
        private_key: SecretString,
        #[serde(default)]
        private_key_id: String,
        #[serde(default)]
        token_uri: Option<String>,
    },
    AuthorizedUser {
        client_id: String,
        client_secret: SecretString,
        refresh_token: SecretString,
    },
    ExternalAccount {
        audience: String,
        #[serde(default = "jwt_type")]
        subject_token_type: String,
        token_url: String,
        #[serde(default)]
        service_account_impersonation_url: Option<String>,
        credential_source: SubjectToken,
    },
}

fn jwt_type() -> String {
    JWT_TYPE.to_owned()
}

/// Where the token stands that is exchanged.
#[derive(Deserialize)]
struct SubjectToken {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    format: Option<SubjectFormat>,
}

#[derive(Deserialize)]
struct SubjectFormat {
    subject_token_field_name: Option<String>,
}

impl Providers {
    pub(super) async fn gcp_file(&self, text: &SecretString) -> Result<Held, FetchError> {
        // The parser's own message might quote what it read.
        let file = serde_json::from_str(text.expose_secret()).map_err(|_| {
            let kinds = "service_account, authorized_user and external_account";
            FetchError(format!("the credentials file is not one of {kinds}, or a member is missing"))
        })?;
        let proxy = |url: &str| self.proxy("AI_GATEWAY_GCP_AUTH_PROXY_URL", url);
        match file {
            File::ServiceAccount { client_email, private_key, private_key_id, token_uri } => {
                let url = token_uri.as_deref().unwrap_or(TOKEN_URL);
                let assertion = assertion(&client_email, &private_key, &private_key_id, url, self.now())?;
                let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                let fields = [("grant_type", grant), ("assertion", &assertion)];
                let answer = self.client.send(Request::form(url, &fields).by(proxy(url))).await?.json(WHO)?;
                oidc::bearer(&answer, self.now(), WHO)
            }
            File::AuthorizedUser { client_id, client_secret, refresh_token } => {
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("client_id", &client_id),
                    ("client_secret", client_secret.expose_secret()),
                    ("refresh_token", refresh_token.expose_secret()),
                ];
                let request =
                    Request::form(&self.endpoints.gcp_token, &fields).by(proxy(&self.endpoints.gcp_token));
                oidc::bearer(&self.client.send(request).await?.json(WHO)?, self.now(), WHO)
            }
            File::ExternalAccount {
                audience,
                subject_token_type,
                token_url,
                service_account_impersonation_url: impersonation,
                credential_source,
            } => {
                let subject = self.subject(credential_source).await?;
                self.exchanged(&token_url, &audience, &subject, &subject_token_type, impersonation.as_deref())
                    .await
            }
        }
    }

    /// The application default credentials: the file that the environment names, the user's, the machine's.
    pub(super) async fn gcp_default(&self) -> Result<Held, FetchError> {
        let named = self.variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
        let folder = self.variable("CLOUDSDK_CONFIG").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(self.variable("HOME")?).join(".config/gcloud")));
        let of_user = || folder.map(|folder| folder.join("application_default_credentials.json"));
        if let Some(path) = named {
            let text = super::read(&path).await?;
            return self.gcp_file(&text).await;
        }
        if let Some(path) = of_user()
            && let Ok(text) = super::read(&path).await
        {
            return self.gcp_file(&text).await;
        }
        let host =
            self.variable("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned());
        let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token");
        let request = Request::get(&url).header("metadata-flavor", "Google");
        let answer = self.client.send(request).await.map_err(|error| {
            let places = "GOOGLE_APPLICATION_CREDENTIALS names no file and gcloud has left none";
            FetchError(format!(
                "no application default credentials: {places}, and the metadata server: {error}"
            ))
        })?;
        oidc::bearer(&answer.json("the metadata server")?, self.now(), "the metadata server")
    }

    pub(super) async fn gcp_federation(
        &self,
        audience: &str,
        service_account: Option<&str>,
        issuer: &Issuer,
    ) -> Result<Held, FetchError> {
        let token = self.issued(issuer).await?;
        let impersonation = service_account.map(|account| {
            format!("{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken", self.endpoints.gcp_iam)
        });
        self.exchanged(&self.endpoints.gcp_sts, audience, &token, JWT_TYPE, impersonation.as_deref()).await
    }

    /// Another provider's token for one of Google's (RFC 8693), then that of a service account, if asked.
    async fn exchanged(
        &self,
        url: &str,
        audience: &str,
        subject: &SecretString,
        subject_type: &str,
        impersonation: Option<&str>,
    ) -> Result<Held, FetchError> {
        let proxy = |url: &str| self.proxy("AI_GATEWAY_GCP_AUTH_PROXY_URL", url);
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("audience", audience),
            ("scope", SCOPE),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", subject.expose_secret()),
            ("subject_token_type", subject_type),
        ];
        let who = "Google's security token service";
        let answer = self.client.send(Request::form(url, &fields).by(proxy(url))).await?.json(who)?;
        let held = oidc::bearer(&answer, self.now(), who)?;
        let (Some(url), Secret::Header(token)) = (impersonation, &held.secret) else { return Ok(held) };
        let who = "Google's IAM credentials service";
        let mut request = Request::get(url)
            .header("authorization", token.expose_secret())
            .header("content-type", "application/json")
            .by(proxy(url));
        request.method = http::Method::POST;
        request.body = json!({ "scope": [SCOPE] }).to_string().into();
        let answer = self.client.send(request).await?.json(who)?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
        let Some(secret) = Secret::bearer(text("accessToken")) else {
            return Err(FetchError(format!("{who} answered without a usable accessToken")));
        };
        Ok(Held { secret, expires: rfc3339(text("expireTime")) })
    }

    async fn subject(&self, source: SubjectToken) -> Result<SecretString, FetchError> {
        let SubjectToken { file, url, headers, format } = source;
        let text = match (file, url) {
            (Some(file), _) => super::read(&file).await?,
            (None, Some(url)) => {
                let mut request = Request::get(&url);
                // The usual ones; others have not been seen.
                for (name, known) in [("metadata", "metadata"), ("metadata-flavor", "metadata-flavor")] {
                    if let Some((_, value)) = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)) {
                        request = request.header(known, value.clone());
                    }
                }
                let body = self.client.send(request).await?.good("the source of the external account")?;
                String::from_utf8_lossy(&body).into_owned().into()
            }
            (None, None) => {
                let kinds = "file or url (aws, executable and certificate are not supported)";
                return Err(FetchError(format!("the external account's credential_source has no {kinds}")));
            }
        };
        let Some(field) = format.and_then(|format| format.subject_token_field_name) else { return Ok(text) };
        let document: Value = serde_json::from_str(text.expose_secret()).unwrap_or_default();
        let token = document.get(&field).and_then(Value::as_str);
        token
            .map(Into::into)
            .ok_or_else(|| FetchError(format!("the external account's token has no member {field}")))
    }
}

/// The signed statement of a service account (RFC 7523).
fn assertion(
    email: &str,
    key: &SecretString,
    key_id: &str,
    audience: &str,
    now: SystemTime,
) -> Result<String, FetchError> {
    let wrong = || FetchError("the service account's private_key is no RSA key in PKCS #8 PEM".to_owned());
    let der = PrivatePkcs8KeyDer::from_pem_slice(key.expose_secret().as_bytes()).map_err(|_| wrong())?;
    let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| wrong())?;
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id });
    let claims = json!({ "iss": email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now + 3600 });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let mut text = format!("{}.{}", encode(&header), encode(&claims));
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).map_err(|_| wrong())?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut text);
    Ok(text)
}
