//! ClientTrafficPolicies: how a listener treats its clients.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use crate::diagnostics::{Diagnostics, suggest};
use crate::resources::envoy_gateway::ClientTrafficPolicy;
use crate::resources::gateway_api::{Gateway, Listener};
use crate::resources::security_policy::ClientValidation;
use crate::resources::types::Quantity;
use crate::resources::{Located, Snapshot};

use super::plan::{ClientCertificates, ClientPlan};
use super::policies::{Targets, references};

/// What a body may have where no ClientTrafficPolicy says otherwise: requests with images and documents pass.
const DEFAULT_BUFFER_LIMIT: u32 = 64 << 20;

/// All ClientTrafficPolicies of the files.
pub(super) struct ClientPolicies<'a> {
    targets: Targets<'a, ClientTrafficPolicy>,
    snapshot: &'a Snapshot,
}

impl<'a> ClientPolicies<'a> {
    /// Sorts them, and says which have no effect.
    pub(super) fn new(snapshot: &'a Snapshot, diagnostics: &mut Diagnostics) -> Self {
        let targets = Targets::new(
            &snapshot.client_traffic_policies,
            |policy| references(policy.spec.target_ref.as_ref(), &policy.spec.target_refs),
            diagnostics,
        );
        for policy in &snapshot.client_traffic_policies {
            diagnostics.extend(super::policies::unselecting(policy, &policy.spec.target_selectors));
        }
        for ((kind, namespace, name, section), policy) in targets.iter() {
            if kind != "Gateway" {
                continue;
            }
            let Some(gateway) = snapshot.gateways.get(namespace, name) else {
                let message = format!("there is no Gateway {namespace}/{name}");
                let help = suggest(name, snapshot.gateways.names_in(namespace));
                diagnostics.push(policy.warning("spec", message).help(help));
                continue;
            };
            diagnostics.extend(super::policies::unknown_listener(policy, gateway, section.as_deref()));
        }
        Self { targets, snapshot }
    }

    /// What counts for a listener: the policy that names it, else the one that names its Gateway, else the defaults.
    pub(super) fn of(
        &self,
        gateway: &Located<Gateway>,
        listener: &Listener,
        diagnostics: &mut Diagnostics,
    ) -> ClientPlan {
        let get = |section| self.targets.get("Gateway", gateway.namespace(), gateway.name(), section);
        let Some(policy) = get(Some(&listener.name)).or_else(|| get(None)) else {
            return ClientPlan { buffer_limit: DEFAULT_BUFFER_LIMIT, ..ClientPlan::default() };
        };
        let spec = &policy.spec;
        let connection = spec.connection.as_ref();
        ClientPlan {
            buffer_limit: connection
                .and_then(|connection| connection.buffer_limit)
                .and_then(|limit| buffer_limit(policy, limit, diagnostics))
                .unwrap_or(DEFAULT_BUFFER_LIMIT),
            timeout: spec.timeout.as_ref().and_then(|timeout| timeout.http.clone()),
            connection_limit: connection.and_then(|connection| connection.connection_limit.clone()),
            http2: spec.http2.clone(),
            escaped_slashes: spec.path.as_ref().and_then(|path| path.escaped_slashes_action),
            merge_slashes: spec.path.as_ref().is_some_and(|path| path.disable_merge_slashes == Some(false)),
            underscores: spec.headers.as_ref().and_then(|headers| headers.with_underscores_action),
            tcp_keepalive: spec.tcp_keepalive.clone(),
            certificates: spec
                .tls
                .as_ref()
                .and_then(|tls| tls.client_validation.as_ref())
                .map(|asked| client_certificates(self.snapshot, policy, asked, diagnostics)),
        }
    }
}

/// Who may vouch for clients. If that cannot be made out, nobody can.
fn client_certificates(
    snapshot: &Snapshot,
    policy: &Located<ClientTrafficPolicy>,
    asked: &ClientValidation,
    diagnostics: &mut Diagnostics,
) -> ClientCertificates {
    const FIELD: &str = "spec.tls.clientValidation";
    let mut authorities = Some(String::new());
    for (index, reference) in asked.ca_certificate_refs.iter().enumerate() {
        let field = format!("{FIELD}.caCertificateRefs[{index}]");
        let namespace = reference.namespace.as_deref().unwrap_or_else(|| policy.namespace());
        let name = &reference.name;
        let found = if namespace != policy.namespace() {
            None
        } else if reference.kind == "ConfigMap" {
            snapshot.config_maps.get(namespace, name).and_then(|map| map.data.get("ca.crt").cloned())
        } else {
            let secret = snapshot.secrets.get(namespace, name);
            secret.and_then(|secret| secret.value("ca.crt")).map(|pem| pem.expose_secret().to_owned())
        };
        let usable = |pem: &String| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            all.is_ok_and(|all| !all.is_empty())
        };
        match (found.filter(usable), &mut authorities) {
            (Some(pem), Some(all)) => *all = format!("{all}{}\n", pem.trim_end()),
            (Some(_), None) => {}
            (None, _) => {
                authorities = None;
                let message = format!("{} {namespace}/{name} has no certificate in `ca.crt`", reference.kind);
                let help = "put the authorities there, in PEM form, in the policy's own namespace; until then this listener is left out";
                diagnostics.push(policy.error(&field, message).help(help));
            }
        }
    }
    let authorities = authorities.filter(|all| !all.is_empty());
    if asked.ca_certificate_refs.is_empty() {
        let message = "it does not say who vouches for clients";
        let help = "add caCertificateRefs; until then this listener is left out";
        diagnostics.push(policy.error(FIELD, message).help(help));
    }
    let name = format!("{}/{}", policy.namespace(), policy.name());
    ClientCertificates { policy: name, optional: asked.optional, authorities }
}

/// A limit that Envoy takes; `None` for what would let nothing through.
pub(super) fn buffer_limit<T>(
    policy: &Located<T>,
    limit: Quantity,
    diagnostics: &mut Diagnostics,
) -> Option<u32> {
    const FIELD: &str = "spec.connection.bufferLimit";
    if limit.0 == 0 {
        let message = "a limit of zero would let nothing through: the default is used";
        diagnostics.push(policy.warning(FIELD, message).help("give a size such as 50Mi"));
        return None;
    }
    let limit = u32::try_from(limit.0).unwrap_or_else(|_| {
        diagnostics.push(policy.warning(FIELD, "Envoy's largest limit is 4Gi less one byte, which is used"));
        u32::MAX
    });
    Some(limit)
}
