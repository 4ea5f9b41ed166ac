//! The test backend, in this process.

use std::net::SocketAddr;

use ai_gateway::testbackend::{Counters, Handle, Options, Recorded, start};
use clap::Parser;

use super::until;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

/// A running test backend; dropping it stops it.
pub(crate) struct Backend {
    handle: Handle,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Backend {
    /// On a free port of this machine, with these flags.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", flags).await
    }

    pub(crate) async fn start_at(listen: &str, flags: &[&str]) -> Self {
        let options = Cli::parse_from([&["testbackend"], flags].concat()).options;
        let handle = start(listen.parse().expect("an address"), options).await.expect("a free port");
        let addr = handle.local_addr().socket_addr().expect("TCP");
        Self { handle, addr }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.handle.counters()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Recorded {
        self.handle.requests(1).pop().expect("a request")
    }

    /// The requests it still remembers.
    pub(crate) fn all(&self) -> Vec<Recorded> {
        self.handle.requests(usize::MAX)
    }

    pub(crate) fn reset(&self) {
        self.handle.reset();
    }

    /// Waits until no request is being served.
    pub(crate) async fn idle(&self) -> Counters {
        until("the backend is idle", async || self.counters().requests_active == 0).await;
        self.counters()
    }

    pub(crate) async fn stop(self) {
        self.handle.shutdown().await;
    }
}

/// The values of a header that the backend received.
pub(crate) fn header(recorded: &Recorded, name: &str) -> Vec<String> {
    recorded.headers.get(name).and_then(|v| serde_json::from_value(v.clone()).ok()).unwrap_or_default()
}
