//! What both ends of the stream of configurations agree on, besides `proto/aigw/config`.

use std::fmt;

use ring::digest::SHA256;

/// The version that is spoken.
pub const PROTOCOL: u32 = 1;

/// How long a Gateway's document may be, in bytes. Some 500,000 rules.
pub const MAX_DOCUMENT: usize = 64 << 20;

/// How long the part of a document in one message is, in bytes, at most.
pub const MAX_PART: usize = 256 << 10;

/// How long a message may be, in bytes. The first of a processor tells of every Gateway that it has.
pub const MAX_MESSAGE: usize = 4 << 20;

/// How many Gateways one processor may have.
pub const MAX_GATEWAYS: usize = 10_000;

/// The SHA-256 of a document.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// That of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = [0; 32];
        sum.copy_from_slice(ring::digest::digest(&SHA256, bytes).as_ref());
        Self(sum)
    }

    /// One that was sent; nothing if it has another length.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Whether a text can be the `namespace/name` of a Gateway: a label of DNS, and a name of such labels.
pub fn is_gateway(text: &str) -> bool {
    let label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(known)
    };
    let (namespace, name) = text.split_once('/').unwrap_or_default();
    namespace.len() <= 63 && label(namespace) && name.len() <= 253 && name.split('.').all(label)
}

/// Whether a text can be the name of a processor: one word that is shown to people.
pub fn is_replica(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_held_to_their_form() {
        for good in ["default/gw", "a-b/c.d-e.1"] {
            assert!(is_gateway(good), "{good}");
        }
        let long = format!("{}/gw", "n".repeat(64));
        for bad in [
            "", "gw", "/gw", "d/", "d/g/w", "D/gw", "d/g w", "d/*", "*", "d/g\n", "../x", "d/..", "d.e/x",
            "-d/x", "d/x-", &long,
        ] {
            assert!(!is_gateway(bad), "{bad}");
        }
        assert!(is_replica("ai-gateway-extproc-5d8f-x2"));
        for bad in ["", "a b", "a\nb", &"r".repeat(254)] {
            assert!(!is_replica(bad), "{bad}");
        }
    }
}
