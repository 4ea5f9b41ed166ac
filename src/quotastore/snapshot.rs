//! What the memory store has, in a file: it survives the process.
//!
//! ```text
//! start ─► Snapshot::open: what the file has is taken up ─► a thread: a new file each second in which anything was done
//!   end ─► Snapshot::written: the last one
//! ```
//!
//! A file takes the place of another as a whole. Its shards are copied one after the other while requests go on, so of what is done at
//! that time it may have a part: an end that is charged in one bucket, say, and held in another still. Who is killed loses what was done
//! since the last one. Of reservations it has what they hold, until when, and what becomes of it then: those who made them are gone, so
//! they run out.

mod format;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::format::{Content, MOST, Unreadable};
use super::MemoryStore;
use super::worker::Worker;
use crate::quota::ledger::SLACK;

/// Writing takes at most one part in so many of the time: what is long is written less often.
const SHARE: u32 = 5;

/// Where a snapshot is, and how often it is written.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// It belongs to one process at a time. Beside it are `FILE.lock` and, while one is written, `FILE.new`.
    pub file: PathBuf,
    /// How long to wait between two.
    pub interval: Duration,
}

/// A snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system says so.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "{}: another process keeps its quotas here; every gateway needs a file of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// The file was never a snapshot.
    #[error("{}: this is no snapshot of quotas; name another file, or move this one away", .0.display())]
    Foreign(PathBuf),
}

/// A file that follows a store. Dropping it writes what is left.
#[derive(Debug)]
pub struct Snapshot {
    asked: Sender<oneshot::Sender<()>>,
    failed: Arc<AtomicU64>,
    /// Ends when nobody can ask any more.
    _thread: Worker,
}

impl Snapshot {
    /// Takes up into the store what the file has, and from then on keeps in the file what the store has. A file that cannot be read any
    /// more is set aside as `FILE.unreadable`, and the log tells of it: quotas begin anew.
    ///
    /// # Errors
    /// See [`SnapshotError`]: also if the file cannot be written.
    pub fn open(options: SnapshotOptions, store: &MemoryStore) -> Result<Self, SnapshotError> {
        let SnapshotOptions { file: path, interval } = options;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| SnapshotError::Io { path, source }
        };
        let name = beside(&path, ".lock");
        let lock = private().truncate(false).open(&name).map_err(at(&name))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(SnapshotError::Locked(path)),
            Err(std::fs::TryLockError::Error(error)) => return Err(at(&name)(error)),
        }
        match load(&path).map_err(at(&path))? {
            Ok(content) => take_up(store, content, &path),
            Err(Unreadable::Foreign) => return Err(SnapshotError::Foreign(path)),
            Err(reason) => {
                let aside = beside(&path, ".unreadable");
                std::fs::rename(&path, &aside).map_err(at(&aside))?;
                tracing::error!(
                    path = %path.display(), %reason, kept = %aside.display(),
                    "the snapshot of quotas cannot be read and is set aside: what was spent is forgotten"
                );
            }
        }
        let failed = Arc::new(AtomicU64::new(0));
        let mut keeper = Keeper {
            store: store.clone(),
            path: path.clone(),
            interval,
            unwritten: false,
            failing: false,
            failed: Arc::clone(&failed),
        };
        // What cannot be written is better known now.
        keeper.write().map_err(at(&path))?;
        let (asked, queue) = channel();
        let thread = Worker::start("quota-snapshot", move || {
            keeper.run(&queue);
            drop(lock);
        });
        Ok(Self { asked, failed, _thread: thread.map_err(at(&path))? })
    }

    /// Writes what has been done until now, and waits for that.
    pub(super) async fn written(&self) {
        let (reply, done) = oneshot::channel();
        if self.asked.send(reply).is_ok() {
            // It answers unless it has failed altogether, which was reported then.
            let _ = done.await;
        }
    }

    /// How many times it could not be written.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What a file has; the error is the file system's.
fn load(path: &Path) -> io::Result<Result<Content, Unreadable>> {
    let length = match std::fs::metadata(path) {
        Ok(about) if about.is_file() => about.len(),
        Ok(_) => return Ok(Err(Unreadable::Foreign)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(Content::default())),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // Somebody else's file is not set aside because it is long.
    File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    let content = format::read(&bytes);
    Ok(match content {
        Err(Unreadable::Damaged) if length > MOST => Err(Unreadable::TooLong),
        content => content,
    })
}

fn take_up(store: &MemoryStore, Content { written, kept }: Content, path: &Path) {
    let (now, buckets) = (store.now(), kept.buckets.len());
    if now.saturating_add(SLACK) < written {
        tracing::warn!(
            path = %path.display(), seconds = (written - now) / 1000,
            "the clock is behind the snapshot of quotas: what was spent later than now counts as spent now"
        );
    }
    store.resume(kept);
    if buckets > 0 {
        tracing::info!(path = %path.display(), buckets, "quotas go on where the snapshot left them");
    }
}

/// That file's name, and more.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// For this user alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// The file, in its thread.
struct Keeper {
    store: MemoryStore,
    path: PathBuf,
    interval: Duration,
    /// Something was done that is not in the file.
    unwritten: bool,
    failing: bool,
    failed: Arc<AtomicU64>,
}

impl Keeper {
    fn run(&mut self, queue: &Receiver<oneshot::Sender<()>>) {
        let mut wait = self.interval;
        loop {
            let asked = match queue.recv_timeout(wait) {
                Ok(reply) => Some(reply),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let begun = Instant::now();
            self.keep();
            wait = self.interval.max(begun.elapsed().saturating_mul(SHARE - 1));
            if let Some(reply) = asked {
                // Who asked may have been told to stop.
                let _ = reply.send(());
            }
        }
        self.keep();
    }

    /// Writes if anything was done.
    fn keep(&mut self) {
        self.unwritten |= self.store.changed();
        if !self.unwritten {
            return;
        }
        match self.write() {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                // Not once for each: there may be one a second.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(
                        path = %self.path.display(), %error,
                        "the snapshot of quotas cannot be written: if this process ends, what was spent since is forgotten"
                    );
                }
            }
        }
    }

    /// Puts a file with what the store has in the place of the present one.
    fn write(&mut self) -> io::Result<()> {
        // What is done from here on may be missing.
        self.store.changed();
        self.unwritten = true;
        let fresh = beside(&self.path, ".new");
        let result = self.write_to(&fresh);
        if result.is_err() {
            // The disk may be full.
            let _ = std::fs::remove_file(&fresh);
        }
        result.map(|()| self.unwritten = false)
    }

    fn write_to(&self, fresh: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(private().truncate(true).open(fresh)?);
        format::write(&mut out, self.store.now(), self.store.copies())?;
        out.flush()?;
        out.get_ref().sync_data()?;
        std::fs::rename(fresh, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }
}

/// What a snapshot of this store is.
#[doc(hidden)]
pub fn take_snapshot(store: &MemoryStore) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Memory takes all that is not too long, which is for whoever reads it to find.
    let _ = format::write(&mut bytes, store.now(), store.copies());
    bytes
}

/// Takes up a snapshot into a store; says whether it is one.
#[doc(hidden)]
pub fn resume_snapshot(store: &MemoryStore, bytes: &[u8]) -> bool {
    format::read(bytes).map(|content| store.resume(content.kept)).is_ok()
}

/// A snapshot whose records say this, whatever it is.
#[doc(hidden)]
pub fn snapshot_of(records: &[serde_json::Value]) -> Vec<u8> {
    format::of(records)
}

#[cfg(test)]
mod tests;
