//! Certificates of HTTPS listeners: looked up, and checked as far as Envoy would, so that a bad one takes out its own
//! listener and not the whole configuration.

use rustls::SignatureAlgorithm;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use secrecy::{ExposeSecret, SecretString};

use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::resources::gateway_api::{Gateway, Listener, TLSMode};
use crate::resources::types::SecretObjectReference;
use crate::resources::{Located, Snapshot};

use super::grants::{From, To, allowed, missing};
use super::listeners::GATEWAY_GROUP;
use super::plan::CertificatePlan;

/// The key of a Secret that holds the certificate chain.
const CHAIN: &str = "tls.crt";
/// The key of a Secret that holds the private key.
const KEY: &str = "tls.key";

/// The listener cannot be served; why is in the diagnostics.
#[derive(Debug)]
pub(super) struct Unavailable;

/// The certificates of a listener: none for HTTP, at least one for HTTPS.
pub(super) fn of(
    snapshot: &Snapshot,
    gateway: &Located<Gateway>,
    index: usize,
    listener: &Listener,
    diagnostics: &mut Diagnostics,
) -> Result<Vec<CertificatePlan>, Unavailable> {
    let field = format!("spec.listeners[{index}]");
    let mut refuse = |field: &str, message: String, help: &str| {
        diagnostics.push(
            gateway.error(field, message).help(format!("{help}; until then this listener is left out")),
        );
        Err(Unavailable)
    };
    match (listener.protocol.as_str(), &listener.tls) {
        ("HTTP", None) => Ok(Vec::new()),
        ("HTTP", Some(_)) => {
            let message = "a listener of protocol HTTP speaks no TLS".to_owned();
            refuse(&format!("{field}.tls"), message, "write protocol: HTTPS, or remove tls")
        }
        ("HTTPS", None) => {
            let message = "a listener of protocol HTTPS needs a certificate".to_owned();
            refuse(&field, message, "add tls: {certificateRefs: [{name: SECRET}]}")
        }
        ("HTTPS", Some(tls)) if tls.mode == TLSMode::Passthrough => {
            let message = "requests that are not decrypted cannot be routed by model".to_owned();
            refuse(&format!("{field}.tls.mode"), message, "write mode: Terminate")
        }
        ("HTTPS", Some(tls)) if tls.certificate_refs.is_empty() => {
            let message = "a listener of protocol HTTPS needs a certificate".to_owned();
            refuse(&format!("{field}.tls"), message, "add certificateRefs: [{name: SECRET}]")
        }
        ("HTTPS", Some(tls)) => {
            let mut certificates: Vec<CertificatePlan> = Vec::new();
            let mut complete = true;
            for (position, reference) in tls.certificate_refs.iter().enumerate() {
                let field = format!("{field}.tls.certificateRefs[{position}]");
                match certificate(snapshot, gateway, &field, reference) {
                    Ok(found) if certificates.iter().any(|known| known.name == found.name) => {}
                    Ok(found) => certificates.push(found),
                    Err(finding) => {
                        complete = false;
                        diagnostics.push(*finding);
                    }
                }
            }
            if complete { Ok(certificates) } else { Err(Unavailable) }
        }
        (protocol, _) => {
            let message = format!("listeners of protocol {protocol} are not supported; HTTP and HTTPS are");
            refuse(&format!("{field}.protocol"), message, "change it")
        }
    }
}

fn certificate(
    snapshot: &Snapshot,
    gateway: &Located<Gateway>,
    field: &str,
    reference: &SecretObjectReference,
) -> Result<CertificatePlan, Box<Diagnostic>> {
    let fail = |field: &str, message: String, help: String| {
        Box::new(gateway.error(field, message).help(format!("{help}; until then this listener is left out")))
    };
    if !reference.group.is_empty() || reference.kind != "Secret" {
        let message = format!("a {} cannot hold a certificate", reference.kind);
        return Err(fail(
            &format!("{field}.kind"),
            message,
            "name a Secret of type kubernetes.io/tls".to_owned(),
        ));
    }
    let namespace = reference.namespace.as_deref().unwrap_or_else(|| gateway.namespace());
    let name = &reference.name;
    let from = From { group: GATEWAY_GROUP, kind: "Gateway", namespace: gateway.namespace() };
    let to = To { group: "", kind: "Secret", namespace, name };
    if !allowed(snapshot, from, to) {
        let message =
            format!("the Secret is in namespace `{namespace}`, which does not allow this reference");
        return Err(fail(&format!("{field}.namespace"), message, missing(from, to)));
    }
    let Some(secret) = snapshot.secrets.get(namespace, name) else {
        let message = format!("there is no Secret {namespace}/{name}");
        return Err(fail(
            &format!("{field}.name"),
            message,
            suggest(name, snapshot.secrets.names_in(namespace)),
        ));
    };
    let part = |key: &str| {
        secret.value(key).ok_or_else(|| {
            let message = format!("Secret {namespace}/{name} has no key `{key}`");
            let help = format!("a certificate's Secret has `{CHAIN}` and `{KEY}`, both in PEM form");
            fail(field, message, help)
        })
    };
    let (chain, key) = (part(CHAIN)?, part(KEY)?);
    check(&chain, &key).map_err(|(key, reason)| {
        let message = format!("`{key}` of Secret {namespace}/{name} {reason}");
        fail(
            field,
            message,
            "put the certificate chain and the key that belongs to it there, in PEM form".to_owned(),
        )
    })?;
    Ok(CertificatePlan { name: format!("{namespace}/{name}"), chain: chain.expose_secret().to_owned(), key })
}

/// What keeps Envoy from using a certificate, and which part of the Secret it is. Reasons repeat nothing of the Secret.
fn check(chain: &SecretString, key: &SecretString) -> Result<(), (&'static str, &'static str)> {
    let certificates = CertificateDer::pem_slice_iter(chain.expose_secret().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| (CHAIN, "is not PEM"))?;
    if certificates.is_empty() {
        return Err((CHAIN, "has no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())
        .map_err(|_| (KEY, "has no private key without a password"))?;
    let signer = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| {
        (KEY, "is no key that can be used: RSA of 2048 to 4096 bits and ECDSA P-256 and P-384 can")
    })?;
    if signer.algorithm() == SignatureAlgorithm::ED25519 {
        return Err((
            KEY,
            "is an Ed25519 key, which Envoy does not use: RSA and ECDSA P-256 and P-384 can be used",
        ));
    }
    match CertifiedKey::new(certificates, signer).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err((KEY, "is not the key of the certificate in `tls.crt`"))
        }
        Err(_) => Err((CHAIN, "has a certificate that cannot be read")),
    }
}
