//! Finds the server that keeps the buckets, and connects to it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    ServerErrorKind, Value, cmd,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

use super::place::{Host, Kind, MOST_HOSTS, RedisOptions, RedisPlace};
use crate::keystore::redis_reason;

/// How long connecting may take, and an answer to what no exchange waits for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long other Sentinels are waited for once one has answered: another may know of a later failover.
const GRACE: Duration = Duration::from_millis(100);

/// Finds the server.
pub(super) struct Finder {
    place: RedisPlace,
    options: RedisOptions,
    /// A key of ours: who has it has all.
    key: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The server that is or was connected to.
    at: Option<Host>,
    /// How many failovers the Sentinel that named it knew of.
    epoch: u64,
    /// Who keeps the slot, as another node said.
    hint: Option<Host>,
    /// Nodes of the cluster.
    nodes: Vec<Host>,
    /// Connections to Sentinels.
    sentinels: HashMap<Host, MultiplexedConnection>,
}

impl Finder {
    pub(super) fn new(place: RedisPlace, options: RedisOptions, key: String) -> Result<Self, String> {
        let finder = Self { place, options, key, state: Mutex::default() };
        // What is wrong with the files is said at once.
        let address = match &finder.place.0 {
            Kind::Single(info) => info.as_ref().clone(),
            Kind::Sentinel { hosts, servers, login, .. } => servers.at(first(hosts)?, login)?,
            Kind::Cluster { hosts, servers } => servers.at(first(hosts)?, &servers.login)?,
        };
        let tls = matches!(address.addr(), ConnectionAddr::TcpTls { .. });
        let options = &finder.options;
        if !tls && options.identity.is_some() {
            return Err("a certificate is shown with TLS only: write rediss in the place of redis".to_owned());
        }
        finder.client(address)?;
        Ok(finder)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, String> {
        let at = info.addr().to_string();
        let files = self.options.ca.is_some() || self.options.identity.is_some();
        let client = if files && matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            Client::build_with_tls(info, self.options.certificates()?)
        } else {
            Client::open(info)
        };
        client.map_err(|error| format!("{at}: {}", redis_reason(&error)))
    }

    async fn connect(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, String> {
        let at = info.addr().to_string();
        let client = self.client(info)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(format!("{at}: {}", redis_reason(&error))),
            Err(_) => Err(format!("{at}: no answer in time")),
        }
    }

    /// Connects to the server that has the keys.
    pub(super) async fn find(&self) -> Result<MultiplexedConnection, String> {
        match &self.place.0 {
            Kind::Single(info) => {
                let mut connection = self.connect(info.as_ref().clone()).await?;
                let time = cmd("TIME").query_async::<(u64, u64)>(&mut connection).await;
                time.map_err(|error| redis_reason(&error))?;
                Ok(connection)
            }
            Kind::Sentinel { servers, .. } => {
                let (epoch, host) = self.master().await?;
                let connection = self.connect(servers.at(&host, &servers.login)?).await?;
                let mut state = self.state();
                (state.at, state.epoch) = (Some(host), epoch);
                Ok(connection)
            }
            Kind::Cluster { .. } => self.owner().await,
        }
    }

    /// Connects once more to the server that was found.
    pub(super) async fn again(&self) -> Result<MultiplexedConnection, String> {
        let at = self.state().at.clone();
        let info = match (&self.place.0, at) {
            (Kind::Single(info), _) => info.as_ref().clone(),
            (Kind::Sentinel { servers, .. } | Kind::Cluster { servers, .. }, Some(at)) => {
                servers.at(&at, &servers.login)?
            }
            (_, None) => return Err("no server was found".to_owned()),
        };
        self.connect(info).await
    }

    /// Connects to a node of the cluster.
    pub(super) async fn open(&self, host: &Host) -> RedisResult<MultiplexedConnection> {
        let Kind::Cluster { servers, .. } = &self.place.0 else {
            return Err(RedisError::from((ErrorKind::InvalidClientConfig, "this is no cluster")));
        };
        let info = servers.at(host, &servers.login);
        let opened = match info {
            Ok(info) => self.connect(info).await,
            Err(error) => Err(error),
        };
        opened.map_err(|error| RedisError::from((ErrorKind::Io, "a node of the cluster is away", error)))
    }

