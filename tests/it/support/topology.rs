//! Redis servers of a test's own on TCP ports: alone with more options, under three Sentinels, or as a Cluster of three.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::{missing_service, until};

/// A port that nobody listens on, from those that the system gives to nobody by itself.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let next = std::process::id() * 97 + NEXT.fetch_add(1, Ordering::SeqCst);
        let port = u16::try_from(12_000 + next % 18_000).expect("small");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A `redis-server` on a port of 127.0.0.1, in a folder of its own. Dropping it kills it.
pub(crate) struct Node {
    child: Option<Child>,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    /// What `redis-cli` has to be told beside the port.
    cli: Vec<String>,
}

impl Node {
    /// Starts one with these arguments, in which `FOLDER`, `PORT` and `BUSPORT` (another port) stand for its own; `None` where there is
    /// none to start.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("it-redis-").tempdir().expect("a folder");
        Self::start_in(folder, arguments, &[]).await
    }

    /// Starts one in a folder that has what it needs; `cli` is what `redis-cli` has to be told to reach it.
    pub(crate) async fn start_in(folder: TempDir, arguments: &[&str], cli: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            return missing_service("there is no redis-server; on Debian: apt install redis-server");
        }
        let (port, bus) = (free_port(), free_port());
        let path = folder.path().to_str().expect("UTF-8").to_owned();
        let fill = |text: &&str| {
            let text = text.replace("BUSPORT", &bus.to_string()).replace("PORT", &port.to_string());
            text.replace("FOLDER", &path)
        };
        let (arguments, cli) = (arguments.iter().map(fill).collect(), cli.iter().map(fill).collect());
        let mut node = Self { child: None, folder, port, arguments, cli };
        node.run().await;
        Some(node)
    }

    /// Starts it, with what it had.
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(&self.arguments).current_dir(self.folder.path());
        self.child = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("redis-server"));
        until("Redis listens", async || TcpStream::connect(("127.0.0.1", self.port)).is_ok()).await;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What `--redis` takes.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a power failure would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill");
            child.wait().expect("wait");
        }
    }

    /// Stops it where it stands (`STOP`), or lets it go on (`CONT`).
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill").success());
    }

    /// What redis-cli does, errors of the server included.
    pub(crate) fn command(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.arg("-p").arg(self.port.to_string()).args(&self.cli).args(arguments);
        String::from_utf8_lossy(&command.output().expect("redis-cli").stdout).trim().to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

const DURABLE: [&str; 6] = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"];

/// A master named `main`, replicas of it, and three Sentinels that watch over them.
pub(crate) struct Sentinels {
    /// The first began as the master.
    pub(crate) servers: Vec<Node>,
    pub(crate) sentinels: Vec<Node>,
    scheme: String,
    host: String,
}

/// How servers and Sentinels are spoken to.
struct Speech<'a> {
    /// What they are started with.
    own: Vec<&'a str>,
    /// What `redis-cli` has to be told.
    cli: Vec<&'a str>,
    scheme: &'static str,
    host: &'static str,
}

impl Sentinels {
    /// Starts a master and so many replicas. `None` where there is no Redis.
    pub(crate) async fn start(replicas: usize) -> Option<Self> {
        // Long enough for a server on a busy machine to answer, or it is replaced though it is well, and again when it is back.
        Self::start_with(replicas, 2000).await
    }

    /// Starts those of whom one that has not answered for so many milliseconds is taken to be down.
    pub(crate) async fn start_with(replicas: usize, down_after: u32) -> Option<Self> {
        let plain =
            Speech { own: vec!["--port", "PORT"], cli: Vec::new(), scheme: "redis", host: "127.0.0.1" };
        Self::start_as(plain, "", replicas, down_after).await
    }

    /// Starts those that speak TLS only, all of them, with those who show a certificate, and go by the name `localhost`. `certificates` has
    /// `ca.pem`, and certificates and keys of a `server` and a `client`. Who speaks to a Sentinel needs this password, or a user.
    pub(crate) async fn start_tls(replicas: usize, certificates: &Path, password: &str) -> Option<Self> {
        let file = |name: &str| certificates.join(name).to_str().expect("UTF-8").to_owned();
        let [ca, server, server_key] = ["ca.pem", "server.pem", "server.key"].map(file);
        let [client, client_key] = ["client.pem", "client.key"].map(file);
        let own = "--port 0 --tls-port PORT --tls-auth-clients yes --tls-replication yes".split(' ');
        let own = own.chain(["--tls-cert-file", &server, "--tls-key-file", &server_key]);
        let own = own.chain(["--tls-ca-cert-file", &ca]).collect();
        let cli = vec!["--tls", "--cacert", &ca, "--cert", &client, "--key", &client_key];
        let secure = format!(
            "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nrequirepass {password}\n\
             sentinel sentinel-pass {password}\n"
        );
        let speech = Speech { own, cli, scheme: "rediss", host: "localhost" };
        Self::start_as(speech, &secure, replicas, 2000).await
    }

