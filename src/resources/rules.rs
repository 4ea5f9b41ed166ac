//! Rules about several fields at once, which no schema can say. They are those of the CRDs' CEL rules and list types.

use std::{collections::BTreeSet, time::Duration};

use super::{
    aigateway::{
        AIGatewayRoute, AIGatewayRouteRule, AIGatewayRouteRuleBackendRef, AIServiceBackend, GatewayConfig,
        HTTPBodyMutation, HTTPHeaderMutation, LLMRequestCost,
    },
    core::{ConfigMap, Deployment, Secret, Service},
    envoy_gateway::{
        Backend, BackendType, ClientTrafficPolicy, EnvoyProxy, ProxyAccessLogFormatType,
        ProxyAccessLogSetting, ProxyAccessLogSinkType,
    },
    gateway_api::{
        BackendTLSPolicy, FromNamespaces, Gateway, GatewayClass, ReferenceGrant, SubjectAltNameType,
    },
    mcp::MCPRoute,
    neighbours::{EnvoyExtensionPolicy, HTTPRoute},
    quota_policy::QuotaPolicy,
    security::{BackendSecurityPolicy, BackendSecurityPolicyType as Credential},
    security_policy::{SecurityPolicy, TenantPolicy},
    traffic::{
        ActiveHealthCheckType, BackendTrafficPolicy, ConsistentHashType, HTTP2Settings, LoadBalancerType,
    },
    types::PolicyTargetReference,
    usage_limit::UsageLimit,
};
use crate::config::CostType;

/// Takes a field, what is wrong with it, and what to do (may be empty).
pub(super) type Report<'a> = &'a mut dyn FnMut(&str, String, String);

/// What must hold for a kind beyond its schema.
pub(super) trait Rules {
    fn check(&self, _report: Report<'_>) {}

    /// What must hold where an API server keeps the object and others serve it too.
    fn check_stored(&self, report: Report<'_>) {
        self.check(report);
    }
}

impl Rules for EnvoyExtensionPolicy {}
impl Rules for HTTPRoute {}

impl Rules for GatewayClass {}
impl Rules for ReferenceGrant {}
impl Rules for Secret {}
impl Rules for ConfigMap {}
impl Rules for Service {}
impl Rules for Deployment {}

impl Rules for AIGatewayRoute {
    fn check(&self, report: Report<'_>) {
        for (index, parent) in self.spec.parent_refs.iter().enumerate() {
            if parent.kind != "Gateway" || parent.group != "gateway.networking.k8s.io" {
                let message = format!("a route cannot attach to a {}", parent.kind);
                report(&format!("spec.parentRefs[{index}].kind"), message, "name a Gateway".to_owned());
            }
        }
        let mut names = BTreeSet::new();
        for (index, rule) in self.spec.rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            match rule.name.as_deref() {
                Some("route-not-found") => {
                    let help = "it names the answer to requests that no rule matches".to_owned();
                    report(
                        &format!("{path}.name"),
                        "the rule name `route-not-found` is taken".to_owned(),
                        help,
                    );
                }
                Some(name) if !names.insert(name) => {
                    let help = "give each rule of a route its own name, or none".to_owned();
                    report(&format!("{path}.name"), format!("two rules have the name `{name}`"), help);
                }
                _ => {}
            }
            check_rule(rule, &path, report);
        }
        check_costs(&self.spec.llm_request_costs, "spec.llmRequestCosts", report);
    }
}

impl Rules for GatewayConfig {
    fn check(&self, report: Report<'_>) {
        const LIST: &str = "spec.globalLLMRequestCosts";
        let costs = &self.spec.global_llm_request_costs;
        unique(costs.iter().map(|cost| cost.metadata_key.as_str()), LIST, "metadataKey", report);
        check_costs(costs, LIST, report);
    }
}

fn check_costs(costs: &[LLMRequestCost], list: &str, report: Report<'_>) {
    for (index, cost) in costs.iter().enumerate() {
        if cost.kind == CostType::Cel && cost.cel.as_deref().unwrap_or_default().is_empty() {
            let help = "write an expression, such as `cel: input_tokens + output_tokens`".to_owned();
            let field = format!("{list}[{index}].cel");
            report(&field, "a cost of type CEL needs an expression".to_owned(), help);
        }
    }
}

