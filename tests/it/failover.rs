//! Rules whose backends differ: each attempt is translated and signed for the backend that Envoy tries, and for no other.

use std::sync::Arc;

use ai_gateway::testbackend::Recorded;
use http::StatusCode;
use tokio::sync::Semaphore;

use crate::support::backend::{Backend, header};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::post;
use crate::support::provider::{Provider, answer};
use crate::support::{shared_data, until, yaml};

const CHAT: &str = "/v1/chat/completions";
const REQUEST: &str = r#"{"model":"m","messages":[]}"#;
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// The second backend after the first.
pub(crate) const IN_ORDER: &str = "{name: one}, {name: two, priority: 1}";

/// One more attempt after whatever may go wrong.
pub(crate) const RETRY: &str = "{numRetries: 1, retryOn: {triggers: [connect-failure, reset, retriable-status-codes], httpStatusCodes: [429, 500, 503]}, perRetry: {backOff: {baseInterval: 1ms}}}";

/// Two backends with a key each.
fn two(one: std::net::SocketAddr, two: std::net::SocketAddr) -> String {
    yaml::backend("one", one)
        + &yaml::backend("two", two)
        + &yaml::api_key("one", "key-of-one")
        + &yaml::api_key("two", "key-of-two")
}

async fn gateway(resources: impl AsRef<str>) -> Option<Gateway> {
    Some(Setup::new().await?.yaml(yaml::gateway("50Mi") + resources.as_ref()).start().await)
}

