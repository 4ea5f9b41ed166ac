//! What leads to nothing is looked at all the same.

use super::*;

#[test]
fn a_route_without_its_gateway_is_checked_and_not_served() {
    let rules = [model_rule("a", "{name: oen}"), model_rule("a(", "{name: one}")].concat();
    let route = route("r", &rules).replace("value: a(", "type: RegularExpression, value: a(");
    let costs = "spec:\n  llmRequestCosts: [{metadataKey: x, type: CEL, cel: 'inptu_tokens'}]";
    let text = [&route.replace("spec:", costs), &*backend("one", ""), &key("one", "sk-live")].concat();
    let compiled = compile_text(&text);
    let said = messages(&compiled);
    for words in [
        "warning: there is no Gateway, so that",
        "warning: there is no Gateway default/gw",
        "did you mean `one`?",
        "unclosed group",
        "`inptu_tokens` is not a variable",
    ] {
        assert!(said.contains(words), "`{words}` is not in\n{said}");
    }
    assert!(compiled.config.backends.is_empty() && compiled.config.llm_request_costs.is_empty());
    assert_eq!(
        clusters(&compiled)
            .iter()
            .filter(|cluster| backend_of(&cluster["name"]) == "backend/default/one")
            .count(),
        0
    );
}

#[test]
fn beside_other_gateways_a_missing_one_is_an_error() {
    let text = [GATEWAY, &route("r", &model_rule("a", "{name: one}")), &backend("one", "")].concat();
    let compiled = compile_text(&text.replace("parentRefs: [{name: gw}]", "parentRefs: [{name: wg}]"));
    let said = messages(&compiled);
    assert!(compiled.diagnostics.has_errors() && said.contains("did you mean `gw`?"), "{said}");
}

#[test]
fn backends_that_no_rule_refers_to_are_checked_once() {
    let dangling = backend("two", "").replace("backendRef: {name: two", "backendRef: {name: tow");
    let text = [
        GATEWAY,
        &route("r", &model_rule("a", "{name: one}")),
        &backend("one", "").replace("8080", "443"),
        &dangling,
    ]
    .concat();
    let said = messages(&compile_text(&text));
    assert_eq!(said.matches("there is no Backend default/tow").count(), 1, "{said}");
    assert_eq!(said.matches("port 443 without TLS").count(), 1, "{said}");
}

#[test]
fn policies_that_target_nothing_are_named() {
    let tls = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: tls}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: noe}]
  validation: {wellKnownCACertificates: System, hostname: one.example.com}
";
    let base = [GATEWAY, &route("r", &model_rule("a", "{name: one}")), &backend("one", "")].concat();
    let said = messages(&compile_text(&[&base, &*key("eno", "sk-live"), tls].concat()));
    assert!(said.contains("there is no AIServiceBackend default/eno"), "{said}");
    assert!(said.contains("there is no Backend default/noe"), "{said}");
    assert!(said.contains("did you mean `one`?"), "{said}");
}