    /// Whether Sentinels call another server the master than the one that is connected to.
    pub(super) async fn moved(&self) -> bool {
        if !matches!(self.place.0, Kind::Sentinel { .. }) {
            return false;
        }
        let Ok((epoch, host)) = self.master().await else { return false };
        let state = self.state();
        epoch >= state.epoch && state.at.as_ref().is_some_and(|at| *at != host)
    }

    /// Where the master is by what the Sentinel says that knows of most failovers.
    async fn master(&self) -> Result<(u64, Host), String> {
        let Kind::Sentinel { hosts, .. } = &self.place.0 else {
            return Err("there are no Sentinels".to_owned());
        };
        let mut asking: FuturesUnordered<_> = hosts.iter().map(|host| self.ask_sentinel(host)).collect();
        let (mut best, mut problem) = (None::<(u64, Host)>, String::new());
        loop {
            let answer = if best.is_some() {
                match timeout(GRACE, asking.next()).await {
                    Ok(answer) => answer,
                    Err(_) => break,
                }
            } else {
                asking.next().await
            };
            match answer {
                Some(Ok((epoch, host))) if best.as_ref().is_none_or(|(other, _)| epoch > *other) => {
                    best = Some((epoch, host));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => problem = error,
                None => break,
            }
        }
        best.ok_or(problem)
    }

    async fn ask_sentinel(&self, host: &Host) -> Result<(u64, Host), String> {
        let Kind::Sentinel { login, master, servers, .. } = &self.place.0 else { return Err(String::new()) };
        let known = self.state().sentinels.get(host).cloned();
        let mut connection = match known {
            Some(connection) => connection,
            None => {
                let opened = self.connect(servers.at(host, login)?).await?;
                self.state().sentinels.insert(host.clone(), opened.clone());
                opened
            }
        };
        let mut question = cmd("SENTINEL");
        question.arg("MASTER").arg(master);
        let answer: RedisResult<HashMap<String, String>> = question.query_async(&mut connection).await;
        let facts = match answer {
            Ok(facts) => facts,
            Err(error) => {
                if error.code().is_none() {
                    self.state().sentinels.remove(host);
                }
                return Err(format!("the Sentinel at {host}: {}", redis_reason(&error)));
            }
        };
        let fact = |name: &str| facts.get(name).map(String::as_str).unwrap_or_default();
        if fact("flags").split(',').any(|flag| flag == "s_down" || flag == "o_down") {
            return Err(format!("the Sentinel at {host} finds the master down"));
        }
        let address = format!("{}:{}", fact("ip"), fact("port"));
        let named = Host::read(&address, None).filter(|host| !host.name.is_empty());
        let named = named.ok_or_else(|| format!("the Sentinel at {host} names no master"))?;
        Ok((fact("config-epoch").parse().unwrap_or_default(), named))
    }

    /// What a node said about who keeps the slot.
    pub(super) fn hint(&self, host: Option<Host>) {
        let host = self.beside(host);
        self.state().hint = host;
    }

    /// A host that is named by the node that is connected to, which names none where it means its own.
    pub(super) fn beside(&self, host: Option<Host>) -> Option<Host> {
        let at = self.state().at.clone();
        host.and_then(|host| near(host, at.as_ref()))
    }

    /// The node that has our keys: whoever was named last, else all that are known are asked at once.
    async fn owner(&self) -> Result<MultiplexedConnection, String> {
        let Kind::Cluster { hosts, .. } = &self.place.0 else { return Err("this is no cluster".to_owned()) };
        let hint = self.state().hint.take();
        if let Some(hint) = hint
            && let Ok((host, Ok(connection))) = self.ask_node(hint).await
        {
            self.state().at = Some(host);
            return Ok(connection);
        }
        let mut nodes: Vec<Host> = self.state().nodes.clone();
        nodes.extend(hosts.iter().cloned());
        let mut asked = HashSet::new();
        let mut asking = FuturesUnordered::new();
        for node in nodes {
            if asked.insert(node.clone()) {
                asking.push(self.ask_node(node));
            }
        }
        let mut problem = "no node keeps our keys".to_owned();
        while let Some(answer) = asking.next().await {
            match answer {
                Ok((host, Ok(connection))) => {
                    self.state().at = Some(host);
                    return Ok(connection);
                }
                Ok((_, Err(other))) => {
                    if asked.len() < 2 * MOST_HOSTS && asked.insert(other.clone()) {
                        asking.push(self.ask_node(other));
                    }
                }
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// A connection to a node that has our keys, or which has.
    async fn ask_node(&self, host: Host) -> Result<(Host, Result<MultiplexedConnection, Host>), String> {
        let reason = |error: RedisError| format!("{host}: {}", redis_reason(&error));
        let mut connection = self.open(&host).await.map_err(reason)?;
        match cmd("GET").arg(&self.key).query_async::<Value>(&mut connection).await {
            Ok(_) => Ok((host, Ok(connection))),
            Err(error) => match error.kind() {
                // They are being moved away, so they were there.
                ErrorKind::Server(ServerErrorKind::Ask) => Ok((host, Ok(connection))),
                ErrorKind::Server(ServerErrorKind::Moved) => {
                    let named = error.redirect_node().and_then(|(address, _)| Host::read(address, None));
                    let named = named.and_then(|named| near(named, Some(&host)));
                    named.map(|named| (host.clone(), Err(named))).ok_or_else(|| reason(error))
                }
                _ => Err(reason(error)),
            },
        }
    }

    /// Remembers the cluster's nodes, should those that are configured go away. A user that may not ask knows those only.
    pub(super) async fn learn(&self, mut connection: MultiplexedConnection) {
        if !matches!(self.place.0, Kind::Cluster { .. }) {
            return;
        }
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        let asking = question.query_async::<Value>(&mut connection);
        let answer = tokio::select! {
            answer = asking => answer,
            () = sleep(ANSWER_TIMEOUT) => return,
        };
        let Ok(answer) = answer else { return };
        let at = self.state().at.clone();
        let nodes = nodes_of(&answer, at.as_ref());
        if !nodes.is_empty() {
            self.state().nodes = nodes;
        }
    }
}

fn first(hosts: &[Host]) -> Result<&Host, String> {
    hosts.first().ok_or_else(|| "there is no host".to_owned())
}

/// A host as another names it; one without a name is that other's.
fn near(host: Host, by: Option<&Host>) -> Option<Host> {
    if host.name.is_empty() || host.name == "?" {
        return by.map(|by| Host { name: by.name.clone(), port: host.port });
    }
    Some(host)
}

/// The nodes in an answer to `CLUSTER SLOTS`: ranges, each with its first and last slot and then its nodes.
fn nodes_of(answer: &Value, by: Option<&Host>) -> Vec<Host> {
    let Value::Array(ranges) = answer else { return Vec::new() };
    let mut nodes = Vec::new();
    for range in ranges {
        let Value::Array(range) = range else { continue };
        for node in range.iter().skip(2) {
            let Value::Array(node) = node else { continue };
            let name = match node.first() {
                Some(Value::BulkString(name)) => String::from_utf8_lossy(name).into_owned(),
                Some(Value::SimpleString(name)) => name.clone(),
                _ => String::new(),
            };
            let Some(Value::Int(port)) = node.get(1) else { continue };
            let host = Host::read(&format!("{name}:{port}"), None).and_then(|host| near(host, by));
            if let Some(host) = host
                && nodes.len() < MOST_HOSTS
                && !nodes.contains(&host)
            {
                nodes.push(host);
            }
        }
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_as_servers_name_them_and_no_more_than_there_may_be() {
        let node = |name: &str, port| {
            Value::Array(vec![
                Value::BulkString(name.into()),
                Value::Int(port),
                Value::BulkString("id".into()),
            ])
        };
        let range = |nodes: Vec<Value>| Value::Array([vec![Value::Int(0), Value::Int(9)], nodes].concat());
        let at = Host { name: "here".to_owned(), port: 1 };
        let answer = Value::Array(vec![
            range(vec![node("10.0.0.1", 6379), node("", 6380), node("::1", 6381), node("bad host", 1)]),
            range(vec![node("10.0.0.1", 6379), node("x", 0), node("x", 99_999), Value::Nil]),
            Value::Okay,
        ]);
        let named: Vec<_> = nodes_of(&answer, Some(&at)).iter().map(Host::to_string).collect();
        assert_eq!(named, ["10.0.0.1:6379", "here:6380", "[::1]:6381"]);
        let many = Value::Array(vec![range((1..1000).map(|port| node("h", port)).collect())]);
        assert_eq!(nodes_of(&many, None).len(), MOST_HOSTS);
        assert!(nodes_of(&Value::Nil, None).is_empty());
    }
}
