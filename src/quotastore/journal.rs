//! What the store of quotas has not been told of yet, on the disk: it survives the process.
//!
//! ```text
//! Desk::settle ─► Journal::owe ─► a queue ─► the journal's thread: what the store was not told of within 10 ms is written
//! delivered    ─► Journal::paid ─►    "   ─► noted as done; once nothing is owed, the file is emptied
//! next start   ─► Journal::open: what is owed still is delivered first
//! ```
//!
//! Settling is idempotent by the reservation's id, so what is delivered again counts once. That holds for as long as the store
//! remembers: 25 hours, unless told that it need not. It is told so only of what cannot come out of the journal again ([`Journal::paid`]), and
//! what is older than a day when the journal is read is dropped, with an error in the log.
//!
//! A process that is killed loses the ends of its last 10 ms, and a power failure those since the last sync ([`Sync`]): their leases run out by policy.
//! When the journal is full, or the disk fails, what ends is kept in memory only: it is counted and logged, and delivered if the process lives.

mod format;

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use self::format::{Content, Entry, Foreign, MAGIC, decode, encode};
use super::worker::Worker;
use crate::quota::{ReservationId, Settle};

/// How long ends gather before those that the store was not told of are written.
const GATHER: Duration = Duration::from_millis(10);
/// How often the disk is told to keep what was written, under [`Sync::Interval`].
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How many messages may wait for the thread.
const QUEUE: usize = 1 << 16;
/// What is older when it is read is dropped, in milliseconds: an hour before the store forgets.
const TOO_OLD: u64 = 24 * 3_600_000;
/// A file that is no longer than this is not worth emptying when nothing is owed any more.
const SMALL: u64 = 1 << 18;

/// When the disk is told to keep what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Sync {
    /// After every write.
    Always,
    /// Once a second.
    #[default]
    Interval,
    /// When the system sees fit: a power failure may lose half a minute.
    Never,
}

/// Where a journal is, and how it is kept.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// It belongs to one process at a time.
    pub folder: PathBuf,
    /// When it is synced.
    pub sync: Sync,
    /// How long its file may get, in bytes.
    pub most: u64,
}

/// A journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
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
        "{}: another process keeps its journal here; every processor needs a folder of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// The file was not written by this version of the gateway.
    #[error("{}: this is no journal of quotas that can be read here; move it away to begin anew", .0.display())]
    Foreign(PathBuf),
}

/// A journal that is open. Dropping it writes what is left.
#[derive(Debug)]
pub struct Journal {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    /// Ends when nobody can send messages any more.
    _thread: Worker,
}

enum Message {
    Owe(u64, Settle),
    Paid(Vec<ReservationId>, oneshot::Sender<Vec<ReservationId>>),
}

