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
        error: String,
    },
}

/// Reads a configuration file (YAML or JSON). Problems of single items come with the runtime, which serves the others.
pub fn read(path: &Path) -> Result<(Runtime, Vec<Problem>), SourceError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| SourceError::Unreadable { path: path.to_owned(), error })?;
    let config = parse(&text).map_err(|error| SourceError::Malformed { path: path.to_owned(), error })?;
    Ok(Runtime::new(config))
}

/// A configuration is as large as what it configures, and its author is trusted: the parser's limits for strangers' documents do
/// not apply.
fn parse(text: &str) -> Result<Config, String> {
    if text.trim_start().starts_with('{') {
        // Most of YAML's cost is not needed for JSON, which large configurations are in.
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let options = serde_saphyr::options! { budget: None };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn document(models: usize) -> serde_json::Value {
        let headers =
            |index: usize| serde_json::json!([{"name": "x-ai-eg-model", "value": format!("m{index}")}]);
        let matches: Vec<_> =
            (0..models).map(|index| serde_json::json!({"headers": headers(index), "rule": 0})).collect();
        serde_json::json!({
            "backends": [{"name": "b"}],
            "gateways": [{
                "authority": "a", "name": "d/gw", "models": {},
                "hosts": [{"hostname": "*", "matches": matches}],
                "rules": [{"route": "d/r", "backend": "b", "routingKey": "k"}],
            }],
        })
    }

    #[test]
    fn large_documents_are_read_in_both_forms() {
        let document = document(20_000);
        for text in [document.to_string(), serde_saphyr::to_string(&document).unwrap()] {
            let config = parse(&text).unwrap();
            assert_eq!(config.gateways[0].hosts[0].matches.len(), 20_000);
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let text = document(1).to_string().replace("routingKey", "routingKye");
        for text in [
            text.clone(),
            serde_saphyr::to_string(&serde_json::from_str::<serde_json::Value>(&text).unwrap()).unwrap(),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains("routingKye") && error.contains("line"), "{error}");
        }
    }
}
