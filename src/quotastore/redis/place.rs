//! Where a Redis is, as users write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ::redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, RedisConnectionInfo,
    TlsCertificates,
};
use percent_encoding::percent_decode_str;

use crate::keystore::Location;

/// The most servers that are named or remembered.
pub(super) const MOST_HOSTS: usize = 64;

/// Where a Redis is. A password in it does not print.
///
/// | written | is |
/// | --- | --- |
/// | `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]` | one server |
/// | `redis+unix:///SOCKET` | one server |
/// | `redis-sentinel://[USER:PASSWORD@]HOST[:PORT],…/MASTER[/DATABASE][?sentinel-user=…&sentinel-password=…]` | the server that Sentinels at these hosts call the master of that name |
/// | `redis-cluster://[USER:PASSWORD@]HOST[:PORT],…` | a Cluster of which these are some nodes |
///
/// `rediss` in the place of `redis` is TLS. User and password are those of the servers; the Sentinels' are in the query. What is not
/// letters, digits, `-`, `_`, `.` or `~` in a user, a password or a name is percent-encoded.
#[derive(Clone)]
pub struct RedisPlace(pub(super) Kind);

#[derive(Clone)]
pub(super) enum Kind {
    /// One server.
    Single(Box<ConnectionInfo>),
    /// Those who know the server.
    Sentinel {
        /// Where they listen.
        hosts: Vec<Host>,
        /// What they are told.
        login: RedisConnectionInfo,
        /// The master's name.
        master: String,
        /// How servers are spoken to.
        servers: Servers,
    },
    /// Nodes of a cluster.
    Cluster {
        /// Some of them.
        hosts: Vec<Host>,
        /// How all are spoken to.
        servers: Servers,
    },
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

/// How servers whose addresses are learnt are spoken to.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) login: RedisConnectionInfo,
    pub(super) tls: bool,
}

impl Servers {
    /// What to connect to.
    pub(super) fn at(&self, host: &Host, login: &RedisConnectionInfo) -> Result<ConnectionInfo, String> {
        let (host, port) = (host.name.clone(), host.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        let info = address.into_connection_info().map_err(|error| error.to_string())?;
        Ok(info.set_redis_settings(login.clone()))
    }
}

/// Why a text is no [`RedisPlace`]. It is not repeated: there may be a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this names no Redis ({0}); write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+unix:///SOCKET, redis-sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/MASTER[/DATABASE] or redis-cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]; rediss in the place of redis is TLS"
)]
pub struct InvalidPlace(&'static str);

impl FromStr for RedisPlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(InvalidPlace("a scheme is missing"));
        };
        match scheme {
            "redis" | "rediss" | "redis+unix" => match text.parse() {
                Ok(Location::Redis(info)) => Ok(Self(Kind::Single(info))),
                _ => Err(InvalidPlace(
                    "the URL is not well-formed, or asks not to verify the server's certificate",
                )),
            },
            "redis-sentinel" => sentinel(rest, false),
            "rediss-sentinel" => sentinel(rest, true),
            "redis-cluster" => cluster(rest, false),
            "rediss-cluster" => cluster(rest, true),
            _ => Err(InvalidPlace("its scheme is not one of Redis")),
        }
    }
}

fn sentinel(rest: &str, tls: bool) -> Result<RedisPlace, InvalidPlace> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority_of(authority, 26379)?;
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(InvalidPlace("after the Sentinels' hosts a slash and the master's name are missing"));
    }
    let mut servers = Servers { login, tls };
    if !database.is_empty() {
        let Ok(database @ 0..=65_535) = database.parse::<i64>() else {
            return Err(InvalidPlace("what follows the master's name has to be the number of a database"));
        };
        servers.login = servers.login.set_db(database);
    }
    let mut login = RedisConnectionInfo::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        login = match pair.split_once('=') {
            Some(("sentinel-user", user)) => login.set_username(decoded(user)?),
            Some(("sentinel-password", password)) => login.set_password(decoded(password)?),
            _ => {
                return Err(InvalidPlace(
                    "after ? there may be sentinel-user=… and sentinel-password=… only",
                ));
            }
        };
    }
    if login.username().is_some() && login.password().is_none() {
        return Err(InvalidPlace("a sentinel-user needs a sentinel-password"));
    }
    Ok(RedisPlace(Kind::Sentinel { hosts, login, master: decoded(master)?, servers }))
}

