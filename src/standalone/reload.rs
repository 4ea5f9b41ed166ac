//! Follows the user's files: a change comes into force in Envoy and in the processor without a moment at which the two
//! disagree.
//!
//! Envoy first gets the new routes and clusters *beside* the old ones; requests signed for either find theirs, since every
//! route demands a routing key of its own. Then the processor changes over. The old ones go once no request needs them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::compile::{CompileOptions, Compiled, EnvoyConfig};
use crate::resources::Memory;
use crate::resources::load::Stamp;
use crate::runtime::Runtime;
use crate::server::Listen;
use crate::source::Slot;
use crate::testbackend;

use super::admin::Admin;
use super::edition::{Attempt, Edition};
use super::input::{Inputs, tell};
use super::xds::{Xds, XdsError};
use super::{LOG, ports};

/// How often the files are looked at. A change counts once the files look the same twice: an editor may be half-way through.
const POLL: Duration = Duration::from_millis(50);

/// How long after a change the old routes go, at the earliest: the next change may be on its way.
const QUIET: Duration = Duration::from_secs(1);

/// Everything a change needs.
pub(super) struct Reloader {
    pub(super) inputs: Inputs,
    pub(super) memory: Memory,
    pub(super) options: CompileOptions,
    pub(super) edition: Edition,
    pub(super) xds: Xds,
    pub(super) admin: Admin,
    pub(super) slot: Slot,
    pub(super) backends: Vec<(std::path::PathBuf, testbackend::Handle)>,
    /// What Envoy holds: the edition's, and what is left of earlier ones.
    pub(super) held: EnvoyConfig,
    /// Runtimes that requests may still be signed with.
    pub(super) earlier: Vec<Arc<Runtime>>,
    pub(super) seen: Vec<Stamp>,
}

/// Why a change is not in force.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Port(#[from] super::PortError),
    #[error(transparent)]
    Envoy(#[from] XdsError),
    #[error("{0}")]
    Backend(std::io::Error),
}

impl Reloader {
    /// Follows the files for as long as it is polled.
    pub(super) async fn follow(&mut self) {
        let mut changed_at = Instant::now();
        let mut stamps = self.inputs.stamps();
        loop {
            sleep(POLL).await;
            let now = std::mem::replace(&mut stamps, self.inputs.stamps());
            if stamps != self.seen && stamps == now {
                self.seen.clone_from(&stamps);
                self.reload().await;
                changed_at = Instant::now();
            }
            if changed_at.elapsed() > QUIET {
                self.tidy().await;
            }
        }
    }

    async fn reload(&mut self) {
        // A burst of edits leaves no time to tidy up, and must not keep an edition for each of them.
        self.earlier.retain(|runtime| runtime.is_in_use());
        let started = Instant::now();
        let (sources, unread) = self.inputs.read();
        let Attempt { edition, findings, kept } =
            self.edition.next(sources, unread, &self.options, &mut self.memory);
        if let Err(error) = tell(findings) {
            tracing::warn!(target: LOG, "what was found in the files could not be told: {error}");
        }
        if let Some(kept) = kept {
            tracing::error!(target: LOG, "{kept}");
        }
        let Some(edition) = edition else { return };
        match self.change_over(&edition.compiled).await {
            Ok(()) => {
                self.edition = edition;
                let generation = self.slot.generation();
                let took = started.elapsed().as_millis();
                tracing::info!(target: LOG, "the changed files are in force as generation {generation}, after {took} ms");
            }
            Err(error) => tracing::error!(target: LOG, "the configuration stays as it was: {error}"),
        }
    }

    async fn change_over(&mut self, new: &Compiled) -> Result<(), Failure> {
        let old = &self.edition.compiled;
        for listener in &new.listeners {
            let known =
                old.listeners.iter().any(|known| known.id == listener.id && known.port == listener.port);
            if !known {
                let purpose = format!("listener \"{}\"", listener.name);
                let option = format!("--listen {}=PORT", listener.name);
                ports::check(self.options.listen_address, listener.port, &purpose, &option)?;
            }
        }
        for embedded in &new.embedded_backends {
            if !self.backends.iter().any(|(socket, _)| *socket == embedded.socket) {
                let started = testbackend::start(
                    Listen::Unix(embedded.socket.clone()),
                    super::backend_options(embedded),
                );
                self.backends.push((embedded.socket.clone(), started.await.map_err(Failure::Backend)?));
            }
        }
        let union = new.envoy.with_rest_of(&self.held);
        if let Err(error) = self.xds.apply(&union, &self.admin).await {
            // Envoy may have taken a part of it.
            if let Err(again) = self.xds.apply(&self.held, &self.admin).await {
                tracing::error!(target: LOG, "Envoy could not be put back either: {again}");
            }
            return Err(error.into());
        }
        self.held = union;
        let (runtime, problems) = Runtime::new(new.config.clone());
        for problem in &problems {
            tracing::error!(target: LOG, "{problem}");
        }
        // Until then the old runtime serves, with its own credentials.
        self.slot.prepare(&runtime).await;
        self.earlier.extend(self.slot.publish(runtime));
        Ok(())
    }

    /// Takes back what no request needs any more.
    async fn tidy(&mut self) {
        self.earlier.retain(|runtime| runtime.is_in_use());
        if !self.earlier.is_empty() || self.held == self.edition.compiled.envoy {
            return;
        }
        match self.xds.apply(&self.edition.compiled.envoy, &self.admin).await {
            Ok(()) => self.held = self.edition.compiled.envoy.clone(),
            Err(error) => {
                tracing::warn!(target: LOG, "old routes are still known to Envoy: {error}");
                return;
            }
        }
        let needed = |socket: &std::path::PathBuf| {
            self.edition.compiled.embedded_backends.iter().any(|embedded| embedded.socket == *socket)
        };
        let (kept, gone) =
            std::mem::take(&mut self.backends).into_iter().partition(|(socket, _)| needed(socket));
        self.backends = kept;
        for (_, backend) in gone {
            backend.shutdown().await;
        }
    }
}
