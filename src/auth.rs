//! L1. Credentials: how a request is signed for the backend it goes to, and which client headers never get there.

use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};

use crate::headers::{HeaderEdits, Headers};

/// Headers by which clients authenticate to the gateway. No provider ever sees the client's value of one.
pub const CLIENT_CREDENTIAL_HEADERS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie"];

/// A credential, ready to be put on requests.
#[derive(Debug, Clone)]
pub enum Credential {
    /// `Authorization: Bearer <key>`; the whole value is kept, so that signing is a copy.
    Bearer(SecretString),
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
    /// An API key that is sent as a bearer token; surrounding white space is dropped.
    pub fn api_key(key: &SecretString) -> Result<Self, CredentialError> {
        let key = key.expose_secret().trim();
        if key.is_empty() {
            return Err(CredentialError::Empty);
        }
        if !key.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(CredentialError::NotAHeaderValue);
        }
        Ok(Self::Bearer(format!("Bearer {key}").into()))
    }

    /// Puts the credential on a request, over whatever earlier edits set.
    pub fn sign(&self, edits: &mut HeaderEdits) {
        match self {
            Self::Bearer(value) => {
                edits.set("authorization", Bytes::copy_from_slice(value.expose_secret().as_bytes()));
            }
        }
    }
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

    #[test]
    fn the_key_is_trimmed_and_sent_as_bearer() {
        let mut edits = HeaderEdits::default();
        Credential::api_key(&" sk-1\n".into()).unwrap().sign(&mut edits);
        assert_eq!(edits.set, [(Bytes::from("authorization"), Bytes::from("Bearer sk-1"))]);
    }

    #[test]
    fn unusable_keys_are_refused() {
        assert_eq!(Credential::api_key(&"  ".into()).unwrap_err(), CredentialError::Empty);
        assert_eq!(Credential::api_key(&"a\nb".into()).unwrap_err(), CredentialError::NotAHeaderValue);
    }

    #[test]
    fn a_credential_does_not_print() {
        let credential = Credential::api_key(&"sk-very-secret".into()).unwrap();
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
