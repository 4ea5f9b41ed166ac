//! Who is connected, what each was told and what it runs; and so what each is to be told next. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::grant::Grant;
use super::{Refusal, Replica, Running, Taken};
use crate::source::protocol::Sha256;

/// A document that is to be in force.
pub(super) struct Stored {
    pub(super) gateway: Arc<str>,
    pub(super) generation: u64,
    pub(super) sha256: Sha256,
    pub(super) document: Bytes,
}

/// Who has connected.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) replica: String,
    pub(super) instance: Vec<u8>,
    pub(super) version: String,
    pub(super) grants: Arc<[Grant]>,
    /// What it serves of that; none: all.
    pub(super) gateways: BTreeSet<String>,
    pub(super) held: BTreeMap<String, (u64, Sha256)>,
}

impl Peer {
    fn sees(&self, gateway: &str) -> bool {
        (self.gateways.is_empty() || self.gateways.contains(gateway))
            && self.grants.iter().any(|grant| grant.covers(gateway))
    }
}

/// What a processor is to be told.
pub(super) enum Next {
    /// A document, or only its generation if it has it.
    Edition {
        stored: Arc<Stored>,
        held: bool,
    },
    Withdrawal(Arc<str>),
    Complete,
}

/// Of an edition, what became of it at a processor.
pub(super) struct Verdict {
    pub(super) gateway: String,
    pub(super) generation: u64,
    pub(super) sha256: Sha256,
    pub(super) in_force: bool,
    pub(super) problems: Vec<String>,
}

struct Connection {
    peer: Peer,
    since: SystemTime,
    /// What it has, as far as it was told.
    sent: BTreeMap<Arc<str>, (u64, Sha256)>,
    /// The last Gateway it was told of: the others come first, so that none waits for one that changes all the time.
    last: Option<Arc<str>>,
    complete: bool,
    states: BTreeMap<Arc<str>, State>,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    /// Whether that was said on this connection: what a processor brings along may be of another controller's counting.
    confirmed: bool,
    refused: Option<(u64, Vec<String>)>,
}

/// Of everything that is published and of everybody who is connected.
#[derive(Default)]
pub(super) struct Ledger {
    serving: bool,
    stored: BTreeMap<Arc<str>, Arc<Stored>>,
    connections: BTreeMap<u64, Connection>,
    connected: u64,
}

impl Ledger {
    pub(super) fn publish(&mut self, stored: Stored) {
        self.stored.insert(Arc::clone(&stored.gateway), Arc::new(stored));
    }

    pub(super) fn withdraw(&mut self, gateway: &str) -> bool {
        self.stored.remove(gateway).is_some()
    }

