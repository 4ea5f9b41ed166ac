//! Processors as processes of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tonic::transport::Channel;

use crate::support::scripted::channel;
use crate::support::until;

const READY: &str = "AI Gateway External Processor is ready";

/// How many there are.
pub(crate) const COUNT: usize = 4;

/// The processors of a run. Dropping them kills them.
pub(crate) struct Processors {
    all: Vec<Processor>,
    folder: PathBuf,
    redis: Vec<String>,
}

struct Processor {
    child: Option<Child>,
    /// How often it was killed.
    killed: Arc<AtomicU64>,
}

/// How clients find a processor, and how they know that it was killed.
#[derive(Clone)]
pub(crate) struct Reached {
    pub(crate) channel: Channel,
    killed: Arc<AtomicU64>,
}

impl Reached {
    /// How often it was killed so far.
    pub(crate) fn killed(&self) -> u64 {
        self.killed.load(Ordering::SeqCst)
    }
}

impl Processors {
    /// Starts them, with their configuration, sockets and logs in that folder, and quotas in the Redis of those flags.
    pub(crate) async fn start(folder: &Path, redis: &[String]) -> Self {
        let processor = || Processor { child: None, killed: Arc::default() };
        let all = (0..COUNT).map(|_| processor()).collect();
        let mut processors = Self { all, folder: folder.to_owned(), redis: redis.to_owned() };
        for number in 0..COUNT {
            processors.spawn(number);
        }
        for number in 0..COUNT {
            processors.ready(number).await;
        }
        processors
    }

    fn socket(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.sock"))
    }

    fn log(&self, number: usize) -> String {
        std::fs::read_to_string(self.folder.join(format!("{number}.log"))).unwrap_or_default()
    }

    fn spawn(&mut self, number: usize) {
        let log = std::fs::File::create(self.folder.join(format!("{number}.log"))).expect("a log");
        // One that was killed leaves its own behind.
        _ = std::fs::remove_file(self.socket(number));
        let mut command = Command::new(env!("CARGO_BIN_EXE_aigw"));
        command.arg("extproc").arg("--config").arg(self.folder.join("config.json"));
        command.arg("--listen").arg(format!("unix://{}", self.socket(number).display()));
        command
            .arg("--admin")
            .arg(format!("unix://{}", self.folder.join(format!("{number}-admin.sock")).display()));
        command.args(&self.redis).args(["--redis-deadline", "1s"]);
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.all[number].child = Some(command.spawn().expect("aigw"));
    }

    async fn ready(&mut self, number: usize) {
        until("the processor is ready", async || {
            let log = self.log(number);
            let ended = self.all[number].child.as_mut().expect("started").try_wait().expect("a child");
            assert!(ended.is_none(), "it ended: {ended:?}\n{log}");
            log.lines().any(|line| line == READY)
        })
        .await;
    }

    /// Ends one as the kernel does where memory is short, and starts another in its place.
    pub(crate) async fn kill_and_restart(&mut self, number: usize) {
        let mut child = self.all[number].child.take().expect("started");
        child.kill().expect("kill");
        child.wait().expect("wait");
        // Whoever has read the number before, was with the one that is gone, or did not reach it.
        self.all[number].killed.fetch_add(1, Ordering::SeqCst);
        self.spawn(number);
        self.ready(number).await;
    }

    /// All of them, for clients.
    pub(crate) fn reached(&self) -> Vec<Reached> {
        let all = self.all.iter().enumerate();
        all.map(|(number, processor)| Reached {
            channel: channel(self.socket(number)),
            killed: Arc::clone(&processor.killed),
        })
        .collect()
    }

    /// Tells them to stop, and waits until they have: what is to be settled is settled then.
    pub(crate) async fn stop(mut self) {
        for processor in &self.all {
            let pid = processor.child.as_ref().expect("started").id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        }
        for number in 0..COUNT {
            let mut ended = None;
            until("the processor ends", async || {
                ended = self.all[number].child.as_mut().expect("started").try_wait().expect("a child");
                ended.is_some()
            })
            .await;
            let log = self.log(number);
            assert!(ended.is_some_and(|status| status.success()), "{ended:?}\n{log}");
            assert!(!log.contains("was not told how reservations ended"), "{log}");
            assert!(!log.contains("panicked"), "{log}");
        }
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        for processor in &mut self.all {
            if let Some(mut child) = processor.child.take() {
                // It may have ended by itself.
                _ = child.kill();
                _ = child.wait();
            }
        }
    }
}
