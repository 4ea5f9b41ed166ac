//! Conditions: upstream's `Accepted` or `NotAccepted`, and `ResolvedRefs`.

use std::collections::{BTreeMap, BTreeSet};

use crate::compile::routes::AttachedRoute;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::resources::aigateway::AIGatewayRoute;
use crate::resources::{Located, Snapshot};

use super::identities::Unknown;
use super::serve::Refusal;
use super::{Condition, ObjectStatus};

/// The longest message that Kubernetes keeps, in bytes here.
const MOST: usize = 32_768;

const GROUP: &str = "aigateway.envoyproxy.io/v1beta1";

/// What is known of a route, over all its Gateways.
#[derive(Default)]
pub(super) struct RouteReport {
    /// Gateways it is served on.
    pub(super) gateways: BTreeSet<String>,
    pub(super) refusals: Vec<(String, Refusal)>,
    /// What keeps all of it from being served.
    pub(super) problems: Vec<String>,
}

/// The conditions of all objects of users that have any.
pub(super) fn of_all(
    snapshot: &Snapshot,
    reports: &BTreeMap<String, RouteReport>,
    unknown: &Unknown,
    diagnostics: &Diagnostics,
) -> Vec<ObjectStatus> {
    let found = Found::new(diagnostics);
    let mut all = Vec::new();
    let none = RouteReport::default();
    for route in &snapshot.ai_gateway_routes {
        let report = reports.get(&format!("{}/{}", route.namespace(), route.name())).unwrap_or(&none);
        all.push(of_route(snapshot, route, report, &found));
    }
    macro_rules! plain {
        ($field:ident, $kind:literal, $version:expr) => {
            all.extend(snapshot.$field.iter().map(|object| found.of_object(object, $kind, $version)));
        };
    }
    plain!(ai_service_backends, "AIServiceBackend", GROUP);
    plain!(backend_security_policies, "BackendSecurityPolicy", GROUP);
    plain!(gateway_configs, "GatewayConfig", GROUP);
    plain!(quota_policies, "QuotaPolicy", "aigateway.envoyproxy.io/v1alpha1");
    plain!(usage_limits, "UsageLimit", "ext.aigateway.envoyproxy.io/v1alpha1");
    all.extend(snapshot.tenant_policies.iter().map(|policy| {
        let mut status = found.of_object(policy, "TenantPolicy", "ext.aigateway.envoyproxy.io/v1alpha1");
        let name = (policy.namespace().to_owned(), policy.name().to_owned());
        status.conditions.push(identified(unknown.get(&name)));
        status
    }));
    all.extend(snapshot.mcp_routes.iter().map(|route| {
        let mut status = found.of_object(route, "MCPRoute", GROUP);
        status.conditions.push(Condition {
            kind: "Programmed",
            status: false,
            reason: "NotYetServed",
            message: "it is valid, and nothing serves MCPRoutes yet".to_owned(),
        });
        status
    }));
    all
}

/// Findings by what they are about.
struct Found<'a>(BTreeMap<&'a str, Vec<&'a Diagnostic>>);

impl<'a> Found<'a> {
    fn new(diagnostics: &'a Diagnostics) -> Self {
        let mut found: BTreeMap<&str, Vec<&Diagnostic>> = BTreeMap::new();
        for finding in diagnostics {
            if let Some(resource) = &finding.resource {
                found.entry(resource).or_default().push(finding);
            }
        }
        Self(found)
    }

    fn about(&self, id: &str) -> &[&'a Diagnostic] {
        self.0.get(id).map(Vec::as_slice).unwrap_or_default()
    }

    fn of_object<T>(
        &self,
        object: &Located<T>,
        kind: &'static str,
        api_version: &'static str,
    ) -> ObjectStatus {
        let about = self.about(&object.id());
        let errors: Vec<String> = about.iter().filter(|it| it.is_error()).map(|it| said(it)).collect();
        let warnings: Vec<String> = about.iter().filter(|it| !it.is_error()).map(|it| said(it)).collect();
        let refers = matches!(kind, "AIServiceBackend" | "BackendSecurityPolicy");
        let mut conditions = vec![accepted(kind, &errors, &warnings)];
        if refers {
            let broken: Vec<String> =
                about.iter().filter(|it| it.is_error() && is_reference(it)).map(|it| said(it)).collect();
            conditions.push(resolved(&broken));
        }
        ObjectStatus {
            api_version,
            kind,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            generation: object.metadata.generation,
            conditions,
            gateways: Vec::new(),
        }
    }
}

