//! The server's TLS configuration: from PEM files, or with a certificate made up at start.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::tls;

/// Which certificate is shown; none means plain text.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "TLS (ALPN h2 and http/1.1)")]
pub struct TlsOptions {
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Make a certificate authority and a certificate for these host names or addresses, afresh at every start
    #[arg(long, value_name = "NAME", num_args = 1.., value_delimiter = ',', conflicts_with = "tls_cert",
          requires = "tls_ca_out")]
    pub tls_self_signed: Vec<String>,
    /// Where to write that authority's certificate: PEM, for the `ca.crt` of a BackendTLSPolicy's ConfigMap
    #[arg(long, value_name = "FILE", requires = "tls_self_signed")]
    pub tls_ca_out: Option<PathBuf>,
}

impl TlsOptions {
    /// Whether any certificate was asked for.
    pub fn is_on(&self) -> bool {
        self.tls_cert.is_some() || !self.tls_self_signed.is_empty()
    }
}

/// The configuration, or none for plain text.
pub(super) fn config(options: &TlsOptions) -> io::Result<Option<Arc<ServerConfig>>> {
    let (chain, key) = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => tls::read(cert, key)?,
        _ if options.tls_self_signed.is_empty() => return Ok(None),
        _ => self_signed(options)?,
    };
    Ok(Some(tls::config((chain, key), &[b"h2", b"http/1.1"])?))
}

fn self_signed(options: &TlsOptions) -> io::Result<tls::Identity> {
    let (ca, chain, key) = make(&options.tls_self_signed)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("--tls-self-signed: {e}")))?;
    if let Some(path) = &options.tls_ca_out {
        std::fs::write(path, ca).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    }
    Ok((chain, key))
}

fn make(
    names: &[String],
) -> Result<(String, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), rcgen::Error> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "aigw testbackend CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let mut leaf = CertificateParams::new(names.to_vec())?;
    leaf.distinguished_name.push(DnType::CommonName, "aigw testbackend");
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate()?;
    let cert = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?;
    let key = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
    Ok((ca_pem, vec![cert.der().clone()], key.into()))
}
