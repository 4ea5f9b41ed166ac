//! Everything that is watched, as it was last seen.
//!
//! Each watch is a *stream* of its own: a kind in a namespace, or in all of them. What it shows while it begins anew is held back until
//! that is whole, so that a watch that breaks off takes nothing away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::object::{Name, Stored};

/// The objects of a kind.
pub(super) type Objects = BTreeMap<Name, Arc<Stored>>;

/// A watch: a kind, and what it is narrowed to (a namespace, or the name of an object).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stream {
    pub(super) kind: &'static str,
    pub(super) narrowed: Option<Name>,
}

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Told {
    /// It begins anew.
    Init,
    /// An object that was there when it began.
    Found(Stored),
    /// All of those have been told.
    Ready,
    /// An object came, or changed.
    Changed(Stored),
    /// An object went.
    Gone(Name),
    /// The API server does not know the kind, or does not show it.
    Absent,
}

impl std::fmt::Debug for Stored {
    /// Its name alone: it may be a Secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stored").field(&self.name()).finish()
    }
}

/// All that is known at a moment.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    kinds: BTreeMap<&'static str, Arc<Objects>>,
    /// Counts changes.
    pub(super) version: u64,
}

impl View {
    /// The objects of a kind.
    pub(super) fn kind(&self, kind: &str) -> impl Iterator<Item = (&Name, &Arc<Stored>)> {
        self.kinds.get(kind).into_iter().flat_map(|objects| objects.iter())
    }

    /// An object.
    pub(super) fn get(&self, kind: &str, name: &Name) -> Option<&Arc<Stored>> {
        self.kinds.get(kind)?.get(name)
    }

    /// All objects.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Name, &Arc<Stored>)> {
        self.kinds
            .iter()
            .flat_map(|(kind, objects)| objects.iter().map(|(name, stored)| (*kind, name, stored)))
    }

    #[cfg(test)]
    pub(super) fn of(objects: impl IntoIterator<Item = serde_json::Value>) -> Self {
        let store = Store::default();
        for value in objects {
            let kind = value["kind"].as_str().unwrap();
            let known = super::kinds::find(kind).unwrap_or_else(|| panic!("{kind} is not watched"));
            let version = value["apiVersion"].as_str().unwrap().to_owned();
            let stored = Stored::new(value, (known.kind, &version), known.is_input());
            store.tell(&Stream { kind: known.kind, narrowed: None }, Told::Changed(stored));
        }
        store.view()
    }
}

#[derive(Debug, Default)]
struct State {
    view: View,
    streams: BTreeMap<Stream, Begun>,
    /// When the first change came that no view has shown yet.
    dirty_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Begun {
    /// Whether all of it has been seen once, or it is known that there is nothing.
    ready: bool,
    /// What was found since it began anew; nothing while it runs.
    found: Option<Objects>,
    /// What it has put into the view.
    names: BTreeSet<Name>,
}

/// The store. Shared by the watches, which tell it things, and by whoever looks.
#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self { state: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl Store {
    /// All that is known.
    pub(super) fn view(&self) -> View {
        self.with(|state| {
            state.dirty_since = None;
            state.view.clone()
        })
    }

    /// As [`Store::view`], by somebody who compiles nothing of it.
    pub(super) fn view_quietly(&self) -> View {
        self.with(|state| state.view.clone())
    }

