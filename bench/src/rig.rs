//! Everything that runs beside the load: the provider, the processors, Envoy.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ai_gateway::compile::{CompileOptions, Compiled, PortOverride, RoutingSecret, Sockets, compile};
use ai_gateway::resources::Snapshot;
use ai_gateway::standalone::envoy_binary::Search;
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::redis::{LIMIT, Redis};

/// A process that ends with its owner.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts it with its log in a file.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = std::fs::File::create(log)?;
        let child = command.stdin(Stdio::null()).stderr(log).spawn();
        Ok(Self { child: child.with_context(|| format!("{program} does not start"))? })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A way through Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    /// Without a processor.
    Direct,
    /// With the do-nothing processor.
    Floor,
    /// With the gateway's.
    Ours,
    /// With the gateway's, and a limit in Redis over all requests.
    Quota,
}

impl Listener {
    /// In the order of the ports.
    const ALL: [Self; 4] = [Self::Direct, Self::Floor, Self::Ours, Self::Quota];

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::Quota => "ours+quota",
        }
    }
}

/// The whole arrangement. Dropping it ends all of it.
pub struct Rig {
    pub envoy: Process,
    floor: Process,
    ours: Process,
    /// Where there is a Redis.
    quota: Option<(Process, Redis)>,
    _provider: Process,
    ports: [u16; 4],
    pub files: Files,
}

/// Where everything lies.
pub struct Files {
    pub dir: TempDir,
    /// The gateway's executable.
    pub aigw: PathBuf,
    /// What the routes demand.
    pub key: String,
    /// Where quotas are kept.
    redis: Option<SocketAddr>,
}

impl Files {
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the processor of that listener on a socket of that name.
    pub fn processor(&self, listener: Listener, name: &str, config: &Path) -> anyhow::Result<Process> {
        let socket = self.path(&format!("{name}.sock"));
        let mut command = match listener {
            Listener::Direct => bail!("there is none"),
            Listener::Floor => {
                let mut command = own()?;
                command.arg("floor").arg(&socket).arg(&self.key);
                command
            }
            Listener::Ours | Listener::Quota => {
                let mut command = Command::new(&self.aigw);
                if let (Listener::Quota, Some(redis)) = (listener, self.redis) {
                    command.env("AIGW_REDIS", format!("redis://{redis}"));
                }
                command.arg("extproc").arg("--config").arg(config);
                command.arg("--listen").arg(format!("unix://{}", socket.display()));
                command
                    .arg("--admin")
                    .arg(format!("unix://{}", self.path(&format!("{name}-admin.sock")).display()));
                command
            }
        };
        // A socket of an earlier process is in the way of the next one.
        let _ = std::fs::remove_file(&socket);
        Process::start(&mut command, &self.path(&format!("{name}.log")))
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.log"))).unwrap_or_default()
    }

    /// Starts the processor that serves these resources with a limit besides.
    fn quota(&self, resources: &str, port: u16) -> anyhow::Result<Process> {
        let compiled = compiled(&format!("{resources}{LIMIT}"), self.dir.path(), port)?;
        ensure!(
            compiled.config.gateways[0].rules[0].routing_key == self.key,
            "limits change the routing key"
        );
        let config = self.path("quota.json");
        std::fs::write(&config, document(&compiled))?;
        self.processor(Listener::Quota, "quota", &config)
    }

    /// The gateway's configuration with `routes` more rules than needed.
    pub fn config(&self, routes: usize, model: &str, port: u16) -> anyhow::Result<(PathBuf, Compiled)> {
        let compiled = compiled(&resources(port, routes, model), self.dir.path(), 0)?;
        let path = self.path(&format!("config-{model}-{routes}.json"));
        std::fs::write(&path, document(&compiled))?;
        Ok((path, compiled))
    }
}

