//! Gateways of a cluster: those that Envoy Gateway serves, and by which name processors are asked for them.

use crate::compile::gateway_config;
use crate::compile::listeners::{CONTROLLER, Target};
use crate::compile::plan::ClientPlan;
use crate::diagnostics::Diagnostics;
use crate::resources::gateway_api::Gateway;
use crate::resources::{Located, Snapshot};

use super::{KubernetesOptions, names};

/// A Gateway, with its listeners that speak HTTP.
pub(super) struct Site<'a> {
    pub(super) gateway: &'a Located<Gateway>,
    /// `namespace/name`.
    pub(super) id: String,
    /// The name of its Service.
    pub(super) service: String,
    pub(super) authority: String,
    pub(super) targets: Vec<Target<'a>>,
    /// Why nothing can be served on it, if so.
    pub(super) refused: Option<String>,
}

/// Those that are served, in the order of the objects.
pub(super) fn collect<'a>(
    snapshot: &'a Snapshot,
    options: &KubernetesOptions,
    diagnostics: &mut Diagnostics,
) -> Vec<Site<'a>> {
    let mut sites = Vec::new();
    for gateway in &snapshot.gateways {
        let class = snapshot.gateway_classes.get("", &gateway.spec.gateway_class_name);
        let foreign = class.is_some_and(|class| class.spec.controller_name != CONTROLLER);
        if foreign || gateway.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let service = names::service(gateway.namespace(), gateway.name());
        let authority = format!("{service}.{}:{}", options.system_namespace, options.port);
        let (settings, mut refused) = match gateway_config::of(snapshot, gateway, diagnostics) {
            Ok(settings) => (settings, None),
            Err(gateway_config::Unavailable) => (
                gateway_config::GatewaySettings::default(),
                Some("its GatewayConfig cannot be used".to_owned()),
            ),
        };
        if settings.proxy.is_some() {
            let message = "Envoy Gateway has no forward proxy, and requests must not bypass the one that is asked for: nothing is served on this Gateway";
            diagnostics.push(
                gateway
                    .error("metadata.annotations", message)
                    .help("remove forwardProxy from the GatewayConfig, or serve with `aigw run`"),
            );
            refused =
                Some("its GatewayConfig asks for a forward proxy, which Envoy Gateway lacks".to_owned());
        }
        let listeners = gateway.spec.listeners.iter();
        let targets = listeners
            .filter(|listener| matches!(listener.protocol.as_str(), "HTTP" | "HTTPS"))
            .map(|listener| Target {
                gateway,
                listener,
                port: listener.port,
                authority: authority.clone(),
                client: ClientPlan::default(),
                certificates: Vec::new(),
                settings: settings.clone(),
                access_logs: Vec::new(),
            })
            .collect();
        let id = format!("{}/{}", gateway.namespace(), gateway.name());
        sites.push(Site { gateway, id, service, authority, targets, refused });
    }
    sites
}
