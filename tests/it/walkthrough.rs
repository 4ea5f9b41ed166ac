//! The walkthrough, from its own files, through a real Envoy.

use std::path::{Path, PathBuf};

use crate::support::backend::{Backend, header};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::post;
use crate::support::shared_data;

/// Point 6: what is sent and what comes back.
const HI: &str = r#"{"model":"some-cool-self-hosted-model","messages":[{"role":"system","content":"Hi."}]}"#;
const INEVITABLE: &str = r#"{"choices":[{"message":{"role":"assistant", "content":"I am inevitable."}}]}"#;
/// Point 8.
const NO_ROUTE: &str = "No matching route found. It is likely that the model specified your request is not configured in the Gateway";

fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/basic").join(name)
}

async fn points_6_and_8(gateway: &Gateway) {
    let answer = gateway.peer().send(post("/v1/chat/completions", &[], HI)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, INEVITABLE.to_owned()));
    let unknown = HI.replace("some-cool-self-hosted-model", "no-such-model");
    let answer = gateway.peer().send(post("/v1/chat/completions", &[], unknown)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (404, NO_ROUTE.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn its_basic_yaml_answers_unchanged() {
    let (Some(data), Some(setup)) = (shared_data(), Setup::new().await) else { return };
    let gateway = setup.file(data.join("examples/basic/basic.yaml")).start().await;
    points_6_and_8(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_basic_yaml_answers_the_same() {
    let Some(setup) = Setup::new().await else { return };
    let gateway = setup.file(ours("basic.yaml")).start().await;
    points_6_and_8(&gateway).await;
    gateway.stop().await;
}

/// Point 7: the provider's file, its host name and port changed to those of a test backend that speaks TLS.
async fn point_7(kimi: PathBuf, basic: PathBuf, system_authorities: bool) {
    let Some(setup) = Setup::new().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let out = format!("--tls-ca-out={}", ca.display());
    let flags = ["--tls-self-signed=localhost", &out, "--usage=prompt=9,completion=11", "--content=Hello!"];
    let backend = Backend::start(&flags).await;

    let text = std::fs::read_to_string(kimi).unwrap();
    let port = format!("port: {}", backend.addr.port());
    let mut text = text.replace("api.moonshot.cn", "localhost").replace("port: 443", &port);
    let secret = text.lines().find_map(|l| l.trim().strip_prefix("apiKey: ")).unwrap();
    let secret = secret.split_whitespace().next().unwrap();
    let key = if secret.starts_with('$') { "sk-from-the-environment" } else { secret }.to_owned();
    let setup = setup.env("KIMI_API_KEY", "sk-from-the-environment");
    let setup = if system_authorities {
        setup.env("SSL_CERT_FILE", &ca)
    } else {
        let line = text.lines().find(|l| l.contains("wellKnownCACertificates")).unwrap().to_owned();
        text = text.replace(&line, "    caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]");
        let pem = std::fs::read_to_string(&ca).unwrap().replace('\n', "\n    ");
        setup.yaml(format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca}}\ndata:\n  ca.crt: |\n    {pem}\n"
        ))
    };
    let gateway = setup.file(basic).yaml(text).start().await;

    let body = r#"{"model":"kimi-k2-0905-preview","messages":[{"role":"user","content":"Hi."}]}"#;
    let answer = gateway
        .peer()
        .send(post("/v1/chat/completions", &[("authorization", "Bearer client's")], body))
        .await;
    let json = answer.json();
    assert_eq!(answer.status, 200, "{json}");
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["choices"][0]["message"]["content"], "Hello!");
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    let usage = &json["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]),
        (&9.into(), &11.into(), &20.into())
    );

    let seen = backend.last();
    assert_eq!(header(&seen, "authorization"), [format!("Bearer {key}")]);
    assert_eq!(seen.tls.as_deref(), Some("localhost"));
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(seen.body, body);
    // The other model is served still, and its backend gets no key.
    points_6_and_8(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_kimi_yaml_answers_with_usage_and_its_own_key() {
    let Some(data) = shared_data() else { return };
    point_7(data.join("seed/kimi.yaml"), data.join("examples/basic/basic.yaml"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_kimi_yaml_answers_the_same_with_an_authority_from_a_config_map() {
    point_7(ours("kimi.yaml"), ours("basic.yaml"), false).await;
}
