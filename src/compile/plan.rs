//! What will be served, decided: the one model from which both the processor's and Envoy's configuration are written,
//! so that the two cannot disagree about the order of matches or the value of a routing key.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use secrecy::{ExposeSecret, SecretString};

use crate::config::{Host, KeyDemand, Models, Proof, ProofKind, RuleMatch, Tenancy};
use crate::resources::envoy_gateway::{
    ClientHTTPTimeout, ConnectionLimit, EscapedSlashesAction, WithUnderscoresAction,
};
use crate::resources::traffic::{
    CircuitBreaker, DNS, HTTP2Settings, HTTPTimeout, HealthCheck, LoadBalancer, Retry, TCPKeepalive,
};

use super::{Destination, SecretFile};

/// Everything that one Envoy serves.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    pub(super) listeners: Vec<ListenerPlan>,
    pub(super) clusters: Vec<Cluster>,
}

/// One listener of one Gateway, on a port of its own.
#[derive(Debug, Clone)]
pub(super) struct ListenerPlan {
    /// The listener's name in its Gateway.
    pub(super) name: String,
    /// `namespace/name` of the Gateway.
    pub(super) gateway: String,
    /// By this the processor tells listeners apart.
    pub(super) authority: String,
    pub(super) port: u16,
    pub(super) client: ClientPlan,
    /// Of these the client is shown the one that fits the name it asks for; none means that TLS is not spoken.
    pub(super) certificates: Vec<CertificatePlan>,
    pub(super) hosts: Vec<Host>,
    pub(super) rules: Vec<RulePlan>,
    pub(super) models: Models,
    pub(super) access_logs: Vec<AccessLogPlan>,
    pub(super) clients: Clients,
}

/// Who may use a listener.
#[derive(Debug, Clone, Default)]
pub(super) struct Clients {
    /// What is asked before the processor is: of everybody, since no rule asks for something else.
    pub(super) front: Option<Asked>,
    /// Whether rules ask by themselves, so that Envoy's filters stand behind the processor, which chooses the rule.
    pub(super) behind: bool,
    /// What is asked of requests that no rule takes, where rules ask by themselves.
    pub(super) rest: Option<Asked>,
    /// The headers that hold what a client's certificate names, if certificates are checked: those that say most come first.
    pub(super) certificate: Vec<Proof>,
    pub(super) tenancy: Option<Tenancy>,
    /// Whether keys of the gateway's own are asked for, where a policy says so.
    pub(super) gateway_key: Option<KeyDemand>,
}

/// What is asked of clients, and where Envoy leaves the proof.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) plan: Rc<AuthPlan>,
    pub(super) proofs: Vec<Proof>,
}

impl Asked {
    /// Where the proof of that kind is left.
    pub(super) fn header(&self, kind: ProofKind) -> &str {
        let mut proofs = self.proofs.iter().filter(|proof| proof.kind == kind);
        proofs.next().map_or("", |proof| proof.header.as_str())
    }
}

/// Whether clients have to prove who they are.
#[derive(Debug, Clone)]
pub(super) enum Guard {
    /// No.
    Open,
    /// Yes.
    Asks(Rc<AuthPlan>),
    /// What they have to prove cannot be made out: nobody passes.
    Closed,
}

/// What clients have to prove: all of it.
#[derive(Debug, Clone)]
pub(super) struct AuthPlan {
    /// `namespace/name` of the policy.
    pub(super) policy: String,
    pub(super) api_key: Option<ApiKeyPlan>,
    pub(super) basic: Option<BasicPlan>,
    pub(super) jwt: Option<JwtPlan>,
}

/// Keys, and where they are looked for.
#[derive(Debug, Clone)]
pub(super) struct ApiKeyPlan {
    /// Clients and their keys.
    pub(super) credentials: Vec<(String, SecretString)>,
    /// `header`, `query` or `cookie`, and the name.
    pub(super) sources: Vec<(&'static str, String)>,
    /// Headers that hold the key.
    pub(super) secrets: Vec<String>,
    pub(super) forward: Option<String>,
}

/// Users.
#[derive(Debug, Clone)]
pub(super) struct BasicPlan {
    /// As htpasswd writes them.
    pub(super) users: SecretString,
    pub(super) forward: Option<String>,
}

/// Who issues tokens.
#[derive(Debug, Clone)]
pub(super) struct JwtPlan {
    pub(super) optional: bool,
    pub(super) issuers: Vec<IssuerPlan>,
    /// Headers that hold the token.
    pub(super) secrets: Vec<String>,
}

/// An issuer of tokens, and where they are looked for.
#[derive(Debug, Clone)]
pub(super) struct IssuerPlan {
    pub(super) name: String,
    pub(super) issuer: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) keys: JwksPlan,
    /// Headers and the claims they are made of.
    pub(super) claims: Vec<(String, String)>,
    /// Names, and what stands before the token.
    pub(super) headers: Vec<(String, String)>,
    pub(super) cookies: Vec<String>,
    pub(super) params: Vec<String>,
}

