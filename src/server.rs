//! L4. The processor as a running server: the gRPC listener, health, the admin listener, draining.

mod admin;
mod cut;
mod health;
mod keys;
pub mod listen;
mod mcp;
mod quotas;
pub mod tls;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

#[cfg(feature = "controller")]
pub(crate) use self::admin::scraped;
pub use self::health::Health;
pub use self::keys::KeyOptions;
use self::keys::Keys;
pub use self::listen::Listen;
use self::listen::{Listener, Stream};
pub use self::quotas::QuotaOptions;
use self::workers::{Services, Workers};
use crate::credentials;
use crate::exchange::{Settings, Settlement};
use crate::extproc::{self, ActiveExchanges};
use crate::source::Slot;
use crate::telemetry::{Metrics, log_settlement, written_together};

/// What a processor is started with.
#[derive(Debug)]
pub struct ProcessorOptions {
    /// Where Envoy connects.
    pub listen: Listen,
    /// Where `/health`, `/metrics` and `/config` are served, if at all.
    pub admin: Option<Listen>,
    /// Where tools are to be served by the Model Context Protocol, if at all.
    pub mcp: Option<Listen>,
    /// The runtime it serves, now and after every change.
    pub slot: Slot,
    /// The paths it serves, and which request headers are told in telemetry.
    pub settings: Settings,
    /// How long a message of Envoy may be, in bytes. Envoy limits bodies itself.
    pub max_message: usize,
    /// What probes are told.
    pub habits: Habits,
    /// Where the gateway's own keys come from, if there are any.
    pub keys: KeyOptions,
    /// Where quotas are kept.
    pub quotas: QuotaOptions,
}

impl ProcessorOptions {
    /// Serves `slot` to Envoy and nothing to anybody else, with every setting at its default.
    pub fn new(listen: Listen, slot: Slot) -> Self {
        Self {
            listen,
            admin: None,
            mcp: None,
            slot,
            settings: Settings::default(),
            max_message: usize::MAX,
            habits: Habits::Own,
            keys: KeyOptions::default(),
            quotas: QuotaOptions::default(),
        }
    }
}

/// What probes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Habits {
    /// The truth: not serving until there is a configuration, nor while draining. `/config` shows what is in force.
    #[default]
    Own,
    /// As the Go processor: serving from the first moment to the last, whatever the service's name; nothing can be watched.
    /// The admin listener has `/health` and `/metrics` only.
    Go,
}

/// A running processor. Dropping it stops it at once; [`Processor::shutdown`] lets exchanges end first.
#[derive(Debug)]
pub struct Processor {
    listen: Listen,
    admin: Option<Listen>,
    key_admin: Option<Listen>,
    active: ActiveExchanges,
    health: Health,
    // Dropped with the processor, they end what its threads serve.
    stop: DropGuard,
    cut: DropGuard,
    grpc: JoinHandle<()>,
    settling: JoinHandle<()>,
    keeping: JoinHandle<()>,
    settled: DropGuard,
    others: Vec<JoinHandle<()>>,
}

impl Processor {
    /// Opens the listeners and serves on them. Fails, naming the address, if one cannot be opened; then none is.
    pub fn start(options: ProcessorOptions) -> anyhow::Result<Self> {
        let ProcessorOptions { listen, admin, mcp, slot, mut settings, max_message, habits, keys, quotas } =
            options;
        let keys = Keys::open(keys)?;
        let (desk, keeping) = quotas::open(quotas)?;
        let listener = listen.bind()?;
        let admin_listener = admin.map(|admin| admin.bind()).transpose()?;
        let mcp_listener = mcp.map(|mcp| mcp.bind()).transpose()?;
        let (settler, settlements) = extproc::settler(desk.clone());
        let active = settler.active();
        let index = keys.as_ref().map(|keys| Arc::clone(&keys.index));
        let metrics = Metrics::new(active.clone(), slot.credentials().clone(), index.clone(), desk.clone())?;
        metrics.observe_pushed(slot.pushed());
        let metrics = Arc::new(metrics);
        metrics.observe_quotas(&desk);
        let health = Health::new(slot.load().is_some(), habits);
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());

