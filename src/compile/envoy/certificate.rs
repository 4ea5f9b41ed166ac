//! Certificates that Envoy shows to clients. They are in files of their own, which Envoy reads again when they are replaced:
//! neither what is printed nor the other files hold a private key.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::super::plan::{CertificatePlan, ClientCertificates};

/// A file with a certificate and its key. Its debug form does not show them.
#[derive(Clone)]
pub struct CertificateFile {
    /// The file's name.
    pub name: String,
    /// `namespace/name` of the Secret, under which Envoy knows the certificate.
    pub secret: String,
    /// A list of one resource of type `envoy.extensions.transport_sockets.tls.v3.Secret`, as JSON.
    pub resources: SecretString,
}

impl CertificateFile {
    pub(super) fn new(plan: &CertificatePlan) -> Self {
        let resources = json!([{
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": plan.name,
            "tls_certificate": {
                "certificate_chain": { "inline_string": plan.chain },
                "private_key": { "inline_string": plan.key.expose_secret() },
            },
        }]);
        Self {
            name: file_name(&plan.name),
            secret: plan.name.clone(),
            resources: SecretString::from(resources.to_string()),
        }
    }

    /// The file's content.
    #[must_use]
    pub fn content(&self, version: &str) -> SecretString {
        // Versions are numbers.
        let resources = self.resources.expose_secret();
        SecretString::from(format!(r#"{{"version_info":{},"resources":{resources}}}"#, json!(version)))
    }
}

impl fmt::Debug for CertificateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFile").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for CertificateFile {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.resources.expose_secret() == other.resources.expose_secret()
    }
}

fn file_name(secret: &str) -> String {
    // Names of objects hold nothing that does not fit a file's name.
    format!("certificate-{}.json", secret.replace('/', "+"))
}

/// How a listener speaks TLS; the files are in `folder`.
pub(super) fn transport_socket(
    certificates: &[CertificatePlan],
    clients: Option<&ClientCertificates>,
    folder: &Path,
) -> Value {
    let source = |certificate: &CertificatePlan| {
        let path: PathBuf = folder.join(file_name(&certificate.name));
        json!({ "name": certificate.name, "sds_config": super::dynamic::source(&path) })
    };
    let mut socket = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
                "tls_certificate_sds_secret_configs": certificates.iter().map(source).collect::<Vec<_>>(),
            },
        },
    });
    if let Some(ClientCertificates { optional, authorities: Some(authorities), .. }) = clients {
        let context = &mut socket["typed_config"];
        context["require_client_certificate"] = json!(!optional);
        context["common_tls_context"]["validation_context"] =
            json!({ "trusted_ca": { "inline_string": authorities } });
    }
    socket
}
