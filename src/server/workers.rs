//! The threads that serve gRPC. Each has a runtime of its own, and a connection stays with the thread it was given to.
//!
//! An exchange is a few microseconds of work at each message. On one runtime of several threads, handing connection and
//! streams from thread to thread cost more than that work. Envoy opens a connection for each of its own threads, so that
//! the work is spread all the same.

use std::io;
use std::sync::Arc;
use std::thread;

use futures_util::stream;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower::util::MapRequestLayer;

use super::cut::{Cuttable, Lease};
use super::health::Health;
use super::listen::{Stream, Unbound};
use crate::extproc::{self, Authority};
use crate::proto::ext_proc::external_processor_server::ExternalProcessorServer;
use crate::proto::health::health_server::HealthServer;

/// What every thread serves.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) processor: extproc::Service,
    pub(super) health: Health,
    /// Ends the connections once nothing is under way on them.
    pub(super) stop: CancellationToken,
    /// Ends the connections at once.
    pub(super) cut: CancellationToken,
}

/// All the threads. Dropping it ends each once its connections have ended.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

#[derive(Debug)]
struct Worker {
    connections: mpsc::UnboundedSender<Connection>,
    /// Every connection of this thread holds a clone.
    lease: Lease,
    /// Its other side is dropped when the thread has ended.
    ended: oneshot::Receiver<()>,
}

/// A connection on its way to a thread.
#[derive(Debug)]
struct Connection {
    stream: Unbound,
    lease: Lease,
}

impl Workers {
    /// Starts a thread for each core. Fails if the system gives none.
    pub(super) fn start(services: &Services) -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        (0..count).map(|index| Worker::start(index, services.clone())).collect::<io::Result<_>>().map(Self)
    }

    /// Gives a connection to the thread that has the fewest.
    pub(super) fn take(&self, stream: Stream) -> io::Result<()> {
        let Some(worker) = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.lease)) else {
            return Ok(());
        };
        let connection = Connection { stream: stream.unbind()?, lease: Arc::clone(&worker.lease) };
        // A thread is gone only when everything is told to end.
        let _ = worker.connections.send(connection);
        Ok(())
    }

    /// Takes no more connections, and returns when all threads have ended.
    pub(super) async fn join(self) {
        for Worker { connections, ended, .. } in self.0 {
            drop(connections);
            // The error is the signal.
            let _ = ended.await;
        }
    }
}

impl Worker {
    fn start(index: usize, services: Services) -> io::Result<Self> {
        let (connections, queue) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("extproc-{index}")).spawn(move || {
            runtime.block_on(serve(queue, services));
            // What is left on it is settled before anybody hears of the end.
            drop(runtime);
            drop::<oneshot::Sender<()>>(end);
        })?;
        Ok(Self { connections, lease: Lease::default(), ended })
    }
}

async fn serve(queue: mpsc::UnboundedReceiver<Connection>, services: Services) {
    let Services { processor, health, stop, cut } = services;
    let incoming = stream::unfold((queue, cut), |(mut queue, cut)| async move {
        let Connection { stream, lease } = queue.recv().await?;
        let connection = stream.bind().map(|stream| Cuttable::new(stream, cut.clone(), lease));
        Some((connection, (queue, cut)))
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
        .layer(MapRequestLayer::new(keep_authority))
        .add_service(processor)
        .add_service(HealthServer::new(health))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC server failed");
    }
}

/// tonic does not show services the `:authority`, which names the gateway.
fn keep_authority<B>(mut request: http::Request<B>) -> http::Request<B> {
    if let Some(authority) = request.uri().authority() {
        let authority = Authority(authority.clone());
        request.extensions_mut().insert(authority);
    }
    request
}
