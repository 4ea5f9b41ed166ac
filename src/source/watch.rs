//! Noticing changes.
//!
//! By asking, twice a second, what the file system says of the files: a `stat` costs two microseconds. Notifications would be
//! faster by a fraction of a second, and would have to be asked for anew whenever a link is swapped, which is how Kubernetes
//! updates volumes; network and overlay file systems do not deliver them.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{Digest, SHA256, digest};
use tokio::runtime::Handle;

use super::{Location, Slot, Source, SourceError};

/// How often files are looked at.
const EVERY: Duration = Duration::from_millis(500);

/// A file that changed this recently may change again without its times telling: their steps are coarse.
const UNSETTLED: Duration = Duration::from_secs(2);

/// What the file system says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    path: PathBuf,
    /// Device, inode, size, time of the last change of content and of attributes; nothing if there is no such file.
    facts: Option<[i128; 5]>,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        let metadata = std::fs::metadata(path).ok();
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let facts = metadata.as_ref().map(|file| {
            let modified = nanoseconds(file.mtime(), file.mtime_nsec());
            let changed = nanoseconds(file.ctime(), file.ctime_nsec());
            [file.dev().into(), file.ino().into(), file.size().into(), modified, changed]
        });
        Self { path: path.to_owned(), facts, modified: metadata.and_then(|file| file.modified().ok()) }
    }

    fn is_current(&self) -> bool {
        *self == Self::of(&self.path)
    }

    fn is_settled(&self, now: SystemTime) -> bool {
        let apart =
            |time: SystemTime| now.duration_since(time).unwrap_or_else(|later| later.duration()) > UNSETTLED;
        self.modified.is_none_or(apart)
    }
}

/// Keeps a slot in step with a source.
#[derive(Debug)]
pub struct Watcher {
    source: Source,
    slot: Slot,
    /// The files as they were when they were last read; nothing if they have to be read again in any case.
    stamps: Option<Vec<Stamp>>,
    /// Of what was read last, whether or not it could be used.
    content: Option<Digest>,
    /// The last failure that was reported.
    reported: Option<String>,
    /// On this, the credentials of what is new are waited for; nothing if they are not.
    waits_on: Option<Handle>,
}

impl Watcher {
    /// A watcher that has not looked yet.
    pub fn new(source: Source, slot: Slot) -> Self {
        Self { source, slot, stamps: None, content: None, reported: None, waits_on: None }
    }

    /// Loads the configuration for the first time. A bundle of which not all has arrived is no failure: there is nothing to
    /// serve yet. Blocks.
    ///
    /// # Errors
    /// Whatever else keeps the configuration from being used.
    pub fn first(&mut self) -> Result<(), SourceError> {
        match self.look(SystemTime::now()) {
            Err(error) if error.is_torn() => {
                tracing::warn!(%error, "no configuration yet; waiting for the rest of it");
                self.reported = Some(error.to_string());
                Ok(())
            }
            result => result.map(drop),
        }
    }

    /// Takes up a change, if there is one. A configuration that cannot be used leaves the last good one in force and is
    /// reported once. Blocks.
    pub fn poll(&mut self) {
        match self.look(SystemTime::now()) {
            Ok(true) => self.reported = None,
            Ok(false) => {}
            Err(error) => {
                let text = error.to_string();
                if self.reported.as_ref() != Some(&text) {
                    let (Location::File(path) | Location::Bundle(path)) = &self.source.location;
                    tracing::error!(path = %path.display(), %error, "configuration not loaded; the last good one stays");
                    self.reported = Some(text);
                }
            }
        }
    }

    /// Publishes what is new. Says whether something was.
    fn look(&mut self, now: SystemTime) -> Result<bool, SourceError> {
        if self.stamps.as_ref().is_some_and(|stamps| stamps.iter().all(Stamp::is_current)) {
            return Ok(false);
        }
        // Until the files are read as a whole, every look reads them.
        self.stamps = None;
        let mut content = self.source.content()?;
        // Who writes in the middle of a reading gives half a document, which may look like a whole one.
        let mut again = 2;
        while again > 0 && !content.stamps.iter().all(Stamp::is_current) {
            content = self.source.content()?;
            again -= 1;
        }
        let read = digest(&SHA256, &content.bytes);
        if content.stamps.iter().all(|stamp| stamp.is_settled(now)) {
            self.stamps = Some(content.stamps.clone());
        }
        if self.content.is_some_and(|known| known.as_ref() == read.as_ref()) {
            return Ok(false);
        }
        self.content = Some(read);
        // A panic would be met again at every look.
        let loaded = catch_unwind(AssertUnwindSafe(|| self.source.load(&content))).unwrap_or_else(|_| {
            let (Location::File(path) | Location::Bundle(path)) = &self.source.location;
            let error = "reading it failed in a way that is a mistake of this program".to_owned();
            Err(SourceError::Malformed { name: path.display().to_string(), error })
        })?;
        drop(content);
        for problem in loaded.problems {
            tracing::error!(%problem, "a part of the configuration is not served");
        }
        let (Location::File(path) | Location::Bundle(path)) = &self.source.location;
        if let Some(handle) = &self.waits_on {
            handle.block_on(self.slot.prepare(&loaded.runtime));
        }
        drop(self.slot.publish(loaded.runtime));
        tracing::info!(path = %path.display(), uuid = loaded.uuid, version = loaded.version, "configuration loaded");
        Ok(true)
    }
}

/// Takes up changes until dropped.
pub async fn follow(mut watcher: Watcher) -> Infallible {
    loop {
        tokio::time::sleep(EVERY).await;
        let (source, slot) = (watcher.source.clone(), watcher.slot.clone());
        watcher.waits_on = Some(Handle::current());
        // Reading and compiling a large configuration takes a while, and files may be on a network.
        let polled = tokio::task::spawn_blocking(move || {
            watcher.poll();
            watcher
        });
        watcher = match polled.await {
            Ok(watcher) => watcher,
            Err(error) => {
                tracing::error!(%error, "looking for a new configuration failed; the last good one stays");
                Watcher::new(source, slot)
            }
        };
    }
}

#[cfg(test)]
mod tests;
