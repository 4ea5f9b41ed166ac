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
}

impl Listener {
    pub const ALL: [Self; 3] = [Self::Direct, Self::Floor, Self::Ours];

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Ours => "ours",
        }
    }
}

/// The whole arrangement. Dropping it ends all of it.
pub struct Rig {
    pub envoy: Process,
    floor: Process,
    ours: Process,
    _provider: Process,
    ports: [u16; 3],
    pub files: Files,
}

/// Where everything lies.
pub struct Files {
    pub dir: TempDir,
    /// The gateway's executable.
    pub aigw: PathBuf,
    /// What the routes demand.
    pub key: String,
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
            Listener::Ours => {
                let mut command = Command::new(&self.aigw);
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
        let ports = [free_port()?, free_port()?, free_port()?];
        let compiled = compiled(&resources(port, 2, "bench-model"), dir.path(), ports[2])?;
        let key = compiled.config.gateways[0].rules[0].routing_key.clone();
        let files = Files { dir, aigw: aigw.to_owned(), key };

        let config = files.path("ours.json");
        std::fs::write(&config, document(&compiled))?;
        let floor = files.processor(Listener::Floor, "floor", &config)?;
        let ours = files.processor(Listener::Ours, "extproc", &config)?;
        let envoy = envoy(&compiled, &ports, &files).await?;
        let mut rig = Self { envoy, floor, ours, _provider: provider, ports, files };
        rig.ready().await?;
        Ok(rig)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        for listener in Listener::ALL {
            while let Err(error) = crate::load::probe(self.address(listener)).await {
                let name = listener.name();
                self.envoy.check().with_context(|| self.log("envoy"))?;
                self.floor.check().with_context(|| self.log("floor"))?;
                self.ours.check().with_context(|| self.log("extproc"))?;
                ensure!(Instant::now() < deadline, "{name} does not serve: {error:#}\n{}", self.log("envoy"));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.files.path(&format!("{name}.log"))).unwrap_or_default()
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
        }
    }
}

async fn envoy(compiled: &Compiled, ports: &[u16; 3], files: &Files) -> anyhow::Result<Process> {
    let explicit = std::env::var_os("AIGW_ENVOY").map(PathBuf::from);
    let binary = Search::from_env(explicit).find(&mut |notice| eprintln!("{notice}")).await?;
    let bootstrap = bootstrap(compiled.envoy.bootstrap(), ports, &files.path("floor.sock"))?;
    let path = files.path("envoy.json");
    std::fs::write(&path, bootstrap.to_string())?;
    let mut command = Command::new(binary.path);
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"]).arg(path);
    Process::start(command.stdout(Stdio::null()), &files.path("envoy.log"))
}

/// Adds the other listeners to the compiled configuration: copies that differ only in the processor.
fn bootstrap(mut bootstrap: Value, ports: &[u16; 3], floor_socket: &Path) -> anyhow::Result<Value> {
    const MANAGER: &str = "/filter_chains/0/filters/0/typed_config";
    let resources = &mut bootstrap["static_resources"];
    let ours = resources["listeners"][0].clone();
    let named = |name: &str, port: u16| {
        let mut listener = ours.clone();
        listener["name"] = json!(name);
        listener["address"]["socket_address"]["port_value"] = json!(port);
        listener
    };
    let mut direct = named("direct", ports[0]);
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

    let mut floor = named("floor", ports[1]);
    let manager = floor.pointer_mut(MANAGER).context("no connection manager")?;
    let filter =
        manager["http_filters"].as_array_mut().context("no filters")?.iter_mut().find(|f| is_processor(f));
    let service = &mut filter.context("no processor")?["typed_config"]["grpc_service"]["envoy_grpc"];
    let cluster_name = service["cluster_name"].clone();
    service["cluster_name"] = json!("bench-floor");

    let clusters = resources["clusters"].as_array_mut().context("no clusters")?;
    let mut cluster =
        clusters.iter().find(|cluster| cluster["name"] == cluster_name).context("no such cluster")?.clone();
    cluster["name"] = json!("bench-floor");
    cluster["load_assignment"]["cluster_name"] = json!("bench-floor");
    let address = cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address");
    *address.context("no address")? = json!({ "pipe": { "path": floor_socket } });
    clusters.push(cluster);

    let listeners = resources["listeners"].as_array_mut().context("no listeners")?;
    listeners.extend([direct, floor]);
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
