//! The bytes of a journal, version 1.
//!
//! ```text
//! file    = "AIGWQJ1\n" record*
//! payload = JSON: {"Settle": [when, the settlement]} or {"Done": [id, …]}; `when` in milliseconds since the Unix epoch
//! ```
//!
//! Records are those of [`record`](crate::quotastore::record).
//!
//! What cannot be read ends the journal: a record that was cut off when the power failed, or damage. What came before it counts.

use std::collections::HashSet;

use crate::quota::{ReservationId, Settle};
use crate::quotastore::record;

/// What every journal of this version begins with.
pub(super) const MAGIC: &[u8] = b"AIGWQJ1\n";

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Entry {
    /// A reservation has ended, at that time, and the store is to be told.
    Settle(u64, Settle),
    /// The store has been told of these.
    Done(Vec<ReservationId>),
}

/// What a journal holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// What the store has not been told of, with the time it ended, in order.
    pub(super) owed: Vec<(u64, Settle)>,
    /// How many bytes at the end make no sense.
    pub(super) unread: usize,
}

/// The file is no journal of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Foreign;

/// The record of an entry; nothing if it is too long to be one.
pub(super) fn encode(entry: &Entry) -> Option<Vec<u8>> {
    record::encode(entry)
}

/// Reads a journal, as far as it makes sense. An empty file is an empty journal, as is one whose beginning was cut off.
pub(super) fn decode(bytes: &[u8]) -> Result<Content, Foreign> {
    if MAGIC.starts_with(bytes) {
        return Ok(Content { owed: Vec::new(), unread: bytes.len() % MAGIC.len() });
    }
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(Foreign)?;
    let (mut owed, mut done) = (Vec::<(u64, Settle)>::new(), HashSet::new());
    while let Some((entry, after)) = record::decode(rest) {
        match entry {
            Entry::Settle(when, settle) => owed.push((when, settle)),
            Entry::Done(ids) => done.extend(ids),
        }
        rest = after;
    }
    let mut known = HashSet::new();
    owed.retain(|(_, settle)| !done.contains(&settle.id) && known.insert(settle.id));
    Ok(Content { owed, unread: rest.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Bound, BucketKey, Claim, Mode, OnExpiry, Window};

    fn settle(exchange: u64) -> Settle {
        let claim = Claim {
            bucket: BucketKey { limit: "l:total:1m".into(), subject: "".into() },
            amount: 1000,
            window: Window::Rolling { length: 60_000 },
            bound: Bound::fixed(10),
            mode: Mode::Reserve,
            shadow: false,
            on_expiry: OnExpiry::Charge,
            group: 0,
            most_subjects: None,
        };
        Settle { id: ReservationId { process: u64::MAX, exchange, part: 0 }, spent: vec![(claim, exchange)] }
    }

    /// Three ends, of which the store was told of the second.
    fn journal() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (MAGIC.to_vec(), Vec::new());
        let entries = [
            Entry::Settle(1, settle(1)),
            Entry::Settle(2, settle(2)),
            Entry::Done(vec![settle(2).id]),
            Entry::Settle(3, settle(3)),
        ];
        for entry in &entries {
            bytes.extend(encode(entry).unwrap());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn owed(bytes: &[u8]) -> Vec<u64> {
        decode(bytes).unwrap().owed.iter().map(|(_, settle)| settle.id.exchange).collect()
    }

    #[test]
    fn what_the_store_was_not_told_of_is_owed() {
        let (bytes, _) = journal();
        let content = decode(&bytes).unwrap();
        assert_eq!(content, Content { owed: vec![(1, settle(1)), (3, settle(3))], unread: 0 });
        assert_eq!(decode(b"").unwrap(), Content::default());
        assert_eq!(decode(b"something else"), Err(Foreign));
        let twice = [bytes, encode(&Entry::Settle(4, settle(1))).unwrap()].concat();
        assert_eq!(owed(&twice), [1, 3]);
    }

    #[test]
    fn a_journal_that_is_cut_off_anywhere_holds_its_whole_records() {
        let (bytes, ends) = journal();
        for cut in 0..=bytes.len() {
            let content = decode(&bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let expected: &[u64] = [&[][..], &[1], &[1, 2], &[1], &[1, 3]][whole];
            let found: Vec<u64> = content.owed.iter().map(|(_, settle)| settle.id.exchange).collect();
            assert_eq!(found, expected, "cut at {cut}");
            let at_an_end = cut == 0 || cut == MAGIC.len() || ends.contains(&cut);
            assert_eq!(content.unread == 0, at_an_end, "cut at {cut}");
        }
    }

    #[test]
    fn a_bit_that_flips_anywhere_invents_nothing() {
        let (bytes, ends) = journal();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(content) = decode(&flipped) else {
                assert!(bit / 8 < MAGIC.len());
                continue;
            };
            let whole = ends.iter().filter(|end| **end <= bit / 8).count();
            let expected: &[(u64, Settle)] = &[(1, settle(1)), (2, settle(2))];
            let expected = match whole {
                0 | 1 => &expected[..whole],
                2 => expected,
                _ => &expected[..1],
            };
            assert_eq!(content.owed, expected, "bit {bit}");
            assert!(content.unread > 0);
        }
    }
}
