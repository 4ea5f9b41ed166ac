//! What this binary shares with the integration tests, and dice.

#[expect(dead_code, reason = "the integration tests use the rest")]
#[path = "../it/support/redis.rs"]
pub(crate) mod redis;
#[expect(dead_code, reason = "the integration tests use the rest")]
#[path = "../it/support/scripted.rs"]
pub(crate) mod scripted;
#[expect(dead_code, reason = "the integration tests use the rest")]
#[path = "../it/support/topology.rs"]
pub(crate) mod topology;

use std::io::Write;
use std::time::Duration;

/// As in the integration tests: what neither `make test-chaos` nor CI sets up is missing, and the test says so.
pub(crate) fn missing_service<T>(what: &str) -> Option<T> {
    say(&format!("SKIPPED {}: {what}", std::thread::current().name().unwrap_or("a test")));
    None
}

/// Past the test runner, which shows nothing of a test that passes.
pub(crate) fn say(line: &str) {
    // A failure to write has nowhere to go.
    _ = writeln!(std::io::stderr(), "{line}");
}

/// A task that ends with the test's runtime.
#[expect(clippy::disallowed_methods, reason = "the test's runtime is the owner, and ends with the test")]
pub(crate) fn spawn(task: impl Future<Output: Send + 'static> + Send + 'static) {
    drop(tokio::spawn(task));
}

/// Asks again and again until the answer is yes. What never comes fails the test after a time that no machine needs.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, waiting).await;
}

/// The longest that anything may take.
pub(crate) async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(120), waiting).await;
    done.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// The same numbers for the same seed (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `least` to `most`, both inclusive.
    pub(crate) fn from(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// So often in a hundred.
    pub(crate) fn percent(&mut self, often: u64) -> bool {
        self.next() % 100 < often
    }
}