/// An issuer's keys.
#[derive(Debug, Clone)]
pub(super) enum JwksPlan {
    /// Public keys.
    Inline(String),
    /// Keys of which some are secret: they stand in a file that only Envoy reads.
    File {
        path: PathBuf,
        file: SecretFile,
    },
    Fetched {
        uri: String,
        cluster: String,
        cache_ms: u64,
    },
}

impl ListenerPlan {
    /// The name that is unique over all Gateways.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.gateway, self.name)
    }

    /// The rule a match selects; matches are made together with the rules, so there always is one.
    pub(super) fn rule(&self, selected: &RuleMatch) -> Option<&RulePlan> {
        self.rules.get(selected.rule)
    }
}

/// How clients are treated, where it is not as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClientPlan {
    /// The largest request body, and the watermark of the connection, in bytes.
    pub(super) buffer_limit: u32,
    pub(super) timeout: Option<ClientHTTPTimeout>,
    pub(super) connection_limit: Option<ConnectionLimit>,
    pub(super) http2: Option<HTTP2Settings>,
    pub(super) escaped_slashes: Option<EscapedSlashesAction>,
    pub(super) merge_slashes: bool,
    pub(super) underscores: Option<WithUnderscoresAction>,
    pub(super) tcp_keepalive: Option<TCPKeepalive>,
    pub(super) certificates: Option<ClientCertificates>,
}

/// Which certificates clients show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientCertificates {
    /// `namespace/name` of the policy.
    pub(super) policy: String,
    pub(super) optional: bool,
    /// Authorities, PEM; without any, nobody may connect.
    pub(super) authorities: Option<String>,
}

/// A certificate and its key, known to fit each other. Its debug form does not show the key.
#[derive(Debug, Clone)]
pub(super) struct CertificatePlan {
    /// `namespace/name` of the Secret.
    pub(super) name: String,
    /// The certificate and those that vouch for it, PEM.
    pub(super) chain: String,
    /// PEM.
    pub(super) key: SecretString,
}

impl PartialEq for CertificatePlan {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.chain == other.chain
            && self.key.expose_secret() == other.key.expose_secret()
    }
}

/// One rule of one route on one listener.
#[derive(Debug, Clone)]
pub(super) struct RulePlan {
    /// `namespace/name` of the AIGatewayRoute.
    pub(super) route: String,
    /// Index of the rule in its route.
    pub(super) index: usize,
    /// The backend string of the first backend.
    pub(super) backend: String,
    /// Those of all backends, if each attempt is translated and signed for the one it goes to; otherwise none.
    pub(super) attempts: Vec<String>,
    pub(super) routing_key: String,
    /// What is asked for this rule by itself.
    pub(super) asked: Option<Asked>,
    pub(super) tenancy: Option<Tenancy>,
    pub(super) action: Action,
    /// For people; what is done is in `action`.
    pub(super) destinations: Vec<Destination>,
}

/// What Envoy does with a request of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Forward(Box<Forward>),
    /// The rule cannot be served. It keeps its place, so that its requests do not fall to a less specific rule and
    /// with that to a provider they were not meant for.
    Refuse,
    /// The rule has no backend with a weight above zero: 500, as Gateway API demands.
    NoBackend,
}

/// Where to and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forward {
    /// Cluster names and weights, all above zero.
    pub(super) clusters: Vec<(String, u32)>,
    /// For the whole exchange; zero means without limit.
    pub(super) timeout_ms: u64,
    /// For the time without a byte from the backend.
    pub(super) stream_idle_ms: Option<u64>,
    pub(super) retry: Option<RetryPlan>,
    /// What a consistent hash is made of.
    pub(super) hashed: Vec<Hashed>,
}

/// When another attempt is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RetryPlan {
    pub(super) policy: Retry,
    /// For one attempt.
    pub(super) attempt_ms: Option<u64>,
    /// After so many attempts the next priority has its turn, if there is more than one.
    pub(super) per_priority: Option<u32>,
    /// Whether another attempt may go to another backend.
    pub(super) elsewhere: bool,
}

