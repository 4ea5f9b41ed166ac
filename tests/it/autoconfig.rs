//! A gateway without any file, made from the environment.

use ai_gateway::testbackend::Recorded;

use crate::support::backend::{Backend, header};
use crate::support::gateway::Setup;
use crate::support::http::post;

const KEY: &str = "sk-from-the-environment";

/// A gateway without files. Whatever keys this machine has are not passed on.
async fn setup() -> Option<Setup> {
    let setup = Setup::new().await?.env("AIGW_CONFIG_HOME", "/nowhere");
    let others = ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"];
    let others = others.iter().chain(&["AZURE_OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"]);
    Some(others.fold(setup, |setup, name| setup.env(name, "")))
}

/// What the provider saw of a request to that path, with every credential a client may send.
async fn seen(setup: Setup, backend: &Backend, path: &str, status: u16) -> Recorded {
    let gateway = setup.start().await;
    let headers = [("authorization", "Bearer client's"), ("x-api-key", "client's"), ("api-key", "client's")];
    let body = r#"{"model":"any-model","messages":[{"role":"user","content":"Hi."}]}"#;
    let answer = gateway.peer().send(post(path, &headers, body)).await;
    assert_eq!(answer.status, status, "{}", answer.text());
    let lines = gateway.lines().join("\n");
    assert!(!lines.contains(KEY), "{lines}");
    healthy(&lines).await;
    gateway.stop().await;
    backend.last()
}

/// A running gateway says that it serves, at the address that it announces.
async fn healthy(lines: &str) {
    let metrics = lines.split_whitespace().find_map(|word| word.strip_suffix("/metrics")).expect("announced");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_aigw"));
    let output = command.args(["healthcheck", "--url", &format!("{metrics}/health")]).output().await;
    let output = output.expect("aigw");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_key_reaches_the_base_url_and_the_clients_does_not() {
    let Some(setup) = setup().await else { return };
    let backend = Backend::start(&[]).await;
    let setup = setup
        .env("OPENAI_API_KEY", KEY)
        .env("OPENAI_BASE_URL", format!("http://{}/v1", backend.addr))
        .env("OPENAI_ORG_ID", "org-1");
    let seen = seen(setup, &backend, "/v1/chat/completions", 200).await;
    assert_eq!(seen.path, "/v1/chat/completions");
    assert_eq!(header(&seen, "authorization"), [format!("Bearer {KEY}")]);
    assert_eq!(header(&seen, "openai-organization"), ["org-1"]);
    assert_eq!((header(&seen, "x-api-key").len(), header(&seen, "api-key").len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropics_key_goes_in_its_own_header() {
    let Some(setup) = setup().await else { return };
    let backend = Backend::start(&[]).await;
    let setup =
        setup.env("ANTHROPIC_API_KEY", KEY).env("ANTHROPIC_BASE_URL", format!("http://{}", backend.addr));
    let seen = seen(setup, &backend, "/anthropic/v1/messages", 200).await;
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(header(&seen, "x-api-key"), [KEY]);
    assert_eq!((header(&seen, "authorization").len(), header(&seen, "api-key").len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resources_are_shown_without_the_key_and_nothing_set_is_explained() {
    let Some(ready) = setup().await else { return };
    let output = ready.env("OPENAI_API_KEY", KEY).arg("--print-resources").output().await;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("${OPENAI_API_KEY}") && !text.contains(KEY), "{text}");
    let Some(ready) = setup().await else { return };
    let output = ready.output().await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("AZURE_OPENAI_ENDPOINT"), "{text}");
}
