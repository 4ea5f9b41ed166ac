//! All keys of a store, in memory: what requests ask.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::record::Hashed;
use super::steps::{self, Step};
use super::{Grant, KeyId, NotAKey, Presented, Record, Standing, Timestamp};

/// A change copies a shard: with 100,000 keys that is 400 pointers.
const SHARDS: usize = 256;

/// A part of all keys.
#[derive(Debug, Clone, Default)]
struct Shard {
    places: HashMap<KeyId, usize>,
    records: Vec<Arc<Record>>,
}

impl Shard {
    /// The record of that id; else another one, so that the same memory is looked at, and that it is another one.
    fn find(&self, id: &[u8], number: u64) -> (Option<&Arc<Record>>, bool) {
        steps::took(Step::Find(id.len()));
        let place = self.places.get(id).copied();
        // Below the length, whatever the width of usize.
        let other = number.checked_rem(self.records.len() as u64).unwrap_or_default() as usize;
        (self.records.get(place.unwrap_or(other)), place.is_some())
    }

    fn put(&mut self, record: Record) {
        let (id, record) = (record.id, Arc::new(record));
        match self.places.get(&id) {
            Some(place) => self.records[*place] = record,
            None => {
                self.places.insert(id, self.records.len());
                self.records.push(record);
            }
        }
    }

    fn take(&mut self, id: KeyId) {
        let Some(place) = self.places.remove(&id) else { return };
        self.records.swap_remove(place);
        if let Some(moved) = self.records.get(place) {
            self.places.insert(moved.id, place);
        }
    }
}

/// All keys of a store. Requests read it without waiting for anybody, while it is changed.
///
/// It is as old as the store was last heard of: beyond `stale_after` nobody is let in.
pub struct Index {
    shards: Vec<ArcSwap<Shard>>,
    hasher: RandomState,
    /// When all that was in the store was here; nothing before the first time.
    confirmed: ArcSwapOption<Instant>,
    /// Why the store is not heard of, since it is not.
    problem: ArcSwapOption<String>,
    stale_after: Duration,
    /// What a key is held to that is not there, where no other is.
    decoy: Arc<Record>,
}

/// Why a key that was shown is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its text tells.
    #[error("{0}")]
    NotAKey(NotAKey),
    /// The client is not told why: that is for the log.
    #[error("this key is not valid")]
    Refused(Reason),
    /// Nobody knows: the store has been away for too long.
    #[error("keys cannot be checked at present; try again shortly")]
    Unavailable,
}

/// Why a key is not valid. For the operator alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none with that id and secret.
    Unknown,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
    /// It is for other gateways.
    Elsewhere,
}

/// How the store of an [`Index`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// How many keys are known.
    pub keys: usize,
    /// How long ago the store was last heard of; nothing if it never was.
    pub age: Option<Duration>,
    /// How long the keys that are known are good still, should the store stay away; nothing if nobody is let in.
    pub serves_for: Option<Duration>,
    /// Why it is not heard of; nothing while it is.
    pub problem: Option<Arc<String>>,
}

impl fmt::Display for Status {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, age, serves_for, problem } = self;
        match (problem, age) {
            (None, Some(_)) => write!(f, "{keys} keys are in step with their store"),
            (None, None) => f.write_str("the keys have not come from their store yet"),
            (Some(problem), _) => {
                f.write_str("the store of keys is away")?;
                match (age, serves_for) {
                    (None, _) => f.write_str(" and never was there: nobody with a key is let in")?,
                    (Some(age), None) => {
                        write!(f, " for {} s: nobody with a key is let in any more", age.as_secs())?;
                    }
                    (Some(age), Some(left)) => write!(
                        f,
                        " for {} s; the {keys} keys that are known serve for {} s more",
                        age.as_secs(),
                        left.as_secs()
                    )?,
                }
                write!(f, " ({problem})")
            }
        }
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("keys", &self.len()).field("stale_after", &self.stale_after).finish()
    }
}

impl Index {
    /// An index without keys, of a store nobody has heard of yet.
    pub fn new(stale_after: Duration) -> Self {
        let decoy = Record {
            id: KeyId::none(),
            hash: Hashed::of_nothing(),
            created: Timestamp::of(SystemTime::UNIX_EPOCH),
            revoked: None,
            rotated_from: None,
            rotated_to: None,
            retires: None,
            grant: Grant::named("none"),
        };
        Self {
            shards: std::iter::repeat_with(ArcSwap::default).take(SHARDS).collect(),
            hasher: RandomState::new(),
            confirmed: ArcSwapOption::empty(),
            problem: ArcSwapOption::empty(),
            stale_after,
            decoy: Arc::new(decoy),
        }
    }

