//! Thousands of routes in files that are edited one by one while the gateway, run as on one machine, serves a steady load.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::load::{Call, Connection, Outcome};
use crate::procfs;
use crate::rig::{Process, free_port, provider, split_resources};

/// Routes in each file.
const ROUTES_A_FILE: usize = 100;
/// The one of them that is edited.
const EDITED: usize = 50;
/// Connections of the load, and the time between two requests on each: 200 requests a second in all.
const CONNECTIONS: usize = 4;
const EVERY: Duration = Duration::from_millis(20);
/// An edit that is not in force after that never will be.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it came to; times in milliseconds.
pub struct Edits {
    pub routes: usize,
    pub files: usize,
    /// From the start of the process to its first answer.
    pub start: f64,
    /// From each edit to the first answer by it, sorted.
    pub live: Vec<f64>,
    pub load: Outcome,
    /// Requests of the load that got no answer, or not 200.
    pub lost: Vec<String>,
    /// Of the gateway and of its Envoy.
    pub rss: (u64, u64),
}

/// Edits `edits` files out of `files`, one after the other.
pub async fn measure(aigw: &Path, files: usize, edits: usize) -> anyhow::Result<Edits> {
    let dir = tempfile::tempdir()?;
    let (_provider, provider_port) = provider(dir.path())?;
    let (others, route) = split_resources(provider_port);
    let folder = dir.path().join("resources");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("gateway.yaml"), others)?;
    let set = Files { folder, route };
    for file in 0..files {
        set.write(file, None)?;
    }

    let port = free_port()?;
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut command = Command::new(aigw);
    command
        .arg("run")
        .arg("--listen")
        .arg(format!("http={port}"))
        .args(["--admin-port", "0"])
        .arg(&set.folder);
    let log = dir.path().join("aigw.log");
    let begin = Instant::now();
    let process = Process::start(command.stdout(std::process::Stdio::null()), &log)?;
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    serving(address, &model(files - 1, 0, None)).await.with_context(log)?;
    let start = begin.elapsed().as_secs_f64() * 1e3;

    let (stop, stopped) = watch::channel(());
    let mut clients = JoinSet::new();
    for client in 0..CONNECTIONS {
        clients.spawn_local(load(address, client, files, stopped.clone()));
    }
    let mut live = Vec::new();
    let begin = Instant::now();
    for edit in 0..edits {
        let file = edit * files / edits;
        let begin = Instant::now();
        set.write(file, Some(edit))?;
        serving(address, &model(file, EDITED, Some(edit))).await.with_context(log)?;
        live.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    drop(stop);
    let mut edits = Edits {
        routes: files * ROUTES_A_FILE,
        files,
        start,
        live,
        load: Outcome { elapsed: begin.elapsed(), ..Outcome::default() },
        lost: Vec::new(),
        rss: (procfs::rss(process.pid())?, procfs::rss(procfs::child(process.pid())?)?),
    };
    while let Some(client) = clients.join_next().await {
        let (latencies, lost) = client?;
        edits.load.latencies.extend(latencies);
        edits.lost.extend(lost);
    }
    edits.load.latencies.sort_unstable();
    edits.live.sort_by(f64::total_cmp);
    Ok(edits)
}

struct Files {
    folder: PathBuf,
    /// One route, with places for its name and its model.
    route: String,
}

impl Files {
    fn write(&self, file: usize, edit: Option<usize>) -> anyhow::Result<()> {
        let mut text = String::new();
        for route in 0..ROUTES_A_FILE {
            let model = model(file, route, edit.filter(|_| route == EDITED));
            let name = format!("name: route-{file}-{route}, namespace");
            let route = self.route.replacen("name: bench, namespace", &name, 1).replace("${MODEL}", &model);
            writeln!(text, "---\n{route}")?;
        }
        Ok(std::fs::write(self.folder.join(format!("routes-{file:03}.yaml")), text)?)
    }
}

fn model(file: usize, route: usize, edit: Option<usize>) -> String {
    let edit = edit.map(|edit| format!("-edit-{edit}")).unwrap_or_default();
    format!("model-{file}-{route}{edit}")
}

/// Waits for the first answer by that model's route.
async fn serving(address: SocketAddr, model: &str) -> anyhow::Result<()> {
    let begin = Instant::now();
    let call = Call::chat(80, false).of_model(model);
    loop {
        let answer = async { Connection::open(address).await?.exchange(&call).await }.await;
        let Err(error) = answer else { return Ok(()) };
        ensure!(begin.elapsed() < PATIENCE, "{model} is not served: {error:#}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// One client: each request by another route, none of them by one that is edited.
async fn load(
    address: SocketAddr,
    client: usize,
    files: usize,
    stopped: watch::Receiver<()>,
) -> (Vec<Duration>, Vec<String>) {
    let (mut latencies, mut lost) = (Vec::new(), Vec::new());
    let mut connection = None;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = client;
    // The other side is dropped in the end; nothing is ever sent.
    while stopped.has_changed().is_ok() {
        ticks.tick().await;
        count += CONNECTIONS;
        let (file, route) = (count % files, count / files % EDITED);
        let call = Rc::new(Call::chat(80, false).of_model(&model(file, route, None)));
        let sent = Instant::now();
        let answer = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::open(address).await?,
            };
            open.exchange(&call).await?;
            anyhow::Ok(open)
        };
        match answer.await {
            Ok(open) => {
                latencies.push(sent.elapsed());
                connection = Some(open);
            }
            Err(error) => lost.push(format!("{}: {error:#}", model(file, route, None))),
        }
    }
    (latencies, lost)
}
