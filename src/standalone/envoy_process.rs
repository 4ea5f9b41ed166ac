//! One Envoy as a child process.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::admin::Admin;
use super::envoy_binary::EnvoyBinary;

/// Envoy waits for the first resolution of every host name before it serves.
const READY_WITHIN: Duration = Duration::from_secs(60);

const QUIT_WITHIN: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(25);

/// How Envoy is started.
#[derive(Debug, Clone)]
pub(super) struct EnvoyArguments<'a> {
    pub(super) config: &'a Path,
    pub(super) admin_socket: &'a Path,
    pub(super) log_level: &'a str,
    pub(super) concurrency: Option<u32>,
}

/// Why Envoy does not serve.
#[derive(Debug, thiserror::Error)]
pub enum EnvoyProcessError {
    /// The executable could not be started.
    #[error("Envoy ({path}) could not be started: {error}")]
    Start {
        /// The executable.
        path: String,
        /// What the system says.
        error: io::Error,
    },
    /// It ended by itself.
    #[error("Envoy ended with {0}; what it wrote to standard error says why")]
    Ended(ExitStatus),
    /// It runs but does not serve.
    #[error("Envoy is not ready after {} seconds; --envoy-log-level info shows what it waits for", READY_WITHIN.as_secs())]
    NotReady,
    /// Its state could not be read.
    #[error("Envoy could not be watched: {0}")]
    Watch(io::Error),
}

/// A running Envoy. Dropping it kills it.
pub(super) struct EnvoyProcess {
    child: Child,
    pub(super) admin: Admin,
}

impl EnvoyProcess {
    /// Starts Envoy in a process group of its own, so that a Ctrl-C at the terminal reaches us alone and Envoy can
    /// drain. Must be called on a thread that lives as long as this process: where the system can, it kills Envoy when
    /// that thread ends.
    pub(super) async fn start(
        binary: &EnvoyBinary,
        arguments: &EnvoyArguments<'_>,
    ) -> Result<Self, EnvoyProcessError> {
        let mut command = if can_tie_to_parent().await {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(&binary.path);
            command
        } else {
            Command::new(&binary.path)
        };
        command
            .arg("-c")
            .arg(arguments.config)
            .args(["--log-level", arguments.log_level, "--disable-hot-restart"])
            // Whoever watches the access log sees a request at once, and not up to ten seconds later.
            .args(["--file-flush-interval-msec", "250"])
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(concurrency) = arguments.concurrency {
            command.args(["--concurrency", &concurrency.to_string()]);
        }
        let child = command
            .spawn()
            .map_err(|error| EnvoyProcessError::Start { path: binary.path.display().to_string(), error })?;
        Ok(Self { child, admin: Admin::new(arguments.admin_socket) })
    }

    /// Returns when Envoy serves.
    pub(super) async fn ready(&mut self) -> Result<(), EnvoyProcessError> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().map_err(EnvoyProcessError::Watch)? {
                return Err(EnvoyProcessError::Ended(status));
            }
            if self.admin.is_ready().await {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(EnvoyProcessError::NotReady);
            }
            sleep(POLL).await;
        }
    }

    /// Returns when Envoy has ended, which it does not by itself.
    pub(super) async fn ended(&mut self) -> EnvoyProcessError {
        match self.child.wait().await {
            Ok(status) => EnvoyProcessError::Ended(status),
            Err(error) => EnvoyProcessError::Watch(error),
        }
    }

    /// Takes no more connections and returns when no request is in flight; the number left when time is up.
    pub(super) async fn drain(&self, within: Duration) -> u64 {
        if self.admin.drain().await.is_err() {
            return 0;
        }
        let deadline = Instant::now() + within;
        loop {
            match self.admin.active_requests().await {
                Ok(0) | Err(_) => return 0,
                Ok(active) if Instant::now() >= deadline => return active,
                Ok(_) => sleep(POLL).await,
            }
        }
    }

    /// Ends Envoy: asks first, then kills.
    pub(super) async fn stop(mut self) {
        let asked = self.admin.quit().await.is_ok();
        if asked && timeout(QUIT_WITHIN, self.child.wait()).await.is_ok() {
            return;
        }
        // An error here means that it has ended already.
        let _ = self.child.kill().await;
    }
}

/// Whether `setpriv` is here and can have a child killed with its parent. Without it, an `aigw` that is killed (and not
/// asked to end) leaves Envoy behind.
async fn can_tie_to_parent() -> bool {
    let probe = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    matches!(timeout(QUIT_WITHIN, probe).await, Ok(Ok(status)) if status.success())
}
