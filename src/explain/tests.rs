//! Explanations as people and machines read them, and that they are what would happen.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::compile::{CompileOptions, RoutingSecret, Sockets, compile};
use crate::resources::Snapshot;
use crate::runtime::Route;

const RESOURCES: &str = "
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
  listeners: [{name: http, protocol: HTTP, port: 80}, {name: inner, protocol: HTTP, port: 81}]
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: models}
spec:
  parentRefs: [{name: gw, sectionName: http}]
  rules:
  - matches: [{headers: [{name: x-ai-eg-model, value: gpt-4}, {name: x-tenant, type: RegularExpression, value: 'gold-.*'}]}]
    backendRefs: [{name: azure, modelNameOverride: deployment-1}]
  - matches: [{headers: [{name: x-ai-eg-model, value: gpt-4}]}]
    backendRefs: [{name: one, weight: 3}, {name: two}]
  - matches: [{headers: [{name: x-ai-eg-model, value: broken}]}]
    backendRefs: [{name: missing}]
  - matches: [{headers: [{name: x-ai-eg-model, value: idle}]}]
    backendRefs: [{name: one, weight: 0}]
  - matches: [{headers: [{name: x-ai-eg-model, value: spare}]}]
    backendRefs: [{name: one, priority: 7}, {name: azure, weight: 3, modelNameOverride: deployment-1}, {name: azure}]
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: hosted}
spec:
  parentRefs: [{name: gw, sectionName: inner}]
  hostnames: ['*.example.com', a.example.com]
  rules:
  - backendRefs: [{name: one}]
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: one}
spec:
  schema: {name: OpenAI, prefix: api/v1}
  backendRef: {name: plain, kind: Backend, group: gateway.envoyproxy.io}
  headerMutation: {set: [{name: X-Team, value: confidential}], remove: [x-debug]}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: two}
spec:
  schema: {name: OpenAI, prefix: api/v1}
  backendRef: {name: plain, kind: Backend, group: gateway.envoyproxy.io}
  headerMutation: {set: [{name: X-Team, value: confidential}], remove: [x-debug]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: plain}
spec: {endpoints: [{fqdn: {hostname: llm.example.com, port: 8080}}, {fqdn: {hostname: spare.example.com, port: 8080}}]}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: azure}
spec:
  schema: {name: AzureOpenAI, version: 2025-01-01-preview}
  backendRef: {name: azure, kind: Backend, group: gateway.envoyproxy.io}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: azure}
spec: {endpoints: [{fqdn: {hostname: res.openai.azure.com, port: 443}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: azure}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: azure}]
  validation: {wellKnownCACertificates: System, hostname: res.openai.azure.com}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {name: azure}
spec:
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: azure}]
  type: AzureAPIKey
  azureAPIKey: {secretRef: {name: azure}}
---
apiVersion: v1
kind: Secret
metadata: {name: azure}
stringData: {apiKey: the-live-key}
";

fn configuration() -> (Compiled, Arc<Runtime>) {
    configured(RESOURCES)
}

fn configured(resources: &str) -> (Compiled, Arc<Runtime>) {
    let (snapshot, findings) = Snapshot::parse(resources);
    assert!(findings.is_empty(), "{findings:#?}");
    let options = CompileOptions {
        secret: RoutingSecret([7; 32]),
        ca_bundle: Some("/etc/ssl/ca.crt".into()),
        listen_address: Ipv4Addr::LOCALHOST.into(),
        first_port: 1975,
        ports: Vec::new(),
        client_addresses: false,
        sockets: Sockets { extproc: "e".into(), envoy_admin: "a".into(), embedded: "b".into() },
    };
    let compiled = compile(&snapshot, &options);
    let (runtime, problems) = Runtime::new(compiled.config.clone());
    assert!(problems.is_empty(), "{problems:?}");
    (compiled, Arc::new(runtime))
}

fn explained(question: &str) -> Explanation {
    let (compiled, runtime) = configuration();
    explain(&compiled, &runtime, &question.parse().expect("a request"))
}

