//! `make bench`: the rounds, in which every listener takes its turn, and the report.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::alone;
use crate::edits;
use crate::load::{Call, Clients};
use crate::procfs;
use crate::report::{Cell, Cells, Mark, Row, Spread, line, verdict};
use crate::rig::{Listener, Rig};
use crate::slow::{self, Slow};

/// What is measured.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The gateway's executable
    #[arg(long, default_value = "target/release/aigw", value_name = "PATH")]
    aigw: PathBuf,
    /// A smoke run of about a minute: everything once and briefly
    #[arg(long, env = "BENCH_QUICK", value_parser = clap::builder::FalseyValueParser::new())]
    quick: bool,
    /// Only these: small, 100k, 1m, stream, slow-stream, idle, startup, reload, edits
    #[arg(long, env = "BENCH_ONLY", value_delimiter = ',', value_name = "WORKLOADS")]
    only: Vec<String>,
    /// How many rounds [default: 5]
    #[arg(long, env = "BENCH_ROUNDS", value_name = "COUNT")]
    rounds: Option<usize>,
    /// How long each cell is measured, in seconds [default: 2]
    #[arg(long, env = "BENCH_SECONDS", value_name = "SECONDS")]
    seconds: Option<f64>,
}

/// In the order of the report. The next listeners of the specification (safety, per-attempt) have their place in
/// [`Listener`]; a workload that only they have has it here.
const WORKLOADS: [(&str, usize, bool, &[usize]); 4] = [
    ("small", 80, false, &[1, 4, 16, 64]),
    ("100k", 100_000, false, &[1, 16]),
    ("1m", 1_000_000, false, &[1, 16]),
    ("stream", 80, true, &[1, 4, 16, 64]),
];

const MARKS: [Mark; 3] = [
    Mark { workload: "small", most: 1.6 },
    Mark { workload: "1m", most: 1.3 },
    Mark { workload: "stream", most: 2.0 },
];

/// Milliseconds that a limit in Redis may add to the median of an exchange, beside two round trips to it.
const QUOTA_MARK: f64 = 0.03;

/// How long after each other exchanges ask Redis something with one connection, about.
const PACE: Duration = Duration::from_millis(1);

/// Bytes an idle stream may hold.
const IDLE_MARK: f64 = 16.0 * 1024.0;

/// Milliseconds until an edit has to be in force.
const EDIT_MARK: f64 = 1000.0;

impl Options {
    fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == workload)
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 5 })
    }

    fn cell(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.unwrap_or(if self.quick { 0.3 } else { 2.0 }))
    }
}

