//! From what is watched to what is to be: pure, and run beside the reactor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::object::Stored;
use super::plan::{Id, Prepared};
use super::store::View;
use crate::compile::RoutingSecret;
use crate::compile::kubernetes::{self, Applied, KubernetesOptions, ObjectStatus, Programme};
use crate::config::Revealed;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::exchange::ROUTING_HEADER;
use crate::resources::{Memory, Snapshot, Source};

/// The kinds whose status is ours to write.
pub(super) const OWN_KINDS: [&str; 8] = [
    "AIGatewayRoute",
    "AIServiceBackend",
    "BackendSecurityPolicy",
    "GatewayConfig",
    "MCPRoute",
    "QuotaPolicy",
    "TenantPolicy",
    "UsageLimit",
];

/// What is compiled. Equal ones give the same result.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs {
    texts: Vec<(&'static str, Id, Arc<str>)>,
    /// Our HTTPRoutes: which, and which edition of each.
    routes: Vec<(Arc<Stored>, String, i64)>,
}

impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        // A text that did not change is the same text: see `Stored::share_text`.
        let texts =
            self.texts.len() == other.texts.len()
                && self.texts.iter().zip(&other.texts).all(|(one, other)| {
                    one.1 == other.1 && (Arc::ptr_eq(&one.2, &other.2) || one.2 == other.2)
                });
        let routes = |inputs: &Self| -> Vec<(String, i64)> {
            inputs.routes.iter().map(|(_, uid, generation)| (uid.clone(), *generation)).collect()
        };
        texts && routes(self) == routes(other)
    }
}

impl Inputs {
    /// Everything in a view that has a meaning.
    pub(super) fn of(view: &View) -> Self {
        let texts = view.iter().filter_map(|(kind, name, stored)| {
            let generated =
                stored.generated() && super::kinds::find(kind).is_some_and(|known| known.is_output());
            let text = stored.text().filter(|_| !generated)?;
            Some((kind, (kind.to_owned(), name.clone()), Arc::clone(text)))
        });
        let ours = view.kind("HTTPRoute").filter(|(_, stored)| stored.generated() && !stored.deleting());
        Self {
            texts: texts.collect(),
            routes: ours
                .map(|(_, stored)| (Arc::clone(stored), stored.uid().to_owned(), stored.generation()))
                .collect(),
        }
    }

    fn sources(&self) -> impl Iterator<Item = Source> {
        self.texts.iter().map(|(kind, (_, (namespace, name)), text)| {
            let place = if namespace.is_empty() {
                format!("{kind}/{name}")
            } else {
                format!("{kind}/{namespace}/{name}")
            };
            Source::new(&place, &**text)
        })
    }
}

/// What does not change while the controller runs.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) system_namespace: String,
    pub(super) root_prefix: String,
    pub(super) selector: BTreeMap<String, String>,
    pub(super) port: u16,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Compilation {
    pub(super) gateways: Vec<Gateway>,
    pub(super) objects: Vec<Arc<Prepared>>,
    pub(super) transitional: Option<Vec<Arc<Prepared>>>,
    pub(super) statuses: Vec<ObjectStatus>,
    /// Objects of ours that could not be read, and why.
    pub(super) unread: BTreeMap<Id, String>,
}

/// What processors of a Gateway are to serve.
#[derive(Debug)]
pub(super) struct Gateway {
    /// `namespace/name`.
    pub(super) id: String,
    /// What generated objects are labelled with.
    pub(super) label: String,
    pub(super) document: Revealed,
    /// Of the document.
    pub(super) digest: Vec<u8>,
    /// The routing keys in it.
    pub(super) keys: BTreeSet<String>,
}

/// Compiles. `memory` is what the last call read.
pub(super) fn compile(
    inputs: &Inputs,
    memory: &mut Memory,
    secret: RoutingSecret,
    settings: &Settings,
) -> Compilation {
    let (snapshot, findings) = memory.parse(inputs.sources(), &|_| None);
    let options = KubernetesOptions {
        secret,
        system_namespace: settings.system_namespace.clone(),
        root_prefix: settings.root_prefix.clone(),
        selector: settings.selector.clone(),
        port: settings.port,
        previous: Applied::new(inputs.routes.iter().map(|(stored, ..)| stored.value().clone())),
    };
    let Programme { gateways, objects, transitional, statuses, diagnostics } =
        kubernetes::programme(&snapshot, &options);
    for finding in diagnostics.iter() {
        let Diagnostic { message, resource, field, help, .. } = finding;
        tracing::debug!(resource, field, help, "{message}");
    }
    let prepare =
        |objects: Vec<kubernetes::Object>| objects.into_iter().map(|object| Arc::new(Prepared::new(object)));
    Compilation {
        gateways: gateways.into_iter().map(gateway).collect(),
        objects: prepare(objects).collect(),
        transitional: transitional.map(|objects| prepare(objects).collect()),
        statuses,
        unread: unread(inputs, &snapshot, &findings),
    }
}

fn gateway(gateway: kubernetes::GatewayProgramme) -> Gateway {
    let kubernetes::GatewayProgramme { id, authority, config } = gateway;
    let document = config.reveal();
    let rules = config.gateways.iter().flat_map(|gateway| &gateway.rules);
    Gateway {
        label: authority.split('.').next().unwrap_or_default().to_owned(),
        digest: digest(&SHA256, document.bytes()).as_ref().to_vec(),
        keys: rules.map(|rule| rule.routing_key.clone()).filter(|key| !key.is_empty()).collect(),
        id,
        document,
    }
}