        let listen = listener.local().clone();
        let admin = admin_listener.as_ref().map(|listener| listener.local().clone());
        let keeper = slot.credentials().clone();
        let (admin_keeper, pushed) = (keeper.clone(), slot.pushed().clone());
        let mut others =
            vec![spawn(follow_slot(slot.clone(), health.clone())), spawn(credentials::keep(keeper))];
        // Told to end after the last exchange is settled.
        let settled = CancellationToken::new();
        let keeping = spawn(keeping.run(settled.clone()));
        let shown = (habits == Habits::Own).then(|| slot.clone());
        if let Some(listener) = admin_listener {
            others.push(spawn(admin::serve(
                listener,
                health.clone(),
                Arc::clone(&metrics),
                (admin_keeper, index, pushed),
                shown,
            )));
        }
        let key_admin = keys.as_ref().and_then(Keys::listen);
        if let Some(keys) = keys {
            settings.keys = Some(Arc::clone(&keys.index));
            settings.keys_by_policy = keys.by_policy;
            others.push(spawn(keys.run()));
        }
        if let Some(listener) = mcp_listener {
            others.push(spawn(mcp::serve(listener)));
        }
        let processor = extproc::Service::new(slot, settings, settler, random()?, max_message);
        let services = Services { processor, health: health.clone(), stop: stop.clone(), cut: cut.clone() };
        let workers = Workers::start(&services)?;
        let grpc = spawn(serve_grpc(listener, workers, stop.clone()));
        let settling = spawn(settle(settlements, metrics));
        let (stop, cut, settled) = (stop.drop_guard(), cut.drop_guard(), settled.drop_guard());
        Ok(Self {
            listen,
            admin,
            key_admin,
            active,
            health,
            stop,
            cut,
            grpc,
            settling,
            keeping,
            settled,
            others,
        })
    }

    /// Where Envoy connects, with the real port where 0 was asked for.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Where the admin listener is, if there is one.
    pub fn admin(&self) -> Option<&Listen> {
        self.admin.as_ref()
    }

    /// Where keys are managed, if anywhere.
    pub fn key_admin(&self) -> Option<&Listen> {
        self.key_admin.as_ref()
    }

    /// Exchanges that are not over.
    pub fn active(&self) -> &ActiveExchanges {
        &self.active
    }

    /// Tells health checks that no new work is wanted, and goes on serving.
    pub fn begin_drain(&self) {
        self.health.drain();
    }

    /// Stops taking connections, waits up to `grace` for exchanges to end, cuts the rest off (Envoy fails those requests) and
    /// settles every one.
    pub async fn shutdown(self, grace: Duration) {
        self.shutdown_unless(tokio::time::sleep(grace)).await;
    }

    /// As [`Processor::shutdown`], waiting for exchanges to end until `enough` resolves.
    pub async fn shutdown_unless(self, enough: impl Future<Output = ()>) {
        self.begin_drain();
        let Self { stop, cut, mut grpc, settling, keeping, settled, others, .. } = self;
        drop(stop);
        let ended = tokio::select! {
            biased;
            _ = &mut grpc => true,
            () = enough => false,
        };
        if !ended {
            // Each connection drops its streams, each stream its guard, and the last guard closes the queue.
            drop(cut);
            // A panic in there was reported when it happened.
            let _ = grpc.await;
        }
        if tokio::time::timeout(Duration::from_secs(5), settling).await.is_err() {
            tracing::error!("settlements were left behind at shutdown");
        }
        drop(settled);
        // It ends in its time, and reports what it could not do.
        let _ = keeping.await;
        for task in others {
            task.abort();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the server owns these tasks and ends them in `shutdown`")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}

/// Keeps health in step with the slot.
async fn follow_slot(slot: Slot, health: Health) {
    let mut changes = slot.changes();
    loop {
        if slot.load().is_some() {
            health.configured();
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// How long settlements gather before they are worked off. Waking the settler for each one would cost the thread that
/// serves the exchange more than the exchange itself.
const SETTLE_EVERY: Duration = Duration::from_millis(20);

async fn settle(mut settlements: UnboundedReceiver<Settlement>, metrics: Arc<Metrics>) {
    let mut batch = Vec::new();
    while settlements.recv_many(&mut batch, usize::MAX).await > 0 {
        written_together(|| {
            for settlement in batch.drain(..) {
                metrics.record(&settlement);
                log_settlement(&settlement);
            }
        });
        if !settlements.is_closed() {
            tokio::time::sleep(SETTLE_EVERY).await;
        }
    }
    // The last export may wait for a collector that is away.
    let _ = tokio::task::spawn_blocking(move || metrics.shutdown()).await;
}

/// Hands every connection to one of the workers, until told to stop; returns when they have ended.
async fn serve_grpc(listener: Listener, workers: Workers, stop: CancellationToken) {
    while let Some(connection) = stop.run_until_cancelled(accept(&listener)).await {
        if let Err(error) = workers.take(connection) {
            tracing::warn!(%error, "a connection could not be served");
        }
    }
    drop(listener);
    workers.join().await;
}

/// The next connection; errors that concern one connection, or too many open files, are waited out.
async fn accept(listener: &Listener) -> Stream {
    loop {
        match listener.accept().await {
            Ok(connection) => return connection,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A number that no other process has.
fn random() -> anyhow::Result<u64> {
    let number = ring::rand::generate::<[u8; 8]>(&ring::rand::SystemRandom::new());
    let number = number.map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    Ok(u64::from_ne_bytes(number.expose()))
}
