//! Gateways: which listeners are served, on which ports, with which limits and logs.

use std::collections::BTreeMap;

use crate::diagnostics::{Diagnostic, Diagnostics, suggest};
use crate::resources::gateway_api::{FromNamespaces, Gateway, Listener};
use crate::resources::{Located, Snapshot};

use super::client_traffic::ClientPolicies;
use super::gateway_config::{self, GatewaySettings};
use super::plan::{AccessLogPlan, Action, CertificatePlan, ClientPlan, Plan};
use super::{CompileOptions, RuleDescription, RuleFate, access_log, certificates};

/// The controller whose classes are served.
pub(super) const CONTROLLER: &str = "gateway.envoyproxy.io/gatewayclass-controller";

/// The API group of Gateways.
pub(super) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// A listener that is served, with everything about it that routes do not change.
#[derive(Debug, Clone)]
pub(super) struct Target<'a> {
    pub(super) gateway: &'a Located<Gateway>,
    pub(super) listener: &'a Listener,
    pub(super) port: u16,
    pub(super) authority: String,
    pub(super) client: ClientPlan,
    pub(super) certificates: Vec<CertificatePlan>,
    pub(super) settings: GatewaySettings,
    pub(super) access_logs: Vec<AccessLogPlan>,
}

impl Target<'_> {
    pub(super) fn hostname(&self) -> Option<&str> {
        self.listener.hostname.as_deref()
    }

    /// Whether routes of a namespace may attach; the error is a clause.
    pub(super) fn admits(&self, namespace: &str) -> Result<(), String> {
        let rule = &self.listener.allowed_routes;
        let name = &self.listener.name;
        let kinds = &rule.kinds;
        if !kinds.is_empty()
            && !kinds.iter().any(|kind| matches!(kind.kind.as_str(), "HTTPRoute" | "AIGatewayRoute"))
        {
            return Err(format!("listener `{name}` allows other kinds of routes only (allowedRoutes.kinds)"));
        }
        let admitted = match rule.namespaces.from {
            FromNamespaces::All => true,
            FromNamespaces::Same => namespace == self.gateway.namespace(),
            FromNamespaces::None => false,
            // Of a namespace only its name is known here; Kubernetes has it as a label too.
            FromNamespaces::Selector => rule.namespaces.selector.as_ref().is_some_and(|selector| {
                let labels =
                    BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), namespace.to_owned())]);
                selector.matches(&labels)
            }),
        };
        if admitted {
            Ok(())
        } else {
            Err(format!(
                "listener `{name}` does not allow routes of namespace `{namespace}` (allowedRoutes.namespaces)"
            ))
        }
    }
}

/// The listeners of all Gateways in the order of the files, with their ports; and whether all chosen ports could be given.
pub(super) fn collect<'a>(
    snapshot: &'a Snapshot,
    options: &CompileOptions,
    diagnostics: &mut Diagnostics,
) -> (Vec<Target<'a>>, bool) {
    if snapshot.gateways.is_empty() {
        diagnostics.push(Diagnostic::warning("there is no Gateway, so that there is nothing to listen on").help(
            "pass a file with a Gateway and its GatewayClass, such as examples/basic/basic.yaml, besides the others",
        ));
    }
    let mut targets: Vec<Target<'a>> = Vec::new();
    let policies = ClientPolicies::new(snapshot, diagnostics);
    for gateway in &snapshot.gateways {
        check_class(gateway, snapshot, diagnostics);
        let access_logs = access_log::of(gateway, snapshot, diagnostics);
        let settings = gateway_config::of(snapshot, gateway, diagnostics);
        for (index, listener) in gateway.spec.listeners.iter().enumerate() {
            let certificates = certificates::of(snapshot, gateway, index, listener, diagnostics);
            let (Ok(certificates), Ok(settings)) = (certificates, &settings) else { continue };
            if gateway.spec.listeners.iter().take(index).any(|other| other.name == listener.name) {
                let message = format!("the Gateway has another listener named `{}`", listener.name);
                diagnostics
                    .push(gateway.error(&format!("spec.listeners[{index}].name"), message).help("rename it"));
                continue;
            }
            let client = policies.of(gateway, listener, diagnostics);
            match &client.certificates {
                // Those who vouch for clients are not known: said where they are asked for.
                Some(asked) if asked.authorities.is_none() => continue,
                Some(asked) if certificates.is_empty() && !asked.optional => {
                    let message = format!(
                        "clients of listener `{}` have to show certificates, and it speaks no TLS",
                        listener.name
                    );
                    let help = "write protocol: HTTPS; until then this listener is left out";
                    diagnostics.push(
                        gateway.error(&format!("spec.listeners[{index}].protocol"), message).help(help),
                    );
                    continue;
                }
                _ => {}
            }
            targets.push(Target {
                gateway,
                listener,
                port: 0,
                authority: authority(gateway, listener, &targets),
                client,
                certificates,
                settings: settings.clone(),
                access_logs: access_logs.clone(),
            });
        }
    }
    number(targets, options, diagnostics)
}

