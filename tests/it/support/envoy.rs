//! A bare Envoy, for tests that bring their own configuration.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use ai_gateway::standalone::envoy_binary::Search;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::http::{Peer, get};
use super::{missing, until};

/// A running Envoy; dropping it kills it and removes its folder.
pub(crate) struct Envoy {
    dir: TempDir,
    child: Child,
}

/// The executable that `aigw run` would use, fetched if need be; `AIGW_ENVOY` names another.
pub(crate) async fn binary() -> Option<PathBuf> {
    static FOUND: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();
    let find = async || {
        let explicit = std::env::var_os("AIGW_ENVOY").map(PathBuf::from);
        let found = Search::from_env(explicit).find(&mut |notice| println!("{notice}")).await;
        found.map(|binary| binary.path).map_err(|error| error.to_string())
    };
    // Once for all tests, so that two do not fetch it at the same time.
    match FOUND.get_or_init(find).await {
        Ok(path) => Some(path.clone()),
        Err(error) => missing(error),
    }
}

impl Envoy {
    /// Starts Envoy in a folder of its own with the configuration made for that folder, and waits until it serves. An
    /// admin section is added. One worker, so that tests may run side by side.
    pub(crate) async fn start(config: impl FnOnce(&Path) -> Value) -> Option<Self> {
        let binary = binary().await?;
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = config(dir.path());
        let admin = dir.path().join("admin.sock");
        config["admin"] = serde_json::json!({"address": {"pipe": {"path": admin}}});
        let file = dir.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).expect("write");
        let log = std::fs::File::create(dir.path().join("envoy.log")).expect("a log");
        let child = Command::new(binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn"])
            // Access logs are read while they are written.
            .args(["--file-flush-interval-msec", "50", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("Envoy");
        let mut envoy = Self { dir, child };
        until("Envoy serves", async || {
            if let Some(status) = envoy.child.try_wait().expect("a child") {
                let log = std::fs::read_to_string(envoy.path().join("envoy.log")).unwrap_or_default();
                panic!("Envoy ended with {status}: {log}");
            }
            if tokio::net::UnixStream::connect(&admin).await.is_err() {
                return false;
            }
            // The answer may fail to come where Envoy is on its way out; the next round tells.
            Peer::Unix(admin.clone()).open(get("/ready")).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Some(envoy)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn peer(&self, socket: &str) -> Peer {
        Peer::Unix(self.path().join(socket))
    }
}

impl Envoy {
    /// The answer of the administration interface.
    pub(crate) async fn admin(&self, path: &str) -> String {
        self.peer("admin.sock").send(get(path)).await.text()
    }

    /// Statistics whose name matches this expression.
    pub(crate) async fn stats(&self, expression: &str) -> Vec<(String, u64)> {
        let text = self.admin(&format!("/stats?filter={expression}")).await;
        text.lines()
            .filter_map(|l| l.rsplit_once(": "))
            .filter_map(|(n, v)| Some((n.to_owned(), v.parse().ok()?)))
            .collect()
    }
}
