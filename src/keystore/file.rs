//! Keys in a file: a line of JSON a record, after a first line that says what the file is.
//!
//! A write makes a new file beside it and puts that in its place, under a lock on a third one (`PATH.lock`), so that a reader sees
//! all of a write or nothing of it, and several writers lose nothing. It is for some thousands of keys: each write writes all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Held, Snapshot, StoreError, Write};
use crate::keys::{KeyId, MAX_RECORD, Record};

/// The first line.
const HEADER: &str = r#"{"aigwKeys":1}"#;
/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 512 << 20;

/// A file of keys.
#[derive(Debug, Clone)]
pub struct FileStore {
    path: PathBuf,
}

/// What tells one edition of a file from the next: each is a file of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl FileStore {
    /// The store in that file, which need not be there yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) async fn get(&self, id: KeyId) -> Result<Option<Held>, StoreError> {
        self.blocking(move |store| Ok(store.read()?.held(id))).await
    }

    pub(super) async fn all(&self) -> Result<Snapshot, StoreError> {
        self.blocking(|store| Ok(store.read()?.snapshot())).await
    }

    /// All records, and the edition they are of; nothing if it is the one of `known`.
    pub(super) async fn newer(&self, known: Option<Stamp>) -> Result<Option<(Stamp, Snapshot)>, StoreError> {
        self.blocking(move |store| {
            let stamp = store.stamp().map_err(|error| store.away(&error))?;
            if known.as_ref() == Some(&stamp) {
                return Ok(None);
            }
            let file = File::open(&store.path).map_err(|error| store.away(&error))?;
            // Of the file that was opened: another may have come in its place.
            let stamp = file.metadata().map(|meta| Stamp::of(&meta)).map_err(|error| store.away(&error))?;
            Ok(Some((stamp, store.read_from(file)?.snapshot())))
        })
        .await
    }

    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.blocking(move |store| store.write_now(&writes)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(store)).await;
        done.unwrap_or_else(|error| Err(StoreError::Away(format!("reading the keys was cut short: {error}"))))
    }

    fn away(&self, error: &io::Error) -> StoreError {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; `aigw key create` makes it with the first key",
            io::ErrorKind::PermissionDenied => "; it and its folder have to belong to the user this runs as",
            _ => "",
        };
        StoreError::Away(format!("the keys file {} cannot be used: {error}{hint}", self.path.display()))
    }

    fn stamp(&self) -> io::Result<Stamp> {
        fs::metadata(&self.path).map(|meta| Stamp::of(&meta))
    }

    fn read(&self) -> Result<Content, StoreError> {
        self.read_from(File::open(&self.path).map_err(|error| self.away(&error))?)
    }

    fn read_from(&self, file: File) -> Result<Content, StoreError> {
        let meta = file.metadata().map_err(|error| self.away(&error))?;
        let wrong = |reason: &str| {
            StoreError::Away(format!("the keys file {} cannot be used: {reason}", self.path.display()))
        };
        if !meta.is_file() {
            return Err(wrong("it is no file"));
        }
        if meta.len() > MAX_FILE {
            return Err(wrong("it is longer than 512 MiB; keep that many keys in Redis"));
        }
        let mut content =
            Content::read(file.take(MAX_FILE), &self.path).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => wrong(&error.to_string()),
                _ => self.away(&error),
            })?;
        if meta.permissions().mode() & 0o022 != 0 {
            content.problems.push(format!(
                "others may write to the keys file {}: chmod 600 ends that",
                self.path.display()
            ));
        }
        Ok(content)
    }

    fn write_now(&self, writes: &[Write]) -> Result<(), StoreError> {
        let away = |error: io::Error| self.away(&error);
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.with_file_name(name))
            .map_err(away)?;
        lock.lock().map_err(away)?;
        let mut content = match self.read() {
            Ok(content) => content,
            Err(_) if !self.path.exists() => Content::default(),
            Err(error) => return Err(error),
        };
        for Write { after, before } in writes {
            content.put(after, before.as_deref())?;
        }
        self.replace(&content).map_err(away)
    }

    /// The file is on the disk, under its name, when this returns.
    fn replace(&self, content: &Content) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // Made with mode 0600.
        let mut file = tempfile::Builder::new().prefix(".aigw-keys-").tempfile_in(folder)?;
        let mut out = io::BufWriter::new(file.as_file_mut());
        writeln!(out, "{HEADER}")?;
        for line in &content.lines {
            out.write_all(&line.text)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(folder)?.sync_all()
    }
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: meta.modified().ok(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a file says, line by line. What cannot be read stays in it.
#[derive(Debug, Default)]
struct Content {
    lines: Vec<Line>,
    /// Where the record of each id is, of those that can be read.
    places: BTreeMap<KeyId, usize>,
    problems: Vec<String>,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    record: Option<Record>,
}

impl Content {
    fn read(input: impl Read, path: &Path) -> io::Result<Self> {
        let mut input = BufReader::new(input);
        let mut content = Self::default();
        let mut doubled = BTreeSet::new();
        let mut number = 0_usize;
        while let Some(text) = next_line(&mut input)? {
            number += 1;
            if number == 1 {
                if text.trim_ascii() != HEADER.as_bytes() {
                    let reason = format!("its first line is not {HEADER}, so it is no file of keys");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
                continue;
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let record = match Record::from_json(&text) {
                Ok(record) => {
                    if content.places.insert(record.id, content.lines.len()).is_some() {
                        doubled.insert(record.id);
                    }
                    Some(record)
                }
                Err(error) => {
                    content
                        .problems
                        .push(format!("{}:{number}: {error}; the key is refused", path.display()));
                    None
                }
            };
            content.lines.push(Line { text, record });
        }
        // Which of them holds nobody can know: one of them may say that the key was taken back.
        for id in doubled {
            content.places.remove(&id);
            content.problems.push(format!(
                "{}: the key {id} is there more than once, so it is refused: leave one line of it",
                path.display()
            ));
        }
        Ok(content)
    }

    fn held(&self, id: KeyId) -> Option<Held> {
        let line = &self.lines[*self.places.get(&id)?];
        let text = String::from_utf8(line.text.clone()).ok()?;
        Some(Held { record: line.record.clone()?, text })
    }

    fn snapshot(mut self) -> Snapshot {
        let records = self.places.values().filter_map(|place| self.lines[*place].record.take()).collect();
        Snapshot { records, problems: self.problems }
    }

    fn put(&mut self, record: &Record, before: Option<&str>) -> Result<(), StoreError> {
        let line = Line { text: record.to_json().into_bytes(), record: Some(record.clone()) };
        match (self.places.get(&record.id), before) {
            (Some(place), Some(before)) if self.lines[*place].text == before.as_bytes() => {
                self.lines[*place] = line;
                Ok(())
            }
            (None, None) if !self.has(record.id) => {
                self.places.insert(record.id, self.lines.len());
                self.lines.push(line);
                Ok(())
            }
            _ => Err(StoreError::Conflict),
        }
    }

    /// One that is there twice is in no place.
    fn has(&self, id: KeyId) -> bool {
        self.lines.iter().any(|line| line.record.as_ref().is_some_and(|record| record.id == id))
    }
}

/// A line without its end. Of one that is too long for a record so much as shows that.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    if input.take(MAX_RECORD as u64 + 2).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MAX_RECORD {
        let reason = format!("one of its lines is longer than {MAX_RECORD} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(Some(line))
}

/// For the fuzz target: reads any bytes as a file.
#[doc(hidden)]
pub fn read_any(bytes: &[u8]) -> Option<Snapshot> {
    Content::read(bytes, Path::new("fuzz")).ok().map(Content::snapshot)
}
