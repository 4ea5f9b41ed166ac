//! L4. Where the data plane's configuration comes from: a file that is read at start and again whenever it changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use crate::config::Config;
use crate::runtime::{Problem, Runtime};

/// The runtime in force. Readers never wait; whoever wants to know of a change can.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runtime: ArcSwapOption<Runtime>,
    changed: watch::Sender<u64>,
}

impl Default for Slot {
    fn default() -> Self {
        Self(Arc::new(Inner { runtime: ArcSwapOption::empty(), changed: watch::Sender::new(0) }))
    }
}

impl Slot {
    /// Puts a runtime into force and returns the one before. Exchanges that began with that one end with it.
    pub fn publish(&self, runtime: Runtime) -> Option<Arc<Runtime>> {
        let before = self.0.runtime.swap(Some(Arc::new(runtime)));
        self.0.changed.send_modify(|generation| *generation += 1);
        before
    }

    /// How many runtimes were published so far.
    pub fn generation(&self) -> u64 {
        *self.0.changed.borrow()
    }

    /// The runtime in force; nothing until the first was published.
    pub fn load(&self) -> Option<Arc<Runtime>> {
        self.0.runtime.load_full()
    }

    /// Resolves at every publication.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

/// Why a configuration file is not in force.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("{path}: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// It is no configuration.
    #[error("{path}: {error}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The reason, with line and column.
        error: Box<serde_saphyr::Error>,
    },
}

/// Reads a configuration file (YAML or JSON). Problems of single items come with the runtime, which serves the others.
pub fn read(path: &Path) -> Result<(Runtime, Vec<Problem>), SourceError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SourceError::Unreadable { path: path.to_owned(), error })?;
    let config: Config = serde_saphyr::from_str(&text)
        .map_err(|error| SourceError::Malformed { path: path.to_owned(), error: Box::new(error) })?;
    Ok(Runtime::new(config))
}

/// Publishes the file's configuration, now and after every change, until dropped. A file that cannot be used leaves the
/// last good configuration in force and is reported once.
pub async fn follow(path: PathBuf, slot: Slot) {
    const POLL: Duration = Duration::from_secs(1);
    let mut seen: Option<Vec<u8>> = None;
    loop {
        // Content rather than modification time: mounted Secrets are swapped by renames that keep times.
        let content = tokio::fs::read(&path).await.ok();
        if content.is_some() && content != seen {
            match read(&path) {
                Ok((runtime, problems)) => {
                    for problem in problems {
                        tracing::error!(path = %path.display(), %problem, "a part of the configuration is not served");
                    }
                    drop(slot.publish(runtime));
                    tracing::info!(path = %path.display(), "configuration loaded");
                }
                Err(error) => tracing::error!(%error, "configuration not loaded; the last good one stays"),
            }
            seen = content;
        } else if content.is_none() && seen.is_none() {
            tracing::warn!(path = %path.display(), "no configuration file yet");
            seen = Some(Vec::new());
        }
        tokio::time::sleep(POLL).await;
    }
}
