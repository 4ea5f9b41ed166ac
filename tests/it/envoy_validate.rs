//! The generated Envoy configuration is one that Envoy takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use ai_gateway::compile::{CompileOptions, Compiled, RoutingSecret, Sockets, compile};
use ai_gateway::resources::Snapshot;
use ai_gateway::standalone::envoy_binary::Search;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use secrecy::ExposeSecret;

/// The Envoy of this machine; fetched like `aigw run` does where there is none.
fn envoy() -> PathBuf {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let explicit = std::env::var_os("AIGW_ENVOY").map(PathBuf::from);
    let found = runtime.block_on(Search::from_env(explicit).find(&mut |notice| eprintln!("{notice}")));
    found.expect("an Envoy").path
}

/// A bundle of CA certificates to name; Envoy reads it.
fn ca_bundle(folder: &Path) -> PathBuf {
    let path = folder.join("ca.pem");
    let certificate =
        rcgen::generate_simple_self_signed(["ca.example.com".to_owned()]).expect("a certificate");
    std::fs::write(&path, certificate.cert.pem()).expect("written");
    path
}

fn validate(envoy: &Path, text: &str) -> Compiled {
    let folder = tempfile::tempdir().expect("a folder");
    let options = CompileOptions {
        secret: RoutingSecret([7; 32]),
        ca_bundle: Some(ca_bundle(folder.path())),
        listen_address: std::net::Ipv4Addr::LOCALHOST.into(),
        first_port: 1975,
        ports: Vec::new(),
        client_addresses: false,
        sockets: Sockets {
            extproc: folder.path().join("extproc.sock"),
            envoy_admin: folder.path().join("envoy.sock"),
            embedded: folder.path().to_owned(),
        },
    };
    let (snapshot, _) = Snapshot::parse(text);
    let compiled = compile(&snapshot, &options);
    for certificate in &compiled.envoy.certificates {
        let content = certificate.content("1");
        std::fs::write(folder.path().join(&certificate.name), content.expose_secret()).expect("written");
    }
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, compiled.envoy.bootstrap().to_string()).expect("written");
    let output = Command::new(envoy)
        .args(["--mode", "validate", "--log-level", "warn", "-c"])
        .arg(&file)
        .output()
        .expect("Envoy runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
    assert!(!said.contains("eprecated"), "{said}");
    assert!(!said.contains("[warning]"), "{said}");
    compiled
}

const HEAD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: class}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: named}
spec: {schema: {name: OpenAI}, backendRef: {name: named, kind: Backend, group: gateway.envoyproxy.io}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: addressed}
spec: {schema: {name: OpenAI}, backendRef: {name: addressed, kind: Backend, group: gateway.envoyproxy.io}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: local}
spec: {schema: {name: OpenAI}, backendRef: {name: local, kind: Backend, group: gateway.envoyproxy.io}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: bedrock}
spec: {schema: {name: AWSBedrock}, backendRef: {name: named, kind: Backend, group: gateway.envoyproxy.io}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: addressed}
spec:
  endpoints: [{ip: {address: 10.0.0.1, port: 80}}, {ip: {address: '2001:db8::1', port: 80}, hostname: h.example.com}]
  appProtocols: [gateway.envoyproxy.io/h2c]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: local}
