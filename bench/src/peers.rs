//! Other gateways in front of the same provider: not external processors, so only their whole cost can be compared.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::load::{Call, Clients, Connection};
use crate::procfs;
use crate::report::{Spread, line};
use crate::rig::{Process, free_port, provider};

/// Where the other gateways are.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The `litellm` executable
    #[arg(long, value_name = "PATH")]
    litellm: Option<PathBuf>,
    /// The start script of Portkey's gateway, for node
    #[arg(long, value_name = "PATH")]
    portkey: Option<PathBuf>,
    /// How many rounds
    #[arg(long, env = "BENCH_ROUNDS", default_value = "3", value_name = "COUNT")]
    rounds: usize,
    /// How long each cell is measured, in seconds
    #[arg(long, env = "BENCH_SECONDS", default_value = "3", value_name = "SECONDS")]
    seconds: f64,
}

struct Peer {
    name: &'static str,
    address: SocketAddr,
    process: Option<Process>,
    headers: Vec<(&'static str, String)>,
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (_provider, port) = provider(dir.path())?;
    let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut peers =
        vec![Peer { name: "provider itself", address: address(port), process: None, headers: Vec::new() }];
    let url = format!("http://127.0.0.1:{port}/v1");
    if let Some(path) = &options.litellm {
        let config = dir.path().join("litellm.yaml");
        std::fs::write(
            &config,
            format!(
                "model_list:\n- model_name: bench-model\n  litellm_params: {{model: openai/bench-model, api_base: \"{url}\", api_key: sk-bench}}\n"
            ),
        )?;
        let own = free_port()?;
        let mut command = Command::new(path);
        command.arg("--config").arg(config).args(["--host", "127.0.0.1", "--num_workers", "1", "--port"]);
        command.arg(own.to_string()).stdout(Stdio::null());
        // Fetches a price list at start otherwise.
        command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
        let process = Process::start(&mut command, &dir.path().join("litellm.log"))?;
        peers.push(Peer {
            name: "LiteLLM",
            address: address(own),
            process: Some(process),
            headers: Vec::new(),
        });
    }
    if let Some(path) = &options.portkey {
        let own = free_port()?;
        let mut command = Command::new("node");
        command.arg(path).arg(format!("--port={own}")).arg("--headless").stdout(Stdio::null());
        command.env("TRUSTED_CUSTOM_HOSTS", "127.0.0.1,localhost");
        let process = Process::start(&mut command, &dir.path().join("portkey.log"))?;
        let headers = vec![("x-portkey-provider", "openai".to_owned()), ("x-portkey-custom-host", url)];
        peers.push(Peer { name: "Portkey", address: address(own), process: Some(process), headers });
    }
    for peer in &mut peers {
        eprintln!("waiting for {}", peer.name);
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = peer.once().await {
            if let Some(process) = &mut peer.process {
                process.check()?;
            }
            ensure!(Instant::now() < deadline, "{} does not serve: {error:#}", peer.name);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    println!("- machine: {}; load average: {}\n", procfs::machine(), procfs::load());
    measure(&peers, options).await
}

impl Peer {
    fn call(&self, streams: bool) -> Rc<Call> {
        let mut call = Call::chat(80, streams);
        call.headers = self.headers.clone();
        Rc::new(call)
    }

    /// Rate, p50 and p99 in milliseconds, CPU microseconds a request.
    async fn measure(&self, connections: usize, streams: bool, time: Duration) -> anyhow::Result<[f64; 4]> {
        let mut clients = Clients::open(self.address, connections).await?;
        clients.run(&self.call(streams), time / 10).await?;
        let cpu = || self.process.as_ref().map_or(Ok(Duration::ZERO), |it| procfs::cpu(it.pid()));
        let before = cpu()?;
        let outcome = clients.run(&self.call(streams), time).await?;
        let used = (cpu()? - before).as_secs_f64() * 1e6 / outcome.latencies.len() as f64;
        let quantile = |quantile| outcome.quantile(quantile).as_secs_f64() * 1e3;
        Ok([outcome.rate(), quantile(0.5), quantile(0.99), used])
    }

    async fn once(&self) -> anyhow::Result<()> {
        Connection::open(self.address).await?.send(&self.call(false)).await?;
        Ok(())
    }
}

async fn measure(peers: &[Peer], options: &Options) -> anyhow::Result<()> {
    let time = Duration::from_secs_f64(options.seconds);
    let mut text = String::from(
        "| workload | c | gateway | requests/s | p50 ms | p99 ms | CPU µs a request | RSS MB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (workload, streams) in [("small", false), ("stream", true)] {
        for connections in [1, 16] {
            let mut cells: Vec<anyhow::Result<[Vec<f64>; 4]>> =
                peers.iter().map(|_| Ok(Default::default())).collect();
            for round in 0..options.rounds {
                eprintln!("round {} of {}: {workload}, c={connections}", round + 1, options.rounds);
                for (peer, cell) in peers.iter().zip(&mut cells) {
                    let Ok(all) = cell else { continue };
                    match peer.measure(connections, streams, time).await {
                        Ok(values) => all.iter_mut().zip(values).for_each(|(all, value)| all.push(value)),
                        Err(error) => *cell = Err(error),
                    }
                }
            }
            for (peer, cell) in peers.iter().zip(cells) {
                let cells = match cell {
                    Ok(values) => {
                        let [rate, p50, p99, cpu] = values.map(Spread::of);
                        let rss =
                            peer.process.as_ref().map_or(Ok(0), |process| procfs::rss(process.pid()))?;
                        [
                            format!("{:.0}", rate.median),
                            format!("{:.2}", p50.median),
                            format!("{:.2}", p99.median),
                            cpu.shown(0),
                            format!("{:.0}", rss as f64 / 1e6),
                        ]
                    }
                    Err(error) => [format!("fails: {error}"), "–".into(), "–".into(), "–".into(), "–".into()],
                };
                let about = [workload.to_owned(), connections.to_string(), peer.name.to_owned()];
                line(&mut text, &[&about[..], &cells[..]].concat());
            }
        }
    }
    println!("{text}");
    Ok(())
}