#[test]
fn text() {
    let questions = [
        "model=gpt-4 header=x-tenant:gold-7 header=authorization:sk-client header=x-other:1",
        "model=gpt-4 header=x-debug:1",
        "model=gpt-5",
        "model=broken",
        "model=idle",
        "model=spare",
        "model=spare path=/v1/completions",
        "",
        "model=gpt-4 path=/v1/messages",
        "model=gpt-4 path=/cohere/v2/rerank",
        "model=gpt-4 path=/v1/audio/transcriptions",
        "path=/v1/models",
        "model=m listener=inner host=b.example.com",
        "model=m listener=inner host=elsewhere.org",
        "model=m listener=innner",
    ];
    let all: Vec<String> = questions.iter().map(|question| explained(question).render(false)).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn json() {
    insta::assert_json_snapshot!([
        explained("model=gpt-4 header=x-tenant:gold-7"),
        explained("model=gpt-5"),
        explained("model=spare")
    ]);
}

#[test]
fn no_secret_is_told() {
    for question in ["model=gpt-4 header=x-tenant:gold-7 header=x-api-key:client-secret", "model=gpt-4"] {
        let explanation = explained(question);
        let told = format!("{}{}", explanation.render(true), json!(explanation));
        for secret in ["the-live-key", "client-secret", "confidential"] {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[test]
fn text_cannot_drive_the_terminal() {
    assert!(!explained("model=a\u{1b}[2Jb").render(false).contains('\u{1b}'));
}

proptest! {
    #[test]
    fn what_is_told_is_what_would_happen(
        model in "gpt-4|gpt-5|broken|spare|",
        tenant in "gold-1|silver|",
        twice in any::<bool>(),
    ) {
        let (compiled, runtime) = configuration();
        let mut question = format!("model={model}");
        if !tenant.is_empty() {
            question.push_str(&format!(" header=x-tenant:{tenant}"));
        }
        if twice {
            question.push_str(" header=x-tenant:silver");
        }
        let question: Question = question.parse().expect("a request");
        let explanation = explain(&compiled, &runtime, &question);
        let gateway = &compiled.config.gateways[0];
        let headers = question.headers(None);
        let route = runtime.gateway(&gateway.authority).expect("a gateway").select("localhost", |name| {
            matched_values(&headers, question.model(), name)
        });
        let told = explanation.matches.iter().find(|trial| trial.outcome == Outcome::Chosen);
        match route {
            Route::Rule(rule) => {
                let told = told.expect("one is chosen");
                let index = format!("/rule/{}/", told.rule);
                let mut names = rule.backends().iter().map(|served| &served.backend.name);
                prop_assert!(names.all(|name| name.contains(&index)), "{rule:?} {told:?}");
            }
            Route::Broken | Route::None => prop_assert!(told.is_none(), "{told:?}"),
        }
    }
}

#[test]
fn limits_are_told_with_whom_and_what_they_are_for() {
    let limits = "
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {name: tenants}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  limits:
  - {name: tpm, type: TotalToken, amount: 100k, window: {every: 1m}, per: [Key]}
  - {name: acme, type: Request, amount: 5, window: {calendar: Day}, match: {tenants: [{organisation: acme}]}}
  - {name: gold, type: Request, amount: 5, window: {every: 1s}, match: {headers: [{name: x-tier, value: gold}]}}
---
apiVersion: aigateway.envoyproxy.io/v1alpha1
kind: QuotaPolicy
metadata: {name: quota}
spec:
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: one}]
  perModelQuotas: [{modelName: gpt-4, quota: {defaultBucket: {limit: 7, duration: 1h}}}]
";
    let (compiled, runtime) = configured(&(RESOURCES.to_owned() + limits));
    let explanation = explain(&compiled, &runtime, &"model=gpt-4".parse().expect("a request"));
    let text = explanation.render(false);
    let told: Vec<&str> = text.lines().filter(|line| line.starts_with("  limit ")).map(str::trim).collect();
    assert_eq!(
        told,
        [
            "limit       tenants/tpm: 100000 tokens in 1m for each key",
            "limit       tenants/acme: 5 requests in a calendar day (UTC), of organisation acme",
            "limit       quota/gpt-4/default: 7 tokens in 1h, charged at the end, room in one of its group is enough at default/one",
        ]
    );
    assert_eq!(explanation.limits[1].clients.as_deref(), Some("organisation acme"));
    // Of a tenant that is named, those that are for it.
    let of = |tenant: &str| {
        let question = format!("model=gpt-4 tenant={tenant}").parse().expect("a request");
        explain(&compiled, &runtime, &question).limits.iter().any(|limit| limit.name == "tenants/acme")
    };
    assert_eq!([of("acme/research/ci"), of("other/web/app")], [true, false]);
}

const POLICIES: &str = "
---
apiVersion: v1
kind: Secret
metadata: {name: clients}
stringData: {acme.research.ci: key-one, other.web.app: key-two}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: SecurityPolicy
metadata: {name: keys}
spec:
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIGatewayRoute, name: models}]
  apiKeyAuth: {credentialRefs: [{name: clients}], extractFrom: [{headers: [authorization]}]}
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {name: of-the-route}
spec:
  targetRefs: [{group: aigateway.envoyproxy.io, kind: AIGatewayRoute, name: models}]
  identity: {apiKey: {pattern: '{organisation}.{team}.{key}'}}
  access:
    - {tenant: {organisation: acme}, models: ['gpt-*', spare]}
    - {tenant: {organisation: acme, team: research}, models: [more]}
    - {tenant: {organisation: other}, models: [spare]}
---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: TenantPolicy
metadata: {name: of-inner}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw, sectionName: inner}]
  gatewayKey: {}
  access: [{tenant: {organisation: acme}, models: [m]}]
";

/// Whoever is asked about, it is told what becomes of them, and why.
#[test]
fn tenants() {
    let (compiled, runtime) = configured(&(RESOURCES.to_owned() + POLICIES));
    let questions = [
        "model=gpt-4",
        "model=gpt-4 tenant=-",
        "model=gpt-4 tenant=acme/research/ci",
        "model=gpt-4 tenant=other/web/app",
        "model=spare tenant=other/web/app",
        "model=gpt-4 tenant=stranger/-/x",
        "model=gpt-4 tenant=acme/-/ci",
        "model=gpt-5 tenant=acme/research/ci",
        "model=m listener=inner host=b.example.com",
        "model=m listener=inner host=b.example.com tenant=-",
        "model=m listener=inner host=b.example.com tenant=acme/-/ci",
        "model=m listener=inner host=b.example.com tenant=other/-/ci",
    ];
    let told = questions
        .map(|question| explain(&compiled, &runtime, &question.parse().expect("a request")).render(false));
    let text = told.join("\n");
    assert!(!text.contains("key-one") && !text.contains("aigw-"), "{text}");
    insta::assert_snapshot!(text);
}