/// Which objects of ours the snapshot lacks, with what was found in them.
fn unread(inputs: &Inputs, snapshot: &Snapshot, findings: &Diagnostics) -> BTreeMap<Id, String> {
    let mut messages: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for finding in findings.errors() {
        let Diagnostic { message, field, resource, help, .. } = finding;
        let Some(resource) = resource else { continue };
        let field = field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        let help = help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        messages.entry(resource).or_default().push(format!("{field}{message}{help}"));
    }
    let read = |kind: &str, namespace: &str, name: &str| match kind {
        "AIGatewayRoute" => snapshot.ai_gateway_routes.get(namespace, name).is_some(),
        "AIServiceBackend" => snapshot.ai_service_backends.get(namespace, name).is_some(),
        "BackendSecurityPolicy" => snapshot.backend_security_policies.get(namespace, name).is_some(),
        "GatewayConfig" => snapshot.gateway_configs.get(namespace, name).is_some(),
        "QuotaPolicy" => snapshot.quota_policies.get(namespace, name).is_some(),
        "TenantPolicy" => snapshot.tenant_policies.get(namespace, name).is_some(),
        "UsageLimit" => snapshot.usage_limits.get(namespace, name).is_some(),
        _ => true,
    };
    let own = inputs.texts.iter().filter(|(kind, ..)| OWN_KINDS.contains(kind));
    own.filter(|(kind, (_, (namespace, name)), _)| !read(kind, namespace, name))
        .map(|(kind, id, _)| {
            let (namespace, name) = &id.1;
            let found = messages.get(format!("{kind} {namespace}/{name}").as_str());
            (id.clone(), found.map_or_else(|| "it cannot be read".to_owned(), |found| found.join("; ")))
        })
        .collect()
}

/// The routing keys that an HTTPRoute has rules for.
pub(super) fn keys_of(route: &Stored) -> BTreeSet<String> {
    let list =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let spec = route.value().get("spec").cloned().unwrap_or_default();
    let mut keys = BTreeSet::new();
    for rule in list(&spec, "rules") {
        for matched in list(&rule, "matches") {
            for header in list(&matched, "headers") {
                let text = |field: &str| header.get(field).and_then(Value::as_str);
                if text("name").is_some_and(|name| name.eq_ignore_ascii_case(ROUTING_HEADER)) {
                    keys.extend(text("value").map(str::to_owned));
                }
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn backend(generation: i64, spec: Value) -> Value {
        json!({"apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "AIServiceBackend",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": generation}, "spec": spec})
    }

    fn good() -> Value {
        json!({"schema": {"name": "OpenAI"},
            "backendRef": {"name": "b", "kind": "Backend", "group": "gateway.envoyproxy.io"}})
    }

    fn settings() -> Settings {
        Settings {
            system_namespace: "s".to_owned(),
            root_prefix: "/".to_owned(),
            selector: BTreeMap::new(),
            port: 1063,
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_the_reason() {
        let inputs = Inputs::of(&View::of([backend(1, json!({"schema": {"name": "Nobody"}}))]));
        let compilation = compile(&inputs, &mut Memory::of_stored(), RoutingSecret([0; 32]), &settings());
        let id = ("AIServiceBackend".to_owned(), ("n".to_owned(), "a".to_owned()));
        let message = &compilation.unread[&id];
        assert!(message.contains("spec.schema.name: ") && message.contains("backendRef"), "{message}");
    }

    #[test]
    fn a_status_that_changes_is_no_reason_to_compile() {
        let mut object = backend(1, good());
        let first = Inputs::of(&View::of([object.clone()]));
        object["status"] = json!({"conditions": [{"type": "Accepted"}]});
        assert!(first == Inputs::of(&View::of([object.clone()])));
        object["metadata"]["generation"] = 2.into();
        assert!(first != Inputs::of(&View::of([object.clone()])));
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(Inputs::of(&View::of([object])) == Inputs::default());
    }

    #[test]
    fn what_was_generated_is_not_compiled_again() {
        let policy = |labels: Value| {
            json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "ClientTrafficPolicy",
                "metadata": {"name": "a", "namespace": "n", "labels": labels}, "spec": {}})
        };
        let ours = json!({"app.kubernetes.io/managed-by": "envoy-ai-gateway", "aigateway.envoyproxy.io/gateway": "g"});
        assert!(Inputs::of(&View::of([policy(ours)])) == Inputs::default());
        assert_eq!(Inputs::of(&View::of([policy(json!({}))])).texts.len(), 1);
    }

    #[test]
    fn keys_are_those_of_the_routing_header() {
        let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"rules": [
                {"matches": [{"headers": [{"name": "X-AI-EG-Route", "value": "k1"}, {"name": "x", "value": "no"}]}]},
                {"matches": [{"path": {"value": "/"}}]}, {}, 7]}});
        let stored = Stored::new(route, ("HTTPRoute", "gateway.networking.k8s.io/v1"), false);
        assert_eq!(keys_of(&stored), BTreeSet::from(["k1".to_owned()]));
        let odd = Stored::new(json!({"spec": "?"}), ("HTTPRoute", "v1"), false);
        assert!(keys_of(&odd).is_empty());
    }
}
