//! What processors are told: one configuration for each Gateway, of growing generations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::identity::{Shown, shown};
use super::status::Replicas;
use super::store::Store;
use crate::config::Revealed;
use crate::push::{Edition, Publisher, Tls};
use crate::server::listen::Listener;

/// The stream to the processors.
pub(super) struct Feed {
    publisher: Publisher,
    progress: watch::Receiver<u64>,
    generations: BTreeMap<String, u64>,
    last: u64,
    serving: bool,
}

impl Feed {
    pub(super) fn new(publisher: Publisher) -> Self {
        let progress = publisher.changes();
        Self { publisher, progress, generations: BTreeMap::new(), last: 0, serving: false }
    }

    /// Puts a configuration in the place of the Gateway's last one.
    pub(super) fn publish(&mut self, gateway: &str, document: &Revealed) {
        let generation = next_generation(self.last, SystemTime::now());
        let bytes = document.bytes().len();
        let edition = Edition { generation, document: Bytes::from_owner(Document(document.clone())) };
        match self.publisher.publish(gateway, edition) {
            Ok(()) => {
                self.last = generation;
                self.generations.insert(gateway.to_owned(), generation);
                tracing::info!(gateway, generation, bytes, "published");
            }
            Err(error) => tracing::error!(gateway, %error, "not published; what was before stays"),
        }
    }

    /// The Gateway is served no longer.
    pub(super) fn withdraw(&mut self, gateway: &str) {
        self.generations.remove(gateway);
        self.publisher.withdraw(gateway);
        tracing::info!(gateway, "withdrawn");
    }

    /// Whether processors are told anything.
    pub(super) fn serve(&mut self, serving: bool) {
        match (std::mem::replace(&mut self.serving, serving), serving) {
            (false, true) => self.publisher.start(),
            (true, false) => self.publisher.stop(),
            _ => {}
        }
    }

    /// The generation that was published last.
    pub(super) fn generation(&self, gateway: &str) -> Option<u64> {
        self.generations.get(gateway).copied()
    }

    /// Whether all processors of a Gateway, at least one, run what was published last.
    pub(super) fn in_force(&self, gateway: &str) -> bool {
        let Replicas { current, behind, .. } = self.replicas(gateway);
        current > 0 && behind == 0
    }

    /// The processors of a Gateway.
    pub(super) fn replicas(&self, gateway: &str) -> Replicas {
        let Some(generation) = self.generation(gateway) else { return Replicas::default() };
        let taken = self.publisher.standing(gateway, generation);
        let refused = taken
            .refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.replica, refusal.problems.join("; ")));
        Replicas {
            current: taken.in_force.len(),
            behind: taken.refused.len() + taken.waiting.len(),
            refused: refused.collect(),
        }
    }

    /// Resolves when a processor has come, gone, or said something.
    pub(super) async fn changed(&mut self) {
        if self.progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A document as it is sent: in memory that is overwritten when the last who sends it is done.
struct Document(Revealed);

impl AsRef<[u8]> for Document {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Serves processors once there are certificates, and shows the new ones when there are, until `stop`.
pub(super) async fn serve(
    (publisher, listener): (Publisher, Listener),
    store: Arc<Store>,
    namespace: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut changes = store.changes();
    let (mut version, tls) = loop {
        if let Some((version, Shown { chain, key, authorities })) = shown(&store.view_quietly(), &namespace) {
            match Tls::new(&chain, &key, &authorities) {
                Ok(tls) => break (version, tls),
                Err(error) => tracing::error!(%error, "the certificates of the controller cannot be used"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = changes.changed() => {}
        }
    };
    let renew = async {
        loop {
            // The sender lives as long as the store, which is held here.
            let _ = changes.changed().await;
            let Some((newest, Shown { chain, key, authorities })) = shown(&store.view_quietly(), &namespace)
            else {
                continue;
            };
            if newest != version {
                match tls.replace(&chain, &key, &authorities) {
                    Ok(()) => tracing::info!("the controller shows a new certificate"),
                    Err(error) => {
                        tracing::error!(%error, "the new certificates cannot be used; the old ones stay")
                    }
                }
                version = newest;
            }
        }
    };
    tracing::info!(listen = %listener.local(), "processors may fetch their configurations");
    tokio::select! {
        served = publisher.serve(listener, tls.clone(), stop.cancelled()) => Ok(served?),
        () = renew => Ok(()),
    }
}

/// Later than the last one, and than those of a controller that ran before, unless the clock was set back since; in that case
/// processors are told all the same.
fn next_generation(last: u64, now: SystemTime) -> u64 {
    let millis = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    millis.max(last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn generations_grow_over_restarts_and_with_a_clock_that_is_set_back() {
        let now = UNIX_EPOCH + Duration::from_millis(1000);
        assert_eq!(next_generation(0, now), 1000);
        assert_eq!(next_generation(1000, now), 1001);
        assert_eq!(next_generation(1001, UNIX_EPOCH), 1002);
    }
}
