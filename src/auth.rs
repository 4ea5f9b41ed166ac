//! L1. Credentials: how a request is signed for the backend it goes to, and which client headers never get there.

mod request;

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

pub use self::request::{CredentialMetadata, SignError, SigningRequest};
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

/// A static credential: one header with a secret value.
#[derive(Debug, Clone)]
pub struct Credential {
    header: &'static str,
    /// The whole value, so that signing is a copy.
    value: SecretString,
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
}

impl Credential {
    /// `Authorization: Bearer <key>`. Surrounding white space of a key is dropped, here and below.
    pub fn bearer(key: &SecretString) -> Result<Self, CredentialError> {
        Ok(Self { header: "authorization", value: format!("Bearer {}", usable(key)?).into() })
    }

    /// `api-key: <key>`, as Azure OpenAI wants it.
    pub fn azure_key(key: &SecretString) -> Result<Self, CredentialError> {
        Ok(Self { header: "api-key", value: usable(key)?.into() })
    }

    /// `x-api-key: <key>`, as Anthropic wants it.
    pub fn anthropic_key(key: &SecretString) -> Result<Self, CredentialError> {
        Ok(Self { header: "x-api-key", value: usable(key)?.into() })
    }

    /// Puts the credential on a request, over whatever earlier edits set. A request that cannot be signed must not be sent.
    pub fn sign(&self, _request: &SigningRequest<'_>, edits: &mut HeaderEdits) -> Result<(), SignError> {
        edits.set(self.header, Bytes::copy_from_slice(self.value.expose_secret().as_bytes()));
        Ok(())
    }
}

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

/// Takes the client's own credentials off a request.
pub fn strip_client_credentials(headers: &Headers, edits: &mut HeaderEdits) {
    for name in CLIENT_CREDENTIAL_HEADERS {
        if headers.contains(name) {
            edits.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(credential: &Credential) -> Vec<(Bytes, Bytes)> {
        let mut edits = HeaderEdits::default();
        let request = SigningRequest {
            method: b"POST",
            path: "/v1/chat/completions",
            upstream_host: None,
            body: b"{}",
            headers: &Headers::default(),
            credential_metadata: &CredentialMetadata::default(),
            wall: std::time::SystemTime::UNIX_EPOCH,
        };
        credential.sign(&request, &mut edits).unwrap();
        edits.set
    }

    #[test]
    fn the_key_is_trimmed_and_sent_as_bearer() {
        let credential = Credential::bearer(&" sk-1\n".into()).unwrap();
        assert_eq!(signed(&credential), [(Bytes::from("authorization"), Bytes::from("Bearer sk-1"))]);
    }

    #[test]
    fn each_kind_has_its_header() {
        let key = "k".into();
        let azure = Credential::azure_key(&key).unwrap();
        assert_eq!(signed(&azure), [(Bytes::from("api-key"), Bytes::from("k"))]);
        let anthropic = Credential::anthropic_key(&key).unwrap();
        assert_eq!(signed(&anthropic), [(Bytes::from("x-api-key"), Bytes::from("k"))]);
    }

    #[test]
    fn unusable_keys_are_refused() {
        assert_eq!(Credential::bearer(&"  ".into()).unwrap_err(), CredentialError::Empty);
        assert_eq!(Credential::bearer(&"a\nb".into()).unwrap_err(), CredentialError::NotAHeaderValue);
    }

    #[test]
    fn a_credential_does_not_print() {
        let credential = Credential::bearer(&"sk-very-secret".into()).unwrap();
        assert!(!format!("{credential:?}").contains("very-secret"));
    }

    #[test]
    fn every_client_credential_is_taken_off() {
        let headers: Headers = CLIENT_CREDENTIAL_HEADERS.into_iter().map(|name| (name, "x")).collect();
        let mut edits = HeaderEdits::default();
        strip_client_credentials(&headers, &mut edits);
        assert_eq!(edits.remove, CLIENT_CREDENTIAL_HEADERS);
    }
}
