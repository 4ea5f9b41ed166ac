//! A Redis for the listener with a limit, and how long one round trip to it takes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::report::Spread;
use crate::rig::{Process, free_port};

/// Tokens in an hour, more than any run takes: a resource of the measured gateway.
pub const LIMIT: &str = "---
apiVersion: ext.aigateway.envoyproxy.io/v1alpha1
kind: UsageLimit
metadata: {name: bench, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: bench}]
  limits: [{name: tokens, type: TotalToken, amount: 1000000000000, window: {rolling: 1h}}]
";

/// A server that keeps nothing on disk. It ends with its owner.
pub struct Redis {
    pub process: Process,
    pub address: SocketAddr,
}

impl Redis {
    /// Starts one; nothing where none is installed.
    pub async fn start(dir: &Path) -> anyhow::Result<Option<Self>> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).arg("--port");
        command.arg(address.port().to_string()).current_dir(dir).stdout(Stdio::null());
        let process = Process::start(&mut command, &dir.join("redis.log"))?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while let Err(error) = TcpStream::connect(address).await {
            ensure!(Instant::now() < deadline, "redis-server does not serve: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Some(Self { process, address }))
    }

    /// Milliseconds that a PING takes on one connection, the median of so many, each sent that long after the one before was answered.
    /// Right after each other they meet cores that have not gone to sleep since, as those of exchanges do not.
    pub async fn round_trip(&self, count: usize, pause: Duration) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut times = Vec::new();
        for _ in 0..count {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let sent = Instant::now();
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 7];
            stream.read_exact(&mut answer).await?;
            ensure!(&answer == b"+PONG\r\n", "Redis answers {answer:?}");
            times.push(sent.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Spread::of(times).median)
    }
}
