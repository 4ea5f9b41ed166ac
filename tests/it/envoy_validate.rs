//! The generated Envoy configuration is one that Envoy takes.

use std::path::{Path, PathBuf};
use std::process::Command;

use ai_gateway::compile::{CompileOptions, RoutingSecret, Sockets, compile};
use ai_gateway::resources::Snapshot;
use ai_gateway::standalone::envoy_binary::Search;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

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

fn validate(envoy: &Path, text: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = CompileOptions {
        secret: RoutingSecret([7; 32]),
        ca_bundle: Some(ca_bundle(folder.path())),
        listen_address: std::net::Ipv4Addr::LOCALHOST.into(),
        first_port: 1975,
        ports: Vec::new(),
        sockets: Sockets {
            extproc: folder.path().join("extproc.sock"),
            envoy_admin: folder.path().join("envoy.sock"),
            embedded: folder.path().to_owned(),
        },
    };
    let (snapshot, _) = Snapshot::parse(text);
    let compiled = compile(&snapshot, &options);
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
    let reference =
        (prop::sample::select(vec!["named", "addressed", "local", "bedrock", "missing"]), 0_u32..3)
            .prop_map(|(name, weight)| format!("{{name: {name}, weight: {weight}}}"));
    let matches = prop::collection::vec(prop::collection::vec(header(), 0..3), 0..3);
    let rule = (matches, prop::collection::vec(reference, 0..3), duration.clone(), duration).prop_map(
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
        validate(&envoy, &text);
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
    validate(&envoy, &text.join("\n---\n"));
}
