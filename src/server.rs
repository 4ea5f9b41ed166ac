//! L4. The processor as a running server: the gRPC listener, health, the admin listener, draining.

mod admin;
mod cut;
mod health;
pub mod listen;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower::util::MapRequestLayer;

use self::cut::Cuttable;
pub use self::health::Health;
pub use self::listen::Listen;
use self::listen::{Listener, Stream};
use crate::extproc::{self, ActiveExchanges, Authority};
use crate::headers::HeaderAttributes;
use crate::proto::ext_proc::external_processor_server::ExternalProcessorServer;
use crate::proto::health::health_server::HealthServer;
use crate::source::Slot;
use crate::telemetry::{Metrics, log_settlement};

/// What a processor is started with.
#[derive(Debug)]
pub struct ProcessorOptions {
    /// Where Envoy connects.
    pub listen: Listen,
    /// Where `/health`, `/metrics` and `/config` are served, if at all.
    pub admin: Option<Listen>,
    /// The runtime it serves, now and after every change.
    pub slot: Slot,
    /// Which request headers are told in telemetry.
    pub attributes: HeaderAttributes,
}

/// A running processor. Dropping it stops it at once; [`Processor::shutdown`] lets exchanges end first.
#[derive(Debug)]
pub struct Processor {
    listen: Listen,
    admin: Option<Listen>,
    active: ActiveExchanges,
    health: Health,
    stop: CancellationToken,
    cut: CancellationToken,
    grpc: JoinHandle<()>,
    settling: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Processor {
    /// Opens the listeners and serves on them. Fails, naming the address, if one cannot be opened; then none is.
    pub fn start(options: ProcessorOptions) -> anyhow::Result<Self> {
        let ProcessorOptions { listen, admin, slot, attributes } = options;
        let listener = listen.bind()?;
        let admin_listener = admin.map(|admin| admin.bind()).transpose()?;
        let (settler, mut settlements) = extproc::settler();
        let active = settler.active();
        let metrics = Arc::new(Metrics::new(active.clone())?);
        let health = Health::new(slot.load().is_some());
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());

        let listen = listener.local().clone();
        let admin = admin_listener.as_ref().map(|listener| listener.local().clone());
        let mut others = vec![spawn(follow_slot(slot.clone(), health.clone()))];
        if let Some(listener) = admin_listener {
            others.push(spawn(admin::serve(listener, health.clone(), Arc::clone(&metrics), slot.clone())));
        }
        let processor = extproc::Service::new(slot, attributes, settler);
        let grpc = spawn(serve_grpc(listener, processor, health.clone(), stop.clone(), cut.clone()));
        let settling = spawn(async move {
            while let Some(settlement) = settlements.recv().await {
                metrics.record(&settlement);
                log_settlement(&settlement);
            }
            // The last export may wait for a collector that is away.
            let _ = tokio::task::spawn_blocking(move || metrics.shutdown()).await;
        });
        Ok(Self { listen, admin, active, health, stop, cut, grpc, settling, others })
    }

    /// Where Envoy connects, with the real port where 0 was asked for.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Where the admin listener is, if there is one.
    pub fn admin(&self) -> Option<&Listen> {
        self.admin.as_ref()
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
        self.begin_drain();
        let Self { stop, cut, mut grpc, settling, others, .. } = self;
        stop.cancel();
        if tokio::time::timeout(grace, &mut grpc).await.is_err() {
            // Each connection drops its streams, each stream its guard, and the last guard closes the queue.
            cut.cancel();
            // A panic in there was reported when it happened.
            let _ = grpc.await;
        }
        if tokio::time::timeout(Duration::from_secs(5), settling).await.is_err() {
            tracing::error!("settlements were left behind at shutdown");
        }
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

async fn serve_grpc(
    listener: Listener,
    processor: extproc::Service,
    health: Health,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let incoming = stream::unfold((listener, cut), |(listener, cut)| async move {
        let connection = Cuttable::new(accept(&listener).await, cut.clone());
        Some((Ok::<_, io::Error>(connection), (listener, cut)))
    });
    let processor = ExternalProcessorServer::new(processor)
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    let served = Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        // Envoy opens one stream for each request in flight: a limit here would queue requests.
        .max_concurrent_streams(u32::MAX)
        // Clients may leave in crowds; Envoy then resets as many streams, which is no attack.
        .http2_max_pending_accept_reset_streams(Some(1 << 20))
        .tcp_nodelay(true)
        .layer(MapRequestLayer::new(keep_authority))
        .add_service(processor)
        .add_service(HealthServer::new(health))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server failed");
    }
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

/// tonic does not show services the `:authority`, which names the gateway.
fn keep_authority<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Some(authority) = request.uri().authority() {
        let authority = Authority(authority.as_str().to_owned());
        request.extensions_mut().insert(authority);
    }
    request
}
