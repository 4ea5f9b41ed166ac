//! Credentials that are made for each request or fetched first: what providers receive, through a real Envoy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use ai_gateway::auth::{AwsTarget, Credential, CredentialMetadata, SigningRequest, aws_keys_of_file};
use ai_gateway::headers::{HeaderEdits, Headers};
use ai_gateway::testbackend::Recorded;

use crate::support::backend::{Backend, header};
use crate::support::gateway::Setup;
use crate::support::http::{get, post};
use crate::support::provider::{Provider, answer};
use crate::support::sigv4::{Known, Signed, verify};
use crate::support::{until, yaml};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[]}"#;

const CONFIGURED: Known =
    Known { id: "AKIDCONFIGURED", secret: "configured/secret+key", token: Some("configured-token==") };
const BROUGHT: Known = Known { id: "AKIDBROUGHT", secret: "brought/secret", token: None };

/// The signer against the stand-in's own arithmetic, where Envoy would not let everything pass.
#[test]
fn signatures_are_those_of_the_standard() {
    let file =
        "[default]\naws_access_key_id = AKID\naws_secret_access_key = s/e+cret\naws_session_token = t/o+k=\n";
    let body = br#"{"messages":[{"role":"user","content":[{"text":"h\u00e9"}]}]}"#;
    for (target, host) in [
        (
            "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/converse",
            "bedrock-runtime.eu-west-1.amazonaws.com",
        ),
        (
            "/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Fx/converse-stream",
            "vpce.example.com",
        ),
        ("/model/a:b/invoke?b=2&a=1&a=0", "localhost"),
        ("/", "localhost"),
    ] {
        let keys = aws_keys_of_file(file, "default").unwrap();
        let credential = Credential::aws(keys, AwsTarget::new("eu-west-1", None).unwrap());
        let request = SigningRequest {
            method: b"POST",
            path: target,
            upstream_host: Some(host),
            body,
            headers: &Headers::default(),
            credential_metadata: &CredentialMetadata::default(),
            wall: UNIX_EPOCH + Duration::from_secs(1_795_392_000),
        };
        let mut edits = HeaderEdits::default();
        credential.sign(&request, &mut edits).unwrap();
        let signed = Signed {
            method: "POST",
            target,
            host,
            date: "20261123T000000Z",
            token: Some("t/o+k="),
            body_sha256: &ring::digest::digest(&ring::digest::SHA256, body)
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>(),
            region: "eu-west-1",
        };
        let expected = signed.authorization("AKID", "s/e+cret");
        let got = edits.set.iter().find(|(name, _)| name == "authorization").unwrap();
        assert_eq!(got.1, expected, "{target}");
    }
}

/// A backend that is asked for by name, as providers are.
fn named(name: &str, backend: &Backend) -> String {
    let port = backend.addr.port();
    yaml::backend(name, backend.addr).replace(
        &format!("ip: {{address: 127.0.0.1, port: {port}}}"),
        &format!("fqdn: {{hostname: localhost, port: {port}}}"),
    )
}

fn policy(name: &str, spec: &str, secret: &str) -> String {
    format!(
        "
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: BackendSecurityPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  targetRefs: [{{group: aigateway.envoyproxy.io, kind: AIServiceBackend, name: {name}}}]
{spec}
---
apiVersion: v1
kind: Secret
metadata: {{name: {name}, namespace: default}}
stringData: {secret}
---
"
    )
}

fn aws(name: &str) -> String {
    let Known { id, secret, token } = CONFIGURED;
    let token = token.unwrap();
    let file = format!(
        "[default]\\naws_access_key_id = {id}\\naws_secret_access_key = {secret}\\naws_session_token = {token}\\n"
    );
    policy(
        name,
        &format!(
            "  type: AWSCredentials
  awsCredentials: {{region: eu-west-1, credentialsFile: {{secretRef: {{name: {name}}}}}}}
  credentialOverride: {{fromRequestHeaders: {{}}}}"
        ),
        &format!("{{credentials: \"{file}\"}}"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_aws_is_signed_as_it_is_received() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let gateway = setup
        .yaml(
            yaml::gateway("50Mi") + &named("one", &backend) + &aws("one") + &yaml::route(&[("m", "one")], ""),
        )
        .start()
        .await;
    let received = async |headers: &[(&str, &str)], body: &str| -> Recorded {
        let answer = gateway.peer().send(post(CHAT, headers, body.to_owned())).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        backend.last()
    };
    // What a client says of signatures is nobody's business.
    let of_client = [
        ("authorization", "AWS4-HMAC-SHA256 Credential=CLIENT"),
        ("x-amz-date", "20200101T000000Z"),
        ("x-amz-security-token", "client-token"),
        ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
    ];
    let large =
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, "x".repeat(1 << 20));
    // A stream without usage is changed on its way; the signature is over what arrives.
    let changed = r#"{"model":"m","messages":[],"stream":true}"#;
    for (headers, body) in [(&[][..], BODY), (&of_client, BODY), (&[], &large), (&[], changed)] {
        let recorded = received(headers, body).await;
        verify(&recorded, &CONFIGURED, "localhost", "eu-west-1");
        let text = serde_json::to_string(&recorded.headers).unwrap();
        assert!(
            !text.contains("CLIENT") && !text.contains("client-token") && !text.contains("UNSIGNED"),
            "{text}"
        );
    }

    // A client with keys of its own signs with those, and they go no further.
    let (id, secret) = ("x-aigw-aws-access-key-id", "x-aigw-aws-secret-access-key");
    let recorded = received(&[(id, BROUGHT.id), (secret, BROUGHT.secret)], BODY).await;
    verify(&recorded, &BROUGHT, "localhost", "eu-west-1");
    let text = serde_json::to_string(&recorded.headers).unwrap();
    assert!(!text.contains("x-aigw") && !text.contains(BROUGHT.secret), "{text}");
    // Half of them is not made up for by the gateway's own.
    let before = backend.counters().requests;
    let refused = gateway.peer().send(post(CHAT, &[(id, BROUGHT.id)], BODY)).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("incomplete"));
    assert_eq!(backend.counters().requests, before);
    gateway.stop().await;
}

