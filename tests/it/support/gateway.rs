//! `aigw run` as its users run it: a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::http::Peer;
use super::{envoy, spawn, until};

/// How a gateway is started.
pub(crate) struct Setup {
    command: Command,
    dir: TempDir,
    files: usize,
}

/// A running gateway. Dropping it kills it; [`Gateway::stop`] ends it as a user would.
pub(crate) struct Gateway {
    child: Child,
    dir: TempDir,
    output: Arc<Mutex<Vec<String>>>,
    /// Where the first listener is.
    pub(crate) addr: SocketAddr,
}

impl Setup {
    /// `aigw run` in a folder of its own, which is also its TMPDIR. `None` where there is
    /// no Envoy.
    pub(crate) async fn new() -> Option<Self> {
        let envoy = envoy::binary().await?;
        let dir = tempfile::Builder::new().prefix("it-").tempdir().expect("a folder");
        let tmp = dir.path().join("tmp");
        std::fs::create_dir(&tmp).expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_aigw"));
        command
            .args(["run", "--admin-port", "0", "--envoy-concurrency", "1", "--envoy"])
            .arg(envoy)
            .env("TMPDIR", tmp);
        Some(Self { command, dir, files: 0 })
    }

    /// With this file of resources.
    pub(crate) fn file(mut self, path: impl AsRef<Path>) -> Self {
        assert!(path.as_ref().is_file(), "there is no {}", path.as_ref().display());
        self.command.arg(path.as_ref());
        self
    }

    /// With these resources.
    pub(crate) fn yaml(mut self, text: impl AsRef<str>) -> Self {
        self.files += 1;
        let path = self.dir.path().join(format!("{}.yaml", self.files));
        std::fs::write(&path, text.as_ref()).expect("write");
        self.file(path)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs a command that ends by itself.
    pub(crate) async fn output(mut self) -> std::process::Output {
        self.command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("aigw")
    }

    /// Starts it, listener `http` on a free port, and waits until it says where it is.
    pub(crate) async fn start(mut self) -> Gateway {
        self.command.args(["--listen", "http=0"]);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = self.command.spawn().expect("aigw");
        let output = Arc::new(Mutex::new(Vec::new()));
        keep_lines(child.stdout.take().expect("piped"), &output);
        keep_lines(child.stderr.take().expect("piped"), &output);
        let mut addr = None;
        until("aigw run is ready", async || {
            addr = output.lock().expect("lines").iter().find_map(|line| url(line));
            if let Ok(Some(status)) = child.try_wait() {
                panic!("aigw run ended with {status}:\n{}", output.lock().expect("lines").join("\n"));
            }
            addr.is_some()
        })
        .await;
        Gateway { child, dir: self.dir, output, addr: addr.expect("found") }
    }
}

/// The address of a listener, if the line announces one.
fn url(line: &str) -> Option<SocketAddr> {
    let rest = line.trim_start().strip_prefix("listener ")?.split_once("://")?.1;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".:".contains(c))).unwrap_or(rest.len());
    let addr = rest[..end].replace("localhost", "127.0.0.1").replace("0.0.0.0", "127.0.0.1");
    addr.parse().ok().filter(|addr: &SocketAddr| addr.port() != 0)
}

fn keep_lines(stream: impl AsyncRead + Unpin + Send + 'static, output: &Arc<Mutex<Vec<String>>>) {
    let output = output.clone();
    spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if std::env::var_os("AIGW_TEST_VERBOSE").is_some() {
                println!("{line}");
            }
            output.lock().expect("lines").push(line);
        }
    });
}

impl Gateway {
    pub(crate) fn peer(&self) -> Peer {
        Peer::Tcp(self.addr)
    }

    /// Where `/health` and `/metrics` are.
    pub(crate) fn admin(&self) -> Peer {
        let lines = self.lines().join("\n");
        let metrics =
            lines.split_whitespace().find_map(|word| word.strip_suffix("/metrics")).expect("announced");
        let addr = metrics.trim_start_matches("http://").replace("localhost", "127.0.0.1");
        Peer::Tcp(addr.parse().expect("an address"))
    }

    /// Where a listener is.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        let lines = self.lines();
        let mut found =
            lines.iter().filter(|line| line.trim_start().starts_with(&format!("listener {name} ")));
        found.find_map(|line| url(line)).unwrap_or_else(|| panic!("no {name} in\n{}", lines.join("\n")))
    }

    /// The folder of this run.
    pub(crate) fn runtime_dir(&self) -> PathBuf {
        let mut folders =
            std::fs::read_dir(self.tmp()).expect("a folder").map(|e| e.expect("an entry").path());
        folders.find(|path| path.join("envoy.json").is_file()).expect("a runtime folder")
    }

    /// Everything it has written so far, both streams.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lock().expect("lines").clone()
    }

    /// What a user's Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// What an orchestrator does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let status = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.expect("kill").success());
    }

    /// The folder it keeps its own files in.
    fn tmp(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    /// Waits for its end after [`Gateway::interrupt`], and checks that it left no process and no file.
    pub(crate) async fn ended(mut self) {
        let status = tokio::time::timeout(std::time::Duration::from_secs(180), self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it does not end:\n{}", self.lines().join("\n")))
            .expect("a status");
        assert!(status.success(), "{status}:\n{}", self.lines().join("\n"));
        let left: Vec<_> =
            std::fs::read_dir(self.tmp()).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        let tmp = self.tmp();
        until("its processes are gone", async || processes_naming(&tmp).is_empty()).await;
    }

    /// Ends it and checks that nothing is left.
    pub(crate) async fn stop(self) {
        self.interrupt();
        self.ended().await;
    }
}

/// The command lines of running processes that name this path.
fn processes_naming(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("UTF-8");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(path))
        .collect()
}