fn check_rule(rule: &AIGatewayRouteRule, path: &str, report: Report<'_>) {
    for (index, item) in rule.matches.iter().enumerate() {
        let names = item.headers.iter().map(|header| header.name.as_str());
        unique(names, &format!("{path}.matches[{index}].headers"), "name", report);
    }
    let pools = rule.backend_refs.iter().filter(|backend| !is_service_backend(backend)).count();
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{index}]");
        check_backend_ref(backend, &path, report);
        if pools > 0 && rule.backend_refs.len() > 1 && !is_service_backend(backend) {
            let help = "leave it alone in its rule, and put the others in rules of their own".to_owned();
            report(&path, "an InferencePool must be the only backend of its rule".to_owned(), help);
            break;
        }
    }
    if let (Some(request), Some(attempt)) = (rule.timeouts.request, rule.timeouts.backend_request)
        && request.0 > Duration::ZERO
        && attempt > request
    {
        let message = "one attempt cannot take longer than the whole request".to_owned();
        let help = "make `backendRequest` at most `request`".to_owned();
        report(&format!("{path}.timeouts.backendRequest"), message, help);
    }
}

/// Group and kind are absent, or both empty.
fn is_service_backend(backend: &AIGatewayRouteRuleBackendRef) -> bool {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    empty(&backend.group) && empty(&backend.kind)
}

fn check_backend_ref(backend: &AIGatewayRouteRuleBackendRef, path: &str, report: Report<'_>) {
    let (group, kind) =
        (backend.group.as_deref().unwrap_or_default(), backend.kind.as_deref().unwrap_or_default());
    let service_backend = group.is_empty() && kind.is_empty();
    if !service_backend && (group, kind) != ("inference.networking.k8s.io", "InferencePool") {
        let message = format!("a route cannot refer to {kind} of `{group}`");
        let help = "leave `group` and `kind` out for an AIServiceBackend; the only other kind is InferencePool of \
                    `inference.networking.k8s.io`";
        report(&format!("{path}.kind"), message, help.to_owned());
    }
    check_mutations(backend.header_mutation.as_ref(), backend.body_mutation.as_ref(), path, report);
}

fn check_mutations(
    headers: Option<&HTTPHeaderMutation>,
    body: Option<&HTTPBodyMutation>,
    path: &str,
    report: Report<'_>,
) {
    if let Some(headers) = headers {
        let names = headers.set.iter().map(|header| header.name.as_str());
        unique(names, &format!("{path}.headerMutation.set"), "name", report);
    }
    if let Some(body) = body {
        let paths = body.set.iter().map(|field| field.path.as_str());
        unique(paths, &format!("{path}.bodyMutation.set"), "path", report);
    }
}

pub(super) fn unique<'a>(values: impl Iterator<Item = &'a str>, list: &str, key: &str, report: Report<'_>) {
    let mut seen = BTreeSet::new();
    for (index, value) in values.enumerate() {
        if !seen.insert(value) {
            let help = format!("each {key} can be in this list once");
            report(&format!("{list}[{index}].{key}"), format!("`{value}` is in the list twice"), help);
        }
    }
}

impl Rules for AIServiceBackend {
    fn check(&self, report: Report<'_>) {
        let target = &self.spec.backend_ref;
        if (target.group.as_str(), target.kind.as_str()) != ("gateway.envoyproxy.io", "Backend") {
            let message = format!("an AIServiceBackend cannot refer to a {}", target.kind);
            let help = "name a Backend: `kind: Backend`, `group: gateway.envoyproxy.io`".to_owned();
            report("spec.backendRef.kind", message, help);
        }
        check_mutations(self.spec.header_mutation.as_ref(), self.spec.body_mutation.as_ref(), "spec", report);
    }
}

