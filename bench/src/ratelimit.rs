//! Reservation and settlement, against the check and the charge of `envoyproxy/ratelimit`, on the same Redis in turn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ai_gateway::quota::{
    Ask, Bound, BucketKey, Claim, Group, Mode, OnExpiry, OutputCap, PerOutput, ReservationId, Settle,
    Verdict, Window,
};
use ai_gateway::quotastore::{RedisOptions, RedisStore, Store};
use anyhow::{Context, ensure};
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor::Entry,
};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_client::RateLimitServiceClient;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, rate_limit_response::Code};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::procfs;
use crate::redis::Redis;
use crate::report::{Spread, line, reached};
use crate::rig::{Process, free_port};

/// How many pairs of calls are under way at once.
const CLIENTS: usize = 64;
/// How much may be used in an hour: more than any run takes.
const LIMIT: u32 = 4_000_000_000;
/// How many times as many pairs a second there are to be.
const MARK: f64 = 3.0;

/// What is compared.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The executable of `src/service_cmd`
    #[arg(long, value_name = "PATH")]
    service: PathBuf,
    /// How many rounds
    #[arg(long, env = "BENCH_ROUNDS", default_value_t = 9, value_name = "COUNT")]
    rounds: usize,
    /// How long each cell is measured, in seconds
    #[arg(long, env = "BENCH_SECONDS", default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
}

/// What one side came to in one round.
#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Pairs a second.
    rate: f64,
    /// CPU microseconds a pair: of Redis, of the service if there is one, of this process.
    cpu: [f64; 3],
}

/// One way to count: a pair of calls, again and again.
trait Side {
    async fn pair(&self, number: u64) -> anyhow::Result<()>;
}

struct Ours(Store);

impl Side for Ours {
    async fn pair(&self, number: u64) -> anyhow::Result<()> {
        let claim = Claim {
            bucket: BucketKey { limit: "bench".into(), subject: "".into() },
            amount: u64::from(LIMIT),
            window: Window::Rolling { length: 3_600_000 },
            bound: Bound { fixed: 60, per_output: PerOutput { numerator: 1, denominator: 1 } },
            mode: Mode::Reserve,
            shadow: false,
            on_expiry: OnExpiry::Charge,
            group: 0,
            most_subjects: None,
        };
        let ask = Ask {
            id: ReservationId { process: 1, exchange: number, part: 0 },
            claims: vec![claim],
            groups: vec![Group::All],
            output: OutputCap { wanted: 40, least: 40 },
            lease: Duration::from_secs(60),
        };
        let answer = self.0.reserve(&ask).await?;
        ensure!(matches!(answer.verdict, Verdict::Granted(_)), "no room");
        let spent = ask.claims.into_iter().map(|claim| (claim, 40)).collect();
        self.0.settle(&Settle { id: ask.id, spent }).await?;
        Ok(())
    }
}

struct Theirs(RateLimitServiceClient<Channel>);

impl Theirs {
    async fn count(&self, hits: u32) -> anyhow::Result<()> {
        let entry = Entry { key: "model".to_owned(), value: "bench".to_owned() };
        let request = RateLimitRequest {
            domain: "bench".to_owned(),
            descriptors: vec![RateLimitDescriptor { entries: vec![entry], ..RateLimitDescriptor::default() }],
            hits_addend: hits,
        };
        let answer = self.0.clone().should_rate_limit(request).await?.into_inner();
        ensure!(answer.overall_code() == Code::Ok, "no room: {answer:?}");
        Ok(())
    }
}

impl Side for Theirs {
    async fn pair(&self, _number: u64) -> anyhow::Result<()> {
        self.count(1).await?;
        self.count(40).await
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let load = procfs::load();
    let dir = tempfile::tempdir()?;
    let redis = Redis::start(dir.path()).await?.context("there is no redis-server")?;
    println!("- machine: {}; load average before the run: {load}", procfs::machine());
    println!("- {} rounds, {:.1} s a cell, {CLIENTS} pairs at once\n", options.rounds, options.seconds);
    let store = RedisStore::open(format!("redis://{}", redis.address).parse()?, &RedisOptions::default())?;
    let store = Store::Redis(store);
    let connecting = store.clone();
    let connected = tokio::spawn(async move { connecting.connect().await });
    let ours = Rc::new(Ours(store));
    let mut text = String::from(
        "| their pool | their pairs/s | ours | ours/theirs | mark | CPU µs a pair, theirs: Redis + service (+ client) | ours: Redis + client |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut number = 0;
    for (pool, window, limit) in
        [("10 connections", "0", "0"), ("10 connections, pipelines of 150 µs", "150us", "8")]
    {
        let (service, theirs) = service(&options.service, &redis, (window, limit), dir.path()).await?;
        let theirs = Rc::new(theirs);
        let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
        for round in 0..options.rounds {
            eprintln!("round {} of {}: {pool}", round + 1, options.rounds);
            let time = Duration::from_secs_f64(options.seconds);
            let pids = (redis.process.pid(), Some(service.pid()));
            // Nobody is always the first.
            if round % 2 == 0 {
                of_ours.push(cell(&ours, time, (pids.0, None), &mut number).await?);
            }
            of_theirs.push(cell(&theirs, time, pids, &mut number).await?);
            if round % 2 == 1 {
                of_ours.push(cell(&ours, time, (pids.0, None), &mut number).await?);
            }
        }
        text += &compared(pool, &of_theirs, &of_ours);
    }
    connected.abort();
    println!("{text}");
    Ok(())
}

fn compared(pool: &str, theirs: &[Cell], ours: &[Cell]) -> String {
    let of = |cells: &[Cell], value: &dyn Fn(&Cell) -> f64| Spread::of(cells.iter().map(value).collect());
    let ratio = Spread::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours.rate / theirs.rate).collect());
    let cpu = |cells: &[Cell], part: usize| format!("{:.0}", of(cells, &|cell| cell.cpu[part]).median);
    let mut text = String::new();
    line(
        &mut text,
        &[
            pool.to_owned(),
            of(theirs, &|cell| cell.rate).shown(0),
            of(ours, &|cell| cell.rate).shown(0),
            ratio.shown(2),
            reached(ratio.median, MARK),
            format!("{} + {} (+ {})", cpu(theirs, 0), cpu(theirs, 1), cpu(theirs, 2)),
            format!("{} + {}", cpu(ours, 0), cpu(ours, 2)),
        ],
    );
    text
}

