//! L4. Where the data plane's configuration comes from: a file, or a bundle of parts, that is read at start and again whenever
//! it changes; or a controller that pushes it.

mod bundle;
mod document;
pub mod protocol;
mod pushed;
mod version;
mod watch;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch as channel;

pub use self::bundle::{Index, Part};
pub use self::document::{Loaded, parse};
pub use self::pushed::{
    Controller, ControllerFiles, ControllerUrl, GatewayStatus, InvalidControllerUrl, Pushed, PushedStatus,
    follow_controller, read_cache_any,
};
pub use self::version::{Accept, STAMP};
use self::watch::Stamp;
pub use self::watch::{Watcher, follow};
use crate::credentials::Keeper;
use crate::runtime::{Problem, Runtime};

/// The runtime in force. Readers never wait; whoever wants to know of a change can.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Inner>);

/// How long a change waits for credentials that have to be fetched first.
const FETCH: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Inner {
    runtime: ArcSwapOption<Runtime>,
    credentials: Keeper,
    pushed: Pushed,
    changed: channel::Sender<u64>,
}

impl Default for Slot {
    fn default() -> Self {
        Self(Arc::new(Inner {
            runtime: ArcSwapOption::empty(),
            credentials: Keeper::default(),
            pushed: Pushed::default(),
            changed: channel::Sender::new(0),
        }))
    }
}

impl Slot {
    /// Puts a runtime into force and returns the one before. Exchanges that began with that one end with it.
    pub fn publish(&self, runtime: Runtime) -> Option<Arc<Runtime>> {
        self.0.credentials.adopt(&runtime);
        let before = self.0.runtime.swap(Some(Arc::new(runtime)));
        self.0.changed.send_modify(|generation| *generation += 1);
        before
    }

    /// What keeps the credentials of published runtimes fresh.
    pub fn credentials(&self) -> &Keeper {
        &self.0.credentials
    }

    /// How the stream is by which a controller configures this.
    pub fn pushed(&self) -> &Pushed {
        &self.0.pushed
    }

    /// Waits for the credentials of a runtime that is about to be published, for a few seconds at most: a change must not refuse
    /// requests for want of what is on its way.
    pub async fn prepare(&self, runtime: &Runtime) {
        self.0.credentials.ready(runtime, FETCH).await;
    }

    /// As [`Slot::prepare`], for the runtime in force.
    pub async fn ready(&self) {
        if let Some(runtime) = self.load() {
            self.prepare(&runtime).await;
        }
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
    pub fn changes(&self) -> channel::Receiver<u64> {
        self.0.changed.subscribe()
    }
}

/// Why a configuration is not in force.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("{path}: {error}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// The index of a bundle is none.
    #[error("{path}: {error}", path = path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The reason, with line and column where there are any.
        error: String,
    },
    /// The parts of a bundle do not belong together: it is being written, perhaps.
    #[error("{path}: {reason}; an update may be under way", path = path.display())]
    Torn {
        /// The bundle.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// It is no configuration.
    #[error("{name}: {error}")]
    Malformed {
        /// The file or bundle.
        name: String,
        /// The reason, with line and column.
        error: String,
    },
    /// It was written for another version of the processor.
    #[error(
        "{name}: the document is of version {version:?}, and this processor takes {accept:?} only; run the processor of \
         that version, or set AIGW_ACCEPT_VERSION={version} (or =* for any)",
        accept = accept.to_string()
    )]
    Version {
        /// The file or bundle.
        name: String,
        /// The document's version.
        version: String,
        /// What would be taken.
        accept: Accept,
    },
    /// Parts of it cannot be served, and its writer wants all or nothing.
    #[error("{name}: not taken, because of {count} of its parts:{list}", count = problems.len(), list = list(problems))]
    Rejected {
        /// The file or bundle.
        name: String,
        /// Each of them.
        problems: Vec<Problem>,
    },
}

impl SourceError {
    /// Whether time may heal it: a bundle of which not all has arrived.
    pub fn is_torn(&self) -> bool {
        matches!(self, Self::Torn { .. })
    }
}

