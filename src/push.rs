//! L5. The control plane's end of the stream by which processors are configured.
//!
//! ```text
//! controller ─► Publisher::publish ─► Ledger ─► a session for each processor ─► Edition, Parts
//!               Publisher::taken   ◄─ Ledger ◄─ Verdict ◄──────────────────────┘
//! ```
//!
//! A session asks the ledger what its processor is to be told next whenever there is room to send it. So nobody waits for a
//! processor that is slow or gone, and who was slow is told of the latest edition only.

pub mod certificates;
mod grant;
mod ledger;
mod serve;
mod session;
mod tls;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::watch;

pub use self::grant::{Grant, InvalidGrant};
use self::ledger::{Ledger, Stored};
pub use self::tls::{Tls, TlsError};
use crate::config::Revealed;
use crate::source::protocol::{MAX_DOCUMENT, Sha256, is_gateway};

/// A Gateway's configuration at one time.
#[derive(Clone)]
pub struct Edition {
    /// Counts up with every edition of a Gateway.
    pub generation: u64,
    /// The document, with its secrets, as `source` reads it. It has the Gateway's `namespace/name` and no other's.
    pub document: Bytes,
}

impl Edition {
    /// What a Gateway's configuration is from that generation on.
    pub fn new(generation: u64, document: Revealed) -> Self {
        Self { generation, document: Bytes::from_owner(Owned(document)) }
    }
}

/// Memory that is overwritten when the last who sends it is done.
struct Owned(Revealed);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// The length of the document only.
impl fmt::Debug for Edition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, document } = self;
        f.debug_struct("Edition").field("generation", generation).field("bytes", &document.len()).finish()
    }
}

/// Why an edition is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It is too long.
    #[error("the configuration of {gateway} is {size} bytes long; at most {MAX_DOCUMENT} can be sent")]
    TooLong {
        /// Of which Gateway it is.
        gateway: String,
        /// Its length.
        size: usize,
    },
    /// It has no name.
    #[error("{0:?} is no Gateway's namespace/name")]
    NoGateway(String),
}

/// An edition at a processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// `namespace/name`.
    pub gateway: Arc<str>,
    /// Which edition.
    pub generation: u64,
    /// What of it is not served, or why all of it is not.
    pub problems: Vec<String>,
}

/// A processor that is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// What it calls itself: the name of its pod.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Since when it is connected.
    pub since: SystemTime,
    /// What it has in force, in order of the Gateways.
    pub running: Vec<Running>,
    /// What it was sent and could not use.
    pub refused: Vec<Running>,
}

/// A processor that cannot use an edition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which processor.
    pub replica: String,
    /// Why.
    pub problems: Vec<String>,
}

/// How far the processors that serve a Gateway are with an edition. Those that are not connected are in no list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// They have it in force, or a later one.
    pub in_force: Vec<String>,
    /// They cannot use it, and go on with what they had.
    pub refused: Vec<Refusal>,
    /// They have not said.
    pub waiting: Vec<String>,
}

impl Taken {
    /// Whether every processor has said what became of it, and there is one.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty() && !(self.in_force.is_empty() && self.refused.is_empty())
    }
}

/// Everything that processors are to have, and who has what. Clones are handles to the same.
#[derive(Clone, Default)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    ledger: Mutex<Ledger>,
    /// Something is to be told.
    news: watch::Sender<u64>,
    /// Somebody came, left or said something.
    progress: watch::Sender<u64>,
}

impl Default for Shared {
    fn default() -> Self {
        Self { ledger: Mutex::default(), news: watch::Sender::new(0), progress: watch::Sender::new(0) }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// A Gateway's configuration from now on. Waits for nobody. The generation has to be above those before, unless the document is the
    /// same; a publisher begins where it likes.
    ///
    /// # Errors
    /// A document that is too long, or a name that is none; then the edition before stays.
    pub fn publish(&self, gateway: &str, edition: Edition) -> Result<(), PublishError> {
        let Edition { generation, document } = edition;
        if !is_gateway(gateway) {
            return Err(PublishError::NoGateway(gateway.to_owned()));
        }
        if document.is_empty() || document.len() > MAX_DOCUMENT {
            return Err(PublishError::TooLong { gateway: gateway.to_owned(), size: document.len() });
        }
        let sha256 = Sha256::of(&document);
        self.ledger().publish(Stored { gateway: gateway.into(), generation, sha256, document });
        self.0.news.send_modify(|count| *count += 1);
        self.0.progress.send_modify(|count| *count += 1);
        Ok(())
    }

    /// A Gateway is served no longer.
    pub fn withdraw(&self, gateway: &str) {
        if self.ledger().withdraw(gateway) {
            self.0.news.send_modify(|count| *count += 1);
            self.0.progress.send_modify(|count| *count += 1);
        }
    }

    /// Everything that there is has been published: from now on processors are told, and what they have beyond it is withdrawn
    /// from them. Before, they are sent away and come again, with what they have still in force.
    pub fn start(&self) {
        self.ledger().serve(true);
        self.0.news.send_modify(|count| *count += 1);
    }

    /// Sends everybody away, for another controller to serve them. What was published is kept.
    pub fn stop(&self) {
        self.ledger().serve(false);
        self.0.news.send_modify(|count| *count += 1);
        self.0.progress.send_modify(|count| *count += 1);
    }

    /// Waits until every processor that is connected and serves the Gateway has that generation, or a later one, in force or has
    /// refused it: for `bound` at most, which is how long it takes if there is no such processor.
    pub async fn taken(&self, gateway: &str, generation: u64, bound: Duration) -> Taken {
        let mut progress = self.0.progress.subscribe();
        let settled = async {
            loop {
                progress.borrow_and_update();
                if self.ledger().taken(gateway, generation).is_settled() || progress.changed().await.is_err()
                {
                    return;
                }
            }
        };
        // What there is then is the answer, too.
        let _ = tokio::time::timeout(bound, settled).await;
        self.ledger().taken(gateway, generation)
    }

    /// As [`Publisher::taken`], at this moment.
    pub fn standing(&self, gateway: &str, generation: u64) -> Taken {
        self.ledger().taken(gateway, generation)
    }

    /// Everybody who is connected, by name.
    pub fn replicas(&self) -> Vec<Replica> {
        self.ledger().replicas()
    }

    /// Whether a processor is connected that serves that Gateway.
    pub fn is_followed(&self, gateway: &str) -> bool {
        self.ledger().is_followed(gateway)
    }

    /// Resolves whenever what [`Publisher::replicas`] says may be something else.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.progress.subscribe()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Each change is complete before anything can panic.
        self.0.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