/// What stands in a path of Bedrock is escaped there, and escaped again where it is signed; Envoy must leave it as it is.
#[tokio::test(flavor = "multi_thread")]
async fn models_in_paths_are_signed_as_they_arrive() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let models =
        ["anthropic.claude-3-5-sonnet-20240620-v1:0", "arn:aws:bedrock:eu-west-1:1:inference-profile/x.y"];
    let bedrock = named("one", &backend).replace("{name: OpenAI}", "{name: AWSBedrock}");
    let rules = models.map(|model| (model, "one"));
    let gateway =
        setup.yaml(yaml::gateway("50Mi") + &bedrock + &aws("one") + &yaml::route(&rules, "")).start().await;
    for model in models {
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"Hi."}}]}}"#);
        gateway.peer().send(post(CHAT, &[], body)).await;
        let recorded = backend.last();
        assert!(
            recorded.path.starts_with("/model/") && recorded.path.ends_with("/converse"),
            "{}",
            recorded.path
        );
        assert_eq!(recorded.path.contains("%2F"), model.contains('/'), "{}", recorded.path);
        verify(&recorded, &CONFIGURED, "localhost", "eu-west-1");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_fetched_is_told_and_nothing_is_sent_without_it() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&[]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let entra = {
        let (asked, down) = (Arc::clone(&asked), Arc::clone(&down));
        Provider::start(move |_| {
            let number = asked.fetch_add(1, Ordering::SeqCst);
            let down = down.load(Ordering::SeqCst);
            async move {
                if down {
                    return answer(503, r#"{"error":"temporarily_unavailable"}"#);
                }
                answer(200, &format!(r#"{{"access_token":"token-{number}","expires_in":3600}}"#))
            }
        })
        .await
    };
    let azure = policy(
        "one",
        "  type: AzureCredentials
  azureCredentials: {clientID: client, tenantID: tenant, clientSecretRef: {name: one}}",
        "{client-secret: entra-hush}",
    );
    let gateway = setup
        .env("AZURE_AUTHORITY_HOST", format!("http://{}", entra.addr))
        .yaml(yaml::gateway("50Mi") + &named("one", &backend) + &azure + &yaml::route(&[("m", "one")], ""))
        .start()
        .await;
    let send = async || gateway.peer().send(post(CHAT, &[("authorization", "Bearer client")], BODY)).await;
    let refused = send().await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("credential"));
    assert_eq!(backend.counters().requests, 0);
    let admin = gateway.admin();
    let health = admin.send(get("/health")).await;
    assert_eq!(health.status, 200);
    assert!(
        health.text().contains("default/one") && health.text().contains("temporarily_unavailable"),
        "{}",
        health.text()
    );
    let metrics = admin.send(get("/metrics")).await.text();
    let failures = metrics.lines().find(|line| line.starts_with("aigw_credential_refresh_failures_total{"));
    assert!(failures.is_some_and(|line| line.contains("default/one") && !line.ends_with(" 0")), "{metrics}");

    down.store(false, Ordering::SeqCst);
    until("requests are served", async || send().await.status == 200).await;
    let fetches = asked.load(Ordering::SeqCst);
    let token = format!("Bearer token-{}", fetches - 1);
    assert_eq!(header(&backend.last(), "authorization"), [token.as_str()]);
    for _ in 0..5 {
        assert_eq!(send().await.status, 200);
    }
    assert_eq!(asked.load(Ordering::SeqCst), fetches, "a token is fetched once");
    let lines = gateway.lines().join("\n");
    assert!(!lines.contains("entra-hush") && !lines.contains("token-"), "{lines}");
    gateway.stop().await;
}