    /// Nobody is told anything, nor stays, while this is not so.
    pub(super) fn serve(&mut self, serving: bool) {
        self.serving = serving;
        if !serving {
            self.connections.clear();
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Takes somebody in, in the place of an earlier connection of the same process. Nothing while nobody is served.
    pub(super) fn connect(&mut self, peer: Peer, since: SystemTime) -> Option<u64> {
        if !self.serving {
            return None;
        }
        let same = |known: &Peer| {
            (&known.instance, &known.replica, &known.grants) == (&peer.instance, &peer.replica, &peer.grants)
        };
        self.connections.retain(|_, known| !same(&known.peer));
        let running = |(gateway, (generation, _)): (&String, &(u64, Sha256))| {
            let running =
                Running { gateway: gateway.as_str().into(), generation: *generation, problems: Vec::new() };
            let state = State { running: Some(running), ..State::default() };
            peer.sees(gateway).then(|| (gateway.as_str().into(), state))
        };
        let states = peer.held.iter().filter_map(running).collect();
        let (sent, last, complete) = (BTreeMap::new(), None, false);
        self.connected += 1;
        self.connections.insert(self.connected, Connection { peer, since, sent, last, complete, states });
        Some(self.connected)
    }

    pub(super) fn disconnect(&mut self, id: u64) {
        self.connections.remove(&id);
    }

    pub(super) fn is_connected(&self, id: u64) -> bool {
        self.connections.contains_key(&id)
    }

    /// What somebody is to be told; from here on it counts as told.
    pub(super) fn next(&mut self, id: u64) -> Option<Next> {
        let connection = self.connections.get_mut(&id)?;
        let Connection { peer, sent, last, complete, states, .. } = connection;
        let news = |(gateway, stored): &(&Arc<str>, &Arc<Stored>)| {
            sent.get(*gateway) != Some(&(stored.generation, stored.sha256)) && peer.sees(gateway)
        };
        let after = last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.stored.range::<Arc<str>, _>((after, Bound::Unbounded));
        let stored = later.chain(self.stored.iter()).find(news).map(|(_, stored)| Arc::clone(stored));
        if let Some(stored) = stored {
            let known = (stored.generation, stored.sha256);
            let has = peer.held.get(&*stored.gateway).map(|(_, sha256)| *sha256);
            let before = sent.insert(Arc::clone(&stored.gateway), known).map(|(_, sha256)| sha256);
            // What it is still busy with, or refused, it may not have by then.
            let held = has == Some(stored.sha256) && before.is_none_or(|before| Some(before) == has);
            *last = Some(Arc::clone(&stored.gateway));
            return Some(Next::Edition { held, stored });
        }
        let gone = |gateway: &str| !self.stored.contains_key(gateway);
        let told = sent.keys().find(|gateway| gone(gateway)).cloned();
        let brought = || {
            let mut names = peer.held.keys();
            names.find(|name| !sent.contains_key(name.as_str())).map(|name| name.as_str().into())
        };
        if let Some(gateway) = told.or_else(brought) {
            sent.remove(&gateway);
            states.remove(&gateway);
            peer.held.remove(&*gateway);
            return Some(Next::Withdrawal(gateway));
        }
        (!std::mem::replace(complete, true)).then_some(Next::Complete)
    }

    /// Takes note of what somebody says. What is about no edition that it was told last is no news.
    pub(super) fn note(&mut self, id: u64, verdict: Verdict) -> bool {
        let Verdict { gateway, generation, sha256, in_force, problems } = verdict;
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let Some((name, told)) = connection.sent.get_key_value(gateway.as_str()) else { return false };
        if *told != (generation, sha256) {
            return false;
        }
        let name = Arc::clone(name);
        let state = connection.states.entry(Arc::clone(&name)).or_default();
        if in_force {
            connection.peer.held.insert(gateway, (generation, sha256));
            state.running = Some(Running { gateway: name, generation, problems });
            (state.confirmed, state.refused) = (true, None);
        } else {
            state.refused = Some((generation, problems));
        }
        true
    }

    /// How far those who serve a Gateway are with that generation or a later one.
    pub(super) fn taken(&self, gateway: &str, generation: u64) -> Taken {
        let mut taken = Taken::default();
        for connection in self.connections.values().filter(|connection| connection.peer.sees(gateway)) {
            let replica = connection.peer.replica.clone();
            let state = connection.states.get(gateway);
            let running = state.filter(|state| state.confirmed).and_then(|state| state.running.as_ref());
            let refused = state.and_then(|state| state.refused.as_ref());
            if running.is_some_and(|running| running.generation >= generation) {
                taken.in_force.push(replica);
            } else if let Some((_, problems)) = refused.filter(|(refused, _)| *refused >= generation) {
                taken.refused.push(Refusal { replica, problems: problems.clone() });
            } else {
                taken.waiting.push(replica);
            }
        }
        taken
    }

    pub(super) fn replicas(&self) -> Vec<Replica> {
        let replica = |connection: &Connection| {
            let Connection { peer, since, states, .. } = connection;
            let refused = states.iter().filter_map(|(gateway, state)| {
                let (generation, problems) = state.refused.clone()?;
                Some(Running { gateway: Arc::clone(gateway), generation, problems })
            });
            Replica {
                name: peer.replica.clone(),
                version: peer.version.clone(),
                since: *since,
                running: states.values().filter_map(|state| state.running.clone()).collect(),
                refused: refused.collect(),
            }
        };
        let mut replicas: Vec<_> = self.connections.values().map(replica).collect();
        replicas.sort_by(|a, b| (&a.name, a.since).cmp(&(&b.name, b.since)));
        replicas
    }

    /// Whether somebody who is connected serves that Gateway.
    pub(super) fn is_followed(&self, gateway: &str) -> bool {
        self.connections.values().any(|connection| connection.peer.sees(gateway))
    }
}

#[cfg(test)]
mod tests;