pub async fn run(options: &Options) -> anyhow::Result<()> {
    let start = Instant::now();
    let load = procfs::load();
    let rig = Rig::start(&options.aigw).await?;
    println!("- machine: {}; load average before the run: {load}", procfs::machine());
    println!("- {} rounds, {:.1} s a cell\n", options.rounds(), options.cell().as_secs_f64());
    if WORKLOADS.iter().any(|(workload, ..)| options.wants(workload)) {
        exchanges(&rig, options).await?;
    }
    if options.wants("slow-stream") {
        slow_streams(&rig, options).await?;
    }
    if options.wants("idle") || options.wants("startup") {
        alone(&rig, options).await?;
    }
    if options.wants("reload") {
        reload(&rig, options).await?;
    }
    if options.wants("edits") {
        edited(options).await?;
    }
    eprintln!("done in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

async fn exchanges(rig: &Rig, options: &Options) -> anyhow::Result<()> {
    let mut cells = Cells::default();
    let rounds = options.rounds();
    let listeners = rig.listeners();
    let (mut at_once, mut paced) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        if let Some(redis) = rig.redis() {
            at_once.push(redis.round_trip(1000, Duration::ZERO).await?);
            paced.push(redis.round_trip(300, PACE).await?);
        }
        for (index, (workload, prompt, streams, counts)) in WORKLOADS.into_iter().enumerate() {
            if !options.wants(workload) {
                continue;
            }
            let call = Rc::new(Call::chat(prompt, streams));
            for &connections in counts.iter().filter(|count| !options.quick || **count <= 16) {
                let row = Row { workload: index, connections };
                eprintln!("round {} of {rounds}: {workload}, c={connections}", round + 1);
                for step in 0..listeners.len() {
                    // Nobody is always the first or the last.
                    let listener = listeners[(round + step) % listeners.len()];
                    cells.push(row, listener, cell(rig, listener, &call, connections, options.cell()).await?);
                }
            }
        }
    }
    let names = WORKLOADS.map(|(name, ..)| name);
    println!("Medians (least–most), CPU a request:\n\n{}", cells.tables(&names));
    println!("Ratios within a round, medians (least–most):\n\n{}", cells.ratios(&names, &MARKS));
    let trips =
        [("with a pause before each", Spread::of(paced)), ("right after each other", Spread::of(at_once))];
    for (workload, connections) in
        [(0, 1), (3, 1)].into_iter().filter(|(index, _)| options.wants(names[*index]))
    {
        let added = cells.added_by_quota(Row { workload, connections });
        if added.median.is_finite() {
            println!(
                "{}, c={connections}: a limit in Redis adds {} ms to the median\n",
                names[workload],
                added.shown(3)
            );
            for (how, trip) in &trips {
                let most = 2.0 * trip.median + QUOTA_MARK;
                println!(
                    "- a round trip to Redis, {how}, takes {} ms: {}",
                    trip.shown(3),
                    verdict(added.median, most, 3)
                );
            }
            println!();
        }
    }
    Ok(())
}

async fn cell(
    rig: &Rig,
    listener: Listener,
    call: &Rc<Call>,
    connections: usize,
    time: Duration,
) -> anyhow::Result<Cell> {
    let mut clients = Clients::open(rig.address(listener), connections).await?;
    clients.run(call, time / 10).await?;
    let processor = rig.processor(listener);
    let cpu = |pid: Option<u32>| pid.map_or(Ok(Duration::ZERO), procfs::cpu);
    let before = (cpu(Some(rig.envoy.pid()))?, cpu(processor)?);
    let outcome = clients.run(call, time).await?;
    // What is settled after the answer belongs to the request.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let after = (cpu(Some(rig.envoy.pid()))?, cpu(processor)?);
    let each = |before: Duration, after: Duration| {
        (after - before).as_secs_f64() * 1e6 / outcome.latencies.len() as f64
    };
    Ok(Cell {
        rate: outcome.rate(),
        p50: outcome.quantile(0.5).as_secs_f64() * 1e3,
        p99: outcome.quantile(0.99).as_secs_f64() * 1e3,
        envoy: each(before.0, after.0),
        processor: each(before.1, after.1),
        rss: processor.map_or(Ok(0), procfs::rss)?,
    })
}

async fn slow_streams(rig: &Rig, options: &Options) -> anyhow::Result<()> {
    let (streams, seconds) = if options.quick { (50, 2) } else { (1000, 20) };
    let mut measured: Vec<Slow> = Vec::new();
    for listener in rig.listeners() {
        eprintln!("slow-stream: {}", listener.name());
        measured.push(slow::measure(rig, listener, streams, seconds).await?);
    }
    println!(
        "slow-stream: {streams} streams at once, 20 events/s each for {seconds} s; times in ms, CPU in µs an event:\n"
    );
    let mut text = String::from(
        "| listener | events | first event p50 / p99 | event under way p50 / p99 | gap p50 / p99 | Envoy µs | processor µs | processor RSS MB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for slow in &measured {
        line(
            &mut text,
            &[
                slow.listener.name().to_owned(),
                slow.events.to_string(),
                format!("{:.2} / {:.2}", slow.first_p50, slow.first_p99),
                format!("{:.2} / {:.2}", slow.delay_p50, slow.delay_p99),
                format!("{:.2} / {:.2}", slow.gap_p50, slow.gap_p99),
                format!("{:.1}", slow.envoy),
                format!("{:.1}", slow.processor),
                format!("{:.1}", slow.rss as f64 / 1e6),
            ],
        );
    }
    println!("{text}");
    Ok(())
}

async fn alone(rig: &Rig, options: &Options) -> anyhow::Result<()> {
    let streams = if options.quick { 500 } else { 10_000 };
    let (config, compiled) = rig.files.config(2, "bench-model", 9)?;
    let authority = &compiled.config.gateways[0].authority;
    let mut text = String::from("| | floor | ours | ours/floor | mark |\n| --- | --- | --- | --- | --- |\n");
    if options.wants("startup") {
        let [floor, ours] = both(
            async |listener| Ok(alone::startup(&rig.files, listener, &config, authority).await?.0),
            options.rounds(),
        )
        .await?;
        line(&mut text, &row("start to first answer, ms", floor, ours, 1, None));
        let routes = if options.quick { 1000 } else { 10_000 };
        let (config, compiled) = rig.files.config(routes, "bench-model", 9)?;
        let authority = &compiled.config.gateways[0].authority;
        let (start, rss) = alone::startup(&rig.files, Listener::Ours, &config, authority).await?;
        let cells = |name: &str, value: f64| {
            [
                format!("{name}, {routes} routes"),
                String::new(),
                format!("{value:.0}"),
                String::new(),
                String::new(),
            ]
        };
        line(&mut text, &cells("start to first answer, ms", start));
        line(&mut text, &cells("RSS after it, MB", rss as f64 / 1e6));
    }
    if options.wants("idle") {
        eprintln!("idle: {streams} streams");
        let [floor, ours] = both(
            async |listener| alone::bytes_a_stream(&rig.files, listener, &config, authority, streams).await,
            1,
        )
        .await?;
        line(
            &mut text,
            &row(&format!("bytes an idle stream, of {streams}"), floor, ours, 0, Some(IDLE_MARK)),
        );
    }
    println!("The processor by itself:\n\n{text}");
    Ok(())
}

async fn both(
    measure: impl AsyncFn(Listener) -> anyhow::Result<f64>,
    rounds: usize,
) -> anyhow::Result<[f64; 2]> {
    let mut values = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        values[0].push(measure(Listener::Floor).await?);
        values[1].push(measure(Listener::Ours).await?);
    }
    Ok(values.map(|values| Spread::of(values).median))
}