/// Lets all clients call for that long.
async fn cell<S: Side + 'static>(
    side: &Rc<S>,
    time: Duration,
    (redis, service): (u32, Option<u32>),
    number: &mut u64,
) -> anyhow::Result<Cell> {
    rate(side, time / 10, number).await?;
    let cpu = || -> anyhow::Result<[Duration; 3]> {
        let service = service.map_or(Ok(Duration::ZERO), procfs::cpu)?;
        Ok([procfs::cpu(redis)?, service, procfs::cpu(std::process::id())?])
    };
    let before = cpu()?;
    let (pairs, elapsed) = rate(side, time, number).await?;
    let after = cpu()?;
    let each = |part: usize| (after[part] - before[part]).as_secs_f64() * 1e6 / pairs as f64;
    Ok(Cell { rate: pairs as f64 / elapsed.as_secs_f64(), cpu: [each(0), each(1), each(2)] })
}

async fn rate<S: Side + 'static>(
    side: &Rc<S>,
    time: Duration,
    number: &mut u64,
) -> anyhow::Result<(u64, Duration)> {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let side = Rc::clone(side);
        // Ids that nobody else has.
        *number += 1 << 32;
        let first = *number;
        clients.spawn_local(async move {
            let mut pairs = 0;
            while start.elapsed() < time {
                side.pair(first + pairs).await?;
                pairs += 1;
            }
            anyhow::Ok(pairs)
        });
    }
    let mut pairs = 0;
    while let Some(client) = clients.join_next().await {
        pairs += client??;
    }
    Ok((pairs, start.elapsed()))
}

/// Starts the service on that Redis, and waits until it answers.
async fn service(
    executable: &Path,
    redis: &Redis,
    (window, limit): (&str, &str),
    dir: &Path,
) -> anyhow::Result<(Process, Theirs)> {
    let config = dir.join("ratelimit/config");
    std::fs::create_dir_all(&config)?;
    let rule = format!("{{key: model, rate_limit: {{unit: hour, requests_per_unit: {LIMIT}}}}}");
    std::fs::write(config.join("config.yaml"), format!("domain: bench\ndescriptors: [{rule}]\n"))?;
    let grpc = free_port()?;
    let mut command = Command::new(executable);
    command
        .env("RUNTIME_ROOT", dir)
        .env("RUNTIME_SUBDIRECTORY", "ratelimit")
        .env("RUNTIME_WATCH_ROOT", "false")
        .env("USE_STATSD", "false")
        .env("DISABLE_STATS", "true")
        .env("LOG_LEVEL", "error")
        .env("BACKEND_TYPE", "redis")
        .env("REDIS_SOCKET_TYPE", "tcp")
        .env("REDIS_URL", redis.address.to_string())
        .env("REDIS_POOL_SIZE", "10")
        .env("REDIS_PIPELINE_WINDOW", window)
        .env("REDIS_PIPELINE_LIMIT", limit)
        .env("HOST", "127.0.0.1")
        .env("GRPC_HOST", "127.0.0.1")
        .env("DEBUG_HOST", "127.0.0.1")
        .env("PORT", free_port()?.to_string())
        .env("DEBUG_PORT", free_port()?.to_string())
        .env("GRPC_PORT", grpc.to_string())
        .stdout(Stdio::null());
    let log = dir.join("ratelimit.log");
    let mut process = Process::start(&mut command, &log)?;
    let endpoint = Endpoint::try_from(format!("http://127.0.0.1:{grpc}"))?.tcp_nodelay(true);
    let theirs = Theirs(RateLimitServiceClient::new(endpoint.connect_lazy()));
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = theirs.count(1).await {
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        process.check().with_context(log)?;
        ensure!(Instant::now() < deadline, "the service does not answer: {error:#}\n{}", log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((process, theirs))
}
