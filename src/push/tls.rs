//! What the controller shows to processors, and whom it lets in.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use secrecy::{ExposeSecret, SecretString};

/// Certificates that cannot be used. Names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {error}")]
pub struct TlsError {
    what: &'static str,
    error: String,
}

fn wrong(what: &'static str, error: impl ToString) -> TlsError {
    TlsError { what, error: error.to_string() }
}

/// What is shown to processors, and whose certificates are demanded of them. It can be replaced at any time: those who connect
/// then see the new, and connections go on. Clones are handles to the same.
#[derive(Debug, Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

impl Tls {
    /// Shows this chain of certificates (PEM) with its key (PEM), and trusts processors with certificates of these authorities
    /// (PEM, as many as there are).
    ///
    /// # Errors
    /// What cannot be used, by name.
    pub fn new(chain: &str, key: &SecretString, authorities: &str) -> Result<Self, TlsError> {
        config(chain, key, authorities).map(|config| Self(Arc::new(ArcSwap::from_pointee(config))))
    }

    /// From now on shows and trusts these. Those before stay if these cannot be used.
    ///
    /// # Errors
    /// As [`Tls::new`].
    pub fn replace(&self, chain: &str, key: &SecretString, authorities: &str) -> Result<(), TlsError> {
        config(chain, key, authorities).map(|config| self.0.store(Arc::new(config)))
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

fn config(chain: &str, key: &SecretString, authorities: &str) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let read = |what, pem: &str| {
        let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        read.map_err(|error| wrong(what, error))
    };
    let mut roots = RootCertStore::empty();
    for authority in read("authorities of processors", authorities)? {
        roots.add(authority).map_err(|error| wrong("authorities of processors", error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .map_err(|error| wrong("authorities of processors", error))?;
    let chain = read("the controller's certificate", chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
        // Its text is not repeated.
        .map_err(|_| wrong("the key of the controller's certificate", "it is no key in PEM form"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("TLS", error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| wrong("the controller's certificate", error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