fn of_route(
    snapshot: &Snapshot,
    route: &Located<AIGatewayRoute>,
    report: &RouteReport,
    found: &Found<'_>,
) -> ObjectStatus {
    let about = found.about(&route.id());
    let mut errors: Vec<String> = about.iter().filter(|it| it.is_error()).map(|it| said(it)).collect();
    let mut warnings: Vec<String> = about.iter().filter(|it| !it.is_error()).map(|it| said(it)).collect();
    let mut broken: Vec<String> =
        about.iter().filter(|it| it.is_error() && is_reference(it)).map(|it| said(it)).collect();
    errors.extend(report.problems.iter().cloned());
    for (gateway, refusal) in &report.refusals {
        let mut message = format!("rules[{}] on {gateway}: {}", refusal.rule, refusal.message);
        if refusal.reference {
            let part = format!("spec.rules[{}].backendRefs[", refusal.rule);
            let own = about.iter().filter(|it| it.field.as_deref().is_some_and(|it| it.starts_with(&part)));
            let own: Vec<String> = own.map(|it| said(it)).collect();
            warnings.retain(|said| !own.contains(said));
            for why in own {
                message = format!("{message}; {why}");
            }
            for why in of_backends(snapshot, route, refusal.rule, found) {
                message = format!("{message}; {why}");
            }
            broken.push(message.clone());
        }
        errors.push(message);
    }
    if report.gateways.is_empty() && errors.is_empty() {
        // What keeps it from attaching is said as warnings, as files need not be complete.
        errors.append(&mut warnings);
        if errors.is_empty() {
            errors.push("the route attaches to no Gateway".to_owned());
        }
    }
    ObjectStatus {
        api_version: GROUP,
        kind: "AIGatewayRoute",
        namespace: route.namespace().to_owned(),
        name: route.name().to_owned(),
        generation: route.metadata.generation,
        conditions: vec![accepted("AIGatewayRoute", &errors, &warnings), resolved(&broken)],
        gateways: report.gateways.iter().cloned().collect(),
    }
}

/// What is wrong with the backends of a rule, each once.
fn of_backends(
    snapshot: &Snapshot,
    route: &Located<AIGatewayRoute>,
    rule: usize,
    found: &Found<'_>,
) -> Vec<String> {
    let mut ids = Vec::new();
    let references = route.spec.rules.get(rule).map(|rule| rule.backend_refs.as_slice()).unwrap_or_default();
    for reference in references {
        let namespace = reference.namespace.as_deref().unwrap_or_else(|| route.namespace());
        let Some(backend) = snapshot.ai_service_backends.get(namespace, &reference.name) else { continue };
        ids.push(backend.id());
        let policies = snapshot.backend_security_policies.iter().filter(|policy| {
            policy.namespace() == namespace
                && policy.spec.target_refs.iter().any(|target| target.name == reference.name)
        });
        ids.extend(policies.map(Located::id));
    }
    let mut told = BTreeSet::new();
    let findings = ids.iter().flat_map(|id| found.about(id).iter().map(move |finding| (id, finding)));
    findings
        .filter(|(_, finding)| finding.is_error() || finding.field.as_deref() == Some("spec.schema.name"))
        .map(|(id, finding)| format!("{id}: {}", said(finding)))
        .filter(|text| told.insert(text.clone()))
        .collect()
}

/// Whether a finding is about something that is referred to.
fn is_reference(finding: &Diagnostic) -> bool {
    finding.field.as_deref().is_some_and(|field| {
        ["backendRef", "secretRef", "SecretRef", "targetRefs", "parentRefs"]
            .iter()
            .any(|part| field.contains(part))
    })
}

fn said(finding: &Diagnostic) -> String {
    let Diagnostic { field, message, help, .. } = finding;
    let mut text = match field {
        Some(field) if !field.is_empty() => format!("{field}: {message}"),
        _ => message.clone(),
    };
    if let Some(help) = help {
        text = format!("{text} ({help})");
    }
    text
}

/// Upstream's condition. A GatewayConfig has reasons of its own there.
fn accepted(kind: &str, errors: &[String], warnings: &[String]) -> Condition {
    let own = kind == "GatewayConfig";
    if errors.is_empty() {
        let reason = if own { "Accepted" } else { "ReconciliationSucceeded" };
        let message = if warnings.is_empty() {
            "everything that it asks for is served".to_owned()
        } else {
            joined(warnings)
        };
        return Condition { kind: "Accepted", status: true, reason, message };
    }
    let reason = if own { "NotAccepted" } else { "ReconciliationFailed" };
    Condition { kind: "NotAccepted", status: false, reason, message: joined(errors) }
}

fn resolved(broken: &[String]) -> Condition {
    match broken {
        [] => Condition {
            kind: "ResolvedRefs",
            status: true,
            reason: "ResolvedRefs",
            message: "everything that it refers to is there".to_owned(),
        },
        broken => {
            let message = joined(broken);
            let refused = message.contains("does not allow");
            let reason = if refused { "RefNotPermitted" } else { "BackendNotFound" };
            Condition { kind: "ResolvedRefs", status: false, reason, message }
        }
    }
}

/// Whether the clients that Envoy knows are known to the processors.
fn identified(unknown: Option<&BTreeSet<String>>) -> Condition {
    let (reason, message) = match unknown {
        None => ("Resolved", "whom Envoy knows is known to the processors".to_owned()),
        Some(ways) => {
            let ways = ways.iter().cloned().collect::<Vec<_>>().join(", ");
            let message = format!(
                "clients count as anonymous who prove who they are by {ways}: Envoy Gateway tells the processors of verified tokens (jwt) only; use those, or keys of the gateway's own (gatewayKey)"
            );
            ("NotCarried", message)
        }
    };
    Condition { kind: "IdentityResolved", status: unknown.is_none(), reason, message }
}

fn joined(messages: &[String]) -> String {
    let mut text = messages.join("\n");
    text.truncate(text.floor_char_boundary(MOST));
    text
}

/// The routes that are reported on, by name.
pub(super) fn reports(attached: &[AttachedRoute<'_>]) -> BTreeMap<String, RouteReport> {
    attached.iter().map(|route| (route.name.clone(), RouteReport::default())).collect()
}