/// Nothing of what belongs to the other backend is in the request.
fn is_free_of(recorded: &Recorded, words: &[&str]) {
    let text = serde_json::to_string(recorded).unwrap();
    for word in words {
        assert!(!text.contains(word), "`{word}` is in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_attempt_is_made_for_its_own_backend() {
    let (one, two) = (Backend::start(&["--status", "503"]).await, Backend::start(&["--id", "two"]).await);
    let edits_of = |name: &str| {
        format!(
            "  headerMutation: {{set: [{{name: x-secret-of-{name}, value: set-for-{name}}}, {{name: x-both, value: both-{name}}}], remove: [x-not-for-{name}]}}\n  bodyMutation: {{set: [{{path: only, value: '\"body-of-{name}\"'}}]}}"
        )
    };
    let resources = yaml::backend_with("one", one.addr, &edits_of("one"))
        + &yaml::backend_with("two", two.addr, &edits_of("two"))
            .replace("{name: OpenAI}", "{name: OpenAI, prefix: /other/v9}")
        + &yaml::api_key("one", "key-of-one")
        + &yaml::anthropic_key("two", "key-of-two")
        + &yaml::shared_rule(
            "{name: one, modelNameOverride: model-of-one}, {name: two, priority: 1, modelNameOverride: model-of-two}",
            "",
        )
        + &yaml::retries(RETRY, "");
    let Some(gateway) = gateway(resources).await else { return };
    let headers = [
        ("authorization", "Bearer the-clients"),
        ("x-not-for-one", "a"),
        ("x-not-for-two", "b"),
        ("x-kept", "c"),
    ];
    let answer = gateway.peer().send(post(CHAT, &headers, REQUEST)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.headers["x-testbackend-id"], "two");

    let (first, second) = (one.last(), two.last());
    assert_eq!((one.counters().requests, two.counters().requests), (1, 1));
    assert_eq!(header(&first, "authorization"), ["Bearer key-of-one"]);
    assert_eq!(first.path, CHAT);
    assert_eq!(header(&second, "x-api-key"), ["key-of-two"]);
    assert_eq!(second.path, "/other/v9/chat/completions");
    assert_eq!(header(&second, "x-both"), ["both-two"]);
    // What the first attempt took off is there again, and what it set is not.
    assert_eq!(header(&first, "x-not-for-two"), ["b"]);
    assert_eq!(header(&second, "x-not-for-one"), ["a"]);
    assert_eq!(header(&second, "x-kept"), ["c"]);
    assert_eq!(header(&second, "authorization"), [""; 0]);
    assert_eq!(second.body, r#"{"model":"model-of-two","messages":[],"only":"body-of-two"}"#);
    assert_eq!(header(&second, "content-length"), [second.body_bytes.to_string()]);
    until("the account says who failed and who served", async || {
        let told = |line: &String| {
            line.contains("failed_backends=\"default/one/") && line.contains(" backend=\"default/two/")
        };
        gateway.lines().iter().any(told)
    })
    .await;
    is_free_of(
        &first,
        &["-of-two", "set-for-two", "both-two", "x-ai-eg-route", "x-ai-eg-attempt", "the-clients"],
    );
    is_free_of(
        &second,
        &["-of-one", "set-for-one", "both-one", "x-ai-eg-route", "x-ai-eg-attempt", "the-clients"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_before_the_answer_is_tried_elsewhere() {
    for flags in
        [&["--status", "500"][..], &["--status", "503"], &["--fault", "reset"], &["--fault", "close"]]
    {
        let (one, two) = (Backend::start(flags).await, Backend::start(&["--id", "two"]).await);
        let resources =
            self::two(one.addr, two.addr) + &yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, "");
        let Some(gateway) = gateway(resources).await else { return };
        for body in [REQUEST, STREAM] {
            let answer = gateway.peer().send(post(CHAT, &[], body)).await;
            assert_eq!(answer.status, StatusCode::OK, "{flags:?}: {}", answer.text());
            assert_eq!(answer.headers["x-testbackend-id"], "two");
            assert_eq!(header(&two.last(), "authorization"), ["Bearer key-of-two"]);
            assert_eq!(header(&one.last(), "authorization"), ["Bearer key-of-one"]);
            if body == STREAM {
                assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
            }
        }
        assert_eq!(one.counters().requests, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_there_is_one_attempt() {
    let (one, two) = (Backend::start(&["--status", "503"]).await, Backend::start(&[]).await);
    let resources = self::two(one.addr, two.addr) + &yaml::shared_rule(IN_ORDER, "");
    let Some(gateway) = gateway(resources).await else { return };
    assert_eq!(gateway.peer().send(post(CHAT, &[], REQUEST)).await.status, 503);
    assert_eq!((one.counters().requests, two.counters().requests), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_not_there_is_passed_over() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let two = Backend::start(&[]).await;
    let resources =
        self::two(nobody, two.addr) + &yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, "");
    let Some(gateway) = gateway(resources).await else { return };
    let answer = gateway.peer().send(post(CHAT, &[], REQUEST)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(header(&two.last(), "authorization"), ["Bearer key-of-two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_backend_is_not_made_to_wait_for_the_one_that_is_busy() {
    // Were the wish heeded, this test would not end.
    let one = Provider::start(async |_| {
        let mut busy = answer(429, r#"{"error":{"message":"slow down"}}"#);
        busy.headers_mut().insert("retry-after", "86400".parse().unwrap());
        busy
    });
    let (one, two) = (one.await, Backend::start(&[]).await);
    let resources =
        self::two(one.addr, two.addr) + &yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, "");
    let Some(gateway) = gateway(resources).await else { return };
    let answer = gateway.peer().send(post(CHAT, &[], REQUEST)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!((one.seen().len(), two.counters().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_answer_is_the_clients_where_all_fail() {
    let one = Backend::start(&["--status", "503"]).await;
    let two = Backend::start(&["--status", "429", "--body", r#"{"error":{"message":"of two"}}"#]).await;
    let resources =
        self::two(one.addr, two.addr) + &yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, "");
    let Some(gateway) = gateway(resources).await else { return };
    let answer = gateway.peer().send(post(CHAT, &[], REQUEST)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.text().contains("of two"), "{}", answer.text());
    assert_eq!((one.counters().requests, two.counters().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_arrives_whole_at_the_second_attempt() {
    let (one, two) = (Backend::start(&["--status", "503"]).await, Backend::start(&[]).await);
    let resources =
        self::two(one.addr, two.addr) + &yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, "");
    let Some(gateway) = gateway(resources).await else { return };
    for megabytes in [1, 20] {
        let body = format!(r#"{{"model":"m","messages":[],"user":"{}"}}"#, "x".repeat(megabytes << 20));
        let digest = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = gateway.peer().send(post(CHAT, &[], body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!([one.last().body_sha256, two.last().body_sha256], [digest.clone(), digest]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_before_the_first_token_is_a_failure_and_silence_after_it_an_end() {
    let two = Backend::start(&["--id", "two"]).await;
    for (fault, answered_by) in [("stall", "two"), ("stall:1", "one")] {
        two.reset();
        let one = Backend::start(&["--id", "one", "--fault", fault, "--chunks", "3"]).await;
        let resources = self::two(one.addr, two.addr)
            + &yaml::shared_rule(IN_ORDER, "streamIdleTimeout: 300ms")
            + &yaml::retries(RETRY, "");
        let Some(gateway) = gateway(resources).await else { return };
        let response = gateway.peer().open(post(CHAT, &[], STREAM)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{fault}");
        assert_eq!(response.headers()["x-testbackend-id"], answered_by);
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        let whole = body.is_ok_and(|body| body.to_bytes().ends_with(b"data: [DONE]\n\n"));
        assert_eq!(whole, answered_by == "two", "{fault}");
        assert_eq!(two.counters().requests, u64::from(answered_by == "two"));
    }
}

/// The files of an example.
fn example(folder: &std::path::Path, name: &str, files: [&str; 2]) -> String {
    let read = |file| std::fs::read_to_string(folder.join("examples").join(name).join(file)).unwrap();
    files.map(read).join("\n---\n")
}

/// The resources with a Service's address in place of its name.
fn at(resources: &str, hostname: &str, port: u16, addr: std::net::SocketAddr) -> String {
    let named = format!("fqdn:\n        hostname: {hostname}\n        port: {port}\n");
    assert!(resources.contains(&named), "{hostname} is not there");
    resources
        .replace(&named, &format!("ip:\n        address: {}\n        port: {}\n", addr.ip(), addr.port()))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_silent_backends_works() {
    let Some(data) = shared_data() else { return };
    let unchanged = example(&data, "stream_idle_timeout", ["base.yaml", "backends.yaml"]);
    let silent = Backend::start(&["--fault", "stall"]).await;
    let half = Backend::start(&["--fault", "stall:1", "--chunks", "3"]).await;
    let host = |name: &str| format!("stream-idle-timeout-{name}.default.svc.cluster.local");
    let moved = at(&unchanged, &host("silent"), 8080, silent.addr);
    let moved = at(&moved, &host("semi-silent"), 8080, half.addr);
    let moved = moved.replace("streamIdleTimeout: 5s", "streamIdleTimeout: 500ms");
    let request = |model: &str| {
        format!(r#"{{"model":"stream-idle-timeout-{model}-demo","stream":true,"messages":[]}}"#)
    };
    // As they are, the first backends are names that nobody on this machine knows.
    for (resources, half_answers) in [(unchanged, false), (moved, true)] {
        let Some(setup) = Setup::new().await else { return };
        let gateway = setup.yaml(resources).start().await;
        let answer = gateway.peer().send(post(CHAT, &[], request("silent"))).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert!(answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
        let response = gateway.peer().open(post(CHAT, &[], request("semi-silent"))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = http_body_util::BodyExt::collect(response.into_body()).await;
        let whole = body.is_ok_and(|body| body.to_bytes().ends_with(b"data: [DONE]\n\n"));
        assert_eq!(whole, !half_answers);
    }
    assert_eq!((silent.counters().requests, half.counters().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_provider_that_always_fails_works() {
    const HOST: &str = "bedrock-runtime.us-east-1.amazonaws.com";
    const ANSWER: &str = r#"{"output":{"message":{"role":"assistant","content":[{"text":"hi from Bedrock"}]}},"stopReason":"end_turn","usage":{"inputTokens":1,"outputTokens":2,"totalTokens":3}}"#;
    let Some(data) = shared_data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let aws =
        Backend::start(&["--body", ANSWER, "--tls-self-signed", HOST, "--tls-ca-out", ca.to_str().unwrap()])
            .await;
    let resources = example(&data, "provider_fallback", ["base.yaml", "fallback.yaml"]);
    let resources = at(&resources, HOST, 443, aws.addr);
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.yaml(resources).env("SSL_CERT_FILE", &ca).start().await;
    let request = r#"{"model":"us.amazon.nova-micro-v1:0","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = gateway.peer().send(post(CHAT, &[], request)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "hi from Bedrock");
    let sent = aws.last();
    assert_eq!(
        (sent.path.as_str(), sent.authority.as_str()),
        ("/model/us.amazon.nova-micro-v1:0/converse", HOST)
    );
    assert_eq!(sent.tls.as_deref(), Some(HOST));
    let signature = header(&sent, "authorization").concat();
    assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AWS_ACCESS_KEY_ID/"), "{signature}");
    assert!(signature.contains("/us-east-1/bedrock/aws4_request"), "{signature}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_translated_for_the_backend_that_is_tried() {
    const CLAUDE: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"hi from Claude"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}"#;
    let one = Backend::start(&["--status", "503"]).await;
    let two = Backend::start(&["--body", CLAUDE]).await;
    let resources = yaml::backend("one", one.addr)
        + &yaml::backend_of("Anthropic", "two", two.addr, "")
        + &yaml::api_key("one", "key-of-one")
        + &yaml::anthropic_key("two", "key-of-two")
        + &yaml::shared_rule("{name: one}, {name: two, priority: 1, modelNameOverride: claude}", "")
        + &yaml::retries(RETRY, "");
    let Some(gateway) = gateway(resources).await else { return };
    let request = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = gateway.peer().send(post(CHAT, &[], request)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "hi from Claude");
    let (first, second) = (one.last(), two.last());
    assert_eq!((first.path.as_str(), second.path.as_str()), (CHAT, "/v1/messages"));
    assert_eq!(header(&second, "x-api-key"), ["key-of-two"]);
    let body: serde_json::Value = serde_json::from_str(second.body.as_str().unwrap()).unwrap();
    assert_eq!((&body["model"], &body["max_tokens"]), (&"claude".into(), &5.into()));
    is_free_of(&second, &["key-of-one"]);

    // And the other way: nothing of the translation is left.
    two.reset();
    let resources = yaml::backend_of("Anthropic", "one", one.addr, "")
        + &yaml::backend("two", two.addr)
        + &yaml::anthropic_key("one", "key-of-one")
        + &yaml::api_key("two", "key-of-two")
        + &yaml::shared_rule(IN_ORDER, "")
        + &yaml::retries(RETRY, "");
    let Some(gateway) = self::gateway(resources).await else { return };
    let answer = gateway.peer().send(post(CHAT, &[], request)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    let (first, second) = (one.last(), two.last());
    assert_eq!((first.path.as_str(), second.path.as_str()), ("/v1/messages", CHAT));
    assert_eq!(second.body, request);
    assert_eq!(header(&second, "anthropic-version"), [""; 0]);
    is_free_of(&second, &["key-of-one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_share_the_requests_of_a_priority() {
    let (one, two) = (Backend::start(&[]).await, Backend::start(&[]).await);
    let resources =
        self::two(one.addr, two.addr) + &yaml::shared_rule("{name: one, weight: 4}, {name: two}", "");
    let Some(gateway) = gateway(resources).await else { return };
    let mut connection = gateway.peer().keep().await;
    for _ in 0..100 {
        assert_eq!(connection.send(post(CHAT, &[], REQUEST)).await.status, 200);
    }
    let (heavy, light) = (one.counters().requests, two.counters().requests);
    assert_eq!(heavy + light, 100);
    assert!(light > 0 && heavy > 2 * light, "{heavy} to {light}");
    for (backend, key) in [(&one, "Bearer key-of-one"), (&two, "Bearer key-of-two")] {
        assert!(backend.all().iter().all(|request| header(request, "authorization") == [key]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_keeps_failing_is_left_out() {
    let (one, two) = (Backend::start(&["--status", "503"]).await, Backend::start(&[]).await);
    let policy = "healthCheck: {panicThreshold: 0, passive: {consecutive5XxErrors: 2, interval: 100ms, baseEjectionTime: 300s, maxEjectionPercent: 100}}";
    let resources =
        self::two(one.addr, two.addr) + &yaml::shared_rule(IN_ORDER, "") + &yaml::retries(RETRY, policy);
    let Some(gateway) = gateway(resources).await else { return };
    until("the first is left out", async || {
        let before = one.counters().requests;
        assert_eq!(gateway.peer().send(post(CHAT, &[], REQUEST)).await.status, 200);
        one.counters().requests == before
    })
    .await;
    assert!(two.all().iter().all(|request| header(request, "authorization") == ["Bearer key-of-two"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_sockets_and_plain_backends_are_tried_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let tls = ["--tls-self-signed", "one.example.com", "--tls-ca-out", ca.to_str().unwrap()];
    let one = Backend::start(&[&tls[..], &["--status", "503"]].concat()).await;
    let two = Backend::start(&["--status", "503"]).await;
    let certificate = std::fs::read_to_string(&ca).unwrap().replace('\n', "\n    ");
    let socket = "
apiVersion: v1
kind: Service
metadata: {name: three, namespace: default}
spec: {selector: {app: three}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: three, namespace: default}
spec:
  selector: {matchLabels: {app: three}}
  template:
    metadata: {labels: {app: three}}
    spec: {containers: [{name: c, image: ai-gateway-testupstream, env: [{name: TESTUPSTREAM_ID, value: three}]}]}
---
";
    let policy = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: one, namespace: default}}
spec:
  targetRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: one}}]
  validation: {{hostname: one.example.com, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: ca, namespace: default}}
data:
  ca.crt: |
    {certificate}
---
"
    );
    let resources = self::two(one.addr, two.addr)
        + &yaml::backend("three", two.addr).replace(
            &format!("ip: {{address: 127.0.0.1, port: {}}}", two.addr.port()),
            "fqdn: {hostname: three.default.svc.cluster.local, port: 80}",
        )
        + &yaml::api_key("three", "key-of-three")
        + socket
        + &policy
        + &yaml::shared_rule("{name: one}, {name: two, priority: 1}, {name: three, priority: 2}", "")
        + &yaml::retries(&RETRY.replace("numRetries: 1", "numRetries: 2"), "");
    let Some(gateway) = gateway(resources).await else { return };
    let answer = gateway.peer().send(post(CHAT, &[], REQUEST)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(answer.headers["x-testbackend-id"], "three");
    assert_eq!(header(&one.last(), "authorization"), ["Bearer key-of-one"]);
    assert_eq!(
        (one.last().tls.as_deref(), &*one.last().authority),
        (Some("one.example.com"), "one.example.com")
    );
    assert_eq!(header(&two.last(), "authorization"), ["Bearer key-of-two"]);
    assert_eq!((one.counters().requests, two.counters().requests), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_after_a_change_of_the_configuration_is_one_of_the_old() {
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let one = Provider::start(move |_| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.acquire().await.unwrap().forget();
            answer(503, "{}")
        }
    });
    let (one, two, three) = (one.await, Backend::start(&[]).await, Backend::start(&["--id", "three"]).await);
    let resources = |first, second, keys: &str| {
        yaml::backend("one", first)
            + &yaml::backend("two", second)
            + &yaml::api_key("one", &format!("first-{keys}"))
            + &yaml::api_key("two", &format!("second-{keys}"))
            + &yaml::shared_rule(IN_ORDER, "")
            + &yaml::retries(RETRY, "")
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rule.yaml");
    std::fs::write(&file, resources(one.addr, two.addr, "old")).unwrap();
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.yaml(yaml::gateway("1Mi")).file(&file).start().await;

    let peer = gateway.peer();
    let mut clients = tokio::task::JoinSet::new();
    clients.spawn(async move { peer.send(post(CHAT, &[], REQUEST)).await });
    until("the first attempt is under way", async || one.seen().len() == 1).await;

    std::fs::write(&file, resources(three.addr, one.addr, "new")).unwrap();
    until("the change is in force", async || {
        gateway.lines().iter().any(|line| line.contains("are in force as generation 2"))
    })
    .await;
    let answer = gateway.peer().send(post(CHAT, &[], REQUEST)).await;
    assert_eq!(answer.headers["x-testbackend-id"], "three");
    // Time for what must not happen: the old routes and clusters going while an attempt may need them.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    gate.add_permits(1);

    let answer = clients.join_next().await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert_eq!(header(&two.last(), "authorization"), ["Bearer second-old"]);
    assert!(one.seen().iter().all(|request| request.header("authorization") == ["Bearer first-old"]));
    assert!(three.all().iter().all(|request| header(request, "authorization") == ["Bearer first-new"]));
}
