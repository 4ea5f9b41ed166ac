//! Objects of a cluster in, what it is told out.

mod identities;
mod properties;
mod protection;
mod revealed;
mod transition;

use serde_json::Value;

use super::*;
use crate::config::Gateway;
use crate::resources::{Memory, Source};

pub(super) fn options() -> KubernetesOptions {
    KubernetesOptions {
        secret: RoutingSecret([42; 32]),
        system_namespace: "envoy-ai-gateway-system".to_owned(),
        root_prefix: "/".to_owned(),
        selector: [("app.kubernetes.io/name".to_owned(), "ai-gateway-extproc".to_owned())].into(),
        port: 1063,
        previous: Applied::default(),
    }
}

/// Reads text as if an API server kept it. It has to be readable.
pub(super) fn stored(text: &str) -> Snapshot {
    let (snapshot, findings) = Memory::of_stored().parse([Source::new("cluster", text)], &|_| None);
    assert!(!findings.has_errors(), "the input is not as meant: {}", findings.render(false));
    snapshot
}

pub(super) fn compiled(text: &str) -> Programme {
    programme(&stored(text), &options())
}

/// As [`compiled`], where that was applied before.
pub(super) fn after(before: &[Object], text: &str) -> Programme {
    let previous = Applied::new(before.iter().map(|object| object.body.clone()));
    programme(&stored(text), &KubernetesOptions { previous, ..options() })
}

pub(super) const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
";

pub(super) fn gateway(name: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: default}}
spec:
  gatewayClassName: class
  listeners: [{{name: http, protocol: HTTP, port: 80, allowedRoutes: {{namespaces: {{from: All}}}}}}]
"
    )
}

/// An AIServiceBackend, its Backend, and a key of its own.
pub(super) fn backend(name: &str) -> String {
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {{name: {name}, namespace: default}}
spec:
  schema: {{name: OpenAI}}
  backendRef: {{name: {name}, kind: Backend, group: gateway.envoyproxy.io}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {name}, namespace: default}}
spec: {{endpoints: [{{fqdn: {{hostname: {name}.example.com, port: 443}}}}]}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  targetRefs: [{{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: {name}}}]
  type: APIKey
  apiKey: {{secretRef: {{name: {name}}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: default}}
stringData: {{apiKey: key-of-{name}}}
"
    )
}

/// A route to some Gateways, with a rule for each model and its backend.
pub(super) fn route(name: &str, gateways: &[&str], rules: &[(&str, &str)]) -> String {
    let parents: Vec<String> =
        gateways.iter().map(|name| format!("{{name: {name}, namespace: default}}")).collect();
    let rules: Vec<String> = rules
        .iter()
        .map(|(model, backend)| {
            format!(
                "  - matches: [{{headers: [{{name: x-ai-eg-model, value: {model}}}]}}]\n    backendRefs: [{{name: {backend}}}]\n"
            )
        })
        .collect();
    format!(
        "
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: {name}, namespace: default, uid: uid-{name}, generation: 3, labels: {{team: blue}}}}
spec:
  parentRefs: [{}]
  rules:
{}
",
        parents.join(", "),
        rules.concat()
    )
}

pub(super) fn http_routes(objects: &[Object]) -> Vec<&Object> {
    objects.iter().filter(|object| object.kind == "HTTPRoute").collect()
}

pub(super) fn rules(object: &Object) -> &[Value] {
    object.body["spec"]["rules"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The backends that a key leads to in some objects.
pub(super) fn leads_to(objects: &[Object], wanted: &str) -> Vec<String> {
    http_routes(objects)
        .into_iter()
        .flat_map(rules)
        .filter(|rule| applied::key(rule) == Some(wanted))
        .flat_map(|rule| rule["backendRefs"].as_array().into_iter().flatten())
        .map(|reference| reference["name"].as_str().unwrap_or_default().to_owned())
        .collect()
}

pub(super) fn only(programme: &Programme) -> &Gateway {
    match programme.gateways.as_slice() {
        [GatewayProgramme { config: Config { gateways, .. }, .. }] if gateways.len() == 1 => &gateways[0],
        other => panic!("{} gateways", other.len()),
    }
}

pub(super) fn status<'a>(programme: &'a Programme, kind: &str, name: &str) -> &'a ObjectStatus {
    let mut found = programme.statuses.iter().filter(|status| status.kind == kind && status.name == name);
    found.next().unwrap_or_else(|| panic!("no status of {kind} {name}"))
}

/// The message of `NotAccepted`.
pub(super) fn refused(programme: &Programme, route: &str) -> String {
    let status = status(programme, "AIGatewayRoute", route);
    let found = status.conditions.iter().find(|condition| condition.kind == "NotAccepted");
    found.map(|condition| condition.message.clone()).unwrap_or_default()
}

