//! Clients whom Envoy knows, and processors do not.

use super::*;

fn tenants(name: &str, kind: &str, target: &str) -> String {
    let group = if kind == "Gateway" { "gateway.networking.k8s.io" } else { "aigateway.envoyproxy.io" };
    format!(
        "
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: {name}, namespace: default}}
spec: {{targetRefs: [{{group: {group}, kind: {kind}, name: {target}}}]}}
"
    )
}

fn policy(kind: &str, api: &str, target: &str, spec: &str) -> String {
    let at = if target.starts_with("gw") { "Gateway" } else { "HTTPRoute" };
    format!(
        "
---
apiVersion: gateway.envoyproxy.io/{api}
kind: {kind}
metadata: {{name: p, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: {at}, name: {target}}}]
  {spec}
"
    )
}

/// What the condition of each TenantPolicy says; nothing where it holds.
fn said(more: &str) -> [String; 3] {
    let routes = [route("one", &["gw"], &[("m", "a")]), route("two", &["gw"], &[("m2", "a")])].concat();
    let policies = [
        tenants("all", "Gateway", "gw"),
        tenants("first", "AIGatewayRoute", "one"),
        tenants("second", "AIGatewayRoute", "two"),
    ];
    let text =
        [CLASS, &gateway("gw"), &gateway("gw-other"), &backend("a"), &routes, &policies.concat(), more];
    let programme = compiled(&text.concat());
    ["all", "first", "second"].map(|name| {
        let status = status(&programme, "TenantPolicy", name);
        let found = status.conditions.iter().find(|condition| condition.kind == "IdentityResolved").unwrap();
        assert_eq!(found.reason, if found.status { "Resolved" } else { "NotCarried" });
        if found.status { String::new() } else { found.message.clone() }
    })
}

#[test]
fn whom_processors_cannot_know_is_said_on_the_policies_that_would_name_them() {
    const KEYS: &str = "apiKeyAuth: {credentialRefs: [{name: keys}], extractFrom: [{headers: [x-key]}]}";
    let security = |target, spec| policy("SecurityPolicy", "v1alpha1", target, spec);
    let nobody = [String::new(), String::new(), String::new()];
    assert_eq!(said(""), nobody);
    let jwt = "jwt: {providers: [{name: x, remoteJWKS: {uri: 'https://x/y'}}]}";
    assert_eq!(said(&security("gw", jwt)), nobody, "verified tokens are handed on");
    assert_eq!(said(&security("gw-other", KEYS)), nobody, "another Gateway's");
    let everybody = said(&security("gw", KEYS));
    let wanted = "apiKeyAuth of SecurityPolicy default/p";
    assert!(everybody.iter().all(|said| said.contains(wanted)), "{everybody:?}");
    let [all, first, second] = said(&security("one", KEYS));
    assert!(all.contains(wanted) && first.contains(wanted) && second.is_empty(), "{second}");
    let passwords = said(&security("gw", "basicAuth: {users: {name: users}}"));
    assert!(passwords[0].contains("basicAuth of"), "{passwords:?}");
    let certificates =
        "tls: {clientValidation: {caCertificateRefs: [{kind: ConfigMap, group: '', name: ca}]}}";
    let certificates = said(&policy("ClientTrafficPolicy", "v1alpha1", "gw", certificates));
    assert!(
        certificates[2].contains("clientValidation of ClientTrafficPolicy default/p"),
        "{certificates:?}"
    );
}

#[test]
fn what_envoy_has_verified_of_tokens_is_handed_on() {
    let text = [CLASS, &gateway("gw"), &backend("a"), &route("one", &["gw"], &[("m", "a")])].concat();
    let programme = compiled(&text);
    let policy = programme.objects.iter().find(|object| object.kind == "EnvoyExtensionPolicy").unwrap();
    let metadata = &policy.body["spec"]["extProc"][0]["metadata"];
    assert_eq!(metadata["accessibleNamespaces"], serde_json::json!(["envoy.filters.http.jwt_authn"]));
}
