//! The threads that serve gRPC. Each has a runtime of its own, and a connection stays with the thread it was given to.
//!
//! An exchange is a few microseconds of work at each message. On one runtime of several threads, handing connection and
//! streams from thread to thread cost more than that work. Envoy opens a connection for each of its own threads, so that
//! the work is spread all the same.
//!
//! HTTP/2 is served by hyper itself rather than by tonic's server: with two services to choose from, its router and layers
//! are only work for every stream.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Builder;
use tokio::select;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::cut::{Cuttable, Lease};
use super::health::Health;
use super::listen::{Stream, Unbound};
use crate::extproc;
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

/// Serves connections as they come, until told to stop, and then those there are until nothing is under way on them.
async fn serve(mut queue: mpsc::UnboundedReceiver<Connection>, services: Services) {
    let (stop, cut) = (services.stop.clone(), services.cut.clone());
    let (processor, quotas) = services.processor.beside();
    let dispatch = Dispatch::new(Services { processor, ..services });
    let mut connections = JoinSet::new();
    // As long as there are connections.
    let mut beside = JoinSet::new();
    beside.spawn(quotas);
    while let Some(Some(Connection { stream, lease })) = stop.run_until_cancelled(queue.recv()).await {
        // Those that have ended.
        while connections.try_join_next().is_some() {}
        match stream.bind() {
            Ok(stream) => {
                let stream = Cuttable::new(stream, cut.clone(), lease);
                connections.spawn(serve_connection(stream, dispatch.clone(), stop.clone()));
            }
            Err(error) => tracing::warn!(%error, "a connection could not be served"),
        }
    }
    drop(queue);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(stream: Cuttable, dispatch: Dispatch, stop: CancellationToken) {
    let connection = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        // Envoy opens one stream for each request in flight: a limit here would queue requests.
        .max_concurrent_streams(u32::MAX)
        // Clients may leave in crowds; Envoy then resets as many streams, which is no attack.
        .max_pending_accept_reset_streams(1 << 20)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), dispatch);
    let mut connection = pin!(connection);
    let ended = select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Finds the service of each request.
#[derive(Clone)]
struct Dispatch {
    processor: extproc::Service,
    health: HealthServer<Health>,
}

impl Dispatch {
    fn new(services: Services) -> Self {
        Self { processor: services.processor, health: HealthServer::new(services.health) }
    }
}

impl Service<http::Request<Incoming>> for Dispatch {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        if extproc::Service::has(request.uri().path()) {
            self.processor.answer(request)
        } else {
            // It answers what is for nobody, too.
            tower::Service::call(&mut self.health.clone(), request)
        }
    }
}