    /// `more` is what is in the Sentinels' file besides.
    async fn start_as(speech: Speech<'_>, more: &str, replicas: usize, down_after: u32) -> Option<Self> {
        let Speech { own, cli, scheme, host } = speech;
        let base = ["--bind", "127.0.0.1", "--dir", "FOLDER", "--repl-diskless-sync-delay", "0"];
        let base = [&own[..], &base, &DURABLE, &["--replica-announce-ip", host]].concat();
        let start = async |arguments: &[&str]| {
            let folder = tempfile::Builder::new().prefix("it-redis-").tempdir().expect("a folder");
            Node::start_in(folder, arguments, &cli).await
        };
        let first = start(&base).await?;
        let master = first.port().to_string();
        let mut servers = vec![first];
        for _ in 0..replicas {
            servers.push(start(&[&base[..], &["--replicaof", host, &master]].concat()).await?);
        }
        let connected = format!("connected_slaves:{replicas}");
        let replicated = async || {
            let state = servers[0].command(&["INFO", "replication"]);
            state.contains(&connected) && state.matches("state=online").count() == replicas
        };
        until("the replicas are in step", replicated).await;
        let password = more.lines().find_map(|line| line.strip_prefix("requirepass "));
        let known = password.map(|password| ["-a", password, "--no-auth-warning"]);
        let cli = [&cli[..], known.as_ref().map_or(&[], |known| &known[..])].concat();
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let folder = tempfile::Builder::new().prefix("it-sentinel-").tempdir().expect("a folder");
            let watch = format!(
                "{more}sentinel monitor main {host} {master} 2\nsentinel down-after-milliseconds main \
                 {down_after}\nsentinel failover-timeout main 3000\n"
            );
            std::fs::write(folder.path().join("sentinel.conf"), watch).expect("a file");
            let arguments =
                [&["FOLDER/sentinel.conf", "--sentinel", "--bind", "127.0.0.1"], &own[..]].concat();
            sentinels.push(Node::start_in(folder, &arguments, &cli).await?);
        }
        let watching = async || {
            sentinels
                .iter()
                .all(|sentinel| sentinel.command(&["SENTINEL", "CKQUORUM", "main"]).starts_with("OK 3"))
        };
        until("the sentinels know each other", watching).await;
        let all_known = format!("num-slaves\n{replicas}\n");
        let knowing = async || {
            sentinels
                .iter()
                .all(|sentinel| sentinel.command(&["SENTINEL", "MASTER", "main"]).contains(&all_known))
        };
        until("the sentinels know the replicas", knowing).await;
        let (scheme, host) = (scheme.to_owned(), host.to_owned());
        Some(Self { servers, sentinels, scheme, host })
    }

    /// What `--redis` takes.
    pub(crate) fn url(&self) -> String {
        let hosts = self.sentinels.iter().map(|node| format!("{}:{}", self.host, node.port()));
        format!("{}-sentinel://{}/main", self.scheme, hosts.collect::<Vec<_>>().join(","))
    }

    /// Which of the servers the Sentinels call the master.
    pub(crate) fn master(&self) -> usize {
        let address = self.sentinels[0].command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]);
        let port = address.lines().nth(1).unwrap_or_default();
        self.servers.iter().position(|node| node.port().to_string() == port).expect("one of them")
    }

    /// Waits until the master has a replica in step. The Sentinels alone take from ten seconds to minutes to make one of a server that is
    /// back, so it is told.
    pub(crate) async fn replicated(&self) {
        until("the master has a replica in step", async || {
            let master = self.master();
            let port = self.servers[master].port().to_string();
            for server in self.servers.iter().filter(|server| server.port() != self.servers[master].port()) {
                server.command(&["REPLICAOF", &self.host, &port]);
            }
            self.servers[master].command(&["INFO", "replication"]).contains("state=online")
        })
        .await;
    }
}

/// A Cluster: three masters, and replicas of them in turn.
pub(crate) struct Cluster {
    /// The masters first.
    pub(crate) nodes: Vec<Node>,
}