/// A part of what is hashed to choose an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hashed {
    Header(String),
    SourceIp,
}

/// What Envoy knows as a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cluster {
    Backend(Box<ClusterPlan>),
    Group(GroupPlan),
    Chain(ChainPlan),
}

impl Cluster {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Backend(plan) => &plan.name,
            Self::Group(plan) => &plan.name,
            Self::Chain(plan) => &plan.name,
        }
    }
}

/// Backends of a rule of which Envoy chooses one for each attempt. They are reached in one way: over the network or on this
/// machine, with TLS or without, by one version of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupPlan {
    /// Another one for another content.
    pub(super) name: String,
    /// At least one.
    pub(super) members: Vec<Member>,
    /// The gateway as which the processor is asked about each attempt, if it is.
    pub(super) attempts: Option<String>,
}

/// A backend in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// [`crate::config::Backend::name`].
    pub(super) backend: String,
    /// Zero comes first; without gaps over the members of a group.
    pub(super) priority: u32,
    /// Its share among those of its priority, above zero; the sum of theirs fits 32 bits.
    pub(super) weight: u32,
    pub(super) cluster: ClusterPlan,
}

/// Groups in the order in which they are tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChainPlan {
    /// Another one for another content.
    pub(super) name: String,
    /// Their names.
    pub(super) groups: Vec<String>,
    /// As [`GroupPlan::attempts`].
    pub(super) attempts: Option<String>,
    pub(super) circuit_breaker: Option<CircuitBreaker>,
}

/// A destination: a Backend, and how it is treated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterPlan {
    /// Another one for another content.
    pub(super) name: String,
    /// `namespace/name` of the Backend.
    pub(super) backend: String,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) tls: Option<TlsPlan>,
    /// HTTP/2 without TLS.
    pub(super) h2c: bool,
    pub(super) traffic: ClusterTraffic,
}

/// How a destination is treated, where it is not as usual.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClusterTraffic {
    pub(super) load_balancer: Option<LoadBalancer>,
    pub(super) tcp_keepalive: Option<TCPKeepalive>,
    pub(super) health_check: Option<HealthCheck>,
    pub(super) circuit_breaker: Option<CircuitBreaker>,
    pub(super) connect_timeout_ms: Option<u64>,
    /// `request_timeout` is the route's and absent here.
    pub(super) http_timeout: Option<HTTPTimeout>,
    pub(super) buffer_limit: Option<u32>,
    pub(super) dns: Option<DNS>,
    pub(super) http2: Option<HTTP2Settings>,
    /// Through this proxy.
    pub(super) proxy: Option<SocketAddr>,
}

/// One address of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Fqdn {
        hostname: String,
        port: u16,
    },
    /// `hostname` is what the backend reads as `host`, if given.
    Ip {
        address: IpAddr,
        port: u16,
        hostname: Option<String>,
    },
    /// A socket file; `hostname` is what the backend reads as `host`.
    Unix {
        path: PathBuf,
        hostname: String,
    },
}

impl Endpoint {
    /// The name by which it is asked for, if it has one of its own.
    pub(super) fn hostname(&self) -> Option<&str> {
        match self {
            Self::Fqdn { hostname, .. } | Self::Unix { hostname, .. } => Some(hostname),
            Self::Ip { hostname, .. } => hostname.as_deref(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fqdn { hostname, port } => write!(f, "{hostname}:{port}"),
            Self::Ip { address, port, hostname: _ } => SocketAddr::new(*address, *port).fmt(f),
            Self::Unix { path, hostname: _ } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a destination proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TlsPlan {
    /// Sent as SNI, and demanded of the certificate where `names` is empty.
    pub(super) hostname: String,
    /// Names of which the certificate must have one, besides none other.
    pub(super) names: Vec<SubjectName>,
    pub(super) trust: Trust,
}

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SubjectName {
    Dns(String),
    Uri(String),
}

/// Which authorities may vouch for a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// The bundle of this machine.
    System(PathBuf),
    /// PEM text.
    Inline(String),
    /// No check at all; only where the user says so.
    Anyone,
}

/// One access log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AccessLogPlan {
    pub(super) path: String,
    pub(super) format: LogFormat,
    /// CEL; all must hold.
    pub(super) matches: Vec<String>,
}

/// How a line is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LogFormat {
    Text(String),
    Json(serde_json::Map<String, serde_json::Value>),
    /// Envoy's own.
    Default,
}