/// This program itself, for another part.
pub fn own() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Starts the fake provider; its port.
pub fn provider(dir: &Path) -> anyhow::Result<(Process, u16)> {
    let mut command = own()?;
    command.arg("provider").stdout(Stdio::piped());
    let mut process = Process::start(&mut command, &dir.join("provider.log"))?;
    let stdout = process.child.stdout.take().context("no standard output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    Ok((process, line.trim().parse()?))
}

impl Rig {
    pub async fn start(aigw: &Path) -> anyhow::Result<Self> {
        ensure!(aigw.is_file(), "there is no {}: build it, or name another with --aigw", aigw.display());
        let dir = tempfile::tempdir()?;
        let (provider, port) = provider(dir.path())?;
        let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
        let resources = resources(port, 2, "bench-model");
        let ours_port = ports[Listener::Ours as usize];
        let compiled = compiled(&resources, dir.path(), ours_port)?;
        let key = compiled.config.gateways[0].rules[0].routing_key.clone();
        let redis = Redis::start(dir.path()).await?;
        let address = redis.as_ref().map(|redis| redis.address);
        let files = Files { dir, aigw: aigw.to_owned(), key, redis: address };

        let config = files.path("ours.json");
        std::fs::write(&config, document(&compiled))?;
        let floor = files.processor(Listener::Floor, "floor", &config)?;
        let ours = files.processor(Listener::Ours, "extproc", &config)?;
        let quota = redis.map(|redis| Ok::<_, anyhow::Error>((files.quota(&resources, ours_port)?, redis)));
        let quota = quota.transpose()?;
        if quota.is_none() {
            eprintln!("there is no redis-server: {} is left out", Listener::Quota.name());
        }
        let envoy = envoy(&compiled, &ports, &files).await?;
        let mut rig = Self { envoy, floor, ours, quota, _provider: provider, ports, files };
        rig.ready().await?;
        Ok(rig)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        for listener in self.listeners() {
            while let Err(error) = crate::load::probe(self.address(listener)).await {
                let name = listener.name();
                if let Some((processor, _)) = &mut self.quota {
                    processor.check().with_context(|| self.files.log("quota"))?;
                }
                self.envoy.check().with_context(|| self.files.log("envoy"))?;
                self.floor.check().with_context(|| self.files.log("floor"))?;
                self.ours.check().with_context(|| self.files.log("extproc"))?;
                ensure!(
                    Instant::now() < deadline,
                    "{name} does not serve: {error:#}\n{}",
                    self.files.log("envoy")
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The ways there are, in the order of the report.
    pub fn listeners(&self) -> Vec<Listener> {
        Listener::ALL.into_iter().filter(|way| *way != Listener::Quota || self.quota.is_some()).collect()
    }

    /// Where quotas are kept, if anywhere.
    pub fn redis(&self) -> Option<&Redis> {
        self.quota.as_ref().map(|(_, redis)| redis)
    }

    pub fn address(&self, listener: Listener) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports[listener as usize]).into()
    }

    /// The process of that listener's processor.
    pub fn processor(&self, listener: Listener) -> Option<u32> {
        match listener {
            Listener::Direct => None,
            Listener::Floor => Some(self.floor.pid()),
            Listener::Ours => Some(self.ours.pid()),
            Listener::Quota => self.quota.as_ref().map(|(processor, _)| processor.pid()),
        }
    }
}

async fn envoy(compiled: &Compiled, ports: &[u16; 4], files: &Files) -> anyhow::Result<Process> {
    let explicit = std::env::var_os("AIGW_ENVOY").map(PathBuf::from);
    let binary = Search::from_env(explicit).find(&mut |notice| eprintln!("{notice}")).await?;
    let others = [(Listener::Floor, files.path("floor.sock")), (Listener::Quota, files.path("quota.sock"))];
    let bootstrap = bootstrap(compiled.envoy.bootstrap(), ports, &others)?;
    let path = files.path("envoy.json");
    std::fs::write(&path, bootstrap.to_string())?;
    let mut command = Command::new(binary.path);
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"]).arg(path);
    Process::start(command.stdout(Stdio::null()), &files.path("envoy.log"))
}

/// Adds the other listeners to the compiled configuration: copies that differ only in the processor.
fn bootstrap(
    mut bootstrap: Value,
    ports: &[u16; 4],
    processors: &[(Listener, PathBuf)],
) -> anyhow::Result<Value> {
    const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
    let resources = &mut bootstrap["static_resources"];
    let ours = resources["listeners"][0].clone();
    let copy = |copy: Listener| {
        let mut listener = ours.clone();
        listener["name"] = json!(copy.name());
        listener["address"]["socket_address"]["port_value"] = json!(ports[copy as usize]);
        listener
    };
    let mut direct = copy(Listener::Direct);
    let manager = direct.pointer_mut(MANAGER).context("no connection manager")?;
    let action = manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"].clone();
    ensure!(action.is_object(), "the first route does not forward");
    manager["http_filters"].as_array_mut().context("no filters")?.retain(|filter| !is_processor(filter));
    manager["route_config"] = json!({
        "name": "direct",
        "virtual_hosts": [{
            "name": "direct", "domains": ["*"], "routes": [{ "match": { "prefix": "/" }, "route": action }],
        }],
    });
    let mut listeners = vec![direct];
    for (listener, socket) in processors {
        let name = format!("bench-{}", listener.name());
        let mut listener = copy(*listener);
        let manager = listener.pointer_mut(MANAGER).context("no connection manager")?;
        let filters = manager["http_filters"].as_array_mut().context("no filters")?;
        let filter = filters.iter_mut().find(|filter| is_processor(filter)).context("no processor")?;
        let service = &mut filter["typed_config"]["grpc_service"]["envoy_grpc"];
        let of_ours = std::mem::replace(&mut service["cluster_name"], json!(name));
        listeners.push(listener);

        let clusters = resources["clusters"].as_array_mut().context("no clusters")?;
        let cluster = clusters.iter().find(|cluster| cluster["name"] == of_ours);
        let mut cluster = cluster.context("no such cluster")?.clone();
        cluster["name"] = json!(name);
        cluster["load_assignment"]["cluster_name"] = json!(name);
        let address = cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address");
        *address.context("no address")? = json!({ "pipe": { "path": socket } });
        clusters.push(cluster);
    }
    resources["listeners"].as_array_mut().context("no listeners")?.extend(listeners);
    Ok(bootstrap)
}

fn is_processor(filter: &Value) -> bool {
    filter["typed_config"]["@type"].as_str().is_some_and(|kind| kind.ends_with("ExternalProcessor"))
}

fn compiled(resources: &str, dir: &Path, port: u16) -> anyhow::Result<Compiled> {
    let (snapshot, findings) = Snapshot::parse(resources);
    ensure!(findings.is_empty(), "{findings:#?}");
    let options = CompileOptions {
        secret: RoutingSecret([7; 32]),
        ca_bundle: None,
        listen_address: Ipv4Addr::LOCALHOST.into(),
        first_port: port,
        ports: vec![PortOverride { listener: "http".to_owned(), port }],
        client_addresses: false,
        sockets: Sockets {
            extproc: dir.join("extproc.sock"),
            envoy_admin: dir.join("envoy.sock"),
            embedded: dir.to_owned(),
        },
    };
    let compiled = compile(&snapshot, &options);
    ensure!(!compiled.diagnostics.has_errors(), "{}", compiled.diagnostics.render(false));
    Ok(compiled)
}

/// The processor's half as it reads it. The library only writes it without secrets.
fn document(compiled: &Compiled) -> String {
    compiled.config.redacted().to_string().replace("[REDACTED]", "sk-bench-0123456789abcdef0123456789abcdef")
}

/// The resources of a gateway without routes, and a route with a place for its model.
pub fn split_resources(port: u16) -> (String, String) {
    let template = include_str!("resources.yaml").replace("${PORT}", &port.to_string());
    let (others, route) = template.rsplit_once("---\n").unwrap_or_default();
    (others.to_owned(), route.to_owned())
}

/// The measured rule comes first; `others` more follow, in routes of their own with as many rules as a route may have.
fn resources(port: u16, others: usize, model: &str) -> String {
    const MOST_RULES: usize = 15;
    let template = include_str!("resources.yaml").replace("${PORT}", &port.to_string());
    let (_, route) = template.rsplit_once("---\n").unwrap_or_default();
    let (route, rule) = route.split_once("    - matches").unwrap_or_default();
    let mut text = template.replace("${MODEL}", model);
    for other in 0..others {
        if other % MOST_RULES == 0 {
            text += "---\n";
            text += &route.replace(
                "{name: bench, namespace: default}\nspec",
                &format!("{{name: other-{other}, namespace: default}}\nspec"),
            );
        }
        text += "    - matches";
        text += &rule.replace("${MODEL}", &format!("other-{other}"));
    }
    text
}

/// A port nobody listens on, at this moment.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