impl Cluster {
    /// Starts three masters and so many replicas. `None` where there is no Redis.
    pub(crate) async fn start(replicas: usize) -> Option<Self> {
        Self::start_with(replicas, &[]).await
    }

    /// Starts one whose servers take more arguments.
    pub(crate) async fn start_with(replicas: usize, more: &[&str]) -> Option<Self> {
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for _ in 0..3 + replicas {
            let bus = free_port().to_string();
            let own = ["--port", "PORT", "--bind", "127.0.0.1", "--dir", "FOLDER", "--cluster-port", &bus];
            let cluster = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                "--repl-diskless-sync-delay",
                "0",
            ];
            nodes.push(Node::start(&[&own[..], &cluster, &DURABLE, more].concat()).await?);
            buses.push(bus);
        }
        for (index, slots) in ["0 5460", "5461 10922", "10923 16383"].iter().enumerate() {
            let slots: Vec<_> = slots.split(' ').collect();
            nodes[index].command(&[&["CLUSTER", "ADDSLOTSRANGE"], &slots[..]].concat());
            nodes[index].command(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus]);
        }
        let cluster = Self { nodes };
        let count = format!("cluster_known_nodes:{}", cluster.nodes.len());
        until("the nodes know each other", async || {
            cluster.everywhere("cluster_state:ok") && cluster.everywhere(&count)
        })
        .await;
        for replica in 0..replicas {
            let (node, master) = (&cluster.nodes[3 + replica], cluster.id(replica % 3));
            until("it replicates", async || node.command(&["CLUSTER", "REPLICATE", &master]) == "OK").await;
            until("it is in step", async || {
                node.command(&["INFO", "replication"]).contains("master_link_status:up")
            })
            .await;
        }
        Some(cluster)
    }

    fn everywhere(&self, what: &str) -> bool {
        self.nodes.iter().all(|node| node.command(&["CLUSTER", "INFO"]).contains(what))
    }

    /// A node's name in the cluster.
    pub(crate) fn id(&self, node: usize) -> String {
        self.nodes[node].command(&["CLUSTER", "MYID"])
    }

    /// What `--redis` takes: the first and the last node.
    pub(crate) fn url(&self) -> String {
        let last = self.nodes.last().map_or(0, Node::port);
        format!("redis-cluster://127.0.0.1:{},127.0.0.1:{last}", self.nodes[0].port())
    }

    /// Which node keeps the keys with this tag, by what another says; those that do not run are not asked.
    pub(crate) fn owner(&self, tag: &str) -> usize {
        let key = format!("{{{tag}}}");
        let mut known = self.nodes.iter().filter(|node| node.child.is_some());
        let answer = known.next().map(|node| node.command(&["GET", &key])).unwrap_or_default();
        match answer.strip_prefix("MOVED ").and_then(|moved| moved.rsplit_once(':')) {
            Some((_, port)) => self
                .nodes
                .iter()
                .position(|node| node.port().to_string() == port.trim())
                .expect("one of them"),
            None => self.nodes.iter().position(|node| node.child.is_some()).expect("one runs"),
        }
    }

    /// Begins to move the slot of a tag to another node: from now on it is neither here nor there.
    pub(crate) fn begin_move(&self, tag: &str, to: usize) -> usize {
        let (from, slot) = (self.owner(tag), self.slot(tag));
        assert_eq!(self.nodes[to].command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.id(from)]), "OK");
        assert_eq!(self.nodes[from].command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.id(to)]), "OK");
        from
    }

    /// Moves up to so many keys of a slot that is under way, and says how many there were.
    pub(crate) fn move_keys(&self, tag: &str, from: usize, to: usize, most: usize) -> usize {
        let keys =
            self.nodes[from].command(&["CLUSTER", "GETKEYSINSLOT", &self.slot(tag), &most.to_string()]);
        let keys: Vec<&str> = keys.lines().filter(|line| !line.is_empty()).collect();
        if !keys.is_empty() {
            let port = self.nodes[to].port().to_string();
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let done = self.nodes[from].command(&[&migrate[..], &keys].concat());
            assert!(done == "OK" || done == "NOKEY", "{done}");
        }
        keys.len()
    }

    /// Moves what is left of a slot, and tells all nodes.
    pub(crate) fn end_move(&self, tag: &str, from: usize, to: usize) {
        while self.move_keys(tag, from, to, 100) > 0 {}
        let (slot, id) = (self.slot(tag), self.id(to));
        for node in [to, from, 0, 1, 2] {
            self.nodes[node].command(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    fn slot(&self, tag: &str) -> String {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", &format!("{{{tag}}}")])
    }
}