fn row(name: &str, floor: f64, ours: f64, digits: usize, mark: Option<f64>) -> [String; 5] {
    [
        name.to_owned(),
        format!("{floor:.digits$}"),
        format!("{ours:.digits$}"),
        format!("{:.2}", ours / floor),
        mark.map_or_else(String::new, |mark| verdict(ours, mark, 0)),
    ]
}

async fn reload(rig: &Rig, options: &Options) -> anyhow::Result<()> {
    let routes = if options.quick { 1000 } else { 10_000 };
    eprintln!("reload: {routes} routes");
    let reload = alone::reload(&rig.files, routes).await?;
    println!(
        "reload of the processor's file, {} routes: live after {:.0} ms; p99 of an exchange {:.2} ms before and {:.2} ms during the swap; RSS after it {:.0} MB\n",
        reload.routes,
        reload.live,
        reload.usual_p99,
        reload.swap_p99,
        reload.rss as f64 / 1e6
    );
    Ok(())
}

async fn edited(options: &Options) -> anyhow::Result<()> {
    let (files, edits) = if options.quick { (10, 5) } else { (100, 50) };
    eprintln!("edits: {edits} of {files} files");
    let edits = edits::measure(&options.aigw, files, edits).await?;
    let live = |quantile: f64| {
        let index = (edits.live.len().saturating_sub(1) as f64 * quantile).round() as usize;
        edits.live.get(index).copied().unwrap_or_default()
    };
    println!(
        "`aigw run`, {} routes in {} files: {:.0} ms from start to the first answer; {} files edited one by one, \
         each in force after {:.0} ms (median), {:.0} ms at most{}; meanwhile {:.0} requests/s by other routes: {} sent, \
         {} lost{}, p50 {:.2} ms, p99 {:.2} ms, {:.0} ms at most; RSS {:.0} MB, of Envoy {:.0} MB\n",
        edits.routes,
        edits.files,
        edits.start,
        edits.live.len(),
        live(0.5),
        live(1.0),
        if live(1.0) < EDIT_MARK { " (pass: < 1000)" } else { " (**FAIL**: < 1000)" },
        edits.load.rate(),
        edits.load.latencies.len() + edits.lost.len(),
        edits.lost.len(),
        if edits.lost.is_empty() { " (pass)" } else { " (**FAIL**)" },
        edits.load.quantile(0.5).as_secs_f64() * 1e3,
        edits.load.quantile(0.99).as_secs_f64() * 1e3,
        edits.load.quantile(1.0).as_secs_f64() * 1e3,
        edits.rss.0 as f64 / 1e6,
        edits.rss.1 as f64 / 1e6,
    );
    for lost in edits.lost.iter().take(10) {
        println!("- lost: {lost}");
    }
    Ok(())
}
