//! Policies, hosts and socket files through a real Envoy.

use std::sync::{Arc, Mutex};

use ai_gateway::server::Listen;
use ai_gateway::testbackend;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::backend::{Backend, header};
use crate::support::gateway::Setup;
use crate::support::http::{Peer, get, post};
use crate::support::{shared_data, spawn, until, yaml};

const CHAT: &str = "/v1/chat/completions";

/// A BackendTrafficPolicy for route `test`.
fn policy(spec: &str) -> String {
    format!(
        "
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {{name: policy}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: test}}]
  {spec}
---
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_made_again_with_the_same_body_and_credential() {
    let Some(setup) = Setup::new().await else { return };
    let (bad, good) = (Backend::start(&["--status=503"]).await, Backend::start(&["--id=good"]).await);
    let second = format!("}}}}, {{ip: {{address: {}, port: {}}}}}]", good.addr.ip(), good.addr.port());
    let backend =
        yaml::backend_with("one", bad.addr, "  headerMutation: {set: [{name: x-set, value: ours}]}")
            .replace("}}]", &second);
    let route =
        yaml::route(&[("m", "one")], "").replace("{name: one}", "{name: one, modelNameOverride: real}");
    let retry = "retry: {numRetries: 3, retryOn: {triggers: [retriable-status-codes], httpStatusCodes: [503]}, perRetry: {timeout: 30s, backOff: {baseInterval: 1ms}}}";
    let gateway = setup
        .yaml(yaml::gateway("4Mi") + &backend + &yaml::api_key("one", "sk-one"))
        .yaml(route + &policy(retry))
        .start()
        .await;
    // Addresses take turns, so that some of these come to the bad one first.
    let long = "x".repeat(1 << 20);
    let mut retried = Vec::new();
    for content in ["short", &long, &long, "short", "short", &long, &long, "short"] {
        bad.reset();
        good.reset();
        let body = serde_json::json!({ "model": "m", "messages": [{ "role": "user", "content": content }] });
        let answer =
            gateway.peer().send(post(CHAT, &[("authorization", "Bearer client")], body.to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.headers["x-testbackend-id"], "good");
        let (last, wanted) = (good.last(), body.to_string().replace("\"m\"", "\"real\""));
        assert_eq!(header(&last, "authorization"), ["Bearer sk-one"]);
        assert_eq!(header(&last, "x-set"), ["ours"]);
        assert_eq!(last.body_bytes, wanted.len() as u64);
        assert_eq!(last.body_sha256, sha256(&wanted));
        if bad.counters().requests > 0 {
            let first = bad.last();
            assert_eq!((&first.body_sha256, &first.path), (&last.body_sha256, &last.path));
            assert_eq!(header(&first, "authorization"), ["Bearer sk-one"]);
            retried.push(content.len());
        }
    }
    assert!(retried.contains(&5) && retried.contains(&long.len()), "{retried:?}");
    gateway.stop().await;
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_failure_reaches_the_client_and_each_attempt_the_backend() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&["--status=500", "--body={\"error\":{\"message\":\"busy\"}}"]).await;
    let retry =
        "retry: {numRetries: 2, retryOn: {triggers: [5xx]}, perRetry: {backOff: {baseInterval: 1ms}}}";
    let resources =
        yaml::gateway("1Mi") + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "");
    let gateway = setup.yaml(resources + &policy(retry)).start().await;
    let answer = gateway.peer().send(post(CHAT, &[], r#"{"model":"m","messages":[]}"#)).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["error"]["message"], "busy", "{}", answer.text());
    assert_eq!(backend.counters().requests, 3);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_on_a_socket_file_is_reached() {
    let Some(setup) = Setup::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.sock");
    let backend =
        testbackend::start(Listen::Unix(path.clone()), testbackend::Options::default()).await.unwrap();
    let named = yaml::backend("one", "127.0.0.1:1".parse().unwrap()).replace(
        "{ip: {address: 127.0.0.1, port: 1}}",
        &format!("{{unix: {{path: {}}}, hostname: model.example.com}}", path.display()),
    );
    let gateway = setup.yaml(yaml::gateway("1Mi") + &named + &yaml::route(&[("m", "one")], "")).start().await;
    let answer = gateway.peer().send(post(CHAT, &[], r#"{"model":"m","messages":[]}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(backend.requests(1)[0].authority, "model.example.com");
    gateway.stop().await;
    backend.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_envoy_refuses_is_named_and_the_others_are_served() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let log = |name: &str, line: &str| {
        format!(
            "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyProxy\nmetadata: {{name: {name}}}\nspec: {{telemetry: {{accessLog: {{settings: [{{format: {{text: '{line}'}}, sinks: [{{type: File, file: {{path: /dev/null}}}}]}}]}}}}}}\n---\n"
        )
    };
    let first = yaml::gateway("1Mi");
    let parameters = "listeners: [{name: other, protocol: HTTP, port: 80}]\n  infrastructure: {parametersRef: {group: gateway.envoyproxy.io, kind: EnvoyProxy, name: log}}";
    let other = first
        .split("---")
        .nth(1)
        .unwrap()
        .replace("name: test, namespace", "name: other, namespace")
        .replace("listeners: [{name: http, protocol: HTTP, port: 80}]", parameters);
    let resources =
        first + &other + "---" + &yaml::backend("one", backend.addr) + &yaml::route(&[("m", "one")], "");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log.yaml");
    std::fs::write(&file, log("log", "%NONSENSE%")).unwrap();
    let gateway = setup.yaml(resources).file(&file).arg("--listen").arg("other=0").start().await;
    assert_eq!(gateway.peer().send(post(CHAT, &[], r#"{"model":"m","messages":[]}"#)).await.status, 200);
    let said = gateway.lines().join("\n");
    assert!(
        said.contains("listener default/other/other is not served") && said.contains("NONSENSE"),
        "{said}"
    );
    assert!(said.contains("not open: Envoy refuses it"), "{said}");
    std::fs::write(&file, log("log", "%RESPONSE_CODE%")).unwrap();
    until("the mended listener is in force", async || {
        gateway.lines().iter().any(|line| line.contains("are in force as generation 2"))
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_any_listener_ends() {
    let (Some(data), Some(setup)) = (shared_data(), Setup::new().await) else { return };
    let text = std::fs::read_to_string(data.join("examples/access-log/basic.yaml")).unwrap();
    let output =
        setup.arg("--listen").arg("http=0").yaml(text.replace("%REQ(:METHOD)%", "%NONSENSE%")).output().await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Envoy refuses every listener"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_with_limits_serves_without_them() {
    let (Some(data), Some(setup)) = (shared_data(), Setup::new().await) else { return };
    let gateway = setup.file(data.join("examples/token_ratelimit/token_ratelimit.yaml")).start().await;
    let answer =
        gateway.peer().send(post(CHAT, &[], r#"{"model":"rate-limit-funky-model","messages":[]}"#)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = gateway.lines().join("\n");
    assert!(said.contains("`rateLimit` has no meaning here yet"), "{said}");
    gateway.stop().await;
}

/// A route for one model with host names, on a Gateway.
fn route(name: &str, gateway: &str, hosts: &str) -> String {
    yaml::route(&[(name, "one")], "")
        .replace("metadata: {name: test,", &format!("metadata: {{name: {name},"))
        .replace(
            "kind: Gateway, name: test}]",
            &format!("kind: Gateway, name: {gateway}}}]\n  hostnames: [{hosts}]"),
        )
}

async fn models(peer: &Peer, host: &str) -> Vec<String> {
    let mut request = get("/v1/models");
    request.headers_mut().insert("host", host.parse().unwrap());
    let json: Value = peer.send(request).await.json();
    let models =
        json["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned());
    let mut models: Vec<String> = models.collect();
    models.sort_unstable();
    models
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_and_hosts_are_told_apart() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let first = yaml::gateway("1Mi");
    let other = first
        .split("---")
        .nth(1)
        .unwrap()
        .replace("name: test, namespace", "name: other, namespace")
        .replace(
            "{name: http, protocol: HTTP, port: 80}",
            "{name: other, protocol: HTTP, port: 80, hostname: '*.example.org'}",
        );
    let gateway = setup
        .yaml(first + &other + "---" + &yaml::backend("one", backend.addr))
        .yaml(route("alpha", "test", "a.example.com"))
        .yaml(route("beta", "test", "b.example.com, '*.wild.example.com'"))
        .yaml(route("gamma", "other", ""))
        .arg("--listen")
        .arg("other=0")
        .start()
        .await;
    let (test, other) = (Peer::Tcp(gateway.listener("http")), Peer::Tcp(gateway.listener("other")));
    let expected: [(&Peer, &str, &[&str]); 6] = [
        (&test, "a.example.com", &["alpha"]),
        (&test, "A.Example.com:8080", &["alpha"]),
        (&test, "b.example.com", &["beta"]),
        (&test, "x.wild.example.com", &["beta"]),
        (&test, "c.example.com", &[]),
        (&other, "x.example.org", &["gamma"]),
    ];
    for (peer, host, listed) in expected {
        assert_eq!(models(peer, host).await, listed, "{host}");
        for model in ["alpha", "beta", "gamma"] {
            let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
            let mut request = post(CHAT, &[], body);
            request.headers_mut().insert("host", host.parse().unwrap());
            let status = peer.send(request).await.status;
            assert_eq!(status == 200, listed.contains(&model), "{model} for {host}: {status}");
        }
    }
    gateway.stop().await;
}

/// A proxy that notes the first line of what it is asked for.
async fn proxy() -> (std::net::SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let notes = asked.clone();
    spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            spawn(relay(client, notes.clone()));
        }
    });
    (addr, asked)
}

async fn relay(mut client: TcpStream, notes: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let text = String::from_utf8(head).unwrap();
    let line = text.lines().next().unwrap().to_owned();
    notes.lock().unwrap().push(line.clone());
    let target = line.split(' ').nth(1).unwrap();
    let authority = target.trim_start_matches("http://").split('/').next().unwrap();
    // Every name is this machine's.
    let port: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        server.write_all(text.as_bytes()).await.unwrap();
    }
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_reached_through_the_forward_proxy() {
    let Some(setup) = Setup::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let ca_out = format!("--tls-ca-out={}", ca.display());
    let secure = Backend::start(&["--tls-self-signed=model.example.com", &ca_out]).await;
    let plain = Backend::start(&[]).await;
    let (addr, asked) = proxy().await;
    let config = format!(
        "apiVersion: aigateway.envoyproxy.io/v1beta1\nkind: GatewayConfig\nmetadata: {{name: config}}\nspec: {{forwardProxy: {{address: '{addr}'}}}}\n---\n"
    );
    let tls = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: tls}}\nspec:\n  targetRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: secure}}]\n  validation: {{hostname: model.example.com, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca}}\ndata: {{ca.crt: {:?}}}\n---\n",
        std::fs::read_to_string(ca).unwrap()
    );
    let annotated = "annotations: {aigateway.envoyproxy.io/gateway-config: config}, ";
    let gateway = yaml::gateway("1Mi").replacen(
        "metadata: {name: test, namespace",
        &format!("metadata: {{{annotated}name: test, namespace"),
        1,
    );
    let backends = yaml::backend("secure", secure.addr) + &yaml::backend("plain", plain.addr);
    let route = yaml::route(&[("secure", "secure"), ("plain", "plain")], "");
    let gateway = setup.yaml(gateway + &config + &tls + &backends + &route).start().await;
    for (model, backend) in [("secure", &secure), ("plain", &plain)] {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        let answer = gateway.peer().send(post(CHAT, &[], body.clone())).await;
        assert_eq!(answer.status, 200, "{model}: {} {:?}", answer.text(), asked.lock().unwrap());
        assert_eq!(backend.last().body, body);
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0], format!("CONNECT model.example.com:{} HTTP/1.1", secure.addr.port()));
    assert_eq!(asked[1], format!("POST http://{}{CHAT} HTTP/1.1", plain.addr));
    gateway.stop().await;
}
