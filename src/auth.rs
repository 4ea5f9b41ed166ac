//! L1. Credentials: how a request is signed for the backend it goes to, and which client headers never get there.

mod aws_file;
mod cell;
mod overriding;
mod request;
mod secret;
mod sigv4;
mod source;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

pub use self::aws_file::aws_keys_of_file;
pub use self::cell::{Cell, Held};
pub use self::overriding::{Override, Provided};
pub use self::request::{CredentialMetadata, SignError, SigningRequest};
pub use self::secret::{AwsKeys, Secret};
pub use self::sigv4::AwsTarget;
pub use self::source::{AzureSecret, Issuer, Source, SourceId};
use crate::headers::{HeaderEdits, Headers};

/// Headers by which clients authenticate to the gateway, or sign. No provider ever sees the client's value of one.
pub const CLIENT_CREDENTIAL_HEADERS: [&str; 9] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "proxy-authorization",
    "cookie",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// What a backend's requests are signed with. Cheap to keep, never waits, and does not print.
#[derive(Debug, Clone)]
pub struct Credential {
    scheme: Scheme,
    supply: Supply,
    per_request: Option<Override>,
}

/// How a secret goes on a request.
#[derive(Debug, Clone)]
enum Scheme {
    /// In one header, after a prefix.
    Header(&'static str, &'static str),
    /// As a bearer token; paths are put under this one, which ends in a slash.
    Gcp(String),
    /// Not at all: it signs.
    Aws(AwsTarget),
}

const BEARER: Scheme = Scheme::Header("authorization", "Bearer ");

/// Where the secret is taken from.
#[derive(Debug, Clone)]
enum Supply {
    /// It is known. A header's whole value, so that signing is a copy.
    Fixed(Secret),
    /// It is fetched now and then.
    Fetched(Arc<Cell>),
    /// Requests bring it.
    None,
}

/// Why a credential cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nothing but white space.
    #[error("the API key is empty")]
    Empty,
    /// Would not survive as a header value.
    #[error("the API key holds characters that no HTTP header may hold (a line break, perhaps)")]
    NotAHeaderValue,
    /// Would not survive in a path.
    #[error("`{0}` cannot stand in a URL path: letters, digits, `-`, `.`, `_` and `:` can")]
    NotAPathSegment(String),
    /// No host name can be made of it.
    #[error("`{0}` is no AWS region")]
    NotARegion(String),
    /// No keys can be read from an AWS credentials file. The text names no secret.
    #[error("the AWS credentials file {0}")]
    AwsFile(String),
}

impl Credential {
    /// `Authorization: Bearer <key>`. Surrounding white space of a key is dropped, here and below.
    pub fn bearer(key: &SecretString) -> Result<Self, CredentialError> {
        Self::fixed(BEARER, key)
    }

    /// `api-key: <key>`, as Azure OpenAI wants it.
    pub fn azure_key(key: &SecretString) -> Result<Self, CredentialError> {
        Self::fixed(Scheme::Header("api-key", ""), key)
    }

    /// `x-api-key: <key>`, as Anthropic wants it.
    pub fn anthropic_key(key: &SecretString) -> Result<Self, CredentialError> {
        Self::fixed(Scheme::Header("x-api-key", ""), key)
    }

    /// A bearer token that is fetched from `source` and renewed.
    pub fn fetched_bearer(source: Source) -> Self {
        Self::fetched(BEARER, source)
    }

    /// A bearer token of Google Cloud, fetched from `source` unless it is given; paths are put under the project and region.
    pub fn gcp(
        token: Option<&SecretString>,
        source: Source,
        project: &str,
        region: &str,
    ) -> Result<Self, CredentialError> {
        let scheme =
            Scheme::Gcp(format!("/v1/projects/{}/locations/{}/", segment(project)?, segment(region)?));
        match token {
            Some(token) => Self::fixed(scheme, token),
            None => Ok(Self::fetched(scheme, source)),
        }
    }

    /// Signatures of AWS (SigV4) with these keys.
    pub fn aws(keys: AwsKeys, target: AwsTarget) -> Self {
        Self { scheme: Scheme::Aws(target), supply: Supply::Fixed(Secret::Aws(keys)), per_request: None }
    }

    /// Signatures of AWS (SigV4) with keys that are fetched from `source` and renewed.
    pub fn fetched_aws(source: Source, target: AwsTarget) -> Self {
        Self::fetched(Scheme::Aws(target), source)
    }

