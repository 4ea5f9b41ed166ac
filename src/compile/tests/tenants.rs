//! What SecurityPolicies and TenantPolicies become, and what is said of those that cannot be served.

use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::config::KeyDemand;
use crate::resources::parse;

/// Everything that `check` would say of a file.
#[test]
fn what_is_wrong_with_policies_is_said_with_file_and_line() {
    let folder = "../../../tests/golden/tenants";
    insta::with_settings!({ snapshot_path => folder, prepend_module_to_snapshot => false }, {
        insta::glob!(folder, "*.yaml", |path| {
            let text = std::fs::read_to_string(path).expect("a file");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let (snapshot, mut findings) = parse(vec![crate::resources::Source::new(&name, text)], &|_| None);
            findings.extend(compile(&snapshot, &options()).diagnostics);
            findings.sort();
            insta::assert_snapshot!("said", findings.render(false));
        });
    });
}

fn tenant_policy(spec: &str) -> String {
    format!(
        "
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {{name: tenants}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]
  {spec}
"
    )
}

fn served(more: &str) -> String {
    [GATEWAY, &route("r", &model_rule("a", "{name: good}")), &backend("good", ""), more].concat()
}

#[test]
fn a_gateway_asks_for_keys_as_its_policy_says() {
    let demand = |spec: &str| only_gateway(&compile_clean(&served(&tenant_policy(spec)))).gateway_key;
    assert_eq!(only_gateway(&compile_clean(&served(""))).gateway_key, None);
    for (spec, expected) in [
        ("access: []", None),
        ("gatewayKey: {}", Some(KeyDemand::Required)),
        ("gatewayKey: {mode: Optional}", Some(KeyDemand::Optional)),
        ("gatewayKey: {mode: NotAsked}", Some(KeyDemand::NotAsked)),
    ] {
        assert_eq!(demand(spec), expected, "{spec}");
    }
}

fn tokens(jwks: &Value) -> Compiled {
    let policy = format!(
        "
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {{name: tokens}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]
  jwt: {{providers: [{{name: idp, issuer: i, audiences: [a], localJWKS: {{type: Inline, inline: '{jwks}'}}}}]}}
"
    );
    compile_clean(&served(&policy))
}

#[test]
fn an_issuers_secret_keys_stand_in_files_of_their_own() {
    let secret = json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0LXNlY3JldA" }] });
    let compiled = tokens(&secret);
    let [file] = compiled.envoy.secrets.as_slice() else { panic!("one file") };
    assert_eq!(file.content.expose_secret(), secret.to_string());
    let shown = format!("{:?} {}", compiled.envoy, compiled.envoy.bootstrap());
    assert!(!shown.contains("c2VjcmV0"), "{shown}");
    assert!(shown.contains(&format!("/run/aigw/{}", file.name)), "{shown}");
    // Another key is another file, so that Envoy reads it.
    let other = tokens(&json!({ "keys": [{ "kty": "oct", "k": "b3RoZXI" }] }));
    assert_ne!(other.envoy.secrets[0].name, file.name);
    // A union holds both, as long as requests may need either.
    assert_eq!(other.envoy.with_rest_of(&compiled.envoy).secrets.len(), 2);

    let public = tokens(&json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ" }] }));
    assert!(
        public.envoy.secrets.is_empty() && public.envoy.bootstrap().to_string().contains("inline_string")
    );
}
