//! Whole outputs, to be read as text.

use super::*;

/// A key with a credential, edits, weights, two hosts, an access log, costs and TLS: one of everything.
fn everything() -> String {
    [
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: class
  listeners: [{name: http, protocol: HTTP, port: 80}]
  infrastructure: {parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxy}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: proxy}
spec:
  telemetry:
    accessLog:
      settings:
      - matches: [\"request.headers['x-ai-eg-model'] != ''\", \"response.code >= 400\"]
        sinks: [{type: File, file: {path: /dev/stdout}}]
        format:
          type: JSON
          json: {model: '%REQ(X-AI-EG-MODEL)%', tokens: '%DYNAMIC_METADATA(io.envoy.ai_gateway:total)%'}
      - sinks: [{type: File, file: {path: /dev/stderr}}]
        format: {type: Text, text: '%RESPONSE_CODE%'}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: limit}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  connection: {bufferLimit: 50Mi}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: AIGatewayRoute
metadata: {name: models, creationTimestamp: '2025-01-02T03:04:05Z'}
spec:
  parentRefs: [{name: gw}]
  hostnames: [api.example.com, '*.example.org']
  llmRequestCosts:
  - {metadataKey: total, type: TotalToken}
  - {metadataKey: price, type: CEL, cel: 'input_tokens + 2u * output_tokens'}
  rules:
  - matches:
    - headers: [{name: x-ai-eg-model, value: spread}]
    - headers: [{name: X-AI-EG-Model, type: RegularExpression, value: 'gpt-.*'}, {name: X-Tenant, value: gold}]
    backendRefs:
    - {name: one, weight: 9, modelNameOverride: real}
    - {name: two, modelNameOverride: real}
    timeouts: {request: 10m, backendRequest: 400s}
    streamIdleTimeout: 20s
  - backendRefs: [{name: secure, bodyMutation: {set: [{path: a, value: '1'}], remove: [b]}}]
    timeouts: {request: 0s}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: secure}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: secure}]
  validation: {wellKnownCACertificates: System, hostname: secure.example.com}
",
        &backend("one", ""),
        &backend("two", ""),
        &backend("secure", "  headerMutation: {set: [{name: X-Api, value: v}], remove: [X-Gone]}"),
        &key("secure", "sk-live-0123456789"),
    ]
    .concat()
}

#[test]
fn the_processors_configuration() {
    insta::assert_json_snapshot!(compile_clean(&everything()).config.redacted());
}

#[test]
fn envoys_configuration() {
    insta::assert_json_snapshot!(compile_clean(&everything()).envoy.bootstrap());
}

#[test]
fn the_same_input_gives_the_same_output() {
    let (a, b) = (compile_clean(&everything()), compile_clean(&everything()));
    assert_eq!(a.envoy, b.envoy);
    assert_eq!(a.config.redacted(), b.config.redacted());
}

#[test]
fn no_credential_is_in_envoys_configuration_or_in_what_is_printed() {
    let compiled = compile_clean(&everything());
    let secret = "sk-live-0123456789";
    let key = compiled.config.backends.iter().find_map(|backend| backend.auth.as_ref()?.api_key.as_ref());
    assert_eq!(secrecy::ExposeSecret::expose_secret(&key.expect("a credential").key), secret);
    assert!(!compiled.envoy.bootstrap().to_string().contains(secret));
    assert!(!compiled.config.redacted().to_string().contains(secret));
    assert!(!format!("{compiled:?}").contains(secret));
}
