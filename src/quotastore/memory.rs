//! Quotas in this process: gone when it ends, unless a snapshot is kept.

mod copied;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub(super) use self::copied::Copied;
use super::{Answer, StoreError, check};
use crate::quota::ledger::{self, Bucket, CONFIRMED, Instance, Lease, Place, REMEMBERED, SLACK, Shared};
use crate::quota::{Ask, ReservationId, Settle, Settled, Verdict};

/// Steps on buckets of different shards do not wait for one another.
const SHARDS: usize = 64;
/// How many buckets there may be, and how many reservations may be known.
const MOST: usize = 1 << 20;
/// How often a shard looks for what is over, in milliseconds.
const TIDY_EVERY: u64 = 30_000;

/// A source of time in milliseconds since the Unix epoch.
#[derive(Clone)]
struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

/// Quotas in this process.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    clock: Clock,
    hasher: RandomState,
    /// How many buckets or reservations a shard may have.
    most: usize,
    /// Of reservations, by id. Locked before any of `buckets`.
    known: Vec<Mutex<Shard<ReservationId, Known>>>,
    /// By name, as are the lists. Locked in their order.
    buckets: Vec<Mutex<Buckets>>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore")
    }
}

/// What is known of a reservation.
#[derive(Debug, Clone)]
enum Known {
    Held {
        lease: Lease,
        /// Of the bucket of each part, with its window.
        names: Vec<(String, Instance)>,
    },
    /// Remembered until then.
    Settled(u64),
}

/// A part of a map.
#[derive(Debug)]
struct Shard<K, V> {
    map: HashMap<K, V>,
    tidied: u64,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), tidied: 0 }
    }
}

impl<K, V> Shard<K, V> {
    /// Forgets what is over, now and then; always if there is no room for more.
    /// Says whether it did.
    fn tidy(&mut self, now: u64, most: usize, keep: impl Fn(&mut V) -> bool) -> bool {
        let since = now.saturating_sub(self.tidied);
        let due = since >= TIDY_EVERY || now < self.tidied || (self.map.len() >= most && since >= 1000);
        if due {
            self.tidied = now;
            self.map.retain(|_, value| keep(value));
        }
        due
    }
}

#[derive(Debug, Default)]
struct Buckets {
    buckets: Shard<String, Bucket>,
    lists: HashMap<String, Subjects>,
    /// Since [`MemoryStore::changed`] was last asked.
    changed: bool,
}

/// The subjects of a limit that have buckets of their own.
#[derive(Debug)]
struct Subjects {
    window: Instance,
    /// Until when each counts.
    until: HashMap<String, u64>,
    order: BTreeSet<(u64, String)>,
}

impl Subjects {
    fn new(window: Instance) -> Self {
        Self { window, until: HashMap::new(), order: BTreeSet::new() }
    }

    fn forget(&mut self, now: u64) {
        while let Some((_, name)) = self.order.first().filter(|(until, _)| *until <= now).cloned() {
            self.order.pop_first();
            self.until.remove(&name);
        }
    }

    fn touch(&mut self, name: &str, until: u64) {
        match self.until.entry(name.to_owned()) {
            Entry::Occupied(known) if *known.get() >= until => {}
            Entry::Occupied(mut known) => {
                self.order.remove(&(*known.get(), name.to_owned()));
                known.insert(until);
                self.order.insert((until, name.to_owned()));
            }
            Entry::Vacant(new) => {
                new.insert(until);
                self.order.insert((until, name.to_owned()));
            }
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(wall_clock, MOST)
    }
}

/// The system's time.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl MemoryStore {
    /// An empty one with a clock of its own, and room for that many buckets, and as many reservations.
    pub fn new(clock: impl Fn() -> u64 + Send + Sync + 'static, most: usize) -> Self {
        let shards = |_| Mutex::default();
        Self(Arc::new(Inner {
            clock: Clock(Arc::new(clock)),
            hasher: RandomState::new(),
            most: most.div_ceil(SHARDS).max(1),
            known: (0..SHARDS).map(|_| Mutex::default()).collect(),
            buckets: (0..SHARDS).map(shards).collect(),
        }))
    }

    /// The time.
    pub(super) fn now(&self) -> u64 {
        (self.0.clock.0)()
    }

