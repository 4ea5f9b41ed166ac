//! What the tests on Kubernetes share.

pub(crate) mod apiserver;
pub(crate) mod cluster;
pub(crate) mod guide;
#[path = "../it/support/http.rs"]
pub(crate) mod http;
mod isolation;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod objects;
pub(crate) mod programmer;
pub(crate) mod provider;
pub(crate) mod tools;

pub(crate) use isolation::{isolated, isolated_with_envoy};

use std::io::Write;

/// Reports that something the test needs is not here. Returns `None` to leave the test with, or fails it under
/// `AIGW_TEST_STRICT` and under `CI`.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    assert!(!is_set("AIGW_TEST_STRICT") && !is_set("CI"), "{what}");
    let thread = std::thread::current();
    // Past the test runner, which shows nothing of a test that passes. A failure to write has nowhere to go.
    _ = writeln!(std::io::stderr(), "SKIPPED {}: {what}", thread.name().unwrap_or("a test"));
    None
}

/// The folder of test inputs that are not part of this repository, as for the other tests.
pub(crate) fn shared_data() -> Option<std::path::PathBuf> {
    let root = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let data = std::env::var_os("AIGW_SHARED_DATA").map_or_else(|| root.join("../shared/data"), Into::into);
    data.is_dir().then_some(data)
}

/// A task that ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "the test's runtime is the owner, and ends with the test")]
pub(crate) fn spawn(task: impl Future<Output: Send + 'static> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// Asks again and again until the answer is yes. What never comes ends with the test's time.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until_some(what, async || condition().await.then_some(())).await;
}

/// Asks again and again until there is an answer.
pub(crate) async fn until_some<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    // Not a measure of anything: without it a failure would hang.
    tokio::time::timeout(std::time::Duration::from_secs(180), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
