//! The routing key: a keyed digest over everything that decides what is sent where.
//!
//! Envoy's route demands the key and the processor sends it. If the two ever run with different configurations, the keys
//! differ wherever the rule, a destination or a credential differs, and the request ends in a 404 and not at a provider
//! with another one's credential. The digest is keyed so that nobody can test a guessed credential against a key seen in
//! Envoy's configuration, nor make up a key.

use ring::hmac;
use serde::Serialize;

/// Of a text that holds no secret, in lower-case hexadecimal: SHA-256.
pub(super) fn of(text: &str) -> String {
    hexadecimal(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 128 bits: far beyond collision among the rules of one machine, and short in a header.
const KEY_BYTES: usize = 16;

/// Computes the routing keys of one configuration.
pub(super) struct Digest {
    key: hmac::Key,
    credentials: bool,
}

impl Digest {
    /// The secret should be made anew for every start.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret), credentials: true }
    }

    /// Keys that credentials are no part of, so that they can be rotated without a change of routes: the secret stays, and
    /// a credential belongs to its backend, which is part of the key.
    pub(super) fn without_credentials(secret: &[u8; 32]) -> Self {
        Self { credentials: false, ..Self::new(secret) }
    }

    /// Lower-case hexadecimal. `public` is everything but the credentials, `credentials` those in the order of the
    /// backends, `None` where there is none.
    pub(super) fn routing_key<'a>(
        &self,
        public: &impl Serialize,
        credentials: impl IntoIterator<Item = Option<&'a str>>,
    ) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        // Each part is preceded by its length: no two lists of parts give the same bytes.
        let mut part = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        // Serialising plain data of ours to memory fails for no input; an empty part would still be safe, only less telling.
        part(&serde_json::to_vec(public).unwrap_or_default());
        for credential in credentials.into_iter().filter(|_| self.credentials) {
            match credential {
                Some(credential) => {
                    part(b"key");
                    part(credential.as_bytes());
                }
                None => part(b"none"),
            }
        }
        let tag = context.sign();
        hexadecimal(tag.as_ref().get(..KEY_BYTES).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let digest = Digest::new(&[7; 32]);
        let base = digest.routing_key(&("gateway", 1), [Some("key")]);
        assert_eq!(base.len(), 32);
        assert_eq!(base, digest.routing_key(&("gateway", 1), [Some("key")]));
        for other in [
            digest.routing_key(&("gateway", 2), [Some("key")]),
            digest.routing_key(&("gateway", 1), [Some("kez")]),
            digest.routing_key(&("gateway", 1), [None]),
            digest.routing_key(&("gateway", 1), [Some("key"), None]),
            digest.routing_key(&("gateway", 1), [Some("ke"), Some("y")]),
            Digest::new(&[8; 32]).routing_key(&("gateway", 1), [Some("key")]),
            Digest::without_credentials(&[7; 32]).routing_key(&("gateway", 1), [Some("key")]),
        ] {
            assert_ne!(base, other);
        }
        let rotated = Digest::without_credentials(&[7; 32]);
        let key = |credential| rotated.routing_key(&("gateway", 1), [Some(credential)]);
        assert_eq!(key("old"), key("new"));
    }
}
