//! The way to the controller: TLS with certificates on both sides, read from their files for every connection.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection over which nothing comes back for so long, though it is asked to, is dead.
const DEAD_AFTER: Duration = Duration::from_secs(10);
const PORT: u16 = 1065;

/// Where a controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerUrl {
    host: String,
    port: u16,
}

/// A text that names no controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no controller's address; write https://HOST or https://HOST:PORT")]
pub struct InvalidControllerUrl(String);

impl FromStr for ControllerUrl {
    type Err = InvalidControllerUrl;

    fn from_str(text: &str) -> Result<Self, InvalidControllerUrl> {
        let invalid = || InvalidControllerUrl(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let plain = uri.scheme_str() == Some("https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let host = uri.host().filter(|host| plain && !host.is_empty()).ok_or_else(invalid)?;
        Ok(Self { host: host.to_owned(), port: uri.port_u16().unwrap_or(PORT) })
    }
}

/// The files of a processor's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerFiles {
    /// The authorities that the controller's certificate has to be of (PEM).
    pub ca: PathBuf,
    /// The processor's certificate (PEM).
    pub certificate: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
}

/// Connects. The error is for people.
pub(super) async fn connect(url: &ControllerUrl, files: &ControllerFiles) -> Result<Channel, String> {
    let config = {
        let files = files.clone();
        let read = tokio::task::spawn_blocking(move || config(&files)).await;
        read.map_err(|error| error.to_string())??
    };
    let dialled = tokio::time::timeout(CONNECT, dial(url, config)).await;
    let stream = dialled.map_err(|_| format!("no connection within {} s", CONNECT.as_secs()))??;
    let origin = format!("https://{}:{}", url.host, url.port);
    let origin: Uri = origin.parse().map_err(|_| "the controller's address cannot be used".to_owned())?;
    // It is used once: a connection that ends is not replaced behind our back.
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let take = move |_: Uri| {
        let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move { stream.ok_or_else(|| io::Error::other("the connection has ended")) }
    };
    Endpoint::from_static("http://controller")
        .origin(origin)
        .http2_keep_alive_interval(DEAD_AFTER)
        .keep_alive_timeout(DEAD_AFTER)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .connect_with_connector(tower::service_fn(take))
        .await
        .map_err(|error| chain(&error))
}

async fn dial(url: &ControllerUrl, config: ClientConfig) -> Result<TlsStream<TcpStream>, String> {
    let ControllerUrl { host, port } = url;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let at = |error: io::Error| format!("{host}:{port}: {error}");
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let stream = TcpStream::connect((bare, *port)).await.map_err(at)?;
    stream.set_nodelay(true).map_err(at)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(at)
}

fn config(files: &ControllerFiles) -> Result<ClientConfig, String> {
    let ControllerFiles { ca, certificate, key } = files;
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>, String> {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let read = read.map_err(|error| wrong(path, &error))?;
        if read.is_empty() { Err(wrong(path, &"there is no certificate in it")) } else { Ok(read) }
    };
    let mut roots = RootCertStore::empty();
    for authority in read(ca)? {
        roots.add(authority).map_err(|error| wrong(ca, &error))?;
    }
    let chain = read(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, secret)
        .map_err(|error| wrong(certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// An error with all its reasons, each once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_named_by_host_and_port() {
        let parse = |text: &str| text.parse::<ControllerUrl>();
        let url = |host: &str, port| ControllerUrl { host: host.to_owned(), port };
        assert_eq!(parse("https://a.svc"), Ok(url("a.svc", 1065)));
        assert_eq!(parse("https://a.svc:99/"), Ok(url("a.svc", 99)));
        assert_eq!(parse("https://[::1]:99"), Ok(url("[::1]", 99)));
        for bad in ["", "a.svc:1065", "http://a", "https://", "https://a/b", "https://u:p@a", "https://a?x"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("https://HOST"), "{error}");
        }
    }
}