impl Journal {
    /// Opens the journal in a folder, which is made if it is not there, and hands out what the store has not been told of.
    ///
    /// # Errors
    /// See [`JournalError`]. Damage is none: what came before it is handed out, and the log tells of it.
    pub fn open(options: &JournalOptions) -> Result<(Self, Vec<Settle>), JournalError> {
        let folder = &options.folder;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let path = folder.join("lock");
        let lock = private().create(true).truncate(false).open(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::Locked(folder.clone())),
            Err(std::fs::TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        let path = folder.join("settlements.journal");
        let mut file = private().create(true).truncate(false).open(&path).map_err(at(&path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(at(&path))?;
        let Content { mut owed, unread } =
            decode(&bytes).map_err(|Foreign| JournalError::Foreign(path.clone()))?;
        drop(bytes);
        if unread > 0 {
            tracing::warn!(path = %path.display(), unread, "the journal of quotas ends with bytes that make no sense; what came before them counts");
        }
        let (now, before) = (wall(), owed.len());
        owed.retain(|(when, _)| when.saturating_add(TOO_OLD) > now);
        if owed.len() < before {
            let dropped = before - owed.len();
            tracing::error!(
                dropped,
                "ends of reservations in the journal are older than a day and not charged"
            );
        }
        let lost = Arc::new(AtomicU64::new(0));
        let mut log = Log {
            options: options.clone(),
            path: path.clone(),
            file,
            length: 0,
            owed: HashMap::new(),
            dirty: None,
        };
        log.rewrite(
            owed.iter().filter_map(|(when, settle)| {
                Some((settle.id, encode(&Entry::Settle(*when, settle.clone()))?))
            }),
        )
        .map_err(at(&path))?;
        let (messages, queue) = sync_channel(QUEUE);
        let counter = Arc::clone(&lost);
        let thread = Worker::start("quota-journal", move || {
            log.run(&queue, &counter);
            drop(lock);
        });
        let owed = owed.into_iter().map(|(_, settle)| settle).collect();
        Ok((Self { messages, lost, _thread: thread.map_err(at(&path))? }, owed))
    }

    /// A reservation has ended, and the store is to be told. Never waits.
    pub(super) fn owe(&self, settle: &Settle) {
        let message = Message::Owe(wall(), settle.clone());
        if self.messages.try_send(message).is_err() {
            lose(&self.lost, "its disk is too slow", 1);
        }
    }

    /// The store has been told of these. Says later which of them will certainly never come out of the journal again; nothing where it
    /// does not know: they are delivered again after a restart, and count once.
    pub(super) fn paid(&self, ids: Vec<ReservationId>) -> oneshot::Receiver<Vec<ReservationId>> {
        let (reply, safe) = oneshot::channel();
        drop(self.messages.try_send(Message::Paid(ids, reply)));
        safe
    }

    /// How many ends could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

fn lose(lost: &AtomicU64, reason: &str, count: u64) {
    // Not once for each: there may be thousands a second.
    if lost.fetch_add(count, Ordering::Relaxed).is_power_of_two() || count > 1 {
        tracing::error!(
            reason,
            lost = lost.load(Ordering::Relaxed),
            "ends of reservations are not in the journal of quotas: they are lost if this process ends before the store is back"
        );
    }
}

fn wall() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// For this user alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// The file, in its thread.
struct Log {
    options: JournalOptions,
    path: PathBuf,
    file: File,
    length: u64,
    /// Where the records are of what is owed.
    owed: HashMap<ReservationId, (u64, usize)>,
    /// Since when something is not synced.
    dirty: Option<Instant>,
}

impl Log {
    fn run(&mut self, queue: &Receiver<Message>, lost: &AtomicU64) {
        loop {
            let first = match queue.recv_timeout(SYNC_EVERY) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if first.is_some() {
                // What the store is told of meanwhile is never written.
                thread::sleep(GATHER);
            }
            self.work(first.into_iter().chain(queue.try_iter()), lost);
        }
        if self.options.sync != Sync::Never {
            let _ = self.file.sync_data();
        }
    }

    fn work(&mut self, messages: impl Iterator<Item = Message>, lost: &AtomicU64) {
        let (mut fresh, mut done, mut replies) = (HashMap::new(), Vec::new(), Vec::new());
        for message in messages {
            match message {
                Message::Owe(when, settle) => drop(fresh.insert(settle.id, Entry::Settle(when, settle))),
                Message::Paid(ids, reply) => {
                    let (unwritten, written): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| {
                        fresh.remove(id);
                        !self.owed.contains_key(id)
                    });
                    done.extend_from_slice(&written);
                    replies.push((reply, unwritten, written));
                }
            }
        }
        let wrote = self.write(&fresh, &done, lost);
        let synced = self.sync();
        for (reply, mut safe, written) in replies {
            if wrote && synced && self.options.sync == Sync::Always {
                safe.extend(written);
            }
            // Who asked may have been told to stop.
            let _ = reply.send(safe);
        }
    }

    /// Writes what is owed and what is done. Says whether what is done is written.
    fn write(
        &mut self,
        fresh: &HashMap<ReservationId, Entry>,
        done: &[ReservationId],
        lost: &AtomicU64,
    ) -> bool {
        let mut wrote = true;
        for id in done {
            self.owed.remove(id);
        }
        if !done.is_empty() {
            wrote = if self.owed.is_empty() && self.length > SMALL {
                self.rewrite(std::iter::empty()).is_ok()
            } else {
                let record = encode(&Entry::Done(done.to_vec()));
                record.is_some_and(|record| self.append(&record, u64::MAX).is_ok())
            };
        }
        for (id, entry) in fresh {
            let Some(record) = encode(entry) else {
                lose(lost, "it is too long", 1);
                continue;
            };
            let (at, length) = (self.length, record.len());
            match self.append(&record, self.options.most) {
                Ok(()) => drop(self.owed.insert(*id, (at, length))),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => lose(lost, "it is full", 1),
                Err(error) => lose(lost, &error.to_string(), 1),
            }
        }
        wrote
    }

    fn append(&mut self, record: &[u8], most: u64) -> io::Result<()> {
        if self.length.saturating_add(record.len() as u64) > most {
            let owed: u64 = self.owed.values().map(|(_, length)| *length as u64).sum();
            // Not worth it for little room.
            if owed > self.options.most / 2 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            self.compact()?;
        }
        if let Err(error) = self.file.write_all_at(record, self.length) {
            // Half a record would hide what comes after it.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += record.len() as u64;
        self.dirty.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Leaves out what is done.
    fn compact(&mut self) -> io::Result<()> {
        let mut records = Vec::with_capacity(self.owed.len());
        for (id, (at, length)) in &self.owed {
            let mut record = vec![0; *length];
            self.file.read_exact_at(&mut record, *at)?;
            records.push((*id, record));
        }
        self.rewrite(records.into_iter())
    }

    /// Puts a file with just these records in the place of the present one.
    fn rewrite(&mut self, records: impl Iterator<Item = (ReservationId, Vec<u8>)>) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = private().create(true).truncate(true).open(&fresh)?;
        let (mut bytes, mut owed) = (MAGIC.to_vec(), HashMap::new());
        for (id, record) in records {
            owed.insert(id, (bytes.len() as u64, record.len()));
            bytes.extend_from_slice(&record);
        }
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        if self.options.sync != Sync::Never {
            file.sync_data()?;
        }
        std::fs::rename(&fresh, &self.path)?;
        if self.options.sync != Sync::Never {
            File::open(&self.options.folder)?.sync_all()?;
        }
        (self.file, self.length, self.owed, self.dirty) = (file, bytes.len() as u64, owed, None);
        Ok(())
    }

    /// Syncs if it is time to. Says whether everything is.
    fn sync(&mut self) -> bool {
        let due = self.dirty.is_some_and(|since| match self.options.sync {
            Sync::Always => true,
            Sync::Interval => since.elapsed() >= SYNC_EVERY,
            Sync::Never => false,
        });
        if due && self.file.sync_data().is_ok() {
            self.dirty = None;
        }
        self.dirty.is_none()
    }
}

/// Reads bytes as a journal, for whoever wants to know that nothing comes of it but ends that were written: how many.
#[doc(hidden)]
pub fn read_journal(bytes: &[u8]) -> Option<usize> {
    let content = decode(bytes).ok()?;
    let ids: HashSet<_> = content.owed.iter().map(|(_, settle)| settle.id).collect();
    Some(ids.len())
}

#[cfg(test)]
mod tests;
