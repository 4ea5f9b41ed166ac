//! What the end-to-end tests share.

pub(crate) mod backend;
pub(crate) mod classic;
pub(crate) mod controller;
pub(crate) mod envoy;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod planes;
pub(crate) mod provider;
pub(crate) mod redis;
pub(crate) mod scripted;
pub(crate) mod sigv4;
pub(crate) mod topology;
pub(crate) mod valkey;
pub(crate) mod yaml;

use std::io::Write;
use std::path::PathBuf;

/// Reports that a tool the test needs is not here. Returns `None` to leave the test with, or fails it under
/// `AIGW_TEST_STRICT`, which `make test` sets, as it has set the tools up, and under `CI`.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    skip(what, is_set("AIGW_TEST_STRICT") || is_set("CI"))
}

/// As [`missing`], of what neither `make test` nor CI sets up.
pub(crate) fn missing_service<T>(what: &str) -> Option<T> {
    skip(what, false)
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
}

fn skip<T>(what: &str, forbidden: bool) -> Option<T> {
    assert!(!forbidden, "{what}");
    let thread = std::thread::current();
    // Past the test runner, which shows nothing of a test that passes. A failure to write has nowhere to go.
    _ = writeln!(std::io::stderr(), "SKIPPED {}: {what}", thread.name().unwrap_or("a test"));
    None
}

/// The folder of test inputs that are not part of this repository: `AIGW_SHARED_DATA`, or `../shared/data` beside it.
/// Those who have only the repository skip what needs it; CI does not.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let data =
        std::env::var_os("AIGW_SHARED_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    if data.is_dir() {
        return Some(data);
    }
    skip(&format!("there is no {}; AIGW_SHARED_DATA names another folder", data.display()), is_set("CI"))
}

/// A task that ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "the test's runtime is the owner, and ends with the test")]
pub(crate) fn spawn(task: impl Future<Output: Send + 'static> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// Asks again and again until the answer is yes. What never comes ends with the test's time.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    // Not a measure of anything: without it a failure would hang.
    tokio::time::timeout(std::time::Duration::from_secs(180), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
