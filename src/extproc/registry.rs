//! Where the streams of one exchange find each other: the requests that this process has handed over to attempts, by id.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::exchange::{ExchangeId, Handover};

/// Locks are held for as long as a map takes; there are many, so that exchanges do not wait for one another.
const SHARDS: usize = 64;

/// The requests of this process that attempts may come for.
#[derive(Debug)]
pub(super) struct Registry {
    process: u64,
    next: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Handover>>>; SHARDS],
}

impl Registry {
    /// An empty one, of a process that is named by `process`.
    pub(super) fn new(process: u64) -> Self {
        Self { process, next: AtomicU64::new(1), shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// The id of a new exchange.
    pub(super) fn id(&self) -> ExchangeId {
        ExchangeId { process: self.process, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Arc<Handover>>> {
        let shard = &self.shards[(number % SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, id: ExchangeId, handover: Arc<Handover>) {
        self.shard(id.number).insert(id.number, handover);
    }

    /// The request of that exchange, if it is of this process and not over.
    pub(super) fn get(&self, id: ExchangeId) -> Option<Arc<Handover>> {
        if id.process != self.process {
            return None;
        }
        self.shard(id.number).get(&id.number).cloned()
    }

    pub(super) fn remove(&self, id: ExchangeId) {
        self.shard(id.number).remove(&id.number);
    }
}
