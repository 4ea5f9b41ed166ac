//! What a credential may look at, and why it may refuse.

use std::time::SystemTime;

use serde_json::Value;

use crate::headers::Headers;

/// A request as it will be sent, but for the credential.
#[derive(Debug, Clone, Copy)]
pub struct SigningRequest<'a> {
    /// The HTTP method.
    pub method: &'a [u8],
    /// Path and query, as the provider will see them.
    pub path: &'a str,
    /// The host name of the provider, where Envoy's data tell it.
    pub upstream_host: Option<&'a str>,
    /// The body, as the provider will see it.
    pub body: &'a [u8],
    /// The client's headers as they came in.
    pub headers: &'a Headers,
    /// What other filters of Envoy say of the client's credential.
    pub credential_metadata: &'a CredentialMetadata,
    /// The time by the wall clock.
    pub wall: SystemTime,
}

/// Dynamic metadata that Envoy handed over, by namespace and key.
#[derive(Clone, Default)]
pub struct CredentialMetadata(Vec<(String, Value)>);

impl CredentialMetadata {
    /// Adds one namespace with all its keys: a JSON object.
    pub fn insert(&mut self, namespace: impl Into<String>, keys: Value) {
        self.0.push((namespace.into(), keys));
    }

    /// The value of a key; the later of two namespaces of one name counts.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(name, _)| name == namespace)?.1.get(key)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Namespaces only: values may be credentials.
impl std::fmt::Debug for CredentialMetadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(namespace, _)| namespace)).finish()
    }
}

/// Why a request cannot be signed. It must not be sent then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The client has to bring the credential, and did not: 401.
    #[error("missing upstream credential")]
    Missing,
    /// The gateway has none that is valid now, but may have one soon: 503.
    #[error("the gateway has no valid credential for this backend at the moment: {0}")]
    Unavailable(String),
    /// What is there cannot be used: an internal error. The text names no secret.
    #[error("the request cannot be signed: {0}")]
    Unusable(String),
}
