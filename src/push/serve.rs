//! Where processors connect.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::grant::of_certificate;
use super::session::Proved;
use super::{Publisher, Tls};
use crate::proto::config_stream::config_stream_server::ConfigStreamServer;
use crate::server::listen::{Listener, Stream as Connection};
use crate::source::protocol::MAX_MESSAGE;

/// How long a processor may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many may be at it at a time; more wait.
const HANDSHAKES: usize = 64;
/// How many may be connected; more wait.
const CONNECTIONS: usize = 4_096;
/// A connection over which nothing comes back for so long, though it is asked to, is dead.
const DEAD_AFTER: Duration = Duration::from_secs(10);

impl Publisher {
    /// Serves processors that show a certificate, until `stop` resolves; then everybody is sent away. What a processor may see is
    /// what its certificate names ([`Grant`](super::Grant)).
    ///
    /// # Errors
    /// If it cannot go on.
    pub async fn serve(
        &self,
        listener: Listener,
        tls: Tls,
        stop: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let leaving = Leaving(self.clone());
        let stop = async move {
            stop.await;
            // Streams have no end of their own.
            drop(leaving);
        };
        let service = ConfigStreamServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE);
        Server::builder()
            .max_concurrent_streams(4)
            .http2_keepalive_interval(Some(DEAD_AFTER))
            .http2_keepalive_timeout(Some(DEAD_AFTER))
            .http2_max_header_list_size(16 << 10)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_with_incoming_shutdown(service, Incoming::new(listener, tls).stream(), stop)
            .await
            .map_err(io::Error::other)
    }
}

/// Sends everybody away when it is dropped.
struct Leaving(Publisher);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Connections that have agreed on TLS.
struct Incoming {
    listener: Listener,
    tls: Tls,
    handshakes: JoinSet<Option<Secured>>,
    room: Arc<Semaphore>,
}

impl Incoming {
    fn new(listener: Listener, tls: Tls) -> Self {
        Self { listener, tls, handshakes: JoinSet::new(), room: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    fn stream(self) -> impl Stream<Item = Result<Secured, Infallible>> {
        stream::unfold(self, |mut incoming| async move {
            let secured = incoming.accept().await;
            Some((Ok(secured), incoming))
        })
    }

    async fn accept(&mut self) -> Secured {
        loop {
            let Self { listener, tls, handshakes, room } = self;
            tokio::select! {
                Some(agreed) = handshakes.join_next() => {
                    if let Ok(Some(secured)) = agreed {
                        return secured;
                    }
                }
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                    Ok(connection) => {
                        // Whoever is one too many is sent away.
                        let Ok(room) = Arc::clone(room).try_acquire_owned() else {
                            tracing::warn!(most = CONNECTIONS, "too many processors are connected");
                            continue;
                        };
                        let agreeing = TlsAcceptor::from(tls.current()).accept(connection);
                        handshakes.spawn(agree(agreeing, room));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }
}

async fn agree(agreeing: tokio_rustls::Accept<Connection>, room: OwnedSemaphorePermit) -> Option<Secured> {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, agreeing).await.ok()? {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "somebody who is no processor, or has no valid certificate, was sent away");
            return None;
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
    let proved = Proved(of_certificate(certificate).into());
    Some(Secured { stream, proved, _room: room })
}

/// A connection with a certificate that was found valid.
struct Secured {
    stream: TlsStream<Connection>,
    proved: Proved,
    _room: OwnedSemaphorePermit,
}

impl Connected for Secured {
    type ConnectInfo = Proved;

    fn connect_info(&self) -> Proved {
        self.proved.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
