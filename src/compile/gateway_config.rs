//! GatewayConfigs: what a Gateway's annotation adds, the proxy towards providers and costs of all routes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::{Config, LlmRequestCost, RouteCost};
use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::resources::aigateway::GatewayConfig;
use crate::resources::gateway_api::Gateway;
use crate::resources::{Located, Snapshot};

use super::costs;
use super::listeners::Target;
use super::routes::AttachedRoute;

/// The annotation of a Gateway that names its GatewayConfig.
const ANNOTATION: &str = "aigateway.envoyproxy.io/gateway-config";

/// What a GatewayConfig says about a Gateway.
#[derive(Debug, Clone, Default)]
pub(super) struct GatewaySettings {
    pub(super) proxy: Option<SocketAddr>,
    pub(super) costs: Vec<LlmRequestCost>,
}

/// The Gateway cannot be served as it is asked to be; why is in the diagnostics.
#[derive(Debug)]
pub(super) struct Unavailable;

/// What is said about a Gateway.
pub(super) fn of(
    snapshot: &Snapshot,
    gateway: &Located<Gateway>,
    diagnostics: &mut Diagnostics,
) -> Result<GatewaySettings, Unavailable> {
    let Some(name) = gateway.metadata.annotations.get(ANNOTATION) else {
        return Ok(GatewaySettings::default());
    };
    let Some(config) = snapshot.gateway_configs.get(gateway.namespace(), name) else {
        let message = format!("there is no GatewayConfig {}/{name}", gateway.namespace());
        let help = suggest(name, snapshot.gateway_configs.names_in(gateway.namespace()));
        diagnostics.push(gateway.warning("metadata.annotations", message).help(help));
        return Ok(GatewaySettings::default());
    };
    let proxy = match &config.spec.forward_proxy {
        Some(proxy) => Some(address(config, &proxy.address, diagnostics)?),
        None => None,
    };
    Ok(GatewaySettings { proxy, costs: costs_of(config, diagnostics) })
}

/// The costs of a GatewayConfig that can be computed.
fn costs_of(config: &Located<GatewayConfig>, diagnostics: &mut Diagnostics) -> Vec<LlmRequestCost> {
    let mut findings = Diagnostics::new();
    let written = &config.spec.global_llm_request_costs;
    let costs = costs::checked(config, "spec.globalLLMRequestCosts", written, &mut findings);
    for finding in &findings {
        once(finding.clone(), diagnostics);
    }
    costs
}

/// Says what is wrong with GatewayConfigs, those that no Gateway names included.
pub(super) fn check(snapshot: &Snapshot, diagnostics: &mut Diagnostics) {
    for config in &snapshot.gateway_configs {
        let _ = costs_of(config, diagnostics);
        if let Some(proxy) = &config.spec.forward_proxy {
            let _ = address(config, &proxy.address, diagnostics);
        }
    }
}

/// Envoy does not look up the name of a proxy.
fn address(
    config: &Located<GatewayConfig>,
    written: &str,
    diagnostics: &mut Diagnostics,
) -> Result<SocketAddr, Unavailable> {
    let bare = written.strip_prefix("http://").unwrap_or(written).trim_end_matches('/');
    if let Ok(address) = bare.parse() {
        return Ok(address);
    }
    if let Some(port) = bare.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    let message = "this is not an IP address with a port, and Envoy does not look up a proxy's name: requests must not bypass it, so that its Gateways are left out";
    let finding = config.error("spec.forwardProxy.address", message).help("write it as 10.0.0.1:3128");
    once(finding, diagnostics);
    Err(Unavailable)
}

/// Several Gateways may name the same GatewayConfig, of which everything is to be said once.
fn once(finding: Diagnostic, diagnostics: &mut Diagnostics) {
    let same = |known: &Diagnostic| {
        (&known.message, &known.resource, &known.field)
            == (&finding.message, &finding.resource, &finding.field)
    };
    if !diagnostics.iter().any(same) {
        diagnostics.push(finding);
    }
}

/// Adds the costs of GatewayConfigs to a configuration. They are those of all routes where all Gateways agree; where they do
/// not, each Gateway's go to its own routes.
pub(super) fn add_costs(
    targets: &[Target<'_>],
    routes: &[AttachedRoute<'_>],
    config: &mut Config,
    diagnostics: &mut Diagnostics,
) {
    let Some(first) = targets.first() else { return };
    if targets.iter().all(|target| target.settings.costs == first.settings.costs) {
        config.global_llm_request_costs.clone_from(&first.settings.costs);
        return;
    }
    for route in routes {
        let mut taken: Vec<&LlmRequestCost> = Vec::new();
        let own = |key: &str| {
            config
                .llm_request_costs
                .iter()
                .any(|cost| cost.route_name == route.name && cost.cost.metadata_key == key)
        };
        let globals = route.hostnames.keys().filter_map(|index| targets.get(*index));
        for cost in globals.flat_map(|target| &target.settings.costs) {
            match taken.iter().find(|known| known.metadata_key == cost.metadata_key) {
                Some(known) if *known != cost => {
                    let message = format!(
                        "the GatewayConfigs of its Gateways define the cost `{}` differently: the first one counts for this route",
                        cost.metadata_key
                    );
                    let help = "define it under spec.llmRequestCosts";
                    diagnostics.push(route.resource.warning("spec.parentRefs", message).help(help));
                }
                Some(_) => {}
                None if own(&cost.metadata_key) => {}
                None => taken.push(cost),
            }
        }
        let added: Vec<RouteCost> = taken
            .into_iter()
            .map(|cost| RouteCost {
                route_name: route.name.clone(),
                backend: None,
                model: None,
                cost: cost.clone(),
            })
            .collect();
        config.llm_request_costs.extend(added);
    }
}