    /// Follows the number of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How long the oldest change waits that no [`Store::view`] has shown.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.with(|state| state.dirty_since)
    }

    /// Streams that have not shown all they have yet; none of [`Stream`]s that were never expected.
    pub(super) fn unready(&self) -> Vec<Stream> {
        self.with(|state| {
            let unready = state.streams.iter().filter(|(_, begun)| !begun.ready);
            unready.map(|(stream, _)| stream.clone()).collect()
        })
    }

    /// Waits for a stream before the store counts as complete: for a new one, or for one that is begun anew because it is to show
    /// more.
    pub(super) fn expect(&self, stream: Stream) {
        self.with(|state| state.streams.entry(stream).or_default().ready = false);
    }

    /// Takes in the answer to a write of ours, before the watch tells of it.
    pub(super) fn learn(&self, kind: &'static str, stored: Stored) {
        let name = stored.name();
        let covers = |stream: &&Stream| {
            let narrowed = stream.narrowed.as_ref();
            stream.kind == kind && narrowed.is_none_or(|narrowed| narrowed.0 == name.0)
        };
        let stream = self.with(|state| state.streams.keys().find(covers).cloned());
        if let Some(stream) = stream {
            self.tell(&stream, Told::Changed(stored));
        }
    }

    /// Whether a stream has shown nothing, so far.
    pub(super) fn is_empty(&self, stream: &Stream) -> bool {
        self.with(|state| state.streams.get(stream).is_none_or(|begun| begun.names.is_empty()))
    }

    /// Forgets a stream and what it has shown.
    pub(super) fn forget(&self, stream: &Stream) {
        self.change(|state| {
            let Some(begun) = state.streams.remove(stream) else { return false };
            let mut changed = false;
            for name in begun.names {
                changed |= remove(&mut state.view, stream.kind, &name);
            }
            changed
        });
    }

    /// Takes in what a watch tells.
    pub(super) fn tell(&self, stream: &Stream, told: Told) {
        self.change(|state| {
            let State { view, streams, .. } = state;
            let begun = streams.entry(stream.clone()).or_default();
            match told {
                Told::Init => {
                    begun.found = Some(Objects::new());
                    false
                }
                Told::Found(stored) => {
                    begun.found.get_or_insert_default().insert(stored.name(), Arc::new(stored));
                    false
                }
                Told::Ready => {
                    let found = begun.found.take().unwrap_or_default();
                    let mut changed = !std::mem::replace(&mut begun.ready, true);
                    for name in std::mem::take(&mut begun.names) {
                        changed |= !found.contains_key(&name) && remove(view, stream.kind, &name);
                    }
                    begun.names = found.keys().cloned().collect();
                    for (name, stored) in found {
                        changed |= insert(view, stream.kind, name, stored);
                    }
                    changed
                }
                Told::Changed(stored) => {
                    let name = stored.name();
                    begun.names.insert(name.clone());
                    insert(view, stream.kind, name, Arc::new(stored))
                }
                Told::Gone(name) => begun.names.remove(&name) && remove(view, stream.kind, &name),
                Told::Absent => {
                    begun.found = None;
                    let mut changed = !std::mem::replace(&mut begun.ready, true);
                    for name in std::mem::take(&mut begun.names) {
                        changed |= remove(view, stream.kind, &name);
                    }
                    changed
                }
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State) -> bool) {
        let version = self.with(|state| {
            change(state).then(|| {
                state.view.version += 1;
                state.dirty_since.get_or_insert_with(Instant::now);
                state.view.version
            })
        });
        if let Some(version) = version {
            self.changes.send_replace(version);
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn insert(view: &mut View, kind: &'static str, name: Name, mut stored: Arc<Stored>) -> bool {
    let objects = view.kinds.entry(kind).or_default();
    if let Some(known) = objects.get(&name) {
        // The answer to a write of ours may be here before the watch tells of what was before it.
        if *known == stored || known.is_later_than(&stored) {
            return false;
        }
        Arc::make_mut(&mut stored).share_text(known);
    }
    Arc::make_mut(objects).insert(name, stored);
    true
}

fn remove(view: &mut View, kind: &'static str, name: &Name) -> bool {
    let Some(objects) = view.kinds.get_mut(kind).filter(|objects| objects.contains_key(name)) else {
        return false;
    };
    Arc::make_mut(objects).remove(name);
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(name: &str, version: &str) -> Stored {
        let value = json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": version}});
        Stored::new(value, ("Gateway", "v1"), true)
    }

    fn stream() -> Stream {
        Stream { kind: "Gateway", narrowed: None }
    }

    fn names(store: &Store) -> Vec<String> {
        store.view().kind("Gateway").map(|((_, name), _)| name.clone()).collect()
    }

    #[test]
    fn a_watch_that_begins_anew_takes_nothing_away_before_it_is_whole() {
        let store = Store::default();
        store.expect(stream());
        assert_eq!(store.unready(), [stream()]);
        for told in [Told::Init, Told::Found(gateway("a", "1")), Told::Found(gateway("b", "1"))] {
            store.tell(&stream(), told);
        }
        assert!(names(&store).is_empty() && !store.unready().is_empty());
        store.tell(&stream(), Told::Ready);
        assert_eq!(names(&store), ["a", "b"]);
        assert!(store.unready().is_empty());
        // 410 Gone: everything is listed again, and breaks off once.
        store.tell(&stream(), Told::Init);
        store.tell(&stream(), Told::Found(gateway("c", "2")));
        store.tell(&stream(), Told::Init);
        assert_eq!(names(&store), ["a", "b"]);
        store.tell(&stream(), Told::Found(gateway("b", "1")));
        store.tell(&stream(), Told::Ready);
        assert_eq!(names(&store), ["b"]);
    }

    #[test]
    fn only_changes_are_told() {
        let store = Store::default();
        let changes = store.changes();
        store.tell(&stream(), Told::Changed(gateway("a", "1")));
        let version = *changes.borrow();
        store.tell(&stream(), Told::Changed(gateway("a", "1")));
        store.tell(&stream(), Told::Gone(("n".to_owned(), "b".to_owned())));
        assert_eq!(*changes.borrow(), version);
        assert!(store.waiting_since().is_some());
        drop(store.view());
        assert!(store.waiting_since().is_none());
        store.tell(&stream(), Told::Changed(gateway("a", "2")));
        assert_eq!(*changes.borrow(), version + 1);
    }

    #[test]
    fn streams_of_one_kind_do_not_take_from_each_other() {
        let store = Store::default();
        let other = Stream { kind: "Gateway", narrowed: Some(("m".to_owned(), String::new())) };
        store.tell(&stream(), Told::Changed(gateway("a", "1")));
        for told in [Told::Init, Told::Found(gateway("b", "1")), Told::Ready] {
            store.tell(&other, told);
        }
        assert_eq!(names(&store), ["a", "b"]);
        store.tell(&other, Told::Absent);
        assert_eq!(names(&store), ["a"]);
        store.tell(&other, Told::Changed(gateway("b", "2")));
        store.forget(&other);
        assert_eq!(names(&store), ["a"]);
    }

    #[test]
    fn what_is_older_than_what_is_known_is_passed_over() {
        let store = Store::default();
        for version in ["9", "10", "9"] {
            store.tell(&stream(), Told::Changed(gateway("a", version)));
        }
        let name = ("n".to_owned(), "a".to_owned());
        let first = store.view();
        let first = first.get("Gateway", &name).unwrap();
        assert_eq!(first.version(), "10");
        // A text that did not change is the very same one.
        store.tell(&stream(), Told::Changed(gateway("a", "11")));
        let second = store.view();
        let second = second.get("Gateway", &name).unwrap();
        assert!(Arc::ptr_eq(first.text().unwrap(), second.text().unwrap()));
    }

    #[test]
    fn a_view_stays_as_it_was() {
        let store = Store::default();
        store.tell(&stream(), Told::Changed(gateway("a", "1")));
        let view = store.view();
        store.tell(&stream(), Told::Gone(("n".to_owned(), "a".to_owned())));
        assert_eq!(view.kind("Gateway").count(), 1);
        assert!(names(&store).is_empty());
    }
}