impl Rules for BackendSecurityPolicy {
    fn check(&self, report: Report<'_>) {
        let spec = &self.spec;
        let fields = [
            (Credential::APIKey, "apiKey", spec.api_key.is_some()),
            (Credential::AnthropicAPIKey, "anthropicAPIKey", spec.anthropic_api_key.is_some()),
            (Credential::AzureAPIKey, "azureAPIKey", spec.azure_api_key.is_some()),
            (Credential::AzureCredentials, "azureCredentials", spec.azure_credentials.is_some()),
            (Credential::AWSCredentials, "awsCredentials", spec.aws_credentials.is_some()),
            (Credential::GCPCredentials, "gcpCredentials", spec.gcp_credentials.is_some()),
        ];
        for (kind, name, set) in fields {
            let field = format!("spec.{name}");
            if kind == spec.kind && !set {
                let help = format!("add `{name}` or change `type`");
                report(&field, format!("type {kind:?} needs `{name}`"), help);
            }
            if kind != spec.kind && set {
                let help = format!("remove `{name}` or write `type: {kind:?}`");
                report(&field, format!("`{name}` cannot go with type {:?}", spec.kind), help);
            }
        }
        if let Some(written) = &spec.credential_override
            && written.from_request_headers.is_some() == written.from_dynamic_metadata.is_some()
        {
            let message =
                "there must be exactly one of `fromRequestHeaders` and `fromDynamicMetadata`".to_owned();
            report("spec.credentialOverride", message, String::new());
        }
        if let Some(azure) = &spec.azure_credentials
            && azure.client_secret_ref.is_some() == azure.oidc_exchange_token.is_some()
        {
            let message = "there must be exactly one of `clientSecretRef` and `oidcExchangeToken`".to_owned();
            report("spec.azureCredentials", message, String::new());
        }
        if let Some(gcp) = &spec.gcp_credentials
            && gcp.credentials_file.is_some()
            && gcp.workload_identity_federation_config.is_some()
        {
            let message =
                "there can be one of `credentialsFile` and `workloadIdentityFederationConfig`".to_owned();
            report("spec.gcpCredentials", message, String::new());
        }
        for (index, target) in spec.target_refs.iter().enumerate() {
            let known = matches!(
                (target.group.as_str(), target.kind.as_str()),
                ("aigateway.envoyproxy.io", "AIServiceBackend")
                    | ("inference.networking.k8s.io", "InferencePool")
            );
            if !known {
                let message = format!("this policy cannot apply to {} of `{}`", target.kind, target.group);
                let help = "name an AIServiceBackend of `aigateway.envoyproxy.io`".to_owned();
                report(&format!("spec.targetRefs[{index}].kind"), message, help);
            }
        }
    }
}

impl Rules for Backend {
    fn check(&self, report: Report<'_>) {
        let endpoints = &self.spec.endpoints;
        for (index, endpoint) in endpoints.iter().enumerate() {
            let given = [endpoint.fqdn.is_some(), endpoint.ip.is_some(), endpoint.unix.is_some()];
            if given.iter().filter(|given| **given).count() != 1 {
                let message = "an endpoint needs exactly one of `fqdn`, `ip` and `unix`".to_owned();
                report(&format!("spec.endpoints[{index}]"), message, String::new());
            }
        }
        let named = endpoints.iter().filter(|endpoint| endpoint.fqdn.is_some()).count();
        if named > 0 && named < endpoints.len() {
            let help = "make a Backend for the names and another for the addresses".to_owned();
            report("spec.endpoints", "`fqdn` endpoints cannot be mixed with others".to_owned(), help);
        }
        match self.spec.kind {
            BackendType::Endpoints if endpoints.is_empty() => {
                let help = "add one, such as `- fqdn: {hostname: api.example.com, port: 443}`".to_owned();
                report("spec.endpoints", "a Backend needs at least one endpoint".to_owned(), help);
            }
            BackendType::DynamicResolver if !endpoints.is_empty() => {
                let help = "remove them or the type".to_owned();
                report("spec.endpoints", "a DynamicResolver has no endpoints".to_owned(), help);
            }
            _ => {}
        }
        if let Some(tls) = &self.spec.tls {
            let sources = [
                !tls.ca_certificate_refs.is_empty(),
                tls.well_known_ca_certificates.is_some(),
                tls.insecure_skip_verify,
            ];
            if sources.iter().filter(|given| **given).count() > 1 {
                let message = "there can be one of `caCertificateRefs`, `wellKnownCACertificates` and \
                               `insecureSkipVerify`";
                report("spec.tls", message.to_owned(), String::new());
            }
        }
    }
}

