//! BackendTLSPolicies, and the TLS settings of Backends: how a destination proves who it is.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::envoy_gateway::{Backend, BackendTLSSettings};
use crate::resources::gateway_api::{BackendTLSPolicy, SubjectAltNameType, WellKnownCaCertificates};
use crate::resources::types::LocalObjectReference;
use crate::resources::{Located, Snapshot};

use super::CompileOptions;
use super::plan::{SubjectName, TlsPlan, Trust};

/// The key of a ConfigMap or Secret that holds CA certificates.
const CA_KEY: &str = "ca.crt";

/// TLS is asked for but cannot be set up; why is in the diagnostics. The destination must not be used without it.
#[derive(Debug)]
pub(super) struct Unavailable;

/// How to speak TLS to a Backend; `None` where nothing asks for it.
pub(super) fn of(
    snapshot: &Snapshot,
    backend: &Located<Backend>,
    options: &CompileOptions,
    diagnostics: &mut Diagnostics,
) -> Result<Option<TlsPlan>, Unavailable> {
    let mut policies: Vec<_> =
        snapshot.backend_tls_policies.iter().filter(|policy| targets(policy, backend)).collect();
    policies.sort_by_key(|policy| (policy.metadata.creation_timestamp.clone(), policy.name().to_owned()));
    let mut context = Context { snapshot, options, diagnostics };
    match policies.as_slice() {
        [] => match &backend.spec.tls {
            Some(settings) => context.settings(backend, settings).map(Some),
            None => Ok(None),
        },
        [policy, others @ ..] => {
            for other in others {
                let message = format!("{} targets {} too and is the older one", policy.id(), backend.id());
                context
                    .diagnostics
                    .push(other.warning("spec.targetRefs", message).help("this policy has no effect on it"));
            }
            context.policy(policy).map(Some)
        }
    }
}

fn targets(policy: &Located<BackendTLSPolicy>, backend: &Located<Backend>) -> bool {
    policy.namespace() == backend.namespace()
        && policy.spec.target_refs.iter().any(|target| {
            target.group == "gateway.envoyproxy.io"
                && target.kind == "Backend"
                && target.name == backend.name()
        })
}

struct Context<'a> {
    snapshot: &'a Snapshot,
    options: &'a CompileOptions,
    diagnostics: &'a mut Diagnostics,
}

impl Context<'_> {
    fn policy(&mut self, policy: &Located<BackendTLSPolicy>) -> Result<TlsPlan, Unavailable> {
        let validation = &policy.spec.validation;
        let names = validation
            .subject_alt_names
            .iter()
            .filter_map(|name| match name.kind {
                SubjectAltNameType::Hostname => name.hostname.clone().map(SubjectName::Dns),
                SubjectAltNameType::Uri => name.uri.clone().map(SubjectName::Uri),
            })
            .collect();
        let trust = self.trust(
            policy,
            "spec.validation",
            &validation.ca_certificate_refs,
            validation.well_known_ca_certificates,
        )?;
        Ok(TlsPlan { hostname: validation.hostname.clone(), names, trust })
    }

    fn settings(
        &mut self,
        backend: &Located<Backend>,
        settings: &BackendTLSSettings,
    ) -> Result<TlsPlan, Unavailable> {
        let first = backend.spec.endpoints.iter().find_map(|endpoint| endpoint.fqdn.as_ref());
        let hostname = settings.sni.clone().or_else(|| first.map(|fqdn| fqdn.hostname.clone()));
        let Some(hostname) = hostname else {
            self.diagnostics.push(
                backend
                    .error("spec.tls", "there is no host name to check the certificate against")
                    .help("set spec.tls.sni, or use a BackendTLSPolicy"),
            );
            return Err(Unavailable);
        };
        let trust = if settings.insecure_skip_verify {
            self.diagnostics.push(backend.warning(
                "spec.tls.insecureSkipVerify",
                "the certificate is not checked: whoever answers in the backend's place is sent its credential",
            ));
            Trust::Anyone
        } else {
            self.trust(
                backend,
                "spec.tls",
                &settings.ca_certificate_refs,
                settings.well_known_ca_certificates,
            )?
        };
        Ok(TlsPlan { hostname, names: Vec::new(), trust })
    }

    fn trust<T>(
        &mut self,
        owner: &Located<T>,
        field: &str,
        references: &[LocalObjectReference],
        well_known: Option<WellKnownCaCertificates>,
    ) -> Result<Trust, Unavailable> {
        match (references, well_known) {
            ([], Some(WellKnownCaCertificates::System)) => match &self.options.ca_bundle {
                Some(bundle) => Ok(Trust::System(bundle.clone())),
                None => {
                    let message = "this machine has no bundle of CA certificates where one is looked for";
                    self.diagnostics.push(
                        owner
                            .error(&format!("{field}.wellKnownCACertificates"), message)
                            .help("install one (Debian: ca-certificates) or set SSL_CERT_FILE to its path"),
                    );
                    Err(Unavailable)
                }
            },
            ([], None) => {
                self.diagnostics.push(
                    owner
                        .error(field, "nothing says which CA certificates to trust")
                        .help("set wellKnownCACertificates: System, or caCertificateRefs"),
                );
                Err(Unavailable)
            }
            (references, _) => {
                let mut bundle = String::new();
                for (index, reference) in references.iter().enumerate() {
                    bundle.push_str(&self.certificates(
                        owner,
                        &format!("{field}.caCertificateRefs[{index}]"),
                        reference,
                    )?);
                    bundle.push('\n');
                }
                Ok(Trust::Inline(bundle))
            }
        }
    }

    fn certificates<T>(
        &mut self,
        owner: &Located<T>,
        field: &str,
        reference: &LocalObjectReference,
    ) -> Result<String, Unavailable> {
        let (namespace, name) = (owner.namespace(), reference.name.as_str());
        let found = match (reference.group.as_str(), reference.kind.as_str()) {
            ("", "ConfigMap") => self
                .snapshot
                .config_maps
                .get(namespace, name)
                .map(|map| map.data.get(CA_KEY).cloned())
                .ok_or_else(|| suggest(name, self.snapshot.config_maps.names_in(namespace))),
            ("", "Secret") => self
                .snapshot
                .secrets
                .get(namespace, name)
                .map(|secret| {
                    secret.value(CA_KEY).map(|value| secrecy::ExposeSecret::expose_secret(&value).to_owned())
                })
                .ok_or_else(|| suggest(name, self.snapshot.secrets.names_in(namespace))),
            (_, kind) => Err(format!("{kind} cannot hold CA certificates; a ConfigMap can")),
        };
        let (message, help) = match found {
            Ok(Some(pem)) => match check_pem(&pem) {
                Ok(()) => return Ok(pem),
                Err(reason) => {
                    (format!("`{CA_KEY}` of {} {namespace}/{name} {reason}", reference.kind), pem_help())
                }
            },
            Ok(None) => (format!("{} {namespace}/{name} has no key `{CA_KEY}`", reference.kind), pem_help()),
            Err(help) => (format!("there is no {} {namespace}/{name}", reference.kind), help),
        };
        self.diagnostics.push(owner.error(field, message).help(help));
        Err(Unavailable)
    }
}

fn pem_help() -> String {
    format!("`{CA_KEY}` holds one or more certificates in PEM form (-----BEGIN CERTIFICATE-----)")
}

fn check_pem(pem: &str) -> Result<(), String> {
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        certificate.map_err(|error| format!("is not PEM: {error}"))?;
        count += 1;
    }
    if count == 0 { Err("has no certificate".to_owned()) } else { Ok(()) }
}