spec: {endpoints: [{unix: {path: /run/model.sock}}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: named}
spec: {endpoints: [{fqdn: {hostname: a.example.com, port: 443}}, {fqdn: {hostname: b.example.com, port: 443}}]}
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTLSPolicy
metadata: {name: named}
spec:
  targetRefs: [{group: gateway.envoyproxy.io, kind: Backend, name: named}]
  validation:
    wellKnownCACertificates: System
    hostname: a.example.com
    subjectAltNames: [{type: Hostname, hostname: a.example.com}, {type: URI, uri: 'spiffe://a/b'}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: proxy}
spec:
  telemetry:
    accessLog:
      settings:
      - {sinks: [{type: File, file: {path: /dev/null}}]}
      - {sinks: [{type: File, file: {path: /dev/null}}], format: {text: '%RESPONSE_CODE%'}, matches: ['response.code > 399', \"request.path != '/'\"]}
      - {sinks: [{type: File, file: {path: /dev/null}}], format: {json: {a.b: '%REQ(X-AI-EG-MODEL)%', c: '%DYNAMIC_METADATA(io.envoy.ai_gateway:x)%'}}}
---
";

/// Everything that policies can ask for. `{target}` stands for what a policy targets.
const TREATMENTS: &[&str] = &[
    "retry: {}",
    "retry: {numRetries: 0, perRetry: {timeout: 0s, backOff: {baseInterval: 0s, maxInterval: 0s}}, retryOn: {triggers: [5xx, gateway-error, reset, reset-before-request, connect-failure, retriable-4xx, refused-stream, retriable-status-codes, cancelled, deadline-exceeded, internal, resource-exhausted, unavailable], httpStatusCodes: [100, 599]}}",
    "retry: {perRetry: {backOff: {maxInterval: 1ms}}}",
    "retry: {numAttemptsPerPriority: 1, numRetries: 2147483647, perRetry: {backOff: {maxInterval: 99999h}}}",
    "retry: {numAttemptsPerPriority: 2147483647}",
    "loadBalancer: {type: RoundRobin, slowStart: {window: 0s}}",
    "loadBalancer: {type: LeastRequest, slowStart: {window: 30s}}",
    "loadBalancer: {type: Random}",
    "loadBalancer: {type: ConsistentHash, consistentHash: {type: Headers, headers: [{name: X-A}, {name: x-b}], tableSize: 5000011}}",
    "loadBalancer: {type: ConsistentHash, consistentHash: {type: SourceIP, tableSize: 100}}",
    "healthCheck: {active: {type: HTTP, timeout: 0s, interval: 0s, initialJitter: 0s, http: {path: /, hostname: h.example.com, method: OPTIONS, expectedStatuses: [100, 599]}}}",
    "healthCheck: {active: {type: TCP}, panicThreshold: 0}",
    "healthCheck: {passive: {}}",
    "healthCheck: {passive: {interval: 0s, baseEjectionTime: 0s, consecutive5XxErrors: 0, consecutiveGatewayErrors: 4294967295, consecutiveLocalOriginFailures: 0, splitExternalLocalOriginErrors: true, maxEjectionPercent: 100, failurePercentageThreshold: 100, alwaysEjectOneEndpoint: true}, panicThreshold: 100}",
    "circuitBreaker: {maxConnections: 0, maxPendingRequests: 0, maxParallelRequests: 0, maxParallelRetries: 0, maxRequestsPerConnection: 0}",
    "circuitBreaker: {maxConnections: 4294967295, maxRequestsPerConnection: 4294967295}",
    "timeout: {tcp: {connectTimeout: 0s}, http: {connectionIdleTimeout: 0s, maxConnectionDuration: 0s, requestTimeout: 0s, maxStreamDuration: 0s}}",
    "timeout: {tcp: {connectTimeout: 99999h}, http: {connectionIdleTimeout: 99999h, maxConnectionDuration: 99999h, requestTimeout: 99999h, maxStreamDuration: 99999h}}",
    "tcpKeepalive: {probes: 0, idleTime: 0s, interval: 0s}",
    "tcpKeepalive: {probes: 4294967295, idleTime: 99999h, interval: 1ms}",
    "connection: {bufferLimit: 1}",
    "connection: {bufferLimit: 8Gi}",
    "dns: {dnsRefreshRate: 0s, respectDnsTtl: true, lookupFamily: IPv4}",
    "dns: {dnsRefreshRate: 1ms, lookupFamily: IPv4AndIPv6}",
    "http2: {initialStreamWindowSize: 65535, initialConnectionWindowSize: 2147483647, maxConcurrentStreams: 2147483647}",
];

const CLIENT_TREATMENTS: &[&str] = &[
    "connection: {connectionLimit: {value: 1, closeDelay: 0s}}",
    "connection: {connectionLimit: {value: 9223372036854775807, closeDelay: 1ms}}",
    "timeout: {http: {requestReceivedTimeout: 0s, idleTimeout: 0s, streamIdleTimeout: 0s}, tcp: {idleTimeout: 1s}}",
    "timeout: {http: {requestReceivedTimeout: 99999h, idleTimeout: 99999h, streamIdleTimeout: 99999h}}",
    "http2: {initialStreamWindowSize: 2147483647, initialConnectionWindowSize: 65535, maxConcurrentStreams: 1}",
    "path: {escapedSlashesAction: UnescapeAndRedirect, disableMergeSlashes: true}",
    "path: {escapedSlashesAction: UnescapeAndForward, disableMergeSlashes: false}",
    "headers: {withUnderscoresAction: DropHeader}",
    "tcpKeepalive: {probes: 0, idleTime: 0s, interval: 0s}",
    "tcpKeepalive: {probes: 4294967295, idleTime: 99999h}",
];

/// A Gateway with an HTTP and an HTTPS listener, a rule for each kind of destination, and one policy of each kind.
fn treated(backend: &str, client: &str, config: &str, secrets: &str) -> String {
    let references = [
        "{name: named}",
        "{name: addressed}",
        "{name: local}",
        // Several ways, so that they are put in order, and one way each, so that they are not.
        "{name: named, weight: 2147483647}, {name: addressed, weight: 2147483647}, {name: local, weight: 2147483647}, {name: named, priority: 7, modelNameOverride: x}",
        "{name: named, modelNameOverride: x}, {name: named, priority: 2147483647}",
        "{name: addressed}, {name: addressed, modelNameOverride: x}",
        "{name: local, modelNameOverride: x}, {name: local, priority: 1}",
    ];
    let rules = references.iter().enumerate().map(|(index, references)| {
        format!("  - matches: [{{headers: [{{name: x-ai-eg-model, value: m{index}}}]}}]\n    backendRefs: [{references}]\n    streamIdleTimeout: 5s\n")
    });
    let policy = |kind: &str, spec: &str| {
        format!(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: {kind}\nmetadata: {{name: p}}\nspec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]\n  {spec}\n"
        )
    };
    [
        HEAD,
        "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, annotations: {aigateway.envoyproxy.io/gateway-config: config}}
spec:
  gatewayClassName: class
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: https, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: ecdsa}, {name: p384}]}}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: GatewayConfig
metadata: {name: config}
spec: ",
        config,
        "\n---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw}]
  rules:\n",
        &rules.collect::<String>(),
        &policy("BackendTrafficPolicy", backend),
        &policy("ClientTrafficPolicy", client),
        secrets,
    ]
    .concat()
}

