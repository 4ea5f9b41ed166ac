//! What the end-to-end tests share.

pub(crate) mod backend;
pub(crate) mod envoy;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod planes;
pub(crate) mod yaml;

use std::path::PathBuf;

/// Reports that something the test needs is not here. Returns `None` to leave the test with, or fails it where skipping
/// is not allowed.
pub(crate) fn missing<T>(what: &str) -> Option<T> {
    let strict = |name| {
        std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0" && value != "false")
    };
    assert!(!strict("CI") && !strict("AIGW_TEST_STRICT"), "{what}");
    let thread = std::thread::current();
    println!("SKIPPED {}: {what}", thread.name().unwrap_or("a test"));
    None
}

/// The folder of test inputs that are not part of this repository: `AIGW_TEST_DATA`, or `../shared/data` beside it.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let data = std::env::var_os("AIGW_TEST_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    if data.is_dir() {
        return Some(data);
    }
    missing(&format!("there is no {}; AIGW_TEST_DATA names another folder", data.display()))
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
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