fn authority(gateway: &Located<Gateway>, listener: &Listener, taken: &[Target<'_>]) -> String {
    let mut authority = format!("{}.{}.{}", listener.name, gateway.name(), gateway.namespace());
    // Names may have dots, so that two listeners can come to the same; the processor must still tell them apart.
    while taken.iter().any(|target| target.authority == authority) {
        authority.push_str(".x");
    }
    authority
}

fn check_class(gateway: &Located<Gateway>, snapshot: &Snapshot, diagnostics: &mut Diagnostics) {
    const FIELD: &str = "spec.gatewayClassName";
    let name = &gateway.spec.gateway_class_name;
    match snapshot.gateway_classes.get("", name) {
        Some(class) if class.spec.controller_name != CONTROLLER => {
            let message = format!("the controller of this class is `{}`", class.spec.controller_name);
            let help =
                format!("a cluster serves its Gateways with this project only if it is `{CONTROLLER}`");
            diagnostics.push(class.warning("spec.controllerName", message).help(help));
        }
        Some(_) => {}
        None => {
            let message =
                format!("there is no GatewayClass `{name}`; the Gateway is served here all the same");
            let help = suggest(name, snapshot.gateway_classes.names_in(""));
            diagnostics.push(gateway.warning(FIELD, message).help(help));
        }
    }
}

/// Gives every listener its port, and leaves out those that cannot have one.
fn number<'a>(
    targets: Vec<Target<'a>>,
    options: &CompileOptions,
    diagnostics: &mut Diagnostics,
) -> (Vec<Target<'a>>, bool) {
    let (overrides, mut fit) = overrides(&targets, options, diagnostics);
    let mut numbered: Vec<Target<'a>> = Vec::new();
    for (index, mut target) in targets.into_iter().enumerate() {
        let next = u16::try_from(index).ok().and_then(|offset| options.first_port.checked_add(offset));
        let Some(port) = overrides.get(&index).copied().or(next) else {
            let message = format!("there is no port left for listener `{}`", target.listener.name);
            diagnostics.push(target.gateway.error("spec.listeners", message).help(listen_help(&target)));
            fit = false;
            continue;
        };
        if let Some(other) = numbered.iter().find(|other| port != 0 && other.port == port) {
            let message = format!(
                "listeners `{}` and `{}` would both be served on port {port} of this machine",
                other.listener.name, target.listener.name
            );
            diagnostics.push(target.gateway.error("spec.listeners", message).help(listen_help(&target)));
            fit = false;
            continue;
        }
        target.port = port;
        numbered.push(target);
    }
    (numbered, fit)
}

fn listen_help(target: &Target<'_>) -> String {
    format!("choose another with --listen {}/{}=PORT", target.gateway.name(), target.listener.name)
}

/// Ports that were chosen, by the listener's index, and whether every choice names one listener.
fn overrides(
    targets: &[Target<'_>],
    options: &CompileOptions,
    diagnostics: &mut Diagnostics,
) -> (BTreeMap<usize, u16>, bool) {
    let (mut chosen, mut fit) = (BTreeMap::new(), true);
    for choice in &options.ports {
        let fits = |target: &&Target<'_>| names(target).contains(&choice.listener);
        let found: Vec<usize> =
            targets.iter().enumerate().filter(|(_, target)| fits(target)).map(|(i, _)| i).collect();
        match found.as_slice() {
            [index] => {
                chosen.insert(*index, choice.port);
            }
            [] => {
                fit = false;
                let known: Vec<&str> = targets.iter().map(|target| target.listener.name.as_str()).collect();
                let message =
                    format!("--listen {}={}: there is no such listener", choice.listener, choice.port);
                diagnostics
                    .push(Diagnostic::error(message).help(suggest(&choice.listener, known.iter().copied())));
            }
            several => {
                fit = false;
                let message =
                    format!("--listen {}={}: several listeners have this name", choice.listener, choice.port);
                let full = several
                    .iter()
                    .filter_map(|index| targets.get(*index))
                    .map(|target| names(target)[2].clone());
                let help = format!("use one of {}", full.collect::<Vec<_>>().join(", "));
                diagnostics.push(Diagnostic::error(message).help(help));
            }
        }
    }
    (chosen, fit)
}

/// The names `--listen` takes for a listener, the shortest first.
fn names(target: &Target<'_>) -> [String; 3] {
    let (gateway, listener) = (target.gateway, &target.listener.name);
    [
        listener.clone(),
        format!("{}/{listener}", gateway.name()),
        format!("{}/{}/{listener}", gateway.namespace(), gateway.name()),
    ]
}

/// The listeners as the runner and the user see them.
pub(super) fn describe(targets: &[Target<'_>], plan: &Plan) -> Vec<super::Listener> {
    let describe = |(target, plan): (&Target<'_>, &super::plan::ListenerPlan)| {
        let all = names(target);
        let unambiguous =
            all.iter().find(|name| targets.iter().filter(|other| names(other).contains(name)).count() == 1);
        let models = plan.models.all.iter().map(|model| model.name.clone());
        let served = plan.rules.iter().filter(|rule| matches!(rule.action, Action::Forward(_)));
        super::Listener {
            id: plan.full_name(),
            name: unambiguous.unwrap_or(&all[2]).clone(),
            port: target.port,
            hostname: concrete_hostname(plan),
            tls: !plan.certificates.is_empty(),
            rules: served.count(),
            models: models.collect(),
            described: plan.rules.iter().map(describe_rule).collect(),
        }
    };
    targets.iter().zip(&plan.listeners).map(describe).collect()
}

fn describe_rule(rule: &super::plan::RulePlan) -> RuleDescription {
    let fate = match rule.action {
        Action::Forward(_) => RuleFate::Forwarded(rule.destinations.clone()),
        Action::Refuse => RuleFate::Refused,
        Action::NoBackend => RuleFate::NoBackend,
    };
    RuleDescription { route: rule.route.clone(), index: rule.index, fate }
}

/// A name under which the listener serves something, if it does not serve any name.
fn concrete_hostname(plan: &super::plan::ListenerPlan) -> Option<String> {
    let first = plan.hosts.first()?;
    if plan.hosts.iter().any(|host| host.hostname == "*") {
        return None;
    }
    Some(first.hostname.replace('*', "www"))
}