/// Secrets with certificates of two kinds.
fn secrets() -> String {
    let secret = |name: &str, key: &rcgen::KeyPair| {
        let params = rcgen::CertificateParams::new([format!("{name}.example.com")]).expect("a name");
        let chain = params.self_signed(key).expect("a certificate").pem();
        let key = key.serialize_pem();
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{tls.crt: {chain:?}, tls.key: {key:?}}}\n"
        )
    };
    let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    [secret("ecdsa", &p256), secret("p384", &p384)].concat()
}

#[test]
fn envoy_takes_what_policies_ask_for() {
    let envoy = envoy();
    let secrets = secrets();
    let configs = [
        "{}",
        "{forwardProxy: {address: '10.0.0.1:3128'}}",
        "{forwardProxy: {address: '[2001:db8::1]:3128'}}",
    ];
    for (index, backend) in TREATMENTS.iter().enumerate() {
        let client = CLIENT_TREATMENTS[index % CLIENT_TREATMENTS.len()];
        let compiled = validate(&envoy, &treated(backend, client, configs[index % configs.len()], &secrets));
        let rules: Vec<usize> = compiled.listeners.iter().map(|listener| listener.rules).collect();
        assert_eq!(rules, [7, 7], "{}", compiled.diagnostics.render(false));
    }
}

fn gateway() -> impl Strategy<Value = String> {
    let host = prop::option::of(prop::sample::select(vec!["a.com", "*.a.com", "x.a.com"]));
    let limit = prop::option::of(prop::sample::select(vec!["1", "50Mi", "5Gi"]));
    (prop::collection::vec(host, 1..3), limit).prop_map(|(hosts, limit)| {
        let listeners = hosts.iter().enumerate().map(|(index, host)| {
            let host = host.map_or_else(String::new, |host| format!("hostname: '{host}', "));
            format!("{{name: l{index}, {host}protocol: HTTP, port: {}}}", 80 + index)
        });
        let limit = limit.map_or_else(String::new, |limit| {
            format!(
                "---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {{name: limit}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: gw}}]
  connection: {{bufferLimit: {limit}}}
"
            )
        });
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec:
  gatewayClassName: class
  listeners: [{}]
  infrastructure: {{parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: proxy}}}}
{limit}",
            listeners.collect::<Vec<_>>().join(", ")
        )
    })
}

