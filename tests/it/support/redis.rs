//! A Redis of the test's own.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{missing_service, until};

/// A running server, on a socket in a folder of its own. What it has answered is on the disk. Dropping it kills it.
pub(crate) struct Redis {
    child: Option<Child>,
    program: PathBuf,
    folder: TempDir,
    arguments: Vec<String>,
}

impl Redis {
    /// Starts one; `None` where there is none to start.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with more arguments, in which `FOLDER` stands for its folder.
    pub(crate) async fn start_with(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("it-redis-").tempdir().expect("a folder");
        Self::start_in(folder, arguments).await
    }

    pub(crate) async fn start_in(folder: TempDir, arguments: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            return missing_service("there is no redis-server; on Debian: apt install redis-server");
        }
        Some(Self::run_in(folder, "redis-server".into(), arguments).await)
    }

    /// Starts this server, which takes what `redis-server` does.
    pub(crate) async fn run_in(folder: TempDir, program: PathBuf, arguments: &[&str]) -> Self {
        let path = folder.path().to_str().expect("UTF-8");
        let arguments = arguments.iter().map(|argument| argument.replace("FOLDER", path)).collect();
        let mut redis = Self { child: None, program, folder, arguments };
        redis.run().await;
        redis
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    /// What `--store` takes.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
        // Nobody listens on it any more.
        let _ = std::fs::remove_file(self.socket());
    }

    /// Sends it a signal: STOP makes it fall silent, CONT go on.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill");
        assert!(status.success(), "{name}");
    }

    /// Starts it, with what it had.
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        command.arg("--unixsocket").arg(self.socket()).arg("--dir").arg(self.folder.path());
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server"));
        until("Redis listens", async || UnixStream::connect(self.socket()).is_ok()).await;
    }

    /// What redis-cli does.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli").arg("-s").arg(self.socket()).args(arguments).output();
        String::from_utf8_lossy(&output.expect("redis-cli").stdout).trim().to_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