fn cluster(rest: &str, tls: bool) -> Result<RedisPlace, InvalidPlace> {
    if rest.contains('?') {
        return Err(InvalidPlace("a cluster's URL has nothing after a ?"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() && path != "0" {
        return Err(InvalidPlace("a cluster has one database only, 0: leave out what follows the hosts"));
    }
    let (login, hosts) = authority_of(authority, 6379)?;
    Ok(RedisPlace(Kind::Cluster { hosts, servers: Servers { login, tls } }))
}

/// Who is to log in, and where.
fn authority_of(text: &str, default_port: u16) -> Result<(RedisConnectionInfo, Vec<Host>), InvalidPlace> {
    let (login, hosts) = match text.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, text),
    };
    let mut info = RedisConnectionInfo::default();
    if let Some(login) = login {
        let (user, password) = login.split_once(':').ok_or(InvalidPlace(
            "before @ there have to be user and password, with a colon between them; a password alone is :PASSWORD",
        ))?;
        if !user.is_empty() {
            info = info.set_username(decoded(user)?);
        }
        info = info.set_password(decoded(password)?);
    }
    let hosts: Vec<Host> =
        hosts.split(',').map(|host| Host::read(host, Some(default_port))).collect::<Option<_>>().ok_or(
            InvalidPlace("a host is missing or is not HOST, HOST:PORT or [IPV6]:PORT; special characters of a password are percent-encoded"),
        )?;
    if hosts.len() > MOST_HOSTS {
        return Err(InvalidPlace("there are more than 64 hosts"));
    }
    Ok((info, hosts))
}

fn decoded(text: &str) -> Result<String, InvalidPlace> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) if !text.contains('\0') => Ok(text.into_owned()),
        _ => Err(InvalidPlace("what is percent-encoded is not UTF-8")),
    }
}

impl Host {
    /// Reads `HOST:PORT` as users and servers write it; `HOST` where there is a port by default, and IPv6 with brackets or, by servers,
    /// without.
    pub(super) fn read(text: &str, default_port: Option<u16>) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((name, "")) => (name, None),
            Some((name, port)) => (name, Some(port.strip_prefix(':')?)),
            None => match text.rsplit_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok()?,
            None => default_port?,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
        // Servers name none where they mean themselves.
        let named = !name.is_empty() || default_port.is_none();
        (named && name.len() <= 255 && name.chars().all(allowed) && port > 0)
            .then(|| Self { name: name.to_owned(), port })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

impl fmt::Display for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |hosts: &[Host]| hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(", ");
        match &self.0 {
            Kind::Single(info) => write!(f, "Redis at {}", info.addr()),
            Kind::Sentinel { hosts, master, .. } => {
                write!(f, "Redis {master:?} of the Sentinels at {}", join(hosts))
            }
            Kind::Cluster { hosts, .. } => write!(f, "the Redis Cluster of {}", join(hosts)),
        }
    }
}

impl fmt::Debug for RedisPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a Redis is used.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Certificates (PEM) to trust in the place of the system's, if it is TLS.
    pub ca: Option<PathBuf>,
    /// The certificate chain and the private key (PEM) to show to it.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// What keys begin with, in braces. `aigw` where there is none.
    pub prefix: Option<String>,
    /// How many replicas have to have what is written before it counts as written.
    pub replicas: u32,
}

impl RedisOptions {
    /// What all keys begin with: one hash tag.
    pub(super) fn key_prefix(&self) -> Result<String, String> {
        let tag = self.prefix.as_deref().unwrap_or("aigw");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if tag.is_empty() || tag.len() > 64 || !tag.chars().all(allowed) {
            return Err("a prefix of keys is 1 to 64 letters, digits, dots, colons, - and _".to_owned());
        }
        Ok(format!("{{{tag}}}:q:"))
    }