    pub(super) fn reserve(&self, ask: &Ask) -> Result<Answer, StoreError> {
        check(&ask.claims.iter().collect::<Vec<_>>())?;
        let now = self.now();
        let mut known = self.known(&ask.id, now)?;
        let before = match known.map.get(&ask.id) {
            Some(Known::Settled(_)) => return Err(StoreError::Ended),
            Some(Known::Held { lease, names }) => Some((lease.clone(), names.clone())),
            None => None,
        };
        if let Some((lease, names)) = before {
            let mut locked = self.lock(names.iter().map(|(name, _)| name.as_str()), now);
            let mut buckets = locked.take(&names, usize::MAX)?;
            let grant = ledger::again(ask, &lease, now, &mut buckets);
            locked.put(&names, buckets);
            return Ok(Answer { verdict: Verdict::Granted(grant), overflowed: 0 });
        }
        if known.map.len() >= self.0.most {
            return Err(StoreError::Full);
        }
        let stale = StoreError::Stale { now };
        let places = ask.claims.iter().map(|claim| Some(Place::new(claim, claim.window.at(now)?)));
        let places: Vec<Place> = places.collect::<Option<_>>().ok_or(stale)?;
        let mut locked = self.lock(places.iter().flat_map(Place::names), now);
        let names: Vec<_> = places.iter().map(|place| (locked.choose(place, now), place.window)).collect();
        let overflowed = overflowed(&places, &names);
        let mut buckets = locked.take(&names, self.0.most)?;
        let verdict = match ledger::reserve(ask, now, &mut buckets) {
            Ok((lease, grant)) => {
                locked.list(&places, &names, lease.slot.saturating_mul(1000));
                known.map.insert(ask.id, Known::Held { lease, names: names.clone() });
                Verdict::Granted(grant)
            }
            Err(refusal) => Verdict::Refused(refusal),
        };
        locked.put(&names, buckets);
        Ok(Answer { verdict, overflowed })
    }

    pub(super) fn renew(&self, leases: &[(ReservationId, u64)]) -> Vec<bool> {
        let now = self.now();
        let renew = |(id, length): &(ReservationId, u64)| {
            let mut known = lock(self.known_shard(id));
            let Some(Known::Held { lease, names }) = known.map.get_mut(id) else { return false };
            let mut locked = self.lock(names.iter().map(|(name, _)| name.as_str()), now);
            let Ok(mut buckets) = locked.take(names, usize::MAX) else { return false };
            let alive = ledger::renew(lease, u128::from(*length), now, &mut buckets);
            locked.put(names, buckets);
            alive
        };
        leases.iter().map(renew).collect()
    }

    pub(super) fn settle(&self, settle: &Settle) -> Result<Settled, StoreError> {
        check(&settle.spent.iter().map(|(claim, _)| claim).collect::<Vec<_>>())?;
        let now = self.now();
        let spent: Vec<u64> = settle.spent.iter().map(|(_, spent)| *spent).collect();
        let mut known = lock(self.known_shard(&settle.id));
        let settled = match known.map.get(&settle.id) {
            Some(Known::Settled(_)) => return Ok(Settled::Before),
            Some(Known::Held { lease, names }) => {
                let mut locked = self.lock(names.iter().map(|(name, _)| name.as_str()), now);
                let mut buckets = locked.take(names, usize::MAX)?;
                ledger::settle(lease, &spent, now, &mut buckets);
                locked.put(names, buckets);
                Settled::Done
            }
            None => {
                let claims = settle.spent.iter().map(|(claim, _)| claim);
                let places: Vec<Place> =
                    claims.map(|claim| Place::new(claim, claim.window.at_or_last(now))).collect();
                let mut locked = self.lock(places.iter().flat_map(Place::names), now);
                let names: Vec<_> =
                    places.iter().map(|place| (locked.choose(place, now), place.window)).collect();
                let mut buckets = locked.take(&names, usize::MAX)?;
                ledger::charge(&spent, now, &mut buckets);
                locked.list(&places, &names, now);
                locked.put(&names, buckets);
                Settled::Unreserved
            }
        };
        known.map.insert(settle.id, Known::Settled(now.saturating_add(REMEMBERED)));
        Ok(settled)
    }

    pub(super) fn confirm(&self, ids: &[ReservationId]) {
        let until = self.now().saturating_add(CONFIRMED);
        for id in ids {
            let mut known = lock(self.known_shard(id));
            if let Some(Known::Settled(remembered)) = known.map.get_mut(id) {
                *remembered = until.min(*remembered);
            }
        }
    }

    fn known_shard(&self, id: &ReservationId) -> &Mutex<Shard<ReservationId, Known>> {
        shard(&self.0.known, self.0.hasher.hash_one(id))
    }

