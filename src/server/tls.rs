//! TLS for listeners of this process: certificates from files, and connections that have shown them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::listen::{Listen, Listener, Stream};

/// A chain of certificates and the key of its first.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many clients may be at it at a time; more wait.
const HANDSHAKES: usize = 128;

/// Reads PEM files.
///
/// # Errors
/// Those of reading, with the file's name.
pub fn read(certificate: &Path, key: &Path) -> io::Result<Identity> {
    let fail =
        |path: &Path, e: rustls::pki_types::pem::Error| io::Error::other(format!("{}: {e}", path.display()));
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fail(certificate, e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| fail(key, e))?;
    Ok((chain, key))
}

/// What a server shows, and the protocols it speaks, in the order of its preference.
///
/// # Errors
/// A key that is not the certificate's, for example.
pub fn config((chain, key): Identity, protocols: &[&[u8]]) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("TLS certificate: {e}")))?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Connections of a listener that speak TLS, as axum takes them. A client that is slow to agree on it keeps no other waiting.
pub(super) struct Secured {
    listener: Listener,
    acceptor: TlsAcceptor,
    handshakes: JoinSet<Option<TlsStream<Stream>>>,
}

impl Secured {
    pub(super) fn new(listener: Listener, config: Arc<ServerConfig>) -> Self {
        Self { listener, acceptor: config.into(), handshakes: JoinSet::new() }
    }
}

impl axum::serve::Listener for Secured {
    type Io = TlsStream<Stream>;
    type Addr = Listen;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Self { listener, acceptor, handshakes } = self;
            tokio::select! {
                Some(agreed) = handshakes.join_next() => {
                    if let Ok(Some(stream)) = agreed {
                        return (stream, self.listener.local().clone());
                    }
                }
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES => match accepted {
                    Ok(stream) => {
                        let agreeing = acceptor.accept(stream);
                        // A client that does not agree is none.
                        handshakes.spawn(async move {
                            tokio::time::timeout(HANDSHAKE_TIMEOUT, agreeing).await.ok()?.ok()
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.listener.local().clone())
    }
}