fn list(problems: &[Problem]) -> String {
    const SHOWN: usize = 10;
    let mut text = String::new();
    for problem in problems.iter().take(SHOWN) {
        text.push_str(&format!("\n  {problem}"));
    }
    if problems.len() > SHOWN {
        text.push_str(&format!("\n  and {} more", problems.len() - SHOWN));
    }
    text
}

/// Where a configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// One file, YAML or JSON.
    File(PathBuf),
    /// A folder with `index.yaml` and the parts it names; see [`Index`].
    Bundle(PathBuf),
}

/// A place to read configurations from, and which of them are taken.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub location: Location,
    /// Whose documents are taken.
    pub accept: Accept,
}

/// What a source holds at one moment.
struct Content {
    bytes: Vec<u8>,
    /// Every file it was read from, as it was before.
    stamps: Vec<Stamp>,
}

impl Source {
    /// Reads the configuration as it is now. Blocks.
    pub fn read(&self) -> Result<Loaded, SourceError> {
        self.load(&self.content()?)
    }

    fn load(&self, content: &Content) -> Result<Loaded, SourceError> {
        let (Location::File(path) | Location::Bundle(path)) = &self.location;
        document::load(&path.display().to_string(), &content.bytes, &self.accept)
    }

    fn content(&self) -> Result<Content, SourceError> {
        match &self.location {
            Location::File(path) => {
                let stamps = vec![Stamp::of(path)];
                let bytes = read_file(path, u64::MAX).map_err(|error| unreadable(path, error))?;
                Ok(Content { bytes, stamps })
            }
            Location::Bundle(path) => {
                // A volume of Kubernetes is a folder of links into `..data`, itself a link that an update swaps. Behind it
                // everything belongs together.
                let data = path.join("..data");
                let link = Stamp::of(&data);
                let folder = if data.join(bundle::INDEX).exists() { data.canonicalize().ok() } else { None };
                let folder = folder.as_ref().unwrap_or(path);
                let mut content = read_bundle(path, folder)?;
                // What is behind the link does not change any more, but where the link leads.
                if folder != path {
                    content.stamps.push(link);
                }
                Ok(content)
            }
        }
    }
}

fn unreadable(path: &Path, error: io::Error) -> SourceError {
    SourceError::Unreadable { path: path.to_owned(), error }
}

/// Reads the bundle that `name` names, from `folder`.
fn read_bundle(name: &Path, folder: &Path) -> Result<Content, SourceError> {
    let path = folder.join(bundle::INDEX);
    let mut stamps = vec![Stamp::of(&path)];
    let text = read_file(&path, bundle::MAX_INDEX).map_err(|error| unreadable(&path, error))?;
    let wrong = |error: String| SourceError::Index { path: path.clone(), error };
    let text = String::from_utf8(text).map_err(|error| wrong(error.to_string()))?;
    let index = Index::parse(&text).map_err(wrong)?;
    let torn = |reason: String| SourceError::Torn { path: name.to_owned(), reason };
    let mut bytes = Vec::new();
    let mut sizes = Vec::new();
    for part in &index.parts {
        let Some(path) = part.file().map(|file| folder.join(file)) else { continue };
        stamps.push(Stamp::of(&path));
        match read_file(&path, u64::MAX) {
            Ok(slice) => {
                let fits = part.size_bytes.is_none_or(|size| size == slice.len() as u64);
                sizes.extend((!fits).then(|| part.path.clone()));
                bytes.extend(slice);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(torn(format!("the part {} is missing", part.path)));
            }
            Err(error) => return Err(unreadable(&path, error)),
        }
    }
    if !index.fits(&bytes) {
        let sizes = match sizes.as_slice() {
            [] => String::new(),
            sizes => format!(" (the size of {} is not what the index says)", sizes.join(", ")),
        };
        return Err(torn(format!("checksum mismatch between the index and the parts{sizes}")));
    }
    Ok(Content { bytes, stamps })
}

/// The content of a file, which may not be a pipe that never ends, nor longer than `limit`.
fn read_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    Ok(content)
}
