//! The text of a key: made from random bytes that are handed in, and taken apart again.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::record::Hashed;

/// How every key begins.
pub const PREFIX: &str = "aigw-";
/// The regular expression of a key, for leak scanners.
pub const PATTERN: &str = "aigw-[0-9A-Za-z]{12}-[0-9A-Za-z]{49}";

const ID: usize = 12;
/// 62^43 is more than 2^256.
const SECRET: usize = 43;
/// 62^6 is more than 2^32.
const CHECKSUM: usize = 6;
const LENGTH: usize = PREFIX.len() + ID + 1 + SECRET + CHECKSUM;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Names a key among all of a store: 12 of `0-9A-Za-z`. It is part of the key, and no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId([u8; ID]);

/// Why a text is no [`KeyId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no id of a key: it is the 12 letters and digits between the first and the second `-` of a key"
)]
pub struct InvalidId(String);

impl KeyId {
    /// One that no key has.
    pub(super) fn none() -> Self {
        Self([b'-'; ID])
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // It is ASCII throughout.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Borrow<[u8]> for KeyId {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        match <[u8; ID]>::try_from(text.as_bytes()) {
            Ok(id) if id.iter().all(u8::is_ascii_alphanumeric) => Ok(Self(id)),
            // Whoever gives a whole key in its place shall not find it in a log.
            _ => Err(InvalidId(text.chars().take(ID).collect())),
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that has just been made: the only time its text is there.
#[derive(Debug)]
pub struct NewKey {
    /// What is to be kept.
    pub id: KeyId,
    /// What its owner gets.
    pub text: SecretString,
    /// What is to be kept.
    pub hashed: Hashed,
}

impl NewKey {
    /// Makes a key of 64 random bytes: 32 become the secret, 16 the id, 16 the salt.
    pub fn generate(random: &[u8; 64]) -> Self {
        let (secret, rest) = random.split_at(32);
        let (id_source, salt) = rest.split_at(16);
        let mut id = [b'0'; ID];
        base62(id_source, &mut id);
        let id = KeyId(id);
        let mut digits = [b'0'; SECRET];
        base62(secret, &mut digits);
        let mut text = String::with_capacity(LENGTH);
        text.push_str(PREFIX);
        text.push_str(id.as_str());
        text.push('-');
        text.extend(digits.iter().map(|&digit| char::from(digit)));
        let checksum = checksum(text.as_bytes());
        text.extend(checksum.iter().map(|&digit| char::from(digit)));
        let mut own_salt = [0; 16];
        own_salt.copy_from_slice(salt);
        let hashed = Hashed::new(own_salt, text.as_bytes());
        Self { id, text: text.into(), hashed }
    }
}

/// Why a text is no key of this gateway, as far as it tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// Another shape altogether.
    #[error("this is no key of this gateway: its keys begin with `aigw-` and are 67 characters long")]
    Foreign,
    /// The shape, but not the checksum.
    #[error("this key is mistyped or cut: its checksum does not fit; copy it anew")]
    Mistyped,
}

/// A text that has the shape and the checksum of a key.
#[derive(Clone, Copy)]
pub struct Presented<'t> {
    text: &'t [u8],
}

impl<'t> Presented<'t> {
    /// Reads a text as a key. Nothing is looked up.
    pub fn parse(text: &'t [u8]) -> Result<Self, NotAKey> {
        let digits = |part: &[u8]| part.iter().all(u8::is_ascii_alphanumeric);
        let Some((id, rest)) =
            text.strip_prefix(PREFIX.as_bytes()).and_then(|rest| rest.split_at_checked(ID))
        else {
            return Err(NotAKey::Foreign);
        };
        match rest.split_first() {
            Some((b'-', secret)) if digits(id) && digits(secret) && text.len() == LENGTH => {}
            // Cut or lengthened when it was copied.
            Some((b'-', secret)) if digits(id) && digits(secret) => return Err(NotAKey::Mistyped),
            _ => return Err(NotAKey::Foreign),
        }
        let (body, given) = text.split_at(LENGTH - CHECKSUM);
        if checksum(body) != given { Err(NotAKey::Mistyped) } else { Ok(Self { text }) }
    }

    /// The id within it.
    pub(super) fn id(&self) -> &'t [u8] {
        &self.text[PREFIX.len()..PREFIX.len() + ID]
    }

    /// All of it.
    pub(super) fn text(&self) -> &'t [u8] {
        self.text
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented({})", String::from_utf8_lossy(self.id()))
    }
}

/// The CRC-32 (as of gzip) of what comes before it.
fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let mut digits = [b'0'; CHECKSUM];
    base62(&crc32fast::hash(body).to_be_bytes(), &mut digits);
    digits
}

/// The last digits of a big-endian number.
fn base62(number: &[u8], digits: &mut [u8]) {
    let mut number = number.to_vec();
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = (rest << 8) | u32::from(*byte);
            // Below 62 * 256, so that the quotient is a byte.
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
}
