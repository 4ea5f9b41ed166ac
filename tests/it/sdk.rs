//! The providers' own Python SDKs against a gateway: `tests/python`, run by pytest.

use std::path::{Path, PathBuf};

use crate::support::backend::Backend;
use crate::support::gateway::Setup;
use crate::support::{missing, yaml};

/// The interpreter that `make venv` makes.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let ready = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/.ready");
    if ready.is_file() { Some(python) } else { missing("there is no Python environment; run `make venv`") }
}

/// Runs the tests of these files with these variables. They have to pass; what pytest says of them is returned. `None` where there is
/// no Python.
pub(crate) async fn pytest(files: &[impl AsRef<str>], variables: &[(&str, String)]) -> Option<String> {
    let mut command = tokio::process::Command::new(python()?);
    command.args(["-m", "pytest", "--quiet", "-p", "no:cacheprovider", "--color=no", "-rA"]);
    command.args(files.iter().map(AsRef::as_ref)).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.kill_on_drop(true).output().await.expect("Python");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pytest failed; see above");
    Some(text)
}

const FILES: [&str; 4] = ["test_openai.py", "test_openai_endpoints.py", "test_azure.py", "test_anthropic.py"];

/// What `test_quota.py` meets.
const LIMITS: &str = "---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {name: limits, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: test}]
  limits:
    - {name: hourly, type: Request, amount: 1, window: {rolling: 1h}, match: {models: [hourly-model]}}
    - {name: hourly-of-claude, type: Request, amount: 1, window: {rolling: 1h}, match: {models: [claude-hourly]}}
    - {name: tiny, type: TotalToken, amount: 10, window: {every: 1h}, match: {models: [tiny-model]}}
    - {name: window, type: Request, amount: 1, window: {every: 2s}, match: {models: [window-model]}}
    - {name: window-of-claude, type: Request, amount: 1, window: {every: 2s}, match: {models: [claude-window]}}
";

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_work_through_the_gateway() {
    let Some(setup) = Setup::new().await else { return };
    let backend = Backend::start(&["--usage=prompt=9,completion=11"]).await;
    // An address where nobody listens.
    let gone = Backend::start(&[]).await;
    let down = gone.addr;
    gone.stop().await;
    let rules = [
        ("test-model", "up"),
        ("down-model", "down"),
        ("renamed-model", "up, modelNameOverride: provider-model"),
        ("claude-test", "claude"),
        ("claude-renamed", "claude, modelNameOverride: provider-claude"),
        ("rerank-model", "cohere"),
        ("hourly-model", "up"),
        ("tiny-model", "up"),
        ("window-model", "up"),
        ("claude-hourly", "claude"),
        ("claude-window", "claude"),
        ("azure-model", "azure, modelNameOverride: azure-deployment"),
    ];
    let gateway = setup
        .yaml(yaml::gateway("1Mi"))
        .yaml(yaml::backend("up", backend.addr) + &yaml::api_key("up", "sk-configured"))
        .yaml(yaml::backend("down", down))
        .yaml(yaml::backend_of("Anthropic", "claude", backend.addr, ""))
        .yaml(yaml::anthropic_key("claude", "sk-ant-configured"))
        .yaml(
            yaml::backend_of("Cohere", "cohere", backend.addr, "")
                + &yaml::api_key("cohere", "co-configured"),
        )
        .yaml(
            yaml::backend_of("AzureOpenAI, version: 2025-01-01-preview", "azure", backend.addr, "")
                + &yaml::azure_key("azure", "azure-configured"),
        )
        .yaml(yaml::route(&rules, ""))
        .yaml(LIMITS)
        .start()
        .await;
    let files = FILES.map(|file| format!("tests/python/{file}"));
    let variables = [
        ("AIGW_URL", format!("http://{}", gateway.addr)),
        ("TESTBACKEND_URL", format!("http://{}", backend.addr)),
    ];
    let Some(text) = pytest(&files, &variables).await else { return };
    // A run that collects nothing is no proof.
    for file in FILES {
        assert!(text.contains(&format!("{file}::")), "no test of {file} has run");
    }
    gateway.stop().await;
}
