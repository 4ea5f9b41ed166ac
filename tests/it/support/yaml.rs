//! Resources, written out.

use std::net::SocketAddr;

/// A Gateway with one listener `http` and this limit on request bodies.
pub(crate) fn gateway(buffer_limit: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: test}}
spec: {{controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: test, namespace: default}}
spec:
  gatewayClassName: test
  listeners: [{{name: http, protocol: HTTP, port: 80}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: limit, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test}}]
  connection: {{bufferLimit: {buffer_limit}}}
---
"
    )
}

/// An OpenAI-schema backend at an address.
pub(crate) fn backend(name: &str, addr: SocketAddr) -> String {
    backend_with(name, addr, "")
}

/// As [`backend`], with more lines in the AIServiceBackend's spec, each indented by two spaces.
pub(crate) fn backend_with(name: &str, addr: SocketAddr, spec: &str) -> String {
    backend_of("OpenAI", name, addr, spec)
}

/// As [`backend_with`], of another schema.
pub(crate) fn backend_of(schema: &str, name: &str, addr: SocketAddr, spec: &str) -> String {
    let (ip, port) = (addr.ip(), addr.port());
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {{name: {name}, namespace: default}}
spec:
  schema: {{name: {schema}}}
  backendRef: {{group: gateway.envoyproxy.io, kind: Backend, name: {name}}}
{spec}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: {name}, namespace: default}}
spec:
  endpoints: [{{ip: {{address: {ip}, port: {port}}}}}]
---
"
    )
}

/// The API key of a backend.
pub(crate) fn api_key(backend: &str, key: &str) -> String {
    key_of("APIKey", "apiKey", backend, key)
}

/// As [`api_key`], for a backend of the Anthropic schema.
pub(crate) fn anthropic_key(backend: &str, key: &str) -> String {
    key_of("AnthropicAPIKey", "anthropicAPIKey", backend, key)
}

/// As [`api_key`], for a backend of the AzureOpenAI schema.
pub(crate) fn azure_key(backend: &str, key: &str) -> String {
    key_of("AzureAPIKey", "azureAPIKey", backend, key)
}

fn key_of(kind: &str, member: &str, backend: &str, key: &str) -> String {
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {{name: {backend}, namespace: default}}
spec:
  targetRefs: [{{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: {backend}}}]
  type: {kind}
  {member}: {{secretRef: {{name: {backend}}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {backend}, namespace: default}}
stringData: {{apiKey: {key}}}
---
"
    )
}

/// A route with one rule a pair of model and backend; `costs` are lines of the spec, each indented by two spaces.
pub(crate) fn route(rules: &[(&str, &str)], costs: &str) -> String {
    let rules: String = rules
        .iter()
        .map(|(model, backend)| {
            format!(
                "
    - matches: [{{headers: [{{name: x-ai-eg-model, value: \"{model}\"}}]}}]
      backendRefs: [{{name: {backend}}}]"
            )
        })
        .collect();
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: test, namespace: default}}
spec:
  parentRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test}}]
{costs}
  rules:{rules}
---
"
    )
}

/// A route named `test` with one rule for model `m`, in YAML's flow style: its `backendRefs`, and more of the rule.
pub(crate) fn shared_rule(backends: &str, more: &str) -> String {
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: test, namespace: default}}
spec:
  parentRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: test}}]
  rules:
    - matches: [{{headers: [{{name: x-ai-eg-model, value: m}}]}}]
      backendRefs: [{backends}]
      {more}
---
"
    )
}

/// A policy for the route `test`, in YAML's flow style.
pub(crate) fn retries(retry: &str, more: &str) -> String {
    format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: test, namespace: default}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: test}}]
  retry: {retry}
  {more}
---
"
    )
}
