//! Records, as the files of quotas are made of.
//!
//! ```text
//! record = length of the payload (u32, little endian), its CRC-32 (u32, little endian), payload
//! payload = JSON, at most 1 MiB
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

/// No payload is longer, in bytes.
const MAX_PAYLOAD: usize = 1 << 20;

/// The record of a value; nothing if it is too long to be one.
pub(super) fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut record = vec![0; 8];
    serde_json::to_writer(&mut record, value).ok()?;
    let (head, payload) = record.split_first_chunk_mut::<8>()?;
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD)?;
    let (sizes, sums) = head.split_at_mut(4);
    sizes.copy_from_slice(&length.to_le_bytes());
    sums.copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    Some(record)
}

/// The first record, and what follows it; nothing if the bytes do not begin with a whole one.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= MAX_PAYLOAD)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, rest))
}
