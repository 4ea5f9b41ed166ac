//! The bytes of a snapshot, version 1.
//!
//! ```text
//! file    = "AIGWQS1\n" record*
//! payload = JSON, in this order: {"Written": when}, then any of {"Bucket": [name, the bucket]} and
//!           {"Subjects": [name, window, [[bucket, until], …]]}, then {"End": how many records are between the two}
//! ```
//!
//! Times are in milliseconds since the Unix epoch. Records are those of [`record`](crate::quotastore::record). The subjects of a limit
//! may take several. A snapshot takes the place of another as a whole, so one that does not end as it should was damaged later, and nothing
//! of it is believed.

use std::io::{self, Write};

use crate::quota::ledger::{Bucket, Instance};
use crate::quotastore::memory::Copied;
use crate::quotastore::record;

/// What every snapshot of this version begins with.
pub(super) const MAGIC: &[u8] = b"AIGWQS1\n";
/// What snapshots of all versions begin with.
const FAMILY: &[u8] = b"AIGWQS";
/// How long a snapshot may be, in bytes.
pub(super) const MOST: u64 = 1 << 28;
/// How many subjects are in a record.
const SUBJECTS: usize = 500;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Entry {
    /// When it was written.
    Written(u64),
    /// A bucket, by name.
    Bucket(String, Bucket),
    /// Until when subjects of a limit count, by the names of their buckets.
    Subjects(String, Instance, Vec<(String, u64)>),
    /// The last one.
    End(u64),
}

/// What a snapshot holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// When it was written; 0 if it never was.
    pub(super) written: u64,
    pub(super) kept: Copied,
}

/// Why bytes are no snapshot that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    /// They never were one.
    #[error("it is no snapshot of quotas")]
    Foreign,
    /// They may be one of another version.
    #[error("another version of the gateway has written it")]
    Version,
    /// They were one once.
    #[error("it is damaged or cut off")]
    Damaged,
    /// There are too many.
    #[error("it is longer than 256 MiB")]
    TooLong,
}

/// Writes a snapshot.
///
/// # Errors
/// It cannot be written, or gets too long ([`MOST`]).
pub(super) fn write(
    out: &mut impl Write,
    written: u64,
    shards: impl Iterator<Item = Copied>,
) -> io::Result<()> {
    let mut out = Counted { out, length: 0, records: 0 };
    out.bytes(MAGIC)?;
    out.entry(&Entry::Written(written))?;
    for Copied { buckets, subjects } in shards {
        for (name, bucket) in buckets {
            out.entry(&Entry::Bucket(name, bucket))?;
        }
        for (name, window, subjects) in subjects {
            for subjects in subjects.chunks(SUBJECTS) {
                out.entry(&Entry::Subjects(name.clone(), window, subjects.to_vec()))?;
            }
        }
    }
    let between = out.records - 1;
    out.entry(&Entry::End(between))
}

struct Counted<'a, W> {
    out: &'a mut W,
    length: u64,
    records: u64,
}

impl<W: Write> Counted<'_, W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let record = record::encode(entry).ok_or(io::ErrorKind::InvalidData)?;
        self.records += 1;
        self.bytes(&record)
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length > MOST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.write_all(bytes)
    }
}

/// A snapshot, whatever its records say.
pub(super) fn of(records: &[serde_json::Value]) -> Vec<u8> {
    let ends = [Entry::Written(0), Entry::End(records.len() as u64)].map(|end| record::encode(&end));
    let [first, last] = ends.map(Option::unwrap_or_default);
    let between = records.iter().filter_map(record::encode).flatten();
    MAGIC.iter().copied().chain(first).chain(between).chain(last).collect()
}

