//! A secret that is renewed while requests use it.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;

use super::{AwsKeys, Secret, SignError, Source};

/// Holds what was fetched last. Requests read it without waiting; whoever fetches puts it there.
#[derive(Debug)]
pub struct Cell {
    source: Source,
    held: ArcSwapOption<Held>,
}

/// What was fetched, and how long it may be used.
#[derive(Debug, Clone)]
pub struct Held {
    /// What to sign with.
    pub secret: Secret,
    /// From then on it is of no use; absent: never.
    pub expires: Option<SystemTime>,
}

impl Held {
    /// What stands for a secret where nothing is sent.
    pub fn sample(source: &Source) -> Self {
        let keys = || AwsKeys::new("EXAMPLE", "EXAMPLE", None).map(Secret::Aws);
        let secret = match source {
            Source::AwsChain { .. } | Source::AwsRole { .. } => keys(),
            Source::GcpDefault | Source::GcpFile(_) | Source::GcpFederation { .. } | Source::Azure { .. } => {
                None
            }
        };
        Self { secret: secret.unwrap_or_else(|| Secret::Header("Bearer EXAMPLE".into())), expires: None }
    }
}

impl Cell {
    /// Empty, until something is fetched from `source`.
    pub fn new(source: Source) -> Self {
        Self { source, held: ArcSwapOption::empty() }
    }

    /// Where it is to be fetched from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Puts what was fetched into force.
    pub fn fill(&self, held: Arc<Held>) {
        self.held.store(Some(held));
    }

    /// Whether anything was ever put there.
    pub fn is_filled(&self) -> bool {
        self.held.load().is_some()
    }

    /// What may be used at `wall`. Never what has expired.
    pub fn load(&self, wall: SystemTime) -> Result<Arc<Held>, SignError> {
        let Some(held) = self.held.load_full() else {
            return Err(SignError::Unavailable(
                "none was fetched yet; the gateway's log says why".to_owned(),
            ));
        };
        if held.expires.is_some_and(|expires| expires <= wall) {
            let problem = "the last one has expired and could not be renewed; the gateway's log says why";
            return Err(SignError::Unavailable(problem.to_owned()));
        }
        Ok(held)
    }
}