    /// The shard of an id, rid of what is over.
    fn known(
        &self,
        id: &ReservationId,
        now: u64,
    ) -> Result<MutexGuard<'_, Shard<ReservationId, Known>>, StoreError> {
        let mut known = lock(self.known_shard(id));
        // What was confirmed is remembered as long as there is room: nobody can ask for it again but by a defect.
        let comfortable = self.0.most / 4 * 3;
        let settled = if known.map.len() >= comfortable { now.saturating_add(CONFIRMED) } else { now };
        known.tidy(now, comfortable, |known| match known {
            Known::Held { lease, .. } => lease.slot.saturating_mul(1000).saturating_add(REMEMBERED) > now,
            Known::Settled(until) => *until > settled,
        });
        Ok(known)
    }

    /// Locks the shards of those names, in the order of all shards.
    fn lock<'a>(&self, names: impl Iterator<Item = &'a str>, now: u64) -> Locked<'_> {
        let indexes: BTreeSet<usize> = names.map(|name| self.index(name)).collect();
        let guards = indexes.into_iter().filter_map(|index| {
            let mut shard = lock(self.0.buckets.get(index)?);
            let tidied = shard.buckets.tidy(now, self.0.most, |bucket| {
                bucket.sweep(now);
                bucket.over_at().saturating_add(SLACK) > now
            });
            if tidied {
                shard.lists.retain(|_, subjects| {
                    subjects.forget(now);
                    !subjects.until.is_empty()
                });
            }
            Some((index, shard))
        });
        Locked { store: self, guards: guards.collect() }
    }

    fn index(&self, name: &str) -> usize {
        index(self.0.hasher.hash_one(name))
    }
}

fn index(hash: u64) -> usize {
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

/// There are [`SHARDS`] of them.
fn shard<T>(shards: &[T], hash: u64) -> &T {
    #[expect(clippy::indexing_slicing, reason = "the index is below their number")]
    &shards[index(hash)]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// All names it may come to use.
    fn names(&self) -> impl Iterator<Item = &str> {
        let shared = self.shared.iter().flat_map(|shared| [shared.overflow.as_str(), shared.list.as_str()]);
        std::iter::once(self.own.as_str()).chain(shared)
    }
}

fn overflowed(places: &[Place], names: &[(String, Instance)]) -> u64 {
    places.iter().zip(names).map(|(place, (name, _))| u64::from(*name != place.own)).sum()
}

/// The shards of one step.
struct Locked<'a> {
    store: &'a MemoryStore,
    guards: Vec<(usize, MutexGuard<'a, Buckets>)>,
}

impl Locked<'_> {
    fn of(&mut self, name: &str) -> Option<&mut Buckets> {
        let index = self.store.index(name);
        self.guards.iter_mut().find(|(of, _)| *of == index).map(|(_, guard)| &mut **guard)
    }

    /// The bucket that a claim is paid into.
    fn choose(&mut self, place: &Place, now: u64) -> String {
        let Some(Shared { overflow, list, most }) = &place.shared else { return place.own.clone() };
        // What clients choose takes half of the room at most, so that there is always some for what they do not.
        let half = self.store.0.most / 2;
        let fits = |shard: &mut Buckets| {
            shard.buckets.map.len() < half || shard.buckets.map.contains_key(&place.own)
        };
        if !self.of(&place.own).is_some_and(fits) {
            return overflow.clone();
        }
        let Some(shard) = self.of(list) else { return overflow.clone() };
        let Some(subjects) = shard.lists.get_mut(list) else {
            return if *most > 0 { place.own.clone() } else { overflow.clone() };
        };
        subjects.forget(now);
        let room = subjects.until.len() < usize::try_from(*most).unwrap_or(usize::MAX);
        if room || subjects.until.contains_key(&place.own) { place.own.clone() } else { overflow.clone() }
    }

    /// Counts the subjects that have buckets of their own.
    fn list(&mut self, places: &[Place], names: &[(String, Instance)], at: u64) {
        for (place, (name, window)) in places.iter().zip(names) {
            if let Some(shared) = &place.shared
                && *name == place.own
                && let Some(shard) = self.of(&shared.list)
            {
                let subjects =
                    shard.lists.entry(shared.list.clone()).or_insert_with(|| Subjects::new(*window));
                subjects.touch(name, window.over_after(at));
            }
        }
    }

    /// Takes the buckets out, to be put back after the step.
    fn take(&mut self, names: &[(String, Instance)], most: usize) -> Result<Vec<Bucket>, StoreError> {
        let full = names.iter().any(|(name, _)| {
            self.of(name)
                .is_none_or(|shard| shard.buckets.map.len() >= most && !shard.buckets.map.contains_key(name))
        });
        if full {
            return Err(StoreError::Full);
        }
        let take = |(name, window): &(String, Instance)| {
            self.of(name)
                .and_then(|shard| shard.buckets.map.remove(name))
                .unwrap_or_else(|| Bucket::new(*window))
        };
        Ok(names.iter().map(take).collect())
    }

    fn put(&mut self, names: &[(String, Instance)], buckets: Vec<Bucket>) {
        for ((name, _), bucket) in names.iter().zip(buckets) {
            if let Some(shard) = self.of(name) {
                shard.changed = true;
                if !bucket.is_empty() {
                    shard.buckets.map.insert(name.clone(), bucket);
                }
            }
        }
    }
}
