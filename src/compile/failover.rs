//! Rules with several backends of which Envoy chooses one for each attempt: by priority, then by weight.
//!
//! Backends that are reached in one way share a cluster, with a locality for each. Envoy cannot mix ways in one cluster (it silently
//! drops socket files beside names that are looked up, and a cluster has one version of HTTP), so that each way gets a cluster
//! of its own where there are several, and an aggregate cluster puts them in order. Within the first priority such clusters
//! share the requests by weight: there is an aggregate for each of them that begins with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::destinations::fingerprint;
use super::envoy;
use super::plan::{ChainPlan, Cluster, ClusterPlan, Endpoint, GroupPlan, Member};

/// What backends have to have in common to share a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Network(Protocol),
    ThisMachine(Protocol),
}

/// The transport under a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tls,
    Plain,
    Http2,
}

impl Way {
    /// How a Backend is reached.
    pub(super) fn of(cluster: &ClusterPlan) -> Self {
        let protocol = match (&cluster.tls, cluster.h2c) {
            (Some(_), _) => Protocol::Tls,
            (None, true) => Protocol::Http2,
            (None, false) => Protocol::Plain,
        };
        let local = cluster.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Unix { .. }));
        if local { Self::ThisMachine(protocol) } else { Self::Network(protocol) }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, protocol) = match self {
            Self::Network(protocol) => ("the network", protocol),
            Self::ThisMachine(protocol) => ("a socket of this machine", protocol),
        };
        let protocol = match protocol {
            Protocol::Tls => "with TLS",
            Protocol::Plain => "without TLS",
            Protocol::Http2 => "by HTTP/2 without TLS",
        };
        write!(f, "{place} {protocol}")
    }
}

/// What Envoy is told of a rule's backends.
pub(super) struct Gathered {
    /// All clusters, those that others refer to first.
    pub(super) clusters: Vec<Cluster>,
    /// Those that the route leads to, with their weights, all above zero.
    pub(super) targets: Vec<(String, u32)>,
    /// How many backends have the first priority.
    pub(super) first: u32,
    /// Whether there is more than one priority.
    pub(super) prioritised: bool,
}

/// Puts the backends of a rule together. `rule` names it; `attempts` is the gateway as which the processor is asked about each
/// attempt, if it is.
pub(super) fn gather(rule: &str, members: Vec<Member>, attempts: Option<&str>) -> Gathered {
    let members = ranked(members);
    let first = members.iter().filter(|member| member.priority == 0).count();
    let prioritised = members.iter().any(|member| member.priority > 0);
    let ways: BTreeSet<Way> = members.iter().map(|member| Way::of(&member.cluster)).collect();
    let namer = Namer { rule, attempts };
    let (clusters, targets) = if ways.len() > 1 {
        namer.chains(members)
    } else {
        let group = namer.group(members, attempts);
        let target = (group.name().to_owned(), 1);
        (vec![group], vec![target])
    };
    Gathered { clusters, targets, first: u32::try_from(first).unwrap_or(u32::MAX), prioritised }
}

/// With priorities as Envoy wants them, zero first and without gaps, and with weights whose sums it takes.
fn ranked(mut members: Vec<Member>) -> Vec<Member> {
    let ranks: BTreeSet<u32> = members.iter().map(|member| member.priority).collect();
    let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
    for member in &mut members {
        let rank = ranks.range(..member.priority).count();
        member.priority = u32::try_from(rank).unwrap_or(u32::MAX);
        *sums.entry(member.priority).or_default() += u64::from(member.weight);
    }
    for member in &mut members {
        let sum = sums.get(&member.priority).copied().unwrap_or_default();
        member.weight = scaled(u64::from(member.weight), sum);
    }
    members
}

/// A weight where those it is added to are `sum`: Envoy takes sums of at most 32 bits.
pub(super) fn scaled(weight: u64, sum: u64) -> u32 {
    let divisor = sum.div_ceil(u64::from(u32::MAX)).max(1);
    u32::try_from((weight / divisor).max(1)).unwrap_or(u32::MAX)
}

struct Namer<'a> {
    rule: &'a str,
    attempts: Option<&'a str>,
}

/// A part of a chain.
struct Link {
    priority: u32,
    weight: u64,
    name: String,
}

impl Namer<'_> {
    fn chains(&self, members: Vec<Member>) -> (Vec<Cluster>, Vec<(String, u32)>) {
        let circuit_breaker =
            members.first().and_then(|member| member.cluster.traffic.circuit_breaker.clone());
        let mut parts: BTreeMap<(u32, Way), Vec<Member>> = BTreeMap::new();
        for member in members {
            parts.entry((member.priority, Way::of(&member.cluster))).or_default().push(member);
        }
        let (mut clusters, mut links) = (Vec::new(), Vec::new());
        for ((priority, _), mut members) in parts {
            members.iter_mut().for_each(|member| member.priority = 0);
            let weight = members.iter().map(|member| u64::from(member.weight)).sum();
            // The filters of a chain are run, and not those of its links.
            let group = self.group(members, None);
            links.push(Link { priority, weight, name: group.name().to_owned() });
            clusters.push(group);
        }
        links.sort_by_key(|link| (link.priority, std::cmp::Reverse(link.weight)));
        let heads: Vec<&Link> = links.iter().filter(|link| link.priority == 0).collect();
        let sum = heads.iter().map(|link| link.weight).sum();
        let mut targets = Vec::new();
        for head in heads {
            let rest = links.iter().filter(|link| link.name != head.name);
            let groups = std::iter::once(head).chain(rest).map(|link| link.name.clone()).collect();
            let chain = self.named(Cluster::Chain(ChainPlan {
                name: String::new(),
                groups,
                attempts: self.attempts.map(str::to_owned),
                circuit_breaker: circuit_breaker.clone(),
            }));
            targets.push((chain.name().to_owned(), scaled(head.weight, sum)));
            clusters.push(chain);
        }
        (clusters, targets)
    }

    fn group(&self, members: Vec<Member>, attempts: Option<&str>) -> Cluster {
        let attempts = attempts.map(str::to_owned);
        self.named(Cluster::Group(GroupPlan { name: String::new(), members, attempts }))
    }

    /// Another content is another cluster, as with that of a single Backend.
    fn named(&self, mut cluster: Cluster) -> Cluster {
        let set = |cluster: &mut Cluster, text: String| match cluster {
            Cluster::Backend(plan) => plan.name = text,
            Cluster::Group(plan) => plan.name = text,
            Cluster::Chain(plan) => plan.name = text,
        };
        let name = format!("rule/{}", self.rule);
        set(&mut cluster, name.clone());
        let written = envoy::cluster(&cluster).to_string();
        set(&mut cluster, format!("{name}/{}", fingerprint(&written)));
        cluster
    }
}