impl Rules for BackendTLSPolicy {
    fn check(&self, report: Report<'_>) {
        let validation = &self.spec.validation;
        if validation.ca_certificate_refs.is_empty() == validation.well_known_ca_certificates.is_none() {
            let message =
                "there must be exactly one of `caCertificateRefs` and `wellKnownCACertificates`".to_owned();
            let help = "for a public provider write `wellKnownCACertificates: System`".to_owned();
            report("spec.validation", message, help);
        }
        for (index, name) in validation.subject_alt_names.iter().enumerate() {
            let (needed, right) = match name.kind {
                SubjectAltNameType::Hostname => ("hostname", name.hostname.is_some() && name.uri.is_none()),
                SubjectAltNameType::Uri => ("uri", name.uri.is_some() && name.hostname.is_none()),
            };
            if !right {
                let field = format!("spec.validation.subjectAltNames[{index}]");
                report(&field, format!("a name of this type has `{needed}` and nothing else"), String::new());
            }
        }
    }
}

impl Rules for Gateway {
    fn check(&self, report: Report<'_>) {
        let names = self.spec.listeners.iter().map(|listener| listener.name.as_str());
        unique(names, "spec.listeners", "name", report);
        let mut seen = BTreeSet::new();
        for (index, listener) in self.spec.listeners.iter().enumerate() {
            if !seen.insert((listener.port, &listener.protocol, &listener.hostname)) {
                let help = "give each its own port or host name".to_owned();
                let message = "another listener has the same port, protocol and host name".to_owned();
                report(&format!("spec.listeners[{index}].port"), message, help);
            }
            let namespaces = &listener.allowed_routes.namespaces;
            if namespaces.from == FromNamespaces::Selector && namespaces.selector.is_none() {
                let field = format!("spec.listeners[{index}].allowedRoutes.namespaces.selector");
                report(&field, "`from: Selector` needs a `selector`".to_owned(), String::new());
            }
        }
    }
}

impl Rules for ClientTrafficPolicy {
    fn check(&self, report: Report<'_>) {
        check_targets(
            self.spec.target_ref.as_ref(),
            &self.spec.target_refs,
            &["Gateway", "ListenerSet"],
            report,
        );
        check_windows(self.spec.http2.as_ref(), report);
    }
}

impl Rules for BackendTrafficPolicy {
    fn check(&self, report: Report<'_>) {
        const KINDS: [&str; 6] = ["Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "UDPRoute"];
        let spec = &self.spec;
        check_targets(spec.target_ref.as_ref(), &spec.target_refs, &KINDS, report);
        check_windows(spec.http2.as_ref(), report);
        if let Some(balancer) = &spec.load_balancer {
            let hashed = balancer.consistent_hash.as_ref();
            if (balancer.kind == LoadBalancerType::ConsistentHash) != hashed.is_some() {
                let message = "`consistentHash` goes with type ConsistentHash, and only with it".to_owned();
                report("spec.loadBalancer.consistentHash", message, String::new());
            }
            let missing = hashed.is_some_and(|hash| match hash.kind {
                ConsistentHashType::Header => hash.header.is_none(),
                ConsistentHashType::Headers => hash.headers.is_empty(),
                _ => false,
            });
            if missing {
                let message = "the header that is hashed is not named".to_owned();
                let help = "write `header: {name: …}` with `type: Header`".to_owned();
                report("spec.loadBalancer.consistentHash", message, help);
            }
        }
        let active = spec.health_check.as_ref().and_then(|check| check.active.as_ref());
        if let Some(active) = active
            && (active.kind == ActiveHealthCheckType::HTTP) != active.http.is_some()
        {
            let message = "`http` goes with type HTTP, and only with it".to_owned();
            report("spec.healthCheck.active.http", message, String::new());
        }
    }
}

/// HTTP/2 has a range for windows.
fn check_windows(http2: Option<&HTTP2Settings>, report: Report<'_>) {
    let Some(http2) = http2 else { return };
    let sizes = [
        ("initialStreamWindowSize", http2.initial_stream_window_size),
        ("initialConnectionWindowSize", http2.initial_connection_window_size),
    ];
    for (name, size) in sizes {
        if size.is_some_and(|size| !(65_535..=2_147_483_647).contains(&size.0)) {
            let message = "a window has from 65535 bytes up to 2Gi less one byte".to_owned();
            report(&format!("spec.http2.{name}"), message, "give a size such as 1Mi".to_owned());
        }
    }
}

impl Rules for SecurityPolicy {
    fn check(&self, report: Report<'_>) {
        super::security_policy::check(&self.spec, report);
    }

