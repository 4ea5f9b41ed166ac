//! Documents kept on disk, for a start without a controller: a file for each Gateway.
//!
//! ```text
//! aigw-config-cache 1\n
//! SHA-256 of all that follows, in hexadecimal digits\n
//! {"gateway":"default/gw","generation":7}\n
//! the document
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::incoming::Document;
use crate::source::protocol::{MAX_DOCUMENT, MAX_GATEWAYS, Sha256, is_gateway};

const MAGIC: &str = "aigw-config-cache 1";
/// What comes before the document, at most.
const MAX_HEAD: usize = 1_024;
const ENDING: &str = "cache";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    gateway: String,
    generation: u64,
}

/// A folder of documents. All of it blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cache(PathBuf);

impl Cache {
    /// Uses that folder, and makes it if it is not there.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self(folder.to_owned()))
    }

    /// Everything that can be read. What cannot is reported and left out.
    pub(super) fn read(&self) -> Vec<Document> {
        let mut documents = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(folder = %self.0.display(), %error, "the cached configurations cannot be read");
                return documents;
            }
        };
        for path in entries.flatten().map(|entry| entry.path()).take(2 * MAX_GATEWAYS) {
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            let read = read_file(&path).and_then(|bytes| {
                let document =
                    decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                let expected = self.path(&document.gateway) == path;
                expected.then_some(document).ok_or_else(|| io::Error::other("it has another Gateway's name"))
            });
            match read {
                Ok(document) => documents.push(document),
                Err(error) => {
                    let file = path.display();
                    tracing::error!(%file, %error, "a cached configuration cannot be used and is ignored");
                }
            }
        }
        documents
    }

    /// Keeps a document in the place of the Gateway's last one. Either is there at any time, and whole.
    pub(super) fn write(&self, document: &Document) -> io::Result<()> {
        let path = self.path(&document.gateway);
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&encode(document))?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.0)?.sync_all()
    }

    /// Forgets a Gateway's document.
    pub(super) fn remove(&self, gateway: &str) -> io::Result<()> {
        match fs::remove_file(self.path(gateway)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, gateway: &str) -> PathBuf {
        // A name may be as long as a file's may not.
        let digest = format!("{:?}", Sha256::of(gateway.as_bytes()));
        self.0.join(format!("{}.{ENDING}", digest.get(..32).unwrap_or_default()))
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("this is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take((MAX_DOCUMENT + MAX_HEAD) as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn encode(document: &Document) -> Vec<u8> {
    let head = Head { gateway: document.gateway.clone(), generation: document.generation };
    // A struct of plain members can be written.
    let mut rest = serde_json::to_vec(&head).unwrap_or_default();
    rest.push(b'\n');
    rest.extend_from_slice(&document.bytes);
    let mut file = format!("{MAGIC}\n{:?}\n", Sha256::of(&rest)).into_bytes();
    file.append(&mut rest);
    file
}

fn decode(file: &[u8]) -> Result<Document, &'static str> {
    let rest = file.strip_prefix(MAGIC.as_bytes()).and_then(|rest| rest.strip_prefix(b"\n"));
    let rest = rest.ok_or("it is of another version, or none of this program's")?;
    let (sum, rest) = split_line(rest).ok_or("it was cut off")?;
    if sum != format!("{:?}", Sha256::of(rest)).as_bytes() {
        return Err("it is damaged: its checksum is another");
    }
    let (head, bytes) = split_line(rest).ok_or("it was cut off")?;
    let Head { gateway, generation } = serde_json::from_slice(head).map_err(|_| "its head cannot be read")?;
    if !is_gateway(&gateway) || bytes.is_empty() || bytes.len() > MAX_DOCUMENT {
        return Err("it is no configuration of a Gateway");
    }
    let (sha256, bytes) = (Sha256::of(bytes), bytes.to_vec().into());
    Ok(Document { gateway, generation, sha256, bytes })
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes.get(..bytes.len().min(MAX_HEAD))?)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Reads what may be a file of the cache, as a start does, and writes it again. For the fuzzer.
pub(super) fn read_any(file: &[u8]) -> Option<Vec<u8>> {
    decode(file).ok().map(|document| encode(&document))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn document(gateway: &str, generation: u64, bytes: &'static [u8]) -> Document {
        let sha256 = Sha256::of(bytes);
        Document { gateway: gateway.to_owned(), generation, sha256, bytes: bytes.into() }
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("a/b")).unwrap();
        let (a, b) = (document("d/a", 1, b"{}\n\n{}"), document("d/b", u64::MAX, b"b"));
        cache.write(&document("d/a", 0, b"old")).unwrap();
        cache.write(&a).unwrap();
        cache.write(&b).unwrap();
        let mut read = cache.read();
        read.sort_by(|a, b| a.gateway.cmp(&b.gateway));
        assert_eq!(read, [a.clone(), b]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache.path("d/a")), mode(&cache.0)), (0o600, 0o700));
        cache.remove("d/b").unwrap();
        cache.remove("d/b").unwrap();
        // What was left half-written is in nobody's way.
        fs::write(cache.path("d/a").with_extension("new"), "half").unwrap();
        cache.write(&a).unwrap();
        // Another's file under this name, and what is no file, count as damaged.
        fs::copy(cache.path("d/a"), cache.path("d/c")).unwrap();
        fs::create_dir(cache.path("d/d")).unwrap();
        assert_eq!(cache.read(), [a]);
    }

    proptest! {
        #[test]
        fn any_damage_is_noticed(at in 0_usize..1_000, bit in 0..8, cut in any::<bool>()) {
            let mut file = encode(&document("d/a", 7, b"the document"));
            let at = at % file.len();
            if cut { file.truncate(at) } else { file[at] ^= 1_u8 << bit }
            prop_assert!(decode(&file).is_err());
        }
    }
}