fn header() -> impl Strategy<Value = String> {
    let exact = prop_oneof!["[ -~]{1,12}", "\\PC{1,6}"];
    let regex = prop::sample::select(vec![
        ".*",
        "gpt-4.*",
        "[a-z]+\\d{2,}",
        "(?i)claude",
        "a|b",
        "\\w+\\.\\w+",
        "(?P<x>a)+?",
        "[[:alpha:]]",
        "\\pL+",
        "^a$",
        "(a",
        "a{1,1000}{1,1000}",
        "\\b",
        "(?=a)",
        "(?x) a",
        "[a&&b]",
        "\\Aa\\z",
        "\\Qa.b\\E",
    ]);
    let name =
        prop::sample::select(vec!["x-ai-eg-model", "X-Tenant", "host", "authorization", "x!#$%&'*+.^_`|~"]);
    let quoted = |text: &str| serde_json::to_string(text).expect("a string");
    prop_oneof![
        (name.clone(), exact).prop_map(move |(name, value)| format!(
            "{{name: {}, value: {}}}",
            quoted(name),
            quoted(&value)
        )),
        (name, regex).prop_map(move |(name, value)| format!(
            "{{name: {}, type: RegularExpression, value: {}}}",
            quoted(name),
            quoted(value)
        )),
    ]
}

fn route(index: usize) -> impl Strategy<Value = String> {
    let duration = prop::sample::select(vec!["0s", "1ms", "90s", "99999h"]);
    let reference = (
        prop::sample::select(vec!["named", "addressed", "local", "bedrock", "missing"]),
        0_u32..3,
        0_u32..3,
        0..2,
    )
        .prop_map(|(name, weight, priority, model)| {
            format!("{{name: {name}, weight: {weight}, priority: {priority}, modelNameOverride: m{model}}}")
        });
    let matches = prop::collection::vec(prop::collection::vec(header(), 0..3), 0..3);
    let rule = (matches, prop::collection::vec(reference, 0..5), duration.clone(), duration).prop_map(
        |(matches, references, request, idle)| {
            let matches: Vec<String> = matches.iter().map(|headers| format!("{{headers: [{}]}}", headers.join(", "))).collect();
            format!(
                "  - matches: [{}]\n    backendRefs: [{}]\n    timeouts: {{request: {request}}}\n    streamIdleTimeout: {idle}\n",
                matches.join(", "),
                references.join(", ")
            )
        },
    );
    let hosts =
        prop::collection::vec(prop::sample::select(vec!["'a.com'", "'*.a.com'", "'*.com'", "'b.org'"]), 0..3);
    (hosts, prop::collection::vec(rule, 1..4)).prop_map(move |(hosts, rules)| {
        format!(
            "---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {{name: r{index}}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: [{}]
  rules:
{}",
            hosts.join(", "),
            rules.concat()
        )
    })
}

#[test]
fn envoy_takes_what_is_generated() {
    let envoy = envoy();
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, ..Config::default() });
    let input =
        (gateway(), route(0), route(1)).prop_map(|(gateway, a, b)| [HEAD, &*gateway, &a, &b].concat());
    let result = runner.run(&input, |text| {
        let _ = validate(&envoy, &text);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn envoy_takes_the_examples() {
    let envoy = envoy();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/basic");
    let text = ["basic.yaml", "kimi.yaml"]
        .map(|name| std::fs::read_to_string(folder.join(name)).expect("an example"));
    assert!(validate(&envoy, &text.join("\n---\n")).serves());
    let text = ["basic.yaml", "../quota/quota.yaml"]
        .map(|name| std::fs::read_to_string(folder.join(name)).expect("an example"));
    assert!(validate(&envoy, &text.join("\n---\n")).serves());
}