    /// Envoy Gateway serves all of it.
    fn check_stored(&self, _report: Report<'_>) {}
}

impl Rules for TenantPolicy {
    fn check(&self, report: Report<'_>) {
        super::security_policy::check_tenants(&self.spec, report);
    }
}

impl Rules for MCPRoute {
    fn check(&self, report: Report<'_>) {
        super::mcp::check(&self.spec, report);
    }
}

impl Rules for QuotaPolicy {
    fn check(&self, report: Report<'_>) {
        super::quota_policy::check(&self.spec, report);
    }
}

impl Rules for UsageLimit {
    fn check(&self, report: Report<'_>) {
        super::usage_limit::check(&self.spec, report);
    }
}

fn check_targets(
    one: Option<&PolicyTargetReference>,
    several: &[PolicyTargetReference],
    kinds: &[&str],
    report: Report<'_>,
) {
    if one.is_some() && !several.is_empty() {
        let message = "there can be one of `targetRef` and `targetRefs`".to_owned();
        report("spec.targetRef", message, "move it into `targetRefs`".to_owned());
    }
    let targets = several.iter().enumerate();
    let targets = targets.map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    for (path, target) in targets.chain(one.map(|one| ("spec.targetRef".to_owned(), one))) {
        if !kinds.contains(&target.kind.as_str()) || target.group != "gateway.networking.k8s.io" {
            let message = format!("this policy cannot apply to {} of `{}`", target.kind, target.group);
            let help = if kinds.contains(&"HTTPRoute") {
                "name a Gateway or an HTTPRoute of `gateway.networking.k8s.io`; an AIGatewayRoute is targeted as \
                 the HTTPRoute of the same name"
            } else {
                "name a Gateway of `gateway.networking.k8s.io`"
            };
            report(&format!("{path}.kind"), message, help.to_owned());
        }
    }
}

impl Rules for EnvoyProxy {
    fn check(&self, report: Report<'_>) {
        let logs = self.spec.telemetry.iter().flat_map(|telemetry| &telemetry.access_log);
        for (index, setting) in logs.flat_map(|log| &log.settings).enumerate() {
            check_access_log(setting, &format!("spec.telemetry.accessLog.settings[{index}]"), report);
        }
    }
}

fn check_access_log(setting: &ProxyAccessLogSetting, path: &str, report: Report<'_>) {
    if let Some(format) = &setting.format {
        let right = match (format.kind, &format.text, &format.json) {
            (Some(ProxyAccessLogFormatType::Text), text, json) => text.is_some() && json.is_none(),
            (Some(ProxyAccessLogFormatType::Json), text, json) => json.is_some() && text.is_none(),
            (None, text, json) => text.is_some() || json.is_some(),
        };
        if !right {
            let message = "a format has `text` with `type: Text`, or `json` with `type: JSON`".to_owned();
            report(&format!("{path}.format"), message, String::new());
        }
    }
    for (index, sink) in setting.sinks.iter().enumerate() {
        let is_file = matches!(sink.kind, Some(ProxyAccessLogSinkType::File));
        if is_file != sink.file.is_some() && (is_file || sink.kind.is_some()) {
            let message = "a sink has `file` exactly if it is of `type: File`".to_owned();
            report(&format!("{path}.sinks[{index}]"), message, String::new());
        }
    }
}
