//! Keys of AWS: the standard chain (environment, web identity, shared files, container, instance) and roles by OIDC.
//!
//! The chain is followed here, and not by the SDK's configuration crate, because that one brings two thirds as many crates again
//! as everything that signs, for sources that are each one small request. What needs more than that (single sign-on, profiles
//! that assume roles or run processes) is not looked for.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::http::Request;
use super::{FetchError, Providers, element, rfc3339};
use crate::auth::{AwsKeys, Held, Issuer, Secret, aws_keys_of_file};

/// Where tasks of ECS ask for their keys.
const CONTAINER_HOST: &str = "http://169.254.170.2";
/// To these, keys may come without TLS: this machine, and where ECS and EKS answer.
const PLAIN_HOSTS: [&str; 6] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "127.0.0.1", "localhost", "[::1]"];

impl Providers {
    pub(super) async fn aws_chain(&self, region: &str) -> Result<Held, FetchError> {
        let profile = self.variable("AWS_PROFILE");
        if profile.is_none() {
            let (id, secret) = (self.variable("AWS_ACCESS_KEY_ID"), self.variable("AWS_SECRET_ACCESS_KEY"));
            if let (Some(id), Some(secret)) = (id, secret) {
                let token = self.variable("AWS_SESSION_TOKEN");
                return keys(&id, &secret, token.as_deref(), None, "the environment");
            }
            if let (Some(file), Some(role)) =
                (self.variable("AWS_WEB_IDENTITY_TOKEN_FILE"), self.variable("AWS_ROLE_ARN"))
            {
                let session =
                    self.variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "ai-gateway".to_owned());
                let token = super::read(Path::new(&file)).await?;
                return self.assumed(&role, &session, region, &token).await;
            }
        }
        if let Some(found) = self.shared_files(profile.as_deref().unwrap_or("default")).await {
            return found;
        }
        if let Some(profile) = profile {
            let kind = "with an access key (roles, processes and single sign-on are not supported)";
            return Err(FetchError(format!("the shared files of AWS have no profile `{profile}` {kind}")));
        }
        let relative = self.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let container = relative.map(|path| format!("{CONTAINER_HOST}{path}"));
        if let Some(url) = container.or_else(|| self.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
            return self.container(&url).await;
        }
        if self.variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        {
            return Err(FetchError(
                "nothing of the AWS default chain is there: no keys in the environment, no web identity, no shared file, no container"
                    .to_owned(),
            ));
        }
        self.instance().await
    }

    /// The keys of a profile in the shared credentials file, else in the shared configuration file.
    async fn shared_files(&self, profile: &str) -> Option<Result<Held, FetchError>> {
        let home = self.variable("HOME").map(PathBuf::from);
        for (variable, usual) in
            [("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), ("AWS_CONFIG_FILE", ".aws/config")]
        {
            let path = self.variable(variable).map(PathBuf::from);
            let Some(path) = path.or_else(|| Some(home.as_ref()?.join(usual))) else { continue };
            let Ok(text) = super::read(&path).await else { continue };
            if let Ok(keys) = aws_keys_of_file(text.expose_secret(), profile) {
                return Some(Ok(Held { secret: Secret::Aws(keys), expires: None }));
            }
        }
        None
    }

    /// What the container's own endpoint gives: ECS, EKS pod identity.
    async fn container(&self, url: &str) -> Result<Held, FetchError> {
        let who = "the container's credential endpoint";
        let uri: http::Uri =
            url.parse().map_err(|_| FetchError(format!("the URL of {who} cannot be read")))?;
        let host = uri.host().unwrap_or_default();
        if uri.scheme_str() != Some("https") && !PLAIN_HOSTS.contains(&host) {
            return Err(FetchError(format!("{who} ({host}) is neither local nor behind TLS")));
        }
        let mut request = Request::get(url);
        let token = match self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            Some(file) => Some(super::read(Path::new(&file)).await?),
            None => self.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Into::into),
        };
        if let Some(token) = token {
            request = request.header("authorization", token.expose_secret().trim());
        }
        document(&self.client.send(request).await?.json(who)?, who)
    }

    /// What the instance's metadata service gives (IMDSv2).
    async fn instance(&self) -> Result<Held, FetchError> {
        let who = "the instance's metadata service";
        let base = self.variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let base = base.unwrap_or_else(|| "http://169.254.169.254".to_owned());
        let base = base.trim_end_matches('/');
        let url = format!("{base}/latest/api/token");
        let mut request = Request::get(&url).header("x-aws-ec2-metadata-token-ttl-seconds", "300");
        request.method = http::Method::PUT;
        let token = self.client.send(request).await.map_err(|error| {
            let places = "no keys in the environment, no web identity, no shared file, no container";
            FetchError(format!("nothing of the AWS default chain is there: {places}, and {who}: {error}"))
        })?;
        let token = String::from_utf8_lossy(&token.good(who)?).trim().to_owned();
        let get = |url| Request::get(url).header("x-aws-ec2-metadata-token", token.clone());
        let url = format!("{base}/latest/meta-data/iam/security-credentials/");
        let roles = self.client.send(get(&url)).await?.good(who)?;
        let roles = String::from_utf8_lossy(&roles).into_owned();
        let Some(role) = roles.lines().map(str::trim).find(|role| !role.is_empty()) else {
            return Err(FetchError("the instance has no role".to_owned()));
        };
        let url = format!("{url}{role}");
        document(&self.client.send(get(&url)).await?.json(who)?, who)
    }

    pub(super) async fn aws_role(
        &self,
        role: &str,
        session: &str,
        region: &str,
        issuer: &Issuer,
    ) -> Result<Held, FetchError> {
        let token = self.issued(issuer).await?;
        self.assumed(role, session, region, &token).await
    }

    /// `AssumeRoleWithWebIdentity` of STS, which needs no signature.
    async fn assumed(
        &self,
        role: &str,
        session: &str,
        region: &str,
        token: &SecretString,
    ) -> Result<Held, FetchError> {
        let named = self.variable("AWS_REGION").or_else(|| self.variable("AWS_DEFAULT_REGION"));
        let region = named.as_deref().unwrap_or(region);
        let url = self.variable("AWS_ENDPOINT_URL_STS");
        let url = url.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com/"));
        let fields = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session),
            ("WebIdentityToken", token.expose_secret().trim()),
        ];
        let request = Request::form(&url, &fields).by(self.proxy("AI_GATEWAY_STS_PROXY_URL", &url));
        let who = "AWS's security token service";
        let body = self.client.send(request).await?.good(who)?;
        let text = String::from_utf8_lossy(&body);
        let part = |name| element(&text, name).unwrap_or_default();
        let token = element(&text, "SessionToken");
        keys(part("AccessKeyId"), part("SecretAccessKey"), token, Some(part("Expiration")), who)
    }
}

/// Keys as endpoints of containers and instances give them.
fn document(document: &Value, who: &str) -> Result<Held, FetchError> {
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let part = |name| text(name).unwrap_or_default();
    keys(part("AccessKeyId"), part("SecretAccessKey"), text("Token"), text("Expiration"), who)
}

fn keys(
    id: &str,
    secret: &str,
    token: Option<&str>,
    expiration: Option<&str>,
    who: &str,
) -> Result<Held, FetchError> {
    let expires = expiration.and_then(rfc3339);
    if expiration.is_some() && expires.is_none() {
        return Err(FetchError(format!("{who} gave keys without a readable Expiration")));
    }
    let Some(keys) = AwsKeys::new(id, secret, token) else {
        return Err(FetchError(format!("{who} gave no usable access key")));
    };
    Ok(Held { secret: Secret::Aws(keys), expires })
}
