//! Which watches run: one for each kind (in each namespace, if only some are watched), and one for each Secret that is referred to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::kinds::{KINDS, Scope, resource};
use super::metrics::Metrics;
use super::object::Name;
use super::store::{Store, Stream};
use super::watch::{Subject, follow};

/// The kind under which the store keeps Secrets of users.
pub(super) const SECRET: &str = "Secret";
/// The kind under which the store keeps the controller's own, which are compiled into nothing.
pub(super) const OWN_SECRET: &str = "OwnSecret";

/// A namespace in which more Secrets are referred to is watched as a whole: each watch is a connection. What nobody refers to is dropped
/// as it is read.
const MOST_SINGLE: usize = 64;

/// Runs watches until dropped.
pub(super) struct Watches {
    client: Client,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    tasks: JoinSet<()>,
    secrets: BTreeMap<Stream, (BTreeSet<String>, DropGuard)>,
}

/// Where is looked.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    pub(super) system_namespace: String,
    /// Nothing: everywhere.
    pub(super) namespaces: Option<BTreeSet<String>>,
}

impl Watches {
    /// Begins to watch every kind.
    pub(super) fn start(
        client: Client,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        reach: &Reach,
        own: &[&str],
    ) -> Self {
        let mut watches = Self { client, store, metrics, tasks: JoinSet::new(), secrets: BTreeMap::new() };
        for kind in KINDS {
            let namespaces: Vec<Option<String>> = match (kind.scope, &reach.namespaces) {
                (Scope::System, _) => vec![Some(reach.system_namespace.clone())],
                (Scope::Cluster, _) | (Scope::Namespaced, None) => vec![None],
                (Scope::Namespaced, Some(namespaces)) => namespaces
                    .iter()
                    .chain([&reach.system_namespace])
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .cloned()
                    .map(Some)
                    .collect(),
            };
            for namespace in namespaces {
                let narrowed = namespace.clone().map(|namespace| (namespace, String::new()));
                let subject = Subject {
                    stream: Stream { kind: kind.kind, narrowed },
                    resources: kind.versions.iter().map(|version| kind.resource(version)).collect(),
                    namespace,
                    object: None,
                    input: kind.is_input(),
                    optional: kind.scope == Scope::Cluster && reach.namespaces.is_some(),
                };
                watches.spawn(subject, |_| true).disarm();
            }
        }
        for name in own {
            let home = (reach.system_namespace.clone(), (*name).to_owned());
            watches.spawn(secret(OWN_SECRET, home), |_| true).disarm();
        }
        watches
    }

    fn spawn(&mut self, subject: Subject, keep: impl Fn(&str) -> bool + Send + Sync + 'static) -> DropGuard {
        self.store.expect(subject.stream.clone());
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let watch =
            follow(self.client.clone(), subject, Arc::clone(&self.store), Arc::clone(&self.metrics), keep);
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch => {}
            }
        });
        guard
    }

    /// Watches these Secrets, and no others any longer.
    pub(super) fn secrets(&mut self, names: &BTreeSet<Name>) {
        let mut by_namespace: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for (namespace, name) in names {
            by_namespace.entry(namespace).or_default().insert(name.clone());
        }
        let mut wanted: BTreeMap<Stream, BTreeSet<String>> = BTreeMap::new();
        for (namespace, names) in by_namespace {
            let stream = |name: String| Stream { kind: SECRET, narrowed: Some((namespace.to_owned(), name)) };
            if names.len() > MOST_SINGLE {
                wanted.insert(stream(String::new()), names);
            } else {
                wanted.extend(names.into_iter().map(|name| (stream(name.clone()), BTreeSet::from([name]))));
            }
        }
        // Those that go are forgotten after those that come have been announced: nothing is compiled in between.
        for (stream, names) in &wanted {
            if self.secrets.get(stream).is_some_and(|(known, _)| known == names) {
                continue;
            }
            let Some(narrowed) = stream.narrowed.clone() else { continue };
            self.secrets.remove(stream);
            let kept = names.clone();
            let guard = self.spawn(secret(SECRET, narrowed), move |name| kept.contains(name));
            self.secrets.insert(stream.clone(), (names.clone(), guard));
        }
        let gone: Vec<_> =
            self.secrets.keys().filter(|stream| !wanted.contains_key(stream)).cloned().collect();
        for stream in gone {
            self.secrets.remove(&stream);
            self.store.forget(&stream);
        }
        while self.tasks.try_join_next().is_some() {}
    }
}

fn secret(kind: &'static str, (namespace, name): Name) -> Subject {
    Subject {
        stream: Stream { kind, narrowed: Some((namespace.clone(), name.clone())) },
        resources: vec![resource("", "v1", "Secret", "secrets")],
        namespace: Some(namespace),
        object: Some(name).filter(|name| !name.is_empty()),
        input: kind == SECRET,
        optional: true,
    }
}
