//! What requests are signed with.

use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::identity::Identity;
use secrecy::SecretString;

/// A secret in the form in which requests need it. Does not print.
#[derive(Debug, Clone)]
pub enum Secret {
    /// The whole value of a header.
    Header(SecretString),
    /// Keys to sign with.
    Aws(AwsKeys),
}

impl Secret {
    /// The header value of a bearer token. Nothing if no header can hold it.
    pub fn bearer(token: &str) -> Option<Self> {
        let token = token.trim();
        let fits = !token.is_empty() && token.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        fits.then(|| Self::Header(format!("Bearer {token}").into()))
    }
}

/// An access key of AWS, with the token that belongs to it where it is a temporary one.
#[derive(Clone)]
pub struct AwsKeys {
    pub(super) identity: Identity,
    pub(super) token: bool,
}

impl AwsKeys {
    /// Nothing if a part is empty that has to be there, or if no header can hold one.
    pub fn new(access_key_id: &str, secret_access_key: &str, session_token: Option<&str>) -> Option<Self> {
        let id = access_key_id.trim();
        let secret = secret_access_key.trim();
        let token = session_token.map(str::trim).filter(|token| !token.is_empty());
        let fits = |text: &str| text.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if id.is_empty() || secret.is_empty() || !fits(id) || !token.is_none_or(fits) {
            return None;
        }
        let credentials = Credentials::new(id, secret, token.map(str::to_owned), None, "gateway");
        Some(Self { identity: credentials.into(), token: token.is_some() })
    }
}

impl std::fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsKeys").field("session_token", &self.token).finish_non_exhaustive()
    }
}