/// Reads a snapshot: all of it, or nothing. An empty file is an empty snapshot.
pub(super) fn read(bytes: &[u8]) -> Result<Content, Unreadable> {
    let mut content = Content::default();
    if bytes.is_empty() {
        return Ok(content);
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(match bytes.starts_with(FAMILY) && !MAGIC.starts_with(bytes) {
            true => Unreadable::Version,
            false if MAGIC.starts_with(bytes) => Unreadable::Damaged,
            false => Unreadable::Foreign,
        });
    };
    let Some((Entry::Written(written), mut rest)) = record::decode(rest) else {
        return Err(Unreadable::Damaged);
    };
    content.written = written;
    let mut records = 0;
    while let Some((entry, after)) = record::decode(rest) {
        rest = after;
        match entry {
            Entry::Bucket(name, bucket) => content.kept.buckets.push((name, bucket)),
            Entry::Subjects(name, window, subjects) => content.kept.subjects.push((name, window, subjects)),
            Entry::End(all) if all == records && rest.is_empty() => return Ok(content),
            Entry::End(_) | Entry::Written(_) => break,
        }
        records += 1;
    }
    Err(Unreadable::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(subjects: u64) -> Copied {
        let window = Instance::Rolling { length: 60_000 };
        let mut bucket = Bucket::new(window);
        bucket.charge(42, 1_000_000, 1_000_000);
        bucket.hold(7, 1_010, crate::quota::OnExpiry::Charge);
        let subjects = (0..subjects).map(|number| (format!("a:{number}:r60000"), number));
        Copied {
            buckets: vec![("a:1:r60000".to_owned(), bucket)],
            subjects: vec![("a:r60000".to_owned(), window, subjects.collect())],
        }
    }

    fn snapshot(subjects: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, 5, [kept(subjects), Copied::default()].into_iter()).unwrap();
        bytes
    }

    fn problem(bytes: &[u8]) -> Unreadable {
        read(bytes).unwrap_err()
    }

    #[test]
    fn what_is_written_is_read() {
        let all = SUBJECTS as u64 + 1;
        let content = read(&snapshot(all)).unwrap();
        assert_eq!((content.written, &content.kept.buckets), (5, &kept(all).buckets));
        assert_eq!(content.kept.subjects.len(), 2, "records");
        let subjects: Vec<_> = content.kept.subjects.into_iter().flat_map(|(_, _, some)| some).collect();
        assert_eq!(subjects, kept(all).subjects[0].2);
        assert_eq!(read(b"").unwrap().kept.buckets, []);
    }

    /// What is on disks stays readable: another form needs another version.
    #[test]
    fn the_form_of_version_1_stays() {
        let entries = [
            r#"{"Written":5}"#,
            r#"{"Bucket":["a:1:r60000",{"window":{"Rolling":{"length":60000}},"spent":42,"held":7,"swept":0,"holds":{"1010":{"refund":0,"charge":7}},"parts":{"1000":42}}]}"#,
            r#"{"Subjects":["a:r60000",{"Rolling":{"length":60000}},[["a:1:r60000",9]]]}"#,
            r#"{"Subjects":["b:f","InFlight",[]]}"#,
            r#"{"Subjects":["c:a1-2",{"Aligned":{"start":1,"end":2}},[]]}"#,
            r#"{"End":4}"#,
        ];
        let values = entries.map(|entry| serde_json::from_str::<Entry>(entry).unwrap());
        assert_eq!(values[1], Entry::Bucket("a:1:r60000".to_owned(), kept(0).buckets[0].1.clone()));
        let records = values.iter().zip(entries).flat_map(|(value, text)| {
            let record = record::encode(value).unwrap();
            assert_eq!(&record[8..], text.as_bytes());
            record
        });
        let bytes: Vec<u8> = MAGIC.iter().copied().chain(records).collect();
        assert_eq!(read(&bytes).unwrap().kept.subjects.len(), 3);
    }

    #[test]
    fn a_snapshot_that_is_cut_off_or_changed_anywhere_is_none() {
        let bytes = snapshot(3);
        for cut in 1..bytes.len() {
            assert_eq!(problem(&bytes[..cut]), Unreadable::Damaged, "cut at {cut}");
        }
        for bit in MAGIC.len() * 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(problem(&flipped), Unreadable::Damaged, "bit {bit}");
        }
        assert_eq!(problem(&[&bytes[..], b"x"].concat()), Unreadable::Damaged);
        assert_eq!(problem(b"AIGWQS2\n"), Unreadable::Version);
        assert_eq!(problem(b"kind: Gateway"), Unreadable::Foreign);
        let mut without = Vec::new();
        write(&mut without, 5, std::iter::empty()).unwrap();
        let head = MAGIC.len() + record::encode(&Entry::Written(5)).unwrap().len();
        let spliced = [&bytes[..bytes.len() - (without.len() - head)], &without[head..]].concat();
        assert_eq!(problem(&spliced), Unreadable::Damaged, "an end of another");
    }

    #[test]
    fn a_snapshot_that_gets_too_long_is_not_written() {
        let name = "x".repeat(1 << 19);
        let bucket = Bucket::new(Instance::InFlight);
        let endless = std::iter::repeat_with(|| Copied {
            buckets: vec![(name.clone(), bucket.clone())],
            subjects: Vec::new(),
        });
        let error = write(&mut io::sink(), 5, endless).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
