//! L1. The gateway's own keys: how they look, what is kept of them, and whether one that is shown is good.
//!
//! ```text
//! aigw-4fTq0ZkW1xYb-9sVdX…(43)…Qe3mA7c2Fp
//!      └ id, 12     └ secret, 43 └ CRC-32, 6        all of 0-9 A-Z a-z
//! ```
//!
//! Leak scanners find them with [`PATTERN`]; the checksum tells a mistyped key without asking anybody. Of the secret only a salted
//! SHA-256 is kept: it has 256 random bits, so that nothing slower is needed. The id is no secret.

mod format;
mod index;
mod models;
mod network;
mod record;
mod steps;
mod timestamp;

#[cfg(test)]
mod tests;

pub use self::format::{InvalidId, KeyId, NewKey, NotAKey, PATTERN, PREFIX, Presented};
pub use self::index::{Index, Reason, Refusal, Status};
pub use self::models::{InvalidPattern, ModelPattern};
pub use self::network::{InvalidNetwork, Network};
pub use self::record::{Grant, Hashed, InvalidGrant, MAX_RECORD, Record, Standing, Unreadable};
pub use self::timestamp::{InvalidTimestamp, Timestamp};