/// Routing keys change with every edit of what they cover.
fn readable(programme: &Programme) -> String {
    let mut text: Vec<String> =
        programme.objects.iter().map(|object| serde_json::to_string_pretty(&object.body).unwrap()).collect();
    text.extend(programme.statuses.iter().map(|status| format!("{status:#?}")));
    for gateway in &programme.gateways {
        text.push(serde_json::to_string_pretty(&gateway.config.redacted()).unwrap());
    }
    let mut text = text.join("\n");
    let keys = programme.gateways.iter().flat_map(|it| &it.config.gateways).flat_map(|it| &it.rules);
    for (index, rule) in keys.enumerate() {
        text = text.replace(&rule.routing_key, &format!("<key {index}>"));
    }
    text
}

#[test]
fn a_cluster_reads_like_this() {
    let text = [CLASS, &gateway("gw"), &backend("a"), &route("models", &["gw"], &[("m", "a"), ("l", "a")])];
    let programme = compiled(&text.concat());
    assert!(programme.transitional.is_none());
    insta::assert_snapshot!("cluster", readable(&programme));
}

#[test]
fn the_processors_are_told_their_credentials_and_secrets_stand_nowhere_else() {
    let programme =
        compiled(&[CLASS, &gateway("gw"), &backend("a"), &route("r", &["gw"], &[("m", "a")])].concat());
    let document = programme.gateways[0].config.reveal();
    assert!(String::from_utf8_lossy(document.bytes()).contains("key-of-a"));
    let rest = format!("{:?} {:?} {:?}", programme.objects, programme.statuses, programme.diagnostics);
    assert!(!rest.contains("key-of-a"), "{rest}");
}

#[test]
fn a_rotated_key_changes_no_route() {
    let text = [CLASS, &gateway("gw"), &backend("a"), &route("r", &["gw"], &[("m", "a")])].concat();
    let (old, new) = (compiled(&text), compiled(&text.replace("key-of-a", "another")));
    assert_eq!(old.objects, new.objects);
    assert_ne!(old.gateways[0].config.reveal().bytes(), new.gateways[0].config.reveal().bytes());
}

#[test]
fn every_gateway_of_a_route_has_its_own_service_routes_and_keys() {
    let text =
        [CLASS, &gateway("one"), &gateway("two"), &backend("a"), &route("r", &["one", "two"], &[("m", "a")])];
    let programme = compiled(&text.concat());
    assert_eq!(programme.gateways.len(), 2);
    let keys: Vec<&str> =
        programme.gateways.iter().map(|it| it.config.gateways[0].rules[0].routing_key.as_str()).collect();
    assert_ne!(keys[0], keys[1]);
    let routes = http_routes(&programme.objects);
    assert_eq!(routes.len(), 2);
    assert!(routes.iter().any(|route| route.name == "r"));
    for route in routes {
        assert_eq!(route.body["spec"]["parentRefs"].as_array().unwrap().len(), 1);
    }
    for gateway in &programme.gateways {
        let (namespace, name) = gateway.id.split_once('/').unwrap();
        let service = service_name(namespace, name);
        assert_eq!(gateway.authority, format!("{service}.envoy-ai-gateway-system:1063"));
    }
}

#[test]
fn references_to_other_namespaces_need_their_consent() {
    let grant = |name: &str| {
        format!(
            "
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: g, namespace: default}}
spec:
  from:
  - {{group: aigateway.envoyproxy.io, kind: AIGatewayRoute, namespace: elsewhere}}
  - {{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: elsewhere}}
  to:
  - {{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: {name}}}
  - {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}
"
        )
    };
    let away = route("r", &["gw"], &[("m", "a")])
        .replace("{name: r, namespace: default", "{name: r, namespace: elsewhere")
        .replace("{name: a}", "{name: a, namespace: default}");
    let base = [CLASS, &gateway("gw"), &backend("a"), &away].concat();
    let key = |programme: &Programme| only(programme).rules[0].routing_key.clone();
    let allowed = compiled(&[&base, grant("a").as_str()].concat());
    assert_eq!(leads_to(&allowed.objects, &key(&allowed)), ["a"], "{}", refused(&allowed, "r"));
    for denied in [base.clone(), [&base, grant("b").as_str()].concat()] {
        let denied = compiled(&denied);
        assert!(leads_to(&denied.objects, &key(&denied)).is_empty());
        let refs = &status(&denied, "AIGatewayRoute", "r").conditions[1];
        assert_eq!((refs.kind, refs.status, refs.reason), ("ResolvedRefs", false, "RefNotPermitted"));
        assert!(!String::from_utf8_lossy(denied.gateways[0].config.reveal().bytes()).contains("key-of-a"));
    }
}

#[test]
fn what_users_say_themselves_is_left_to_them() {
    let base = [CLASS, &gateway("gw"), &backend("a"), &route("r", &["gw"], &[("m", "a")])].concat();
    let has = |programme: &Programme, kind: &str| programme.objects.iter().any(|object| object.kind == kind);
    let plain = compiled(&base);
    assert!(has(&plain, "ClientTrafficPolicy") && has(&plain, "BackendTrafficPolicy"));
    let own = "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: mine, namespace: default}
spec: {targetSelectors: [{kind: Gateway, matchLabels: {}}], connection: {bufferLimit: 1Mi}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: mine, namespace: default}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}]}
";
    let theirs = compiled(&[&base, own].concat());
    assert!(!has(&theirs, "ClientTrafficPolicy") && !has(&theirs, "BackendTrafficPolicy"));
}