    /// The record of the key that was shown, if it is valid.
    ///
    /// A key that is not there, one with another secret, one that was taken back and one that has expired cost the same work:
    /// one look, one hash, one comparison, and every reason looked at. A key that is not there is held to the record of another,
    /// so that memory is as cold as for one that is.
    pub fn verify(&self, text: &[u8], wall: SystemTime, monotonic: Instant) -> Result<Arc<Record>, Refusal> {
        let key = Presented::parse(text).map_err(Refusal::NotAKey)?;
        let confirmed = self.confirmed.load();
        let fresh = confirmed
            .as_ref()
            .is_some_and(|at| monotonic.saturating_duration_since(**at) <= self.stale_after);
        if !fresh {
            return Err(Refusal::Unavailable);
        }
        let number = self.hasher.hash_one(key.id());
        let shard = self.shard(number).load();
        let (found, is_known) = shard.find(key.id(), number / SHARDS as u64);
        let record = found.unwrap_or(&self.decoy);
        let same = bool::from(record.hash.is_of(key.text())) & is_known;
        let standing = record.standing(wall);
        match (same, standing) {
            (true, Standing::Active | Standing::Retiring) => Ok(Arc::clone(record)),
            (true, Standing::Expired) => Err(Refusal::Refused(Reason::Expired)),
            (true, Standing::Revoked) => Err(Refusal::Refused(Reason::Revoked)),
            (false, _) => Err(Refusal::Refused(Reason::Unknown)),
        }
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().records.len()).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts records in the place of those with the same ids. For one writer at a time.
    pub fn apply(&self, records: impl IntoIterator<Item = Record>) {
        let mut parts: HashMap<usize, Vec<Record>> = HashMap::new();
        for record in records {
            parts.entry(self.place(record.id.as_str().as_bytes())).or_default().push(record);
        }
        for (place, records) in parts {
            let mut shard = Shard::clone(&self.shards[place].load());
            records.into_iter().for_each(|record| shard.put(record));
            self.shards[place].store(Arc::new(shard));
        }
    }

    /// Takes keys out. For one writer at a time.
    pub fn remove(&self, ids: &[KeyId]) {
        for id in ids {
            let shard = &self.shards[self.place(id.as_str().as_bytes())];
            let mut kept = Shard::clone(&shard.load());
            kept.take(*id);
            shard.store(Arc::new(kept));
        }
    }

    /// Makes it hold these records and no others. For one writer at a time. A key that is in both is valid throughout.
    pub fn replace(&self, records: impl IntoIterator<Item = Record>) {
        let mut shards: Vec<Shard> = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        for record in records {
            shards[self.place(record.id.as_str().as_bytes())].put(record);
        }
        for (shard, fresh) in self.shards.iter().zip(shards) {
            shard.store(Arc::new(fresh));
        }
    }

    /// Says that at `at` all that was in the store was here.
    pub fn confirm(&self, at: Instant) {
        self.confirmed.store(Some(Arc::new(at)));
        self.problem.store(None);
    }

    /// Says why the store is not heard of. Holds until it is confirmed again.
    pub fn lost(&self, problem: String) {
        self.problem.store(Some(Arc::new(problem)));
    }

    /// How the store is, as far as it is known at `now`.
    pub fn status(&self, now: Instant) -> Status {
        let age = self.confirmed().map(|at| now.saturating_duration_since(at));
        Status {
            keys: self.len(),
            age,
            serves_for: age.map(|age| self.stale_after.saturating_sub(age)).filter(|left| !left.is_zero()),
            problem: self.problem.load_full(),
        }
    }

    /// When the store was last heard of.
    pub fn confirmed(&self) -> Option<Instant> {
        self.confirmed.load().as_deref().copied()
    }

    fn shard(&self, number: u64) -> &ArcSwap<Shard> {
        // Below SHARDS, whatever the width of usize.
        &self.shards[(number % SHARDS as u64) as usize]
    }

    fn place(&self, id: &[u8]) -> usize {
        (self.hasher.hash_one(id) % SHARDS as u64) as usize
    }
}