    /// What the files hold, read anew at each connection, so that certificates can be renewed.
    pub(super) fn certificates(&self) -> Result<TlsCertificates, String> {
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let root_cert = self.ca.as_ref().map(read).transpose()?;
        let client_tls = match &self.identity {
            Some((chain, key)) => Some(ClientTlsConfig { client_cert: read(chain)?, client_key: read(key)? }),
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Kind {
        text.parse::<RedisPlace>().unwrap_or_else(|error| panic!("{text}: {error}")).0
    }

    fn hosts(of: &[Host]) -> Vec<String> {
        of.iter().map(Host::to_string).collect()
    }

    #[test]
    fn all_topologies_have_a_url() {
        let Kind::Single(info) = place("redis://u:p%40@h:1/3") else { panic!("one server") };
        assert_eq!((info.redis_settings().password(), info.redis_settings().db()), (Some("p@"), 3));
        let url = "rediss-sentinel://u:p%2F%40@one,[::1]:7,three:26380/my%20master/5?sentinel-user=s&sentinel-password=q%26";
        let Kind::Sentinel { hosts: at, login, master, servers } = place(url) else { panic!("Sentinels") };
        assert_eq!(hosts(&at), ["one:26379", "[::1]:7", "three:26380"]);
        assert_eq!((login.username(), login.password(), login.db()), (Some("s"), Some("q&"), 0));
        assert_eq!(master, "my master");
        let own = &servers.login;
        assert_eq!(
            (own.username(), own.password(), own.db(), servers.tls),
            (Some("u"), Some("p/@"), 5, true)
        );
        let Kind::Cluster { hosts: at, servers } = place("redis-cluster://:secret@a:1,b/0") else {
            panic!("a cluster")
        };
        assert_eq!(hosts(&at), ["a:1", "b:6379"]);
        let own = &servers.login;
        assert_eq!((own.username(), own.password(), servers.tls), (None, Some("secret"), false));
    }

    #[test]
    fn what_names_none_is_explained_without_its_password() {
        for (url, reason) in [
            ("geheim", "scheme"),
            ("http://u:geheim@host", "scheme"),
            ("rediss://u:geheim@host/#insecure", "certificate"),
            ("redis://u:geheim@", "well-formed"),
            ("redis-sentinel://u:geheim@host", "master's name"),
            ("redis-sentinel://u:geheim@host/", "master's name"),
            ("redis-sentinel://u:geheim@host/main/geheim", "number of a database"),
            ("redis-sentinel://u:geheim@host/main/-1", "number of a database"),
            ("redis-sentinel://host/main?password=geheim", "sentinel-password"),
            ("redis-sentinel://host/main?sentinel-user=geheim", "needs a sentinel-password"),
            ("redis-sentinel://geheim@host/main", ":PASSWORD"),
            ("redis-sentinel://u:gehe/im@host/main", "percent-encoded"),
            ("redis-cluster://u:geheim@a:1,/", "host is missing"),
            ("redis-cluster://u:geheim@a:0", "host is missing"),
            ("redis-cluster://u:geheim@a:99999", "host is missing"),
            ("redis-cluster://u:geheim@host/3", "one database only"),
            ("redis-cluster://u:geheim@host?db=3", "nothing after"),
            ("redis-cluster://u:%ffgeheim@host", "not UTF-8"),
        ] {
            let problem = url.parse::<RedisPlace>().unwrap_err().to_string();
            assert!(problem.contains(reason) && !problem.contains("geheim"), "{url}: {problem}");
        }
    }

    #[test]
    fn nothing_secret_prints() {
        for url in [
            "redis://u:geheim@h",
            "redis-sentinel://u:geheim@h/main?sentinel-password=geheim",
            "redis-cluster://u:geheim@h",
        ] {
            let place: RedisPlace = url.parse().unwrap();
            assert!(!format!("{place} {place:?}").contains("geheim"), "{place:?}");
        }
    }

    #[test]
    fn keys_begin_with_one_hash_tag() {
        let prefix =
            |tag: &str| RedisOptions { prefix: Some(tag.to_owned()), ..RedisOptions::default() }.key_prefix();
        assert_eq!(RedisOptions::default().key_prefix().unwrap(), "{aigw}:q:");
        assert_eq!(prefix("team-a.eu").unwrap(), "{team-a.eu}:q:");
        for wrong in ["", "a}b", "a{", "a b", "a\nb", "*", &"x".repeat(65)] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }
}