    /// The same for requests that bring none; those that do are signed with what they bring.
    #[must_use]
    pub fn or_per_request(mut self, per_request: Override) -> Self {
        if !per_request.falls_back() {
            // What is never used need not be fetched either.
            self.supply = Supply::None;
        }
        self.per_request = Some(per_request);
        self
    }

    /// The cell that has to be kept filled, if it has one.
    pub fn cell(&self) -> Option<&Arc<Cell>> {
        match &self.supply {
            Supply::Fetched(cell) => Some(cell),
            Supply::Fixed(_) | Supply::None => None,
        }
    }

    fn fixed(scheme: Scheme, key: &SecretString) -> Result<Self, CredentialError> {
        let value = scheme.value(usable(key)?);
        Ok(Self { scheme, supply: Supply::Fixed(Secret::Header(value)), per_request: None })
    }

    fn fetched(scheme: Scheme, source: Source) -> Self {
        Self { scheme, supply: Supply::Fetched(Arc::new(Cell::new(source))), per_request: None }
    }

    /// Puts the credential on a request, over whatever earlier edits set. A request that cannot be signed must not be sent.
    pub fn sign(&self, request: &SigningRequest<'_>, edits: &mut HeaderEdits) -> Result<(), SignError> {
        if let Some(per_request) = &self.per_request {
            let provided = per_request.take(request, edits, matches!(self.scheme, Scheme::Aws(_)))?;
            match provided {
                Some(Provided::Text(text)) => {
                    let text = usable(&text).map_err(|_| {
                        SignError::Unusable(
                            "what the request brings holds characters that no header may hold".into(),
                        )
                    })?;
                    return self.scheme.apply(&Secret::Header(self.scheme.value(text)), request, edits);
                }
                Some(Provided::Aws(keys)) => return self.scheme.apply(&Secret::Aws(keys), request, edits),
                None if !per_request.falls_back() => return Err(SignError::Missing),
                None => {}
            }
        }
        match &self.supply {
            Supply::Fixed(secret) => self.scheme.apply(secret, request, edits),
            Supply::Fetched(cell) => self.scheme.apply(&cell.load(request.wall)?.secret, request, edits),
            Supply::None => Err(SignError::Missing),
        }
    }
}

impl Scheme {
    /// The whole header value for a key or token.
    fn value(&self, key: &str) -> SecretString {
        match self {
            Self::Header(_, "") => key.into(),
            Self::Header(_, prefix) => format!("{prefix}{key}").into(),
            Self::Gcp(_) | Self::Aws(_) => format!("Bearer {key}").into(),
        }
    }

    fn apply(
        &self,
        secret: &Secret,
        request: &SigningRequest<'_>,
        edits: &mut HeaderEdits,
    ) -> Result<(), SignError> {
        let copy = |value: &SecretString| Bytes::copy_from_slice(value.expose_secret().as_bytes());
        match (self, secret) {
            (Self::Header(name, _), Secret::Header(value)) => edits.set(*name, copy(value)),
            (Self::Gcp(prefix), Secret::Header(value)) => {
                edits.set("authorization", copy(value));
                edits.set(":path", format!("{prefix}{}", request.path.trim_start_matches('/')));
            }
            (Self::Aws(target), Secret::Aws(keys)) => target.sign(keys, request, edits)?,
            // Sources and schemes are put together by the constructors alone, so that this does not happen.
            (_, Secret::Header(_) | Secret::Aws(_)) => {
                return Err(SignError::Unusable("its credential is of another kind".to_owned()));
            }
        }
        Ok(())
    }
}

/// A key or token as a header can hold it.
fn usable(key: &SecretString) -> Result<&str, CredentialError> {
    let key = key.expose_secret().trim();
    if key.is_empty() {
        return Err(CredentialError::Empty);
    }
    if !key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(CredentialError::NotAHeaderValue);
    }
    Ok(key)
}

fn segment(text: &str) -> Result<&str, CredentialError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    let fits = !text.is_empty() && text != "." && text != ".." && text.bytes().all(fits);
    if fits { Ok(text) } else { Err(CredentialError::NotAPathSegment(text.to_owned())) }
}

/// Takes the client's own credentials off a request.
pub fn strip_client_credentials(headers: &Headers, edits: &mut HeaderEdits) {
    for name in CLIENT_CREDENTIAL_HEADERS {
        if headers.contains(name) {
            edits.remove(name);
        }
    }
}
