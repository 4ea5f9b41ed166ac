//! Where renewed secrets come from. Plain data: edges fetch.

use ring::digest;
use secrecy::{ExposeSecret, SecretString};

/// Where a secret is fetched from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The standard chain of AWS: environment, shared files, web identity, container, instance.
    AwsChain {
        /// The region that is asked where a region is needed.
        region: String,
    },
    /// A role of AWS that is assumed with a token of an OIDC provider.
    AwsRole {
        /// The role's ARN.
        role: String,
        /// Names the session in AWS's logs.
        session: String,
        /// The region that is asked.
        region: String,
        /// Gives the token.
        issuer: Issuer,
    },
    /// The application default credentials of Google Cloud.
    GcpDefault,
    /// A credentials file of Google Cloud: a service account, a user, an external account.
    GcpFile(SecretString),
    /// A service account of Google Cloud, by way of a workload identity pool.
    GcpFederation {
        /// The audience, which names the pool's provider.
        audience: String,
        /// The service account that is impersonated, if any.
        service_account: Option<String>,
        /// Gives the token.
        issuer: Issuer,
    },
    /// An application of Microsoft Entra.
    Azure {
        /// The directory.
        tenant: String,
        /// The application.
        client: String,
        /// By what it proves who it is.
        secret: AzureSecret,
        /// Where tokens are asked for, where that is not the public cloud.
        authority: Option<String>,
    },
}

/// By what an application of Microsoft Entra proves who it is.
#[derive(Debug, Clone)]
pub enum AzureSecret {
    /// A secret of its own.
    Secret(SecretString),
    /// A token of an OIDC provider it trusts.
    Issuer(Issuer),
}

/// An OIDC provider that gives out tokens for a client's secret.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// The provider's URL; the token endpoint is discovered under it.
    pub url: String,
    /// The token endpoint, where it is not to be discovered.
    pub token_endpoint: Option<String>,
    /// The client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// For whom, where the provider wants to know.
    pub audience: Option<String>,
}

/// Two of the same value are the same source: what was fetched for one serves the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId([u8; 32]);

impl Source {
    /// Identifies the source by everything it consists of, secrets included, and tells none of it.
    pub fn identity(&self) -> SourceId {
        let mut parts = Parts(digest::Context::new(&digest::SHA256));
        match self {
            Self::AwsChain { region } => parts.add(&["aws-chain", region]),
            Self::AwsRole { role, session, region, issuer } => {
                parts.add(&["aws-role", role, session, region]);
                parts.issuer(issuer);
            }
            Self::GcpDefault => parts.add(&["gcp-default"]),
            Self::GcpFile(file) => parts.add(&["gcp-file", file.expose_secret()]),
            Self::GcpFederation { audience, service_account, issuer } => {
                let account = service_account.as_deref();
                parts.add(&["gcp-federation", audience, account.unwrap_or_default()]);
                parts.issuer(issuer);
            }
            Self::Azure { tenant, client, secret, authority } => {
                parts.add(&["azure", tenant, client, authority.as_deref().unwrap_or_default()]);
                match secret {
                    AzureSecret::Secret(secret) => parts.add(&["secret", secret.expose_secret()]),
                    AzureSecret::Issuer(issuer) => parts.issuer(issuer),
                }
            }
        }
        let mut identity = [0; 32];
        identity.copy_from_slice(parts.0.finish().as_ref());
        SourceId(identity)
    }

    /// What it is, for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AwsChain { .. } => "the AWS default chain",
            Self::AwsRole { .. } => "an AWS role by OIDC",
            Self::GcpDefault => "Google's application default credentials",
            Self::GcpFile(_) => "a Google credentials file",
            Self::GcpFederation { .. } => "Google's workload identity federation",
            Self::Azure { .. } => "a Microsoft Entra application",
        }
    }
}

struct Parts(digest::Context);

impl Parts {
    /// Each part is preceded by its length: no two lists of parts give the same bytes.
    fn add(&mut self, parts: &[&str]) {
        for part in parts {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part.as_bytes());
        }
    }

    fn issuer(&mut self, issuer: &Issuer) {
        let Issuer { url, token_endpoint, client_id, client_secret, scopes, audience } = issuer;
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        self.add(&["issuer", url, &optional(token_endpoint), client_id, client_secret.expose_secret()]);
        self.add(&[&scopes.join(" "), &optional(audience)]);
    }
}
