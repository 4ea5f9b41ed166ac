//! The stores that all tests of stores run on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ai_gateway::quotastore::{MemoryStore, RedisOptions, RedisStore, Store, resume_snapshot, take_snapshot};
use tokio::sync::Mutex;

use crate::support::redis::Redis;
use crate::support::topology::{Cluster, Sentinels};
use crate::support::{spawn, valkey};

/// A store whose clock the test sets.
#[derive(Clone)]
pub(crate) struct Timed {
    pub(crate) store: Store,
    memory_clock: Arc<AtomicU64>,
}

impl Timed {
    pub(super) fn memory() -> Self {
        let memory_clock = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&memory_clock);
        let store = Store::Memory(MemoryStore::new(move || clock.load(Ordering::SeqCst), 1 << 16));
        Self { store, memory_clock }
    }

    /// What the next process has of a store in this one.
    pub(super) fn restarted(&self) -> Self {
        let Store::Memory(store) = &self.store else { panic!("another store outlives the process") };
        let (next, snapshot) = (Self::memory(), take_snapshot(store));
        next.set(self.memory_clock.load(Ordering::SeqCst));
        let Store::Memory(store) = &next.store else { panic!("it was made as one") };
        assert!(resume_snapshot(store, &snapshot));
        next
    }

    pub(super) fn redis(redis: &Redis) -> Self {
        Self { store: Store::Redis(connect(&redis.url())), memory_clock: Arc::default() }
    }

    pub(crate) fn set(&self, now: u64) {
        self.memory_clock.store(now, Ordering::SeqCst);
        if let Store::Redis(store) = &self.store {
            store.set_clock(now);
        }
    }
}

pub(crate) fn connect(url: &str) -> RedisStore {
    connect_with(url, &RedisOptions::default())
}

pub(super) fn connect_with(url: &str, options: &RedisOptions) -> RedisStore {
    let store = RedisStore::open(url.parse().unwrap(), options).unwrap();
    let connecting = Store::Redis(store.clone());
    spawn(async move { connecting.connect().await });
    store
}

/// Servers under Sentinels and a Cluster, for as long as any test uses them.
pub(super) struct Topologies {
    sentinels: Sentinels,
    cluster: Cluster,
}

impl Topologies {
    /// Those of the tests that run at the same time, or new ones. `None` where there is no Redis.
    pub(super) async fn get() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Topologies>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(all) = shared.upgrade() {
            return Some(all);
        }
        // Nothing fails over here: what a slow machine would lose by it belongs to other tests.
        let sentinels = Sentinels::start_with(1, 600_000).await?;
        let all = Arc::new(Self { sentinels, cluster: Cluster::start(0).await? });
        *shared = Arc::downgrade(&all);
        Some(all)
    }

    /// A store on each, with keys of its own: those of a cluster are now on one server, now on another.
    pub(super) fn stores(&self) -> Vec<Timed> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let of = |url: String| {
            let prefix = Some(format!("test-{}", NEXT.fetch_add(1, Ordering::SeqCst)));
            let options = RedisOptions { prefix, ..RedisOptions::default() };
            Timed { store: Store::Redis(connect_with(&url, &options)), memory_clock: Arc::default() }
        };
        vec![of(self.sentinels.url()), of(self.cluster.url())]
    }
}

/// Runs a test's body on all stores.
pub(crate) async fn on_all(body: impl AsyncFn(Timed)) {
    body(Timed::memory()).await;
    if let Some(redis) = Redis::start().await {
        body(Timed::redis(&redis)).await;
    }
    if let Some(valkey) = valkey::start().await {
        body(Timed::redis(&valkey)).await;
    }
    if let Some(all) = Topologies::get().await {
        for timed in all.stores() {
            body(timed).await;
        }
    }
}