#[test]
fn what_stands_in_the_way_is_told() {
    let base = [CLASS, &gateway("gw"), &backend("a"), &route("r", &["gw"], &[("m", "a")])].concat();
    let policy = "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: mine, namespace: default}
spec: {targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}], lua: [{type: Inline}]}
";
    let displaced = compiled(&[&base, policy].concat());
    assert!(refused(&displaced, "r").contains("takes the place"), "{}", refused(&displaced, "r"));
    let thief = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: thief, namespace: default}
spec:
  parentRefs: [{name: gw}]
  rules: [{matches: [{path: {type: PathPrefix, value: /v1/chat}}], backendRefs: [{name: x, port: 1}]}]
";
    let stolen = compiled(&[&base, thief].concat());
    assert!(
        stolen.diagnostics.render(false).contains("takes its requests past"),
        "{:#?}",
        stolen.diagnostics
    );
    let harmless = compiled(&[&base, thief.replace("/v1/chat", "/web").as_str()].concat());
    assert!(harmless.diagnostics.is_empty(), "{:#?}", harmless.diagnostics);
    let namesake = compiled(&[&base, thief.replace("name: thief", "name: r").as_str()].concat());
    assert!(http_routes(&namesake.objects).is_empty(), "a user's route is not overwritten");
    assert!(refused(&namesake, "r").contains("not one of ours"));
}

#[test]
fn listeners_with_different_routes_for_one_host_name_are_told() {
    let two = gateway("gw").replace("listeners: [", "listeners: [{name: other, protocol: HTTP, port: 81}, ");
    let first = route("r", &["gw"], &[("m", "a")])
        .replace("{name: gw, namespace: default}", "{name: gw, namespace: default, sectionName: http}");
    let base = [CLASS, &two, &backend("a")].concat();
    let both = compiled(&[&base, first.as_str(), &route("s", &["gw"], &[("other", "a")])].concat());
    assert!(both.diagnostics.render(false).contains("with different routes"), "{:#?}", both.diagnostics);
    let same = compiled(&[&base, route("s", &["gw"], &[("other", "a")]).as_str()].concat());
    assert!(same.diagnostics.is_empty(), "{:#?}", same.diagnostics);
    assert_eq!(only(&same).hosts.len(), 1);
}

#[test]
fn what_is_not_served_yet_is_refused_and_keeps_its_place() {
    let rules = "  - matches: [{headers: [{name: x-ai-eg-model, value: m}]}]
    backendRefs: [{name: a}, {name: b, priority: 1}]
  - backendRefs: [{name: pool, group: inference.networking.k8s.io, kind: InferencePool}]
";
    let written = route("r", &["gw"], &[]).replace("  rules:\n", &format!("  rules:\n{rules}"));
    let programme = compiled(&[CLASS, &gateway("gw"), &backend("a"), &backend("b"), &written].concat());
    let message = refused(&programme, "r");
    assert!(
        message.contains("not served on Kubernetes yet") && message.contains("InferencePool"),
        "{message}"
    );
    let gateway = only(&programme);
    assert_eq!(gateway.hosts[0].matches.len(), 2, "both are matched");
    assert!(gateway.rules.iter().all(|rule| leads_to(&programme.objects, &rule.routing_key).is_empty()));
    assert!(programme.gateways[0].config.backends.iter().all(|backend| backend.auth.is_none()));
    assert!(gateway.models.all.is_empty());
}

#[test]
fn a_limit_that_is_not_served_is_told() {
    let limited = route("r", &["gw"], &[("m", "a")])
        .replace("    backendRefs", "    streamIdleTimeout: 5s\n    backendRefs");
    let programme = compiled(&[CLASS, &gateway("gw"), &backend("a"), &limited].concat());
    let accepted = &status(&programme, "AIGatewayRoute", "r").conditions[0];
    assert!(accepted.status && accepted.message.contains("streamIdleTimeout"), "{accepted:?}");
}

#[test]
fn gateways_of_other_controllers_and_what_is_about_to_go_are_left_alone() {
    let base = [gateway("gw"), backend("a")].concat();
    let foreign = CLASS.replace("gateway.envoyproxy.io/gatewayclass", "example.com/other");
    let written = route("r", &["gw"], &[("m", "a")]);
    assert!(compiled(&[foreign.as_str(), &base, &written].concat()).objects.is_empty());
    let going = written.replace("generation: 3", "generation: 3, deletionTimestamp: '2026-01-01T00:00:00Z'");
    assert!(compiled(&[CLASS, &base, &going].concat()).objects.is_empty());
}
